"""Tests of robust scatter and plane fits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from csr_astro.utils.scatter import plane_residual, ring_scatter

SIZE = 97
Y, X = np.indices((SIZE, SIZE)) - SIZE // 2
DISTANCE = np.hypot(X, Y)
SIGMA = 3.0


def white_noise(n, seed=0):
    return SIGMA * np.random.default_rng(seed).standard_normal((n, SIZE, SIZE))


def smooth_noise(n, seed=0):
    noise = ndimage.gaussian_filter(white_noise(n, seed), (0, 2, 2))
    return SIGMA * noise / noise.std()


def outside(n, radius):
    return np.broadcast_to(radius < DISTANCE, (n, SIZE, SIZE))


def disc_kernel(radius):
    steps = np.arange(2 * int(radius) + 1) - int(radius)
    return (np.hypot(steps[:, None], steps) <= radius).astype(float)


def ramp_kernel():
    """Weights that are not equal."""
    return np.outer([1, 2, 3, 2, 1], [1, 2, 3, 2, 1]) / 9


# Planes


@pytest.mark.parametrize('level', [0, 1e-20, 1e8])
def test_plane_is_removed(level):
    slope = 1.0 if level == 0 else level
    plane = level + slope * (0.3 * X - 0.07 * Y) / SIZE
    good = np.random.default_rng(0).random((3, SIZE, SIZE)) < 0.4
    residual = plane_residual(np.where(good, plane, np.nan), good)
    assert_allclose(residual, 0, atol=1e-12 * slope)


def test_residual_is_that_of_least_squares():
    values = white_noise(3) + 5 * X - Y + 700
    fraction = np.array([0.9, 0.1, 0.002])[:, None, None]
    good = np.random.default_rng(1).random((3, SIZE, SIZE)) < fraction
    residual = plane_residual(np.where(good, values, np.inf), good)
    assert not residual[~good].any()
    for r, v, g in zip(residual, values, good, strict=True):
        basis = np.column_stack([np.ones(g.sum()), X[g], Y[g]])
        fit = basis @ np.linalg.lstsq(basis, v[g], rcond=None)[0]
        assert_allclose(r[g], v[g] - fit, atol=1e-9)


@pytest.mark.parametrize('n_pixels', [0, 1, 2, 3])
def test_few_pixels_leave_no_residual(n_pixels):
    good = np.zeros((1, SIZE, SIZE), dtype=bool)
    good[0, [10, 20, 70][:n_pixels], [5, 60, 30][:n_pixels]] = True
    assert_allclose(plane_residual(white_noise(1), good), 0, atol=1e-10)


# Scatter


@pytest.mark.parametrize('radius', [4, 9, 13.5])
def test_ring_scatter_of_white_noise_is_its_sigma(radius):
    n = 60
    scatter = ring_scatter(white_noise(n), outside(n, radius), np.full(n, radius))
    n_pixels = np.pi * ((radius + 10) ** 2 - radius**2)
    # The median absolute deviation has 37 % of the efficiency of the standard deviation.
    error = SIGMA / np.sqrt(2 * 0.37 * n_pixels)
    assert scatter.mean() == pytest.approx(SIGMA, abs=3 * error / np.sqrt(n) + 0.01 * SIGMA)
    assert scatter.std() == pytest.approx(error, rel=0.4)


def test_ring_scatter_sees_the_ring_only():
    values, radius = white_noise(4), np.array([5, 5, 8, 8.0])
    valid = DISTANCE - radius[:, None, None] > 0
    expected = ring_scatter(values, valid, radius)
    used = valid & (DISTANCE - radius[:, None, None] <= 10)
    assert_array_equal(ring_scatter(np.where(used, values, 1e6), valid, radius), expected)
    assert_array_equal(ring_scatter(np.where(valid, values, np.nan), valid, radius), expected)


def test_scatter_is_about_a_plane():
    args = outside(30, 6), np.full(30, 6.0)
    expected = ring_scatter(white_noise(30), *args)
    assert_allclose(ring_scatter(white_noise(30) + 40 * X - 9 * Y, *args), expected, rtol=1e-9)


def test_scatter_is_robust_against_a_neighbour():
    """One of 100 sigma, 11 pixels away, covers a few per cent of the ring."""
    args = outside(30, 6), np.full(30, 6.0)
    neighbour = 100 * SIGMA * np.exp(-4 * np.log(2) * ((X - 11) ** 2 + Y**2) / 3.5**2)
    expected = ring_scatter(white_noise(30), *args)
    disturbed = ring_scatter(white_noise(30) + neighbour, *args)
    assert disturbed.mean() == pytest.approx(expected.mean(), rel=0.4)


def test_scatter_scales_with_the_map():
    values, valid, radius = white_noise(3), outside(3, 5), np.full(3, 5.0)
    expected = ring_scatter(values, valid, radius)
    for factor in (1e-30, 1e30):
        assert_allclose(ring_scatter(values * factor, valid, radius), expected * factor, rtol=1e-9)


@pytest.mark.parametrize('n_pixels', [0, 11, 12])
def test_scatter_needs_twelve_pixels(n_pixels):
    valid = np.zeros((2, SIZE, SIZE), dtype=bool)
    valid[0] = DISTANCE > 5
    valid[1, 40, 40 : 40 + n_pixels] = True
    scatter = ring_scatter(white_noise(2), valid, np.full(2, 5.0))
    assert np.isfinite(scatter[0])
    assert np.isfinite(scatter[1]) == (n_pixels == 12)
