"""Sources that are given more than once, and very many that are not on the map."""

import tracemalloc
from dataclasses import fields

import numpy as np
import pytest
from astropy.table import Table
from helpers_removal import SOURCES, make_sky
from numpy.testing import assert_array_equal
from regions import CirclePixelRegion, PixCoord

from csr_astro import InpaintedAperturePhotometry
from csr_astro.flags import decode_flags
from csr_astro.plan import distinct_sources
from csr_astro.sources import parse_sources
from csr_astro.uncertainty import BackgroundErrors
from csr_astro.utils.rows import distinct_rows


@pytest.fixture(scope='module')
def sky():
    return make_sky()


@pytest.fixture(scope='module')
def estimator(make_estimator):
    return make_estimator(fwhm=3.3)


def photometry(estimator):
    return InpaintedAperturePhotometry([3, 5], estimator=estimator, annulus=(8, 14))


NUMBERS = ('aperture_sum_0', 'aperture_sum_err_0', 'flux_1', 'flux_err_1', 'annulus_flux_0')


@pytest.mark.parametrize('copies', [2, 40])
def test_copies_change_nothing_but_the_flag(estimator, sky, copies):
    alone = estimator.estimate(sky, SOURCES)
    sources = np.repeat(SOURCES, copies, axis=0)
    order = np.random.default_rng(0).permutation(len(sources))
    result = estimator.estimate(sky, sources[order])
    for name in ('background', 'background_rms', 'source_image', 'mask'):
        assert_array_equal(getattr(result, name), getattr(alone, name))
    assert_array_equal(result.realization(3), alone.realization(3))
    row = np.repeat(np.arange(len(SOURCES)), copies)[order]
    for name in ('x_center', 'y_center', 'snr', 'mask_radius', 'background', 'background_scatter'):
        assert_array_equal(result.sources[name], alone.sources[name][row])
    assert all('overlap' in names for names in decode_flags(result.flags))
    table, expected = photometry(estimator)(result), photometry(estimator)(alone)
    for name in NUMBERS:
        assert_array_equal(table[name], expected[name][row])
    assert_array_equal(table['id'], np.arange(len(sources)) + 1)
    assert_array_equal(result.covariance(1).matrix, alone.covariance(int(row[0]) + 1).matrix)
    one, other = np.flatnonzero(row == 0)[:2] + 1
    assert_array_equal(result.covariance(one, other), alone.covariance(1).matrix)


def test_each_distinct_source_is_predicted_once(estimator, sky):
    plan = estimator.plan(sky, [SOURCES[0], SOURCES[2], SOURCES[0], SOURCES[0]])
    assert sorted(i for index, _ in plan.batches for i in index) == [0, 1]
    assert_array_equal(plan.first, [0, 1, 0, 0])


def test_sources_with_the_same_pixels_are_predicted_once(estimator, sky):
    """Far below the pixel, positions move neither window nor mask."""
    x, y = SOURCES[2]
    offsets = 1e-4 * np.arange(50)
    result = estimator.estimate(sky, np.column_stack([x + offsets, y + offsets]))
    assert len(set(result.first)) == 1
    alone = estimator.estimate(sky, [SOURCES[2]])
    assert_array_equal(result.background, alone.background)
    table = photometry(estimator)(result)
    # Their apertures are not the same, and each is measured.
    assert len(np.unique(table['aperture_sum_0'])) == 50


@pytest.mark.parametrize('kind', ['radii', 'regions', 'table'])
def test_masks_that_differ_are_predicted_apart(estimator, sky, kind):
    x, y = SOURCES[2]
    if kind == 'radii':
        result = estimator.estimate(sky, [(x, y)] * 3, mask_radius=[4, 6, 4])
        first = [0, 1, 0]
    elif kind == 'regions':
        regions = [CirclePixelRegion(PixCoord(x, y), radius) for radius in (4, 6, 4)]
        result = estimator.estimate(sky, regions)
        first = [0, 1, 0]
    else:
        table = Table({'id': ['a', 'b', 'c'], 'x': [x] * 3, 'y': [y] * 3})
        result = estimator.estimate(sky, table, keep=True)
        assert_array_equal(result.sources['id'], ['a', 'b', 'c'])
        first = [0, 0, 0]
    assert_array_equal(result.first, first)


def test_kriging_of_copies_is_computed_once(estimator, sky, monkeypatch):
    made = []
    window = BackgroundErrors.window

    def count(self, i, reach=0.0):
        found = window(self, i, reach)
        # The windows themselves, because the number of a freed one is used again.
        if not any(found is each for each in made):
            made.append(found)
        return found

    monkeypatch.setattr(BackgroundErrors, 'window', count)
    result = estimator.estimate(sky, [SOURCES[0], SOURCES[2]] * 100)
    assert np.isfinite(result.background_rms).all()
    photometry(estimator)(result)
    assert len(made) <= 6


def test_positions_off_the_map_cost_no_more_than_their_rows(estimator, sky):
    n = 100_000
    positions = np.random.default_rng(0).uniform(-1e5, 1e5, (n, 2))
    positions[7] = SOURCES[2]
    estimator.estimate(sky, [SOURCES[2]])
    tracemalloc.start()
    result = estimator.estimate(sky, positions)
    table = photometry(estimator)(result)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Rows of about 20 columns, and copies of some.
    assert peak < 1500 * n
    assert_array_equal(np.isfinite(table['flux_0']), np.arange(n) == 7)
    assert_array_equal(table['x_center'].value, positions[:, 0])
    assert_array_equal(table['id'], np.arange(n) + 1)
    alone = photometry(estimator)(estimator.estimate(sky, [SOURCES[2]]))
    assert table['flux_0'][7] == alone['flux_0'][0]


@pytest.mark.parametrize('n', [0, 1, 2])
def test_unmeasured_sources_alone_are_rows(estimator, sky, n):
    result = estimator.estimate(sky, [(-500, 3), (np.nan, 4)][:n])
    table = photometry(estimator)(result)
    assert len(table) == n
    assert_array_equal(table['x_center'].value, np.array([-500, np.nan])[:n])
    assert np.isnan(table['flux_0']).all()
    assert decode_flags(table['flags']) == [['off_map'], ['invalid_position']][:n]


def test_distinct_rows_are_found_in_their_order():
    kept, inverse = distinct_rows([np.array([5, 3, 5, 3, 1.0]), np.array([1, 1, 1, 2, np.nan])])
    assert_array_equal(kept, [0, 1, 3, 4])
    assert_array_equal(inverse, [0, 1, 0, 2, 3])
    kept, inverse = distinct_rows([np.array([np.nan, np.nan]), np.array([1.0, 1.0])])
    assert_array_equal(kept, [0, 1])
    assert_array_equal(inverse, [0, 1])


def test_wrong_radii_are_refused_as_before(estimator, sky):
    with pytest.raises(ValueError, match='one for each of the 4 sources'):
        estimator.estimate(sky, [SOURCES[0]] * 4, mask_radius=[4, 5])
    sources = parse_sources([SOURCES[0]] * 2)
    for radius in (['a', 'b'], [4, 5, 6]):
        assert_array_equal(distinct_sources(sources, radius)[0], [0, 1])
    assert 'first' in [field.name for field in fields(estimator.plan(sky, SOURCES))]
