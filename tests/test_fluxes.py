"""Tests of fluxes in Jy, whatever the unit of the map."""

import re

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty
from astropy.table import QTable, Table
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from helpers_formats import DOORS, EXCEPTIONS, UNITS
from helpers_removal import make_wcs
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator
from csr_astro.cli import main
from csr_astro.fluxes import image_flux_scale, parse_beam, parse_flux_unit
from csr_astro.images import parse_image
from csr_astro.instruments import get_instrument
from csr_astro.units import flux_scale, is_logarithmic, parse_unit

POSITION = [(60.2, 49.8)]
FWHM = 3.3
WCS_ = make_wcs(1.6)


def one_jansky(shape=(100, 110)):
    """A source of 1 Jy on a flat background, in Jy/pixel."""
    yy, xx = np.indices(shape)
    (x, y), beam = POSITION[0], 4 * np.log(2) / FWHM**2
    star = beam / np.pi * np.exp(-beam * ((xx - x) ** 2 + (yy - y) ** 2))
    return star + np.random.default_rng(0).normal(1e-3, 1e-5, shape)


@pytest.fixture(scope='module')
def estimator():
    return NeuralBackgroundEstimator(fwhm=FWHM, orientations=1)


# 1 Jy is 1 Jy


@pytest.mark.parametrize('name', UNITS)
def test_one_jansky_is_one_jansky_in_all_units(estimator, name):
    unit, per_pixel, keywords = UNITS[name]
    hdu = fits.PrimaryHDU(one_jansky() * per_pixel, WCS_.to_header())
    hdu.header['BUNIT'] = unit
    hdu.header.update(keywords)
    table = InpaintedAperturePhotometry(7, estimator=estimator)(hdu, POSITION)
    assert table['flux'].unit == (u.mJy if name == 'mJy/pixel' else u.Jy)
    assert table['flux'][0].to_value(u.Jy) == pytest.approx(1, abs=5e-3)
    assert table['aperture_sum'].unit == parse_unit(unit)
    total = table['aperture_sum'][0].value - table['background_sum'][0].value
    fraction = get_instrument(fwhm=FWHM).enclosed_energy(7)
    assert table['flux'][0].value == pytest.approx(
        total * table.meta['flux_per_sum'] / fraction, rel=1e-9
    )


@pytest.mark.parametrize(
    ('beam', 'area'),
    [
        (10 * u.arcsec, 113.309),
        ([20, 5] * u.arcsec, 113.309),
        ((20 * u.arcsec, 5 * u.arcsec), 113.309),
        (113.309 * u.arcsec**2, 113.309),
    ],
)
def test_beam_can_be_given(estimator, beam, area):
    assert parse_beam(beam).to_value(u.arcsec**2) == pytest.approx(area, rel=1e-5)
    data = one_jansky() * area / 1.6**2 * u.Jy / u.beam
    photometry = InpaintedAperturePhotometry(7, estimator=estimator, beam=beam)
    flux = photometry(parse_image(data, wcs=WCS_), POSITION)['flux'][0]
    assert flux.to_value(u.Jy) == pytest.approx(1, abs=5e-3)


def test_beam_of_the_instrument_is_the_last_resort():
    image = parse_image(np.zeros((20, 30)) * u.Jy / u.beam, wcs=make_wcs(6.0))
    instrument = get_instrument('spire-250').on_pixels(6.0)
    # SPIRE Handbook: 469.35 square arcsec, 25 % more than a Gaussian of the same FWHM.
    assert image_flux_scale(image, instrument).factor == pytest.approx(36 / 469.35, rel=1e-4)
    hdu = fits.ImageHDU(np.zeros((20, 30)), make_wcs(6.0).to_header())
    hdu.header.update({'BUNIT': 'Jy/beam', 'BMAJ': 20 / 3600, 'BMIN': 10 / 3600})
    scale = image_flux_scale(parse_image(hdu), instrument)
    assert scale.factor == pytest.approx(36 / 226.618, rel=1e-5)


def test_skewed_pixels_have_their_own_area():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.cd = np.array([[-2, 1], [0, 2]]) / 3600
    with pytest.warns(AstropyUserWarning, match='not on the sky'):
        image = parse_image(np.zeros((20, 30)) * u.MJy / u.sr, wcs=wcs)
    expected = (4 * u.arcsec**2).to_value(u.sr) * 1e6
    assert image_flux_scale(image).factor == pytest.approx(expected, rel=1e-9)


