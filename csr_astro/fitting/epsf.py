"""PSF from the stars of a map: photutils' EPSFBuilder on predicted backgrounds."""

from __future__ import annotations

import numbers
import warnings
from typing import TYPE_CHECKING

import numpy as np
from astropy.nddata import NDData
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from photutils.psf import EPSFBuilder, ImagePSF, extract_stars

from csr_astro.cutouts import extract, window_size
from csr_astro.fitting.fit import FitOptions, fit_sources
from csr_astro.fitting.psf import pixel_psf
from csr_astro.images import parse_image
from csr_astro.kriging.fill import kriging_fill
from csr_astro.simulation.psf import gaussian_profile
from csr_astro.sources import parse_sources

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from csr_astro.fitting.fit import SourceFits
    from csr_astro.fitting.psf import PixelPSF
    from csr_astro.images import Image
    from csr_astro.typing import ImageLike, SourcesLike

__all__ = ['build_psf']

# Radius of a star's image, over the FWHM.
_RADIUS = 3.0
# The first PSF is a Gaussian; the second round takes neighbours off with the PSF of the first.
_ROUNDS = 2
# How well that Gaussian is known: relative errors of its width and of each pixel.
_FIRST = FitOptions(position_error=0.3, width_error=0.2, profile_error=0.1)
# Samples per pixel, and those for a smaller FWHM. photutils' quartic kernel, over 5 samples, then
# changes no pixel by more than 1 % of the peak; more samples need more stars.
_OVERSAMPLING, _SMALL_FWHM, _OVERSAMPLING_SMALL = 2, 2.4, 3
# More stars than this add little.
_LARGEST_NUMBER = 100


def build_psf(
    data: ImageLike,
    sources: SourcesLike,
    *,
    fwhm: float,
    mask: ArrayLike | None = None,
    size: int | None = None,
    oversampling: int | None = None,
) -> ImagePSF:
    """Build the PSF of a map from its own stars.

    Each star is cut out of the map less the predicted background and less all other sources,
    and photutils' `~photutils.psf.EPSFBuilder` makes one PSF of them.

    Parameters
    ----------
    data : NDData, image HDU, HDUList, Quantity or array
        The map, (ny, nx). It is not modified.
    sources : SkyCoord, regions, table or (N, 2) array of (x, y)
        Stars, isolated or not. Saturated ones, and those with invalid pixels or a box that
        leaves the map, are not used.
    fwhm : float
        Full width at half maximum of the PSF in pixels; 20 % off does no harm.
    mask : (ny, nx) array of bool, optional
        True for invalid pixels.
    size : int, optional
        Odd number of pixels per side of the PSF; by default 6 FWHM.
    oversampling : int, optional
        Samples of the PSF per pixel; by default 2, or 3 for a FWHM below 2.4 pixels. Each
        sample is the mean of as many stars as there are over the square of this.

    Returns
    -------
    psf : `~photutils.psf.ImagePSF`
        Unit sum inside its box. It is accepted as ``psf=`` and ``psf_model``, here and by
        photutils.

    Raises
    ------
    ValueError
        If a value is out of range, or no star can be used.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.fitting import build_psf
    >>> from csr_astro.simulation.inject import inject_sources
    >>> from csr_astro.simulation.psf import moffat_profile
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.uniform(20, 180, (2, 30))
    >>> noise = 10 + rng.normal(size=(200, 200))
    >>> data = inject_sources(noise, x, y, np.full(30, 5000), moffat_profile(3.5, 3))
    >>> psf = build_psf(data, np.column_stack([x, y]), fwhm=3)
    >>> print(psf.data.shape, psf.oversampling)
    (39, 39) [2 2]
    """
    if not (isinstance(fwhm, numbers.Real) and 0 < fwhm < np.inf):
        raise ValueError(f'fwhm must be a positive number of pixels, got {fwhm!r}.')
    size = 2 * int(np.ceil(_RADIUS * fwhm)) + 1 if size is None else size
    if not (isinstance(size, numbers.Integral) and size >= 5 and size % 2 == 1):
        raise ValueError(f'size must be an odd number of pixels from 5 up, got {size!r}.')
    if oversampling is None:
        oversampling = _OVERSAMPLING_SMALL if fwhm < _SMALL_FWHM else _OVERSAMPLING
    if not (isinstance(oversampling, numbers.Integral) and oversampling > 0):
        raise ValueError(f'oversampling must be a positive integer, got {oversampling!r}.')
    image = parse_image(data, mask=mask)
    stars = parse_sources(sources, image.wcs)
    x, y, options = stars.x, stars.y, _FIRST
    psf = pixel_psf(gaussian_profile(fwhm))
    for _ in range(_ROUNDS):
        fits = fit_sources(image, x, y, psf, options=options)
        found = _combine(_cutouts(image, fits, psf, size), size, oversampling)
        psf, options = pixel_psf(found), FitOptions(position_error=_FIRST.position_error)
    return found


