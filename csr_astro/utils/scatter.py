"""Robust scatter of maps around sources."""

import numpy as np

from csr_astro.utils.plane import fit_plane

__all__ = ['RING_WIDTH', 'plane_residual', 'ring_scatter']

# Width of the ring around a mask, in pixels.
RING_WIDTH = 10
_MIN_PIXELS = 12
# Pixels more than this many robust scatters off the plane are clipped.
_CLIP = 5.0
# Smallest number of pixels in a fit with clipping.
_MIN_CLIPPED = 50


def _distance(size):
    steps = np.arange(size) - size // 2
    return np.hypot(steps[:, None], steps[None, :])


def plane_residual(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Subtract from each cutout the plane that best fits its good pixels.

    Parameters
    ----------
    values : (N, S, S) array of float64
        Cutouts; values of bad pixels have no influence.
    good : (N, S, S) array of bool
        Pixels to fit by least squares. With at least 50 of them, the fit is repeated
        without pixels more than five robust scatters off the first plane, which are
        unmasked sources.

    Returns
    -------
    residual : (N, S, S) `~numpy.ndarray` of float64
        Residual, 0 in bad pixels.
    """
    # The mean is subtracted first, because large values would cost precision.
    count = np.maximum(good.sum(axis=(1, 2)), 1)
    level = np.where(good, values, 0).sum(axis=(1, 2)) / count
    centred = np.where(good, values - level[:, None, None], 0)
    residual = np.where(good, centred - fit_plane(centred, good), 0)
    n = len(values)
    scatter = _robust_scatter(residual.reshape(n, -1), good.reshape(n, -1))
    limit = np.where(count >= _MIN_CLIPPED, _CLIP * np.nan_to_num(scatter), np.inf)
    clipped = good & (np.abs(residual) <= limit[:, None, None])
    return np.where(good, centred - fit_plane(centred, clipped), 0)


def _robust_scatter(samples, good):
    """Compute 1.4826 × median absolute deviation along the last axis; NaN without good pixels."""
    values = np.where(good, samples, np.nan)
    empty = ~good.any(axis=-1)
    values[empty] = 0
    median = np.nanmedian(values, axis=-1, keepdims=True)
    scatter = 1.4826 * np.nanmedian(np.abs(values - median), axis=-1)
    return np.where(empty, np.nan, scatter)


def ring_scatter(values: np.ndarray, valid: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Measure the robust scatter in the ring around each mask, about a plane.

    Parameters
    ----------
    values : (N, S, S) array of float64
        Cutouts with the source at pixel (S // 2, S // 2).
    valid : (N, S, S) array of bool
        True for valid background.
    radius : (N,) array of float
        Radius of each mask in pixels; the ring is ``RING_WIDTH`` pixels wide.

    Returns
    -------
    scatter : (N,) `~numpy.ndarray` of float
        1.4826 × median absolute deviation; NaN with fewer than 12 pixels.
    """
    distance = _distance(values.shape[-1])[None]
    ring = valid & (distance <= np.asarray(radius)[:, None, None] + RING_WIDTH)
    residual = plane_residual(values, ring)
    n = len(values)
    scatter = _robust_scatter(residual.reshape(n, -1), ring.reshape(n, -1))
    scatter[ring.sum(axis=(1, 2)) < _MIN_PIXELS] = np.nan
    return scatter
