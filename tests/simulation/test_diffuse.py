"""Random fields of emission, noise and coverage."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from csr_astro.images import read_image
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
    radial_periodogram,
    striped_noise,
    white_noise,
)
from csr_astro.simulation.patterns import detector_pattern


def radial_spectrum(field):
    """Wavenumbers (cycles per pixel) and mean power in rings, away from the corners."""
    power = np.abs(np.fft.fft2(field)) ** 2
    k = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in field.shape), indexing='ij'))
    edges = np.geomspace(0.03, 0.48, 20)
    ring = np.digitize(k, edges)
    rings = range(1, len(edges))
    return (
        np.array([np.exp(np.log(k[ring == i]).mean()) for i in rings]),
        np.array([power[ring == i].mean() for i in rings]),
    )


@pytest.mark.parametrize('slope', [-4, -3, -2, -1, 0, 1])
@pytest.mark.parametrize('shape', [(256, 256), (256, 181)])
def test_power_law_field_has_its_slope(slope, shape):
    fields = [power_law_field(shape, slope, seed) for seed in range(4)]
    spectra = [radial_spectrum(field) for field in fields]
    power = np.mean([power for _, power in spectra], axis=0)
    fitted = np.polyfit(np.log(spectra[0][0]), np.log(power), 1)[0]
    assert fitted == pytest.approx(slope, abs=0.1)


KINDS = {
    'power law': lambda rng: power_law_field((64, 80), -3, rng),
    'lognormal': lambda rng: lognormal_field((64, 80), -3, 1.0, rng),
    'filaments': lambda rng: filament_field((64, 80), -3, 2, rng),
}


@pytest.mark.parametrize('kind', KINDS)
def test_fields_have_mean_zero_and_unit_scatter(kind):
    field = KINDS[kind](1)
    assert field.shape == (64, 80)
    assert_allclose([field.mean(), field.std()], [0, 1], atol=1e-12)


@pytest.mark.parametrize('make', [*KINDS.values(), lambda rng: diffuse_field((64, 80), rng)])
def test_fields_depend_on_the_seed_only(make):
    assert_array_equal(make(1), make(np.random.default_rng(1)))
    assert not np.array_equal(make(1), make(2))


def test_lognormal_field_is_skewed_as_its_contrast_says():
    def skewness(contrast):
        fields = [lognormal_field((128, 128), -1, contrast, seed) for seed in range(8)]
        return np.mean([(field**3).mean() for field in fields])

    for contrast in (0.3, 0.6):
        variance = np.exp(contrast**2)
        expected = (variance + 2) * np.sqrt(variance - 1)
        assert skewness(contrast) == pytest.approx(expected, rel=0.1)


def test_diffuse_fields_are_finite():
    for seed in range(20):
        field = diffuse_field((64, 64), seed)
        assert field.dtype == np.float32
        assert np.isfinite(field).all()
        assert field.std() > 0


def test_random_streams_of_fields_stay_what_they_were():
    """Networks are trained on them: the same seed must give the same pixels."""
    assert power_law_field((16, 16), -3, 1)[3, 4] == pytest.approx(0.54697864738, rel=1e-6)
    assert lognormal_field((16, 16), -3, 0.8, 1)[3, 4] == pytest.approx(0.08026842050, rel=1e-6)
    assert filament_field((16, 16), -3, 2, 1)[3, 4] == pytest.approx(-0.35169187054, rel=1e-6)
    assert diffuse_field((16, 16), 1)[3, 4] == pytest.approx(-0.0113899615, rel=1e-5)


@pytest.mark.parametrize('slope', [-4, -3, -2, 0])
def test_periodogram_recovers_the_slope(slope):
    k, power = radial_periodogram(power_law_field((256, 200), slope, 2))
    middle = (k > 0.03) & (k < 0.4)
    found = np.polyfit(np.log(k[middle]), np.log(power[middle]), 1)[0]
    assert found == pytest.approx(slope, abs=0.15)


def test_periodogram_bears_gaps_and_planes():
    field = power_law_field((200, 220), -2, 2)
    k, power = radial_periodogram(field)
    gapped = field + 5 * gradient_field(field.shape, 3)
    gapped[90:96, 20:100] = np.nan
    _, again = radial_periodogram(gapped)
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
        detector_pattern,
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


def test_patterns_of_detectors_are_of_all_kinds():
    """Lines that repeat, a checkerboard, lines of any offset, and waves."""
    kinds = set()
    for seed in range(60):
        pattern = detector_pattern((48, 64), seed)
        columns, rows = (np.ptp(pattern, axis=axis).max() < 1e-9 for axis in (0, 1))
        if columns or rows:
            line = pattern[0] if columns else pattern[:, 0]
            repeats = np.allclose(line[8:], line[:-8])
            kinds.add('repeated lines' if repeats else 'lines')
        elif np.allclose(pattern[1:, 1:], pattern[:-1, :-1]):
            kinds.add('checkerboard')
        else:
            kinds.add('waves')
    assert kinds == {'repeated lines', 'lines', 'checkerboard', 'waves'}
