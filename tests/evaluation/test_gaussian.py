"""Errors in Gaussian fields."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import CircularAperture

from csr_astro.evaluation.baselines import get_baselines
from csr_astro.evaluation.gaussian import gaussian_errors, gaussian_fields
from csr_astro.evaluation.statistics import (
    scatter_ratios,
)
from csr_astro.kriging.stationary import kriging_variance


def test_gaussian_fields_have_the_covariance():
    fields, covariances = gaussian_fields(40, fields=[(-2.5, 0.2)], size=64, seed=3)
    for name, images in fields.items():
        power = np.mean(np.abs(np.fft.fft2(images)) ** 2, axis=0) / 64**2
        expected = np.fft.fft2(covariances[name]).real
        assert_allclose(np.mean(power.ravel()[1:] / expected.ravel()[1:]), 1, atol=0.02)


def test_limit_is_the_closed_form_and_nobody_beats_it():
    fields = [(-3.0, 0.1)]
    peers = get_baselines(['annulus_median', 'plane'])
    errors = gaussian_errors(peers, radii=[6.0], n=40, fields=fields, seed=1)
    one = errors[errors['group'] == 'slope -3 noise 0.1']
    _, covariances = gaussian_fields(1, fields=fields)
    distance = np.hypot(*np.ogrid[-48:49, -48:49])
    weight = CircularAperture((48, 48), 4).to_mask(method='exact').to_image((97, 97))
    variance = kriging_variance(weight, distance > 6, covariances['slope -3 noise 0.1'])
    rms = np.sqrt(np.mean(np.square(one['limit'])))
    assert_allclose(rms, np.sqrt(variance), rtol=4 / np.sqrt(2 * 40))
    ratios = scatter_ratios(one, 'limit', ['annulus_median', 'plane'])
    assert (ratios['rms_ratio'] < 1 + 2 * ratios['rms_ratio_err']).all()
    # Of white noise nothing is predicted, and its own scatter is the limit.
    white = errors[errors['group'] == 'white noise']
    assert_allclose(white['limit'], -white['true'], atol=1e-9)


def test_gaussian_errors_are_repeated_from_positions():
    peers = get_baselines(['plane'])
    fields = [(-3.0, 0.1)]
    first = gaussian_errors(peers, radii=[5.0], n=4, fields=fields, seed=6)
    positions = first['group', 'map', 'radius', 'x', 'y']
    positions.meta['seed'] = 6
    again = gaussian_errors(peers, fields=fields, positions=positions)
    assert_array_equal(first['plane'], again['plane'])
    assert_array_equal(first['limit'], again['limit'])
