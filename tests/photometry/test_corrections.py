"""Tests of the aperture corrections of point sources, and of the PSFs that they are of."""

from dataclasses import replace

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.modeling.models import Moffat2D
from numpy.testing import assert_allclose
from photutils.aperture import CircularAperture, EllipticalAperture
from scipy import optimize

from csr_astro import (
    InpaintedAperturePhotometry,
    InpaintedPSFPhotometry,
    NeuralBackgroundEstimator,
)
from csr_astro.evaluation.standard_stars import find_stars
from csr_astro.images import read_image
from csr_astro.instruments import get_instrument
from csr_astro.simulation.field import tangent_wcs
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import encircled_energy, instrument_profile
from csr_astro.utils.data import read_data

SHAPE = (120, 130)
SOURCES = np.array([(40.3, 60.2), (90.0, 33.4), (47.8, 66.6), (100.2, 90.1)])
BET_AND = SkyCoord('01h09m43.9s', '+35d37m14s')
PACS = {'INSTRUME': 'PACS', 'OBS_MODE': 'Scan map'}
# Radius in arcsec, and published correction without a background from an annulus, for a spectral
# index of -1 (SPIRE calibration tree 11, ColorCorrAperture).
SPIRE = {250: (22, 1.270), 350: (30, 1.224), 500: (42, 1.208)}


@pytest.fixture(scope='module')
def estimator(weights):
    return NeuralBackgroundEstimator(weights, orientations=1, fwhm=3.5)


@pytest.fixture(scope='module')
def ccd():
    """Stars of 50 on a slope."""
    sky = 20 + np.random.default_rng(0).normal(0, 0.1, SHAPE)
    profile = instrument_profile(get_instrument(fwhm=3.5))
    return inject_sources(sky, *SOURCES.T, np.full(len(SOURCES), 50.0), profile)


# Beams


@pytest.mark.parametrize(
    ('correction', 'fraction'),
    # A Gaussian of 3.5 pixels inside 4 pixels.
    [(None, 1 - 0.5 ** ((8 / 3.5) ** 2)), ('gaussian', 1 - 0.5 ** ((8 / 3.5) ** 2)), ('none', 1)],
)
def test_bands_without_a_table_have_the_correction_of_a_gaussian(
    estimator, ccd, correction, fraction
):
    photometry = InpaintedAperturePhotometry(4, estimator=estimator, aperture_correction=correction)
    table = photometry(ccd, SOURCES)
    difference = table['aperture_sum'] - table['background_sum']
    assert_allclose(table['flux'], difference / fraction, rtol=1e-9)
    assert table.meta['aperture_correction'] == (correction or 'gaussian')


def test_shapes_that_are_no_circles_are_not_corrected_by_default(estimator, ccd):
    shapes = [CircularAperture(SOURCES, 4), EllipticalAperture(SOURCES, 5, 3)]
    table = InpaintedAperturePhotometry(shapes, estimator=estimator)(ccd, SOURCES)
    difference = table['aperture_sum_1'] - table['background_sum_1']
    assert_allclose(table['flux_1'], difference, rtol=1e-12)


@pytest.mark.parametrize('given', [None, 'psf'])
def test_given_psf_has_its_own_correction(weights, ccd, given):
    psf = Moffat2D(gamma=3, alpha=2)
    estimator = NeuralBackgroundEstimator(weights, fwhm=3.9, psf=psf, orientations=1)
    photometry = InpaintedAperturePhotometry(4, estimator=estimator, aperture_correction=given)
    table = photometry(ccd, SOURCES, mask_radius=8)
    fraction = 1 - (1 + (4 / 3) ** 2) ** -1
    # Of the PSF on pixels, cut off at 32 pixels.
    whole = 1 - (1 + (32 / 3) ** 2) ** -1
    difference = table['aperture_sum'] - table['background_sum']
    ratio = difference / table['flux']
    assert_allclose(ratio, fraction / whole, rtol=0.02)
    assert table.meta['aperture_correction'] == 'psf'


