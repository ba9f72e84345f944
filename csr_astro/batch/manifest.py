"""Manifest of a batch: the state from which an interrupted batch goes on."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table
from tqdm import tqdm

from csr_astro.tables import versions
from csr_astro.utils.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from csr_astro.batch.jobs import Job
    from csr_astro.batch.settings import Settings

__all__ = ['MANIFEST', 'Manifest']

#: Name of the file in the output folder.
MANIFEST = 'manifest.ecsv'

_COLUMNS = {
    'map': str, 'catalog': str, 'instrument': str, 'status': str, 'message': str,
    'n_sources': int, 'seconds': float, 'output': str, 'table': str, 'photometry': str,
    'fingerprint': str,
}  # fmt: skip
_OUTPUTS = ('output', 'table', 'photometry')
# Seconds between two versions of the file: that of a survey takes a while to write.
_SAVE_EVERY = 1.0


class Manifest:
    """Record of what became of each map, in memory and as a file.

    Maps that an earlier run has done, with the same results, are taken over from its
    file.

    Parameters
    ----------
    folder : `pathlib.Path`
        Output folder of the batch.
    jobs : list of `~csr_astro.batch.Job`
        The maps.
    settings : `~csr_astro.batch.settings.Settings`
        Arguments of the removal.
    overwrite : bool
        Whether to do everything anew, and to replace files of others.

    Raises
    ------
    ValueError
        If two maps have the same output, an input would be replaced, or files of others
        would be.
    """

    def __init__(
        self, folder: Path, jobs: Sequence[Job], settings: Settings, *, overwrite: bool
    ) -> None:
        self.path = folder / MANIFEST
        self._saved = 0.0
        self.n_jobs = len(jobs)
        self.rows: list[dict[str, Any]] = [
            {name: kind() for name, kind in _COLUMNS.items()}
            | {'map': job.map, 'catalog': job.catalog, 'instrument': job.instrument or ''}
            | {'status': 'pending', 'fingerprint': settings.fingerprint(job)}
            | settings.outputs(job)
            for job in jobs
        ]
        old = _read_rows(self.path)
        given = {row['output'] for row in self.rows}
        self.rows += [row for name, row in old.items() if name not in given]
        _refuse_clashes(folder, self.rows)
        if not overwrite:
            self._take_over(folder, old)

    def _take_over(self, folder, old):
        """Take over the rows of maps that an earlier run has done."""
        for row in self.rows[: self.n_jobs]:
            before = old.get(row['output'])
            present = [folder / row[name] for name in _OUTPUTS if row[name]]
            present = [path for path in present if path.exists()]
            if present and (before is None or before['map'] != row['map']):
                whose = 'of another batch' if before is None else f'that of {before["map"]!r}'
                raise ValueError(
                    f'{str(present[0])!r} exists and is {whose}; give --overwrite to replace it.'
                )
            complete = len(present) == sum(bool(row[name]) for name in _OUTPUTS)
            same = before is not None and before['fingerprint'] == row['fingerprint']
            if complete and same and before['status'] == 'done':
                row.update(before)

    def todo(self) -> list[int]:
        """Numbers of the maps that are not done."""
        return [i for i, row in enumerate(self.rows[: self.n_jobs]) if row['status'] != 'done']

    def table(self) -> Table:
        """Rows of the maps of this batch."""
        return self._table()[: self.n_jobs]

    def _table(self):
        columns = {name: [row[name] for row in self.rows] for name in _COLUMNS}
        table = Table(columns, dtype=list(_COLUMNS.values()), meta=versions())
        table['seconds'].unit = 's'
        return table

    def save(self, every: float = 0.0) -> None:
        """Write the file.

        Parameters
        ----------
        every : float, optional
            Seconds: a younger version is left as it is.
        """
        if time.monotonic() - self._saved >= every:
            with atomic_path(self.path) as temporary:
                self._table().write(temporary, format='ascii.ecsv', overwrite=True)
            self._saved = time.monotonic()

    def collect(
        self, work: Generator[tuple[int, dict[str, Any]]], *, progress: bool = False
    ) -> None:
        """Record what becomes of maps, until all are done or somebody stops it.

        Parameters
        ----------
        work : generator of (int, dict)
            Number of a map, and the columns of its row that change.
        progress : bool, optional
            Whether to show a progress bar.
        """
        done = self.n_jobs - len(self.todo())
        with (
            closing(work),
            tqdm(total=self.n_jobs, initial=done, unit='map', disable=not progress) as bar,
        ):
            try:
                for i, outcome in work:
                    self.rows[i].update(outcome)
                    self.save(every=_SAVE_EVERY)
                    failed = sum(row['status'] == 'failed' for row in self.rows[: self.n_jobs])
                    bar.set_postfix({'failed': failed} if failed else {}, refresh=False)
                    bar.update()
            finally:
                self.save()


def _read_rows(path):
    """Rows of a manifest, by the name of the source-free map."""
    if not path.exists():
        return {}
    table = Table.read(path, format='ascii.ecsv')
    if not set(_COLUMNS) <= set(table.colnames):
        raise ValueError(f'{str(path)!r} is not the manifest of a batch; give another folder.')
    return {
        str(row['output']): {
            # astropy reads an empty text as a masked one.
            name: kind() if np.ma.is_masked(row[name]) else kind(row[name])
            for name, kind in _COLUMNS.items()
        }
        for row in table
    }


def _refuse_clashes(folder, rows):
    """Raise an error if two maps would write to one file, or one to an input."""
    owners = {MANIFEST: 'the manifest'}
    inputs = {row[name] for row in rows for name in ('map', 'catalog')}
    for row in rows:
        for name in filter(None, (row[kind] for kind in _OUTPUTS)):
            if name in owners:
                raise ValueError(
                    f'{owners[name]} and {row["map"]} would both be written to {name!r}; name the '
                    'outputs in a table of maps, column output.'
                )
            if str(folder / name) in inputs:
                raise ValueError(f'{str(folder / name)!r} would be replaced, and is an input.')
            owners[name] = row['map']
