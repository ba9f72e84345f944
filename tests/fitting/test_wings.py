"""Wings of sources with a known PSF."""

import numpy as np
import pytest

from csr_astro import NeuralBackgroundEstimator
from csr_astro.fitting.wings import fit_wings
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import moffat_profile

MOFFAT = moffat_profile(3.5, 2.5)
SHAPE = (160, 160)
X, Y = np.array([40.3, 110.0, 60.2]), np.array([45.1, 60.4, 115.0])
POSITIONS = np.column_stack([X, Y])


@pytest.fixture(scope='module')
def sky():
    yy, xx = np.indices(SHAPE)
    return 0.02 * xx + 0.01 * yy + np.random.default_rng(3).normal(0, 0.1, SHAPE)


@pytest.fixture(scope='module')
def data(sky):
    return inject_sources(sky, X, Y, [300.0, 1000.0, 3000.0], MOFFAT)


@pytest.fixture(scope='module')
def estimator():
    return NeuralBackgroundEstimator(fwhm=3.5, psf=MOFFAT, orientations=1)


def bias(result, sky):
    errors = np.asarray(result.background) - sky
    return [errors[mask.on_map()].mean() for mask in result.source_masks]


def test_fluxes_of_bright_sources_are_those_injected(estimator, data):
    model = fit_wings(estimator.plan(data, POSITIONS), estimator.pixel_psf())
    assert np.allclose(np.sort(model.flux), [300, 1000, 3000], rtol=0.02)


def test_known_wings_leave_no_light_in_the_background(estimator, data, sky):
    guessed = estimator.replace(psf=None)
    known, unknown = (each.estimate(data, POSITIONS) for each in (estimator, guessed))
    assert np.abs(bias(known, sky)).max() < 0.05
    assert np.abs(bias(known, sky)).max() < 0.5 * np.abs(bias(unknown, sky)).max()
    outside = ~known.mask
    assert np.array_equal(np.asarray(known.background)[outside], data[outside])


def test_faint_sources_are_not_fitted(estimator, sky):
    faint = inject_sources(sky, X, Y, [1.0, 1.0, 1.0], MOFFAT)
    assert not len(fit_wings(estimator.plan(faint, POSITIONS), estimator.pixel_psf()).flux)


def test_core_unlike_the_psf_is_left_out(estimator, data):
    # The core of the brightest is clipped; its wings still tell its flux.
    clipped = np.minimum(data, 30)
    model = fit_wings(estimator.plan(clipped, POSITIONS), estimator.pixel_psf())
    brightest = np.argmin(np.hypot(model.x - X[2], model.y - Y[2]))
    assert model.flux[brightest] == pytest.approx(3000, rel=0.1)


def test_order_of_the_sources_makes_no_difference(estimator, data):
    result = estimator.estimate(data, POSITIONS)
    other = estimator.estimate(data, POSITIONS[::-1])
    assert np.array_equal(result.background, other.background)
    assert np.array_equal(result.background_rms, other.background_rms)