@pytest.mark.parametrize(
    ('name', 'fwhm', 'radius', 'header', 'unit'),
    [
        ('pacs-scanmap-blue', 5.5 * u.arcsec, 6, PACS | {'WAVELNTH': 70}, 'Jy/pixel'),
        ('pacs-scanmap-red', 3.4, 10, PACS | {'WAVELNTH': 160}, 'Jy/beam'),
        ('spire-250', 18.0 * u.arcsec, 22, {'INSTRUME': 'SPIRE', 'WAVELNTH': 250}, 'Jy/beam'),
        ('spire-500', 2.5, 42, {'INSTRUME': 'SPIRE', 'WAVELNTH': 500}, 'Jy/pixel'),
    ],
)
def test_beam_and_instrument_give_the_same_flux(name, fwhm, radius, header, unit):
    band = get_instrument(name)
    scale = band.pixel_scale
    stars = np.array([(60.3, 55.8), (25.1, 80.2)])
    fields = np.random.default_rng(0).normal(10, 0.02, (120, 110))
    data = inject_sources(fields, *stars.T, np.array([80.0, 40.0]), instrument_profile(band))
    hdu = fits.PrimaryHDU(data, tangent_wcs(data.shape, scale).to_header())
    hdu.header.update(header | {'BUNIT': unit})
    fluxes, fitted = [], []
    for arguments in ({'instrument': name}, {'fwhm': fwhm}, {}):
        estimator = NeuralBackgroundEstimator(orientations=1, **arguments)
        photometry = InpaintedAperturePhotometry(radius * u.arcsec, estimator=estimator)
        table = photometry(hdu, stars)
        assert table.meta['aperture_correction'] == 'eef'
        fluxes.append(table['flux'].value)
        fitted.append(InpaintedPSFPhotometry(estimator=estimator)(hdu, stars)['flux'].value)
    assert_allclose(fluxes, [fluxes[0]] * 3, rtol=0.02)
    assert_allclose(fitted, [fitted[0]] * 3, rtol=0.02)
    if unit == 'Jy/pixel':
        whole = psf_fraction(band)
        assert_allclose(fluxes[0], np.array([80, 40]) / whole, rtol=0.02)
        assert_allclose(fitted[0], np.array([80, 40]) / whole, rtol=0.02)


def psf_fraction(band):
    return read_data('psf_models.toml')[band.psf_model]['energy_within_edge']


def test_beam_of_a_smoothed_map_is_a_gaussian(weights):
    header = fits.Header({'INSTRUME': 'SPIRE', 'WAVELNTH': 250, 'BUNIT': 'MJy/sr'})
    hdu = fits.PrimaryHDU(np.random.default_rng(0).normal(1, 0.1, (90, 90)), header)
    hdu.header.update(tangent_wcs((90, 90), 6.0).to_header())
    estimator = NeuralBackgroundEstimator(weights, fwhm=36.3 * u.arcsec, orientations=1)
    table = InpaintedAperturePhotometry(40 * u.arcsec, estimator=estimator)(hdu, [(45, 45)])
    assert table.meta['aperture_correction'] == 'gaussian'


# SPIRE


@pytest.mark.parametrize('band', SPIRE)
def test_enclosed_energy_of_spire_is_that_published(band):
    instrument, (radius, correction) = get_instrument(f'spire-{band}'), SPIRE[band]
    fraction = instrument.enclosed_energy(radius / instrument.pixel_scale)
    # The beam maps have pixels of 1 arcsec; those of the standard maps blur it.
    assert 0.985 < fraction * correction < 1.001
    stamp = encircled_energy(instrument_profile(instrument), radius / instrument.pixel_scale)
    assert stamp * psf_fraction(instrument) == pytest.approx(fraction, rel=5e-3)


