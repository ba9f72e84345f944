"""Windows of a map around sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from csr_astro.images import Image

__all__ = [
    'MAX_RADIUS',
    'extract',
    'extract_mask',
    'nearest_pixel',
    'prediction_reach',
    'published_center',
    'window_corner',
    'window_size',
]

# The network takes window sizes in multiples of 32 from 96 up. The margin is the smallest
# distance in pixels from a mask to the edge of its window.
_SIZE_STEP = 32
_SIZE_MIN = 96
_SIZE_MAX = 480
_MARGIN = 20
MAX_RADIUS = _SIZE_MAX // 2 - _MARGIN
_REACH_STEP = 8


def nearest_pixel(position: ArrayLike) -> np.ndarray:
    """Round positions to the nearest pixel, halves up.

    `numpy.rint` rounds halves to even, so that a shift of the map by one pixel
    could shift a window by two.

    Parameters
    ----------
    position : array-like of float
        Positions along one axis.
    """
    return np.floor(np.asarray(position) + 0.5).astype(int)


def published_center(position: ArrayLike) -> np.ndarray:
    """Round positions up to the pixel on which the published tool centres its window.

    It cuts windows with `astropy.nddata.Cutout2D`, which rounds the corner of a window of even
    size up.

    Parameters
    ----------
    position : array-like of float
        Positions along one axis.

    Returns
    -------
    center : `~numpy.ndarray` of float
        Whole numbers; NaN for NaN.

    Examples
    --------
    >>> from csr_astro.cutouts import published_center
    >>> print(published_center([60.0, 60.2, 60.7]))
    [60. 61. 61.]
    """
    # World coordinates of a pixel's centre come back with errors of rounding.
    return np.ceil(np.round(np.asarray(position, dtype=float), 6))


def window_size(radius: ArrayLike) -> np.ndarray:
    """Compute the width of the window for a mask radius, in pixels.

    Parameters
    ----------
    radius : array-like of float
        Radii in pixels, at most ``MAX_RADIUS``.

    Returns
    -------
    size : `~numpy.ndarray` of int
        Multiples of 32, at least 96 (the paper's size).

    Examples
    --------
    >>> from csr_astro.cutouts import window_size
    >>> print(window_size([12, 40]))
    [ 96 128]
    """
    needed = 2 * (np.asarray(radius, dtype=float) + _MARGIN)
    steps = np.ceil(needed / _SIZE_STEP).astype(int)
    return np.maximum(steps * _SIZE_STEP, _SIZE_MIN)


def window_corner(x: ArrayLike, y: ArrayLike, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the first pixel of the window around a position.

    Parameters
    ----------
    x, y : array-like of float
        Positions in pixels.
    size : int
        Width of the window in pixels.

    Returns
    -------
    x0, y0 : `~numpy.ndarray` of int
        Pixel of the map at the window's pixel (0, 0); the position's pixel is at
        ``size // 2``.

    Examples
    --------
    >>> from csr_astro.cutouts import window_corner
    >>> print(*window_corner(60.2, 50, 97))
    12 2
    """
    return nearest_pixel(x) - size // 2, nearest_pixel(y) - size // 2


def _overlaps(x, y, size, shape):
    """Yield the slices of the map in each window, and the same slices of the window."""
    for x0, y0 in zip(*window_corner(x, y, size), strict=True):
        ya, yb = max(y0, 0), min(y0 + size, shape[0])
        xa, xb = max(x0, 0), min(x0 + size, shape[1])
        if ya < yb and xa < xb:
            yield (
                (slice(ya, yb), slice(xa, xb)),
                (slice(ya - y0, yb - y0), slice(xa - x0, xb - x0)),
            )
        else:
            yield None, None


def extract(image: Image, x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Extract cutouts of the valid pixels around positions.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    x, y : (N,) array of float
        Finite positions, rounded to whole pixels.
    size : int
        Pixels per side; the position's pixel is at ``size // 2``.

    Returns
    -------
    values : (N, size, size) `~numpy.ndarray` of float64
        NaN where the map is invalid, and off the map.
    """
    values = np.full((len(x), size, size), np.nan)
    for cutout, (window, inside) in zip(values, _overlaps(x, y, size, image.shape), strict=True):
        if window is not None:
            np.copyto(cutout[inside], image.data[window], where=image.valid(window))
    return values


def extract_mask(mask: np.ndarray, x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Extract cutouts of a boolean map around positions, False off the map.

    Parameters
    ----------
    mask : (ny, nx) array of bool
        Mask of the whole map.
    x, y : (N,) array of float
        Central positions.
    size : int
        Pixels per side; the position's pixel is at ``size // 2``.

    Returns
    -------
    values : (N, size, size) `~numpy.ndarray` of bool
    """
    values = np.zeros((len(x), size, size), dtype=bool)
    for cutout, (window, inside) in zip(values, _overlaps(x, y, size, mask.shape), strict=True):
        if window is not None:
            cutout[inside] = mask[window]
    return values


def prediction_reach(radius: ArrayLike) -> np.ndarray:
    """Compute the distance to which the background behind a mask is predicted, in pixels.

    Parameters
    ----------
    radius : array-like of float
        Largest distances of mask pixels from the source, at most ``MAX_RADIUS``.

    Returns
    -------
    reach : `~numpy.ndarray` of int
        Distances from the source's pixel, in multiples of 8 for few groups of sources.

    Examples
    --------
    >>> from csr_astro.cutouts import prediction_reach
    >>> print(prediction_reach([5, 9]))
    [ 8 16]
    """
    # A pixel's centre is up to half a pixel farther from the source's pixel than from the source.
    return _REACH_STEP * np.ceil((np.asarray(radius, float) + 0.5) / _REACH_STEP).astype(int)
