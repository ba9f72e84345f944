"""Windows around sources."""

import numpy as np
from numpy.testing import assert_array_equal
from photutils.aperture import CircularAperture

from csr_astro.evaluation.windows import circle_weights, cut_windows, window_center
from csr_astro.images import parse_image
from csr_astro.masking import combined_mask, disc


def test_windows_hold_the_map_its_background_and_the_mask():
    data = np.random.default_rng(0).normal(size=(60, 70))
    data[30, 22] = np.nan
    x, y = np.array([20.4, 28.0]), np.array([30.0, 31.6])
    masks = [disc(*place, 4, data.shape) for place in zip(x, y, strict=True)]
    covered = combined_mask(masks, data.shape)
    values, valid, hole = cut_windows(parse_image(data), covered, masks, x, y, 41)
    assert_array_equal(values[0], data[10:51, :41])
    assert_array_equal(valid[0], (np.isfinite(data) & ~covered)[10:51, :41])
    expected = np.zeros(data.shape, dtype=bool)
    expected[masks[0].on_map()] = True
    assert_array_equal(hole[0], (expected & np.isfinite(data))[10:51, :41])
    # The second window ends beyond the map.
    assert np.isnan(values[1][:, -1]).sum() == 0
    assert hole[1].sum() == masks[1].pixels.sum()


def test_center_is_where_the_source_is_in_its_window():
    assert window_center(20.25, 31.5, 41) == (20.25, 19.5)


def test_weights_are_those_of_photutils():
    rows, columns = np.indices((41, 41)).reshape(2, -1)
    weights = circle_weights((20.3, 19.6), [3, 5.5], rows, columns)
    for found, radius in zip(weights, (3, 5.5), strict=True):
        mask = CircularAperture((20.3, 19.6), radius).to_mask(method='exact')
        assert_array_equal(found.reshape(41, 41), mask.to_image((41, 41)))
