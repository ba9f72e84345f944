"""Formulas and images as profiles."""

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from numpy.testing import assert_allclose

from csr_astro.simulation.psf import (
    gaussian_profile,
    image_profile,
    moffat_profile,
    psf_stamp,
)


@pytest.mark.parametrize('fwhm', [2.0, 3.5, 11.0])
def test_gaussian_profile_has_its_width(fwhm):
    profile = gaussian_profile(fwhm)
    angles = np.linspace(0, 2 * np.pi, 9)
    half = profile(fwhm / 2 * np.cos(angles), fwhm / 2 * np.sin(angles))
    assert_allclose(half, 0.5 * profile(0, 0), rtol=1e-12)
    # The second moment along one axis is FWHM² / (8 ln 2); a pixel adds 1/12.
    stamp = psf_stamp(profile, 121)
    x = np.arange(121) - 60
    expected = fwhm**2 / (8 * np.log(2)) + 1 / 12
    assert (stamp.sum(axis=0) * x**2).sum() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize('fwhm', [0, -3.5, np.nan, 3.5 * u.arcsec])
def test_widths_of_profiles_are_positive_pixels(fwhm):
    for make in (gaussian_profile, lambda fwhm: moffat_profile(fwhm, 2.5)):
        with pytest.raises(ValueError, match='fwhm must be a positive number'):
            make(fwhm)


@pytest.mark.parametrize(
    ('band', 'fwhm', 'pixel_scale'), [(70, 5.6, 1.6), (100, 6.8, 1.6), (160, 11.3, 3.2)]
)
def test_image_profile_of_a_real_psf_has_the_known_width(shared_data, band, fwhm, pixel_scale):
    """The PACS Observer's Manual's beams, from the area above half the peak."""
    path = shared_data / 'data' / 'psf' / f'pacs{band}_vesta.fits'
    image, header = fits.getdata(path, header=True)
    profile = image_profile(image, scale=header['PIXARCS'] / pixel_scale)
    steps = np.linspace(-15, 15, 601) / pixel_scale
    values = profile(*np.meshgrid(steps, steps))
    area = (values > values.max() / 2).sum() * 0.05**2
    assert np.sqrt(4 * area / np.pi) == pytest.approx(fwhm, rel=0.15)


@pytest.mark.parametrize('fwhm', [2.0, 5.5])
@pytest.mark.parametrize('beta', [1.5, 4])
def test_moffat_profile_has_its_width(fwhm, beta):
    profile = moffat_profile(fwhm, beta)
    angles = np.linspace(0, 2 * np.pi, 9)
    half = profile(fwhm / 2 * np.cos(angles), fwhm / 2 * np.sin(angles))
    assert_allclose(half, 0.5 * profile(0, 0), rtol=1e-12)
    # Far out it falls as r^(-2 beta).
    assert profile(2e6, 0) / profile(1e6, 0) == pytest.approx(4**-beta, rel=1e-6)


@pytest.fixture(scope='module')
def psf_image():
    """A PSF without symmetry."""
    y, x = np.indices((41, 41)) - 20
    return np.exp(-((x - 0.7 * y) ** 2 + y**2) / 60) + 0.3 * np.exp(-((x - 3) ** 2 + y**2) / 8)


def test_image_profile_reproduces_its_image(psf_image):
    y, x = np.indices(psf_image.shape) - 20
    core = np.hypot(x, y) <= 16
    profile = image_profile(psf_image)
    assert_allclose(profile(x[core], y[core]), psf_image[core], atol=1e-12)


def test_image_profile_scales_offsets(psf_image):
    """An image of 1.2" pixels on a map of 3.2" pixels: its pixel 8 is the map's pixel 3."""
    profile = image_profile(psf_image, scale=1.2 / 3.2)
    dx, dy = np.array([3, 0]), np.array([0, -1.5])
    assert_allclose(profile(dx, dy), [psf_image[20, 28], psf_image[16, 20]], atol=1e-12)


@pytest.mark.parametrize('wing', [2.5, 3.5])
def test_image_profile_continues_as_a_power_law(psf_image, wing):
    profile = image_profile(psf_image, wing=wing)
    y, x = np.indices(psf_image.shape) - 20
    mean = psf_image[np.abs(np.hypot(x, y) - 19) < 1].mean()
    dx, dy = np.array([19, 0, 38]), np.array([0, -38, 0])
    assert_allclose(profile(dx, dy), mean * np.array([1, 2**-wing, 2**-wing]), rtol=1e-12)


def test_image_profile_renders_like_its_image():
    """A PSF that was rendered, read as an image and rendered again, is only a little wider."""
    image = psf_stamp(moffat_profile(6, 2.5), 61)
    again = psf_stamp(image_profile(image), 61)
    assert abs(again - image).max() < 0.03 * image.max()
