"""Tests of the windows around sources."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from csr_astro.cutouts import MAX_RADIUS, extract, extract_mask, window_size
from csr_astro.images import parse_image

DATA = np.arange(1, 30 * 40 + 1, dtype=float).reshape(30, 40)


@pytest.mark.parametrize(
    ('radius', 'size'),
    [(0, 96), (4, 96), (28, 96), (28.01, 128), (44, 128), (44.5, 160), (MAX_RADIUS, 480)],
)
def test_window_reaches_beyond_the_mask(radius, size):
    """The paper's 96 pixels, or the next multiple of 32 that leaves 20 pixels on each side."""
    assert window_size(radius) == size
    assert size / 2 >= radius + 20
    assert_array_equal(window_size([radius, 5]), [size, 96])


def pixel_by_pixel(data, x, y, size):
    """A cutout with the pixel nearest to (x, y) at (size // 2, size // 2)."""
    cutout = np.full((size, size), np.nan)
    for row in range(size):
        for column in range(size):
            i, j = row + round(y) - size // 2, column + round(x) - size // 2
            if 0 <= i < data.shape[0] and 0 <= j < data.shape[1]:
                cutout[row, column] = data[i, j]
    return cutout


POSITIONS = [(20, 15), (20.4, 14.6), (0, 0), (39.3, 29.4), (-4, 7), (44, 34.2), (20, -5)]


OFF_MAP = [(-100, 5), (20, 90), (1e6, 1e6)]


@pytest.mark.parametrize('size', [8, 9, 97])
def test_cutouts_show_the_map_and_end_with_it(size):
    values = extract(parse_image(DATA), *np.transpose(POSITIONS + OFF_MAP), size)
    expected = [pixel_by_pixel(DATA, x, y, size) for x, y in POSITIONS]
    assert_array_equal(values[: len(POSITIONS)], expected)
    assert np.isnan(values[len(POSITIONS) :]).all()


@pytest.mark.parametrize('dtype', ['f4', '>f8', '>i2', 'u2'])
def test_cutouts_are_double_precision(dtype):
    values = extract(parse_image(DATA.astype(dtype)), [20], [15], 9)
    assert values.dtype == np.float64
    assert_array_equal(values[0], pixel_by_pixel(DATA, 20, 15, 9))


def test_invalid_pixels_are_not_a_number():
    data = DATA.copy()
    data[14, 19], data[15, 20], data[16, 21] = np.nan, np.inf, -np.inf
    mask = np.zeros(DATA.shape, dtype=bool)
    mask[12, 18] = True
    original = data.copy()
    values = extract(parse_image(data, mask=mask), [20], [15], 9)[0]
    assert np.argwhere(np.isnan(values)).tolist() == [[1, 2], [3, 3], [4, 4], [5, 5]]
    assert np.isfinite(values).sum() == 81 - 4
    assert_array_equal(data, original)


def test_cutouts_of_masks_end_with_the_map():
    mask = np.random.default_rng(0).random(DATA.shape) < 0.3
    values = extract_mask(mask, *np.transpose(POSITIONS + OFF_MAP), 9)
    assert values.dtype == bool
    expected = [pixel_by_pixel(mask, x, y, 9) == 1 for x, y in POSITIONS]
    assert_array_equal(values[: len(POSITIONS)], expected)
    assert not values[len(POSITIONS) :].any()
