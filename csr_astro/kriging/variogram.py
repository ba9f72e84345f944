"""Variograms of windows: measurement, fit, and covariance of pixels.

A measured variogram is fitted by a sum of physical models: power laws seen through a
beam, correlated noise and white noise.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, interpolate, optimize, special

from csr_astro.utils.warnings import one_at_a_time

if TYPE_CHECKING:
    from csr_astro.typing import Places

__all__ = ['Variogram', 'fit_variogram', 'local_weight', 'measure_variogram', 'scaled_models']


# One lag (dy, dx) of each orbit under flips and rotations at which the variogram is measured.
_LAGS = (
    (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1), (3, 3), (4, 0), (4, 2), (5, 0),
    (5, 3), (5, 5), (7, 0), (6, 4), (8, 0), (7, 7), (10, 0), (9, 5), (12, 0), (10, 10),
    (16, 0), (13, 9), (16, 16), (22, 0), (20, 12), (28, 0), (24, 24), (36, 0),
)  # fmt: skip
_MAX_LAG = 36
_DISTANCES = np.hypot(*np.transpose(_LAGS))
# Width in pixels of the Gaussian weight of pairs about the source, because maps are not uniform.
_LOCAL = 40.0
# Lags with a smaller weighted number of pairs are not used.
_MIN_PAIRS = 10.0
# Lags beyond this get less weight, because short lags determine the prediction near the rim.
_FIT_LAG = 8.0
# The models: Gaussian-correlated noise of these scales, and power laws of these exponents
# seen through beams of these standard deviations, all in pixels.
NOISE_SCALES = (0.6, 1.0, 1.6, 2.5)
EXPONENTS = (0.5, 1.0, 1.5, 1.9)
BEAMS = (0.0, 0.7, 1.3, 2.5, 5.0)


def _orbit(dy, dx):
    return sorted({
        (sy * a, sx * b) for a, b in ((dy, dx), (dx, dy)) for sy in (-1, 1) for sx in (-1, 1)
    })


_ORBITS = [_orbit(*lag) for lag in _LAGS]


def _smooth_power(h, exponent, variance):
    """Return the mean of ``|h + z|**exponent`` for a Gaussian ``z`` of this variance per axis."""
    if variance == 0:
        return h**exponent
    scaled = special.hyp1f1(-exponent / 2, 1, -(h**2) / (2 * variance))
    return (2 * variance) ** (exponent / 2) * special.gamma(1 + exponent / 2) * scaled


def _models(h, variance):
    """Return the variograms of all models at distances ``h``, between averages over blocks.

    ``variance`` is that of a pixel's position in the two blocks together. Blocks are
    treated as Gaussian, so that all covariances are consistent.
    """
    values = [np.ones_like(h)]
    for scale in NOISE_SCALES:
        width = scale**2 + variance / 2
        values.append(1 - scale**2 / width * np.exp(-(h**2) / (4 * width)))
    for beam in BEAMS:
        for exponent in EXPONENTS:
            at_zero = _smooth_power(np.zeros(1), exponent, 2 * beam**2)
            values.append(_smooth_power(h, exponent, 2 * beam**2 + variance) - at_zero)
    return np.array(values)


# Models are scaled to about 1 at a typical distance, so that their weights are comparable.
_SCALES = _models(np.array([6.0]), 0.0)[:, 0]


def scaled_models(distance: np.ndarray) -> np.ndarray:
    """Compute the variograms of all models between pixels: white noise first.

    Parameters
    ----------
    distance : (D,) `~numpy.ndarray` of float
        Distances in pixels.

    Returns
    -------
    models : (M, D) `~numpy.ndarray` of float
        Each is 1 at a distance of 6 pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.variogram import scaled_models
    >>> models = scaled_models(np.array([0.0, 6.0]))
    >>> bool((models[:, 0] == 0).all()), bool(np.allclose(models[:, 1], 1))
    (True, True)
    """
    models = _models(distance, 0.0) / _SCALES[:, np.newaxis]
    models[:, distance == 0] = 0
    return models


_DESIGN = scaled_models(_DISTANCES).T


@lru_cache(maxsize=16)
def _table(size, first, second):
    """Return the models without white noise, by squared integer distance in a window."""
    distance = np.sqrt(np.arange(2 * (size - 1) ** 2 + 1.0))
    variance = (first**2 - 1) / 12 + (second**2 - 1) / 12
    # A spline, because hypergeometric functions are slow; knots are dense where they bend.
    knots = np.concatenate([np.arange(0, 24, 0.125), np.arange(24, distance[-1] + 2, 0.5)])
    table = interpolate.CubicSpline(knots, _models(knots, variance), axis=1)(distance)
    if variance == 0:
        # Power laws without a beam have a cusp at 0 that no spline follows.
        first_power = 1 + len(NOISE_SCALES) + BEAMS.index(0.0) * len(EXPONENTS)
        for number, exponent in enumerate(EXPONENTS):
            table[first_power + number] = distance**exponent
    return table[1:] / _SCALES[1:, None]


@lru_cache(maxsize=16)
def local_weight(size: int) -> np.ndarray:
    """Compute the Gaussian weight of the pixels of a window, (size, size), about its centre.

    Parameters
    ----------
    size : int
        Width of the window in pixels.

    Examples
    --------
    >>> from csr_astro.kriging.variogram import local_weight
    >>> weight = local_weight(9)
    >>> print(weight.shape, weight[4, 4])
    (9, 9) 1.0
    """
    step2 = (np.arange(size) - size // 2) ** 2
    return np.exp(-(step2[:, None] + step2) / (4 * _LOCAL**2))


def measure_variogram(values: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure half the mean squared difference of pixels, by their distance.

    Parameters
    ----------
    values : (S, S) `~numpy.ndarray` of float
        Window with the source at pixel (S // 2, S // 2).
    valid : (S, S) `~numpy.ndarray` of bool
        True for background pixels.

    Returns
    -------
    variogram, pairs : `~numpy.ndarray` of float
        Variogram at the distances of the fit, and number of pairs weighted by a
        Gaussian about the source.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.variogram import measure_variogram
    >>> noise = np.random.default_rng(0).normal(size=(65, 65))
    >>> variogram, pairs = measure_variogram(noise, np.ones(noise.shape, dtype=bool))
    >>> bool(np.allclose(variogram, 1, atol=0.2))
    True
    """
    size = len(values)
    arrays = np.zeros((3, size, size))
    weight, first, second = arrays
    np.copyto(weight, local_weight(size), where=valid)
    np.multiply(weight, values, out=first, where=valid)
    np.multiply(first, values, out=second, where=valid)
    n = fft.next_fast_len(size + min(_MAX_LAG, size - 1), real=True)
    # Along one axis after the other, because the padding of the other holds zeros only.
    weight, first, second = fft.fft(fft.rfft(arrays, n), n, axis=1)
    power = weight.real**2 + weight.imag**2
    product = second.real * weight.real + second.imag * weight.imag
    product -= first.real**2 + first.imag**2
    sums, pairs = (_orbit_sums(each, n) for each in (2 * product, power))
    return np.maximum(sums, 0) / (2 * np.maximum(pairs, 1e-9)), pairs


