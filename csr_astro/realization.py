"""Random realizations of the background behind masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

from csr_astro.utils.threads import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from csr_astro.uncertainty import BackgroundErrors

__all__ = ['draw_deviations']

# Deviations already drawn within this many pixels of a mask are continued in it.
_NEAR = 12.0
# Variances below this, relative to the squared scatter, are treated as zero.
_TINY = 1e-20


@one_blas_thread()
def draw_deviations(
    errors: BackgroundErrors, rng_of: Callable[[int, int], np.random.Generator], n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw deviations of the true background from the prediction.

    The deviations have the covariance of the errors. Sources are drawn one after the
    other by position, given earlier draws near the mask, so that touching masks have no seam.

    Parameters
    ----------
    errors : `~csr_astro.uncertainty.BackgroundErrors`
        Errors of the predictions.
    rng_of : callable
        Function of the row and column of a source that returns a `numpy.random.Generator`.
    n : int
        Number of draws.

    Returns
    -------
    pixels : (P,) `~numpy.ndarray` of int
        Flat indices of all pixels in masks, sorted.
    deviations : (n, P) `~numpy.ndarray` of float
        Deviations in the unit of the map.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> from csr_astro.realization import draw_deviations
    >>> noise = np.random.default_rng(0).normal(size=(100, 100))
    >>> result = NeuralBackgroundEstimator(fwhm=3.3).estimate(noise, [(60, 50)])
    >>> rng = np.random.default_rng(1)
    >>> pixels, deviations = draw_deviations(result.errors, lambda row, column: rng, 20)
    >>> print(len(pixels) == result.mask.sum(), 0.9 < deviations.std() < 1.1)
    True True
    """
    height, width = errors.hole.shape
    flat = np.flatnonzero(errors.hole)
    drawn = np.zeros(len(flat), dtype=bool)
    deviations = np.zeros((n, len(flat)))
    for i, source in errors.sources.items():
        rows, columns = source.mask.on_map()
        mine = np.searchsorted(flat, rows * width + columns)
        mine = mine[~drawn[mine]]
        window = errors.window(i) if len(mine) else None
        if window is None or window.kriging is None:
            continue
        noise = rng_of(window.y0, window.x0).standard_normal((len(mine), n))
        before = _drawn_near(source, flat, drawn, (height, width))
        deviations[:, mine] = _conditional_draw(
            window, flat[mine], flat[before], deviations[:, before].T, noise, width
        ).T
        drawn[mine] = True
    return flat, deviations


def _drawn_near(source, flat, drawn, shape):
    """Return the indices of the pixels around a mask that are already drawn."""
    height, width = shape
    reach = source.mask.radius + _NEAR
    y0 = max(int(source.y - reach), 0)
    y1 = min(int(np.ceil(source.y + reach)) + 1, height)
    between = np.arange(*np.searchsorted(flat, [y0 * width, y1 * width]))
    between = between[drawn[between]]
    y, x = np.divmod(flat[between], width)
    return between[(y - source.y) ** 2 + (x - source.x) ** 2 <= reach**2]


def _conditional_draw(window, mine, before, known, noise, width):
    """Draw the deviations of some pixels given those of others, (P, n)."""
    places, number = window.blocks(*np.divmod(mine, width))
    noise = noise[: len(places[0])]
    known = known / window.scale
    covariance = window.covariance(places)
    if not covariance.any():
        # Without variance, the deviations are zero.
        return np.zeros((len(mine), noise.shape[1]))
    mean = 0.0
    if len(before):
        others, other_number = window.blocks(*np.divmod(before, width))
        _, first = np.unique(other_number, return_index=True)
        between = window.covariance(places, others)
        factor = _cholesky(window.covariance(others))
        solved = linalg.cho_solve((factor, True), np.column_stack([known[first], between.T]))
        mean = between @ solved[:, : known.shape[1]]
        covariance = covariance - between @ solved[:, known.shape[1] :]
    return window.scale * (mean + _cholesky(covariance) @ noise)[number]


def _cholesky(covariance):
    """Return a lower Cholesky factor, after clipping eigenvalues that rounding made negative."""
    tiny = max(1e-9 * covariance.diagonal().max(), _TINY)
    regular = (covariance + covariance.T) / 2 + tiny * np.eye(len(covariance))
    try:
        return linalg.cholesky(regular, lower=True)
    except linalg.LinAlgError:
        values, vectors = linalg.eigh(regular)
        root = vectors * np.sqrt(values.clip(max(1e-9 * values.max(), _TINY)))
        return linalg.qr(root.T, mode='r')[0].T
