"""Tests of the network with BatchNorm and rescaling in its weights."""

import copy

import pytest
import torch
from torch.testing import assert_close

from csr_astro import load_model
from csr_astro.nn.folded import fold
from csr_astro.nn.inpainter import Inpainter
from csr_astro.nn.unet import PartialConvUNet


def network(width=0.125, n_hints=0):
    """A network whose BatchNorms do something."""
    torch.manual_seed(3)
    made = PartialConvUNet(width, n_hints=n_hints)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.bias, std=0.3)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
    torch.nn.init.normal_(made.decoder[-1].conv.bias)
    return made.eval().requires_grad_(requires_grad=False)


def inputs(holes, size=96, n=3, n_hints=0):
    """Images, masks with holes of a kind, and hints."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(n, 1, size, size, generator=generator)
    y, x = torch.meshgrid(torch.arange(size) - size // 2, torch.arange(size) - size // 2,
                          indexing='ij')  # fmt: skip
    mask = {
        'none': torch.ones(size, size),
        'disc': (x**2 + y**2 > 81).float(),
        'half': (x < 10).float(),
        'scattered': (torch.rand(size, size, generator=generator) > 0.4).float(),
        'almost all': ((x == 20) & (y == 3)).float(),
        'all': torch.zeros(size, size),
    }[holes].expand(n, 1, size, size).clone()
    if holes != 'all':
        mask[0] = 1
    hints = [torch.randn(n, 1, size, size, generator=generator) for _ in range(n_hints)]
    return image, mask, hints, [1 - mask for _ in range(n_hints)]


def assert_same(found, expected):
    """Check that predictions differ by rounding only."""
    assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize('holes', ['none', 'disc', 'half', 'scattered', 'almost all', 'all'])
@pytest.mark.parametrize('n_hints', [0, 2])
@torch.inference_mode()
def test_folded_network_predicts_the_same(holes, n_hints):
    made = network(n_hints=n_hints)
    given = inputs(holes, n_hints=n_hints)
    for reach in (None, 16):
        assert_same(fold(made)(*given, reach=reach), made(*given, reach=reach))


@pytest.mark.parametrize('size', [128, 160])
@torch.inference_mode()
def test_folded_network_takes_larger_windows(size):
    made, given = network(), inputs('disc', size)
    assert_same(fold(made)(*given), made(*given))


@torch.inference_mode()
def test_values_of_invalid_pixels_have_no_influence():
    folded = fold(network(n_hints=2))
    image, mask, hints, hint_masks = inputs('scattered', n_hints=2)
    expected = folded(image, mask, hints, hint_masks)
    image = torch.where(mask > 0, image, 1e6)
    pairs = zip(hints, hint_masks, strict=True)
    hints = [torch.where(valid > 0, hint, -1e6) for hint, valid in pairs]
    assert torch.equal(folded(image, mask, hints, hint_masks), expected)


@torch.inference_mode()
def test_bfloat16_is_as_near_as_with_autocast():
    model = load_model()
    image, mask, hints, hint_masks = inputs('disc', n_hints=model.network.n_hints)
    exact = model.network(image, mask, hints, hint_masks)
    folded = fold(model.network, torch.bfloat16)(image, mask, hints, hint_masks).float()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        usual = model.network(image, mask, hints, hint_masks).float()
    assert (folded - exact).std() < 1.5 * (usual - exact).std()


def test_folding_leaves_the_network_as_it_is():
    made = network()
    before = copy.deepcopy(made.state_dict())
    fold(made, torch.bfloat16)
    assert all(torch.equal(before[name], each) for name, each in made.state_dict().items())
    assert len(list(made.modules())) == len(list(network().modules()))


@torch.inference_mode()
def test_folded_model_is_the_same_model():
    model = load_model()
    folded = model.folded()
    assert isinstance(folded, Inpainter)
    assert (folded.fill, folded.normalization, folded.info, folded.wings_only) == (
        model.fill, model.normalization, model.info, model.wings_only
    )
    assert folded.network is not model.network
    assert vars(folded).keys() == vars(model).keys()


@pytest.mark.parametrize('wings_only', [False, True])
@torch.inference_mode()
def test_folded_model_predicts_the_same(wings_only):
    model = Inpainter(network(n_hints=2), fill='kriging', wings_only=wings_only).eval()
    image, valid, *_ = inputs('disc', n_hints=2)
    # A source with a bright pixel, and one without.
    image[1:] = torch.where(valid[1:] > 0, image[1:], 50.0)
    image[2] = torch.where(valid[2] > 0, image[2], 1.0)
    given = image.double(), valid, torch.ones_like(valid), 1 - valid, torch.full((3,), 9.0)
    assert_same(model.folded()(*given), model(*given))
