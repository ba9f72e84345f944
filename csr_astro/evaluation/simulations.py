"""Fluxes of the injected sources of many simulations, as the paper's Figs. 11 and 12.

`write_simulations_report` removes the sources of every map in a folder of simulations, compares
measured with injected fluxes, and writes a page with box plots for each instrument and a table for
each field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.table import Table, vstack

from csr_astro.evaluation import figures
from csr_astro.evaluation.baselines import get_baselines
from csr_astro.evaluation.flux_recovery import (
    energy_fraction,
    flux_levels_of,
    recovered_fluxes,
    summarize_recovery,
)
from csr_astro.evaluation.report import write_page
from csr_astro.evaluation.report_sections import Section
from csr_astro.evaluation.statistics import median_and_iqr
from csr_astro.images import read_image
from csr_astro.removal import make_estimator
from csr_astro.simulation.psf import instrument_profile
from csr_astro.simulation.units import to_millijansky
from csr_astro.sources import read_sources
from csr_astro.utils.files import fits_files, stem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from astropy.table import QTable

    from csr_astro.typing import PathLike

__all__ = [
    'SimulatedMap',
    'find_simulations',
    'injected_flux',
    'measure_simulations',
    'summarize_fields',
    'write_simulations_report',
]


# Levels of Table 1 and others are shown one by one up to this number, then in bins.
_LEVELS = 60
_TABLES = ('.ecsv', '.csv')


@dataclass(frozen=True)
class SimulatedMap:
    """A map with injected sources and the table of these.

    Attributes
    ----------
    map, table : `pathlib.Path`
        FITS file, and the table with the column ``flux`` in mJy.

    Examples
    --------
    >>> from pathlib import Path
    >>> from csr_astro.evaluation.simulations import SimulatedMap
    >>> SimulatedMap(Path('dust_00100mJy.fits'), Path('dust_00100mJy.ecsv')).name
    'dust_00100mJy'
    """

    map: Path
    table: Path

    @property
    def name(self) -> str:
        """Name of the map without its suffix."""
        return stem(self.map).name


def find_simulations(*places: PathLike) -> list[SimulatedMap]:
    """Find the maps of simulations and their tables.

    Parameters
    ----------
    *places : path-like
        Folders as written by ``csr-astro simulate``, or by the published tool; or FITS files.
        ``NAME.ecsv`` or ``NAME.csv`` lies beside ``NAME.fits``. Maps of a folder without a table
        are the truths.

    Returns
    -------
    simulations : list of `SimulatedMap`

    Raises
    ------
    ValueError
        If a file has no table, or a folder no map with one.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from csr_astro.evaluation.simulations import find_simulations
    >>> from csr_astro.simulation.field import synthetic_map
    >>> from csr_astro.simulation.write import write_simulations
    >>> field = {'name': 'dust', 'data': synthetic_map('power-law', (120, 120), 1)}
    >>> with TemporaryDirectory() as folder:
    ...     written = write_simulations(folder, [field], levels=[80], number=2, psf=3.5)
    ...     print([each.name for each in find_simulations(folder)])
    ['dust_00080mJy']
    """
    found = []
    for place in map(Path, places):
        paths = fits_files(place) if place.is_dir() else [place]
        tables = {path: _table_beside(path) for path in paths}
        paired = [path for path in paths if tables[path] is not None]
        if not paired:
            raise ValueError(f'{str(place)!r} has no table of injected sources beside it.')
        found += [SimulatedMap(path, tables[path]) for path in paired]
    if not found:
        raise ValueError('there are no simulations; give their folder.')
    return found


def _table_beside(path):
    names = [stem(path).with_name(stem(path).name + suffix) for suffix in _TABLES]
    return next((name for name in names if name.is_file()), None)


def injected_flux(sources: QTable) -> u.Quantity | None:
    """Fluxes of the table of a simulation, by default in mJy; None without a column ``flux``.

    Parameters
    ----------
    sources : `~astropy.table.QTable`
        Table of the injected sources.

    Examples
    --------
    >>> from astropy.table import QTable
    >>> from csr_astro.evaluation.simulations import injected_flux
    >>> print(injected_flux(QTable({'ra': [1.0], 'dec': [2.0], 'flux': [300.0]})))
    [300.] mJy
    """
    if 'flux' not in getattr(sources, 'colnames', ()):
        return None
    flux = u.Quantity(sources['flux'])
    return flux.value * u.mJy if flux.unit == u.dimensionless_unscaled else flux


def measure_simulations(
    simulations: Sequence[SimulatedMap],
    *,
    apertures: Sequence[float] | None = None,
    methods: Sequence[str] = (),
    progress: Callable[[str], object] | None = None,
    **options: Any,
) -> QTable:
    """Remove and measure the sources of simulations.

    Parameters
    ----------
    simulations : sequence of `SimulatedMap`
        As from `find_simulations`.
    apertures : sequence of float, optional
        Radii in pixels; by default those of the paper for PACS, else 0.75 to 2 beams.
    methods : sequence of str, optional
        Other methods, keys of `~csr_astro.evaluation.baselines.BASELINES`.
    progress : callable, optional
        Called with a line of text for each map.
    **options
        Arguments of `~csr_astro.NeuralBackgroundEstimator`; by default the header of each map
        tells the instrument.

    Returns
    -------
    table : `~astropy.table.QTable`
        Rows of `~csr_astro.evaluation.flux_recovery.recovered_fluxes`, with ``map``, ``field``,
        ``instrument``, ``pixel_scale`` in arcsec, and the injected flux in mJy, ``injected``.

    Raises
    ------
    ValueError
        If a table has no fluxes.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from csr_astro.evaluation.simulations import find_simulations, measure_simulations
    >>> from csr_astro.simulation.field import synthetic_map
    >>> from csr_astro.simulation.write import write_simulations
    >>> band = 'pacs-scanmap-blue'
    >>> field = {'name': 'dust', 'data': synthetic_map('power-law', (120, 120), 1)}
    >>> with TemporaryDirectory() as folder:
    ...     written = write_simulations(folder, [field], levels=[9000], number=2, instrument=band)
    ...     simulations = find_simulations(folder)
    ...     table = measure_simulations(simulations, apertures=[6], instrument=band)
    >>> print(table['network'].round(1))
    [1. 1.]
    """
    baselines = get_baselines(list(methods))
    parts = []
    for each in simulations:
        image, header = read_image(each.map)
        sources = read_sources(each.table)
        flux = injected_flux(sources)
        if flux is None:
            raise ValueError(f'{str(each.table)!r} has no column flux, in mJy.')
        estimator = make_estimator(header, **options)
        result = estimator.estimate(image, sources)
        # The PSF of simulations of this package is the model, that of others the Vesta image.
        own = 'csr_astro' in sources.meta
        psf = instrument_profile(result.instrument)
        fraction = partial(energy_fraction, psf) if own else None
        part = recovered_fluxes(result, flux, apertures, fraction=fraction, methods=baselines)
        repeats = len(part) // max(len(result), 1)
        part['map'] = each.name
        part['field'] = header.get('CSRFIELD') or re.sub(r'_sim\d+$', '', each.name)
        part['instrument'] = result.instrument.name
        part['pixel_scale'] = image.pixel_scale or np.nan
        part['injected'] = np.tile(to_millijansky(flux), repeats)
        parts.append(part)
        if progress is not None:
            progress(f'{len(result)} sources: {each.map}')
    return vstack(parts, metadata_conflicts='silent')


def summarize_fields(table: QTable, aperture: float | None = None) -> Table:
    """Facts of each field, as the paper's Tables 6 to 8, and how well its fluxes are recovered.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        As from `measure_simulations`.
    aperture : float, optional
        Radius in pixels of the aperture for the ratios; by default the middle one.

    Returns
    -------
    fields : `~astropy.table.Table`
        ``instrument``, ``field``, ``n_sources`` in a simulation, ``lowest`` and ``highest`` flux
        in mJy, ``total_sources``, ``n_simulations``, ``aperture``, and for the network and the
        annulus the median ``*_ratio`` and its interquartile range ``*_iqr``.

    Examples
    --------
    >>> from astropy.table import QTable
    >>> from csr_astro.evaluation.simulations import summarize_fields
    >>> table = QTable({'instrument': ['spire-250'] * 3, 'field': ['dust'] * 3, 'map': [1, 1, 2],
    ...                 'aperture': [4.0] * 3, 'injected': [20.0, 20.0, 40.0],
    ...                 'network': [1.0, 0.9, 1.0], 'annulus': [0.8, 0.9, 1.1]})
    >>> row = summarize_fields(table)[0]
    >>> print(row['n_simulations'], row['highest'], row['network_ratio'])
    2 40.0 1.0
    """
    rows = []
    for instrument, field in sorted(set(zip(table['instrument'], table['field'], strict=True))):
        here = table[(table['instrument'] == instrument) & (table['field'] == field)]
        radii = np.unique(here['aperture'])
        chosen = radii[len(radii) // 2] if aperture is None else aperture
        here = here[here['aperture'] == chosen]
        n_simulations = len(np.unique(here['map']))
        row = {
            'instrument': instrument, 'field': field, 'n_sources': len(here) // n_simulations,
            'lowest': float(here['injected'].min()), 'highest': float(here['injected'].max()),
            'total_sources': len(here), 'n_simulations': n_simulations, 'aperture': float(chosen),
        }  # fmt: skip
        rng = np.random.default_rng(0)
        for name in ('network', 'annulus'):
            ratio = np.array(here[name], dtype=float)
            ratio = ratio[np.isfinite(ratio)]
            row[f'{name}_ratio'], _, row[f'{name}_iqr'], _ = median_and_iqr(ratio, rng, 2)
        rows.append(row)
    fields = Table(rows)
    for name in fields.colnames:
        if name.endswith(('_ratio', '_iqr')):
            fields[name].info.format = '.4g'
    return fields


def write_simulations_report(
    folder: PathLike,
    table: QTable,
    *,
    title: str = 'Fluxes of injected sources',
    overwrite: bool = False,
) -> Path:
    """Write the report on many simulations.

    Parameters
    ----------
    folder : path-like
        Made if missing. ``report.html`` and, beside it, ``fluxes.ecsv`` (every source and
        aperture), ``fields.ecsv``, and for each instrument ``flux_ratios_INSTRUMENT`` as PNG and
        ECSV.
    table : `~astropy.table.QTable`
        As from `measure_simulations`.
    title : str, optional
        Heading.
    overwrite : bool, optional
        Whether an existing report is replaced.

    Returns
    -------
    path : `pathlib.Path`
        ``report.html``.

    Raises
    ------
    ValueError
        If there is a report and ``overwrite`` is not set.

    Examples
    --------
    >>> from csr_astro.evaluation.simulations import (
    ...     find_simulations, measure_simulations, write_simulations_report,
    ... )
    >>> table = measure_simulations(find_simulations('simulated'))  # doctest: +SKIP
    >>> write_simulations_report('report', table)  # doctest: +SKIP
    """
    overview = Section('Which simulations', 'fields')
    fields = summarize_fields(table)
    overview.say(
        f'{fields["total_sources"].sum()} injected sources in {fields["n_simulations"].sum()} '
        f'simulations of {len(fields)} fields. Fluxes in mJy, apertures in pixels; ratios are '
        'measured over injected flux in the middle aperture.'
    )
    overview.tabulate('fields', fields, fields.colnames)
    overview.tables['fluxes'] = table
    sections = [overview]
    for instrument in np.unique(table['instrument']):
        here = table[table['instrument'] == instrument]
        here['level'] = flux_levels_of(here['injected'], _LEVELS)
        section = Section(str(instrument), str(instrument))
        summary = summarize_recovery(here)
        scale = float(here['pixel_scale'][0])
        figure = figures.plot_flux_ratios(here, pixel_scale=scale if np.isfinite(scale) else None)
        n_sources = len(here) // len(np.unique(here['aperture']))
        section.show(
            f'flux_ratios_{instrument}', figure,
            f'Measured over injected flux of {n_sources} sources, {instrument}: boxes hold the '
            'middle half, whiskers nine tenths.',
        )  # fmt: skip
        section.tabulate(f'flux_ratios_{instrument}', summary)
        sections.append(section)
    return write_page(folder, title, sections, overwrite=overwrite)
