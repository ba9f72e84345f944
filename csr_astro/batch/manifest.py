"""Manifest of a batch: the state from which an interrupted batch goes on."""

from __future__ import annotations

import time
import warnings
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from tqdm import tqdm

from csr_astro.tables import versions
from csr_astro.utils.files import atomic_path, file_sha256

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from csr_astro.batch.jobs import Job
    from csr_astro.batch.settings import Settings

__all__ = ['MANIFEST', 'Manifest', 'describe_files']

#: Name of the file in the output folder.
MANIFEST = 'manifest.ecsv'

_OUTPUTS = ('output', 'table', 'photometry')
_COLUMNS = {
    'map': str, 'catalog': str, 'instrument': str, 'status': str, 'message': str,
    'n_sources': int, 'seconds': float, 'output': str, 'table': str, 'photometry': str,
    'fingerprint': str, 'inputs_sha256': str,
    **{f'{name}_size': int for name in _OUTPUTS}, **{f'{name}_sha256': str for name in _OUTPUTS},
}  # fmt: skip
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
    verify : bool, optional
        Whether to read all inputs and results of maps that are done: a changed one is found if
        it has the former size and time, too.
    progress : bool, optional
        Whether to show a progress bar meanwhile.

    Raises
    ------
    ValueError
        If two maps have the same output, an input would be replaced, or files of others
        would be, or the file cannot be read.

    Warns
    -----
    AstropyUserWarning
        If a result is no longer as it was written: its map is to be done again.
    """

    def __init__(
        self,
        folder: Path,
        jobs: Sequence[Job],
        settings: Settings,
        *,
        overwrite: bool,
        verify: bool = False,
        progress: bool = False,
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
        old = _read_rows(self.path, overwrite=overwrite)
        given = {row['output'] for row in self.rows}
        self.rows += [row for name, row in old.items() if name not in given]
        _refuse_clashes(folder, self.rows)
        if not overwrite:
            self._take_over(folder, old, jobs, settings, verify=verify, progress=progress)

    def _take_over(self, folder, old, jobs, settings, *, verify, progress):
        """Take over the rows of maps that an earlier run has done."""
        altered = []
        bar = tqdm(jobs, 'verify', unit='map', delay=2, disable=not (verify and progress))
        for row, job in zip(self.rows, bar, strict=False):
            before = old.get(row['output'])
            paths = {name: folder / row[name] for name in _OUTPUTS if row[name]}
            present = [path for path in paths.values() if path.exists()]
            if present and (before is None or before['map'] != row['map']):
                whose = 'of another batch' if before is None else f'that of {before["map"]!r}'
                raise ValueError(
                    f'{str(present[0])!r} exists and is {whose}; give --overwrite to replace it.'
                )
            same = before is not None and before['fingerprint'] == row['fingerprint']
            if not same or before['status'] != 'done':
                continue
            if verify and before['inputs_sha256'] != settings.inputs_sha256(job):
                continue
            wrong = [
                path
                for name, path in paths.items()
                if not _is_as_written(path, before, name, content=verify)
            ]
            altered += [path for path in wrong if path in present]
            if not wrong:
                row.update(before)
        if altered:
            warnings.warn(
                f'{str(altered[0])!r} is not as it was written'
                + f', nor are {len(altered) - 1} other results' * (len(altered) > 1)
                + ': done again.',
                AstropyUserWarning,
                stacklevel=4,
            )

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


def describe_files(folder: Path, names: dict[str, str]) -> dict[str, int | str]:
    """Return the columns of the manifest that tell whether files are as they were written.

    Parameters
    ----------
    folder : `pathlib.Path`
        Folder of the files.
    names : dict
        Names of the files, as from `~csr_astro.batch.settings.Settings.outputs`.
    """
    paths = {kind: folder / name for kind, name in names.items() if name}
    sizes = {f'{kind}_size': path.stat().st_size for kind, path in paths.items()}
    return sizes | {f'{kind}_sha256': file_sha256(path) for kind, path in paths.items()}


def _is_as_written(path, row, kind, *, content):
    """Return whether a file has the size and, if asked for, the hash of its row."""
    if not path.is_file() or path.stat().st_size != row[f'{kind}_size']:
        return False
    return not content or file_sha256(path) == row[f'{kind}_sha256']


def _read_rows(path, *, overwrite):
    """Rows of a manifest, by the name of the source-free map."""
    if not path.exists():
        return {}
    if path.is_dir():
        raise ValueError(f'{str(path)!r} is a folder, not the manifest of a batch.')
    try:
        table = Table.read(path, format='ascii.ecsv')
        if set(_COLUMNS) <= set(table.colnames):
            return {str(row['output']): _cells(row) for row in table}
        problem = f'{str(path)!r} is not the manifest of a batch'
    except Exception as error:  # noqa: BLE001
        # astropy raises errors of many kinds for half a file.
        reason = str(error).strip().partition('\n')[0].rstrip('.') or type(error).__name__
        problem = f'the manifest {str(path)!r} is damaged ({reason})'
    if overwrite:
        return {}
    raise ValueError(f'{problem}; give another folder, or --overwrite to do everything anew.')


def _cells(row):
    # astropy reads an empty text as a masked one.
    return {
        name: kind() if np.ma.is_masked(row[name]) else kind(row[name])
        for name, kind in _COLUMNS.items()
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
