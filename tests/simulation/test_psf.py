"""PSFs of any kind, rendered on pixels."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.modeling.models import Const1D, Gaussian2D, Moffat2D
from numpy.testing import assert_allclose
from photutils.aperture import CircularAperture
from photutils.psf import CircularGaussianPRF, ImagePSF
from scipy import ndimage

from csr_astro.simulation.field import tangent_wcs
from csr_astro.simulation.psf import (
    gaussian_profile,
    moffat_profile,
    psf_profile,
    psf_stamp,
)


def centroid(image):
    rows, columns = np.indices(image.shape)
    return (columns * image).sum() / image.sum(), (rows * image).sum() / image.sum()


def test_astropy_model_keeps_its_shape_and_loses_its_place():
    model = Gaussian2D(7, x_mean=30, y_mean=-4, x_stddev=2.5, y_stddev=1.5, theta=0.4)
    stamp = psf_stamp(psf_profile(model), 41, offset=(0.3, -0.2))
    assert_allclose(centroid(stamp), [20.3, 19.8], atol=1e-3)
    moved = Gaussian2D(1, 20.3, 19.8, 2.5, 1.5, 0.4)
    y, x = np.indices(stamp.shape)
    fine = sum(
        moved(x + dx, y + dy) for dx in (-1 / 3, 0, 1 / 3) for dy in (-1 / 3, 0, 1 / 3)
    )  # fmt: skip
    assert_allclose(stamp, fine / fine.sum(), atol=1e-9)
    assert psf_profile(Moffat2D(gamma=3, alpha=2))(0.0, 3.0) == pytest.approx(0.25)


def test_photutils_model_is_not_averaged_over_pixels_twice():
    model = CircularGaussianPRF(fwhm=2.2)
    stamp = psf_stamp(psf_profile(model), 31, offset=(0.31, -0.4))
    y, x = np.indices(stamp.shape)
    assert_allclose(stamp, CircularGaussianPRF(x_0=15.31, y_0=14.6, fwhm=2.2)(x, y), atol=1e-9)


@pytest.mark.parametrize('oversampling', [1, 2])
def test_photutils_image_keeps_its_flux(oversampling):
    n = 20 * oversampling + 1
    y, x = (np.indices((n, n)) - n // 2) / oversampling
    model = ImagePSF(CircularGaussianPRF(fwhm=3)(x, y), oversampling=oversampling)
    stamp = psf_stamp(psf_profile(model), offset=(0.25, 0.4))
    assert stamp.sum() == pytest.approx(1, rel=1e-9)
    y, x = np.indices(stamp.shape) - len(stamp) // 2
    assert_allclose(stamp, CircularGaussianPRF(x_0=0.25, y_0=0.4, fwhm=3)(x, y), atol=6e-4)


@pytest.mark.parametrize('shape', [(31, 31), (30, 32)])
def test_image_of_a_psf_is_centred_on_its_peak(shape):
    y, x = np.indices(shape)
    image = CircularGaussianPRF(x_0=shape[1] / 2 - 0.5, y_0=shape[0] / 2 - 0.3, fwhm=4)(x, y)
    stamp = psf_stamp(psf_profile(image), offset=(0.2, 0.1))
    assert_allclose(np.array(centroid(stamp)) - len(stamp) // 2, [0.2, 0.1], atol=0.01)


@pytest.mark.parametrize('pixel_scale', [0.6, 1.2, 1.6, 3.2])
def test_fits_psf_encloses_its_energy_on_other_pixels(shared_data, pixel_scale):
    path = shared_data / 'data' / 'psf' / 'pacs100_vesta.fits'
    image = fits.getdata(path).astype(float)
    profile = psf_profile(str(path), pixel_scale)
    for offset in ((0, 0), (0.5, 0.5), (-0.3, 0.2)):
        stamp = psf_stamp(profile, offset=offset)
        assert stamp.sum() == pytest.approx(1, rel=1e-12)
        center = (len(stamp) - 1) / 2 + np.array(offset)
        # In circles with most of the light, the pixels no longer matter.
        for radius in (13, 17):
            found = CircularAperture(center, radius / pixel_scale).do_photometry(stamp)[0][0]
            expected = CircularAperture((16, 16), radius / 1.2).do_photometry(image)[0][0]
            assert found == pytest.approx(expected, rel=0.01)


def test_pixel_scale_of_a_psf_is_found(tmp_path, shared_data):
    image, header = fits.getdata(shared_data / 'data' / 'psf' / 'pacs70_vesta.fits', header=True)
    by_key = psf_profile(fits.PrimaryHDU(image, header), 2.4)
    wcs = tangent_wcs(image.shape, 1.2)
    fits.ImageHDU(image, wcs.to_header()).writeto(tmp_path / 'psf.fits')
    assert psf_profile(tmp_path / 'psf.fits', 2.4).pixel == pytest.approx(0.5, rel=1e-6)
    given = psf_profile(image, 2.4, psf_scale=1.2)
    assert by_key.pixel == given.pixel == 0.5
    assert by_key(1.3, 0.4) == given(1.3, 0.4)
    # Without scales, pixels are the same.
    assert psf_profile(image).pixel == 1


@pytest.mark.parametrize(
    ('psf', 'error', 'sentence'),
    [
        (3.0, TypeError, 'psf must be a profile, FITS file'),
        (np.zeros((9, 9)), ValueError, 'must have a positive sum'),
        (np.ones((2, 2)), ValueError, 'at least 3 x 3 pixels'),
        (np.ones((5, 5, 5)), ValueError, 'at least 3 x 3 pixels'),
        (np.arange(25.0).reshape(5, 5), ValueError, 'must have its peak inside'),
        ('nothing.fits', ValueError, 'no such file'),
        (Const1D(1), ValueError, 'must be a function of x and y'),
    ],
)
def test_impossible_psfs_are_refused(psf, error, sentence):
    with pytest.raises(error, match=sentence):
        psf_profile(psf)


@pytest.mark.parametrize('size', [0, -1, 20])
def test_stamps_have_a_middle(size):
    with pytest.raises(ValueError, match='size must be a positive odd number'):
        psf_stamp(gaussian_profile(3), size)


@pytest.mark.parametrize('offset', [(0, 0), (0.4, -0.3), (-3.25, 1.5)])
@pytest.mark.parametrize('angle', [0, 1.0])
def test_stamp_has_unit_sum_and_its_centroid(offset, angle):
    stamp = psf_stamp(moffat_profile(4, 4.5), 61, offset=offset, angle=angle, elongation=1.2)
    assert stamp.shape == (61, 61)
    assert stamp.sum() == pytest.approx(1, abs=1e-12)
    y, x = np.array(ndimage.center_of_mass(stamp)) - 30
    assert_allclose([x, y], offset, atol=1e-2)


@pytest.mark.parametrize('angle', [0, 0.6, -1.2])
def test_stamp_is_stretched_along_its_angle(angle):
    def gaussian(dx, dy):
        return np.exp(-(dx**2 + dy**2) / (2 * 3**2))

    stamp = psf_stamp(gaussian, 61, angle=angle, elongation=1.5)
    y, x = np.indices(stamp.shape) - 30
    xx, xy, yy = ((stamp * a * b).sum() for a, b in ((x, x), (x, y), (y, y)))
    assert 0.5 * np.arctan2(2 * xy, xx - yy) == pytest.approx(angle, abs=1e-3)
    small, large = np.sqrt(np.linalg.eigvalsh([[xx, xy], [xy, yy]]))
    assert large / small == pytest.approx(1.5, rel=0.01)
