"""Size of the pixels of a map on the sky."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area

from csr_astro.utils.sky import local_axes

if TYPE_CHECKING:
    from csr_astro.typing import WcsLike

__all__ = ['pixel_scale', 'warn_of_sides']

# Relative difference of areas of pixels that is neglected, and of their sides.
_SAME_AREA, _SAME_SIDES = 0.01, 0.05


def pixel_scale(wcs: WcsLike | None, shape: tuple[int, int]) -> float | None:
    """Compute the root of the area of a pixel.

    Parameters
    ----------
    wcs : WCS or None
        World coordinate system of the map.
    shape : (int, int)
        Shape (ny, nx) of the map.

    Returns
    -------
    scale : float or None
        In arcsec; of the reference pixel, or of the central one where they differ by more than
        0.5 %: pixels of plate carree and other projections change over the sky.

    Examples
    --------
    A plate carree map at a declination of 60 degrees, in which one degree has cos(60) of its area:

    >>> from astropy.wcs import WCS
    >>> from csr_astro.utils.pixels import pixel_scale
    >>> wcs = WCS({'CTYPE1': 'RA---CAR', 'CTYPE2': 'DEC--CAR', 'CRPIX1': 50, 'CRPIX2': -59950,
    ...            'CDELT1': -0.001, 'CDELT2': 0.001})
    >>> print(round(pixel_scale(wcs, (100, 100)) / 3.6, 2))
    0.71
    """
    if wcs is None:
        return None
    y, x = ((n - 1) / 2 for n in shape)
    if not isinstance(wcs, WCS):
        corner = wcs.pixel_to_world([x, x + 1, x], [y, y, y + 1])
        return float(np.sqrt(np.prod(corner[0].separation(corner[1:]).to_value(u.arcsec))))
    # A degenerate WCS gives a scale that is not finite, which is checked when it is used.
    with np.errstate(over='ignore', invalid='ignore'):
        area = proj_plane_pixel_area(wcs) * (u.deg**2).to(u.arcsec**2)
        central = _central_sides(wcs, x, y).prod()
        if abs(central / area - 1) > _SAME_AREA:
            area = central
        return float(np.sqrt(area))


def _central_sides(wcs, x, y):
    """Return the shorter and the longer side of a pixel, NaN outside the projection."""
    axes = local_axes(wcs, np.array([x]), np.array([y]))[0]
    if not np.isfinite(axes).all():
        return np.full(2, np.nan)
    return 1 / np.linalg.svd(axes, compute_uv=False)


def warn_of_sides(wcs: WcsLike | None, shape: tuple[int, int]) -> None:
    """Warn that pixels are not square on the sky, so that circles of pixels are ellipses there.

    Parameters
    ----------
    wcs : WCS or None
        World coordinate system of the map.
    shape : (int, int)
        Shape (ny, nx) of the map.
    """
    if not isinstance(wcs, WCS):
        return
    short, long = _central_sides(wcs, *((n - 1) / 2 for n in shape[::-1]))
    if long > (1 + _SAME_SIDES) * short:
        warnings.warn(
            f'the pixels of the map are {short:.3g} x {long:.3g} arcsec: masks, radii and PSFs are '
            'round in pixels, and not on the sky; reproject the map to square pixels.',
            AstropyUserWarning,
            stacklevel=4,
        )
