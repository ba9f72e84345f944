from itertools import pairwise

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.modeling.models import Const1D, Gaussian2D, Moffat2D
from astropy.nddata import CCDData
from astropy.table import QTable, Table
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import CircularAperture
from photutils.psf import CircularGaussianPRF, ImagePSF
from scipy import stats
from scipy.spatial.distance import pdist

from csr_astro.images import parse_image, read_image
from csr_astro.instruments import get_instrument
from csr_astro.simulation.diffuse import (
    correlated_noise,
    coverage_mask,
    diffuse_field,
    faint_sources,
    filament_field,
    gradient_field,
    lognormal_field,
    matched_field,
    power_law_field,
    power_spectrum,
    striped_noise,
    white_noise,
)
from csr_astro.simulation.field import FIELDS, synthetic_map, tangent_wcs
from csr_astro.simulation.inject import inject_sources, random_positions
from csr_astro.simulation.psf import (
    encircled_energy,
    gaussian_profile,
    image_profile,
    instrument_profile,
    moffat_profile,
    pacs_profile,
    psf_profile,
    psf_stamp,
    smeared_profile,
)
from csr_astro.simulation.simulate import (
    flux_levels,
    flux_range,
    map_units_per_millijansky,
    simulate_levels,
    simulate_map,
)
from csr_astro.sources import parse_sources

SHAPE = (120, 150)
PROFILES = {
    'Gaussian': gaussian_profile(3.5),
    'narrow Gaussian': gaussian_profile(1.2),
    'Moffat': moffat_profile(4, 2),
}


def centroid(image):
    rows, columns = np.indices(image.shape)
    return (columns * image).sum() / image.sum(), (rows * image).sum() / image.sum()


# Profiles (those of Moffat and of images are in test_training.py)


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


# Sources


@pytest.mark.parametrize('name', PROFILES)
@pytest.mark.parametrize(('x', 'y'), [(70, 60), (70.5, 60.5), (69.77, 60.31)])
def test_injected_flux_is_where_and_what_it_should_be(name, x, y):
    image = inject_sources(np.zeros(SHAPE), [x], [y], [250.0], PROFILES[name])
    assert image.sum() == pytest.approx(250, rel=1e-4)
    assert_allclose(centroid(image), [x, y], atol=0.03)
    if abs(x % 1 - 0.5) > 0.1:
        assert np.unravel_index(image.argmax(), SHAPE) == (round(y), round(x))


def test_sources_add_to_a_copy_of_the_map():
    background = np.random.default_rng(0).normal(size=SHAPE).astype('>f4')
    original = background.copy()
    x, y, flux = [50, 52.3, 90.1], [40.7, 41, 88], [10, -3, 1e4]
    injected = inject_sources(background, x, y, flux, PROFILES['Gaussian'])
    assert_array_equal(background, original)
    assert injected.dtype == np.float64
    alone = [
        inject_sources(np.zeros(SHAPE), [x[i]], [y[i]], [flux[i]], PROFILES['Gaussian'])
        for i in range(3)
    ]
    assert_allclose(injected - original, sum(alone), atol=1e-9)
    assert (injected - original).sum() == pytest.approx(10_007, rel=1e-4)


