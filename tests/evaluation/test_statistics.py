"""Statistics of errors."""

import numpy as np
import pytest
from astropy.stats import mad_std
from astropy.table import Table
from numpy.testing import assert_allclose

from csr_astro.evaluation.statistics import (
    average_ratios,
    coverage,
    robust_scatter,
    scatter_ratios,
    summarize,
)


def make_errors(n=2000, **columns):
    errors = Table({'group': ['a'] * n, **columns})
    errors['radius'], errors['aperture'] = 5.0, 4.0
    return errors


def test_coverage_of_errors_that_are_right_and_that_are_half_as_large():
    rng = np.random.default_rng(3)
    error = rng.uniform(1, 5, 4000)
    values = rng.normal(0, error)
    errors = make_errors(4000, right=values, small=values, silent=values)
    errors['right_err'], errors['small_err'] = error, error / 2
    errors['right'][0], errors['right'][1] = 100.0, np.nan
    right, small = coverage(errors)
    assert (right['method'], right['n'], right['n_outliers']) == ('right', 3999, 1)
    assert (small['method'], small['n']) == ('small', 4000)
    # Of a normal distribution within 1, 2, 1/2 and 1 of its standard deviations.
    for row, expected in ((right, (0.6827, 0.9545, 1)), (small, (0.3829, 0.6827, 2))):
        for name, value in zip(('within_1_sigma', 'within_2_sigma', 'pull'), expected, strict=True):
            assert abs(row[name] - value) < 4 * row[f'{name}_err']
        assert row['within_1_sigma_err'] == pytest.approx(np.sqrt(0.22 / 4000), rel=0.2)


def test_coverage_resamples_positions_and_not_apertures():
    """Five apertures that err alike are one."""
    values = np.random.default_rng(4).normal(size=400)
    single = make_errors(400, network=values)
    single['map'], single['x'], single['y'] = 0, np.arange(400.0), 0.0
    single['network_err'] = 1.0
    many = single[np.repeat(np.arange(400), 5)]
    first, second = coverage(single)[0], coverage(many)[0]
    assert first['within_1_sigma'] == second['within_1_sigma']
    assert second['within_1_sigma_err'] == pytest.approx(first['within_1_sigma_err'], rel=0.15)


def test_summary_and_its_errors():
    rng = np.random.default_rng(0)
    values = rng.normal(0.7, 2, 2000)
    values[:3] = np.nan
    row = summarize(make_errors(plane=values))[0]
    good = values[3:]
    assert row['n'] == 1997
    assert_allclose(row['scatter'], mad_std(good))
    assert_allclose(row['rms'], np.sqrt(np.mean(good**2)))
    assert_allclose([row['bias'], row['median']], [good.mean(), np.median(good)])
    # Textbook errors for normal errors.
    n = len(good)
    assert_allclose(row['bias_err'], 2 / np.sqrt(n), rtol=0.15)
    assert_allclose(row['median_err'], 2 * np.sqrt(np.pi / 2 / n), rtol=0.2)
    assert_allclose(row['scatter_err'], 2 * 1.167 / np.sqrt(n), rtol=0.2)


def test_ratios_are_taken_on_the_same_positions():
    rng = np.random.default_rng(1)
    base = rng.normal(0, 1, 500)
    errors = make_errors(500, network=base, same=2 * base, other=rng.normal(0, 2, 500))
    ratios = scatter_ratios(errors, 'network', ['same', 'other'])
    assert_allclose(ratios['scatter_ratio'][0], 0.5)
    assert_allclose(ratios['scatter_ratio_err'][0], 0, atol=1e-12)
    assert abs(ratios['rms_ratio'][1] - 0.5) < 4 * ratios['rms_ratio_err'][1]
    assert ratios['rms_ratio_err'][1] > 0.01
    errors['same'][:490] = np.nan
    ratios = scatter_ratios(errors, 'network', ['same'])
    assert ratios['n'][0] == 10
    assert_allclose(ratios['scatter_ratio'][0], 0.5)


def test_averages_of_ratios():
    ratios = Table({
        'group': ['a', 'b'], 'method': ['network'] * 2, 'reference': ['lpi'] * 2,
        'scatter_ratio': [0.8, 1.0], 'scatter_ratio_err': [0.3, 0.4],
        'rms_ratio': [0.5, 0.7], 'rms_ratio_err': [0.1, 0.1],
    })  # fmt: skip
    row = average_ratios(ratios)[0]
    assert_allclose([row['scatter_ratio'], row['scatter_ratio_err']], [0.9, 0.25])
    assert row['scatter_ratio_worst'] == 1.0
    assert row['n_ratios'] == 2
    # A method that gave nothing in a group.
    ratios.add_row(['c', 'network', 'lpi', np.nan, np.nan, np.nan, np.nan])
    assert list(average_ratios(ratios)[0]) == list(row)


def test_method_without_any_prediction_has_a_row():
    row = summarize(make_errors(5, plane=np.full(5, np.nan)))[0]
    assert row['n'] == 0
    assert np.isnan(row['scatter'])


def test_robust_scatter_ignores_outliers():
    values = np.random.default_rng(1).normal(0, 3, 10001)
    values[:50] = 1e9
    assert_allclose(robust_scatter(values), 3, rtol=0.05)
    assert_allclose(robust_scatter([[1, 2, 3], [1, 1, np.nan]]), [1.4826, 0], rtol=1e-5)
