"""Simple kriging of stationary Gaussian fields: conditional mean and variance.

Products with the stationary covariance take two fast Fourier transforms, and conjugate
gradients find the weights without a matrix.
"""

import numpy as np
from scipy import fft

__all__ = ['estimate_covariance', 'kriging_mean', 'kriging_variance', 'power_law_covariance']


# Standard deviation of the taper of an estimated covariance, in pixels. Wider tapers are slightly
# better for Gaussian fields, and much worse for bright gradients of real maps.
_TAPER = 10.0
# Separations up to this many pixels are not averaged over rings of one pixel's width.
_EXACT = 4
# Separations with fewer pairs of pixels than this fraction of the most common one are not used.
_MIN_PAIRS = 0.01
# Smallest power over the largest: white noise that keeps an estimated covariance invertible.
_NUGGET = 1e-4
# Smallest power over the largest that the preconditioner divides by.
_FLOOR = 1e-7


def power_law_covariance(shape: tuple[int, int], slope: float, noise: float = 0.0) -> np.ndarray:
    """Compute the covariance of a periodic power-law field of unit variance plus white noise.

    Parameters
    ----------
    shape : (int, int)
        Shape (ny, nx) of the periodic field.
    slope : float
        Slope of the power spectrum, ``P(k) ∝ k**slope`` without a mean, as in
        `~csr_astro.simulation.diffuse.power_law_field`.
    noise : float, optional
        Standard deviation of the noise.

    Returns
    -------
    covariance : (ny, nx) `~numpy.ndarray` of float
        Covariance by separation, in the order of `numpy.fft.fftfreq`.

    Examples
    --------
    >>> from csr_astro.kriging.stationary import power_law_covariance
    >>> covariance = power_law_covariance((64, 64), -3, 0.5)
    >>> print(round(covariance[0, 0], 6))
    1.25
    """
    ny, nx = shape
    k2 = fft.fftfreq(ny)[:, None] ** 2 + fft.fftfreq(nx)[None, :] ** 2
    k2[0, 0] = np.inf if slope < 0 else 1
    power = k2 ** (slope / 2)
    power[0, 0] = 0
    covariance = fft.ifft2(power / power.mean()).real
    covariance[0, 0] += noise**2
    return covariance


def estimate_covariance(
    values: np.ndarray, valid: np.ndarray, *, taper: float = _TAPER
) -> np.ndarray:
    """Estimate the covariance of the valid pixels as a function of their distance.

    The estimate is the variance minus half the mean squared difference of the pairs
    of valid pixels at each separation. (The autocorrelation of the gapped field over
    that of its mask has an additional error, because different pixels form the pairs
    at different separations.) It is averaged over directions and tapered, and its
    negative power is clipped.

    Parameters
    ----------
    values : (ny, nx) array of float
        A window; values of invalid pixels have no influence.
    valid : (ny, nx) array of bool
        True for the pixels to use; at least one.
    taper : float, optional
        Standard deviation in pixels of the Gaussian that tapers the covariance.

    Returns
    -------
    covariance : (my, mx) `~numpy.ndarray` of float
        On a periodic grid of at least twice the window's size, separations in
        the order of `numpy.fft.fftfreq`. All zero for a window without scatter.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.stationary import estimate_covariance
    >>> noise = np.random.default_rng(0).normal(0, 2, (96, 96))
    >>> covariance = estimate_covariance(noise, np.ones((96, 96), bool))
    >>> bool(abs(covariance[0, 0] - 4) < 0.3), bool(abs(covariance[0, 1]) < 0.3)
    (True, True)
    """
    grid = tuple(fft.next_fast_len(2 * n, real=True) for n in values.shape)
    # Relative to the mean, because a large level would cost precision.
    centred = np.where(valid, values - values[valid].mean(), 0)
    # Scaled, so that squares neither overflow nor underflow.
    unit = np.abs(centred).max() or 1.0
    centred /= unit
    mask, field, square = fft.rfft2(np.stack([valid.astype(float), centred, centred**2]), s=grid)
    pairs = np.rint(fft.irfft2(np.abs(mask) ** 2, s=grid))
    differences = fft.irfft2((square * mask.conj()).real - np.abs(field) ** 2, s=grid)

    distance = np.hypot(*np.ix_(*(n * fft.fftfreq(n) for n in grid)))
    # Separations near 0 are not averaged, which would smooth the step of the noise there.
    ring = np.rint(np.where(distance <= _EXACT, distance**2, _EXACT**2 + distance))
    ring = ring.astype(int).ravel()
    count = np.bincount(ring, pairs.ravel())
    used = count > _MIN_PAIRS * count.max()
    used[0] = False
    if not used.any():
        # No pairs of valid pixels.
        return np.zeros(grid)
    radius = np.bincount(ring, (pairs * distance).ravel())[used] / count[used]
    variogram = np.bincount(ring, differences.ravel())[used] / count[used]
    variogram = np.interp(distance, radius, np.maximum(variogram, 0))
    variogram[0, 0] = 0

    covariance = centred[valid].var() - variogram
    power = fft.rfft2(covariance * np.exp(-0.5 * (distance / taper) ** 2)).real
    return unit**2 * fft.irfft2(np.maximum(power, _NUGGET * power.max()), s=grid)