def test_line_fluxes_are_fluxes():
    scale = flux_scale(u.W / u.m**2 / u.sr, pixel_area=4 * u.sr)
    assert (scale.factor, scale.unit, scale.missing) == (4, u.W / u.m**2, '')


@pytest.mark.parametrize('door', DOORS)
@pytest.mark.parametrize('name', UNITS)
def test_every_kind_of_image_has_its_flux_in_all_units(tmp_path, estimator, name, door):
    remark = EXCEPTIONS.get((name, door), '')
    if remark.startswith('no'):
        pytest.skip(remark)
    unit, per_pixel, keywords = UNITS[name]
    hdu = fits.PrimaryHDU(one_jansky() * per_pixel, WCS_.to_header())
    hdu.header.update({'BUNIT': unit, **keywords})
    hdu.writeto(tmp_path / 'map.fits')
    beam = [5, 4] * u.arcsec if 'beam' in remark else None
    photometry = InpaintedAperturePhotometry(7, estimator=estimator, beam=beam)
    with DOORS[door](tmp_path / 'map.fits') as image:
        flux = photometry(image, POSITION)['flux'][0]
    assert flux.to_value(u.Jy) == pytest.approx(1, abs=5e-3)


# Units of fluxes


def test_unit_of_fluxes_can_be_chosen(estimator):
    data = one_jansky() * u.Jy / u.pix
    for unit, value in (('mJy', 1e3), (u.uJy, 1e6), ('map', 1)):
        table = InpaintedAperturePhotometry(7, estimator=estimator, flux_unit=unit)(data, POSITION)
        assert table['flux'].unit == (u.Jy if unit == 'map' else u.Unit(unit))
        assert table['flux'][0].value == pytest.approx(value, rel=5e-3)


def test_plain_sums_can_be_asked_for_without_a_warning(estimator):
    photometry = InpaintedAperturePhotometry(7, estimator=estimator, flux_unit='map')
    table = photometry(CCDData(one_jansky(), unit='adu'), POSITION)
    assert table['flux'].unit == u.adu


@pytest.mark.parametrize('unit', ['MJy/sr', 'Jy/beam', 'nonsense', 'adu', 'mag'])
def test_unit_that_is_no_flux_is_refused(unit):
    with pytest.raises(ValueError, match=r'flux_unit must be|logarithmic'):
        parse_flux_unit(unit)


def test_fluxes_that_cannot_be_in_a_unit_are_refused(estimator):
    photometry = InpaintedAperturePhotometry(7, estimator=estimator, flux_unit='mJy')
    with pytest.raises(ValueError, match='fluxes cannot be in mJy: adu is not calibrated'):
        photometry(CCDData(one_jansky(), unit='adu'), POSITION)


# What is missing is said


@pytest.mark.parametrize(
    ('unit', 'sentence'),
    [
        ('adu', 'adu is not calibrated in flux; calibrate the map'),
        ('electron/s', 'is not calibrated in flux'),
        ('MJy/sr', 'needs a WCS, .* give wcs='),
        ('K', 'needs a frequency'),
    ],
)
def test_one_warning_says_what_is_missing(estimator, unit, sentence):
    photometry = InpaintedAperturePhotometry([5, 7], estimator=estimator)
    with pytest.warns(AstropyUserWarning, match=f'plain sums.*{sentence}') as caught:
        table = photometry(CCDData(one_jansky(), unit=unit), POSITION)
    assert len(caught) == 1
    assert table['flux_1'].unit == u.Unit(unit)


def test_map_without_a_unit_gives_plain_numbers(estimator, tmp_path, capsys):
    fits.writeto(tmp_path / 'map.fits', one_jansky())
    photometry = InpaintedAperturePhotometry(7, estimator=estimator)
    for data in (one_jansky(), tmp_path / 'map.fits'):
        assert photometry(data, POSITION)['flux'][0] == pytest.approx(1, abs=5e-3)
    assert main(['photometry', str(tmp_path / 'map.fits'), '--pixel', '60.2', '49.8', '--apertures',
                 '7', '--fwhm', '3.3', '--orientations', '1']) == 0  # fmt: skip
    assert 'sums of pixels of a map without unit (--unit gives one)' in capsys.readouterr().out


