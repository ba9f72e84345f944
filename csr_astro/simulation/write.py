"""Simulations of several fields, written as maps with tables and as a dataset of cutouts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from astropy import units as u
from astropy.table import Table

from csr_astro.instruments import get_instrument, identify_instrument
from csr_astro.simulation.dataset import split_fields, write_dataset
from csr_astro.simulation.simulate import simulate_levels
from csr_astro.tables import write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from csr_astro.typing import PathLike

__all__ = ['FIELDS', 'Written', 'write_simulations']


#: Table of the fields of a folder of simulations: numbers of sources and fluxes, as the paper's
#: Tables 6 to 8.
FIELDS = 'fields.ecsv'


@dataclass(frozen=True)
class Written:
    """Numbers of the maps and cutouts that `write_simulations` wrote.

    Attributes
    ----------
    n_maps : int
        Number of maps with sources.
    cutouts : dict of str to int
        Number of cutouts of each split; empty without a dataset.

    Examples
    --------
    >>> from csr_astro.simulation.write import Written
    >>> Written(2, {'train': 40}).n_maps
    2
    """

    n_maps: int
    cutouts: dict


def write_simulations(
    folder: PathLike,
    fields: Sequence[dict],
    *,
    dataset: PathLike | None = None,
    layout: Literal['array', 'paper'] = 'array',
    instrument: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable | None = None,
    **options: Any,
) -> Written:
    """Simulate fields and write maps, truths, tables and, if wanted, cutouts.

    Parameters
    ----------
    folder : path-like
        Folder for maps and tables, made if missing; see
        `~csr_astro.simulation.result.Simulation.write`. ``fields.ecsv`` has a row for each field
        and instrument, as the paper's Tables 6 to 8.
    fields : list of dict
        Arguments of `~csr_astro.simulation.simulate.simulate_levels` for each field: ``name``
        and ``data``, and optionally ``header``, ``avoid`` and any other, in place of that in
        ``options``; and ``split``, the split of its cutouts.
    dataset : path-like, optional
        Folder for cutouts, split by field; see
        `~csr_astro.simulation.dataset.write_dataset`. A single field goes into the training
        split. Fields without a ``split`` are divided.
    layout : {'array', 'paper'}, optional
        Layout of the dataset.
    instrument : str, optional
        By default it is read from each header.
    seed : int, optional
        Decides everything.
    overwrite : bool, optional
        Whether existing files are replaced.
    progress : callable, optional
        Called with a line of text for each map written.
    **options
        Options of `~csr_astro.simulation.simulate.simulate_levels`. ``psf`` may also be the
        width of a Gaussian beam, in pixels or as an angle, which then is the instrument.

    Returns
    -------
    written : `Written`

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from csr_astro.simulation.write import write_simulations
    >>> noise = np.random.default_rng(0).normal(size=(120, 120))
    >>> with TemporaryDirectory() as folder:
    ...     written = write_simulations(
    ...         folder, [{'name': 'noise', 'data': noise}], levels=[300], number=2, psf=3.5
    ...     )
    >>> written.n_maps
    1
    """
    names = [each['name'] for each in fields]
    if len(set(names)) < len(names):
        raise ValueError(f'fields must have different names, got {names}.')
    splits = {each['name']: each['split'] for each in fields if each.get('split')}
    splits |= split_fields([name for name in names if name not in splits], seed=seed)
    rows: dict[str, dict] = {}

    def simulations():
        for each in fields:
            chosen = options | {'instrument': instrument} | each
            chosen.pop('split', None)
            chosen['instrument'] = _instrument(each, chosen)
            for simulation in simulate_levels(**chosen, seed=seed):
                paths = simulation.write(folder, overwrite=overwrite)
                _count(rows, simulation, splits)
                if progress is not None:
                    progress(f'{len(simulation.sources)} sources: {paths[0]}')
                yield simulation

    counts = {}
    if dataset is None:
        for _ in simulations():
            pass
    else:
        counts = write_dataset(
            dataset, simulations(), splits, layout=layout, overwrite=overwrite
        )
    if rows:
        _write_fields(Path(folder) / FIELDS, list(rows.values()))
    return Written(sum(row['n_simulations'] for row in rows.values()), counts)


def _count(rows, simulation, splits):
    """Add a simulation to the row of its field, as in the paper's Tables 6 to 8."""
    flux = simulation.sources['flux'].to_value(u.mJy)
    row = rows.setdefault(simulation.field, {
        'field': simulation.field, 'instrument': simulation.instrument.name,
        'number': len(flux), 'lowest': np.inf, 'highest': 0.0,
        'split': splits.get(simulation.field, ''), 'total_sources': 0, 'n_simulations': 0,
    })  # fmt: skip
    if len(flux):
        row['lowest'] = min(row['lowest'], float(flux.min()))
        row['highest'] = max(row['highest'], float(flux.max()))
    row['total_sources'] += len(flux)
    row['n_simulations'] += 1


def _write_fields(path, rows):
    """Write the table of the fields; those of other fields or instruments are kept."""
    if path.exists():
        new = {(row['field'], row['instrument']) for row in rows}
        known = [dict(zip(row.colnames, row, strict=True)) for row in Table.read(path)]
        rows = [row for row in known if (row['field'], row['instrument']) not in new] + rows
    table = Table(rows)
    for name in ('lowest', 'highest'):
        table[name].unit = u.mJy
    write_table(path, table)


def _instrument(field, options):
    """The instrument of a field: the one given, by its beam, or by its header."""
    psf, instrument = options.get('psf'), options['instrument']
    if isinstance(psf, float | u.Quantity):
        if instrument is not None:
            raise ValueError('a beam is an instrument of its own; give one or the other.')
        options['psf'] = None
        return get_instrument('generic', fwhm=psf)
    if instrument is None and field.get('header') is not None:
        instrument = identify_instrument(field['header'])
    if instrument is None and psf is None:
        raise ValueError(
            f'the header of {field["name"]!r} does not tell the instrument; give the instrument, '
            'a PSF or the width of the beam (--instrument, --psf, --fwhm).'
        )
    return instrument