@pytest.mark.parametrize(
    ('arguments', 'error', 'sentence'),
    [
        ((np.zeros(SHAPE) * u.Jy, [4], [5], [6] * u.mJy), TypeError, 'simulate_map takes maps'),
        ((np.zeros(SHAPE), [4], [5], [6] * u.mJy), TypeError, 'must be plain numbers'),
        ((np.zeros(SHAPE), [4, 3], [5], [6]), ValueError, 'equally many, got 2, 1 and 1'),
        ((np.zeros(SHAPE), [4], [np.nan], [6]), ValueError, 'must be finite'),
    ],
)
def test_sources_that_cannot_be_injected_are_refused(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        inject_sources(*arguments, PROFILES['Gaussian'])


@pytest.mark.parametrize('fwhm', [0, -3.5, np.nan, 3.5 * u.arcsec])
def test_widths_of_profiles_are_positive_pixels(fwhm):
    for make in (gaussian_profile, lambda fwhm: moffat_profile(fwhm, 2.5)):
        with pytest.raises(ValueError, match='fwhm must be a positive number'):
            make(fwhm)


def test_no_sources_change_nothing():
    image = np.random.default_rng(0).normal(size=SHAPE)
    assert_array_equal(inject_sources(image, [], [], [], PROFILES['Gaussian']), image)


@pytest.mark.parametrize(
    ('x', 'y', 'fraction'),
    [
        (-0.5, 60, 0.5),
        (70, 119.5, 0.5),
        (149.5, -0.5, 0.25),
        (-20, 60, 0),
        (1e6, -1e6, 0),
        (-33.5, -33.5, 0),
    ],
)
def test_source_at_the_edge_leaves_its_part_on_the_map(x, y, fraction):
    image = inject_sources(np.zeros(SHAPE), [x], [y], [8.0], PROFILES['Gaussian'])
    assert image.sum() == pytest.approx(8 * fraction, abs=8e-4)


def test_source_at_the_edge_is_cut_and_not_changed():
    large = inject_sources(np.zeros((200, 200)), [100.3], [99.6], [5.0], PROFILES['Moffat'])
    small = inject_sources(np.zeros((60, 40)), [10.3], [-0.4], [5.0], PROFILES['Moffat'])
    assert_allclose(small, large[100:160, 90:130], atol=1e-12)


# Positions


@pytest.mark.parametrize(('n', 'separation', 'margin'), [(60, 12, 0), (25, 15, 20), (1, 500, 10)])
def test_positions_keep_apart_and_off_the_edges(n, separation, margin):
    for seed in range(5):
        x, y = random_positions(SHAPE, n, seed, separation=separation, margin=margin)
        assert x.shape == y.shape == (n,)
        if n > 1:
            assert pdist(np.column_stack([x, y])).min() >= separation
        for position, size in ((x, SHAPE[1]), (y, SHAPE[0])):
            assert position.min() >= margin
            assert position.max() <= size - 1 - margin


def test_positions_depend_on_the_seed_only():
    first = random_positions(SHAPE, 10, 3, separation=5)
    again = random_positions(SHAPE, 10, np.random.default_rng(3), separation=5)
    assert_array_equal(first, again)
    assert not np.array_equal(first, random_positions(SHAPE, 10, 4, separation=5))


def test_positions_fill_the_map():
    x, y = random_positions(SHAPE, 2000, 0, separation=0)
    for position, size in ((x, SHAPE[1]), (y, SHAPE[0])):
        counts = np.histogram(position, bins=5, range=(0, size - 1))[0]
        assert_allclose(counts, 400, atol=90)


def test_no_positions_are_no_error():
    x, y = random_positions(SHAPE, 0, 0, separation=5)
    assert len(x) == len(y) == 0


@pytest.mark.parametrize(
    ('shape', 'n', 'separation', 'margin', 'sentence'),
    [
        ((50, 60), 100, 20, 0, r'100 positions 20 pixels apart do not fit on 50 x 60'),
        ((50, 60), 2, 100, 0, 'do not fit on 50 x 60 pixels; 1 do'),
        ((50, 60), 1, 5, 25, 'a map of 50 x 60 pixels has no room inside a margin of 25'),
        ((50, 60), 1, 5, 24.9, 'has no room inside a margin of 24.9'),
    ],
)
def test_impossible_positions_are_refused(shape, n, separation, margin, sentence):
    with pytest.raises(ValueError, match=sentence):
        random_positions(shape, n, 0, separation=separation, margin=margin)


def test_positions_lie_on_valid_pixels():
    valid = np.zeros(SHAPE, dtype=bool)
    valid[20:60, 30:90] = True
    x, y = random_positions(SHAPE, 20, 0, separation=4, valid=valid)
    assert valid[np.rint(y).astype(int), np.rint(x).astype(int)].all()


# PSFs of PACS


@pytest.mark.parametrize('mode', ['scanmap', 'parallel'])
@pytest.mark.parametrize('color', ['blue', 'green', 'red'])
def test_pacs_profile_encloses_the_tabulated_energy(mode, color):
    """Photutils' sums on the pixels of a map."""
    band = get_instrument(f'pacs-{mode}-{color}')
    # A circle must be larger than a pixel or so to be a circle.
    radii = np.array([9, 12, 15, 18, 22] if color == 'red' else [5, 6, 8, 10, 12, 13, 18])
    radii = radii / band.pixel_scale
    found = encircled_energy(instrument_profile(band), radii)
    if (mode, color) == ('scanmap', 'green'):
        # Published as a copy of the table of real sources, 10 % of whose energy is farther out.
        expected = band.enclosed_energy(radii, 'eef') / 0.9051
    else:
        expected = band.enclosed_energy(radii, 'vesta')
    assert_allclose(found, expected, rtol=0.02)
    assert_allclose(found[2:], expected[2:], rtol=0.018)


@pytest.mark.parametrize('color', ['blue', 'green', 'red'])
def test_pacs_profile_is_like_the_image_of_vesta(shared_data, color):
    number, blur = {'blue': (70, 2.03), 'green': (100, 1.9), 'red': (160, 4.97)}[color]
    image, header = fits.getdata(
        shared_data / 'data' / 'psf' / f'pacs{number}_vesta.fits', header=True
    )
    pixel = header['PIXARCS']
    from scipy.ndimage import gaussian_filter

    stamp = psf_stamp(pacs_profile(color, pixel / 3), 3 * len(image))
    stamp = gaussian_filter(stamp, blur / 2.3548 / pixel * 3)
    stamp = stamp.reshape(len(image), 3, len(image), 3).sum(axis=(1, 3))
    stamp *= image.sum() / stamp.sum()
    assert np.std(stamp - image) < 0.01 * image.max()
    center = [(len(image) - 1) / 2] * 2
    for radius in np.array([4, 6, 8, 10, 13, 18]) / pixel:
        sums = [
            CircularAperture(center, radius).do_photometry(each)[0][0]
            for each in (stamp, image.astype(float))
        ]
        assert sums[0] == pytest.approx(sums[1], rel=0.015)


def test_pacs_profile_has_three_lobes_and_wings():
    profile = pacs_profile('blue', 1.0)
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    waves = np.abs(np.fft.rfft(profile(8 * np.cos(angle), 8 * np.sin(angle))))
    assert waves[1:10].argmax() + 1 == 3
    assert waves[3] > 0.2 * waves[0]
    # Brightness falls as r**-3 far out, and ends at 60 arcsec.
    assert profile(25.0, 0.0) / profile(50.0, 0.0) == pytest.approx(8, rel=0.15)
    assert profile(59.9, 0.0) > 0
    assert profile(60.1, 0.0) == 0
    assert pacs_profile('blue', 1.0, radius=100)(99.0, 0.0) > 0


@pytest.mark.parametrize('color', ['blue', 'green', 'red'])
def test_pacs_profile_turns_and_places_without_loss(color):
    profile = pacs_profile(color, 3.2)
    rng = np.random.default_rng(0)
    for offset in rng.uniform(-0.5, 0.5, (5, 2)):
        stamp = psf_stamp(profile, offset=offset, angle=rng.uniform(0, 6))
        center = (len(stamp) - 1) / 2 + offset
        assert stamp.sum() == pytest.approx(1, rel=1e-12)
        # All of it lies on the stamp, so that no border has been normalised away.
        assert stamp[0].max() == stamp[-1].max() == stamp[:, 0].max() == stamp[:, -1].max() == 0
        wide = CircularAperture(center, 12).do_photometry(stamp)[0][0]
        assert wide == pytest.approx(encircled_energy(profile, 12.0), rel=1e-4)


def test_fast_scan_smears_along_one_axis():
    profile, slow = (pacs_profile('blue', 1.6, smear=smear) for smear in (12, 0))
    widths = []
    for each in (profile, slow):
        stamp = psf_stamp(each, 79)
        steps = np.arange(79) - 39
        disc = stamp * (np.hypot(*np.meshgrid(steps, steps)) < 15)
        widths.append([(disc.sum(axis=axis) * steps**2).sum() / disc.sum() for axis in (0, 1)])
    # A stretch of length L adds L²/12 along the scan.
    assert widths[0][0] - widths[1][0] == pytest.approx((12 / 1.6) ** 2 / 12, rel=0.25)
    assert widths[0][1] == pytest.approx(widths[1][1], rel=0.1)
    band = get_instrument('pacs-parallel-red')
    assert instrument_profile(band, fast_scan=True)(1.0, 2.0) != instrument_profile(band)(1.0, 2.0)
    assert smeared_profile(moffat_profile(3, 3), 4).radius == np.inf


@pytest.mark.parametrize(
    ('arguments', 'options', 'sentence'),
    [
        (('pink', 1.6), {}, 'band must be one of'),
        (('blue', 0), {}, 'pixel_scale must be positive, got 0'),
        (('blue', 'wide'), {}, "pixel_scale must be a number, got 'wide'"),
        (('blue', 1.6), {'radius': -1}, 'radius must be positive'),
        (('blue', 1.6), {'smear': np.nan}, 'smear must be positive'),
    ],
)
def test_impossible_pacs_profiles_are_refused(arguments, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        pacs_profile(*arguments, **options)


def test_only_pacs_has_fast_scans():
    with pytest.raises(ValueError, match='only PACS has fast scans'):
        instrument_profile(get_instrument('spire-250'), fast_scan=True)


# Any PSF


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


# Fields


def test_random_streams_of_fields_stay_what_they_were():
    """Networks are trained on them: the same seed must give the same pixels."""
    assert power_law_field((16, 16), -3, 1)[3, 4] == pytest.approx(0.54697864738, rel=1e-6)
    assert lognormal_field((16, 16), -3, 0.8, 1)[3, 4] == pytest.approx(0.08026842050, rel=1e-6)
    assert filament_field((16, 16), -3, 2, 1)[3, 4] == pytest.approx(-0.35169187054, rel=1e-6)
    assert diffuse_field((16, 16), 1)[3, 4] == pytest.approx(-0.0113899615, rel=1e-5)


@pytest.mark.parametrize('slope', [-4, -3, -2, 0])
def test_power_spectrum_recovers_the_slope(slope):
    k, power = power_spectrum(power_law_field((256, 200), slope, 2))
    middle = (k > 0.03) & (k < 0.4)
    found = np.polyfit(np.log(k[middle]), np.log(power[middle]), 1)[0]
    assert found == pytest.approx(slope, abs=0.15)


def test_power_spectrum_bears_gaps_and_planes():
    field = power_law_field((200, 220), -2, 2)
    k, power = power_spectrum(field)
    gapped = field + 5 * gradient_field(field.shape, 3)
    gapped[90:96, 20:100] = np.nan
    _, again = power_spectrum(gapped)
    middle = (k > 0.02) & (k < 0.3)
    assert_allclose(np.median(again[middle] / power[middle]), 1, atol=0.15)


def power_in_rings(field):
    """Without a window: for fields that are periodic."""
    power = np.abs(np.fft.fft2(field - field.mean())) ** 2 / field.size
    k = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in field.shape), indexing='ij'))
    edges = np.geomspace(0.04, 0.5, 8)
    return np.array([power[(k >= a) & (k < b)].mean() for a, b in pairwise(edges)])


