"""Profiles of point sources: formulas and images as functions of the offset in pixels."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from csr_astro.typing import ProfileLike

__all__ = [
    'Profile',
    'gaussian_profile',
    'image_profile',
    'moffat_profile',
    'smeared_profile',
]


# Number of shifted profiles whose mean is a smear.
_SMEAR_STEPS = 9


@dataclass(frozen=True)
class Profile:
    """A profile with the radius at which it ends and the pixels it is averaged over.

    Attributes
    ----------
    function : callable
        Surface brightness, any scale, for arrays of offsets ``(dx, dy)`` in
        pixels of the map.
    radius : float
        Radius beyond which it is 0, in pixels of the map.
    pixel : float
        Side of the pixels over which ``function`` is already averaged, in pixels of the map: the
        pixel scale for an image of a PSF, 0 for a formula.

    Examples
    --------
    >>> from csr_astro.simulation.profiles import Profile, gaussian_profile
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
    >>> from csr_astro.simulation.profiles import gaussian_profile
    >>> profile = gaussian_profile(3.5)
    >>> print(profile(0, 0), profile(3.5 / 2, 0))
    1.0 0.5
    """
    _check_positive(fwhm=fwhm)
    # The profile is below a ten-millionth of its peak beyond this radius.
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
    >>> from csr_astro.simulation.profiles import moffat_profile
    >>> profile = moffat_profile(3.5, 2.5)
    >>> print(profile(0, 0), profile(3.5 / 2, 0))
    1.0 0.5
    """
    _check_positive(fwhm=fwhm, beta=beta)
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    return lambda dx, dy: (1 + (dx**2 + dy**2) / alpha2) ** -beta


def image_profile(image: ArrayLike, scale: float = 1.0, wing: float = 3.0) -> ProfileLike:
    """Profile of a PSF image, continued outside it as a power law.

    Parameters
    ----------
    image : (ny, nx) array-like
        PSF, centred on the central pixel.
    scale : float, optional
        Pixel scale of ``image`` over the pixel scale of the map.
    wing : float, optional
        Exponent of the continuation ``r**-wing``, which starts from the mean at the largest
        circle inside the image; 3 describes the PACS wings between 20 and 60 arcsec.

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


def smeared_profile(profile: ProfileLike, length: float) -> Profile:
    """A profile elongated by a fast scan along the x axis.

    The telescope moves while the detector averages its readings: the PSF is its mean over a
    stretch of the scan. The angle of `~csr_astro.simulation.psf.psf_stamp` turns it into other
    directions.

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
    >>> from csr_astro.simulation.profiles import gaussian_profile, smeared_profile
    >>> profile = smeared_profile(gaussian_profile(3), 6)
    >>> bool(profile(3, 0) > profile(0, 3))
    True
    """
    length = positive_number(length, 'length')
    steps = ((np.arange(_SMEAR_STEPS) + 0.5) / _SMEAR_STEPS - 0.5) * length

    def smeared(dx, dy):
        return sum(profile(dx - step, dy) for step in steps) / _SMEAR_STEPS

    radius = getattr(profile, 'radius', np.inf)
    return Profile(smeared, radius + length / 2, getattr(profile, 'pixel', 0.0))


def positive_number(value, name, *, zero=False):
    """A positive finite number, or a sentence that says what is wrong.

    Parameters
    ----------
    value : float or Quantity
        The number; a length on the sky is converted to arcsec.
    name : str
        Name of the argument, for the message.
    zero : bool, optional
        Whether 0 is accepted too.

    Returns
    -------
    value : float
    """
    try:
        value = float(u.Quantity(value, u.arcsec).value if isinstance(value, u.Quantity) else value)
    except (TypeError, ValueError, u.UnitsError):
        raise ValueError(f'{name} must be a number, got {value!r}.') from None
    if not (np.isfinite(value) and (value > 0 or (zero and value == 0))):
        raise ValueError(f'{name} must be positive, got {value:g}.')
    return value
