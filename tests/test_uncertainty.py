"""Tests of the errors of predicted backgrounds."""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import CircularAperture

from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator
from csr_astro.simulation.diffuse import lognormal_field, power_law_field
from csr_astro.uncertainty import aperture_weights

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


def white(seed=0, sigma=2.0, shape=SHAPE):
    return np.random.default_rng(seed).normal(0, sigma, shape)


# Variances


def test_errors_of_white_noise_are_those_of_independent_pixels(estimator):
    result = estimator.estimate(white(), POSITIONS, mask_radius=6)
    rms = result.background_rms
    assert_allclose(rms[result.mask], 2, rtol=0.12)
    assert not rms[~result.mask].any()
    for i in range(3):
        aperture = CircularAperture(POSITIONS[i], 4)
        error = result.covariance(i + 1).sum_err(aperture)
        # The mean of the map is known from the pixels around, though not quite.
        assert 1 < error / (2 * np.sqrt((aperture.to_mask().data ** 2).sum())) < 1.25


def test_errors_grow_towards_the_middle_of_a_mask(result):
    rows, columns = result.source_masks[2].on_map()
    rms = result.background_rms[rows, columns]
    distance = np.hypot(rows - 100, columns - 100)
    means = [rms[(distance >= a) & (distance < a + 3)].mean() for a in (0, 3, 6)]
    assert means[0] > means[1] > means[2] > 0


def test_rms_is_the_diagonal_of_the_covariance(result):
    for i in range(3):
        covariance = result.covariance(i + 1)
        assert_array_equal((covariance.y, covariance.x), result.source_masks[i].on_map())
        rms = result.background_rms[covariance.y, covariance.x]
        assert_allclose(rms**2, covariance.matrix.diagonal(), rtol=1e-10)
        assert_allclose(covariance.matrix, covariance.matrix.T, rtol=1e-6)
        assert np.linalg.eigvalsh(covariance.matrix)[0] > 0


def test_error_of_a_sum_is_that_of_its_pixels_together(result):
    aperture = CircularAperture(POSITIONS[1], 4)
    covariance = result.covariance(2)
    weights = aperture.to_mask().to_image(SHAPE)[covariance.y, covariance.x]
    expected = np.sqrt(weights @ covariance.matrix @ weights)
    assert covariance.sum_err(aperture) == pytest.approx(expected)
    table = InpaintedAperturePhotometry(4, estimator=result.estimator)(result)
    assert table['aperture_sum_err'][1] == pytest.approx(expected)
    # Structure makes it larger than independent pixels would.
    alone = np.sqrt(weights**2 @ covariance.matrix.diagonal())
    assert expected > 1.3 * alone


@pytest.mark.parametrize('factor', [1e-20, 1e20])
def test_errors_scale_with_the_map(estimator, sky, result, factor):
    scaled = estimator.estimate(sky * factor, POSITIONS, mask_radius=[5, 7, 9])
    assert_allclose(scaled.background_rms, result.background_rms * factor, rtol=1e-6)


def test_what_is_under_the_masks_has_no_influence(estimator, sky, result):
    changed = sky.copy()
    changed[result.mask] += white()[result.mask]
    other = estimator.estimate(changed, POSITIONS, mask_radius=[5, 7, 9])
    assert_allclose(other.background_rms, result.background_rms, rtol=1e-9)


def test_wings_make_errors_larger(estimator):
    y, x = np.indices(SHAPE)
    wing = 400 / (1 + np.hypot(x - 40, y - 50) / 3) ** 3
    quiet, winged = (
        estimator.estimate(image, POSITIONS[:1], mask_radius=7).covariance(1)
        for image in (white(), white() + wing)
    )
    aperture = CircularAperture(POSITIONS[0], 5)
    assert quiet.sum_err(aperture) < winged.sum_err(aperture) < 3 * quiet.sum_err(aperture)


def test_constant_map_has_no_error(estimator):
    result = estimator.estimate(np.full(SHAPE, 3.0), POSITIONS, mask_radius=6)
    assert not result.background_rms.any()
    assert_array_equal(result.realization(1), np.full(SHAPE, 3.0))


def test_unit_is_that_of_the_map(estimator, sky, result):
    found = estimator.estimate(sky * u.Jy / u.pix, POSITIONS, mask_radius=[5, 7, 9])
    assert found.background_rms.unit == u.Jy / u.pix
    covariance = found.covariance(1)
    assert covariance.matrix.unit == (u.Jy / u.pix) ** 2
    for wrong in (3, CircularAperture(POSITIONS[:2], 3)):
        with pytest.raises(TypeError, match='aperture must be a pixel aperture of photutils'):
            covariance.sum_err(wrong)
    error = covariance.sum_err(CircularAperture(POSITIONS[0], 3))
    assert error.unit == u.Jy / u.pix
    expected = result.covariance(1).sum_err(CircularAperture(POSITIONS[0], 3))
    assert error.value == pytest.approx(expected)


# The error of the map


def test_noise_that_is_known_replaces_that_of_the_variogram(estimator):
    """A part of the map is three times noisier: the error there, and nowhere else, is."""
    error = np.full(SHAPE, 2.0)
    error[:, 70:] = 6.0
    data = white(sigma=1.0) * error
    result = estimator.estimate(data, POSITIONS[:2], error=error, mask_radius=6)
    first, second = (
        np.median(result.background_rms[m.on_map()]) for m in result.source_masks
    )
    assert first == pytest.approx(2, rel=0.15)
    assert second == pytest.approx(6, rel=0.15)


