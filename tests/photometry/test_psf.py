"""Tests of photometry by fits on predicted backgrounds."""

import pickle

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.modeling.models import Gaussian2D
from astropy.nddata import CCDData
from astropy.table import QTable
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from photutils.psf import CircularGaussianPRF, PSFPhotometry
from regions import CirclePixelRegion, PixCoord

from csr_astro import (
    InpaintedAperturePhotometry,
    InpaintedPSFPhotometry,
    NeuralBackgroundEstimator,
)
from csr_astro.evaluation.standard_stars import find_stars
from csr_astro.fitting import pixel_psf
from csr_astro.flags import decode_flags
from csr_astro.images import read_image
from csr_astro.instruments import identify_instrument
from csr_astro.simulation.diffuse import power_law_field
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import gaussian_profile, moffat_profile, psf_profile

SHAPE = (120, 130)
SOURCES = np.array([(40.3, 60.2), (90.0, 33.4), (100.2, 90.1)])
FLUX = np.array([400.0, 900.0, 2000.0])
FWHM = 3.4
MODEL = CircularGaussianPRF(fwhm=FWHM)
PSF = pixel_psf(MODEL)
EXACT = {'position_error': 0, 'width_error': 0, 'profile_error': 0}


@pytest.fixture(scope='module')
def estimator(weights):
    return NeuralBackgroundEstimator(weights, orientations=1, fwhm=FWHM)


@pytest.fixture(scope='module')
def wcs():
    return sky_wcs(0, 1)


