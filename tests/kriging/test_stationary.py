"""Tests of kriging with a known covariance."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import linalg, ndimage

from csr_astro.kriging.stationary import (
    estimate_covariance,
    kriging_mean,
    kriging_variance,
    power_law_covariance,
)
from csr_astro.simulation.diffuse import power_law_field


def dense(covariance, shape):
    """The matrix of covariances of all pixels of a window."""
    y, x = (index.ravel() for index in np.indices(shape))
    return covariance[
        np.subtract.outer(y, y) % covariance.shape[0], np.subtract.outer(x, x) % covariance.shape[1]
    ]


@pytest.mark.parametrize('periodic', [True, False])
@pytest.mark.parametrize(('slope', 'noise'), [(-2.5, 0.2), (-3, 0.1), (-3.6, 0.05)])
def test_kriging_is_the_dense_solution(slope, noise, periodic):
    shape = (24, 20)
    covariance = power_law_covariance(shape if periodic else (64, 48), slope, noise)
    matrix = dense(covariance, shape)
    rng = np.random.default_rng(2)
    root = linalg.cholesky(matrix + 1e-9 * np.eye(len(matrix)), lower=True)
    values = (root @ rng.normal(size=len(matrix))).reshape(shape)
    valid = np.hypot(*np.ogrid[-12:12, -10:10]) > 4
    valid[:, 2:4] = False
    v = valid.ravel()
    solved = linalg.solve(matrix[np.ix_(v, v)], values[valid], assume_a='pos')
    expected = (matrix[:, v] @ solved).reshape(shape)
    found = kriging_mean(np.where(valid, values, np.nan), valid, covariance, tolerance=1e-10)
    assert_allclose(found, expected, atol=1e-6)

    weight = np.where(np.hypot(*np.ogrid[-12:12, -10:10]) <= 3, 1.0, 0.0)
    a, k = weight.ravel(), matrix[v] @ weight.ravel()
    variance = a @ matrix @ a - k @ linalg.solve(matrix[np.ix_(v, v)], k, assume_a='pos')
    found = kriging_variance(weight, valid, covariance, tolerance=1e-10)
    assert_allclose(found, variance, rtol=1e-6)


def test_kriging_variance_is_the_scatter_of_many_draws():
    shape, n = (48, 48), 300
    covariance = power_law_covariance(shape, -3, 0.1)
    amplitude = np.sqrt(np.fft.rfft2(covariance).real)
    rng = np.random.default_rng(5)
    draws = np.fft.irfft2(amplitude * np.fft.rfft2(rng.normal(size=(n, *shape))), s=shape)
    distance = np.hypot(*np.ogrid[-24:24, -24:24])
    valid, weight = np.broadcast_to(distance > 6, draws.shape), (distance <= 3).astype(float)
    errors = (weight * (kriging_mean(draws, valid, covariance) - draws)).sum(axis=(1, 2))
    rms = np.sqrt(kriging_variance(weight, valid[0], covariance))
    assert_allclose(np.sqrt(np.mean(errors**2)), rms, rtol=4 / np.sqrt(2 * n))
    # Nothing predicts better: not with a slope that is wrong, either.
    wrong = power_law_covariance(shape, -2, 0.5)
    worse = (weight * (kriging_mean(draws, valid, wrong) - draws)).sum(axis=(1, 2))
    assert np.mean(worse**2) > np.mean(errors**2)


def test_kriging_of_a_stack_is_that_of_each():
    shape = (20, 20)
    covariance = np.array([power_law_covariance((40, 40), slope, 0.1) for slope in (-2, -3)])
    values = np.random.default_rng(1).normal(size=(2, *shape))
    valid = np.hypot(*np.ogrid[-10:10, -10:10]) > 3
    both = kriging_mean(values, np.stack([valid, valid]), covariance, tolerance=1e-9)
    for i in range(2):
        each = kriging_mean(values[i], valid, covariance[i], tolerance=1e-9)
        assert_allclose(both[i], each, atol=1e-6)


def test_power_law_covariance_is_that_of_the_generator():
    shape = (64, 64)
    fields = np.array([power_law_field(shape, -2, seed) for seed in range(200)])
    power = np.mean(np.abs(np.fft.fft2(fields)) ** 2, axis=0) / fields[0].size
    covariance = power_law_covariance(shape, -2, 0.3)
    assert_allclose(covariance[0, 0], 1 + 0.3**2)
    expected = np.fft.fft2(covariance).real - 0.3**2
    ratio = power.ravel()[1:] / expected.ravel()[1:]
    assert_allclose(ratio.mean(), 1, atol=0.03)
    slope = np.polyfit(np.log(expected.ravel()[1:]), np.log(power.ravel()[1:]), 1)[0]
    assert_allclose(slope, 1, atol=0.02)


def test_covariance_of_correlated_noise_is_estimated():
    rng = np.random.default_rng(7)
    sigma = 2.0
    noise = ndimage.gaussian_filter(rng.normal(size=(256, 256)), sigma, mode='wrap')
    noise *= 3 / noise.std()
    valid = np.ones(noise.shape, dtype=bool)
    valid[100:130, 90:140] = False
    covariance = estimate_covariance(np.where(valid, noise, np.nan), valid, taper=40)
    lags = np.arange(6)
    assert_allclose(covariance[0, lags], 9 * np.exp(-(lags**2) / (4 * sigma**2)), atol=0.5)
