"""Errors behind blank discs."""

import numpy as np
from astropy.table import Table
from helpers_evaluation import Oracle
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import CircularAperture, aperture_photometry

from csr_astro import NeuralBackgroundEstimator
from csr_astro.evaluation.discs import background_errors
from csr_astro.evaluation.positions import (
    draw_positions,
)
from csr_astro.flags import BITS


def test_errors_are_sums_over_the_aperture(groups):
    positions = draw_positions(groups, [3, 9], 12)
    errors = background_errors(
        groups,
        positions,
        {'oracle': Oracle(), 'high': Oracle(offset=2.0)},
        apertures=(2.0, 4.0),
    )
    assert len(errors) == 2 * len(positions)
    assert_allclose(errors['oracle'], 0, atol=1e-9)
    small = np.array((errors['aperture'] == 2) | (errors['radius'] == 9))
    area = np.pi * np.array(errors['aperture']) ** 2
    whole = np.array([
        np.isfinite(
            groups[r['group']][r['map']][
                np.hypot(*np.ogrid[-r['y'] : 150 - r['y'], -r['x'] : 170 - r['x']]) <= r['radius']
            ]
        ).all()
        for r in errors
    ])
    assert_allclose(errors['high'][small & whole], 2 * area[small & whole])
    # The aperture reaches beyond the disc of 3 pixels, where the map is known.
    beyond = errors['high'][~small & whole]
    assert_allclose(beyond, 2 * 29, rtol=1e-9)
    image = groups['second'][0]
    rows = errors[(errors['group'] == 'second') & (errors['aperture'] == 4)]
    aperture = CircularAperture(np.column_stack([rows['x'], rows['y']]), 4)
    assert_allclose(rows['true'], aperture_photometry(image, aperture)['aperture_sum'])


def test_methods_see_no_pixel_of_any_disc(groups):
    seen = []

    def spy(values, valid, hole, x, y, radius):
        seen.append((values.copy(), valid.copy(), hole.copy(), x, y, radius))
        return np.zeros(hole.sum())

    positions = Table({
        'group': ['second'] * 2, 'map': [0, 0], 'radius': [5.0, 5.0],
        'x': [50.25, 92.0], 'y': [70.0, 70.0],
    })  # fmt: skip
    background_errors(groups, positions, {'spy': spy})
    values, valid, hole, x, y, _ = seen[0]
    yy, xx = np.indices(valid.shape)
    assert (x, y) == (48.25, 48)
    assert_array_equal(hole, np.hypot(xx - x, yy - y) <= 5)
    assert not valid[hole].any()
    # The neighbour is predicted at the same time.
    neighbour = np.hypot(xx - (48 + 42), yy - 48) <= 5
    assert not valid[neighbour].any()
    assert valid.sum() == valid.size - hole.sum() - neighbour.sum()
    expected = np.where(valid[48], groups['second'][0][70, 2:99], np.nan)
    assert_array_equal(values[48], expected)


def test_gaps_are_not_valid(groups):
    def spy(values, valid, hole, x, y, radius):
        del x, y, radius
        assert np.isfinite(values[valid]).all()
        assert np.isnan(values[~valid]).all()
        return np.full(hole.sum(), np.mean(values[valid]))

    positions = Table({
        'group': ['first'], 'map': [1], 'radius': [9.0], 'x': [95.0], 'y': [70.0],
    })  # fmt: skip
    errors = background_errors(groups, positions, {'spy': spy})
    assert np.isfinite(errors['spy'][0])


def test_network_is_measured_through_the_public_estimator(groups, weights):
    estimator = NeuralBackgroundEstimator(weights, orientations=1, fwhm=3.5)
    positions = draw_positions({'second': groups['second']}, [6], 1, seed=2)
    errors = background_errors(groups, positions, {'network': estimator})
    image, place = groups['second'][0], [(positions['x'][0], positions['y'][0])]
    result = estimator.estimate(image, place, mask_radius=6)
    sums = [
        aperture_photometry(each, CircularAperture(place, 4))['aperture_sum'][0]
        for each in (result.background, image)
    ]
    assert_allclose(errors['network'], sums[0] - sums[1])


def test_what_was_not_predicted_is_nan(groups):
    class Silent(Oracle):
        def estimate(self, *args, **kwargs):
            result = super().estimate(*args, **kwargs)
            result.flags[:] = BITS['no_background']
            return result

    positions = draw_positions({'second': groups['second']}, [6], 2)
    assert np.isnan(background_errors(groups, positions, {'silent': Silent()})['silent']).all()