@pytest.mark.parametrize(
    ('band', 'expected', 'tolerance'),
    [
        pytest.param(
            250, 420, 0.03, marks=pytest.mark.xfail(strict=True, reason='3.3 % low, not 3 %')
        ),
        (350, 215, 0.05),
    ],
)
def test_flux_of_beta_andromedae_is_that_of_the_handbook(real_data, band, expected, tolerance):
    """As published: a sum less a background from an annulus, times the correction for it."""
    (path,) = (real_data / 'real_sources').glob(f'bet_and*spire{band}.fits')
    image, _ = read_image(path)
    estimator = NeuralBackgroundEstimator(instrument=f'spire-{band}')
    fit = InpaintedPSFPhotometry(estimator=estimator, position_error=0.5)(image, BET_AND)[0]
    photometry = InpaintedAperturePhotometry(
        SPIRE[band][0] * u.arcsec, estimator=estimator, annulus='instrument'
    )
    table = photometry(image, [(fit['x_fit'], fit['y_fit'])])
    for name in ('flux', 'annulus_flux'):
        assert table[name][0].to_value('mJy') == pytest.approx(expected, rel=tolerance)
    # The confusion noise of the map is 4 % in the aperture, and that of the fit 2 %.
    difference = (fit['flux'] - table['flux'][0]).to_value('mJy')
    error = np.hypot(fit['flux_err'], table['flux_err'][0]).to_value('mJy')
    assert abs(difference) < 2.5 * error


def test_fit_and_aperture_agree_on_sources_in_a_map_of_spire(real_data):
    """Sources of 430 mJy in the map of beta Andromedae, at 20 places."""
    (path,) = (real_data / 'real_sources').glob('bet_and*spire250.fits')
    image, _ = read_image(path)
    estimator = NeuralBackgroundEstimator(instrument='spire-250', orientations=1)
    profile = instrument_profile(get_instrument('spire-250').on_pixels(image.pixel_scale))
    x, y = (a.ravel() for a in np.meshgrid(np.linspace(60, 150, 5), np.linspace(55, 150, 4)))
    away = np.hypot(x - 98, y - 102) > 12
    x, y = x[away], y[away]
    per_pixel = 1e-9 / image.pixel_area.to_value(u.sr)
    data = inject_sources(
        np.array(image.data, dtype=float), x, y, np.full(len(x), 430 * per_pixel), profile
    )
    injected = fits.PrimaryHDU(data, image.wcs.to_header())
    injected.header['BUNIT'] = 'MJy/sr'
    places = np.column_stack([x, y])
    fit = InpaintedPSFPhotometry(estimator=estimator)(injected, places)['flux']
    table = InpaintedAperturePhotometry(22 * u.arcsec, estimator=estimator)(injected, places)
    fluxes = [np.median(each.to_value('mJy')) for each in (fit, table['flux'])]
    whole = 430 / psf_fraction(get_instrument('spire-250'))
    assert_allclose(fluxes, whole, rtol=0.03)
    assert fluxes[0] == pytest.approx(fluxes[1], rel=0.02)


# PACS


@pytest.mark.parametrize('band', ['blue', 'green', 'R_1757_p5129_00_v1.0_1470967309470'])
def test_psf_of_pacs_has_the_position_angle_of_the_map(real_data, band):
    """Turned by the header, the PSF leaves half the residual on gamma Draconis."""
    (path,) = (real_data / 'pacs_gamma_dra').glob(f'*{band}*')
    image, header = read_image(path)
    star = find_stars(image)['sky_center'][0]
    assert 80 < header['POSANGLE'] < 95
    x, y = map(float, image.wcs.world_to_pixel(star))
    x0, y0 = round(x), round(y)
    half = 8
    window = np.array(image.data[y0 - half : y0 + half + 1, x0 - half : x0 + half + 1], float)
    estimator = NeuralBackgroundEstimator().for_image(image)
    residuals = []
    for angle in (0, 60):
        instrument = estimator.instrument
        turned = replace(instrument, psf_angle=instrument.psf_angle + angle)
        psf = estimator.replace(instrument=turned).pixel_psf(image.pixel_scale)
        dx, dy = np.arange(x0 - half, x0 + half + 1), np.arange(y0 - half, y0 + half + 1)

        def model(p, psf=psf, dx=dx, dy=dy):
            return p[0] * psf.evaluate(dx - p[1], dy - p[2]) + p[3]

        fit = optimize.least_squares(
            lambda p, model=model: (model(p) - window).ravel(), [window.sum(), x, y, 0]
        )
        residuals.append(fit.cost)
    # The lobes are 120 degrees apart, so that a turn by 60 degrees is the worst.
    assert residuals[0] < 0.4 * residuals[1]
