"""Fills of masks by ordinary kriging."""

from __future__ import annotations

import numpy as np
from scipy import interpolate

from csr_astro.kriging.blocks import block_window
from csr_astro.kriging.ordinary import Kriging

__all__ = ['kriging_fill', 'kriging_fills']

# Masks with a larger radius are filled on a grid of block averages.
_MAX_RADIUS = 45.0


def kriging_fill(
    values: np.ndarray,
    valid: np.ndarray,
    hole: np.ndarray,
    radius: float,
    peak: float | None = None,
) -> np.ndarray:
    """Predict the background behind a mask by ordinary kriging.

    The prediction is the conditional mean given the valid pixels, with the variogram
    of the window and an unknown, constant mean.

    Parameters
    ----------
    values : (S, S) `~numpy.ndarray` of float
        Window with the source at pixel (S // 2, S // 2); finite where valid.
    valid : (S, S) `~numpy.ndarray` of bool
        True for background pixels, none of them in the hole.
    hole : (S, S) `~numpy.ndarray` of bool
        True for pixels to predict.
    radius : float
        Radius of the hole in pixels.
    peak : float, optional
        Brightest pixel of the source. If given, wings of the source outside the hole
        are fitted and subtracted from the background.

    Returns
    -------
    prediction : (H,) `~numpy.ndarray` of float
        In the order of ``numpy.nonzero(hole)``; 0 without valid pixels.

    Notes
    -----
    On Gaussian fields with a power-law spectrum and white noise the error of
    the sum in an aperture of 4 pixels is within 4 % of that of kriging with the
    true covariance.

    Examples
    --------
    A slope is continued behind the mask:

    >>> import numpy as np
    >>> from csr_astro.kriging.fill import kriging_fill
    >>> y, x = np.mgrid[:97, :97] - 48.0
    >>> hole = np.hypot(x, y) <= 5
    >>> prediction = kriging_fill(x + 2 * y, ~hole, hole, 5)
    >>> bool(np.allclose(prediction, (x + 2 * y)[hole], atol=0.05))
    True
    """
    return _fill(values, valid, hole, radius, peak)[0]


def _fill(values, valid, hole, radius, peak):
    """Return the prediction, and the kriging unless it is that of block averages."""
    rows, columns = np.nonzero(hole)
    if not valid.any():
        return np.zeros(len(rows)), None
    if radius > _MAX_RADIUS:
        return _coarse_fill(values, valid, hole, radius), None
    kriging = Kriging(values, valid, radius, peak=peak)
    half = len(values) // 2
    return kriging.predict((columns - half, rows - half)), kriging


def kriging_fills(
    values: np.ndarray, valid: np.ndarray, hole: np.ndarray, radius: np.ndarray, peak: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[Kriging | None]]:
    """Apply `kriging_fill` to a stack of windows.

    Parameters
    ----------
    values, valid, hole : (N, S, S) `~numpy.ndarray`
        As in `kriging_fill`.
    radius, peak : (N,) `~numpy.ndarray` of float
        As in `kriging_fill`.

    Returns
    -------
    fills, wings : (N, S, S) `~numpy.ndarray` of float64
        Predictions, 0 outside the holes, and subtracted wings of the sources.
    krigings : list of `~csr_astro.kriging.Kriging` or None
        Kriging of each window; None without valid pixels, and for very large holes.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.fill import kriging_fills
    >>> y, x = np.mgrid[-16:17, -16:17]
    >>> hole = np.hypot(x, y) <= 4
    >>> values, four = np.where(hole, 0.0, 5.0)[np.newaxis], np.array([4.0])
    >>> fills, wings, krigings = kriging_fills(values, ~hole[None], hole[None], four, four)
    >>> print(np.allclose(fills[0][hole], 5), np.allclose(wings, 0), krigings)
    True True [<Kriging: a window that does not vary>]
    """
    fills, wings = np.zeros(values.shape), np.zeros(values.shape)
    stack = zip(values.astype(float), valid, hole, radius, peak, strict=True)
    krigings = []
    for fill, wing, window in zip(fills, wings, stack, strict=True):
        fill[window[2]], kriging = _fill(*window)
        wing[:] = 0.0 if kriging is None else kriging.wing
        krigings.append(kriging)
    return fills, wings, krigings


def _coarse_fill(values, valid, hole, radius):
    """Predict on block averages, for masks of thousands of pixels."""
    n = 3
    half = len(values) // 2
    mean, good, _ = block_window(values, valid, None, n)
    reach = len(mean) // 2
    steps = np.arange(-reach, reach + 1)
    near = ~good & (np.hypot(steps[:, None], steps) <= radius / n + 2)
    mean[near] = kriging_fill(mean, good, near, radius / n)
    rows, columns = np.nonzero(hole)
    at = [(index - half) / n + reach for index in (rows, columns)]
    return interpolate.interpn((np.arange(len(mean)),) * 2, mean, np.transpose(at))
