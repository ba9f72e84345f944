"""Tests of the ways in which people give their maps, and take their results."""

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, Cutout2D, StdDevUncertainty
from helpers_removal import make_wcs
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import ApertureStats, CircularAperture

from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator

SHAPE = (80, 90)
POSITION = [(40.0, 50.0)]


@pytest.fixture(scope='module')
def estimator(weights):
    return NeuralBackgroundEstimator(weights, fwhm=3.3, orientations=1)


@pytest.fixture(scope='module')
def data():
    yy, xx = np.indices(SHAPE)
    star = 100 * np.exp(-((xx - 40) ** 2 + (yy - 50) ** 2) / 4)
    return 5 + star + np.random.default_rng(0).normal(0, 0.1, SHAPE)


@pytest.fixture
def path(tmp_path, data):
    hdu = fits.PrimaryHDU(data, make_wcs().to_header())
    hdu.header['BUNIT'] = 'Jy/pixel'
    hdu.writeto(tmp_path / 'map.fits')
    return tmp_path / 'map.fits'


@pytest.mark.parametrize('kind', [str, lambda path: path])
def test_path_is_a_map(estimator, data, path, kind):
    result = estimator.estimate(kind(path), POSITION)
    assert_array_equal(result.background, estimator.estimate(data, POSITION).background)
    assert result.unit == u.Jy / u.pix
    assert result.sources.meta['image_hdu'] == 'PRIMARY (0)'
    table = InpaintedAperturePhotometry(4, estimator=estimator)(kind(path), POSITION)
    assert table['flux'].unit == u.Jy
    assert table.meta['image_hdu'] == 'PRIMARY (0)'


def test_extension_and_plane_can_be_chosen(estimator, data, tmp_path):
    cube = np.stack([0 * data, data])
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(0 * data), fits.ImageHDU(cube, name='b')])
    hdus.writeto(tmp_path / 'map.fits')
    expected = estimator.estimate(data, POSITION).background
    for image in (hdus, tmp_path / 'map.fits'):
        result = estimator.estimate(image, POSITION, hdu='b', plane=1)
        assert_array_equal(result.background, expected)
    assert_array_equal(estimator.estimate(cube, POSITION, plane=1).background, expected)
    table = InpaintedAperturePhotometry(4, estimator=estimator)(hdus, POSITION, hdu='b', plane=1)
    assert table.meta['plane'] == '1'
    with pytest.raises(TypeError, match='hdu is for files and HDULists, got ndarray'):
        estimator.estimate(data, POSITION, hdu=1)


@pytest.mark.parametrize('unit', [None, u.Jy])
def test_cutout_is_a_map(estimator, data, unit):
    whole = data if unit is None else data * unit
    cutout = Cutout2D(whole, (45, 45), (60, 60), wcs=make_wcs())
    place = cutout.to_cutout_position(POSITION[0])
    result = estimator.estimate(cutout, [place])
    assert_array_equal(result.background, estimator.estimate(cutout.data, [place]).background)
    sky = result.sources['sky_center'][0]
    assert_allclose(make_wcs().world_to_pixel(sky), POSITION[0], atol=1e-6)


def test_local_background_of_a_quantity_is_a_quantity(estimator, data):
    x, y = [40.0, 20.0], [50.0, 30.0]
    found = estimator(data * u.Jy, x, y)
    assert found.unit == u.Jy
    assert_array_equal(found.value, estimator(data, x, y))
    assert estimator(data * u.Jy, 40.0, 50.0).unit == u.Jy
    assert not isinstance(estimator(data, 40.0, 50.0), u.Quantity)
    apertures = CircularAperture(list(zip(x, y, strict=True)), 4)
    stats = ApertureStats(data * u.Jy, apertures, local_bkg=found)
    plain = ApertureStats(data, apertures, local_bkg=found.value)
    assert_allclose(stats.sum.to_value(u.Jy), plain.sum, rtol=1e-12)


def test_background_is_subtracted_from_its_ccddata(estimator, data):
    ccd = CCDData(data, unit='Jy/pix', wcs=make_wcs())
    result = estimator.estimate(ccd, POSITION)
    difference = ccd.subtract(result.to_ccddata())
    assert difference.unit == u.Jy / u.pix
    assert_allclose(difference.data, result.source_image, atol=1e-12)


def test_errors_in_another_unit_are_converted(estimator, data, path, tmp_path):
    ccd = CCDData(data, unit='Jy/pix', wcs=make_wcs())
    sigma = np.full(SHAPE, 0.1)
    fits.writeto(tmp_path / 'error.fits', 1e3 * sigma, fits.Header({'BUNIT': 'mJy/pixel'}))
    photometry = InpaintedAperturePhotometry(4, estimator=estimator)
    expected = photometry(ccd, POSITION, error=sigma)
    for error in (
        1e3 * sigma * u.mJy / u.pix,
        StdDevUncertainty(1e3 * sigma, unit='mJy/pix'),
        CCDData(1e3 * sigma, unit='mJy/pix'),
        tmp_path / 'error.fits',
        100 * u.mJy / u.pix,
    ):
        for image in (ccd, path):
            table = photometry(image, POSITION, error=error)
            assert_allclose(table['flux_err'].value, expected['flux_err'].value, rtol=1e-10)
