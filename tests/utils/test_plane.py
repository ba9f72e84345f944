"""Planes through maps and cutouts."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from csr_astro.utils.plane import fit_plane


@pytest.mark.parametrize('shape', [(40, 40), (31, 50)])
def test_plane_is_that_of_weighted_least_squares(shape):
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(3, *shape)), rng.random((3, *shape))
    weights[weights < 0.3] = 0
    y, x = np.indices(shape)
    for found, v, w in zip(fit_plane(values, weights), values, weights, strict=True):
        basis = np.column_stack([np.ones(v.size), x.ravel(), y.ravel()])
        root = np.sqrt(w.ravel())[:, None]
        line = np.linalg.lstsq(root * basis, root[:, 0] * v.ravel(), rcond=None)[0]
        assert_allclose(found, (basis @ line).reshape(shape), atol=1e-12)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_values_without_weight_have_no_influence(bad):
    values = np.random.default_rng(0).normal(size=(1, 20, 20))
    good = np.random.default_rng(1).random(values.shape) < 0.5
    expected = fit_plane(np.where(good, values, 0), good)
    assert_allclose(fit_plane(np.where(good, values, bad), good), expected, rtol=0)


def test_no_pixels_have_the_plane_zero():
    assert not fit_plane(np.ones((1, 9, 9)), np.zeros((1, 9, 9))).any()
