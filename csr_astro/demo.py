"""Demonstration of the package on a simulated field."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from astropy.table import QTable
from photutils.aperture import ApertureStats, CircularAnnulus

from csr_astro.plotting import require_matplotlib
from csr_astro.simulation.diffuse import lognormal_field
from csr_astro.simulation.inject import inject_sources, random_positions
from csr_astro.simulation.psf import gaussian_profile
from csr_astro.tables import write_table
from csr_astro.utils.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from csr_astro.background import NeuralBackground
    from csr_astro.typing import PathLike

__all__ = ['judge', 'measure_field', 'plot_demo', 'run_demo', 'simulated_field']

_SHAPE = (320, 320)
_FWHM = 3.5
_N_SOURCES = 40
_APERTURE = 4.0
_ANNULUS = (10, 20)
# Range of the axis of ratios.
_RATIOS = (0.0, 2.5)


def simulated_field(seed: int = 1) -> tuple[np.ndarray, np.ndarray, QTable]:
    """Simulate a field of dust-like emission and noise, without and with sources.

    Parameters
    ----------
    seed : int, optional
        Seed of the field.

    Returns
    -------
    truth : (ny, nx) `~numpy.ndarray`
        The field without sources.
    data : (ny, nx) `~numpy.ndarray`
        The field with sources.
    catalog : `~astropy.table.QTable`
        Columns ``x``, ``y`` (pixels) and ``flux``.
    """
    rng = np.random.default_rng(seed)
    truth = 10 + 3 * lognormal_field(_SHAPE, -3.2, 0.6, rng) + rng.normal(0, 0.05, _SHAPE)
    x, y = random_positions(_SHAPE, _N_SOURCES, rng, separation=20, margin=12)
    flux = 10 ** rng.uniform(1.2, 3, _N_SOURCES)
    catalog = QTable({'x': x, 'y': y, 'flux': flux})
    return truth, inject_sources(truth, x, y, flux, gaussian_profile(_FWHM)), catalog


def measure_field(
    *, weights: PathLike = 'default', seed: int = 1, progress: bool | None = None
) -> tuple[NeuralBackground, QTable]:
    """Remove the sources of a simulated field and measure them.

    Parameters
    ----------
    weights : str or path-like, optional
        As in `~csr_astro.NeuralBackgroundEstimator`.
    seed : int, optional
        Seed of the field.
    progress : bool, optional
        As in `~csr_astro.NeuralBackgroundEstimator`.

    Returns
    -------
    result : `~csr_astro.NeuralBackground`
        The removal.
    table : `~astropy.table.QTable`
        A row per source: the photometry; ``injected``, the true flux; ``annulus_flux_err``,
        the usual error of a flux over an annulus.
    """
    from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator

    _, data, catalog = simulated_field(seed)
    estimator = NeuralBackgroundEstimator(weights, fwhm=_FWHM, progress=progress)
    result = estimator.estimate(data, catalog)
    fraction = float(estimator.instrument.enclosed_energy(_APERTURE))
    photometry = InpaintedAperturePhotometry(
        _APERTURE, estimator=estimator, aperture_correction=fraction, annulus=_ANNULUS
    )
    table = photometry(result)
    ring = CircularAnnulus(np.column_stack([catalog['x'], catalog['y']]), *_ANNULUS)
    area = np.pi * _APERTURE**2
    scatter = ApertureStats(data, ring).std
    table['annulus_flux_err'] = scatter * np.sqrt(area + area**2 / ring.area) / fraction
    table['injected'] = catalog['flux']
    return result, table


def judge(table: QTable) -> QTable:
    """Summarize how right the fluxes of the demonstration are.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        As from `measure_field`.

    Returns
    -------
    summary : `~astropy.table.QTable`
        A row for the network and one for the annulus: ``scatter`` (half the range that holds
        68 % of the errors) and ``bias`` (median error), in the unit of the flux, and the
        fractions of the fluxes ``within_1_sigma`` and ``within_2_sigma`` of the truth.

    Examples
    --------
    >>> from astropy.table import QTable
    >>> from csr_astro.demo import judge
    >>> columns = {'flux': [9.0, 12.0], 'flux_err': [2.0, 1.5], 'injected': [10.0, 10.0]}
    >>> columns |= {'annulus_flux': [5.0, 20.0], 'annulus_flux_err': [1.0, 1.0]}
    >>> judge(QTable(columns))['method', 'bias', 'within_1_sigma'].pprint()
     method bias within_1_sigma
    ------- ---- --------------
    network  0.5            0.5
    annulus  2.5            0.0
    """
    rows = []
    for name, column in (('network', 'flux'), ('annulus', 'annulus_flux')):
        error = np.asarray(table[column]) - np.asarray(table['injected'])
        low, high = np.percentile(error, [16, 84])
        pull = np.abs(error) / np.asarray(table[f'{column}_err'])
        within = (np.mean(pull < number) for number in (1, 2))
        rows.append((name, (high - low) / 2, np.median(error), *within))
    names = ['method', 'scatter', 'bias', 'within_1_sigma', 'within_2_sigma']
    return QTable(rows=rows, names=names)


def plot_demo(result: NeuralBackground, table: QTable, figure: Figure | None = None) -> Figure:
    """Plot the maps of the demonstration, and measured over injected flux of both methods.

    Parameters
    ----------
    result, table
        As from `measure_field`.
    figure : `~matplotlib.figure.Figure`, optional
        Figure to draw on; a new one by default.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
    """
    if figure is None:
        Figure = require_matplotlib('matplotlib.figure').Figure
        figure = Figure(figsize=(10, 6.6), layout='constrained')
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    upper, lower = parts
    result.plot(axes=upper.subplots(1, 3, sharex=True, sharey=True))
    panels = lower.subplots(1, 2, sharex=True, sharey=True)
    injected = np.asarray(table['injected'])
    for ax, row, column, color, marker in zip(
        panels, judge(table), ('flux', 'annulus_flux'), ('#0072b2', '#d55e00'), 'os', strict=True
    ):
        ratio, error = (np.asarray(table[name]) / injected for name in (column, f'{column}_err'))
        ax.axhline(1, color='0.5', linewidth=0.8, zorder=0)
        ax.errorbar(injected, ratio, error, fmt=marker, color=color, markersize=4, linewidth=1)
        ax.set(
            xscale='log', ylim=_RATIOS, xlabel='injected flux [map value × pixel]',
            title=f'{row["method"]}: scatter {row["scatter"]:.1f}, bias {row["bias"]:+.1f}, '
            f'{row["within_1_sigma"]:.0%} within 1σ',
        )  # fmt: skip
        outside = (ratio < _RATIOS[0]) | (ratio > _RATIOS[1])
        for x, y in zip(injected[outside], ratio[outside], strict=True):
            up = y > 1
            ax.plot(x, _RATIOS[int(up)], '^' if up else 'v', color=color, clip_on=False)
        if outside.any():
            ax.annotate(f'{outside.sum()} outside the panel (triangles)', (0.98, 0.03),
                        xycoords='axes fraction', ha='right', fontsize=8)  # fmt: skip
    panels[0].set_ylabel('measured / injected flux')
    return figure


def run_demo(
    folder: PathLike, *, weights: PathLike = 'default', seed: int = 1, progress: bool | None = None
) -> QTable:
    """Simulate a field, remove its sources, measure them, and write the results.

    Parameters
    ----------
    folder : path-like
        Folder for ``demo.fits`` (map, source-free map, truth, mask), ``demo.ecsv`` (injected
        and measured fluxes) and ``demo.png``; made if missing.
    weights, seed, progress
        As in `measure_field`.

    Returns
    -------
    table : `~astropy.table.QTable`
        As from `measure_field`.
    """
    require_matplotlib()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    truth, data, _ = simulated_field(seed)
    result, table = measure_field(weights=weights, seed=seed, progress=progress)
    with atomic_path(folder / 'demo.fits') as temporary:
        fits.HDUList([
            fits.PrimaryHDU(),
            fits.ImageHDU(data, name='IMAGE'),
            fits.ImageHDU(result.background, name='SOURCE_FREE'),
            fits.ImageHDU(truth, name='TRUTH'),
            fits.ImageHDU(result.mask.astype(np.uint8), name='CSR_MASK'),
        ]).writeto(temporary, overwrite=True)
    write_table(folder / 'demo.ecsv', table)
    with atomic_path(folder / 'demo.png') as temporary:
        plot_demo(result, table).savefig(temporary, dpi=150)
    return table
