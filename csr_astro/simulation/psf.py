"""What does a point source look like on the pixel grid?

A profile is a function of offsets ``(dx, dy)`` in pixels of the map. It can be
a formula, a model of a PACS band (parameters in ``data/psf_models.toml``), an
image, or a model of astropy or photutils.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from astropy import units as u
from astropy.io import fits
from scipy import ndimage

from csr_astro.utils.data import read_data
from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from csr_astro.instruments import Instrument
    from csr_astro.typing import ProfileLike, PsfLike

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
# A smear is the mean of this many shifted profiles.
_SMEAR_STEPS = 9
_ACCEPTED = 'a profile, FITS file, image HDU, image, astropy model or photutils PSF model'


@dataclass(frozen=True)
class Profile:
    """A profile that knows where it ends and what it already contains.

    Attributes
    ----------
    function : callable
        Surface brightness, any scale, for arrays of offsets ``(dx, dy)`` in
        pixels of the map.
    radius : float
        Nothing lies farther out, in pixels of the map.
    pixel : float
        Side of the pixels, in pixels of the map, over which ``function`` is
        averaged already: that of the pixels of an image of a PSF, 0 for a
        formula. Pixels are not convolved with pixels twice.

    Examples
    --------
    >>> from csr_astro.simulation.psf import Profile, gaussian_profile
    >>> profile = Profile(gaussian_profile(3.5), radius=5)
    >>> print(profile(0, 0), profile(0, 6))
    1.0 0.0
    """

    function: Callable
    radius: float = np.inf
    pixel: float = 0.0

    def __repr__(self) -> str:
        end = 'without end' if np.isinf(self.radius) else f'up to {self.radius:.3g} pixels'
        name = getattr(self.function, '__name__', type(self.function).__name__)
        return f'<Profile: {name}, {end}>'

    def __call__(self, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
        """Surface brightness at offsets in pixels of the map."""
        values = self.function(dx, dy)
        if np.isinf(self.radius):
            return values
        return np.where(np.hypot(dx, dy) <= self.radius, values, 0.0)


def _check_positive(**numbers_of):
    for name, value in numbers_of.items():
        if not isinstance(value, numbers.Real) or not 0 < value < np.inf:
            raise ValueError(f'{name} must be a positive number (widths in pixels), got {value!r}.')


def gaussian_profile(fwhm: float) -> ProfileLike:
    """Gaussian profile, as a function of offsets in pixels.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum in pixels.

    Returns
    -------
    profile : callable
        Surface brightness, any scale, for arrays of offsets ``(dx, dy)``.

    Examples
    --------
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> profile = gaussian_profile(3.5)
    >>> print(profile(0, 0), profile(3.5 / 2, 0))
    1.0 0.5
    """
    _check_positive(fwhm=fwhm)
    # Beyond there is less than a ten-millionth of the peak.
    return Profile(
        lambda dx, dy: np.exp(-4 * np.log(2) * (dx**2 + dy**2) / fwhm**2), radius=2.5 * fwhm
    )


def moffat_profile(fwhm: float, beta: float) -> ProfileLike:
    """Moffat profile ``(1 + (r/α)²)^−β``, as a function of offsets in pixels.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum in pixels.
    beta : float
        Exponent; the smaller, the stronger the wings.

    Returns
    -------
    profile : callable
        Surface brightness, any scale, for arrays of offsets ``(dx, dy)``.

    Examples
    --------
    >>> from csr_astro.simulation.psf import moffat_profile
    >>> profile = moffat_profile(3.5, 2.5)
    >>> print(profile(0, 0), profile(3.5 / 2, 0))
    1.0 0.5
    """
    _check_positive(fwhm=fwhm, beta=beta)
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    return lambda dx, dy: (1 + (dx**2 + dy**2) / alpha2) ** -beta


def image_profile(image: ArrayLike, scale: float = 1.0, wing: float = 3.0) -> ProfileLike:
    """The profile of a PSF image, continued outside it as a power law.

    Parameters
    ----------
    image : (ny, nx) array-like
        PSF, centred on the central pixel.
    scale : float, optional
        Pixel scale of ``image`` over the pixel scale of the map.
    wing : float, optional
        Continued as ``r**-wing`` from the mean at the largest circle that fits;
        3 describes the PACS wings between 20 and 60 arcsec.

    Returns
    -------
    profile : callable
        Surface brightness, any scale, for arrays of offsets ``(dx, dy)`` in
        pixels of the map.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.simulation.psf import gaussian_profile, image_profile, psf_stamp
    >>> profile = image_profile(psf_stamp(gaussian_profile(3.5), 31))
    >>> middle, half = profile(np.array([0.0, 3.5 / 2]), np.zeros(2))
    >>> print(0.45 < half / middle < 0.6)
    True
    """
    image = np.asarray(image, dtype=float)
    center = (np.array(image.shape) - 1) / 2
    y, x = np.indices(image.shape)
    radius = np.hypot(x - center[1], y - center[0])
    edge = min(center) - 1
    level = max(image[np.abs(radius - edge) < 1].mean(), 0)
    coefficients = ndimage.spline_filter(image, order=3)

    def profile(dx, dy):
        dx, dy = np.asarray(dx) / scale, np.asarray(dy) / scale
        r = np.hypot(dx, dy)
        inside = ndimage.map_coordinates(
            coefficients, [dy + center[0], dx + center[1]], order=3, prefilter=False, mode='nearest'
        )
        # Blended over three pixels, so that no ring shows at the seam.
        blend = np.clip((edge - r) / 3, 0, 1)
        return blend * inside + (1 - blend) * level * (np.maximum(r, edge / 2) / edge) ** -wing

    return profile


def pacs_brightness(model, x, y):
    """Surface brightness of a model of a PACS PSF; the core's is 1 in the centre.

    The sum of an elliptical Gaussian; a ring of three lobes,
    ``exp(−(r − ρ)²/2w²) (1 + c cos 3(θ − θ₀))``; and wings
    ``(1 + r²/s²)^(−p/2)``.

    Parameters
    ----------
    model : dict
        An entry of ``data/psf_models.toml``.
    x, y : array-like of float
        Offsets in arcsec.

    Returns
    -------
    brightness : `~numpy.ndarray` of float
    """
    core, lobes, wings = (model[part] for part in ('core', 'lobes', 'wings'))
    r2 = x**2 + y**2
    angle = np.radians(core['angle'])
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    major, minor = core['fwhm']
    brightness = np.exp(-4 * np.log(2) * ((along / major) ** 2 + (across / minor) ** 2))
    azimuth = np.arctan2(y, x) - np.radians(lobes['angle'])
    ring = np.exp(-0.5 * ((np.sqrt(r2) - lobes['radius']) / lobes['width']) ** 2)
    brightness += lobes['amplitude'] * ring * (1 + lobes['contrast'] * np.cos(3 * azimuth))
    return brightness + wings['amplitude'] * (1 + r2 / wings['radius'] ** 2) ** (
        -wings['exponent'] / 2
    )


def pacs_profile(
    band: str, pixel_scale: float, *, radius: float = 60.0, smear: float = 0.0
) -> Profile:
    """The PSF of a band of Herschel/PACS: core, three lobes and wings.

    A model fitted to images of Vesta and to the tables of enclosed energy; its
    parameters are data (``data/psf_models.toml``). A stamp of unit sum encloses
    the energies of the table ``vesta``. The table ``eef`` of real sources
    counts what lies beyond 60 arcsec too: it is smaller by the model's
    ``energy_within_60arcsec``.

    Parameters
    ----------
    band : {'blue', 'green', 'red'} or str
        Of 70, 100 and 160 micrometres; or the name of a PACS instrument, as
        ``'pacs-scanmap-blue'``.
    pixel_scale : float
        Side of a pixel of the map in arcsec.
    radius : float, optional
        The wings end here, in arcsec.
    smear : float, optional
        Length in arcsec by which a fast scan smears it along the x axis, see
        `smeared_profile`: 12 (blue, green) or 6 (red) in parallel mode.

    Returns
    -------
    profile : `Profile`

    Examples
    --------
    >>> from csr_astro.simulation.psf import encircled_energy, pacs_profile
    >>> profile = pacs_profile('blue', 1.6)
    >>> print(encircled_energy(profile, 12 / 1.6).round(2))  # 12 arcsec
    0.88
    """
    bands = read_data('psf_models.toml')
    name = str(band).removeprefix('pacs-scanmap-').removeprefix('pacs-parallel-')
    if name not in bands:
        raise ValueError(f'band must be one of {list(bands)} or a PACS instrument, got {band!r}.')
    pixel_scale, radius, smear = (
        _positive(value, what, zero=what == 'smear')
        for value, what in ((pixel_scale, 'pixel_scale'), (radius, 'radius'), (smear, 'smear'))
    )
    model = bands[name]

    def brightness(dx, dy):
        return pacs_brightness(model, np.asarray(dx) * pixel_scale, np.asarray(dy) * pixel_scale)

    profile = Profile(brightness, radius / pixel_scale)
    return smeared_profile(profile, smear / pixel_scale) if smear else profile


def _positive(value, name, *, zero=False):
    try:
        value = float(u.Quantity(value, u.arcsec).value if isinstance(value, u.Quantity) else value)
    except (TypeError, ValueError, u.UnitsError):
        raise ValueError(f'{name} must be a number, got {value!r}.') from None
    if not (np.isfinite(value) and (value > 0 or (zero and value == 0))):
        raise ValueError(f'{name} must be positive, got {value:g}.')
    return value


def smeared_profile(profile: ProfileLike, length: float) -> Profile:
    """A profile elongated by a fast scan along the x axis.

    While the detector averages its readings the telescope moves on: the PSF is
    its mean over a stretch of the scan. Other directions come from the angle of
    `psf_stamp`.

    Parameters
    ----------
    profile : callable
        The PSF.
    length : float
        Length of the stretch in pixels.

    Returns
    -------
    profile : `Profile`

    Examples
    --------
    >>> from csr_astro.simulation.psf import gaussian_profile, smeared_profile
    >>> profile = smeared_profile(gaussian_profile(3), 6)
    >>> bool(profile(3, 0) > profile(0, 3))
    True
    """
    length = _positive(length, 'length')
    steps = ((np.arange(_SMEAR_STEPS) + 0.5) / _SMEAR_STEPS - 0.5) * length

    def smeared(dx, dy):
        return sum(profile(dx - step, dy) for step in steps) / _SMEAR_STEPS

    radius = getattr(profile, 'radius', np.inf)
    return Profile(smeared, radius + length / 2, getattr(profile, 'pixel', 0.0))


def instrument_profile(instrument: Instrument, *, fast_scan: bool = False) -> ProfileLike:
    """The PSF of an instrument, on its pixels.

    Parameters
    ----------
    instrument : `~csr_astro.instruments.Instrument`
        On the pixels of the map, see
        `~csr_astro.instruments.Instrument.on_pixels`.
    fast_scan : bool, optional
        Whether it is elongated by the scans at 60 arcsec/s of PACS' parallel
        mode. The tables of enclosed energy are those of slow scans.

    Returns
    -------
    profile : callable
        `pacs_profile` for PACS, `gaussian_profile` for others.

    Examples
    --------
    >>> from csr_astro.instruments import get_instrument
    >>> from csr_astro.simulation.psf import instrument_profile
    >>> profile = instrument_profile(get_instrument('generic', fwhm=3.5))
    >>> print(profile(3.5 / 2, 0) / profile(0, 0))
    0.5
    """
    if instrument.name.startswith('pacs-'):
        model = read_data('psf_models.toml')[instrument.name.rsplit('-')[-1]]
        smear = model['fast_scan_smear'] if fast_scan else 0.0
        return pacs_profile(instrument.name, cast('float', instrument.pixel_scale), smear=smear)
    if fast_scan:
        raise ValueError(f'only PACS has fast scans; the instrument is {instrument.name!r}.')
    return gaussian_profile(instrument.fwhm)


def psf_profile(
    psf: PsfLike, pixel_scale: float | None = None, *, psf_scale: float | None = None
) -> ProfileLike:
    """Make a profile of whatever holds a PSF.

    Parameters
    ----------
    psf : callable, path-like, image HDU, array, astropy or photutils model
        A FITS file, HDU or image of the PSF with its peak near the middle,
        which is nothing outside the image; a two-dimensional astropy model, in
        pixels of the map; a photutils PSF model or image; or a profile, which
        is returned as it is.
    pixel_scale : float, optional
        Side of a pixel of the map in arcsec; with ``psf_scale`` it tells how
        large an image is on the map. Without either, pixels are the same.
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
        scale = _positive(psf_scale, 'psf_scale') / _positive(pixel_scale, 'pixel_scale')
    return _interpolated(image, scale)


