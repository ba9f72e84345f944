"""Tests of the partial-convolution U-Net."""

import pytest
import torch
from helpers_textbook import DECODER, ENCODER, TextbookNetwork, random_discs
from numpy.testing import assert_allclose

from csr_astro.nn.unet import PartialConvUNet
from csr_astro.nn.weights import convert_checkpoint, load_model


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope='module')
def narrow():
    torch.manual_seed(0)
    return PartialConvUNet(width=0.0625).eval().requires_grad_(False)


@pytest.fixture(scope='module')
def paper():
    """The network of full width, without memory for its weights."""
    with torch.device('meta'):
        return PartialConvUNet()


@pytest.mark.parametrize(('shape', 'reach'), [((96, 96), 0), ((96, 128), 13), ((128, 96), 47)])
def test_central_pixels_alone_are_those_of_the_whole_image(narrow, shape, reach):
    image, mask = torch.randn(2, 1, *shape), torch.ones(2, 1, *shape)
    mask[..., 40:60, 44:50] = 0
    mask[1, :, 70:] = 0
    rows, columns = (slice(n // 2 - reach, n // 2 + reach + 1) for n in shape)
    with torch.inference_mode():
        whole = narrow(image, mask)
        found = narrow(image, mask, reach=reach)
    torch.testing.assert_close(found, whole[..., rows, columns], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('reach', [-1, 48])
def test_reach_outside_the_image_is_refused(narrow, reach):
    image = torch.ones(1, 1, 96, 128)
    with pytest.raises(ValueError, match='reach must be from 0 to less than half'):
        narrow(image, image, reach=reach)


def test_paper_network_has_35_million_parameters(paper):
    assert paper.n_parameters == 35_069_409


@pytest.mark.parametrize(('width', 'millions'), [(0.5, 8.8), (0.25, 2.2)])
def test_parameters_grow_with_the_square_of_width(width, millions):
    with torch.device('meta'):
        n_parameters = PartialConvUNet(width=width).n_parameters
    assert n_parameters / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(('side', 'table'), [('encoder', ENCODER), ('decoder', DECODER)])
def test_layers_are_those_of_table_4(paper, side, table):
    layers = [block.conv for block in getattr(paper, side)]
    assert [
        (c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding) for c in layers
    ] == table
    for conv, (n_in, n_out, kernel, _, _) in zip(layers, table, strict=True):
        first = (n_out, n_in) if side == 'encoder' else (n_in, n_out)
        assert conv.weight.shape == (*first, kernel, kernel)


def test_only_the_last_layer_has_bias_and_no_batch_norm(paper):
    blocks = [*paper.encoder, *paper.decoder]
    has_bias = [block.conv.bias is not None for block in blocks]
    has_norm = [isinstance(block.norm, torch.nn.BatchNorm2d) for block in blocks]
    assert has_bias == [False] * 21 + [True]
    assert has_norm == [True] * 21 + [False]


@pytest.mark.parametrize('shape', [(96, 96), (128, 128), (160, 160), (96, 128)])
def test_multiples_of_32_are_accepted(narrow, shape):
    output = narrow(torch.randn(2, 1, *shape), random_discs(2, shape))
    assert output.shape == (2, 1, *shape)
    assert torch.isfinite(output).all()


@pytest.mark.parametrize('shape', [(64, 64), (100, 100), (95, 95), (96, 100), (64, 96)])
def test_other_sizes_are_refused(narrow, shape):
    sentence = rf'multiples of 32 from 96 up, got \({shape[0]}, {shape[1]}\)\.$'
    with pytest.raises(ValueError, match=sentence):
        narrow(torch.zeros(1, 1, *shape), torch.ones(1, 1, *shape))


@pytest.mark.parametrize('width', [0, -1, 4.01, float('nan'), float('inf')])
def test_width_out_of_range_is_refused(width):
    with pytest.raises(ValueError, match='width must be above 0 and at most 4, got'):
        PartialConvUNet(width=width)


@pytest.mark.parametrize('valid_fraction', [0, 1e-4, 0.01, 0.5, 1])
def test_output_is_finite_for_any_mask(narrow, valid_fraction):
    mask = (torch.rand(2, 1, 96, 96) < valid_fraction).float()
    assert torch.isfinite(narrow(torch.randn(2, 1, 96, 96), mask)).all()


def test_nothing_under_the_mask_has_influence(narrow):
    image, mask = torch.randn(2, 1, 96, 96), random_discs(2, (96, 96))
    other = torch.where(mask > 0, image, 1e6)
    assert torch.equal(narrow(image, mask), narrow(other, mask))


def test_every_valid_pixel_near_a_hole_has_influence(narrow):
    image, mask = torch.randn(1, 1, 96, 96), torch.ones(1, 1, 96, 96)
    mask[..., 40:57, 40:57] = 0
    image.requires_grad_()
    narrow(image, mask)[..., 48, 48].sum().backward()
    ring = torch.zeros_like(mask, dtype=torch.bool)
    ring[..., 38:59, 38:59] = True
    assert torch.all(image.grad[ring & (mask > 0)] != 0)


def test_images_of_a_batch_do_not_mix(narrow):
    image, mask = torch.randn(3, 1, 96, 96), random_discs(3, (96, 96))
    alone = torch.cat([narrow(image[i : i + 1], mask[i : i + 1]) for i in range(3)])
    assert_allclose(narrow(image, mask), alone, atol=1e-5 * alone.abs().max())


@pytest.fixture(scope='module')
def textbook_and_converted(tmp_path_factory):
    torch.manual_seed(5)
    textbook = TextbookNetwork().eval().requires_grad_(False)
    folder = tmp_path_factory.mktemp('checkpoint')
    checkpoint, path = folder / 'authors.pt', folder / 'converted.safetensors'
    torch.save(textbook.state_dict(), checkpoint)
    convert_checkpoint(checkpoint, path, title='textbook', licence='none')
    yield textbook, load_model(path)
    # Hundreds of megabytes, which pytest would keep for three runs.
    checkpoint.unlink()
    path.unlink()


@pytest.mark.parametrize('shape', [(96, 96), (96, 128)])
def test_converted_network_equals_textbook(textbook_and_converted, shape):
    textbook, model = textbook_and_converted
    image = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(1))
    mask = random_discs(2, shape, seed=2)
    with torch.no_grad():
        expected, output = textbook(image, mask), model.network(image, mask)
    assert expected.std() > 0.01 * expected.abs().max() > 0
    assert_allclose(output, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_converted_weights_say_how_the_authors_normalise(textbook_and_converted):
    _, model = textbook_and_converted
    assert (model.info.width, model.info.normalization, model.info.fill) == (1, 'minmax', 'none')
    assert (model.info.title, model.info.licence) == ('textbook', 'none')
