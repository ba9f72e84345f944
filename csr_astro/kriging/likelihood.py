"""Variograms that are likely for the pixels around a mask.

A measured variogram averages squared differences over the whole window, where bright structure
decides. The likelihood compares models by small patches next to the mask, each of which is
weighted by what the model says about it, as the prediction does.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import linalg

from csr_astro.kriging.variogram import (
    BEAMS,
    EXPONENTS,
    NOISE_SCALES,
    fit_variogram,
    measure_variogram,
    scaled_models,
)

__all__ = ['likely_variogram', 'window_variogram']


# Patches of so many pixels per side, one for every third pixel along each axis, and about so many.
_PATCH, _STRIDE, _MAX_PATCHES = 5, 3, 120
# They are weighted by a Gaussian about the source, whose standard deviation is that of the mask's
# radius and so many pixels; patches of less weight are not used.
_MARGIN, _MIN_WEIGHT = 8.0, 0.02
# White noise of the models that are compared, over the rest at the distance of `scaled_models`, and
# noise that each has in addition, over the variogram between neighbours.
_NOISES = (3e-3, 3e-2, 0.3)
_JITTER = 0.01
# Degrees of freedom of Student's t distribution of a patch, in which no bright patch decides.
_DEGREES = 5.0
_ROUNDS = 3
# Patches overlap, so that the logarithm of the likelihood is divided by this.
_TEMPERATURE = 5.0
# Smallest distance in pixels at which both variograms of a window are made equal.
_DISTANCE = 3.0


@lru_cache(maxsize=1)
def _candidates():
    """Return weights (C, M) of the models to compare, what whitens patches, and determinants."""
    first = 1 + len(NOISE_SCALES)
    n_models = first + len(BEAMS) * len(EXPONENTS)
    weights = [np.eye(n_models)[0]]
    for noise in _NOISES:
        weights += list(np.eye(n_models)[first:] + noise * np.eye(n_models)[0])
    y, x = np.indices((_PATCH, _PATCH)).reshape(2, -1)
    distance = np.hypot(np.subtract.outer(x, x), np.subtract.outer(y, y))
    models = scaled_models(distance.ravel()).reshape(n_models, *distance.shape)
    step = scaled_models(np.array([1.0]))[:, 0]
    # Differences in a patch, which the unknown mean does not enter.
    contrasts = linalg.null_space(np.ones((1, _PATCH**2))).T
    whitening, determinant = [], []
    for each in weights:
        covariance = -contrasts @ np.tensordot(each, models, 1) @ contrasts.T
        covariance += _JITTER * (each @ step) * np.eye(len(covariance))
        factor = linalg.cholesky(covariance, lower=True)
        whitening.append(linalg.solve_triangular(factor, contrasts, lower=True))
        determinant.append(2 * np.log(factor.diagonal()).sum())
    return np.array(weights), np.array(whitening), np.array(determinant)


def _patches(values, valid, radius):
    """Return the patches next to the mask, (N, pixels), and their weights."""
    if min(values.shape) < _PATCH:
        return np.zeros((0, _PATCH**2)), np.zeros(0)
    shape = _PATCH, _PATCH
    # Symmetric about the source, which is in the middle of one patch.
    first = (len(values) // 2 - _PATCH // 2) % _STRIDE
    some = (slice(first, None, _STRIDE),) * 2
    whole = sliding_window_view(valid, shape)[some].all(axis=(2, 3))
    steps = np.arange(first, len(values) - _PATCH + 1, _STRIDE) + _PATCH // 2 - len(values) // 2
    squared = (steps[:, np.newaxis] ** 2 + steps**2)[whole]
    weight = np.exp(-squared / (2 * (radius + _MARGIN) ** 2))
    farthest = np.sort(squared)[:_MAX_PATCHES].max(initial=0)
    nearest = (squared <= farthest) & (weight > _MIN_WEIGHT)
    found = sliding_window_view(values, shape)[some][whole][nearest]
    return found.reshape(-1, _PATCH**2), weight[nearest]


def likely_variogram(values: np.ndarray, valid: np.ndarray, radius: float) -> np.ndarray | None:
    """Average models of variograms by their likelihood in patches next to a mask.

    The composite likelihood (Varin et al. 2011) of patches of 5 × 5 pixels, whose means are
    unknown, under Student's t distribution.

    Parameters
    ----------
    values : (S, S) `~numpy.ndarray` of float
        Window with the source at pixel (S // 2, S // 2).
    valid : (S, S) `~numpy.ndarray` of bool
        True for background pixels.
    radius : float
        Radius of the mask in pixels.

    Returns
    -------
    weights : `~numpy.ndarray` of float, or None
        Weights of the models, as from `~csr_astro.kriging.variogram.fit_variogram`; None
        without whole patches, or if all are constant.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.likelihood import likely_variogram
    >>> noise = np.random.default_rng(0).normal(size=(65, 65))
    >>> weights = likely_variogram(noise, np.ones(noise.shape, dtype=bool), 4)
    >>> bool(weights[0] > 0.8 * weights.sum())
    True
    """
    patches, weight = _patches(values, valid, radius)
    if not len(patches):
        return None
    patches = patches - patches.mean(axis=1, keepdims=True)
    unit = np.abs(patches).max()
    if not unit > 0:
        return None
    models, whitening, determinant = _candidates()
    n = whitening.shape[1]
    squares = ((whitening @ (patches / unit).T) ** 2).sum(axis=1)
    # Constant patches say nothing.
    squares = np.maximum(squares, 1e-12 * squares.max())
    total = weight.sum()
    scale = squares @ weight / (n * total)
    for _ in range(_ROUNDS):
        share = (_DEGREES + n) / (_DEGREES + squares / scale[:, np.newaxis])
        scale = (share * squares) @ weight / (n * total)
    tail = np.log1p(squares / (_DEGREES * scale[:, np.newaxis])) @ weight
    loss = (_DEGREES + n) * tail + total * (n * np.log(scale) + determinant)
    likelihood = np.exp(-0.5 * (loss - loss.min()) / _TEMPERATURE)
    return unit**2 * (likelihood * scale) @ models / likelihood.sum()


def window_variogram(values: np.ndarray, valid: np.ndarray, radius: float) -> np.ndarray | None:
    """Fit the variogram of a window: the mean of the measured one and of the likely one.

    Both are made equal at the distance of the mask's radius: patches say what happens between
    neighbours, and little about larger distances.

    Parameters
    ----------
    values, valid, radius
        As in `likely_variogram`.

    Returns
    -------
    weights : `~numpy.ndarray` of float, or None
        As from `~csr_astro.kriging.variogram.fit_variogram`; None for a constant map.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.likelihood import window_variogram
    >>> noise = np.random.default_rng(0).normal(size=(65, 65))
    >>> weights = window_variogram(noise, np.ones(noise.shape, dtype=bool), 4)
    >>> bool(0.8 < weights.sum() < 1.2)
    True
    """
    measured = fit_variogram(*measure_variogram(values, valid))
    likely = None if measured is None else likely_variogram(values, valid, radius)
    if likely is None:
        return measured
    at_distance = scaled_models(np.array([max(_DISTANCE, radius)]))[:, 0]
    return 0.5 * (measured + likely * (measured @ at_distance) / (likely @ at_distance))
