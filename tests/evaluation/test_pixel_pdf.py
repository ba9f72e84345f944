"""Distributions of pixels."""

import numpy as np
import pytest
from astropy import units as u
from helpers_evaluation import power_law
from numpy.testing import assert_allclose
from scipy import stats

from csr_astro.evaluation.pixel_pdf import disc_moments, pixel_histogram, pixel_moments
from csr_astro.masking import disc


def test_moments_are_those_of_scipy():
    values = np.random.default_rng(1).gamma(2, size=500)
    moments = pixel_moments(np.append(values, [np.nan, np.inf]))
    assert moments['n'] == 500
    assert moments['mean'] == np.mean(values)
    assert moments['median'] == np.median(values)
    assert moments['std'] == np.std(values)
    assert moments['skewness'] == stats.skew(values)
    assert moments['iqr'] == stats.iqr(values)


def test_moments_keep_units_and_bear_nothing():
    moments = pixel_moments([1, 2, 4] * u.Jy)
    assert moments['median'] == 2 * u.Jy
    assert isinstance(moments['skewness'], float)
    assert np.isnan(pixel_moments([])['mean'])


@pytest.fixture
def discs():
    return [disc(x, y, 6, (120, 120)) for x in range(10, 120, 18) for y in range(10, 120, 18)]


def test_moments_inside_discs(discs):
    original = power_law(-3, 1, (120, 120))
    smooth = original.copy()
    for each in discs:
        smooth[each.on_map()] = original[each.on_map()].mean()
    maps = {'original': original * u.Jy, 'source_free': smooth * u.Jy}
    table = disc_moments(maps, [*discs, None])
    pixels = np.concatenate([original[each.on_map()] for each in discs])
    assert table['n'][0] == len(pixels)
    # The order of sums is another one.
    assert_allclose(table['std'][0].value, pixels.std(), rtol=1e-12)
    assert_allclose(table['skewness'][0], stats.skew(pixels), rtol=1e-10)
    assert table['std'].unit == u.Jy
    assert table['std'][1] < table['std'][0]
    assert table['ks'][0] == 0
    assert table['p_value'][0] == 1
    flat = np.concatenate([smooth[each.on_map()] for each in discs])
    assert_allclose(table['ks'][1], stats.ks_2samp(pixels, flat).statistic, rtol=1e-12)


def discs_of_one_kind(discs, seed):
    """A map whose discs differ from each other by more than their pixels do."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(120, 120))
    for each in discs:
        image[each.on_map()] += rng.normal(0, 3)
    return image


def test_two_samples_that_differ_are_told_and_those_that_do_not_are_not(discs):
    first, second = (discs_of_one_kind(discs, seed) for seed in (2, 3))
    table = disc_moments({'original': first, 'shifted': second + 4}, discs)
    assert table['p_value'][1] < 0.01
    p_values = []
    for seed in range(4, 12):
        maps = {'original': first, 'other': discs_of_one_kind(discs, seed)}
        table = disc_moments(maps, discs)
        p_values.append(table['p_value'][1])
    assert 0.2 < np.mean(p_values) < 0.8
    # The usual test, which takes pixels for independent, is fooled.
    pixels = [np.concatenate([m[d.on_map()] for d in discs]) for m in maps.values()]
    assert stats.ks_2samp(*pixels).pvalue < table['p_value'][1]


def test_errors_of_moments_are_those_of_whole_discs(discs):
    """Neighbouring pixels are not independent: by pixel the error would be far too small."""
    image = power_law(-3, 4, (120, 120))
    table = disc_moments({'original': image}, discs)
    by_pixel = image.std() / np.sqrt(table['n'][0])
    assert table['mean_err'][0] > 4 * by_pixel


def test_disc_moments_refuse_what_they_cannot_do(discs):
    image = np.zeros((120, 120))
    with pytest.raises(ValueError, match='reference must be one of'):
        disc_moments({'a': image}, discs)
    with pytest.raises(ValueError, match='one shape'):
        disc_moments({'original': image, 'b': image[1:]}, discs)
    with pytest.raises(ValueError, match='no pixel'):
        disc_moments({'original': image}, [None])


def test_histogram_is_a_density():
    values = np.random.default_rng(5).normal(3, 2, (200, 200)) * u.Jy
    table = pixel_histogram({'map': values}, bins=30)
    width = table['high'] - table['low']
    assert_allclose((table['map'] * width).sum(), 0.998, atol=2e-3)
    middle = (table['low'] + table['high']).value / 2
    expected = stats.norm(3, 2).pdf(middle) / u.Jy
    pull = ((table['map'] - expected) / np.maximum(table['map_err'], 1e-3 / u.Jy)).value
    assert np.abs(pull).max() < 5


def test_normalized_histogram_is_lognormal():
    field = np.exp(np.random.default_rng(6).normal(0, 0.5, (300, 300)))
    table = pixel_histogram({'map': field}, normalized=True)
    middle = (table['low'] + table['high']).value / 2
    # ln(I / mean I) of a lognormal field: normal, with mean -σ²/2.
    expected = stats.norm(-0.125, 0.5).pdf(middle)
    assert np.abs(table['map'].value - expected).max() < 0.05


def test_histogram_without_pixels_is_refused():
    with pytest.raises(ValueError, match='no pixel to count'):
        pixel_histogram({'map': -np.ones((20, 20))}, normalized=True)
    with pytest.raises(ValueError, match='no pixel to count'):
        pixel_histogram({'map': np.ones((20, 20))}, where=np.zeros((20, 20), dtype=bool))