def sky_wcs(rotation, parity):
    """A tangent plane with pixels of 1.6 arcsec, rotated by degrees, or mirrored."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval = 269.15, 51.49
    wcs.wcs.crpix = 60, 50
    turn = np.radians(rotation)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    wcs.wcs.cd = matrix @ np.diag([-1.6 * parity, 1.6]) / 3600
    return wcs


@pytest.fixture(scope='module')
def sky():
    """A slope, noise of scatter 1 and stars."""
    yy, xx = np.indices(SHAPE)
    sky = 20 + 0.05 * xx - 0.02 * yy + np.random.default_rng(0).normal(0, 1, SHAPE)
    sky = inject_sources(sky, *SOURCES.T, FLUX, psf_profile(MODEL))
    sky.flags.writeable = False
    return sky


@pytest.fixture(scope='module')
def ccd(sky, wcs):
    return CCDData(sky, unit='Jy/pixel', wcs=wcs)


def pulls(table, truth):
    return u.Quantity((table['flux'] - truth * table['flux'].unit) / table['flux_err']).value


# What photutils says


def test_columns_of_photutils_are_the_beginning_of_ours(estimator, ccd):
    yy, xx = np.indices(SHAPE)
    flat = CCDData(ccd.data - (20 + 0.05 * xx - 0.02 * yy), unit=ccd.unit)
    theirs = PSFPhotometry(MODEL, 9, aperture_radius=4)(
        flat, init_params=QTable({'x': SOURCES[:, 0], 'y': SOURCES[:, 1]})
    )
    ours = InpaintedPSFPhotometry(MODEL, estimator=estimator)(ccd, SOURCES)
    assert isinstance(ours, QTable)
    expected = [name for name in theirs.colnames if name != 'flags']
    assert ours.colnames[: len(expected)] == expected
    assert ours.colnames[-1] == 'flags'
    for name in ('id', 'x_init', 'y_init', 'group_size'):
        assert_allclose(ours[name], theirs[name])
    for name in ('x_fit', 'y_fit', 'flux_fit'):
        error = u.Quantity(ours[name.replace('fit', 'err')]).value
        difference = u.Quantity(ours[name]).value - u.Quantity(theirs[name]).value
        assert (np.abs(difference) < 2 * error).all()


@pytest.mark.parametrize('with_unit', [False, True])
def test_columns_that_we_add(estimator, sky, ccd, with_unit):
    table = InpaintedPSFPhotometry(MODEL, estimator=estimator)(ccd if with_unit else sky, SOURCES)
    added = ['flux', 'snr', 'dof', 'rim', 'width', 'width_err', 'mask_name', 'mask_radius', 'flags']
    assert [name for name in table.colnames if name in added] == added
    assert ('sky_center' in table.colnames) == with_unit
    assert_array_equal(table['flux'], table['flux_fit'])
    for name in ('flux', 'flux_fit', 'flux_init', 'flux_err'):
        assert getattr(table[name], 'unit', None) == (u.Jy if with_unit else None)
    assert getattr(table['local_bkg'], 'unit', None) == (u.Jy / u.pix if with_unit else None)
    assert {'instrument', 'photutils', 'aperture_correction', 'psf_fwhm'} <= set(table.meta)
    assert set(table['mask_name']) == {'fit'}


def test_columns_do_not_depend_on_sources(estimator, sky):
    phot = InpaintedPSFPhotometry(MODEL, estimator=estimator)
    empty, full = phot(sky, np.zeros((0, 2))), phot(sky, SOURCES)
    assert len(empty) == 0
    assert empty.colnames == full.colnames


# Numbers


def test_fluxes_positions_and_background_are_those_injected(estimator, sky):
    table = InpaintedPSFPhotometry(MODEL, estimator=estimator)(sky, SOURCES + 0.2)
    assert (np.abs((table['flux'] - FLUX) / table['flux_err']) < 3).all()
    for axis, name in enumerate('xy'):
        offset = table[f'{name}_fit'] - SOURCES[:, axis]
        assert (np.abs(offset) < 4 * table[f'{name}_err']).all()
    background = 20 + 0.05 * SOURCES[:, 0] - 0.02 * SOURCES[:, 1]
    assert_allclose(table['local_bkg'], background, atol=1)
    assert (table['flags'] == 0).all()
    assert (table['reduced_chi2'] < 2).all()
    assert (table['qfit'] < 0.3).all()


def test_error_of_flux_is_that_of_least_squares_in_white_noise(estimator):
    """A constant background, known from many pixels: sigma / sqrt(sum of squares of the PSF)."""
    data = np.random.default_rng(4).normal(0, 1, (150, 150))
    table = InpaintedPSFPhotometry(MODEL, estimator=estimator, **EXACT)(data, [(75, 75)])
    axis = np.arange(-4.0, 5.0)
    smallest = 1 / np.sqrt((PSF.evaluate(axis, axis) ** 2).sum())
    assert smallest < table['flux_err'][0] < 1.6 * smallest


def test_errors_cover_the_truth(estimator):
    rng = np.random.default_rng(5)
    x, y = (a.ravel() + rng.uniform(-2, 2, 64) for a in np.meshgrid(*[np.arange(25, 400, 48)] * 2))
    data = 3 * power_law_field((400, 400), -3, rng) + rng.normal(0, 0.3, (400, 400))
    data = inject_sources(data, x, y, np.full(64, 200.0), psf_profile(MODEL))
    start = np.column_stack([x, y]) + rng.normal(0, 0.2, (64, 2))
    table = InpaintedPSFPhotometry(MODEL, estimator=estimator)(data, start)
    pull = (table['flux'] - 200) / table['flux_err']
    assert 0.5 < np.mean(np.abs(pull) < 1) < 0.9
    # All sources share the error of the width of the PSF.
    assert abs(np.median(table['flux']) / 200 - 1) < 0.04


@pytest.mark.parametrize(
    ('star', 'noise', 'within'),
    [
        # A map without noise tells a sampled Gaussian from its mean over pixels.
        ('sampled', 0, 0.5),
        ('sampled', 0.05, None),
        ('averaged', 0, None),
        ('averaged', 0.05, None),
    ],
)
@pytest.mark.parametrize('seed', range(3))
def test_example_of_aperture_photometry_is_right(weights, seed, star, noise, within):
    """The docstring of the apertures gives 1003.2 +- 0.2, and 1000 is true.

    Its star is a Gaussian at the centres of pixels; a PSF that is no PRF is averaged over them.
    """
    yy, xx = np.indices((120, 120))
    image = np.exp(-0.5 * ((xx - 60) ** 2 + (yy - 50) ** 2) / 2.0) * 1000 / (4 * np.pi)
    if star == 'averaged':
        image = CircularGaussianPRF(
            flux=1000, x_0=60, y_0=50, fwhm=np.sqrt(16 * np.log(2))
        )(xx, yy)
    data = 3 + 0.01 * xx + image + np.random.default_rng(seed).normal(0, noise, (120, 120))
    estimator = NeuralBackgroundEstimator(weights, fwhm=3.3)
    phot = InpaintedPSFPhotometry(
        Gaussian2D(x_stddev=np.sqrt(2), y_stddev=np.sqrt(2)), estimator=estimator
    )
    row = phot(data, [(60, 50)])[0]
    assert row['flux_err'] < 5
    assert abs(row['flux'] - 1000) < (within or 2 * row['flux_err'])


@pytest.mark.parametrize('separation', [0.8, 1.0])
@pytest.mark.parametrize('contrast', [1.0, 0.3])
def test_blends_are_solved_together(estimator, separation, contrast):
    rng = np.random.default_rng(6)
    x, y = (a.ravel() + rng.uniform(-2, 2, 36) for a in np.meshgrid(*[np.arange(30, 400, 62)] * 2))
    angle = rng.uniform(0, 2 * np.pi, len(x))
    x = np.append(x, x + separation * FWHM * np.cos(angle))
    y = np.append(y, y + separation * FWHM * np.sin(angle))
    flux = np.repeat([800.0, 800.0 * contrast], len(angle))
    data = inject_sources(rng.normal(5, 1, (400, 400)), x, y, flux, psf_profile(MODEL))
    start = np.column_stack([x, y]) + rng.normal(0, 0.15, (len(x), 2))
    table = InpaintedPSFPhotometry(MODEL, estimator=estimator)(data, start)
    assert (table['group_size'] == 2).all()
    pull = (table['flux'] - flux) / table['flux_err']
    assert np.mean(np.abs(pull) < 1) > 0.5
    for part in np.split(np.array(table['flux']) / flux, 2):
        assert abs(np.median(part) - 1) < 0.04


@pytest.mark.parametrize('beams', [0.0, 1.0, 2.0, 3.0])
def test_resolved_sources_have_their_whole_flux(estimator, beams):
    data = np.random.default_rng(1).normal(5, 1, (160, 160))
    axis = np.arange(160.0)
    covariance = np.diag([1, 0.36]) * (beams * FWHM / 2.3548) ** 2
    data += 5000 * PSF.convolved(covariance).evaluate(axis - 80.2, axis - 79.7)
    gaussian = InpaintedPSFPhotometry(MODEL, estimator=estimator, shape='gaussian')
    row = gaussian(data, [(80, 80)])[0]
    assert row['extended'] == (beams > 0)
    assert abs(row['flux'] - 5000) < 3 * row['flux_err'] < 600
    assert_allclose([row['fwhm_major'], row['fwhm_minor']], [FWHM * beams, 0.6 * FWHM * beams],
                    rtol=0.1)  # fmt: skip
    assert not row['flags']
    if beams > 0:
        point = InpaintedPSFPhotometry(MODEL, estimator=estimator)(data, [(80, 80)])[0]
        assert {'poor_fit', 'exceeds_mask'} & set(decode_flags(point['flags']))


@pytest.mark.parametrize('rotation', [0, 90, 200])
@pytest.mark.parametrize('parity', [1, -1])
def test_position_angle_is_that_on_the_sky(estimator, rotation, parity):
    wcs = sky_wcs(rotation, parity)
    place = wcs.pixel_to_world(80, 80)
    # A source whose major axis runs 30 degrees from north through east.
    end = place.directional_offset_by(30 * u.deg, 4 * 1.6 * u.arcsec)
    dx, dy = np.array(wcs.world_to_pixel(end)) - 80
    direction = np.array([dx, dy]) / np.hypot(dx, dy)
    covariance = 1.5 * np.identity(2) + 12 * np.outer(direction, direction)
    axis = np.arange(160.0)
    data = np.random.default_rng(1).normal(5, 1, (160, 160))
    data += 20000 * PSF.convolved(covariance).evaluate(axis - 80, axis - 80)
    phot = InpaintedPSFPhotometry(MODEL, estimator=estimator, shape='gaussian')
    row = phot(data, place, wcs=wcs)[0]
    assert_allclose(row['position_angle'].to_value(u.deg), 30, atol=2)
    fwhm = 2.3548 * 1.6 * np.sqrt([13.5, 1.5])
    assert_allclose(
        [row['fwhm_major'].to_value(u.arcsec), row['fwhm_minor'].to_value(u.arcsec)], fwhm,
        rtol=0.05,
    )  # fmt: skip


# Bad pixels


@pytest.mark.parametrize('radius', [2.5, 4.0])
def test_missing_core_has_an_honest_error(estimator, radius):
    profile = moffat_profile(FWHM, 2.5)
    y, x = np.indices(SHAPE)
    data = inject_sources(np.random.default_rng(1).normal(5, 1, SHAPE), [60.3], [59.8], [1e4],
                          profile)  # fmt: skip
    whole = InpaintedPSFPhotometry(profile, estimator=estimator)(data, [(60.3, 59.8)])[0]
    data[np.hypot(x - 60.3, y - 59.8) < radius] = np.nan
    row = InpaintedPSFPhotometry(profile, estimator=estimator)(data, [(60.3, 59.8)])[0]
    assert abs(row['flux'] - 1e4) < 3 * row['flux_err']
    assert row['flux_err'] > 2 * whole['flux_err']
    assert decode_flags(row['flags']) == ['invalid_pixels']


def test_flat_top_is_left_out_and_flagged(estimator):
    profile = moffat_profile(FWHM, 2.5)
    noise = np.random.default_rng(1).normal(5, 1, SHAPE)
    data = np.minimum(inject_sources(noise, [60.3], [59.8], [1e5], profile), 3000)
    row = InpaintedPSFPhotometry(profile, estimator=estimator)(data, [(60.3, 59.8)])[0]
    assert 'saturated' in decode_flags(row['flags'])
    assert abs(row['flux'] - 1e5) < 3 * row['flux_err'] < 1e4


def test_every_source_has_a_row(estimator, sky, ccd):
    data = sky.copy()
    data[60:, 60:] = np.nan
    places = np.array([(np.nan, 3), SOURCES[0], (-40, 50), (100, 95), (0, 0)])
    table = InpaintedPSFPhotometry(MODEL, estimator=estimator)(data, places, wcs=ccd.wcs)
    found = [decode_flags(flags) for flags in table['flags']]
    assert found[0] == ['invalid_position']
    assert found[1] == []
    assert found[2] == ['off_map']
    assert 'not_fitted' in found[3]
    assert 'edge' in found[4]
    assert_array_equal(np.isnan(table['flux']), [True, False, True, True, False])
    assert_array_equal(table['id'], np.arange(1, 6))
    assert_allclose(table['x_init'], places[:, 0])
    assert len(table['sky_center']) == 5


def test_order_of_sources_does_not_matter(estimator, sky):
    phot = InpaintedPSFPhotometry(MODEL, estimator=estimator)
    table, other = phot(sky, SOURCES), phot(sky, SOURCES[::-1])
    for name in ('flux', 'flux_err', 'x_fit', 'flags'):
        assert_allclose(table[name], other[name][::-1], rtol=1e-6)


@pytest.mark.parametrize('dtype', ['>f4', '<f8', '>i2'])
def test_arrays_of_files_are_taken_and_kept(estimator, sky, dtype):
    data = sky.astype(dtype)
    data.flags.writeable = False
    table = InpaintedPSFPhotometry(MODEL, estimator=estimator)(data, SOURCES)
    assert (np.abs(table['flux'] - FLUX) < 5 * table['flux_err']).all()


# Arguments


def test_result_of_the_estimator_is_measured(weights, ccd):
    estimator = NeuralBackgroundEstimator(weights, orientations=1, fwhm=FWHM)
    phot = InpaintedPSFPhotometry(MODEL, estimator=estimator)
    from_map, from_result = phot(ccd, SOURCES), phot(estimator.estimate(ccd, SOURCES))
    assert from_map.colnames == from_result.colnames
    for name in ('flux', 'x_fit', 'snr', 'mask_radius', 'flags'):
        assert_array_equal(from_map[name], from_result[name])


def test_positions_are_fixed_as_in_photutils(estimator, sky):
    model = CircularGaussianPRF(fwhm=FWHM)
    model.x_0.fixed = model.y_0.fixed = True
    table = InpaintedPSFPhotometry(model, estimator=estimator)(sky, SOURCES)
    other = InpaintedPSFPhotometry(MODEL, estimator=estimator, position_error=0)(sky, SOURCES)
    for each in (table, other):
        assert_array_equal(each['x_fit'], SOURCES[:, 0])
        assert_array_equal(each['y_fit'], SOURCES[:, 1])
        assert np.isnan(each['x_err']).all()
        assert np.isnan(each['y_err']).all()
    assert_array_equal(table['flux'], other['flux'])
    model.y_0.fixed = False
    table = InpaintedPSFPhotometry(model, estimator=estimator)(sky, SOURCES + 0.1)
    assert_array_equal(table['x_fit'], SOURCES[:, 0] + 0.1)
    assert (np.abs(table['y_fit'] - SOURCES[:, 1]) < 0.08).all()
    assert np.isnan(table['x_err']).all()
    assert (table['flags'] == 0).all()


@pytest.mark.parametrize('bounds', [0.3, (0.3, None), (None, 0.3)])
def test_positions_stay_within_bounds(estimator, sky, bounds):
    phot = InpaintedPSFPhotometry(MODEL, estimator=estimator, xy_bounds=bounds, position_error=1)
    table = phot(sky, SOURCES + np.array([0.6, 0.0]))
    limited = bounds != (None, 0.3)
    assert (np.abs(table['x_fit'] - table['x_init']) <= 0.3).all() == limited
    assert all(('at_bound' in decode_flags(flags)) == limited for flags in table['flags'])


@pytest.mark.parametrize(
    ('given', 'pixels', 'name'),
    [({'mask_radius': 3}, 29, 'fixed'), ({'mask_radius': 3.2 * 1.6 * u.arcsec}, 37, 'fixed'),
     ({'mask_radius': 'snr'}, 81, 'moderate')],
)  # fmt: skip
def test_masks_can_be_chosen(estimator, ccd, given, pixels, name):
    place = np.round(SOURCES)
    table = InpaintedPSFPhotometry(MODEL, estimator=estimator, **EXACT)(ccd, place, **given)
    number = next(each for each in table.colnames if 'pix' in each)
    if name == 'fixed':
        assert (table[number] == pixels).all()
        assert set(table['mask_name']) == {'fixed'}
    else:
        assert not {'fixed', 'fit'} & set(table['mask_name'])


def test_regions_are_the_masks(estimator, sky):
    regions = [CirclePixelRegion(PixCoord(*place), 5.5) for place in SOURCES]
    table = InpaintedPSFPhotometry(MODEL, estimator=estimator)(sky, regions)
    assert set(table['mask_name']) == {'region'}
    assert (np.abs(table['flux'] - FLUX) < 3 * table['flux_err']).all()


@pytest.mark.parametrize('shape', [7, (7, 9)])
def test_box_of_photutils(estimator, sky, shape):
    table = InpaintedPSFPhotometry(MODEL, estimator=estimator, fit_shape=shape)(sky, SOURCES)
    number = next(each for each in table.colnames if 'pix' in each)
    assert (table[number] == np.prod(np.broadcast_to(shape, 2))).all()
    assert (np.abs(table['flux'] - FLUX) < 3 * table['flux_err']).all()


def test_every_kind_of_psf_gives_the_same(estimator, sky, tmp_path):
    axis = np.arange(-20.0, 21.0)
    image = PSF.evaluate(axis, axis)
    fits.writeto(tmp_path / 'psf.fits', image)
    expected = InpaintedPSFPhotometry(MODEL, estimator=estimator)(sky, SOURCES)['flux']
    for psf in (PSF, image, tmp_path / 'psf.fits', gaussian_profile(FWHM),
                Gaussian2D(x_stddev=FWHM / 2.3548, y_stddev=FWHM / 2.3548), None):  # fmt: skip
        table = InpaintedPSFPhotometry(psf, estimator=estimator)(sky, SOURCES)
        assert_allclose(table['flux'], expected, rtol=0.01)
    other = estimator.replace(psf=MODEL)
    assert_allclose(InpaintedPSFPhotometry(estimator=other)(sky, SOURCES)['flux'], expected)


@pytest.mark.parametrize(
    ('correction', 'fraction'),
    [(None, 0.9121), ('eef', 0.9121), ('vesta', 1), ('none', 1), (0.5, 0.5)],
)
def test_corrections_for_energy_beyond_the_psf(weights, ccd, correction, fraction):
    blue = NeuralBackgroundEstimator(weights, instrument='pacs-scanmap-blue')
    phot = InpaintedPSFPhotometry(MODEL, estimator=blue, aperture_correction=correction)
    plain = InpaintedPSFPhotometry(MODEL, estimator=blue, aperture_correction='none')
    table, expected = phot(ccd, SOURCES), plain(ccd, SOURCES)
    for name in ('flux', 'flux_fit', 'flux_err', 'flux_init'):
        assert_allclose(table[name], expected[name] / fraction)
    assert table.meta['aperture_correction'] == correction or correction is None


def test_model_and_residual_images(estimator, sky, ccd):
    phot = InpaintedPSFPhotometry(MODEL, estimator=estimator)
    with pytest.raises(ValueError, match='no source was fitted yet'):
        phot.make_model_image(SHAPE)
    table = phot(ccd, SOURCES)
    model = phot.make_model_image(SHAPE)
    assert_allclose(model.sum(), table['flux'].value.sum(), rtol=1e-3)
    assert_allclose(sky - model, phot.fits.residual, atol=1e-6)
    assert phot.make_model_image(SHAPE, psf_shape=3).astype(bool).sum() == 27
    residual = phot.make_residual_image(ccd)
    assert isinstance(residual, CCDData)
    assert_allclose(residual.data, sky - model)
    assert_array_equal(ccd.data, sky)
    flat = phot.make_residual_image(sky, include_local_bkg=True)
    assert abs(flat[60, 40]) < 5
    quantity = phot.make_residual_image(sky * u.Jy)
    assert quantity.unit == u.Jy


def test_model_image_of_gaussians_is_that_of_the_fit(estimator):
    data = np.random.default_rng(1).normal(5, 1, (160, 160))
    axis = np.arange(160.0)
    data += 9000 * PSF.convolved(np.array([[9, 3], [3, 4]])).evaluate(axis - 80.2, axis - 79.7)
    phot = InpaintedPSFPhotometry(MODEL, estimator=estimator, shape='gaussian')
    assert phot(data, [(80, 80)])['extended'][0]
    assert_allclose(phot.make_residual_image(data), phot.fits.residual, atol=1e-3)


def test_instance_is_described_and_sent(estimator, sky):
    phot = InpaintedPSFPhotometry(MODEL, estimator=estimator)
    assert 'InpaintedPSFPhotometry' in repr(phot)
    assert 'shape' in phot._repr_html_()
    table = pickle.loads(pickle.dumps(phot))(sky, SOURCES)
    assert_array_equal(table['flux'], phot(sky, SOURCES)['flux'])


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ({'shape': 'disc'}, "shape must be 'point' or 'gaussian'"),
        ({'xy_bounds': 0}, 'xy_bounds must be a positive number'),
        ({'xy_bounds': (1, 2, 3)}, 'xy_bounds must be a positive number'),
        ({'xy_bounds': 'far'}, 'xy_bounds must be a positive number'),
        ({'fit_shape': 4}, 'fit_shape must be one or two odd'),
        ({'fit_shape': (5, 5, 5)}, 'fit_shape must be one or two odd'),
        ({'fit_shape': 5, 'shape': 'gaussian'}, "fit_shape is for shape='point'"),
        ({'position_error': -1}, 'position_error must be a number from 0 up'),
        ({'width_error': np.nan}, 'width_error must be a number from 0 up'),
        ({'profile_error': 'no'}, 'profile_error must be a number from 0 up'),
        ({'aperture_correction': 'all'}, "aperture_correction must be 'eef'"),
        ({'aperture_correction': 2}, "aperture_correction must be 'eef'"),
    ],
)
def test_wrong_arguments_get_one_sentence(estimator, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        InpaintedPSFPhotometry(MODEL, estimator=estimator, **arguments)


def test_models_that_are_not_fitted_get_one_sentence(estimator):
    model = CircularGaussianPRF(fwhm=FWHM)
    model.fwhm.fixed = False
    with pytest.raises(ValueError, match='the parameters fwhm of psf_model must be fixed'):
        InpaintedPSFPhotometry(model, estimator=estimator)
    model.fwhm.fixed = model.flux.fixed = True
    with pytest.raises(ValueError, match='the flux of psf_model must not be fixed'):
        InpaintedPSFPhotometry(model, estimator=estimator)


def test_wrong_calls_get_one_sentence(estimator, sky):
    with pytest.raises(TypeError, match='estimator must be a NeuralBackgroundEstimator, got str'):
        InpaintedPSFPhotometry(MODEL, estimator='default')
    phot = InpaintedPSFPhotometry(MODEL, estimator=estimator)
    with pytest.raises(TypeError, match='sources are needed'):
        phot(sky)
    result = estimator.estimate(sky, SOURCES)
    with pytest.raises(TypeError, match='already has its sources'):
        phot(result, SOURCES)


# Real stars


def real_star(path, weights, **options):
    image, header = read_image(path)
    estimator = NeuralBackgroundEstimator(weights, instrument=identify_instrument(header))
    return image, estimator, InpaintedPSFPhotometry(estimator=estimator, **options)


@pytest.mark.parametrize(
    ('band', 'tolerance'),
    [
        pytest.param(
            'blue', 0.02,
            marks=pytest.mark.xfail(strict=True, reason='2.3 % high, 1.5 standard errors'),
        ),
        ('green', 0.02),
        ('R_', 0.03),
    ],
)
def test_gamma_draconis(real_data, weights, band, tolerance):
    ratios = []
    for path in (real_data / 'pacs_gamma_dra').glob(f'*{band}*'):
        image, estimator, phot = real_star(path, weights, position_error=0.5)
        stars = find_stars(image)
        row = phot(image, stars['sky_center'])[0]
        reference = stars[f'ref_{estimator.instrument.wavelength:g}'][0]
        ratios.append(
            (row['flux'] / estimator.instrument.colour_correction_star / reference).to_value('')
        )
        assert not decode_flags(row['flags'])
    assert ratios
    assert abs(np.mean(ratios) - 1) < tolerance


@pytest.mark.parametrize(
    'band',
    [
        pytest.param(
            'pacs70',
            marks=pytest.mark.xfail(
                strict=True,
                reason='5.7 % apart: the star is resolved, 18 to 29 % brighter than gamma Draconis '
                'at 5 to 12 arcsec, and dusty (7 times as bright as at 160 um, not 5.3 times)',
            ),
        ),
        pytest.param(
            'pacs160',
            marks=pytest.mark.xfail(strict=True, reason='4.0 % apart, half an error of the fit'),
        ),
    ],
)
def test_fit_and_aperture_agree_on_a_real_star(real_data, band):
    """PPM 181320."""
    (path,) = (real_data / 'real_sources').glob(f'ppm181320*{band}.fits')
    image, estimator, phot = real_star(path, 'default', position_error=0.5)
    star = SkyCoord(325.08258, -1.78609, unit='deg')
    row = phot(image, star)[0]
    place = np.array([[row['x_fit'], row['y_fit']]])
    aperture = InpaintedAperturePhotometry(12 * u.arcsec, estimator=estimator)(image, place)[0]
    difference = row['flux'] - aperture['flux']
    assert row['flux'] > 10 * row['flux_err']
    assert abs(difference) < 0.02 * row['flux']