@pytest.mark.parametrize('shape', [(120, 130), (97, 256), None])
def test_matched_field_has_spectrum_and_histogram(shape):
    image = 3 + 2 * lognormal_field((150, 160), -2.8, 0.6, 5)
    field = matched_field(image, 1, shape=shape)
    assert field.shape == ((150, 160) if shape is None else shape)
    # Their own maximum distance is what the interpolated sample leaves.
    assert stats.ks_2samp(field.ravel(), image.ravel()).statistic < 0.005
    ratio = power_in_rings(field) / power_in_rings(image)
    assert np.median(ratio) == pytest.approx(1, abs=0.2)
    assert_allclose(np.log(ratio), 0, atol=0.6)


def test_matched_field_follows_a_real_map(shared_data):
    path = shared_data / 'data' / 'maps' / 'validation' / 'spire250_l1642_b.fits'
    image = read_image(path)[0].data[300:600]
    field = matched_field(image, 1, shape=(256, 256))
    valid = image[np.isfinite(image)]
    assert_allclose(np.percentile(field, [5, 50, 95]), np.percentile(valid, [5, 50, 95]), rtol=0.02)
    again = matched_field(image, 1, shape=(256, 256))
    assert_array_equal(field, again)


@pytest.mark.parametrize('image', [np.ones((32, 32)), np.full((32, 32), np.nan), np.ones((4, 4))])
def test_maps_without_structure_cannot_be_matched(image):
    with pytest.raises(ValueError, match=r'no structure|valid pixels|at least 8 x 8'):
        matched_field(image, 0)