def _orbit_sums(spectrum, n):
    """Sum the inverse transform of an even, real spectrum, (n, n // 2 + 1), over each orbit."""
    rows, columns = _cosines(n)
    # The mean over flips is a product of cosines.
    means = rows @ spectrum @ columns.T
    (y, x), size = np.transpose(_LAGS), [len(orbit) for orbit in _ORBITS]
    return np.multiply(size, (means[y, x] + means[x, y]) / 2)


@lru_cache(maxsize=16)
def _cosines(n):
    """Return cosines by lag and wavenumber, those of half the wavenumbers with their number."""
    angle = 2 * np.pi / n * np.outer(np.arange(_MAX_LAG + 1), np.arange(n))
    rows = np.cos(angle) / n**2
    half = n // 2 + 1
    number = np.full(half, 2.0)
    number[0] = 1
    if n % 2 == 0:
        number[-1] = 1
    return rows, np.cos(angle[:, :half]) * number


def fit_variogram(variogram: np.ndarray, pairs: np.ndarray) -> np.ndarray | None:
    """Fit the weights of the models to a measured variogram.

    Parameters
    ----------
    variogram, pairs : `~numpy.ndarray` of float
        As from `measure_variogram`.

    Returns
    -------
    weights : `~numpy.ndarray` of float, or None
        Non-negative weights; None for a constant map.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.variogram import fit_variogram, measure_variogram
    >>> noise = np.random.default_rng(0).normal(size=(65, 65))
    >>> weights = fit_variogram(*measure_variogram(noise, np.ones(noise.shape, dtype=bool)))
    >>> bool(0.8 < weights.sum() < 1.2)
    True
    """
    used = pairs > _MIN_PAIRS
    if not used.any() or not variogram[used].max() > 0:
        return None
    # In units of the largest, because the tolerances of the solver are absolute.
    unit = variogram[used].max()
    scaled = variogram / unit
    precision = np.where(used, 1 / np.maximum(scaled, 1e-4), 0)
    precision /= np.hypot(1, _DISTANCES / _FIT_LAG)
    # SciPy 1.12 to 1.14 catch warnings here.
    with one_at_a_time:
        weights, _ = optimize.nnls(_DESIGN * precision[:, None], scaled * precision)
    return unit * weights


