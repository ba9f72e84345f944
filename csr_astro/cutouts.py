"""How does a map become a stack of cutouts for the network, and its answer pixels again?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from csr_astro.images import Image
    from csr_astro.nn.inpainter import Inpainter

__all__ = [
    'MAX_RADIUS',
    'extract',
    'extract_mask',
    'nearest_pixel',
    'predict',
    'prediction_reach',
    'window_size',
]

# The network takes multiples of 32 from 96 up. A window reaches this far beyond a mask.
_SIZE_STEP = 32
_SIZE_MIN = 96
_SIZE_MAX = 480
_MARGIN = 20
MAX_RADIUS = _SIZE_MAX // 2 - _MARGIN
_REACH_STEP = 8


def nearest_pixel(position: ArrayLike) -> np.ndarray:
    """Pixel on which a position falls, the upper one if it is between two.

    `numpy.rint` would round to the even one, so that a shift of the map by one
    pixel could shift a window by two.

    Parameters
    ----------
    position : array-like of float
        Along one axis.
    """
    return np.floor(np.asarray(position) + 0.5).astype(int)


def window_size(radius: ArrayLike) -> np.ndarray:
    """Width of the window for a mask of some radius, in pixels.

    Parameters
    ----------
    radius : array-like of float
        Radii in pixels, at most ``MAX_RADIUS``.

    Returns
    -------
    size : `~numpy.ndarray` of int
        Multiples of 32 from 96 (the paper's) up.

    Examples
    --------
    >>> from csr_astro.cutouts import window_size
    >>> print(window_size([12, 40]))
    [ 96 128]
    """
    needed = 2 * (np.asarray(radius, dtype=float) + _MARGIN)
    steps = np.ceil(needed / _SIZE_STEP).astype(int)
    return np.maximum(steps * _SIZE_STEP, _SIZE_MIN)


def _overlaps(x, y, size, shape):
    """Per position: the slices of the map in its window, and where they lie in the window."""
    half = size // 2
    for column, row in zip(nearest_pixel(x), nearest_pixel(y), strict=True):
        y0, x0 = int(row) - half, int(column) - half
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
    """Cutouts of the valid pixels around positions.

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
        NaN where the map is invalid or ends.
    """
    values = np.full((len(x), size, size), np.nan)
    for cutout, (window, inside) in zip(values, _overlaps(x, y, size, image.shape), strict=True):
        if window is not None:
            np.copyto(cutout[inside], image.data[window], where=image.valid(window))
    return values


def extract_mask(mask: np.ndarray, x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Cutouts of a boolean map around positions, False where the map ends.

    Parameters
    ----------
    mask : (ny, nx) array of bool
        Of the whole map.
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
    """How far from the source's pixel a prediction behind a mask is worked out, in pixels.

    Parameters
    ----------
    radius : array-like of float
        Farthest pixels that are wanted, at most ``MAX_RADIUS``.

    Returns
    -------
    reach : `~numpy.ndarray` of int
        Multiples of 8, so that sources go through the network in few groups.

    Examples
    --------
    >>> from csr_astro.cutouts import prediction_reach
    >>> print(prediction_reach([5, 9]))
    [ 8 16]
    """
    # A pixel's centre is up to half a pixel farther from the source's pixel than from the source.
    return _REACH_STEP * np.ceil((np.asarray(radius, float) + 0.5) / _REACH_STEP).astype(int)


def predict(
    model: Inpainter,
    values: np.ndarray,
    hole: np.ndarray,
    central: np.ndarray,
    radius: np.ndarray,
    *,
    orientations: int = 8,
    reach: int | None = None,
) -> np.ndarray:
    """Predict the background of a stack of cutouts.

    Parameters
    ----------
    model : `~csr_astro.nn.inpainter.Inpainter`
        The network.
    values : (N, S, S) array of float64
        Cutouts as from `extract`, with S odd, a multiple of 32 plus 1.
    hole : (N, S, S) array of bool
        True for the pixels of all masks.
    central : (N, S, S) array of bool
        True for those of the source's own.
    radius : (N,) array of float
        Radius of the central mask in pixels.
    orientations : {1, 2, 4, 8}, optional
        Over how many of the eight flips and rotations the prediction is
        averaged. Each of them sees the source at the same pixel of its window, so
        that the average over all eight does not change when the map is flipped
        or rotated.
    reach : int, optional
        How many pixels from the central one the prediction reaches, less than half
        the window; by default as far as it can. The less, the faster.

    Returns
    -------
    prediction : (N, S, S) `~numpy.ndarray` of float64
        NaN beyond ``reach``. Only the pixels of the central mask are meant to be used.
    """
    import torch

    device = next(model.parameters()).device
    measured = np.isfinite(values)
    image = torch.from_numpy(np.where(measured, values, 0.0))[:, None]
    finite = torch.from_numpy(measured.astype(float))[:, None]
    valid = torch.from_numpy((measured & ~hole).astype(float))[:, None]
    central = torch.from_numpy(np.array(central, dtype=np.float32))[:, None]
    radius = torch.from_numpy(np.asarray(radius, dtype=float))
    size = values.shape[-1] - 1
    reach = size // 2 - 1 if reach is None else reach
    total = 0
    with torch.inference_mode():
        if orientations == 1:
            # The one window is all that is looked at, for the normalisation too.
            image, valid, finite, central = (
                t[..., :size, :size] for t in (image, valid, finite, central)
            )
        normalized, hints, location, scale = model.prepare(image, valid, finite, central, radius)
        for turns, flip in _ORIENTATIONS[orientations]:
            seen, seen_valid, *seen_hints = (
                _orient(t, turns, flip)[..., :size, :size].to(device)
                for t in (normalized, valid, *hints)
            )
            output = model.predict_normalized(seen, seen_valid, seen_hints, reach=reach)
            total = total + _reorient(output.cpu().double(), turns, flip)
    prediction = np.full(values.shape, np.nan)
    near = slice(size // 2 - reach, size // 2 + reach + 1)
    prediction[:, near, near] = (location + scale * (total / orientations))[:, 0].numpy()
    return prediction


# (quarter turns, flipped): from none to the whole symmetry group of the square.
_ALL = [(turns, flip) for turns in (0, 2, 1, 3) for flip in (False, True)]
_ORIENTATIONS = {
    1: _ALL[:1],
    2: [(0, False), (2, False)],
    4: [(turns, False) for turns in range(4)],
    8: _ALL,
}


def _orient(tensor, turns, flip):
    tensor = tensor.rot90(turns, (-2, -1))
    return tensor.flip(-1) if flip else tensor


def _reorient(tensor, turns, flip):
    tensor = tensor.flip(-1) if flip else tensor
    return tensor.rot90(-turns, (-2, -1))
