import pytest
import torch

from csr_astro.nn.unet import PartialConvUNet
from csr_astro.nn.weights import load_model
from csr_astro.training.loop import _initial_model
from csr_astro.training.recipe import Recipe
from csr_astro.training.widening import widen_network


def inputs(n_hints=0):
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(2, 1, 96, 96, generator=generator)
    mask = torch.ones_like(image)
    mask[..., 40:57, 38:52] = 0
    mask[1, :, 80:] = 0
    return image, mask, [image] * n_hints, [1 - mask] * n_hints


@pytest.fixture
def narrow():
    """With statistics and weights as of a trained network: no channel like another."""
    torch.manual_seed(0)
    network = PartialConvUNet(0.0625, n_hints=2).train()
    with torch.no_grad():
        for _ in range(3):
            network(*inputs(2))
    return network.eval()


@pytest.mark.parametrize('factor', [2, 3])
def test_widened_network_predicts_the_same(narrow, factor):
    wide = PartialConvUNet(factor * 0.0625, n_hints=2).eval()
    widen_network(narrow, wide)
    with torch.no_grad():
        torch.testing.assert_close(wide(*inputs(2)), narrow(*inputs(2)), rtol=1e-4, atol=1e-4)


def test_multiples_are_those_of_channels():
    # 0.3 / 0.1 is no whole number, and 0.05 has no half as many channels as 0.1.
    narrow, wide = (PartialConvUNet(width, n_hints=2).eval() for width in (0.25, 0.75))
    narrow.width, wide.width = 0.1, 0.3
    widen_network(narrow, wide)
    with pytest.raises(ValueError, match='whole multiple'):
        widen_network(*(PartialConvUNet(width) for width in (0.05, 0.1)))


def test_copies_of_a_channel_learn_different_things(narrow):
    wide = PartialConvUNet(0.125, n_hints=2).eval()
    widen_network(narrow, wide)
    wide(*inputs(2)).square().mean().backward()
    for block in (*wide.encoder[1:], *wide.decoder[:-1]):
        gradient = block.conv.weight.grad
        axis = 0 if block in wide.encoder else 1
        first, second = gradient.chunk(2, dim=axis)
        assert (first - second).abs().max() > 1e-3 * gradient.abs().max()


def test_training_begins_with_the_bundled_weights_widened():
    recipe = Recipe(width=0.5, fill='kriging+spline', start='default')
    found = _initial_model(recipe, torch.device('cpu')).eval().network
    expected = load_model('default').network
    with torch.no_grad():
        torch.testing.assert_close(
            found(*inputs(4)), expected(*inputs(4)), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize(('width', 'hints'), [(0.09375, 2), (0.03125, 2), (0.125, 0), (0.13, 2)])
def test_network_that_cannot_be_widened_so_is_refused(narrow, width, hints):
    with pytest.raises(ValueError, match='whole multiple'):
        widen_network(narrow, PartialConvUNet(width, n_hints=hints))