def _read_psf(path):
    from csr_astro.images import read_image

    image, header = read_image(path)
    return image.data, _header_scale(header)


def _header_scale(header):
    """Pixel scale in arcsec that the header of a PSF tells, or None."""
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
    """
    The pixels of an image of a PSF as floats, 0 where they are not known.

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
    """The profile of an image, zero outside it; ``scale`` is its pixel in pixels of the map."""
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
    """(y, x) of the peak, which may lie between pixels: images of even sides are common."""
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
    # Images and PRFs give what falls into a pixel; other models the brightness at a point.
    averaged = hasattr(model, 'oversampling') or type(model).__name__.endswith('PRF')
    radius = np.inf
    if hasattr(model, 'oversampling'):
        oversampling = np.broadcast_to(model.oversampling, 2)
        radius = float(np.hypot(*(np.array(np.shape(model.data)[-2:]) / oversampling)) / 2 + 1)

    def function(dx, dy):
        dx, dy = np.broadcast_arrays(dx, dy)
        return np.asarray(model(dx + center[0], dy + center[1]), dtype=float)

    return Profile(function, radius, 1.0 if averaged else 0.0)


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
        Pixels per side of the stamp that holds everything; it follows from
        ``profile.radius``, else it is 65.

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
        As returned by `moffat_profile` or `image_profile`.
    size : int, optional
        Number of pixels per side, odd. By default the whole profile fits, or it
        is 65 if it has no end.
    offset : (float, float), optional
        (x, y) of the source relative to the central pixel.
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
        # Squares of widths add: what is left of the map's pixel beside that of the image.
        center = np.repeat(np.arange(size) - size // 2, n)
        steps = center + (steps - center) * np.sqrt(max(0.0, 1 - pixel**2))
    dx, dy = np.meshgrid(steps - offset[0], steps - offset[1])
    cos, sin = np.cos(angle), np.sin(angle)
    fine = profile((cos * dx + sin * dy) / elongation, cos * dy - sin * dx)
    stamp = fine.reshape(size, n, size, n).mean(axis=(1, 3))
    return stamp / stamp.sum()
