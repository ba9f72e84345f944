"""Tests that what makes results faster leaves them as they are."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import csr_astro.prediction
from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator
from csr_astro.simulation.diffuse import power_law_field
from csr_astro.uncertainty import BackgroundErrors, predicted_sources

SHAPE = (150, 160)
RADII = [5.0, 7.0, 9.0, 6.0, 25.0]
POSITIONS = [(40, 50), (92.3, 40.6), (100, 100), (107, 103), (40, 110)]


@pytest.fixture(scope='module')
def sky():
    """Structure and noise, with sources that have wings."""
    rng = np.random.default_rng(2)
    data = power_law_field((256, 256), -3, 5)[: SHAPE[0], : SHAPE[1]] + rng.normal(0, 0.3, SHAPE)
    y, x = np.indices(SHAPE)
    for (x0, y0), peak in zip(POSITIONS, (30, 5000, 300, 50, 10), strict=True):
        distance2 = (x - x0) ** 2 + (y - y0) ** 2
        data += peak * (1 + distance2 / 4) ** -2.5
    return data


@pytest.fixture(scope='module')
def estimator():
    """The bundled weights, which are shown kriging."""
    return NeuralBackgroundEstimator(fwhm=3.5, orientations=2)


@pytest.fixture(params=[False, True], ids=['noise unknown', 'noise known'])
def error(request):
    return np.random.default_rng(1).uniform(0.2, 0.4, SHAPE) if request.param else None


def flux_errors(result, estimator):
    return np.array(InpaintedAperturePhotometry(4.0, estimator=estimator)(result)['flux_err'])


def own_errors(result):
    """Errors from windows that are not those of the prediction."""
    sources = result.errors.sources
    x, y = np.array([[source.x, source.y] for source in sources.values()]).T
    order = np.argsort(list(sources))
    measured = [result.image.data[mask.on_map()] for mask in result.source_masks]
    predicted = [np.asarray(result.background)[mask.on_map()] for mask in result.source_masks]
    mine = predicted_sources(x[order], y[order], result.source_masks, measured, predicted)
    return BackgroundErrors(result.image, mine)


def test_errors_of_the_prediction_are_those_of_windows_of_their_own(estimator, sky, error):
    result = estimator.estimate(sky, POSITIONS, mask_radius=RADII, error=error)
    assert [source.kriging is not None for source in result.errors.sources.values()].count(True) > 3
    own = own_errors(result)
    for i in result.errors.sources:
        # With known noise, wings are those of the prediction.
        assert_allclose(result.errors.rms(i), own.rms(i), rtol=3e-3)
        if error is None:
            assert_allclose(result.errors.rms(i), own.rms(i), rtol=1e-5)


def test_windows_that_were_forgotten_are_computed_anew(estimator, sky, error, monkeypatch):
    kept = estimator.estimate(sky, POSITIONS, mask_radius=RADII, error=error)
    monkeypatch.setattr(csr_astro.prediction, '_KEPT_BYTES', 0)
    result = estimator.estimate(sky, POSITIONS, mask_radius=RADII, error=error)
    sizes = {each.errors.sources[0].kriging.kriging.nbytes > 0 for each in (kept, result)}
    assert sizes == {True, False}
    assert_array_equal(result.background_rms, kept.background_rms)
    assert_array_equal(flux_errors(result, estimator), flux_errors(kept, estimator))
    # What errors need meanwhile does not stay in memory.
    assert not any(source.kriging.kriging.nbytes for source in result.errors.sources.values()
                   if source.kriging is not None)  # fmt: skip


def test_a_result_that_travelled_has_the_same_errors(estimator, sky, error):
    result = estimator.estimate(sky, POSITIONS, mask_radius=RADII, error=error)
    sent = pickle.dumps(result)
    # Without the factors of the covariances.
    assert len(sent) < 40 * sky.nbytes / 10
    copied = pickle.loads(sent)
    assert_array_equal(copied.background_rms, result.background_rms)
    assert_array_equal(copied.realization(1), result.realization(1))


@pytest.fixture
def threads():
    """Set the number of threads of the user, as long as the test runs."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_results_do_not_depend_on_the_number_of_threads(sky, threads):
    estimator = NeuralBackgroundEstimator(fwhm=3.5, orientations=2, batch_size=2)
    found = []
    for number in (1, 3):
        threads(number)
        result = estimator.estimate(sky, POSITIONS, mask_radius=RADII)
        found.append([result.background, result.background_rms, flux_errors(result, estimator)])
        assert torch.get_num_threads() == number
    for one, three in zip(*found, strict=True):
        assert_array_equal(three, one)


# Precision


def test_bfloat16_moves_fluxes_by_less_than_a_tenth_of_their_errors(sky):
    tables = []
    for dtype in ('float32', 'bfloat16'):
        estimator = NeuralBackgroundEstimator(fwhm=3.5, orientations=2, dtype=dtype)
        result = estimator.estimate(sky, POSITIONS, mask_radius=RADII)
        tables.append(InpaintedAperturePhotometry([3.0, 6.0], estimator=estimator)(result))
    exact, fast = tables
    for n in range(2):
        error = np.array(exact[f'flux_err_{n}'])
        distance = np.abs(np.array(fast[f'flux_{n}'] - exact[f'flux_{n}'])) / error
        assert 0 < distance.max() < 0.1
        assert_allclose(fast[f'flux_err_{n}'], error, rtol=0.02)


@pytest.fixture
def fast_device(monkeypatch):
    """A device that computes in bfloat16."""
    monkeypatch.setattr('csr_astro.nn.device.best_dtype', lambda _: torch.bfloat16)


@pytest.mark.usefixtures('fast_device')
def test_bfloat16_is_the_default_where_the_device_computes_in_it():
    estimator = NeuralBackgroundEstimator(fwhm=3.5)
    assert estimator.dtype == estimator.provenance['dtype'] == estimator.predictor.dtype
    assert estimator.dtype == 'bfloat16'
    assert estimator.replace(orientations=1).dtype == 'bfloat16'
    assert estimator.replace(dtype='float32').replace(orientations=1).dtype == 'float32'
    assert NeuralBackgroundEstimator(fwhm=3.5, dtype='float32').dtype == 'float32'


@pytest.mark.usefixtures('fast_device')
def test_images_in_the_range_of_their_sources_are_never_rounded_by_default(networks):
    """Steps of bfloat16 are larger than the background beside a bright source."""
    assert NeuralBackgroundEstimator(networks['minmax'], fwhm=3.5).dtype == 'float32'
    assert NeuralBackgroundEstimator(networks['local'], fwhm=3.5).dtype == 'bfloat16'


def test_precision_does_not_change_with_the_processor_by_itself(sky, monkeypatch):
    """A result of another machine can be repeated."""
    monkeypatch.setattr('csr_astro.nn.device.best_dtype', lambda _: torch.bfloat16)
    sent = pickle.dumps(NeuralBackgroundEstimator(fwhm=3.5, orientations=1))
    monkeypatch.setattr('csr_astro.nn.device.best_dtype', lambda _: torch.float32)
    result = pickle.loads(sent).estimate(sky, POSITIONS[:1])
    assert result.sources.meta['dtype'] == 'bfloat16'
