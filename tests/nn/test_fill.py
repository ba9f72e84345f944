"""Tests of the smooth fill, which follows a pyramid of means down and up."""

import pytest
import torch
from helpers_textbook import random_discs
from numpy.testing import assert_allclose

from csr_astro.nn.fill import push_pull_fill


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


SHAPES = [(96, 96), (96, 128), (95, 97), (1, 7)]


@pytest.mark.parametrize('shape', SHAPES)
def test_fill_keeps_valid_pixels_and_stays_between_them(shape):
    torch.manual_seed(1)
    image = torch.randn(2, 1, *shape)
    mask = random_discs(2, shape, n_discs=1) if min(shape) > 90 else torch.ones(2, 1, *shape)
    mask[..., -1] = 0
    filled = push_pull_fill(torch.where(mask > 0, image, 1e9), mask)
    assert torch.equal(filled[mask > 0], image[mask > 0])
    for i in range(2):
        low, high = image[i][mask[i] > 0].aminmax()
        assert low - 1e-6 <= filled[i].min()
        assert filled[i].max() <= high + 1e-6


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('value', [7.0, 0.1, -1e20])
def test_fill_of_a_constant_is_the_constant(shape, value):
    mask = (torch.rand(2, 1, *shape) < 0.3).float()
    mask[..., 0, 0] = 1
    expected = torch.full_like(mask, value)
    assert_allclose(push_pull_fill(value * mask, mask), expected, rtol=1e-6)


@pytest.mark.parametrize('shape', SHAPES)
def test_fill_without_valid_pixels_is_zero(shape):
    filled = push_pull_fill(torch.randn(1, 1, *shape), torch.zeros(1, 1, *shape))
    assert torch.all(filled == 0)


@pytest.mark.parametrize('shape', [(96, 96), (96, 128)])
@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('turns', [0, 1, 2, 3])
def test_fill_follows_flips_and_rotations(shape, flip, turns):
    def turn(x):
        x = torch.rot90(x, turns, (-2, -1))
        return x.flip(-1) if flip else x

    image, mask = torch.randn(2, 1, *shape), random_discs(2, shape)
    assert_allclose(
        push_pull_fill(turn(image), turn(mask)), turn(push_pull_fill(image, mask)), atol=1e-5
    )


def test_fill_of_one_missing_pixel_by_hand():
    """Bilinear between the four 2 x 2 means: 9/16 of its own, 3/16 and 1/16 of the others."""
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    mask = torch.ones_like(image)
    mask[..., 1, 1] = 0
    own, right, below, diagonal = (0 + 1 + 4) / 3, 4.5, 10.5, 12.5
    expected = (9 * own + 3 * right + 3 * below + diagonal) / 16
    assert_allclose(push_pull_fill(image, mask)[0, 0, 1, 1], expected, rtol=1e-6)
