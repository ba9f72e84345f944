"""Conversion of coordinates on the sky to pixels of a map."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.utils.exceptions import AstropyUserWarning

from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

    from csr_astro.typing import WcsLike

__all__ = ['local_axes', 'north_angle', 'require_wcs', 'sky_shape', 'sky_to_pixels']

# Largest error of a round trip from sky to pixels and back, in units of a pixel's diagonal.
_ROUND_TRIP = 0.1
# Positions farther from the reference of a WCS have no pixels in most projections.
_FAR = 90 * u.deg


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
    missed |= ~np.isfinite(x + y)
    x[missed] = y[missed] = np.nan
    if missed.any():
        _warn_of_far(coordinates, missed, wcs)
    return x, y


def _warn_of_far(coordinates, missed, wcs):
    """Warn of positions that no pixel can have because they are on the other side of the sky."""
    if not hasattr(wcs, 'wcs'):
        return
    with ignored(UserWarning, RuntimeWarning):
        far = coordinates.separation(wcs.pixel_to_world(*(wcs.wcs.crpix[:2] - 1))) > _FAR
    n_far = np.count_nonzero(far & missed)
    if n_far:
        warnings.warn(
            f'{n_far} of {len(coordinates)} positions are more than 90 degrees away from the map, '
            'which has no pixels for them.',
            AstropyUserWarning,
            stacklevel=5,
        )


def local_axes(wcs: WcsLike, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute the pixel offsets of one arcsecond to the East and to the North.

    Parameters
    ----------
    wcs : WCS
        World coordinate system of the map.
    x, y : (N,) array of float
        Positions in pixels.

    Returns
    -------
    axes : (N, 2, 2) `~numpy.ndarray` of float
        Matrices with rows x and y and columns East and North; NaN outside the projection.

    Examples
    --------
    >>> from astropy.wcs import WCS
    >>> from csr_astro.utils.sky import local_axes
    >>> wcs = WCS({'CTYPE1': 'RA---TAN', 'CTYPE2': 'DEC--TAN', 'CDELT1': -1 / 3600,
    ...            'CDELT2': 1 / 3600})
    >>> print(local_axes(wcs, [0.0], [0.0])[0].round(6) + 0)
    [[-1.  0.]
     [ 0.  1.]]
    """
    x, y = (np.atleast_1d(axis).astype(float) for axis in (x, y))
    with ignored(UserWarning, RuntimeWarning):
        center = wcs.pixel_to_world(x, y)
        columns = []
        for dx, dy in ((0.5, 0), (0, 0.5)):
            ends = [wcs.pixel_to_world(x + sign * dx, y + sign * dy) for sign in (1, -1)]
            # The difference of both sides cancels the curvature of the projection.
            offsets = [
                center.separation(end).arcsec * np.exp(1j * center.position_angle(end).rad)
                for end in ends
            ]
            columns.append(offsets[0] - offsets[1])
    # Arcseconds to the North (real) and East (imaginary) of one pixel along x and y.
    arcsec = np.stack([np.stack([c.imag for c in columns], -1),
                       np.stack([c.real for c in columns], -1)], axis=-2)  # fmt: skip
    axes = np.full(arcsec.shape, np.nan)
    with np.errstate(invalid='ignore'):
        good = np.isfinite(arcsec).all(axis=(1, 2)) & (np.abs(np.linalg.det(arcsec)) > 0)
    axes[good] = np.linalg.inv(arcsec[good])
    return axes


def north_angle(wcs: WcsLike | None, x: float, y: float) -> float | None:
    """Compute the direction of North.

    Parameters
    ----------
    wcs : WCS or None
        World coordinate system of the map.
    x, y : float
        Position in pixels.

    Returns
    -------
    angle : float or None
        In degrees, counter-clockwise from the x axis; None without a WCS of the sky, outside the
        projection, and on a mirrored map, in which East is clockwise from North.

    Examples
    --------
    >>> from astropy.wcs import WCS
    >>> from csr_astro.utils.sky import north_angle
    >>> wcs = WCS({'CTYPE1': 'RA---TAN', 'CTYPE2': 'DEC--TAN', 'CDELT1': -1 / 3600,
    ...            'CDELT2': 1 / 3600})
    >>> round(north_angle(wcs, 5.0, 5.0), 2)
    90.0
    """
    if wcs is None or not getattr(wcs, 'has_celestial', False):
        return None
    axes = local_axes(wcs, np.array([x]), np.array([y]))[0]
    if not np.isfinite(axes).all() or np.linalg.det(axes) > 0:
        return None
    return float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])))


def sky_shape(
    axes: np.ndarray, width: float, height: float, position_angle: float, *, ellipse: bool = True
) -> tuple[float, float, float]:
    """Convert an ellipse or a rectangle on the sky to pixels.

    Parameters
    ----------
    axes : (2, 2) `~numpy.ndarray` of float
        Matrix from `local_axes`.
    width, height : float
        Axes or sides in arcsec.
    position_angle : float
        Angle of the width in radians, from North through East whatever the orientation of
        the map.
    ellipse : bool, optional
        Whether the shape is an ellipse, whose axes stay orthogonal on any pixels.

    Returns
    -------
    width, height : float
        Axes or sides in pixels.
    angle : float
        Angle of the width in radians, counterclockwise from the x axis.

    Examples
    --------
    On a map with North down and East to the left, North is at 270 degrees:

    >>> import numpy as np
    >>> from csr_astro.utils.sky import sky_shape
    >>> width, height, angle = sky_shape(np.array([[-1.0, 0], [0, -1]]), 4, 2, 0.0)
    >>> print(width, height, round(np.degrees(angle) % 180))
    4.0 2.0 90
    """
    sine, cosine = np.sin(position_angle), np.cos(position_angle)
    vectors = axes @ np.array([[width * sine, height * cosine], [width * cosine, -height * sine]])
    along = vectors[:, 0]
    if ellipse:
        directions, lengths, _ = np.linalg.svd(vectors)
        if not np.isclose(lengths[0], lengths[1], rtol=1e-9):
            first = int(np.abs(directions[:, 1] @ along) > np.abs(directions[:, 0] @ along))
            lengths = lengths[[first, 1 - first]]
            along = directions[:, first]
        sizes = lengths
    else:
        sizes = np.linalg.norm(vectors, axis=0)
    return float(sizes[0]), float(sizes[1]), float(np.arctan2(along[1], along[0]))
