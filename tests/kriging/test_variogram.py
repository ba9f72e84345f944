"""Tests of the variogram."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from csr_astro.kriging.variogram import Variogram, fit_variogram, measure_variogram
from csr_astro.simulation.diffuse import power_law_field

SIZE = 97
Y, X = np.indices((SIZE, SIZE)) - SIZE // 2
R = np.hypot(X, Y)
# Distances at which variograms are measured: that of a plane is a quarter of their square.
DISTANCES = 2 * np.sqrt(measure_variogram(X.astype(float), R < 99)[0])


def fitted_variogram(weights):
    """The fitted variogram at `DISTANCES`, noise included."""
    variogram = Variogram(weights, SIZE)
    squared = np.rint(DISTANCES**2).astype(int)
    dx, dy = np.divmod([np.flatnonzero((Y**2 + X**2).ravel() == each)[0] for each in squared], SIZE)
    origin = (np.array([SIZE // 2]), np.array([SIZE // 2]))
    covariance = variogram.covariance((dx, dy), origin)[:, 0]
    return variogram.covariance(origin, origin)[0, 0] - covariance + variogram.noise


def test_variogram_is_half_the_mean_squared_difference():
    """Against a loop over pairs, weighted by the Gaussian about the source."""
    values = power_law_field((SIZE, SIZE), -3, 1)[30:60, 30:60]
    valid = np.random.default_rng(2).random(values.shape) < 0.8
    variogram, pairs = measure_variogram(values, valid)
    y, x = np.nonzero(valid)
    weight = np.exp(-((y - 15) ** 2 + (x - 15) ** 2) / (4 * 40.0**2))
    v = values[valid]
    for dy, dx in [(1, 0), (2, 1), (2, 2)]:
        (number,) = np.flatnonzero(np.isclose(DISTANCES, np.hypot(dy, dx)))
        squared = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2 == dy**2 + dx**2
        both = (weight[:, None] * weight)[squared]
        difference = (v[:, None] - v)[squared]
        assert_allclose(variogram[number], np.average(difference**2, weights=both) / 2, rtol=1e-9)
        assert_allclose(pairs[number], both.sum(), rtol=1e-9)


@pytest.mark.parametrize(('slope', 'exponent'), [(-3, 1), (-3.5, 1.5)])
def test_fit_follows_a_power_law(slope, exponent):
    """P ∝ k**slope has the variogram h**(-slope - 2)."""
    measured = np.mean(
        [
            measure_variogram(power_law_field((512, 512), slope, s)[:SIZE, :SIZE], R < 99)[0]
            for s in range(8)
        ],
        axis=0,
    )
    weights = fit_variogram(measured, np.full(len(measured), 1e4))
    fitted = fitted_variogram(weights)
    near = (DISTANCES >= 2) & (DISTANCES <= 12)
    found = np.polyfit(np.log(DISTANCES[near]), np.log(fitted[near]), 1)[0]
    assert abs(found - exponent) < 0.15
    assert_allclose(fitted[near], measured[near], rtol=0.05)


def test_fit_of_white_noise_is_white():
    values = 3 * np.random.default_rng(0).standard_normal((SIZE, SIZE))
    weights = fit_variogram(*measure_variogram(values, R < 99))
    assert_allclose(fitted_variogram(weights), 9, rtol=0.1)


def test_fit_of_nothing_is_none():
    assert fit_variogram(np.zeros(len(DISTANCES)), np.full(len(DISTANCES), 100.0)) is None
    assert fit_variogram(np.ones(len(DISTANCES)), np.zeros(len(DISTANCES))) is None