@pytest.mark.parametrize(
    'draw',
    [
        white_noise,
        gradient_field,
        striped_noise,
        faint_sources,
        lambda shape, rng: correlated_noise(shape, 2, rng),
    ],
)
def test_components_are_standard_and_repeat(draw):
    field = draw((60, 81), 3)
    assert field.shape == (60, 81)
    assert field.mean() == pytest.approx(0, abs=1e-9)
    assert field.std() == pytest.approx(1, rel=1e-9)
    assert_array_equal(field, draw((60, 81), 3))
    assert not np.array_equal(field, draw((60, 81), 4))


def test_correlated_noise_has_its_width():
    noise = correlated_noise((300, 300), 4, 1)
    # The autocorrelation of a smoothing Gaussian is √2 times as wide.
    for lag in (1, 2, 3):
        expected = np.exp(-4 * np.log(2) * lag**2 / (2 * 4**2))
        found = (noise[:, lag:] * noise[:, :-lag]).mean()
        assert found == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize('degrees', [0, 30, 90, 120])
def test_stripes_run_as_asked(degrees):
    noise = striped_noise((128, 128), 2, angle=np.radians(degrees))
    power = np.abs(np.fft.fft2(noise)) ** 2
    ky, kx = np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128), indexing='ij')
    # The direction of most power, by its second moments: across the stripes.
    moments = [(power * a * b).sum() for a, b in ((kx, kx), (kx, ky), (ky, ky))]
    across = np.degrees(0.5 * np.arctan2(2 * moments[1], moments[0] - moments[2]))
    assert (across - degrees - 90 + 45) % 180 - 45 == pytest.approx(0, abs=3)


