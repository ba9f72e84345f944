"""Single pixels that stand out."""

import numpy as np
import pytest
from astropy.modeling.models import Gaussian2D

from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator
from csr_astro.flags import BITS
from csr_astro.utils.outliers import isolated_outliers

Y, X = np.mgrid[:97, :97]


def noise(seed=0):
    return np.random.default_rng(seed).normal(size=(97, 97))


def star(x, y, fwhm, peak):
    sigma = fwhm / 2.3548
    return Gaussian2D(peak, x, y, sigma, sigma)(X, Y)


def found(values, valid=None):
    valid = np.ones(values.shape, dtype=bool) if valid is None else valid
    return isolated_outliers(values[np.newaxis], valid[np.newaxis])[0]


@pytest.mark.parametrize('peak', [-100, 100, 1e6])
def test_hot_and_cold_pixels_are_found(peak):
    values = noise()
    values[20, 30] = peak
    assert np.argwhere(found(values)).tolist() == [[20, 30]]


@pytest.mark.parametrize('seed', range(5))
def test_noise_and_structure_have_none(seed):
    assert not found(noise(seed)).any()
    assert not found(noise(seed).cumsum(0).cumsum(1)).any()
    assert not found(np.random.default_rng(seed).lognormal(0, 0.7, (97, 97))).any()


@pytest.mark.parametrize('fwhm', [1.6, 2, 3, 6])
@pytest.mark.parametrize('offset', [0, 0.5])
def test_point_sources_are_none(fwhm, offset):
    assert not found(noise() + star(40 + offset, 50, fwhm, 1e4)).any()


def test_images_of_few_photons_have_none():
    assert not found(np.random.default_rng(0).poisson(0.02, (97, 97)).astype(float)).any()


def test_windows_without_pixels_have_none():
    assert not found(noise(), np.zeros((97, 97), dtype=bool)).any()
    values = noise()
    values[20, 30], values[60, 60] = 1e3, np.nan
    assert np.argwhere(found(values, np.isfinite(values))).tolist() == [[20, 30]]


@pytest.mark.parametrize('height', [1e3, 1e5])
def test_hot_pixel_ruins_no_measurement(height):
    """20 pixels away from a star, as high as 1000 scatters and more."""
    clean = noise(3) + star(48, 48, 3.3, 60)
    hot = clean.copy()
    hot[48, 68] = height
    estimator = NeuralBackgroundEstimator(fwhm=3.3)
    tables = [
        InpaintedAperturePhotometry([4], estimator=estimator)(each, [(48, 48)])
        for each in (clean, hot)
    ]
    flux, error = (
        np.array([float(table[name][0]) for table in tables]) for name in ('flux_0', 'flux_err_0')
    )
    assert abs(flux[1] - flux[0]) < 0.3 * error[0]
    assert error[1] == pytest.approx(error[0], rel=0.1)
    flags = [int(t['flags'][0]) & BITS['outliers'] > 0 for t in tables]
    assert flags == [False, True]
