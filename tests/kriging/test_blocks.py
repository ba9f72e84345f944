"""Tests of averages over blocks of pixels."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro.kriging import block_window
from csr_astro.kriging.blocks import BLOCKS, find_blocks

SIZE = 97
Y, X = np.indices((SIZE, SIZE)) - SIZE // 2
R = np.hypot(X, Y)


@pytest.fixture(params=[0.9, 1.0])
def valid(request):
    """Pixels outside a mask of 9 pixels, with or without gaps."""
    return (R > 9) & (np.random.default_rng(0).random(R.shape) < request.param)


def test_blocks_are_means_of_the_pixels_around_their_centres(valid):
    values = np.random.default_rng(1).normal(size=R.shape)
    blocks = find_blocks(valid, 9)
    dx, dy, mean, count = blocks.dx, blocks.dy, blocks.means(values), blocks.count
    used = np.zeros(R.shape, dtype=int)
    for n in BLOCKS:
        for k in range(blocks.parts[n].start, blocks.parts[n].stop):
            row, column = dy[k] + SIZE // 2, dx[k] + SIZE // 2
            block = np.s_[row - n // 2 : row + n // 2 + 1, column - n // 2 : column + n // 2 + 1]
            assert valid[block].all()
            assert count[k] == n * n
            assert_allclose(mean[k], values[block].mean())
            used[block] += 1
    assert used.max() == 1
    # Next to the mask no pixel is left out.
    assert (used[valid & (R < 11)] == 1).all()


def test_blocks_do_not_see_invalid_pixels(valid):
    values = np.random.default_rng(1).normal(size=R.shape)
    blocks = find_blocks(valid, 9)
    assert_array_equal(blocks.means(np.where(valid, values, np.nan)), blocks.means(values))


@pytest.mark.parametrize('n', [3, 5])
def test_window_is_averaged_about_its_source(n):
    rng = np.random.default_rng(2)
    values, valid = rng.normal(size=(33, 33)), rng.random((33, 33)) < 0.7
    means, enough, noise = block_window(values, valid, np.full(values.shape, 2.0), n)
    middle = len(means) // 2
    for dy, dx in [(0, 0), (1, 0), (-2, 1)]:
        row, column = 16 + n * dy, 16 + n * dx
        half = n // 2
        block = np.s_[row - half : row + half + 1, column - half : column + half + 1]
        place = middle + dy, middle + dx
        assert_allclose(means[place], values[block][valid[block]].mean())
        assert enough[place] == (valid[block].mean() >= 0.5)
        assert_allclose(noise[place], 2 / n**2)
