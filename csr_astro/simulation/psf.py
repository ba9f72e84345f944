"""What does a point source look like on the pixel grid?"""

import numpy as np
from scipy import ndimage

__all__ = ['gaussian_profile', 'image_profile', 'moffat_profile', 'psf_stamp']

# Sub-pixels per side over which a profile is averaged.
_OVERSAMPLING = 3


def gaussian_profile(fwhm):
    """Gaussian profile, as a function of offsets in pixels.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum in pixels.

    Returns
    -------
    profile : callable
        Surface brightness, any scale, for arrays of offsets ``(dx, dy)``.
    """
    return lambda dx, dy: np.exp(-4 * np.log(2) * (dx**2 + dy**2) / fwhm**2)


def moffat_profile(fwhm, beta):
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
    """
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    return lambda dx, dy: (1 + (dx**2 + dy**2) / alpha2) ** -beta


def image_profile(image, scale=1.0, wing=3.0):
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


def psf_stamp(profile, size, *, offset=(0.0, 0.0), angle=0.0, elongation=1.0):
    """Render a profile on the pixel grid.

    Parameters
    ----------
    profile : callable
        As returned by `moffat_profile` or `image_profile`.
    size : int
        Number of pixels per side, odd.
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
    n = _OVERSAMPLING
    steps = (np.arange(size * n) - (size * n - 1) / 2) / n
    dx, dy = np.meshgrid(steps - offset[0], steps - offset[1])
    cos, sin = np.cos(angle), np.sin(angle)
    fine = profile((cos * dx + sin * dy) / elongation, cos * dy - sin * dx)
    stamp = fine.reshape(size, n, size, n).mean(axis=(1, 3))
    return stamp / stamp.sum()