def test_faint_sources_follow_their_counts():
    """The sum of squares of fluxes of a power law decides the variance."""
    few = faint_sources((100, 100), 1, density=0.001, slope=-1.0, dynamic_range=1000)
    many = faint_sources((100, 100), 1, density=1.0, slope=-1.0, dynamic_range=2)
    assert stats.skew(few, axis=None) > 2
    assert abs(stats.skew(many, axis=None)) < 0.5
    with pytest.raises(ValueError, match='density must be positive'):
        faint_sources((20, 20), 0, density=0)


def test_coverage_has_an_edge_and_gaps():
    whole = coverage_mask((120, 100), 1, footprint=False, n_gaps=0)
    assert whole.all()
    covered = coverage_mask((120, 100), 1)
    assert not covered.all()
    assert covered.mean() > 0.3
    assert_array_equal(covered, coverage_mask((120, 100), 1))


@pytest.mark.parametrize('kind', FIELDS)
def test_synthetic_maps_have_unit_and_place(kind):
    image = synthetic_map(kind, (40, 64), 3, faint=0.2, gradient=0.5, noise_kind='striped')
    assert image.shape == (40, 64)
    assert image.unit == u.Jy / u.pix
    assert image.pixel_scale == pytest.approx(1.6, rel=1e-6)
    assert image.data.mean() == pytest.approx(5e-3, rel=0.5)
    assert_array_equal(
        image.data,
        synthetic_map(kind, (40, 64), 3, faint=0.2, gradient=0.5, noise_kind='striped').data,
    )