@pytest.mark.parametrize(
    'uncertainty',
    [
        StdDevUncertainty(np.full(SHAPE, 2.0)),
        VarianceUncertainty(np.full(SHAPE, 4.0)),
        InverseVariance(np.full(SHAPE, 0.25)),
    ],
    ids=lambda uncertainty: uncertainty.uncertainty_type,
)
def test_every_kind_of_uncertainty_counts_alike(estimator, uncertainty):
    data = CCDData(white(), unit='Jy', uncertainty=uncertainty)
    photometry = InpaintedAperturePhotometry(4, estimator=estimator)
    table = photometry(data, POSITIONS, mask_radius=6)
    expected = photometry(white(), POSITIONS, mask_radius=6, error=2.0)
    assert_allclose(table['aperture_sum_err'].value, expected['aperture_sum_err'], rtol=1e-9)
    assert_allclose(table['aperture_sum_err'].value, 2 * np.sqrt(np.pi * 16), rtol=0.25)


def test_photons_of_the_source_add_to_the_error_of_the_background(estimator):
    """Where the error of the map is larger under the source than around it."""
    error = np.full(SHAPE, 2.0)
    y, x = np.indices(SHAPE)
    bright = np.hypot(x - 40, y - 50) <= 4
    error[bright] = 20.0
    photometry = InpaintedAperturePhotometry(5, estimator=estimator)
    with_photons = photometry(white(), POSITIONS[:1], mask_radius=6, error=error)
    without = photometry(white(), POSITIONS[:1], mask_radius=6, error=2.0)
    photons = np.sqrt(np.sum(error[bright] ** 2 - 4))
    expected = np.hypot(without['aperture_sum_err'][0], photons)
    assert with_photons['aperture_sum_err'][0] == pytest.approx(expected, rel=0.02)


def test_error_that_is_not_finite_around_the_source_is_taken_as_typical(estimator):
    error = np.full(SHAPE, 2.0)
    error[45:48, 60:] = np.nan
    found = estimator.estimate(white(), POSITIONS[:1], error=error, mask_radius=6)
    expected = estimator.estimate(white(), POSITIONS[:1], error=2.0, mask_radius=6)
    assert_allclose(found.background_rms, expected.background_rms, rtol=1e-6)


# Two sources


def test_covariance_between_touching_sources(estimator):
    sky = power_law_field((256, 256), -3, 5)[:128, :128]
    result = estimator.estimate(sky, [(40, 50), (52.5, 50)], mask_radius=6)
    between = result.covariance(1, 2)
    assert between.shape == tuple(m.pixels.sum() for m in result.source_masks)
    assert_array_equal(between, result.covariance(2, 1).T)
    variances = [result.covariance(i).matrix.diagonal() for i in (1, 2)]
    correlation = between / np.sqrt(np.multiply.outer(*variances))
    (y1, x1), (y2, x2) = (m.on_map() for m in result.source_masks)
    distance = np.hypot(np.subtract.outer(x1, x2), np.subtract.outer(y1, y2))
    assert correlation[distance < 2].max() > 0.2
    assert np.abs(correlation[distance > 20]).mean() < 0.15
    assert np.abs(correlation).max() <= 1


def test_errors_of_two_sources_are_those_of_one_field(estimator):
    """Sums and differences of neighbours have variances, whatever they are made of."""
    rng = np.random.default_rng(3)
    sky = lognormal_field((256, 256), -3.2, 0.6, rng) + rng.normal(0, 0.017, (256, 256))
    positions = np.array([[189, 109], [184, 109], [206, 215], [205, 210], [124, 209], [122, 213]])
    result = estimator.estimate(sky, positions, mask_radius=[9, 5] * 3)
    for i in (1, 3, 5):
        j = i + 1
        parts = [result.covariance(k) for k in (i, j)]
        weights = [
            aperture_weights(CircularAperture(positions[k - 1], 4), part.x, part.y, 'exact')
            for k, part in zip((i, j), parts, strict=True)
        ]
        variances = [w @ part.matrix @ w for w, part in zip(weights, parts, strict=True)]
        between = weights[0] @ result.covariance(i, j) @ weights[1]
        assert 0.1 < between / np.sqrt(np.prod(variances)) < 1


def test_covariance_with_itself_is_its_own(result):
    assert_allclose(result.covariance(2, 2), result.covariance(2).matrix, rtol=1e-10)


def test_far_sources_are_unrelated(estimator):
    image = white(shape=(90, 600))
    result = estimator.estimate(image, [(40, 45), (550, 45)], mask_radius=5)
    assert not result.covariance(1, 2).any()


# Large masks


@pytest.mark.parametrize('radius', [25, 60])
def test_large_masks_have_errors_too(estimator, radius):
    sky = power_law_field((256, 256), -3, 8)
    result = estimator.estimate(sky, [(128, 128)], mask_radius=radius)
    middle, rim = result.background_rms[128, 128], result.background_rms[128, 128 + radius]
    assert 0 < rim < 0.7 * middle < sky.std()
    drawn = result.realization(1)[result.mask]
    assert np.isfinite(drawn).all()
    table = InpaintedAperturePhotometry(8, estimator=estimator)(result)
    assert 0 < table['flux_err'][0] < 2 * sky.std() * np.pi * 64


# Bad input


def test_bad_requests_are_refused(estimator, sky, result):
    with pytest.raises(ValueError, match='no source with id 4; ids are 1 to 3'):
        result.covariance(4)
    lost = estimator.estimate(sky, [(1e4, 5), (40, 50)], mask_radius=5)
    with pytest.raises(ValueError, match='source 1 has no prediction: off_map'):
        lost.covariance(1)
    large = estimator.estimate(sky, [(60, 60)], mask_radius=65)
    with pytest.raises(ValueError, match='covariances are given for up to 10000'):
        large.covariance(1)