@pytest.mark.parametrize('unit', [u.mag, u.dex, u.dB, u.mag / u.arcsec**2])
def test_logarithmic_units_are_refused(estimator, unit):
    assert is_logarithmic(unit)
    with pytest.raises(ValueError, match='which is logarithmic, so that sums of its pixels mean'):
        InpaintedAperturePhotometry(7, estimator=estimator)(one_jansky() * unit, POSITION)


@pytest.mark.parametrize('beam', [5, 5 * u.Jy, [1, 2, 3] * u.arcsec, 'wide'])
def test_wrong_beam_is_refused(estimator, beam):
    with pytest.raises(TypeError, match='beam must be the FWHM as an angle'):
        InpaintedAperturePhotometry(7, estimator=estimator, beam=beam)
    with pytest.raises(ValueError, match='beam must be positive'):
        InpaintedAperturePhotometry(7, estimator=estimator, beam=0 * u.arcsec)


# The shell


def test_units_survive_in_csv(tmp_path, capsys):
    hdu = fits.PrimaryHDU(one_jansky(), WCS_.to_header())
    hdu.header['BUNIT'] = 'Jy/pixel'
    hdu.writeto(tmp_path / 'map.fits')
    arguments = ['photometry', str(tmp_path / 'map.fits'), '--pixel', '60.2', '49.8',
                 '--apertures', '7', '--fwhm', '3.3', '--orientations', '1']  # fmt: skip
    assert main([*arguments, '-o', str(tmp_path / 'out.csv')]) == 0
    assert Table.read(tmp_path / 'out.csv')['flux [Jy]'][0] == pytest.approx(1, abs=5e-3)
    assert main([*arguments, '-o', str(tmp_path / 'out.ecsv'), '--flux-unit', 'mJy']) == 0
    table = QTable.read(tmp_path / 'out.ecsv')
    assert table['flux'].unit == u.mJy
    assert table['flux'][0].value == pytest.approx(1e3, abs=5)
    beam = ['--unit', 'mJy/beam', '--beam', '10arcsec,5arcsec']
    assert main([*arguments, '-o', str(tmp_path / 'beam.ecsv'), *beam]) == 0
    expected = 1e-3 * 1.6**2 / (np.pi / 4 / np.log(2) * 50)
    flux = QTable.read(tmp_path / 'beam.ecsv')['flux'][0].to_value(u.Jy)
    assert flux == pytest.approx(expected, rel=5e-3)
    capsys.readouterr()


# Every door


def test_every_door_gives_the_same_fluxes(estimator, tmp_path, capsys):
    """A map of CCDData with a mask and variances, by every way in."""
    data = one_jansky()
    mask = np.zeros(data.shape, dtype=bool)
    mask[52:54, 62:64] = True
    data[mask] = 1e3
    sigma = np.random.default_rng(1).uniform(1e-5, 2e-5, data.shape)
    ccd = CCDData(
        data, unit='Jy/pix', wcs=WCS_, mask=mask, uncertainty=VarianceUncertainty(sigma**2)
    )
    path = tmp_path / 'map.fits'
    ccd.write(path)
    photometry = InpaintedAperturePhotometry(7, estimator=estimator)
    expected = photometry(ccd, POSITION)
    assert expected['flux'][0].value == pytest.approx(1, abs=0.1)
    for door, opened in DOORS.items():
        with opened(path) as image:
            table = photometry(image, POSITION)
        for name in ('flux', 'flux_err', 'aperture_sum', 'aperture_sum_err', 'background_sum'):
            assert_allclose(
                table[name].value, expected[name].value, rtol=1e-10, err_msg=f'{door} {name}'
            )
        assert_array_equal(table['flags'], expected['flags'])
    arguments = ['photometry', str(path), '--pixel', '60.2', '49.8', '--apertures', '7', '--fwhm',
                 '3.3', '--orientations', '1', '-o', str(tmp_path / 'out.ecsv')]  # fmt: skip
    assert main(arguments) == 0
    table = QTable.read(tmp_path / 'out.ecsv')
    for name in ('flux', 'flux_err'):
        assert_allclose(table[name].value, expected[name].value, rtol=1e-10)
    words = re.search('read: (.*)', capsys.readouterr().out).group(1)
    assert words == 'image PRIMARY (0), error UNCERT (2, variance), mask MASK (1, not 0 is bad)'
    assert table.meta['error_hdu'] == 'UNCERT (2, variance)'


