"""The scripts of photutils' documentation, with our estimator as their local background."""

import inspect

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable
from numpy.testing import assert_allclose, assert_array_equal
from photutils.background import LocalBackground
from photutils.datasets import make_noise_image
from photutils.detection import DAOStarFinder
from photutils.psf import (
    CircularGaussianPRF,
    IterativePSFPhotometry,
    PSFPhotometry,
    SourceGrouper,
    make_psf_model_image,
)

from csr_astro import NeuralBackgroundEstimator

LEVEL = 50.0
SHAPE = (101, 101)
# photutils 2 and 3 call the same argument differently.
KEYWORD = next(
    name
    for name in ('local_bkg_estimator', 'localbkg_estimator')
    if name in inspect.signature(PSFPhotometry).parameters
)


@pytest.fixture(scope='module')
def stars():
    """Ten stars on a constant background with noise of scatter 1, and their true parameters."""
    data, truth = make_psf_model_image(
        SHAPE,
        CircularGaussianPRF(flux=1, fwhm=2.7),
        10,
        model_shape=(9, 9),
        flux=(500, 700),
        min_separation=10,
        seed=0,
    )
    noise = make_noise_image(SHAPE, mean=0, stddev=1, seed=0)
    return data + noise + LEVEL, np.ones(SHAPE), truth


@pytest.fixture(scope='module')
def estimator():
    return NeuralBackgroundEstimator(fwhm=2.7, orientations=1)


def matched(table, truth):
    """Rows of the table, in the order of the true stars."""
    dx = np.subtract.outer(truth['x_0'], u.Quantity(table['x_fit']).value)
    dy = np.subtract.outer(truth['y_0'], u.Quantity(table['y_fit']).value)
    nearest = np.hypot(dx, dy).argmin(axis=1)
    assert np.hypot(dx, dy).min(axis=1).max() < 0.2
    assert len(set(nearest)) == len(truth)
    return table[nearest]


def local_background(table):
    name = next(name for name in ('local_bkg', 'localbkg') if name in table.colnames)
    return u.Quantity(table[name]).value


def test_psf_photometry_on_predicted_backgrounds(stars, estimator):
    data, error, truth = stars
    psfphot = PSFPhotometry(
        CircularGaussianPRF(flux=1, fwhm=2.7),
        (5, 5),
        finder=DAOStarFinder(6.0, 2.0, exclude_border=True),
        aperture_radius=4,
        **{KEYWORD: estimator},
    )
    table = psfphot(data, error=error)
    assert len(table) == len(truth)
    table = matched(table, truth)
    assert_allclose(table['flux_fit'], truth['flux'], rtol=0.05)
    assert_allclose(local_background(table), LEVEL, atol=1)
    residual = psfphot.make_residual_image(data)
    assert abs(np.median(residual) - LEVEL) < 1


def test_psf_photometry_with_units_and_given_positions(stars, estimator):
    data, error, truth = stars
    psfphot = PSFPhotometry(
        CircularGaussianPRF(flux=1, fwhm=2.7), (5, 5), aperture_radius=4, **{KEYWORD: estimator}
    )
    positions = QTable({'x': truth['x_0'], 'y': truth['y_0']})
    plain = psfphot(data, error=error, init_params=positions)
    table = psfphot(data * u.Jy, error=error * u.Jy, init_params=positions)
    assert table['flux_fit'].unit == u.Jy
    assert_allclose(table['flux_fit'].value, truth['flux'], rtol=0.05)
    assert_allclose(table['flux_fit'].value, plain['flux_fit'], rtol=1e-6)


def test_psf_photometry_of_one_source_with_a_mask(stars, estimator):
    data, error, truth = stars
    mask = np.zeros(SHAPE, bool)
    x, y = truth['x_0'][0], truth['y_0'][0]
    mask[np.hypot(*(np.indices(SHAPE) - np.array([y, x])[:, None, None])) > 25] = True
    psfphot = PSFPhotometry(
        CircularGaussianPRF(flux=1, fwhm=2.7), (5, 5), aperture_radius=4, **{KEYWORD: estimator}
    )
    position = QTable({'x': [x], 'y': [y]})
    table = psfphot(np.where(mask, np.nan, data), error=error, mask=mask, init_params=position)
    assert_allclose(table['flux_fit'], truth['flux'][:1], rtol=0.05)


@pytest.mark.parametrize('mode', ['new', 'all'])
def test_iterative_psf_photometry_on_predicted_backgrounds(stars, estimator, mode):
    data, error, truth = stars
    psfphot = IterativePSFPhotometry(
        CircularGaussianPRF(flux=1, fwhm=2.7),
        (5, 5),
        finder=DAOStarFinder(6.0, 2.0, exclude_border=True),
        grouper=SourceGrouper(6),
        aperture_radius=4,
        mode=mode,
        maxiters=2,
        sub_shape=(15, 15),
        **{KEYWORD: estimator},
    )
    table = matched(psfphot(data, error=error), truth)
    assert_allclose(table['flux_fit'], truth['flux'], rtol=0.05)


def test_estimator_takes_the_place_of_an_annulus(stars, estimator):
    """Both are called in the same way and give the same kind of answer."""
    data, _, truth = stars
    x, y = np.array(truth['x_0']), np.array(truth['y_0'])
    annulus = LocalBackground(8, 15)
    for arguments in ((x, y), (list(x), list(y)), (x[0], y[0]), (x[:1], y[:1])):
        ours, theirs = estimator(data, *arguments), annulus(data, *arguments)
        assert np.shape(ours) == np.shape(theirs)
        assert_allclose(ours, theirs, atol=2)
    assert_array_equal(np.isnan(estimator(data, [x[0], -500], [y[0], 20])), [False, True])
