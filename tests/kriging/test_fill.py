"""Tests of filling holes by kriging."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import fft, linalg

from csr_astro.evaluation.baselines import biharmonic
from csr_astro.kriging import (
    kriging_errors,
    kriging_fill,
    kriging_fills,
    spline_fill,
    spline_fills,
)
from csr_astro.simulation.diffuse import power_law_field

SIZE = 97
Y, X = np.indices((SIZE, SIZE)) - SIZE // 2
R = np.hypot(X, Y)


def disc(radius):
    return radius >= R


def field(seed, slope=-3.0, noise=0.1):
    rng = np.random.default_rng(seed)
    return power_law_field((SIZE, SIZE), slope, rng) + noise * rng.standard_normal((SIZE, SIZE))


def fill(values, radius, valid=None, peak=None):
    hole = disc(radius)
    valid = ~hole if valid is None else valid & ~hole
    return kriging_fill(values, valid, hole, radius, peak)


@pytest.mark.parametrize('slope', [-2.5, -3.6])
@pytest.mark.parametrize('radius', [5, 12])
def test_errors_are_those_of_kriging_with_the_true_covariance(slope, radius):
    """A dense solution with the covariance that the fields were drawn from."""
    n, noise = 512, 0.1
    k2 = fft.fftfreq(n)[:, None] ** 2 + fft.rfftfreq(n) ** 2
    k2[0, 0] = np.inf
    covariance = fft.irfft2(k2 ** (slope / 2), s=(n, n))
    covariance /= covariance[0, 0]
    hole, aperture = disc(radius), disc(4)
    used = ~hole & ((radius + 6 >= R) | ((X % 5 == 0) & (Y % 5 == 0)))
    rows, columns = np.nonzero(used)
    k = covariance[abs(rows[:, None] - rows), abs(columns[:, None] - columns)]
    k[np.diag_indices_from(k)] += noise**2
    a, b = np.nonzero(aperture)
    right = covariance[abs(a[:, None] - rows), abs(b[:, None] - columns)].sum(axis=0)
    weights = linalg.solve(k, right, assume_a='pos')
    best, ours = [], []
    rng = np.random.default_rng(7)
    for number in range(80):
        if number % 16 == 0:
            sky = power_law_field((n, n), slope, rng) + noise * rng.standard_normal((n, n))
        i, j = 128 * (number % 16 // 4), 128 * (number % 4)
        values = sky[i : i + SIZE, j : j + SIZE]
        filled = values.copy()
        filled[hole] = fill(values, radius)
        truth = values[aperture].sum()
        best.append(weights @ values[rows, columns] - truth)
        ours.append(filled[aperture].sum() - truth)
    assert np.std(ours) < 1.06 * np.std(best)
    assert abs(np.mean(ours)) < 4 * np.std(ours) / np.sqrt(len(ours))


@pytest.mark.parametrize('radius', [0, 3, 9, 13])
def test_plane_is_continued(radius):
    plane = 3 + 0.2 * X - 0.1 * Y
    assert_allclose(fill(plane, radius), plane[disc(radius)], atol=1e-3)


@pytest.mark.parametrize('value', [0, 3.5, -7e12, 1e-20])
def test_constant_is_continued(value):
    assert_allclose(fill(np.full((SIZE, SIZE), float(value)), 7), value, rtol=1e-12)


@pytest.mark.parametrize(('factor', 'offset'), [(1, 1e5), (1e-6, 0), (1e6, -3)])
def test_fill_follows_scale_and_offset(factor, offset):
    values = field(3)
    expected = factor * (fill(values, 9) + offset)
    assert_allclose(fill(factor * (values + offset), 9), expected, rtol=0, atol=1e-5 * factor)


def test_nothing_in_the_hole_or_invalid_matters():
    values = field(4)
    valid = X < 20
    expected = fill(values, 9, valid)
    other = np.where(valid & ~disc(9), values, 1e9)
    assert_array_equal(fill(other, 9, valid), expected)


@pytest.mark.parametrize('turns', [1, 2, 3])
@pytest.mark.parametrize('flip', [False, True])
def test_fill_follows_flips_and_rotations(turns, flip):
    def orient(array):
        array = np.rot90(array, turns)
        return array[:, ::-1] if flip else array

    values, valid, hole = field(5), ~disc(9) & (X < 25), disc(9)
    image = np.zeros((SIZE, SIZE))
    image[hole] = kriging_fill(values, valid, hole, 9)
    turned = kriging_fill(orient(values), orient(valid), orient(hole), 9)
    assert_allclose(turned, orient(image)[orient(hole)], atol=1e-7)


def noise_with_wing(seed, amplitude):
    """White noise, and a wing of the shape of PACS' outside a disc of 9 pixels."""
    noise = np.random.default_rng(seed).standard_normal((SIZE, SIZE))
    return noise + amplitude * (np.maximum(R, 9) / 9) ** -3.0


def test_wing_of_a_bright_source_is_taken_off():
    errors = [fill(noise_with_wing(seed, 5), 9, peak=1000).mean() for seed in range(20)]
    assert abs(np.mean(errors)) < 0.25


