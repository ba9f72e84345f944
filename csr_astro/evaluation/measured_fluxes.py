"""Fluxes of the sources of a map by aperture and by fit, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.table import QTable, Table, vstack
from photutils.aperture import CircularAperture

from csr_astro.evaluation.flux_recovery import default_apertures
from csr_astro.photometry import InpaintedAperturePhotometry, InpaintedPSFPhotometry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csr_astro.background import NeuralBackground
    from csr_astro.fitting import PixelPSF

__all__ = ['measured_fluxes', 'summarize_agreement']


# Fluxes are compared where both are this many times their errors.
_BRIGHT = 10.0


def measured_fluxes(result: NeuralBackground, apertures: Sequence[float] | None = None) -> QTable:
    """Measure the sources of a map by aperture and by fit of the PSF.

    Parameters
    ----------
    result : `~csr_astro.NeuralBackground`
        The removal; the PSF is that of its estimator.
    apertures : sequence of float, optional
        Radii in pixels; `~csr_astro.evaluation.flux_recovery.default_apertures` otherwise.

    Returns
    -------
    table : `~astropy.table.QTable`
        A row per source and aperture: ``id``, ``snr``, ``aperture`` in pixels, ``flux`` and
        ``flux_err`` in the aperture over the enclosed energy, by the table of the instrument if
        it has one, else by the PSF; ``fit`` and ``fit_err``, the same in all apertures;
        ``ratio``, fit over aperture, and its error ``ratio_err``, as if both were independent;
        ``flags`` of both. NaN without a measurement.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> from csr_astro.evaluation.measured_fluxes import measured_fluxes
    >>> from csr_astro.simulation.inject import inject_sources
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> noise = np.random.default_rng(0).normal(size=(100, 100))
    >>> data = inject_sources(noise, [60.0], [50.0], [3000.0], gaussian_profile(3.3))
    >>> result = NeuralBackgroundEstimator(fwhm=3.3).estimate(data, [(60, 50)])
    >>> table = measured_fluxes(result, [3, 4])
    >>> print(len(table), bool((abs(table['ratio'] - 1) < 0.03).all()))
    2 True
    """
    instrument = result.instrument
    apertures = default_apertures(instrument) if apertures is None else list(apertures)
    fit = InpaintedPSFPhotometry(estimator=result.estimator, flux_unit='map')
    fitted = fit(result)
    correction: str | list[float] = 'eef'
    if instrument.corrections is None:
        correction = [_enclosed(fit.pixel_psf, each) for each in apertures]
    measured = InpaintedAperturePhotometry(
        apertures, estimator=result.estimator, aperture_correction=correction, flux_unit='map'
    )(result)
    parts = []
    for k, aperture in enumerate(apertures):
        part = QTable({name: measured[name] for name in ('id', 'snr')})
        part['aperture'] = float(aperture)
        part['flux'], part['flux_err'] = measured[f'flux_{k}'], measured[f'flux_err_{k}']
        part['fit'], part['fit_err'] = fitted['flux'], fitted['flux_err']
        flux, flux_err, by_fit, fit_err = (
            np.asarray(u.Quantity(part[name]).value)
            for name in ('flux', 'flux_err', 'fit', 'fit_err')
        )
        with np.errstate(divide='ignore', invalid='ignore'):
            part['ratio'] = by_fit / flux
            part['ratio_err'] = np.abs(by_fit / flux) * np.hypot(flux_err / flux, fit_err / by_fit)
        part['flags'] = measured['flags'] | fitted['flags']
        parts.append(part)
    return vstack(parts, metadata_conflicts='silent')


def _enclosed(psf: PixelPSF, radius: float) -> float:
    """Part of the energy of the PSF in a circle."""
    reach = int(np.ceil(max(psf.radius, radius))) + 1
    steps = np.arange(-reach, reach + 1.0)
    image = psf.evaluate(steps, steps)
    return float(CircularAperture((reach, reach), radius).do_photometry(image)[0][0])


def summarize_agreement(table: QTable) -> Table:
    """Median and scatter of fit over aperture, for bright sources.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        As from `measured_fluxes`.

    Returns
    -------
    summary : `~astropy.table.Table`
        A row per aperture: ``aperture``, ``n`` sources of which both fluxes are more than 10
        times their errors, the median ``ratio`` and its robust ``scatter``; NaN without any.

    Examples
    --------
    >>> from astropy.table import QTable
    >>> from csr_astro.evaluation.measured_fluxes import summarize_agreement
    >>> table = QTable({'aperture': [4.0] * 3, 'flux': [5.0, 6.0, 1.0], 'flux_err': [0.1] * 3,
    ...                 'fit': [5.0, 6.6, 2.0], 'fit_err': [0.1, 0.1, 0.9],
    ...                 'ratio': [1.0, 1.1, 2.0]})
    >>> row = summarize_agreement(table)[0]
    >>> print(row['n'], row['ratio'])
    2 1.05
    """
    rows = []
    for aperture in np.unique(table['aperture']):
        part = table[table['aperture'] == aperture]
        with np.errstate(invalid='ignore'):
            good = (part['flux'] > _BRIGHT * part['flux_err']) & (
                part['fit'] > _BRIGHT * part['fit_err']
            )
        ratio = np.asarray(part['ratio'])[np.asarray(good)]
        middle = np.median(ratio) if len(ratio) else np.nan
        scatter = 1.4826 * np.median(np.abs(ratio - middle)) if len(ratio) > 1 else np.nan
        rows.append((float(aperture), len(ratio), float(middle), float(scatter)))
    return Table(rows=rows or None, names=['aperture', 'n', 'ratio', 'scatter'])
