"""Power spectra and delta-variance."""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from helpers_evaluation import power_law
from numpy.testing import assert_allclose
from scipy import fft

from csr_astro.evaluation.power_spectrum import (
    delta_variance,
    fit_power_law,
    power_spectra,
    power_spectrum,
    spectra_difference,
)


def wcs(step=2 / 3600, ratio=1.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.cdelt = -step, step * ratio
    return wcs


@pytest.mark.parametrize('gaps', [False, True])
@pytest.mark.parametrize('slope', [0, -2, -3, -3.6])
def test_power_law_is_recovered_within_its_errors(slope, gaps):
    pulls = []
    for seed in range(12):
        image = 7 + power_law(slope, seed) if slope else white(seed)
        spectrum = power_spectrum(with_gaps(image, seed) if gaps else image)
        k = spectrum['frequency'].value
        # Errors are those that the true spectrum would have.
        error = k**slope / np.sqrt(spectrum['n_modes'])
        pulls.append((spectrum['power'].value - k**slope) / error)
    pulls = np.array(pulls)[:, 1:]
    # The mean of 12 maps has an error of 0.29.
    assert np.abs(pulls.mean(axis=0)).max() < 1.3
    assert abs(pulls.mean()) < 0.2
    assert 0.8 < pulls.std() < 1.25


def white(seed, shape=(200, 240)):
    return np.random.default_rng(seed).normal(size=shape)


def test_stated_errors_scale_with_the_power():
    spectrum = power_spectrum(3 * white(1))
    assert_allclose(
        spectrum['power_err'], spectrum['power'] / np.sqrt(spectrum['n_modes']), rtol=1e-12
    )


def test_parseval():
    """All power of a periodic map without its mean is in the modes."""
    image = white(2, (64, 64))
    image -= image.mean()
    spectrum = power_spectrum(image, taper=0, n_bins=8)
    assert_allclose(np.average(spectrum['power'], weights=spectrum['n_modes']).value, 1, atol=0.03)


def test_units_and_scales_come_from_the_wcs():
    noise = 2 * white(3)
    pixels = power_spectrum(noise)
    ccd = CCDData(noise, unit='MJy / sr', wcs=wcs())
    spectrum = power_spectrum(ccd)
    side = 2 / 60  # arcmin
    assert spectrum['frequency'].unit == 1 / u.arcmin
    assert spectrum['power'].unit == u.MJy**2 / u.sr**2 * u.arcmin**2
    assert_allclose(spectrum['frequency'].value, pixels['frequency'].value / side, rtol=1e-9)
    assert_allclose(spectrum['power'].value, pixels['power'].value * side**2, rtol=1e-9)
    assert pixels['frequency'].unit == 1 / u.pix


def test_pixels_that_are_not_square():
    """A pattern is as long on the sky as its pixels say."""
    y, _ = np.indices((120, 120))
    wave = np.sin(2 * np.pi * y / 6)
    with pytest.warns(AstropyUserWarning, match='the pixels of the map are 2 x 4 arcsec'):
        spectrum = power_spectrum(wave, wcs=wcs(ratio=2.0), n_bins=30)
    peak = spectrum['frequency'][np.argmax(spectrum['power'])]
    assert_allclose(peak.to_value(1 / u.arcmin), 60 / (6 * 4), rtol=0.06)


def test_spectra_share_the_pixels_that_are_valid_in_all():
    first, second = white(4), white(5)
    second[20:60, 30:80] = np.nan
    spectra = power_spectra({'original': first, 'source_free': second})
    first = np.where(np.isfinite(second), first, np.nan)
    # The slope inside bins is that of both together.
    assert_allclose(spectra['original'], power_spectrum(first)['power'], rtol=1e-3)


def test_several_maps_are_averaged():
    maps = [white(seed) for seed in range(3)]
    spectra = power_spectra({'original': maps[0], 'realization': maps})
    mean = np.mean([power_spectrum(each)['power'].value for each in maps], axis=0)
    # Each alone has another slope inside the bins.
    assert_allclose(spectra['realization'].value, mean, rtol=0.02)


def test_difference_of_spectra():
    spectra = power_spectra({'original': white(6), 'source_free': 1.1 * white(6)})
    difference = spectra_difference(spectra, 'source_free')
    assert_allclose(difference['relative'], 0.21, rtol=1e-9)
    power = spectra['original']
    assert_allclose(difference['normalized'], 0.21 * power / power.sum(), rtol=1e-9)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (({'a': np.zeros((8, 40))},), 'at least 16 x 16 pixels'),
        (({'a': np.full((40, 40), np.nan)},), 'hardly a valid pixel'),
        (({'a': np.zeros((40, 40)), 'b': np.zeros((40, 41))},), 'one shape and one unit'),
        (({},), 'at least one map'),
    ],
)
def test_spectra_of_bad_maps_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        power_spectra(*arguments)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match='taper must be between'):
        power_spectrum(white(1), taper=2)
    with pytest.raises(ValueError, match='n_bins must be positive'):
        power_spectrum(white(1), n_bins=0)