class _Covariance:
    """Stationary covariance, with products and solutions for windows."""

    def __init__(self, covariance, shape):
        self.shape = shape
        self.grid = covariance.shape[-2:]
        self.power = fft.rfft2(covariance).real
        # The power may be negative if the window is part of the grid, and 0 for the mean of a
        # field without one.
        size = np.abs(self.power)
        floor = np.maximum(_FLOOR * size.max(axis=(-2, -1), keepdims=True), np.finfo(float).tiny)
        self.inverse_power = 1 / np.maximum(size, floor)

    def _filter(self, field, response):
        filtered = fft.irfft2(fft.rfft2(field, s=self.grid) * response, s=self.grid)
        return filtered[..., : self.shape[0], : self.shape[1]]

    def times(self, field):
        return self._filter(field, self.power)

    def solve(self, target, valid, tolerance, max_iterations):
        """Solve K w = target on the valid pixels, for weights w that are 0 elsewhere."""
        weights = np.zeros_like(target)
        residual = target
        direction = np.zeros_like(target)
        previous = np.zeros((*target.shape[:-2], 1, 1))
        goal = tolerance**2 * _dot(target, target)
        for _ in range(max_iterations):
            if (_dot(residual, residual) <= goal).all():
                break
            step = valid * self._filter(residual, self.inverse_power)
            rho = _dot(residual, step)
            direction = step + _ratio(rho, previous) * direction
            image = valid * self.times(direction)
            alpha = _ratio(rho, _dot(direction, image))
            weights = weights + alpha * direction
            residual = residual - alpha * image
            previous = rho
        return weights


def _dot(a, b):
    return (a * b).sum(axis=(-2, -1), keepdims=True)


def _ratio(a, b):
    """Return ``a / b``, and 0 for windows that have converged."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def kriging_mean(
    values: np.ndarray,
    valid: np.ndarray,
    covariance: np.ndarray,
    *,
    mean: float | np.ndarray = 0.0,
    tolerance: float = 1e-4,
    max_iterations: int = 500,
) -> np.ndarray:
    """Compute the conditional mean of a Gaussian field given its valid pixels.

    Parameters
    ----------
    values : (..., ny, nx) array of float
        Windows; values of invalid pixels have no influence.
    valid : (..., ny, nx) array of bool
        True for the pixels that are given.
    covariance : (..., my, mx) array of float
        Covariance by separation, on a periodic grid in the order of
        `numpy.fft.fftfreq`. The grid has at least twice the window's size, or at least
        the window's size if the field is periodic with that grid.
    mean : float or array, optional
        Mean of the field.
    tolerance : float, optional
        Largest residual of the linear system, relative to its right-hand side.
    max_iterations : int, optional
        Largest number of conjugate-gradient steps.

    Returns
    -------
    prediction : (..., ny, nx) `~numpy.ndarray` of float
        Prediction in all pixels; in valid ones it equals ``values`` to the tolerance.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.stationary import kriging_mean, power_law_covariance
    >>> x = np.cos(2 * np.pi * np.arange(64) / 64)
    >>> valid = np.ones((64, 64), bool)
    >>> valid[20:24, 30:34] = False
    >>> prediction = kriging_mean(x + x[:, None], valid, power_law_covariance((64, 64), -4))
    >>> print(round(prediction[22, 32], 2), round(x[22] + x[32], 2))
    -1.56 -1.56
    """
    values, valid = np.asarray(values, dtype=float), np.asarray(valid, dtype=bool)
    model = _Covariance(covariance, values.shape[-2:])
    target = np.where(valid, values - mean, 0.0)
    return mean + model.times(model.solve(target, valid, tolerance, max_iterations))


def kriging_variance(
    weight: np.ndarray,
    valid: np.ndarray,
    covariance: np.ndarray,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
) -> np.ndarray:
    """Compute the conditional variance of a weighted sum of pixels given the valid ones.

    ``a·K a − (K a)_v · K_vv⁻¹ (K a)_v`` is the mean squared error of the sum of
    `kriging_mean`. No prediction from the same pixels has a smaller one.

    Parameters
    ----------
    weight : (..., ny, nx) array of float
        Weights of the pixels in the sum, such as an aperture's.
    valid, covariance, tolerance, max_iterations
        As in `kriging_mean`.

    Returns
    -------
    variance : `~numpy.ndarray` of float

    Examples
    --------
    Other pixels do not constrain the sum of four pixels of white noise:

    >>> import numpy as np
    >>> from csr_astro.kriging.stationary import kriging_variance, power_law_covariance
    >>> weight = np.zeros((32, 32))
    >>> weight[10:12, 10:12] = 1
    >>> covariance = np.zeros((64, 64))
    >>> covariance[0, 0] = 9
    >>> print(kriging_variance(weight, weight == 0, covariance))
    36.0
    """
    weight, valid = np.asarray(weight, dtype=float), np.asarray(valid, dtype=bool)
    model = _Covariance(covariance, weight.shape[-2:])
    image = model.times(weight)
    solved = model.solve(np.where(valid, image, 0.0), valid, tolerance, max_iterations)
    return (_dot(weight, image) - _dot(solved, image))[..., 0, 0]
