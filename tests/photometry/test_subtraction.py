"""Subtraction of fitted sources in place of inpainting."""

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro import InpaintedPSFPhotometry, NeuralBackgroundEstimator
from csr_astro.flags import decode_flags
from csr_astro.photometry import subtract_sources
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import gaussian_profile, moffat_profile

MOFFAT = moffat_profile(3.3, 2.5)
X, Y = np.array([[40.3, 60.7], [110.2, 50.4], [75.6, 120.1]]).T
FLUX = np.array([5000.0, 800.0, 20000.0])


@pytest.fixture(scope='module')
def sky():
    yy, xx = np.indices((160, 150))
    return 5 + 0.02 * xx - 0.01 * yy + np.random.default_rng(1).normal(0, 1, (160, 150))


@pytest.fixture(scope='module')
def estimator(weights):
    return NeuralBackgroundEstimator(weights, fwhm=3.3, psf=MOFFAT, orientations=1)


def subtracted(estimator, data, shape='point', positions=(X, Y), **options):
    result = estimator.estimate(data, np.column_stack(positions), **options)
    photometry = InpaintedPSFPhotometry(estimator=estimator, shape=shape)
    return subtract_sources(result, photometry)


def test_wings_are_subtracted_and_the_noise_stays(estimator, sky):
    data = inject_sources(sky, X, Y, FLUX, MOFFAT)
    found = subtracted(estimator, data)
    assert found.subtracted.all()
    assert not found.inpainted.any()
    assert found.mask.any()
    assert_allclose(found.background + found.source_image, data, rtol=1e-12)
    # Wings and all: the network fills only masks.
    assert_allclose(found.source_image.sum(), FLUX.sum(), rtol=0.02)
    ring = np.hypot(*(np.indices(sky.shape) - np.array([Y[2], X[2]])[:, None, None]))
    outside = (ring > 14) & (ring < 18) & ~found.result.mask
    before = found.result.background - sky
    assert before[outside].mean() > 10 * abs((found.background - sky)[outside].mean())
    # What is left in the masks is the noise of the map, which a prediction does not have.
    left = found.background - sky
    assert np.std((found.background)[found.mask] - 5) > 0.9
    assert np.abs(left[found.mask] / found.background_rms[found.mask]).mean() < 1.5
    assert (found.background_rms[found.mask] > 0).all()


def test_error_of_the_model_covers_what_is_left(estimator, sky):
    rng = np.random.default_rng(5)
    pulls = []
    for _ in range(4):
        noise = 5 + rng.normal(0, 1, sky.shape)
        found = subtracted(estimator, inject_sources(noise, X, Y, FLUX, MOFFAT))
        for mask in found.fits.masks:
            rows, columns = mask.on_map()
            error = found.background_rms[rows, columns]
            left = (found.background - noise)[rows, columns]
            pulls.append(np.mean((left / error) ** 2))
    assert 0.2 < np.mean(pulls) < 2


def test_source_unlike_the_psf_is_inpainted(estimator, sky):
    data = inject_sources(sky, X[:1], Y[:1], FLUX[:1], MOFFAT)
    yy, xx = np.indices(sky.shape)
    data = data + 300 * np.exp(-((xx - X[1]) ** 2 + (yy - Y[1]) ** 2) / 60)
    found = subtracted(estimator, data, positions=(X[:2], Y[:2]))
    assert_array_equal(found.subtracted, [True, False])
    assert {'poor_fit', 'exceeds_mask'} & set(decode_flags(found.sources['flags'][1]))
    mask = found.result.source_masks[1]
    inside = np.zeros(sky.shape, dtype=bool)
    inside[mask.window] = mask.pixels
    assert_array_equal(found.inpainted, inside)
    assert_array_equal(found.background[inside], found.result.background[inside])
    assert_array_equal(found.background_rms[inside], found.result.background_rms[inside])


def test_gaussians_are_subtracted_with_their_shape(weights, sky):
    estimator = NeuralBackgroundEstimator(weights, fwhm=3.3, orientations=1)
    data = inject_sources(sky, X[:1], Y[:1], FLUX[2:], gaussian_profile(6.0))
    found = subtracted(estimator, data, shape='gaussian', positions=(X[:1], Y[:1]))
    assert found.subtracted.all()
    assert found.sources['fwhm_major'][0] > 4
    core = np.hypot(*(np.indices(sky.shape) - np.array([Y[0], X[0]])[:, None, None])) < 6
    left = (found.background - sky)[core]
    assert np.abs(left).max() < 0.1 * (data - sky)[core].max()
    assert (found.background_rms[core] > 0).all()


def test_missing_core_is_filled(estimator, sky):
    data = inject_sources(sky, X, Y, FLUX, MOFFAT)
    hole = np.hypot(*(np.indices(sky.shape) - np.array([Y[2], X[2]])[:, None, None])) < 2
    data[hole] = np.nan
    found = subtracted(estimator, data)
    assert found.subtracted[2]
    assert_array_equal(found.inpainted, hole)
    assert np.isfinite(found.background).all()
    assert_array_equal(found.background[hole], found.result.background[hole])


def test_unit_type_and_table(estimator, sky):
    catalog = QTable({'x': X, 'y': Y, 'flux': [7.0, 8.0, 9.0], 'id': ['a', 'b', 'c']})
    data = inject_sources(sky, X, Y, FLUX, MOFFAT).astype('f4') * u.Jy / u.pix
    result = estimator.estimate(data, catalog, keep=True)
    before = list(result.sources.colnames)
    found = subtract_sources(result, InpaintedPSFPhotometry(estimator=estimator))
    assert result.sources.colnames == before
    for image in (found.background, found.source_image, found.background_rms):
        assert image.unit == u.Jy / u.pix
        assert image.dtype == np.float32
    assert_array_equal(found.sources['id'], ['a', 'b', 'c'])
    assert_array_equal(found.sources['catalog_flux'], [7, 8, 9])
    assert_allclose(found.sources['flux'].to_value(u.Jy), FLUX, rtol=0.05)
    assert_array_equal(data.value, result.image.data)


def test_nothing_to_subtract(estimator, sky):
    found = subtracted(estimator, sky, positions=([-500.0], [3.0]))
    assert not found.subtracted.any()
    assert not found.mask.any()
    assert_array_equal(found.background, sky)
    assert_array_equal(found.source_image, 0)