@pytest.mark.parametrize('peak', [None, 20])
def test_what_is_no_brighter_than_its_wing_is_background(peak):
    """A clump that peaks in the mask: the fill goes up with it."""
    errors = [fill(noise_with_wing(seed, 5), 9, peak=peak).mean() for seed in range(5)]
    assert np.mean(errors) > 2.5


@pytest.mark.parametrize('peak', [None, 1000])
def test_white_noise_without_wings_is_not_biased(peak):
    errors = [fill(noise_with_wing(seed, 0), 9, peak=peak).mean() for seed in range(100)]
    assert abs(np.mean(errors)) < 4 * np.std(errors) / 10 + 0.01


@pytest.mark.parametrize('n', [1, 2, 3, 30])
def test_few_valid_pixels_are_enough(n):
    values = field(6)
    valid = np.zeros((SIZE, SIZE), dtype=bool)
    places = np.random.default_rng(n).choice(np.flatnonzero((R > 9) & (R < 30)), n, replace=False)
    valid.flat[places] = True
    filled = fill(values, 9, valid)
    low, high = values[valid].min(), values[valid].max()
    assert (filled >= low - (high - low) - 1e-9).all()
    assert (filled <= high + (high - low) + 1e-9).all()


def test_without_valid_pixels_the_fill_is_zero():
    assert_array_equal(fill(field(7), 9, np.zeros((SIZE, SIZE), dtype=bool)), 0)


def test_very_large_masks_are_filled_on_a_coarse_grid():
    n, radius = 161, 55
    values = power_law_field((512, 512), -3.5, 1)[:n, :n]
    y, x = np.indices((n, n)) - n // 2
    hole = np.hypot(x, y) <= radius
    filled = kriging_fill(values, ~hole, hole, radius)
    assert np.std(filled - values[hole]) < 0.6 * np.std(values[hole])
    # It joins the surroundings.
    rim = np.hypot(x, y)[hole] > radius - 1.5
    assert np.std((filled - values[hole])[rim]) < 0.25 * np.std(values[hole])


def test_stack_is_one_window_after_another():
    values = np.stack([noise_with_wing(1, 5), field(9)])
    hole, peak = np.stack([disc(9), disc(5)]), np.array([1000.0, 3.0])
    fills, wings, _ = kriging_fills(values, ~hole, hole, np.array([9.0, 5.0]), peak)
    for one, v, h, r, p in zip(fills, values, hole, (9, 5), peak, strict=True):
        assert_array_equal(one[h], kriging_fill(v, ~h, h, r, p))
        assert (one[~h] == 0).all()
    near = (R > 9) & (R < 12)
    assert_allclose(wings[0][near], 5 * (R[near] / 9) ** -3.0, atol=1.2)
    assert (wings[1] == 0).all()


def test_errors_are_the_scatter_of_the_pixels():
    """On Gaussian fields the pixels under the masks scatter about the prediction as stated."""
    n = 12
    values = np.stack([field(seed) for seed in range(n)])
    hole = np.broadcast_to(disc(6), values.shape)
    radius, peak = np.full(n, 6.0), np.full(n, 3.0)
    fills, _, krigings = kriging_fills(values, ~hole, hole, radius, peak)
    errors = kriging_errors(krigings, hole)
    found = np.sqrt(np.mean((fills - values)[hole] ** 2))
    assert_allclose(found, np.sqrt(np.mean(errors[hole] ** 2)), rtol=0.15)
    assert not errors[~hole].any()
    assert not kriging_errors([None] * n, hole).any()


def test_spline_is_like_the_biharmonic_fill_on_smooth_maps():
    values = np.cos(X / 9.0) + np.sin((X + Y) / 13.0)
    hole = disc(6)
    spline = spline_fill(values, ~hole, hole)
    peer = biharmonic(values, ~hole, hole, SIZE // 2, SIZE // 2, 6)
    errors = [np.sqrt(np.mean((each - values[hole]) ** 2)) for each in (spline, peer)]
    assert errors[0] < max(2 * errors[1], 0.02)


def test_spline_follows_scale_and_offset():
    values, hole = field(3), disc(5)
    first = spline_fill(values, ~hole, hole)
    assert_allclose(spline_fill(1e6 * values - 3e7, ~hole, hole), 1e6 * first - 3e7, rtol=1e-6)


@pytest.mark.parametrize('rows', [0, 1, 2])
def test_spline_without_a_plane_is_the_mean_of_the_rim(rows):
    """Nothing, a single line, or two lines of pixels around the mask are measured."""
    values, hole = field(4), disc(3)
    valid = (Y >= 4) & (4 + rows > Y) & (abs(X) < 2)
    found = spline_fill(values, valid, hole)
    if rows == 2:
        assert np.isfinite(found).all()
    elif rows == 1:
        rim = valid & (R < 6) & ~hole
        assert_allclose(found, values[rim].mean(), atol=1)
    else:
        assert not found.any()


def test_splines_of_a_stack_are_those_of_its_windows():
    values = np.stack([field(5), field(6), field(7)])
    # The last mask is not round.
    hole = np.stack([disc(9), disc(4), (abs(X) < 14) & (abs(Y) < 3)])
    fills = spline_fills(values, ~hole, hole, np.array([9.0, 4.0, 5.0]))
    for fill, window, inside in zip(fills, values, hole, strict=True):
        assert_allclose(fill[inside], spline_fill(window, ~inside, inside))
        assert not fill[~inside].any()
