"""Demonstration of the package on a simulated field."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits
from astropy.table import QTable

from csr_astro.plotting import figure, require_matplotlib
from csr_astro.simulation.diffuse import lognormal_field
from csr_astro.simulation.inject import inject_sources, random_positions
from csr_astro.simulation.psf import gaussian_profile
from csr_astro.tables import write_table
from csr_astro.utils.files import atomic_path

if TYPE_CHECKING:
    from csr_astro.typing import PathLike

__all__ = ['run_demo', 'simulated_field']

_SHAPE = (320, 320)
_FWHM = 3.5
_N_SOURCES = 40
_APERTURE = 4.0


def simulated_field(seed: int = 1) -> tuple[np.ndarray, np.ndarray, QTable]:
    """A field of dust-like emission and noise, without and with sources of known flux.

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


def run_demo(
    folder: PathLike, *, weights: PathLike = 'default', seed: int = 1, progress: bool = False
) -> QTable:
    """Simulate a field, remove its sources, measure them, and write the results.

    Parameters
    ----------
    folder : path-like
        Folder for ``demo.fits`` (map, source-free map, truth, mask), ``demo.ecsv`` (injected
        and measured fluxes) and ``demo.png``; made if missing.
    weights : str or path-like, optional
        As in `~csr_astro.NeuralBackgroundEstimator`.
    seed : int, optional
        Seed of the field.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    table : `~astropy.table.QTable`
        A row per source: the photometry, and ``injected``, the true flux.
    """
    from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator

    require_matplotlib()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    truth, data, catalog = simulated_field(seed)
    estimator = NeuralBackgroundEstimator(weights, fwhm=_FWHM, progress=progress)
    result = estimator.estimate(data, catalog)
    fraction = estimator.instrument.enclosed_energy(_APERTURE)
    photometry = InpaintedAperturePhotometry(
        _APERTURE,
        estimator=estimator,
        aperture_correction=float(fraction),
        annulus=(10, 20),
    )
    table = photometry(result)
    table['injected'] = catalog['flux']

    with atomic_path(folder / 'demo.fits') as temporary:
        fits.HDUList([
            fits.PrimaryHDU(),
            fits.ImageHDU(data, name='IMAGE'),
            fits.ImageHDU(result.background, name='SOURCE_FREE'),
            fits.ImageHDU(truth, name='TRUTH'),
            fits.ImageHDU(result.mask.astype(np.uint8), name='CSR_MASK'),
        ]).writeto(temporary, overwrite=True)
    write_table(folder / 'demo.ecsv', table)
    with figure(3, folder / 'demo.png') as axes:
        result.plot(axes=axes)
    return table
