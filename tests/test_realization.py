"""Tests of random draws of the background behind masks."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro import NeuralBackgroundEstimator
from csr_astro.simulation.diffuse import power_law_field

SHAPE = (128, 140)
POSITIONS = [(40, 50), (90.3, 30.6), (100, 100)]


@pytest.fixture(scope='module')
def estimator():
    """The bundled weights: how far a network is off kriging is part of its errors."""
    return NeuralBackgroundEstimator(fwhm=3.5, orientations=1)


@pytest.fixture(scope='module')
def sky():
    rng = np.random.default_rng(2)
    field = power_law_field((256, 256), -3, 5)[: SHAPE[0], : SHAPE[1]]
    return 20 + field + rng.normal(0, 0.3, SHAPE)


@pytest.fixture(scope='module')
def result(estimator, sky):
    return estimator.estimate(sky, POSITIONS, mask_radius=[5, 7, 9])


def test_draws_have_the_mean_and_the_covariance_that_are_reported(result):
    n = 400
    maps = result.realization(3, n=n)
    assert maps.shape == (n, *SHAPE)
    for i in range(3):
        covariance = result.covariance(i + 1)
        drawn = maps[:, covariance.y, covariance.x]
        rms = np.sqrt(covariance.matrix.diagonal())
        mean = np.asarray(result.background)[covariance.y, covariance.x]
        assert np.abs((drawn.mean(axis=0) - mean) / rms * np.sqrt(n)).mean() < 2
        assert_allclose(drawn.std(axis=0) / rms, 1, atol=0.2)
        weights = np.ones(len(rms))
        expected = np.sqrt(weights @ covariance.matrix @ weights)
        assert drawn.sum(axis=1).std() == pytest.approx(expected, rel=0.15)


def test_draws_join_the_map_and_each_other_without_a_seam(estimator):
    """Steps between neighbouring pixels are as large at the rims as anywhere."""
    sky = power_law_field((256, 256), -3, 8)[:200, :200]
    positions = [(x + dx, y) for y in range(30, 190, 35) for x in (35, 90, 145) for dx in (0, 8)]
    result = estimator.estimate(sky, positions, mask_radius=6)
    maps = result.realization(1, n=5)
    claims = np.zeros(sky.shape, dtype=int)
    for number, mask in enumerate(result.source_masks, start=1):
        rows, columns = mask.on_map()
        free = claims[rows, columns] == 0
        claims[rows[free], columns[free]] = number
    left, right = claims[:, :-1], claims[:, 1:]
    # As in the map itself, of whose steps between masks there are few.
    rim, between = left * right == 0, left * right > 0
    for tolerance, seam in ((0.12, (left != right) & rim), (0.25, (left != right) & between)):
        assert seam.sum() > 100
        steps = np.array([np.diff(image, axis=1)[seam].std() for image in maps])
        assert steps.mean() == pytest.approx(np.diff(sky, axis=1)[seam].std(), rel=tolerance)


def test_draws_do_not_depend_on_the_other_sources(estimator, sky, result):
    alone = estimator.estimate(sky, POSITIONS[1:2], mask_radius=7)
    expected = result.realization(5) - result.background
    found = alone.realization(5) - alone.background
    rows, columns = alone.source_masks[0].on_map()
    # Other masks are no background, and so change what is known a little.
    assert np.corrcoef(found[rows, columns], expected[rows, columns])[0, 1] > 0.95


def test_draws_do_not_depend_on_the_order_of_the_sources(estimator, sky):
    positions = [(40, 50), (49, 52), (90, 60)]
    first = estimator.estimate(sky, positions, mask_radius=6).realization(2)
    second = estimator.estimate(sky, positions[::-1], mask_radius=6).realization(2)
    assert_allclose(first, second, rtol=0, atol=1e-6)


# A map of noise


@pytest.fixture(scope='module')
def noise():
    """A map of noise alone, and the network that is delivered."""
    sky = np.random.default_rng(4).normal(5, 1, (128, 128))
    estimator = NeuralBackgroundEstimator(fwhm=3.5, orientations=1)
    return sky, estimator.estimate(sky, [(30, 30), (90, 40), (40, 95)], mask_radius=7)


def test_realization_is_reproducible(noise):
    sky, result = noise
    first, again, other = (result.realization(seed) for seed in (1, 1, 2))
    assert_array_equal(first, again)
    assert (first != other)[result.mask].mean() > 0.9
    assert_array_equal(first[~result.mask], sky[~result.mask])
    generator = result.realization(np.random.default_rng(1))
    assert_array_equal(generator, first)


def test_realization_has_the_scatter_of_the_map(noise):
    sky, result = noise
    scatter = sky[~result.mask].std()
    off = [
        abs(image[result.mask].std() - scatter)
        for image in (result.realization(1), result.background)
    ]
    assert off[0] < 0.25 * scatter
    assert off[0] < off[1]
    assert abs(result.realization(1)[result.mask].mean() - 5) < 0.5


def test_realization_does_not_change_the_background(noise):
    _, result = noise
    before = result.background.copy()
    result.realization(5)[:] = 0
    assert_array_equal(result.background, before)


@pytest.mark.parametrize('n', [0, -1, 2.5, True])
def test_number_of_draws_is_a_positive_integer(noise, n):
    with pytest.raises(ValueError, match='n must be a positive integer, got'):
        noise[1].realization(1, n=n)
