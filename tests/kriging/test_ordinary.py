"""Tests of ordinary kriging: variances and covariances."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro.evaluation.accuracy import gaussian_fields
from csr_astro.kriging import Kriging
from csr_astro.kriging.stationary import kriging_variance

SIZE = 97
Y, X = np.indices((SIZE, SIZE)) - SIZE // 2
R = np.hypot(X, Y)


@pytest.mark.parametrize('field', [(-2.5, 0.06), (-3, 0.02), (-3.6, 0.2)])
@pytest.mark.parametrize('radius', [5, 12])
def test_variance_in_gaussian_fields_is_that_of_the_closed_form(field, radius):
    """Of the sum in an aperture, over windows of several fields."""
    groups, covariances = gaussian_fields(5, seed=1, fields=[field])
    name = next(iter(groups))
    hole, aperture = radius >= R, R <= 4
    limit = kriging_variance(aperture.astype(float), ~hole, covariances[name])
    places = X[aperture], Y[aperture]
    found = []
    for image in groups[name]:
        for shift in ((0, 0), (0, 120), (120, 0), (120, 120)):
            window = np.roll(image, shift, (0, 1))[:SIZE, :SIZE]
            kriging = Kriging(window, ~hole, radius)
            found.append((kriging.covariance(places) + kriging.own_noise(places)).sum() / limit)
    assert np.mean(found) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize('wing', [0, 30])
def test_variance_of_sums_is_that_of_the_covariance(wing):
    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[:81, :81] - 40
    distance = np.hypot(rows, columns)
    hole = distance <= 6
    noise = rng.uniform(0.5, 2, hole.shape)
    values = rng.normal(0, 1, hole.shape) + wing * (np.maximum(distance, 6) / 6) ** -2.5
    kriging = Kriging(values, ~hole, 6, peak=1000, noise=noise)
    assert np.any(kriging.wing) == (wing > 0)
    places = columns[hole], rows[hole]
    weights = rng.normal(size=(4, hole.sum()))
    expected = weights @ kriging.covariance(places) @ weights.T
    assert_allclose(kriging.variance(places, weights), expected.diagonal(), rtol=1e-9)
    assert_array_equal(kriging.own_variance(places), kriging.own_noise(places).diagonal())