def test_synthetic_map_can_be_like_a_real_one():
    real = lognormal_field((80, 80), -3, 0.5, 1) * u.MJy / u.sr
    image = synthetic_map(real, (64, 64), 2, gaps=True)
    assert image.unit == u.MJy / u.sr
    assert np.isnan(image.data).any()
    assert np.nanmax(image.data) <= real.value.max()


@pytest.mark.parametrize(
    ('kind', 'shape', 'options', 'sentence'),
    [
        ('cirrus', (64, 64), {}, 'kind must be one of'),
        ('power-law', (64, 64), {'width': 3}, "kind 'power-law' has no width"),
        ('flat', (64,), {}, r'shape must be \(ny, nx\)'),
        ('flat', (8, 64), {}, 'at least 16 x 16 pixels'),
        ('flat', (64, 64), {'noise': -1}, 'must not be negative'),
        ('flat', (64, 64), {'noise_kind': 'pink'}, 'noise_kind must be one of'),
        (np.ones((64, 64)), (64, 64), {'slope': -3}, 'a matched field has no'),
    ],
)
def test_impossible_fields_are_refused(kind, shape, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        synthetic_map(kind, shape, 0, **options)


# Maps with sources


@pytest.fixture(scope='module')
def field():
    return synthetic_map('lognormal', (200, 220), 1)


def test_simulation_holds_what_its_table_says(field):
    simulation = simulate_map(field, 700, instrument='pacs-scanmap-green', number=12, seed=4)
    sources = simulation.sources
    assert len(sources) == 12
    assert set(sources['flux']) == {700 * u.mJy}
    assert pdist(np.column_stack([sources['x'], sources['y']])).min() >= 2 * 13
    again = field.wcs.world_to_pixel(sources['sky_center'])
    assert_allclose(again, [sources['x'], sources['y']], atol=1e-6)
    added = (simulation.image - simulation.truth).to_value(u.mJy / u.pix)
    assert added.min() > -1e-9
    # Less the wings off the map.
    assert 0.97 * 12 * 700 < added.sum() <= 12 * 700 * (1 + 1e-6)
    for row in sources:
        near = CircularAperture((row['x'], row['y']), 6.25).do_photometry(added)[0][0]
        expected = 700 * encircled_energy(pacs_profile('green', 1.6), 6.25)
        # With the wings of the others.
        assert near == pytest.approx(expected, rel=0.015)


def test_simulation_depends_on_the_seed_only(field):
    first, again, other = (
        simulate_map(field, 300, gaussian_profile(4), number=8, seed=seed) for seed in (1, 1, 2)
    )
    assert_array_equal(first.image, again.image)
    assert_array_equal(first.sources['x'], again.sources['x'])
    assert not np.array_equal(first.image, other.image)


def test_levels_are_those_of_the_paper_within_the_range(field):
    assert len(flux_levels()) == 51
    assert (flux_levels()[0], flux_levels()[-1]) == (10, 40000)
    series = list(simulate_levels(field, lowest=1250, highest=1.75 * u.Jy, number=3, seed=5))
    assert [s.sources['flux'][0].value for s in series] == [1250, 1500, 1750]
    # A level is the same whatever others there are.
    alone = next(iter(simulate_levels(field, levels=[1500], number=3, seed=5)))
    assert_array_equal(alone.image, series[1].image)
    assert not np.array_equal(series[0].sources['x'], series[1].sources['x'])


def test_levels_can_be_random(field):
    series = list(
        simulate_levels(field, lowest=40, highest=100, random=2, number=20, separation=8, seed=5)
    )
    assert len(series) == 2
    for simulation in series:
        assert set(simulation.sources['flux'].value) <= {40, 60, 80, 100}
        assert len(set(simulation.sources['flux'].value)) > 1
    assert series[0].name != series[1].name


def test_default_levels_are_visible_and_realistic():
    noise = np.random.default_rng(0).normal(0, 2, (300, 300))
    lowest, highest = flux_range(noise, gaussian_profile(4))
    peak = psf_stamp(gaussian_profile(4)).max()
    assert lowest * peak / 2 == pytest.approx(3, rel=0.03)
    assert highest * peak / 2 == pytest.approx(1000, rel=0.03)
    series = simulate_levels(noise, gaussian_profile(4), number=1)
    fluxes = [simulation.sources['flux'][0].value for simulation in series]
    assert_array_equal(fluxes, flux_levels(lowest, highest))


def test_number_follows_from_the_area():
    # Masks of 5.1 pixels; the PSF matters for the time only.
    psf = np.outer([1, 2, 1], [1, 2, 1])
    instrument = get_instrument('generic', fwhm=1.5)
    counts = [
        len(simulate_map(np.zeros((n, n)), 1, psf, instrument=instrument).sources)
        for n in (80, 130, 300)
    ]
    # Positions keep a mask's radius from the edge; a source for each square of 3 radii.
    assert counts == [25, 120**2 // 15.3**2, 210]


@pytest.mark.parametrize(
    ('unit', 'factor'),
    [
        (None, 1),
        (u.Jy / u.pix, 1e-3),
        (u.mJy / u.pix, 1),
        (u.Jy, 1e-3),
        (u.MJy / u.sr, 1e-9 / (1.6 / 206264.806) ** 2),
        (u.Jy / u.beam, 1e-3 * np.pi / (4 * np.log(2)) * 3.5**2),
    ],
)
def test_fluxes_are_converted(unit, factor):
    values = np.zeros((200, 200))
    image = parse_image(values if unit is None else values * unit, wcs=tangent_wcs((200, 200), 1.6))
    assert map_units_per_millijansky(image, 3.5) == pytest.approx(factor, rel=1e-6)
    simulation = simulate_map(image, 400, gaussian_profile(3.5), instrument='generic', number=2)
    added = u.Quantity(simulation.image - simulation.truth).value.sum()
    assert added == pytest.approx(2 * 400 * factor, rel=1e-4)


def test_invalid_pixels_stay_and_take_no_sources():
    data = np.full((200, 200), 3.0, dtype='>f4')
    data[:, 100:] = np.nan
    mask = np.zeros(data.shape, dtype=bool)
    mask[:60] = True
    ccd = CCDData(data, unit='Jy/pix', mask=mask)
    simulation = simulate_map(ccd, 100, number=5)
    assert (simulation.sources['x'] < 88.5).all()
    assert (simulation.sources['y'] > 71.5).all()
    assert_array_equal(simulation.injected.data[:60], data[:60])
    assert simulation.injected.dtype == np.float32
    assert np.isnan(simulation.injected.data[:, 100:]).all()


def test_unobserved_zeros_of_pacs_stay(shared_data):
    path = next((shared_data / 'data' / 'pacs_gamma_dra').glob('*_blue_*'))
    image, header = read_image(path)
    simulation = simulate_map(image, 500, instrument='pacs-scanmap-blue', number=6, header=header,
                              avoid=[(88, 157.6)])  # fmt: skip
    blank = image.data == 0
    assert blank.mean() > 0.2
    assert (simulation.injected.data[blank] != 0).mean() < 0.01
    x, y = simulation.sources['x'], simulation.sources['y']
    assert not blank[np.rint(y).astype(int), np.rint(x).astype(int)].any()
    assert np.hypot(x - 88, y - 157.6).min() > 24


def test_files_read_back(field, tmp_path):
    header = fits.Header({'INSTRUME': 'PACS', 'OBS_MODE': 'Scan map', 'WAVELNTH': 70.0})
    simulation = simulate_map(field, 900, instrument='pacs-scanmap-blue', number=4, seed=3,
                              name='cloud', header=header)  # fmt: skip
    paths = simulation.write(tmp_path / 'new')
    names = ['cloud.fits', 'cloud.ecsv', 'cloud.csv', 'cloud_truth.fits']
    assert [path.name for path in paths] == names
    image, found = read_image(paths[0])
    assert_array_equal(image.data, simulation.injected.data)
    assert image.unit == field.unit
    assert (found['INSTRUME'], found['WAVELNTH'], found['CSRSEED']) == ('PACS', 70, 3)
    assert_array_equal(read_image(paths[3])[0].data, field.data)
    assert QTable.read(paths[1]).meta['seed'] == 3
    table = Table.read(paths[2])
    assert table.colnames == ['ra', 'dec', 'flux']
    sources = parse_sources(table, image.wcs)
    assert_allclose(sources.x, simulation.sources['x'], atol=1e-6)
    assert (table['flux'] == 900).all()
    with pytest.raises(ValueError, match=r'cloud\.fits.* exists'):
        simulation.write(tmp_path / 'new')
    assert len(simulation.write(tmp_path / 'new', overwrite=True)) == 4
    assert len(list((tmp_path / 'new').iterdir())) == 4


def test_truth_of_another_simulation_is_not_kept(field, tmp_path):
    options = {'instrument': 'pacs-scanmap-blue', 'number': 4, 'name': 'cloud'}
    series = simulate_levels(field, levels=[700, 900], **options)
    truth, again = (each.write(tmp_path)[3] for each in series)
    assert truth == again
    before = truth.stat().st_mtime_ns
    data = read_image(truth)[0].data
    other = next(iter(simulate_levels(data + 1, levels=[800], **options)))
    with pytest.raises(ValueError, match=r'cloud_truth\.fits.* is of another simulation'):
        other.write(tmp_path)
    assert truth.stat().st_mtime_ns == before
    assert not list(tmp_path.glob('*800*'))
    other.write(tmp_path, overwrite=True)
    assert_array_equal(read_image(truth)[0].data, other.original.data)


def test_map_without_a_place_has_a_table_in_pixels(tmp_path):
    simulation = simulate_map(np.zeros((200, 200)), [100, 200], number=2)
    paths = simulation.write(tmp_path)
    assert Table.read(paths[2]).colnames == ['x', 'y', 'flux']


@pytest.mark.parametrize(
    ('data', 'flux', 'options', 'sentence'),
    [
        (np.zeros((200, 200)), 'bright', {}, 'fluxes must be numbers of mJy'),
        (np.zeros((200, 200)), np.nan, {}, 'fluxes must be finite'),
        (np.zeros((200, 200)), [1, 2], {'number': 3}, 'one for each of 3 sources'),
        (np.zeros((200, 200)), 1, {'number': 2.5}, 'number must be a whole number'),
        (np.zeros((200, 200)), 1, {'number': -1}, 'number must be a whole number'),
        (np.zeros((60, 60)), 1, {}, 'do fit on|do not fit .*: give a smaller number'),
        (np.zeros((200, 200)), 1, {'separation': -2}, 'separation must not be negative'),
        (np.full((50, 50), np.nan), 1, {}, 'the map has no valid pixels'),
        (np.zeros((200, 200)) * u.mag, 1, {}, 'a map in mag cannot take sources in mJy'),
        (np.zeros((200, 200)) * u.MJy / u.sr, 1, {}, 'needs a WCS'),
        (np.zeros((200, 200)), 1, {'fast_scan': True}, 'only PACS has fast scans'),
        (
            np.zeros((200, 200)),
            1,
            {'psf': gaussian_profile(3), 'fast_scan': True},
            'fast_scan is for the PSF of a PACS instrument',
        ),
    ],
)
def test_impossible_simulations_are_refused(data, flux, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        simulate_map(data, flux, **options)


def test_levels_must_leave_some():
    with pytest.raises(ValueError, match='no flux level of 10 to 40000 mJy lies between 1 and 2'):
        next(simulate_levels(np.zeros((200, 200)), lowest=1, highest=2))
    with pytest.raises(ValueError, match='the map does not scatter'):
        next(simulate_levels(np.zeros((200, 200))))
    with pytest.raises(ValueError, match='flux levels must be positive'):
        next(simulate_levels(np.zeros((200, 200)), levels=[0, 1]))
