"""The fit against closed forms, and what it does with bad pixels, wrong PSFs and neighbours."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from photutils.psf import CircularGaussianPRF
from scipy import linalg, ndimage

from csr_astro.fitting.calibration import structure_factor
from csr_astro.fitting.fit import FitOptions, fit_sources
from csr_astro.fitting.gaussian import ellipse_axes, moments, shape_derivatives, shape_of
from csr_astro.fitting.group_fit import GroupFit
from csr_astro.fitting.grouping import SourceGroup, group_sources
from csr_astro.fitting.psf import pixel_psf
from csr_astro.fitting.psf_errors import width_prior
from csr_astro.fitting.scene import Scene
from csr_astro.images import parse_image
from csr_astro.kriging import Kriging
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import gaussian_profile, moffat_profile

PROFILE = gaussian_profile(3.4)
PSF = pixel_psf(PROFILE)
EXACT = FitOptions(position_error=0, width_error=0, profile_error=0, rounds=1)
AXIS = np.arange(-12.0, 13.0)


def star(flux=1000.0, x=60.3, y=59.8, *, profile=PROFILE, seed=1):
    data = np.random.default_rng(seed).normal(5, 1, (120, 120))
    return inject_sources(data, np.atleast_1d(x), np.atleast_1d(y), np.atleast_1d(flux), profile)


def test_weights_give_the_prediction_of_kriging():
    values = np.random.default_rng(0).normal(size=(97, 97))
    y, x = np.mgrid[:97, :97] - 48
    hidden = np.hypot(x, y) < 5
    kriging = Kriging(values, ~hidden, 5.0)
    places = x[hidden], y[hidden]
    weights = kriging.weights(places)
    assert_allclose(weights.sum(axis=1), 1)
    means = kriging.averaging_matrix() @ values.ravel()
    assert_allclose(weights @ means, kriging.predict(places), atol=1e-10)


def test_flux_is_the_closed_form_of_generalised_least_squares():
    scene = Scene(parse_image(star()), [60.3], [59.8], PSF, None, None, EXACT)
    fit = GroupFit(scene, SourceGroup(0, np.array([0]), np.array([], dtype=int)))
    data, template = fit._residual(), fit._templates()[0][0, 0]
    inverse = linalg.inv(fit._covariance)
    variance = 1 / (template @ inverse @ template)
    fit.solve()
    assert_allclose(scene.parameters[0, 0], variance * (template @ inverse @ data))
    assert_allclose(fit.errors[0, 0], np.sqrt(variance))


def test_psf_of_photutils_keeps_its_flux():
    model = CircularGaussianPRF(flux=7, fwhm=3)
    x, y = np.meshgrid(AXIS, AXIS)
    expected = model.evaluate(x, y, 1, 0.3, -0.2, 3)
    assert_allclose(pixel_psf(model).evaluate(AXIS - 0.3, AXIS + 0.2), expected, atol=1e-5)


@pytest.mark.parametrize('number', [1, 2])
def test_derivatives_with_respect_to_position(number):
    step = 1e-4 * np.array([number == 1, number == 2])
    high, low = (PSF.evaluate(AXIS - 0.3 - s[0], AXIS + 0.2 - s[1]) for s in (step, -step))
    slope = PSF.with_derivatives(AXIS - 0.3, AXIS + 0.2)[number]
    assert_allclose((high - low) / 2e-4, slope, atol=1e-7)


def test_derivatives_with_respect_to_shape():
    shape = np.array([2.0, 0.5, 1.5])
    slopes = shape_derivatives(PSF.convolved(moments(shape)), AXIS, AXIS, shape)
    for k in range(3):
        step = np.zeros(3)
        step[k] = 1e-3
        high, low = (PSF.convolved(moments(shape + s)).evaluate(AXIS, AXIS) for s in (step, -step))
        # Second derivatives of a cubic spline are good to a few per cent.
        assert_allclose((high - low) / 2e-3, slopes[k], atol=0.03 * np.abs(slopes[k]).max())


def test_shape_and_axes_are_inverse():
    shape = np.array([2.0, 0.5, 1.5])
    assert_allclose(shape_of(moments(shape), 0.1), shape)
    (major, minor, _), _ = ellipse_axes(shape)
    assert_allclose((major * minor) / (8 * np.log(2)), shape[0] * shape[2])


def test_width_prior_leaves_the_source_out():
    widths, error, before = np.array([0.03, 0.05, 0.04]), 0.01, np.full(3, 0.05)
    posterior_err = (error**-2 + before**-2.0) ** -0.5
    posterior = widths * (posterior_err / error) ** 2
    mean, _ = width_prior(posterior, posterior_err, np.zeros(3), before, error=0.05, scatter=0.0)
    for i in range(3):
        others = np.delete(widths, i)
        assert_allclose(mean[i], (others / error**2).sum() / (2 / error**2 + 0.05**-2))


def test_large_groups_are_cut_into_parts_with_a_halo():
    x = np.arange(20.0, 100, 4)
    scene = Scene(parse_image(np.zeros((120, 120))), x, 0 * x + 60, PSF, None, None, FitOptions())
    groups = group_sources(x, 0 * x + 60, scene.masks, (120, 120), max_size=6, halo_distance=5)
    members = np.concatenate([group.members for group in groups])
    assert sorted(members) == list(range(20))
    assert max(len(group.members) for group in groups) <= 6
    assert all(len(group.halo) in (1, 2) for group in groups)


def test_pulls_in_white_noise():
    x, y = (a.ravel() for a in np.meshgrid(np.arange(30.0, 400, 48), np.arange(30.0, 400, 48)))
    data = np.random.default_rng(2).normal(0, 1, (400, 400))
    data = inject_sources(data, x, y, np.full(len(x), 200.0), PROFILE)
    fits = fit_sources(parse_image(data), x + 0.2, y - 0.2, PSF)
    pulls = (fits.flux - 200) / fits.flux_err
    assert abs(pulls.mean()) < 3 / np.sqrt(len(x))
    assert 0.7 < pulls.std() < 1.2
    assert 0.8 < np.median(fits.chi2 / fits.dof) < 1.2


def test_wide_psf_and_shifted_start():
    x, y = (a.ravel() for a in np.meshgrid(np.arange(30.0, 400, 48), np.arange(30.0, 400, 48)))
    data = np.random.default_rng(2).normal(0, 1, (400, 400))
    data = inject_sources(data, x, y, np.full(len(x), 500.0), PROFILE)
    fits = fit_sources(parse_image(data), x + 0.3, y, pixel_psf(gaussian_profile(3.57)))
    assert abs(np.median(fits.flux) / 500 - 1) < 0.02
    assert abs(np.median(fits.x - x)) < 0.03
    assert_allclose(np.median(fits.width), 1 / 1.05, atol=0.02)


@pytest.mark.parametrize('offset', [2, 7])
def test_hot_pixel_in_the_background(offset):
    data = star()
    expected = fit_sources(parse_image(data), [60.3], [59.8], PSF)
    data[60 + offset, 68] += 1e4
    fits = fit_sources(parse_image(data), [60.3], [59.8], PSF)
    assert_allclose(fits.flux, expected.flux, atol=0.5 * expected.flux_err[0])
    assert_allclose(fits.flux_err, expected.flux_err, rtol=0.3)


def test_missing_core_is_fitted_by_its_wings():
    profile = moffat_profile(3.4, 2.5)
    data = star(1e5, profile=profile)
    y, x = np.indices(data.shape)
    data[np.hypot(x - 60.3, y - 59.8) < 2.5] = np.nan
    fits = fit_sources(parse_image(data), [60.3], [59.8], pixel_psf(profile))
    assert abs(fits.flux[0] - 1e5) < 3 * fits.flux_err[0] < 1e4


def test_flat_top_is_noticed():
    profile = moffat_profile(3.4, 2.5)
    data = np.minimum(star(1e5, profile=profile), 3000)
    fits = fit_sources(parse_image(data), [60.3], [59.8], pixel_psf(profile))
    assert fits.saturated[0]
    assert abs(fits.flux[0] - 1e5) < 3 * fits.flux_err[0] < 1e4


def test_nothing_left_gives_nan():
    data = star()
    data[40:80, 40:80] = np.nan
    fits = fit_sources(parse_image(data), [60.3, np.nan, 20], [59.8, 3, 20], PSF)
    assert np.isnan(fits.flux[:2]).all()
    assert np.isfinite(fits.flux[2])


def test_blend_of_one_fwhm():
    data = star([800.0, 500.0], x=[60.0, 63.4], y=[60.0, 60.0])
    fits = fit_sources(parse_image(data), [60.1, 63.3], [60.1, 59.9], PSF)
    assert fits.group_size.tolist() == [2, 2]
    assert (np.abs(fits.flux - [800, 500]) < 3 * fits.flux_err).all()
    assert (fits.flux_err < 60).all()


@pytest.mark.parametrize('beams', [0.0, 1.0, 2.5])
def test_resolved_source(beams):
    data = np.random.default_rng(1).normal(5, 1, (160, 160))
    covariance = np.diag([(beams * 3.4 / 2.3548) ** 2, (0.6 * beams * 3.4 / 2.3548) ** 2])
    axis = np.arange(160.0)
    data += 5000 * PSF.convolved(covariance).evaluate(axis - 80.2, axis - 79.7)
    fits = fit_sources(parse_image(data), [80.0], [80.0], PSF, options=FitOptions(shape='gaussian'))
    assert fits.extended[0] == (beams > 0)
    assert abs(fits.flux[0] - 5000) < 3 * fits.flux_err[0] < 600
    assert_allclose([fits.major[0], fits.minor[0]], [3.4 * beams, 2.04 * beams], rtol=0.1)
    assert abs(fits.rim[0]) < 3


def test_large_masks_are_fitted_in_blocks():
    psf = pixel_psf(gaussian_profile(18))
    data = np.random.default_rng(1).normal(5, 1, (220, 220))
    data = inject_sources(data, [110.3], [108.8], [5e4], gaussian_profile(18))
    fits = fit_sources(parse_image(data), [110.5], [109.0], psf)
    scene = Scene(parse_image(data), [110.5], [109.0], psf, None, None, FitOptions())
    fit = GroupFit(scene, SourceGroup(0, np.array([0]), np.array([], dtype=int)))
    assert fit.window.block == 3
    assert len(fit.rows) < 250
    assert abs(fits.flux[0] - 5e4) < 3 * fits.flux_err[0] < 5e3
    assert abs(fits.x[0] - 110.3) < 4 * fits.x_err[0] < 0.5
    # The background is given for pixels, not for blocks.
    assert len(fits.background[0][0]) == fits.masks[0].pixels.sum()


@pytest.mark.parametrize('times', [1.0, 4.0])
def test_errors_follow_the_structure_beside_the_source(times):
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:140, :140] - 70
    clumps = ndimage.gaussian_filter(rng.normal(size=(140, 140)), 2)
    data = clumps * np.where(np.hypot(x, y) < 12, times, 1) + rng.normal(0, 0.01, (140, 140))
    scene = Scene(parse_image(data), [70.0], [70.0], PSF, None, None, FitOptions())
    window = GroupFit(scene, SourceGroup(0, np.array([0]), np.array([], dtype=int))).window
    background = window.all(scene.valid & ~scene.hidden)
    own = np.zeros(background.shape, dtype=bool)
    own.flat[window.inside] = True
    distance = ndimage.distance_transform_edt(~own)
    kriging = Kriging(window.cut(scene.residual), background, window.radius)
    stamp = PSF.evaluate(np.arange(-5, 6), np.arange(-5, 6))
    factor = structure_factor(kriging, background, distance, stamp)
    assert (factor > 3) == (times > 1)


def test_significance_is_that_of_the_best_amplitude():
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:97, :97] - 48
    hidden = np.hypot(x, y) < 5
    kriging = Kriging(ndimage.gaussian_filter(rng.normal(size=(97, 97)), 2), ~hidden, 5.0)
    template = np.exp(-((x - 8) ** 2 + y**2) / 4)
    averages = kriging.averaging_matrix()
    patterns = np.stack([averages @ template.ravel(), np.ones(averages.shape[0])])
    significance = kriging.significance(patterns)
    covariance = np.tril(kriging._factor) @ np.tril(kriging._factor).T
    inverse = linalg.inv(covariance)
    ones = np.ones(len(inverse))
    inverse -= np.outer(inverse @ ones, inverse @ ones) / (ones @ inverse @ ones)
    right = patterns[0] @ kriging._solved
    assert_allclose(significance[0], right / np.sqrt(patterns[0] @ inverse @ patterns[0]))
    # A constant is the mean, which is not known.
    assert significance[1] == 0


def test_bright_blends_do_not_diverge():
    rng = np.random.default_rng(4)
    x, y = (a.ravel() for a in np.meshgrid(np.arange(55.0, 65, 3), np.arange(55.0, 65, 3)))
    x, y = (a + rng.uniform(-0.3, 0.3, a.size) for a in (x, y))
    flux = 10 ** rng.uniform(3, 5.5, x.size)
    fits = fit_sources(parse_image(star(flux, x=x, y=y)), x + 0.15, y - 0.15, PSF)
    assert fits.group_size.tolist() == [16] * 16
    assert_allclose(fits.flux, flux, atol=5 * fits.flux_err.max(), rtol=0.02)
    assert fits.profile_error <= 0.02
