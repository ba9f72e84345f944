"""Point spread functions on the pixel grid.

A profile is a function of offsets ``(dx, dy)`` in pixels of the map. `psf_profile` makes one of
a FITS file, an image, or a model of astropy or photutils; `psf_stamp` renders it on pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from astropy.io import fits
from scipy import ndimage

from csr_astro.simulation.pacs import band_profile, pacs_profile
from csr_astro.simulation.profiles import (
    Profile,
    gaussian_profile,
    image_profile,
    moffat_profile,
    positive_number,
    smeared_profile,
)
from csr_astro.utils.data import read_data
from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from csr_astro.instruments import Instrument
    from csr_astro.typing import ProfileLike, PsfLike

# Profiles are part of this module for its users, wherever they are defined.
__all__ = [
    'Profile',
    'encircled_energy',
    'gaussian_profile',
    'image_profile',
    'instrument_profile',
    'moffat_profile',
    'pacs_profile',
    'psf_profile',
    'psf_stamp',
    'smeared_profile',
]


# Sub-pixels per side over which a profile is averaged.
_OVERSAMPLING = 3
# Pixels per side of the stamp of a profile that has no end.
_DEFAULT_SIZE = 65
_ACCEPTED = 'a profile, FITS file, image HDU, image, astropy model or photutils PSF model'


def instrument_profile(instrument: Instrument, *, fast_scan: bool = False) -> ProfileLike:
    """The PSF of an instrument, on its pixels.

    Parameters
    ----------
    instrument : `~csr_astro.instruments.Instrument`
        On the pixels of the map, see
        `~csr_astro.instruments.Instrument.on_pixels`.
    fast_scan : bool, optional
        Whether it is elongated by the scans at 60 arcsec/s of PACS' parallel mode. The tables
        of enclosed energy are for slow scans.

    Returns
    -------
    profile : callable
        `~csr_astro.simulation.pacs.band_profile` for PACS and SPIRE, `gaussian_profile` for others.

    Examples
    --------
    >>> from csr_astro.instruments import get_instrument
    >>> from csr_astro.simulation.psf import instrument_profile
    >>> profile = instrument_profile(get_instrument('generic', fwhm=3.5))
    >>> print(profile(3.5 / 2, 0) / profile(0, 0))
    0.5
    """
    if instrument.psf_model is not None:
        model = read_data('psf_models.toml')[instrument.psf_model]
        smear = model.get('fast_scan_smear') if fast_scan else 0.0
        if smear is not None:
            pixel_scale = cast('float', instrument.pixel_scale)
            return band_profile(
                instrument.psf_model, pixel_scale, smear=smear, angle=instrument.psf_angle
            )
    if fast_scan:
        raise ValueError(f'only PACS has fast scans; the instrument is {instrument.name!r}.')
    return gaussian_profile(instrument.fwhm)


def psf_profile(
    psf: PsfLike, pixel_scale: float | None = None, *, psf_scale: float | None = None
) -> ProfileLike:
    """Make a profile of a PSF in any accepted form.

    Parameters
    ----------
    psf : callable, path-like, image HDU, array, astropy or photutils model
        A FITS file, HDU or image of the PSF with its peak near the middle and zero outside the
        image; a two-dimensional astropy model, in pixels of the map; a photutils PSF model or
        image; or a profile, which is returned as it is.
    pixel_scale : float, optional
        Side of a pixel of the map in arcsec. Without this or ``psf_scale``, the pixels of map
        and PSF are taken to be the same.
    psf_scale : float, optional
        Side of a pixel of an image of the PSF in arcsec. By default it is read
        from the header (``PIXARCS``, ``PIXSCALE`` or a WCS).

    Returns
    -------
    profile : callable

    Examples
    --------
    >>> from astropy.modeling.models import Gaussian2D
    >>> from csr_astro.simulation.psf import psf_profile, psf_stamp
    >>> profile = psf_profile(Gaussian2D(x_stddev=2, y_stddev=1.5))
    >>> print(round(psf_stamp(profile, 25, offset=(0.3, 0.1)).sum(), 9))
    1.0
    """
    from astropy.modeling import Model

    if isinstance(psf, Model):
        return _model_profile(psf)
    if isinstance(psf, str | Path):
        image, header_scale = _read_psf(Path(psf))
    elif isinstance(psf, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU):
        image, header_scale = psf.data, _header_scale(psf.header)
    elif callable(psf):
        return psf
    elif isinstance(psf, np.ndarray | list | tuple):
        image, header_scale = psf, None
    else:
        raise TypeError(f'psf must be {_ACCEPTED}, got {type(psf).__name__}.')
    scale = 1.0
    psf_scale = header_scale if psf_scale is None else psf_scale
    if psf_scale is not None and pixel_scale is not None:
        scale = positive_number(psf_scale, 'psf_scale')
        scale /= positive_number(pixel_scale, 'pixel_scale')
    return _interpolated(image, scale)


def _read_psf(path):
    from csr_astro.images import read_image

    image, header = read_image(path)
    return image.data, _header_scale(header)


def _header_scale(header):
    """Pixel scale in arcsec from the header of a PSF, or None."""
    for key in ('PIXARCS', 'PIXSCALE'):
        if key in header:
            return float(header[key])
    from csr_astro.images import parse_image

    return parse_image(np.zeros((2, 2)), wcs=_wcs(header)).pixel_scale


def _wcs(header):
    from astropy.wcs import WCS, FITSFixedWarning

    with ignored(FITSFixedWarning):
        return WCS(header)


def psf_pixels(image):
    """Pixels of an image of a PSF as floats, with 0 for invalid ones.

    Parameters
    ----------
    image : array_like
        The image, shape ``(ny, nx)``.

    Returns
    -------
    image : `~numpy.ndarray`
        The same shape; it has a positive sum.

    Raises
    ------
    ValueError
        If there are fewer than 3 x 3 pixels or their sum is not positive.
    """
    image = np.nan_to_num(np.asarray(image, dtype=float))
    if image.ndim != 2 or min(image.shape) < 3:
        raise ValueError(
            f'the image of a PSF must have at least 3 x 3 pixels, got shape {image.shape}.'
        )
    if not image.sum() > 0:
        raise ValueError('the image of a PSF must have a positive sum.')
    return image


def _interpolated(image, scale):
    """Profile of an image, zero outside it; ``scale`` is its pixel in pixels of the map."""
    image = psf_pixels(image)
    # Padded, so that the spline falls to zero outside and loses nothing at the border.
    pad = 4
    coefficients = ndimage.spline_filter(np.pad(image, pad), order=3)

    def spline(y, x):
        y, x = np.broadcast_arrays(y, x)
        places = np.stack([y.ravel(), x.ravel()])
        values = ndimage.map_coordinates(coefficients, places, order=3, prefilter=False)
        return values.reshape(y.shape)

    y0, x0 = _peak(spline, image, pad)
    ny, nx = coefficients.shape
    corner = np.hypot(max(x0, nx - 1 - x0), max(y0, ny - 1 - y0)) - pad + 1

    def function(dx, dy):
        return spline(np.asarray(dy) / scale + y0, np.asarray(dx) / scale + x0)

    return Profile(function, corner * scale, scale)


def _peak(spline, image, pad):
    """Position (y, x) of the peak; images of even sides have it between pixels."""
    peak = np.array(np.unravel_index(image.argmax(), image.shape))
    if (peak == 0).any() or (peak == np.array(image.shape) - 1).any():
        raise ValueError('the image of a PSF must have its peak inside, not at its edge.')
    peak = peak + float(pad)
    for step in (0.1, 0.01, 0.001):
        steps = np.arange(-10, 11) * step
        values = spline(peak[0] + steps[:, None], peak[1] + steps)
        best = np.unravel_index(values.argmax(), values.shape)
        peak = peak + steps[list(best)]
    return peak


def _model_profile(model):
    """An astropy or photutils model around its own centre."""
    if model.n_inputs != 2 or model.n_outputs != 1:
        raise ValueError(
            f'the model of a PSF must be a function of x and y, got {type(model).__name__} with '
            f'{model.n_inputs} inputs.'
        )
    center = [0.0, 0.0]
    for i, names in enumerate((('x_0', 'x_mean'), ('y_0', 'y_mean'))):
        for name in names:
            if name in model.param_names:
                center[i] = float(getattr(model, name).value)
    # Images and PRFs are averages over a pixel; other models the brightness at a point.
    averaged = hasattr(model, 'oversampling') or type(model).__name__.endswith('PRF')
    radius = np.inf
    if hasattr(model, 'oversampling'):
        oversampling = np.broadcast_to(model.oversampling, 2)
        radius = float(np.hypot(*(np.array(np.shape(model.data)[-2:]) / oversampling)) / 2 + 1)

    def function(dx, dy):
        dx, dy = np.broadcast_arrays(dx, dy)
        return np.asarray(model(dx + center[0], dy + center[1]), dtype=float)

    return Profile(function, radius, 1.0 if averaged else 0.0)


def psf_stamp(
    profile: ProfileLike,
    size: int | None = None,
    *,
    offset: tuple[float, float] = (0.0, 0.0),
    angle: float = 0.0,
    elongation: float = 1.0,
) -> np.ndarray:
    """Render a profile on the pixel grid.

    Parameters
    ----------
    profile : callable
        A profile, as from `psf_profile`.
    size : int, optional
        Number of pixels per side, odd. By default the whole profile fits, or it is 65 for a
        profile without end.
    offset : (float, float), optional
        Position (x, y) of the source relative to the central pixel.
    angle : float, optional
        Rotation in radians, counter-clockwise.
    elongation : float, optional
        Stretch along the x axis, before rotation, as by a fast scan.

    Returns
    -------
    stamp : (size, size) `~numpy.ndarray` of float64
        Unit sum.

    Examples
    --------
    >>> from csr_astro.simulation.psf import moffat_profile, psf_stamp
    >>> stamp = psf_stamp(moffat_profile(fwhm=4, beta=3), 41)
    >>> print(stamp.shape, round(stamp.sum(), 6))
    (41, 41) 1.0
    """
    if size is None:
        size = _stamp_size(profile)
        if elongation > 1:
            size = 2 * int(np.ceil((size // 2) * elongation)) + 1
    if size < 1 or size % 2 == 0:
        raise ValueError(f'size must be a positive odd number of pixels, got {size}.')
    n = _OVERSAMPLING
    steps = (np.arange(size * n) - (size * n - 1) / 2) / n
    pixel = getattr(profile, 'pixel', 0.0)
    if pixel > 0:
        # Squares of widths add: the image's own pixel is taken off the map's.
        center = np.repeat(np.arange(size) - size // 2, n)
        steps = center + (steps - center) * np.sqrt(max(0.0, 1 - pixel**2))
    dx, dy = np.meshgrid(steps - offset[0], steps - offset[1])
    cos, sin = np.cos(angle), np.sin(angle)
    fine = profile((cos * dx + sin * dy) / elongation, cos * dy - sin * dx)
    stamp = fine.reshape(size, n, size, n).mean(axis=(1, 3))
    return stamp / stamp.sum()


def _stamp_size(profile):
    """Pixels per side of a stamp that holds the whole profile wherever in a pixel it lies."""
    radius = getattr(profile, 'radius', np.inf)
    return _DEFAULT_SIZE if np.isinf(radius) else 2 * int(np.ceil(radius + 1)) + 1


def encircled_energy(
    profile: ProfileLike, radius: ArrayLike, *, size: int | None = None
) -> np.ndarray:
    """Fraction of a source's energy inside circular apertures, on pixels.

    Parameters
    ----------
    profile : callable
        The PSF.
    radius : float or (N,) array-like of float
        Radii of the apertures in pixels.
    size : int, optional
        Pixels per side of the stamp that holds the whole profile. By default it follows from
        ``profile.radius``, or is 65 without one.

    Returns
    -------
    fraction : `~numpy.ndarray` of float
        With the shape of ``radius``.

    Examples
    --------
    >>> from csr_astro.simulation.psf import encircled_energy, gaussian_profile
    >>> print(encircled_energy(gaussian_profile(6), [3, 30]).round(2))
    [0.49 1.  ]
    """
    from photutils.aperture import CircularAperture

    stamp = psf_stamp(profile, size)
    center = (stamp.shape[0] - 1) / 2
    sums = [
        CircularAperture((center, center), each).do_photometry(stamp)[0][0]
        for each in np.ravel(radius)
    ]
    return np.array(sums).reshape(np.shape(radius))
