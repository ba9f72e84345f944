"""Ratios of measured to injected flux (paper, Sect. 5.2).

They are given for each source and aperture, by the network, by the classical annulus and by any
other method, and summarised for each flux level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from astropy import units as u
from astropy.table import QTable, Table, vstack

from csr_astro.cutouts import window_size
from csr_astro.evaluation.statistics import median_and_iqr
from csr_astro.evaluation.windows import circle_weights, cut_windows, window_center
from csr_astro.photometry import InpaintedAperturePhotometry, InpaintedPSFPhotometry
from csr_astro.simulation.psf import encircled_energy
from csr_astro.simulation.units import map_units_per_millijansky

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike

    from csr_astro.background import NeuralBackground
    from csr_astro.instruments import Instrument
    from csr_astro.typing import PsfLike, QuantityLike

__all__ = [
    'default_apertures',
    'energy_fraction',
    'flux_levels_of',
    'ratio_columns',
    'recovered_fluxes',
    'summarize_recovery',
]


# Radii of apertures: those of the paper in arcsec, and in beams for other instruments.
_ARCSEC = (4.0, 6.0, 8.0, 10.0, 12.0, 15.0, 18.0)
_BEAMS = (0.75, 1.0, 1.5, 2.0)
_BOOTSTRAP = 200


def default_apertures(instrument: Instrument) -> list[float]:
    """Radii for an instrument: those of the paper for PACS, else 0.75 to 2 beams.

    Parameters
    ----------
    instrument : `~csr_astro.instruments.Instrument`
        On the pixels of the map.

    Returns
    -------
    radii : list of float
        In pixels.

    Examples
    --------
    >>> from csr_astro import get_instrument
    >>> from csr_astro.evaluation.flux_recovery import default_apertures
    >>> default_apertures(get_instrument('generic', fwhm=4.0))
    [3.0, 4.0, 6.0, 8.0]
    """
    if instrument.corrections is None or instrument.psf_model not in ('blue', 'green', 'red'):
        return [float(beams * instrument.fwhm) for beams in _BEAMS]
    return [arcsec / cast('float', instrument.pixel_scale) for arcsec in _ARCSEC]


def recovered_fluxes(
    result: NeuralBackground,
    flux: QuantityLike,
    apertures: Sequence[float] | None = None,
    *,
    fraction: Callable | None = None,
    methods: Mapping[str, Callable] | None = None,
    psf: PsfLike | None = None,
) -> QTable:
    """Ratios of measured to injected flux of every source.

    Parameters
    ----------
    result : `~csr_astro.NeuralBackground`
        The removal from the map with the sources.
    flux : (N,) array or Quantity
        Injected fluxes, in the order of the sources; plain numbers are sums of the map.
    apertures : sequence of float, optional
        Radii in pixels; `default_apertures` otherwise.
    fraction : callable, optional
        Enclosed-energy fraction of the injected sources for a radius in pixels; by default
        the instrument's table of injected PSFs, or a Gaussian of its beam.
    methods : dict of str to callable, optional
        Other methods, as from `~csr_astro.evaluation.baselines.get_baselines`.
    psf : optional
        PSF of the injected sources, for the fits, as in `~csr_astro.InpaintedPSFPhotometry`; by
        default that of the estimator.

    Returns
    -------
    table : `~astropy.table.QTable`
        A row per source and aperture: ``id``, ``snr``, ``radius`` (of the mask) and
        ``aperture`` in pixels, ``flux``, the ratios ``network`` with its stated error
        ``network_err``, ``fit`` of the PSF with ``fit_err`` (the same in all apertures),
        ``annulus`` (the instrument's, on the map as it was) and those of ``methods``; and
        ``flags``. NaN without a measurement. For an aperture larger than the mask, the flux in
        the mask is divided by the fraction at the mask's radius.

    Raises
    ------
    ValueError
        If the number of fluxes is not that of the sources, or their unit is not that of a sum
        of the map.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> from csr_astro.evaluation.flux_recovery import recovered_fluxes
    >>> yy, xx = np.indices((120, 120))
    >>> star = np.exp(-4 * np.log(2) * ((xx - 60) ** 2 + (yy - 50) ** 2) / 9)
    >>> image = 3 + 0.01 * xx + 200 * star
    >>> result = NeuralBackgroundEstimator(fwhm=3.0).estimate(image, [(60, 50)])
    >>> table = recovered_fluxes(result, [200 * star.sum()], apertures=[4])
    >>> print(bool(abs(table['network'][0] - 1) < 0.02))
    True
    """
    instrument = result.instrument
    apertures = default_apertures(instrument) if apertures is None else list(apertures)
    flux = _injected(flux, result)
    if fraction is None:
        fraction = _fraction_of(instrument)
    # The enclosed energy of injected sources may not be the instrument's: it is applied below.
    photometry = InpaintedAperturePhotometry(
        apertures,
        estimator=result.estimator,
        aperture_correction='none',
        annulus='instrument',
        flux_unit='map',
    )
    measured = photometry(result)
    fit = InpaintedPSFPhotometry(
        psf, estimator=result.estimator, aperture_correction='none', flux_unit='map'
    )(result)
    radius = np.asarray(measured['mask_radius'])
    backgrounds = _background_sums(result, apertures, methods or {})
    parts = []
    for k, aperture in enumerate(apertures):
        inside = fraction(np.fmin(aperture, radius))
        part = Table({'id': np.asarray(measured['id']), 'snr': np.asarray(measured['snr'])})
        part['radius'], part['aperture'] = radius, float(aperture)
        part['flux'] = flux
        part['network'] = _number(measured[f'flux_{k}']) / flux / inside
        part['network_err'] = _number(measured[f'flux_err_{k}']) / flux / inside
        part['fit'] = _number(fit['flux']) / flux
        part['fit_err'] = _number(fit['flux_err']) / flux
        part['annulus'] = _number(measured[f'annulus_flux_{k}']) / flux / fraction(aperture)
        for name, (total, background) in backgrounds.items():
            part[name] = (total[k] - background[k]) / flux / inside
        part['flags'] = np.asarray(measured['flags'])
        parts.append(part)
    return QTable(vstack(parts, metadata_conflicts='silent'))


def energy_fraction(psf: Callable, radius: ArrayLike) -> np.ndarray:
    """Enclosed-energy fraction of a PSF at radii, NaN at those that are not finite.

    Parameters
    ----------
    psf : callable
        The PSF, as from `~csr_astro.simulation.psf.psf_profile`.
    radius : array-like of float
        Radii in pixels.

    Returns
    -------
    fraction : `~numpy.ndarray` of float

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.flux_recovery import energy_fraction
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> print(energy_fraction(gaussian_profile(6), [30, np.nan]).round(2))
    [ 1. nan]
    """
    radius = np.asarray(radius, dtype=float)
    known = np.isfinite(radius)
    found = np.full(radius.shape, np.nan)
    found[known] = encircled_energy(psf, radius[known])
    return found


def _number(values):
    return np.asarray(u.Quantity(values).value, dtype=float)


def _injected(flux, result):
    """Sums of the map, as plain numbers."""
    flux = u.Quantity(flux)
    if flux.shape != (len(result),):
        raise ValueError(f'flux must be one for each of {len(result)} sources, got {flux.shape}.')
    if flux.unit == u.dimensionless_unscaled:
        return flux.value.astype(float)
    factor = map_units_per_millijansky(result.image, result.instrument)
    try:
        return flux.to_value(u.mJy) * factor
    except u.UnitConversionError:
        raise ValueError(f'flux must be in Jy or without a unit, got {flux.unit}.') from None


def _fraction_of(instrument):
    def fraction(radius):
        return instrument.enclosed_energy(radius, 'vesta', outside='nan')

    return fraction


def _background_sums(result, apertures, methods):
    """Sums of map and background in the part of each aperture that is in the mask."""
    image, sources = result.image, result.sources
    used = [i for i, mask in enumerate(result.source_masks) if mask is not None]
    sums = {name: np.full((2, len(apertures), len(result)), np.nan) for name in methods}
    if not methods or not used:
        return sums
    x, y = (np.array(sources[name], dtype=float)[used] for name in ('x_center', 'y_center'))
    reach = max(result.source_masks[i].radius for i in used)
    size = int(window_size(reach)) + 1
    for k, i in enumerate(used):
        # One at a time, because the windows of all sources may not fit into memory.
        mask = result.source_masks[i]
        (values,), (valid,), (hole,) = cut_windows(
            image, result.mask, [mask], x[k : k + 1], y[k : k + 1], size
        )
        seen, values = values[hole], np.where(valid, values, np.nan)
        center = window_center(x[k], y[k], size)
        weights = circle_weights(center, apertures, *np.nonzero(hole))
        for name, method in methods.items():
            filled = method(values, valid, hole, *center, mask.radius)
            sums[name][:, :, i] = weights @ seen, weights @ filled
    return sums


def flux_levels_of(flux: np.ndarray, largest: int = 8) -> np.ndarray:
    """Flux level of each source: its own flux, or the median of its bin for many fluxes.

    Parameters
    ----------
    flux : (N,) array of float
        Fluxes.
    largest : int, optional
        Number of levels. More different fluxes than this are put into bins of equal numbers of
        sources.

    Returns
    -------
    levels : (N,) `~numpy.ndarray` of float

    Examples
    --------
    >>> from csr_astro.evaluation.flux_recovery import flux_levels_of
    >>> print(flux_levels_of([1, 2, 3, 4, 5, 6], largest=2))
    [2. 2. 2. 5. 5. 5.]
    """
    flux = np.asarray(flux, dtype=float)
    if len(np.unique(flux)) <= largest:
        return flux
    edges = np.quantile(flux, np.linspace(0, 1, largest + 1)[1:-1])
    number = np.searchsorted(edges, flux)
    return np.array([np.median(flux[number == each]) for each in number])


def summarize_recovery(table: QTable, *, seed: int = 0) -> Table:
    """Median and interquartile range of the ratios, for each flux level, aperture and method.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        As from `recovered_fluxes`, of one map or stacked. The levels are the column ``level``,
        or those of `flux_levels_of`.
    seed : int, optional
        Seed of the bootstrap.

    Returns
    -------
    summary : `~astropy.table.Table`
        ``level``, ``aperture``, ``method``, ``n``, median ``snr``, ``ratio`` (median) and
        ``iqr``, each with a bootstrap error ``*_err``.

    Examples
    --------
    >>> from astropy.table import QTable
    >>> from csr_astro.evaluation.flux_recovery import summarize_recovery
    >>> table = QTable({'flux': [2.0] * 3, 'level': [2.0] * 3, 'aperture': [4.0] * 3,
    ...                 'snr': [9.0] * 3, 'flags': [0] * 3, 'network': [0.98, 1.03, 1.0]})
    >>> row = summarize_recovery(table)[0]
    >>> print(row['method'], row['n'], row['ratio'])
    network 3 1.0
    """
    levels = table['level'] if 'level' in table.colnames else flux_levels_of(table['flux'])
    levels, apertures = np.asarray(levels), np.asarray(table['aperture'])
    rng = np.random.default_rng(seed)
    rows = []
    for level in np.unique(levels):
        for aperture in np.unique(apertures):
            part = table[(levels == level) & (apertures == aperture)]
            for name in ratio_columns(table):
                ratio = np.array(part[name], dtype=float)
                ratio = ratio[np.isfinite(ratio)]
                row = [level, aperture, name, len(ratio), np.nanmedian(part['snr'])]
                rows.append([*row, *median_and_iqr(ratio, rng, _BOOTSTRAP)])
    names = ['level', 'aperture', 'method', 'n', 'snr', 'ratio', 'ratio_err', 'iqr', 'iqr_err']
    summary = Table(rows=rows or None, names=names)
    for name in names[4:]:
        summary[name].info.format = '.4g'
    return summary


def ratio_columns(table: QTable) -> list[str]:
    """Names of the methods whose ratios are in a table.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        As from `recovered_fluxes`.

    Examples
    --------
    >>> from astropy.table import QTable
    >>> from csr_astro.evaluation.flux_recovery import ratio_columns
    >>> ratio_columns(QTable({'id': [1], 'aperture': [4.0], 'network': [1.01], 'annulus': [0.97]}))
    ['network', 'annulus']
    """
    known = {
        'id', 'snr', 'radius', 'aperture', 'flux', 'flags', 'level', 'map', 'network_err',
        'fit_err', 'field', 'instrument', 'pixel_scale', 'injected',
    }  # fmt: skip
    return [name for name in table.colnames if name not in known]
