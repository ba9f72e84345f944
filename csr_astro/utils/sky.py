"""Conversion of coordinates on the sky to pixels of a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

    from csr_astro.typing import WcsLike

__all__ = ['require_wcs', 'sky_to_pixels']

# Largest error of a round trip from sky to pixels and back, in units of a pixel's diagonal.
_ROUND_TRIP = 0.1


def require_wcs(wcs: WcsLike | None, what: str) -> None:
    """Raise an error if positions on the sky have no map to be placed on.

    Parameters
    ----------
    wcs : WCS or None
        World coordinate system of the map.
    what : str
        Plural noun for the positions.
    """
    if wcs is None:
        raise ValueError(f'{what} need a WCS, and the data have none; give wcs= or pixels.')


def sky_to_pixels(coordinates: SkyCoord, wcs: WcsLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Convert coordinates to pixels.

    Parameters
    ----------
    coordinates : `~astropy.coordinates.SkyCoord`
        One or N coordinates, possibly masked.
    wcs : WCS or None
        World coordinate system of the map; None raises an error.

    Returns
    -------
    x, y : (N,) `~numpy.ndarray` of float64
        Zero-based pixels; NaN where a coordinate is unknown or the projection has none.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from astropy.wcs import WCS
    >>> from csr_astro.utils.sky import sky_to_pixels
    >>> wcs = WCS({'CTYPE1': 'RA---TAN', 'CTYPE2': 'DEC--TAN', 'CRPIX1': 11, 'CRPIX2': 21})
    >>> x, y = sky_to_pixels(SkyCoord(0, 0, unit='deg'), wcs)
    >>> print(x, y)
    [10.] [20.]
    """
    require_wcs(wcs, 'sky coordinates')
    coordinates = coordinates.ravel() if coordinates.shape else coordinates.reshape(1)
    x, y = np.full(len(coordinates), np.nan), np.full(len(coordinates), np.nan)
    known = np.ones(len(coordinates), dtype=bool)
    for angle in (coordinates.spherical.lon, coordinates.spherical.lat):
        known &= np.isfinite(getattr(angle, 'unmasked', angle).value)
        known &= ~np.broadcast_to(getattr(angle, 'mask', False), known.shape)
    if known.any():
        found = coordinates[known]
        # Astropy 7.0 refuses Masked coordinates even if none of them is masked.
        x[known], y[known] = _pixels(getattr(found, 'unmasked', found), wcs)
    return x, y


def _pixels(coordinates, wcs):
    """Convert coordinates to pixels, NaN where the projection has none.

    Distortions are inverted by iteration, which may fail with a warning outside the map.
    Only pixels that convert back to the coordinates are kept.
    """
    with ignored(UserWarning, RuntimeWarning):
        x, y = (np.array(axis, dtype=float) for axis in wcs.world_to_pixel(coordinates))
        back, beside = wcs.pixel_to_world(x, y), wcs.pixel_to_world(x + 1, y + 1)
        missed = coordinates.separation(back) > _ROUND_TRIP * back.separation(beside)
    x[missed] = y[missed] = np.nan
    return x, y