# Units and beams as people write them


BEAM = {'BMAJ': 5 / 3600, 'BMIN': 4 / 3600}
CARDS = fits.Header()
CARDS['BMAJ'], CARDS['BMIN'] = (5.0, '[arcsec] major axis'), (4.0, '[arcsec]')
HISTORY = fits.Header()
HISTORY['HISTORY'] = 'AIPS   CLEAN BMAJ=  1.3889E-03 BMIN=  1.1111E-03 BPA=   0.00'


@pytest.mark.parametrize(
    ('text', 'like', 'header'),
    [
        ('10.0*nanoJansky', '10 nJy', {}),
        ('MJY/STER', 'MJy/sr', {}),
        ('MegaJansky/steradian', 'MJy/sr', {}),
        ('mJy/sq. arcsec', 'mJy/arcsec2', {}),
        ('mJy per beam', 'mJy/beam', BEAM),
        ('Jy/beam', 'Jy/beam', CARDS),
        ('Jy/beam', 'Jy/beam', HISTORY),
        ('nanomaggies', 'nmgy', {}),
        ('K_RJ', 'K', {'RESTFRQ': 230e9}),
    ],
)
def test_units_and_beams_in_other_words_are_understood(text, like, header):
    known = dict(BEAM) if 'beam' in like else dict(header)
    scales = []
    for unit, cards in ((text, header), (like, known)):
        hdu = fits.PrimaryHDU(one_jansky(), WCS_.to_header())
        hdu.header.update(cards)
        hdu.header['BUNIT'] = unit
        image = parse_image(hdu)
        assert image.unit == u.Unit(like)
        scales.append(image_flux_scale(image, get_instrument(fwhm=FWHM)))
    assert scales[0].unit == u.Jy
    assert scales[0].factor == pytest.approx(scales[1].factor, rel=1e-4)


@pytest.mark.parametrize('text', ['Jy/beam km/s', 'Jy/beam.km/s'])
def test_integrated_map_is_per_beam_and_not_per_velocity(text):
    assert parse_unit(text) == u.Jy * u.km / u.s / u.beam


def test_flux_of_a_map_in_tens_of_nanojansky_is_in_jansky(estimator):
    hdu = fits.PrimaryHDU(1e8 * one_jansky(), WCS_.to_header())
    hdu.header['BUNIT'] = '10.0*nanoJansky'
    flux = InpaintedAperturePhotometry(7, estimator=estimator)(hdu, POSITION)['flux'][0]
    assert flux.unit == u.Jy
    assert flux.value == pytest.approx(1, abs=5e-3)


def test_beam_in_arcsec_where_degrees_are_meant_is_refused(estimator):
    hdu = fits.PrimaryHDU(one_jansky(), WCS_.to_header())
    hdu.header.update({'BUNIT': 'Jy/beam', 'BMAJ': 5.0, 'BMIN': 4.0})
    with pytest.raises(ValueError, match='is BMAJ of the header in arcsec, not in degrees'):
        InpaintedAperturePhotometry(7, estimator=estimator)(hdu, POSITION)


def test_pixels_far_from_the_reference_have_their_own_area():
    """A plate carree map at a declination of 60 degrees, where 1 deg of RA is half as long."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---CAR', 'DEC--CAR'
    wcs.wcs.cdelt, wcs.wcs.crpix = (-0.001, 0.001), (50, -59950)
    with pytest.warns(AstropyUserWarning, match=r'pixels of the map are 1\.8 x 3\.6 arcsec'):
        image = parse_image(np.zeros((100, 100)) * u.MJy / u.sr, wcs=wcs)
    expected = (0.5 * 3.6**2 * u.arcsec**2).to_value(u.sr) * 1e6
    assert image_flux_scale(image).factor == pytest.approx(expected, rel=2e-3)


def test_area_of_the_pixels_is_in_the_header_of_a_map_without_wcs():
    hdu = fits.PrimaryHDU(np.zeros((20, 30)), fits.Header({'BUNIT': 'MJy/sr', 'PIXAR_SR': 1e-13}))
    assert image_flux_scale(parse_image(hdu)).factor == pytest.approx(1e-7)