class Variogram:
    """Variogram of a window as a covariance of pixels and of blocks of pixels.

    The covariance is a large constant minus the variogram; the unknown mean absorbs
    the constant.

    Parameters
    ----------
    weights : `~numpy.ndarray` of float
        Weights from `fit_variogram`.
    size : int
        Width of the window in pixels: the largest separation along an axis, plus 1.

    Attributes
    ----------
    noise : float
        Variance of the white noise.
    step : float
        Variogram between neighbouring pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.variogram import Variogram, fit_variogram, measure_variogram
    >>> noise = np.random.default_rng(0).normal(size=(65, 65))
    >>> weights = fit_variogram(*measure_variogram(noise, np.ones(noise.shape, dtype=bool)))
    >>> bool(0.8 < Variogram(weights, 65).noise < 1.2)
    True
    """

    def __init__(self, weights: np.ndarray, size: int) -> None:
        self.noise = weights[0] / _SCALES[0]
        self._weights = weights[1:]
        self._size = size
        models = _table(size, 1, 1)
        self._sill = 5 * (self._weights @ models[:, -1]) + self.noise
        self.step = self._weights @ models[:, 1] + self.noise

    def __repr__(self) -> str:
        return f'<Variogram: noise {self.noise:.3g}, {self.step:.3g} between neighbours>'

    def covariance(
        self, places: Places, others: Places, blocks: tuple[int, int] = (1, 1)
    ) -> np.ndarray:
        """Compute the covariance without the white noise.

        Parameters
        ----------
        places, others : (x, y) of (M,) and of (N,) `~numpy.ndarray` of int
            Centres of two lists of blocks.
        blocks : (int, int), optional
            Widths of the blocks in pixels.

        Returns
        -------
        covariance : (M, N) `~numpy.ndarray` of float
        """
        (x, y), (other_x, other_y) = places, others
        squared = np.subtract.outer(x, other_x) ** 2
        squared += np.subtract.outer(y, other_y) ** 2
        longest = int(squared.max(initial=0))
        if squared.size <= longest:
            return self._at(squared, blocks)
        return self._at(slice(longest + 1), blocks).take(squared)

    def _at(self, squared, blocks):
        """Return the covariance at squared distances; models without weight are skipped."""
        models = _table(self._size, max(blocks), min(blocks))
        used = np.flatnonzero(self._weights)
        if not len(used):
            return np.full_like(models[0][squared], self._sill)
        return self._sill - sum(self._weights[k] * models[k][squared] for k in used)
