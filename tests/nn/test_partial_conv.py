"""Tests of the partial convolution."""

import pytest
import torch
from helpers_textbook import DECODER, ENCODER, textbook_layer
from numpy.testing import assert_allclose
from torch.nn import functional as F

from csr_astro.nn.partial_conv import PartialConv2d, PartialConvTranspose2d

# Every (kernel, stride, padding) of the paper's Table 4, down and up.
LAYERS = [
    pytest.param(PartialConv2d, geometry, id=f'down-{geometry}')
    for geometry in sorted({layer[2:] for layer in ENCODER})
] + [
    pytest.param(PartialConvTranspose2d, geometry, id=f'up-{geometry}')
    for geometry in sorted({layer[2:] for layer in DECODER})
]
both_directions = pytest.mark.parametrize(('kind', 'geometry'), LAYERS)


def make(kind, geometry, channels=(3,), *, bias=True, valid_fraction=0.2, seed=0):
    """A layer with random weights, inputs and sparse random masks."""
    torch.manual_seed(seed)
    layer = kind(sum(channels), 5, *geometry, bias=bias)
    if bias:
        torch.nn.init.normal_(layer.bias)
    tensors = [torch.randn(2, n, 12, 16) for n in channels]
    masks = [(torch.rand(2, 1, 12, 16) < valid_fraction).float() for _ in channels]
    return layer, tensors, masks


def expand(tensors, masks):
    """Concatenated input, and its mask with all channels."""
    full = [mask.expand_as(tensor) for tensor, mask in zip(tensors, masks, strict=True)]
    return torch.cat(tensors, 1), torch.cat(full, 1)


@both_directions
@pytest.mark.parametrize('channels', [(1,), (3,), (3, 2)], ids=str)
@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('valid_fraction', [0.02, 0.5])
def test_layer_equals_textbook(kind, geometry, channels, bias, valid_fraction):
    layer, tensors, masks = make(kind, geometry, channels, bias=bias, valid_fraction=valid_fraction)
    expected, expected_mask = textbook_layer(
        *expand(tensors, masks),
        layer.weight,
        layer.bias,
        stride=geometry[1],
        padding=geometry[2],
        transposed=kind is PartialConvTranspose2d,
    )
    output, mask = layer(tensors, masks)
    assert output.shape == expected.shape
    assert_allclose(output.detach(), expected.detach(), rtol=1e-5, atol=1e-5)
    # The one channel of our mask stands for all of the textbook's.
    assert mask.shape == (2, 1, *output.shape[-2:])
    assert torch.equal(mask.expand_as(expected_mask), expected_mask)
    assert torch.all(output[expected_mask == 0] == 0)


def test_window_sum_by_hand():
    """One valid pixel of value 2 under a 3 x 3 kernel: w · 2 · 9 / 1 + b, and 0 elsewhere."""
    layer = PartialConv2d(1, 1, 3, padding=1, bias=True)
    torch.nn.init.constant_(layer.bias, 0.5)
    image, mask = torch.full((1, 1, 7, 7), 99.0), torch.zeros(1, 1, 7, 7)
    image[..., 3, 3], mask[..., 3, 3] = 2, 1
    output, new_mask = layer([image], [mask])
    assert_allclose(
        output[0, 0, 2:5, 2:5].detach(),
        18 * layer.weight[0, 0].flip(0, 1).detach() + 0.5,
        rtol=1e-6,
    )
    assert output.count_nonzero() == new_mask.sum() == 9


@both_directions
def test_values_under_the_mask_have_no_influence(kind, geometry):
    layer, tensors, masks = make(kind, geometry, (3, 2))
    other = [
        torch.where(m > 0, x, torch.randn_like(x) * 1e6)
        for x, m in zip(tensors, masks, strict=True)
    ]
    assert torch.equal(layer(tensors, masks)[0], layer(other, masks)[0])


@both_directions
def test_valid_interior_equals_plain_convolution(kind, geometry):
    layer, tensors, masks = make(kind, geometry, (3, 2), valid_fraction=2)
    convolve = F.conv2d if kind is PartialConv2d else F.conv_transpose2d
    expected = convolve(
        torch.cat(tensors, 1), layer.weight, layer.bias, stride=geometry[1], padding=geometry[2]
    )
    output, mask = layer(tensors, masks)
    inside = (..., slice(2, -2), slice(2, -2))
    assert_allclose(output[inside].detach(), expected[inside].detach(), rtol=1e-5, atol=1e-5)
    assert torch.all(mask == 1)


@both_directions
@pytest.mark.parametrize('channels', [(3,), (3, 2)], ids=str)
def test_all_invalid_gives_zeros(kind, geometry, channels):
    layer, tensors, masks = make(kind, geometry, channels, valid_fraction=-1)
    output, mask = layer(tensors, masks)
    assert torch.all(output == 0)
    assert torch.all(mask == 0)


@both_directions
@pytest.mark.parametrize('valid_fraction', [-1, 0.05, 2])
def test_gradients_are_finite_and_vanish_under_the_mask(kind, geometry, valid_fraction):
    layer, tensors, masks = make(kind, geometry, (3, 2), valid_fraction=valid_fraction)
    for tensor in tensors:
        tensor.requires_grad_()
    layer(tensors, masks)[0].square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())
    for tensor, mask in zip(tensors, masks, strict=True):
        assert torch.isfinite(tensor.grad).all()
        assert torch.all(tensor.grad[(mask == 0).expand_as(tensor)] == 0)


def test_a_mask_for_each_tensor_is_required():
    layer, tensors, masks = make(PartialConv2d, (3, 1, 1), (3, 2))
    with pytest.raises(ValueError, match='shorter'):
        layer(tensors, masks[:1])