def _cutouts(image: Image, fits: SourceFits, psf: PixelPSF, size: int) -> list[NDData]:
    """Images of single stars, with their positions in ``meta``; the brightest only."""
    valid = image.valid((slice(None), slice(None)))
    others = parse_image(np.where(valid, fits.residual, np.nan))
    # The corners of the box belong to the star, too: photutils would invent what is masked.
    radius = size / np.sqrt(2)
    window = int(window_size(radius)) + 1
    steps = np.arange(window) - window // 2
    distance = np.hypot(steps[:, np.newaxis], steps)
    hole = np.maximum(np.abs(steps[:, np.newaxis]), np.abs(steps)) <= size // 2
    box = slice(window // 2 - size // 2, window // 2 + size // 2 + 1)
    used = np.flatnonzero(~fits.saturated & (fits.flux > 0))
    cutouts: list[NDData] = []
    for i in used[np.argsort(-fits.flux[used])]:
        x, y = fits.x[i], fits.y[i]
        x0, y0 = int(np.rint(x)), int(np.rint(y))
        inside = min(x0, y0) >= size // 2 and (
            np.array([y0, x0]) + size // 2 < image.shape
        ).all()
        values = extract(others, np.array([x0]), np.array([y0]), window)[0].astype(float)
        known = np.isfinite(values)
        if not inside or not known[distance < psf.fwhm].all():
            continue
        width = fits.width[i]
        columns, rows = (steps + x0 - x) / width, (steps + y0 - y) / width
        own = fits.flux[i] / width**2 * psf.evaluate(columns, rows)
        background = np.zeros(values.shape)
        filled = np.where(known, values, 0.0)
        background[hole] = kriging_fill(filled, known & ~hole, hole, radius)
        star = np.where(known & hole, values + own - background, 0.0)[box, box]
        meta = {'x': x - x0 + size // 2, 'y': y - y0 + size // 2}
        cutouts.append(NDData(star, mask=~(known & hole)[box, box], meta=meta))
        if len(cutouts) == _LARGEST_NUMBER:
            break
    if not cutouts:
        raise ValueError('no star can be used: all are saturated, incomplete or at the edge.')
    return cutouts


def _combine(cutouts, size, oversampling):
    """Let photutils make one PSF of the images of stars."""
    catalogs = [Table({name: [each.meta[name]] for name in 'xy'}) for each in cutouts]
    with warnings.catch_warnings():
        # Masked corners and fits that stop early do no harm.
        warnings.simplefilter('ignore', AstropyUserWarning)
        stars = extract_stars(cutouts, catalogs, size=size)
        builder = EPSFBuilder(
            oversampling=oversampling, progress_bar=False
        )
        found, _ = builder(stars)
    return ImagePSF(
        found.data / found.data.sum() * oversampling**2, oversampling=oversampling
    )