def test_constant_map_has_no_power():
    assert_allclose(power_spectrum(np.full((40, 40), 5.0))['power'].value, 0, atol=1e-20)


def with_gaps(image, seed):
    image = image.copy()
    image[:, :9] = np.nan
    image[60:90, 80:130] = np.nan
    y, x = np.indices(image.shape)
    for row, column in np.random.default_rng(seed).integers(10, 190, (8, 2)):
        image[np.hypot(y - row, x - column) < 3] = np.nan
    return image


@pytest.mark.parametrize('slope', [-2.5, -3.0, -3.6])
def test_slope_of_delta_variance(slope):
    """σ² ∝ L^(β−2) (Stutzki et al. 1998)."""
    found = [
        fit_power_law(table['lag'], table['delta_variance'], table['delta_variance_err'])[0]
        for table in (delta_variance(with_gaps(power_law(slope, s), s)) for s in range(6))
    ]
    assert abs(np.mean(found) - (-slope - 2)) < 0.05


def test_delta_variance_is_what_the_filter_leaves_of_the_spectrum():
    """Against the closed form for white noise and an infinite map."""
    table = delta_variance(white(7, (400, 400)), [4, 8])
    k2 = np.add.outer(*[fft.fftfreq(1024) ** 2] * 2)
    for lag, found, error in zip(
        (4, 8), table['delta_variance'], table['delta_variance_err'], strict=True
    ):
        exponent = (np.pi * lag / 2) ** 2 * k2
        core = np.exp(-exponent)
        ring = (2.25 * np.exp(-2.25 * exponent) - core) / 1.25
        assert abs(found - ((core - ring) ** 2).mean()) < 4 * error


def test_lags_are_pixels_or_angles():
    ccd = CCDData(white(8), unit='Jy', wcs=wcs())
    by_pixels = delta_variance(ccd, [5, 10])
    by_angles = delta_variance(ccd, [10, 20] * u.arcsec)
    assert_allclose(by_pixels['lag'].to_value(u.arcsec), [10, 20], rtol=1e-4)
    assert_allclose(by_pixels['delta_variance'], by_angles['delta_variance'], rtol=1e-6)
    assert by_pixels['delta_variance'].unit == u.Jy**2


@pytest.mark.parametrize(
    ('lags', 'message'),
    [
        ([1000], 'half the smaller side'),
        ([0.1], 'between 1 pixel'),
        ([], 'between 1 pixel'),
        ([3] * u.arcsec, 'no WCS'),
        ([3] * u.Jy, 'pixels or angles'),
    ],
)
def test_bad_lags_are_refused(lags, message):
    with pytest.raises(ValueError, match=message):
        delta_variance(white(9), lags)


def test_power_law_needs_points():
    with pytest.raises(ValueError, match='three positive points'):
        fit_power_law([1, 2, 3], [1, -1, np.nan])
