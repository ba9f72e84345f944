import pickle
import sys
from dataclasses import FrozenInstanceError, astuple
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.torch import save_file
from scipy import ndimage
from torch.nn import functional as F

from csr_astro.training.features import VGG16Features, gram_matrix, oriented_features
from csr_astro.training.losses import (
    PAPER_WEIGHTS,
    LossWeights,
    hole_l1,
    hole_loss,
    loss_terms,
    paper_loss,
    source_loss,
    ssim_loss,
    style_loss,
    total_loss,
    valid_loss,
    windowed_l1,
)

needs_kornia = pytest.mark.skipif(find_spec('kornia') is None, reason='needs kornia')
SHAPE = (3, 1, 40, 48)


def random_images(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *SHAPE, generator=generator, dtype=torch.float64)


@pytest.fixture
def cutouts():
    """Prediction, target, image, valid, hole; the first five columns are blank."""
    prediction, target, source = random_images(3)
    y, x = np.indices(SHAPE[-2:])
    hole = torch.zeros(SHAPE, dtype=torch.float64)
    for b in range(SHAPE[0]):
        hole[b, 0] = torch.from_numpy(np.hypot(y - 20, x - 24) <= 5 + b)
    valid = 1 - hole
    valid[..., :5] = 0
    return prediction, target, target + source.abs(), valid, hole


# Each term against its formula


def test_hole_and_valid_loss_are_per_pixel_of_the_cutout(cutouts):
    prediction, target, _, valid, hole = cutouts
    for loss, mask in ((hole_loss, hole), (valid_loss, valid)):
        expected = [
            np.abs(m * (p - t)).sum() / p.size
            for p, t, m in zip(prediction.numpy(), target.numpy(), mask.numpy(), strict=True)
        ]
        assert_allclose(loss(prediction, target, mask), expected, rtol=1e-12)
    area = hole.mean(dim=(1, 2, 3))
    expected = hole_l1(prediction, target, hole) * area
    assert_allclose(hole_loss(prediction, target, hole), expected, rtol=1e-12)


def numpy_gram(maps):
    flat = maps.reshape(len(maps), -1)
    return np.einsum('ci,di->cd', flat, flat) / flat.size


def test_gram_matrix_is_that_of_its_formula():
    maps = torch.randn(2, 5, 6, 7, dtype=torch.float64)
    assert_allclose(gram_matrix(maps), [numpy_gram(m) for m in maps.numpy()], rtol=1e-12)


def test_style_loss_is_that_of_its_formula(cutouts):
    prediction, target, composite, _, _ = cutouts
    expected = 0
    for image in (prediction, composite):
        for maps, wanted in zip(oriented_features(image), oriented_features(target), strict=True):
            expected += np.array([
                np.abs(numpy_gram(m) - numpy_gram(w)).mean()
                for m, w in zip(maps.numpy(), wanted.numpy(), strict=True)
            ])
    assert_allclose(style_loss(prediction, target, composite), expected, rtol=1e-10)


def test_style_loss_takes_any_features():
    ones = torch.ones(SHAPE)
    loss = style_loss(3 * ones, ones, 2 * ones, features=lambda image: [image, 2 * image])
    # Gram matrices of one constant: its square.
    assert_allclose(loss, np.full(3, (9 - 1) + (4 - 1) + 4 * (9 - 1) + 4 * (4 - 1)))


def numpy_ssim(a, b, data_range, window=5):
    """SSIM map under a Gaussian of so many pixels, mirrored at the edges."""
    taps = np.exp(-((np.arange(window) - window // 2) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def mean(x):
        for axis in (0, 1):
            x = ndimage.correlate1d(x, taps, axis, mode='mirror')
        return x

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    covariance = mean(a * b) - mean(a) * mean(b)
    variances = mean(a**2) - mean(a) ** 2 + mean(b**2) - mean(b) ** 2
    return (
        (2 * mean(a) * mean(b) + c1) * (2 * covariance + c2)
        / ((mean(a) ** 2 + mean(b) ** 2 + c1) * (variances + c2))
    )


@needs_kornia
@pytest.mark.parametrize('data_range', [1, 5.0])
def test_ssim_loss_is_that_of_its_formula(cutouts, data_range):
    prediction, target = cutouts[:2]
    expected = [
        (1 - numpy_ssim(p[0], t[0], data_range).mean()) / 2
        for p, t in zip(prediction.numpy(), target.numpy(), strict=True)
    ]
    loss = ssim_loss(prediction, target, data_range=data_range)
    assert_allclose(loss, expected, rtol=1e-6)


def test_ssim_formula_is_that_of_scikit_image(cutouts):
    metrics = pytest.importorskip('skimage.metrics')
    a, b = (image[0, 0].numpy() for image in cutouts[:2])
    _, expected = metrics.structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1,
        full=True,
    )
    # Its Gaussian has always 11 pixels, and it mirrors otherwise at the edges.
    inner = np.s_[5:-5, 5:-5]
    assert_allclose(numpy_ssim(a, b, 1, window=11)[inner], expected[inner], rtol=1e-9)


def test_source_loss_is_that_of_its_formula(cutouts):
    composite, target, image, _, _ = (array.numpy() for array in cutouts)
    expected = np.abs((image - target) - (image - composite)).mean(axis=(1, 2, 3))
    assert_allclose(source_loss(*cutouts[:2]), expected, rtol=1e-12)


def test_bright_source_costs_no_precision():
    target = torch.rand(SHAPE)
    composite = target + 1e-3
    assert_allclose(source_loss(composite, target), np.full(3, 1e-3), rtol=1e-4)


# All together


@needs_kornia
def test_paper_loss_has_the_papers_weights(cutouts):
    prediction, target, image, valid, hole = cutouts
    measured = valid + hole
    prediction, target, image = (x * measured for x in (prediction, target, image))
    composite = image * (1 - hole) + prediction * hole
    expected = (
        6 * (hole_loss(prediction, target, hole) + valid_loss(prediction, target, valid))
        + 120 * style_loss(prediction, target, composite)
        + 0.4 * ssim_loss(prediction, target)
        + source_loss(composite, target)
    )
    assert_allclose(paper_loss(*cutouts), expected, rtol=1e-12)


def test_terms_of_weight_zero_are_not_computed(cutouts):
    def features(_):
        raise AssertionError

    weights = LossWeights(hole=1, valid=0, style=0, ssim=0, source=0, windowed=2)
    terms = loss_terms(*cutouts, weights=weights, features=features, window=9)
    assert list(terms) == ['hole', 'windowed']
    prediction, target, _, _, hole = cutouts
    expected = hole_loss(prediction, target, hole) + 2 * windowed_l1(prediction, target, hole, 9)
    assert_allclose(total_loss(terms, weights), expected, rtol=1e-12)


@needs_kornia
@pytest.mark.parametrize('image', ['target', 'sources outside the hole'])
def test_perfect_prediction_costs_only_what_the_input_does(cutouts, image):
    _, target, input_image, valid, hole = cutouts
    weights = LossWeights(windowed=1)
    input_image = target if image == 'target' else input_image
    terms = loss_terms(target, target, input_image, valid, hole, weights=weights)
    for name in ('hole', 'valid', 'windowed'):
        assert_allclose(terms[name], np.zeros(3), atol=0)
    # The SSIM of equal images is 1 but for a small number in kornia's denominator.
    assert_allclose(terms['ssim'], np.zeros(3), atol=1e-5)
    for name in ('style', 'source'):
        assert (terms[name] > 0).all() == (image != 'target')


@needs_kornia
def test_loss_of_an_image_does_not_depend_on_its_batch(cutouts):
    together = paper_loss(*cutouts)
    for b in range(SHAPE[0]):
        alone = paper_loss(*(array[b : b + 1] for array in cutouts))
        assert_allclose(alone, together[b : b + 1], rtol=1e-10)


@needs_kornia
def test_blank_pixels_count_in_no_term(cutouts):
    weights = LossWeights(windowed=1)
    expected = loss_terms(*cutouts, weights=weights)
    prediction, target, image, valid, hole = cutouts
    blank = (valid + hole) == 0
    for value in (1e9, np.nan):
        filled = [torch.where(blank, value, x) for x in (prediction, target, image)]
        terms = loss_terms(*filled, valid, hole, weights=weights)
        for name, term in terms.items():
            assert_allclose(term, expected[name], rtol=0, err_msg=name)


@needs_kornia
@pytest.mark.parametrize('name', ['hole', 'valid', 'style', 'ssim', 'source', 'windowed'])
def test_gradient_reaches_the_pixels_that_are_judged(cutouts, name):
    prediction, target, image, valid, hole = cutouts
    prediction[..., 0] = torch.nan
    prediction.requires_grad_()
    only = {key: float(key == name) for key in LossWeights.__annotations__}
    paper_loss(
        prediction, target, image, valid, hole, weights=LossWeights(**only)
    ).sum().backward()
    gradient = prediction.grad
    assert torch.isfinite(gradient).all()
    reached = gradient != 0
    assert not reached[(valid + hole) == 0].any()
    assert reached[hole > 0].all() == (name != 'valid')
    assert reached[valid > 0].all() == (name in {'valid', 'style', 'ssim'})


@needs_kornia
def test_source_loss_pulls_as_the_hole_loss_does(cutouts):
    prediction, *others = cutouts
    prediction.requires_grad_()
    gradients = []
    for name in ('hole', 'source'):
        term = loss_terms(prediction, *others)[name]
        gradients.append(torch.autograd.grad(term.sum(), prediction)[0])
    assert torch.equal(*gradients)


def test_weights_are_the_papers_and_cannot_change():
    assert astuple(PAPER_WEIGHTS) == (6, 6, 120, 0.4, 1, 0)
    with pytest.raises(FrozenInstanceError):
        PAPER_WEIGHTS.hole = 1


@pytest.mark.parametrize('value', [-1, np.nan, np.inf])
def test_weights_must_be_finite_and_not_negative(value):
    with pytest.raises(ValueError, match="'style' must be finite and not negative, got"):
        LossWeights(style=value)


def test_total_of_unknown_terms_is_refused():
    with pytest.raises(ValueError, match=r"no terms \['tv'\]; it has \['hole', 'valid', 'style'"):
        total_loss({'tv': torch.zeros(1), 'hole': torch.zeros(1)})


def test_total_of_no_terms_is_refused(cutouts):
    with pytest.raises(ValueError, match='at least one term whose weight is not 0'):
        paper_loss(*cutouts, weights=LossWeights(0, 0, 0, 0, 0))


@pytest.mark.parametrize('loss', [
    hole_loss,
    valid_loss,
    style_loss,
    lambda a, b, c: source_loss(a, b + c),
    lambda a, b, c: paper_loss(a, b, a, 1 - c, c),
])
def test_images_that_would_be_broadcast_are_refused(loss):
    image, flat = torch.zeros(4, 1, 32, 32), torch.zeros(4, 32, 32)
    for images in ((image, flat, flat), (flat, flat, flat)):
        with pytest.raises(ValueError, match=r'one and the same shape \(B, 1, H, W\), got'):
            loss(*images)


@needs_kornia
def test_ssim_refuses_bad_windows_and_ranges():
    image = torch.zeros(1, 1, 16, 16)
    for window in (0, 4, -3, 33):
        with pytest.raises(ValueError, match=rf'window must be odd and fit .*got {window}'):
            ssim_loss(image, image, window=window)
    with pytest.raises(ValueError, match='data_range must be positive, got 0'):
        ssim_loss(image, image, data_range=0)


def test_missing_kornia_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'kornia.losses', None)
    with pytest.raises(ImportError, match=r'needs kornia; install it with: .*csr_astro\[train\]'):
        ssim_loss(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16))


# The bank of filters


def plane_wave(wavelength, angle, phase=0.0, size=96):
    y, x = np.indices((size, size))
    u = x * np.cos(angle) + y * np.sin(angle)
    return torch.from_numpy(np.cos(2 * np.pi * u / wavelength + phase))[None, None]


def amplitude(maps):
    """Root of the mean energy, even and odd, away from the edges, by orientation."""
    height, width = maps.shape[-2:]
    inner = maps[0, :, height // 4 : -height // 4, width // 4 : -width // 4]
    return (inner**2).mean(dim=(1, 2)).reshape(2, -1).sum(dim=0).sqrt().numpy()


@pytest.mark.parametrize('n_orientations', [4, 6])
@pytest.mark.parametrize('scale', [0, 1, 2])
def test_plane_wave_excites_its_scale_and_orientation(scale, n_orientations):
    for number in range(n_orientations):
        wave = plane_wave(4 * 2**scale, np.pi * number / n_orientations)
        response = np.array(
            [amplitude(maps) for maps in oriented_features(wave, n_orientations=n_orientations)]
        )
        assert np.unravel_index(response.argmax(), response.shape) == (scale, number)
        if n_orientations == 4:
            across = response[scale, (number + 2) % 4]
            assert across < 0.1 * response.max()


@pytest.mark.parametrize('angle', [0.0, 0.7, 1.5])
def test_energy_does_not_depend_on_the_phase(angle):
    energies = []
    for phase in (0.0, 0.8, np.pi / 2, 2.5):
        maps = oriented_features(plane_wave(8, angle, phase))[1][0, :, 16:32, 16:32]
        energies.append((maps**2).reshape(2, 4, -1).sum(dim=0).amax(dim=0))
    energies = torch.stack(energies)
    assert energies.std() < 0.03 * energies.mean()


def test_opposite_orientations_swap_when_the_image_is_transposed():
    image = random_images(1)[0]
    here, there = oriented_features(image), oriented_features(image.mT)
    # Transposing takes an angle t to 90 degrees - t; 135 degrees is the wave of -45 reversed.
    order, sign = [2, 1, 0, 3, 6, 5, 4, 7], [1] * 7 + [-1]
    for a, b in zip(here, there, strict=True):
        expected = b.mT[:, order] * torch.tensor(sign)[:, None, None]
        assert_allclose(a, expected, atol=1e-12)


def test_even_and_odd_responses_have_their_symmetry():
    impulse = torch.zeros(1, 1, 33, 33, dtype=torch.float64)
    impulse[..., 16, 16] = 1
    maps = oriented_features(impulse, n_scales=1)[0]
    assert_allclose(maps[:, :4], maps[:, :4].flip(-1, -2), atol=1e-15)
    assert_allclose(maps[:, 4:], -maps[:, 4:].flip(-1, -2), atol=1e-15)
    assert_allclose(maps.sum(dim=(-2, -1)), np.zeros((1, 8)), atol=1e-14)
    assert_allclose((maps**2).sum(dim=(-2, -1)), np.ones((1, 8)), rtol=1e-12)


def test_constant_has_no_response():
    for maps in oriented_features(torch.full((1, 1, 47, 33), 1e3, dtype=torch.float64)):
        assert_allclose(maps, np.zeros(maps.shape), atol=1e-10)


def test_white_noise_keeps_its_variance():
    noise = torch.randn(4, 1, 96, 96, generator=torch.Generator().manual_seed(1))
    variance = oriented_features(noise)[0].var(dim=(0, 2, 3))
    assert_allclose(variance, np.ones(8), rtol=0.1)


def test_shapes_follow_the_numbers_of_scales_and_orientations():
    features = oriented_features(torch.zeros(2, 1, 50, 37), n_scales=3, n_orientations=5)
    assert [tuple(maps.shape) for maps in features] == [
        (2, 10, 50, 37), (2, 10, 25, 19), (2, 10, 13, 10)
    ]


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize('device', [
    'cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(),
                                                         reason='needs a GPU')),
])
def test_features_are_where_the_image_is(dtype, device):
    for maps in oriented_features(torch.ones(1, 1, 32, 32, dtype=dtype, device=device)):
        assert (maps.dtype, maps.device.type) == (dtype, device)


def test_features_used_in_inference_can_train_later():
    image = torch.randn(1, 1, 32, 32, requires_grad=True)
    with torch.inference_mode():
        oriented_features(image)
    oriented_features(image)[2].sum().backward()
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize('shape', [(1, 1, 16, 64), (1, 3, 64, 64), (64, 64), (1, 64, 64)])
def test_images_that_the_bank_cannot_filter_are_refused(shape):
    with pytest.raises(ValueError, match=r'shape \(B, 1, H, W\) with H and W at least 17, got'):
        oriented_features(torch.zeros(shape))


@pytest.mark.parametrize('option', ['n_scales', 'n_orientations'])
def test_empty_banks_are_refused(option):
    with pytest.raises(ValueError, match='must be at least 1'):
        oriented_features(torch.zeros(1, 1, 32, 32), **{option: 0})


def test_smallest_image_that_the_bank_filters():
    assert oriented_features(torch.zeros(1, 1, 17, 17))[2].shape == (1, 8, 5, 5)


# VGG-16

_CHANNELS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256),
             12: (256, 256), 14: (256, 256)}  # fmt: skip


@pytest.fixture(scope='module')
def vgg16_state():
    """Random weights; and a tensor of a deeper layer, as whole files have."""
    generator = torch.Generator().manual_seed(0)
    state = {'classifier.0.bias': torch.zeros(3)}
    for number, (n_in, n_out) in _CHANNELS.items():
        kernel = torch.randn(n_out, n_in, 3, 3, generator=generator) / (9 * n_in / 2) ** 0.5
        state[f'features.{number}.weight'] = kernel
        state[f'features.{number}.bias'] = torch.randn(n_out, generator=generator)
    return state


@pytest.fixture(scope='module')
def vgg16_path(vgg16_state, tmp_path_factory):
    path = tmp_path_factory.mktemp('vgg16') / 'vgg16.safetensors'
    save_file(vgg16_state, path)
    return path


@pytest.fixture(scope='module')
def vgg16(vgg16_path):
    return VGG16Features(vgg16_path)


def test_vgg16_is_that_of_its_paper(vgg16, vgg16_state):
    image = torch.randn(2, 1, 40, 27)
    x, expected = image.repeat(1, 3, 1, 1), []
    for number in _CHANNELS:
        weight, bias = (vgg16_state[f'features.{number}.{kind}'] for kind in ('weight', 'bias'))
        x = F.relu(F.conv2d(x, weight, bias, padding=1))
        if number in {2, 7, 14}:
            x = F.max_pool2d(x, 2)
            expected.append(x)
    features = vgg16(image)
    assert [tuple(maps.shape) for maps in features] == [
        (2, 64, 20, 13), (2, 128, 10, 6), (2, 256, 5, 3)
    ]
    for maps, wanted in zip(features, expected, strict=True):
        assert_allclose(maps, wanted, rtol=1e-5, atol=1e-5)


def test_vgg16_reads_a_state_dict(vgg16, vgg16_state, tmp_path):
    path = tmp_path / 'vgg16.pth'
    torch.save(vgg16_state, path)
    image = torch.randn(1, 1, 16, 16)
    for a, b in zip(VGG16Features(path)(image), vgg16(image), strict=True):
        assert torch.equal(a, b)


def test_vgg16_judges_style_and_does_not_train(vgg16):
    prediction = torch.randn(1, 1, 32, 32, requires_grad=True)
    target = torch.randn(1, 1, 32, 32)
    style_loss(prediction, target, target, features=vgg16).backward()
    assert prediction.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in vgg16.parameters())
    assert style_loss(target, target, target, features=vgg16) == 0


def test_vgg16_leaves_the_random_generator_alone(vgg16_path):
    state = torch.get_rng_state()
    VGG16Features(vgg16_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_vgg16_refuses_small_images(vgg16):
    with pytest.raises(ValueError, match='with H and W at least 8, got'):
        vgg16(torch.zeros(1, 1, 7, 32))


@pytest.mark.parametrize(('key', 'change', 'sentence'), [
    ('features.5.weight', None, r'lacks tensors of VGG-16: features.5.weight\.'),
    ('features.14.bias', lambda x: x[:7], r'features.14.bias has shape \(7,\), expected \(256,\)'),
    ('features.0.bias', lambda x: x * torch.nan, 'numbers that are not finite'),
])
def test_wrong_tensors_are_named(vgg16_state, tmp_path, key, change, sentence):
    state = dict(vgg16_state)
    tensor = state.pop(key)
    if change is not None:
        state[key] = change(tensor)
    path = tmp_path / 'wrong.safetensors'
    save_file(state, path)
    with pytest.raises(ValueError, match=sentence):
        VGG16Features(path)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_file_that_runs_code_is_refused(tmp_path, suffix):
    path = tmp_path / f'wrong{suffix}'
    path.write_bytes(pickle.dumps({'features.0.weight': Malicious(tmp_path / 'victim')}))
    with pytest.raises(ValueError, match='is not a'):
        VGG16Features(path)
    assert not (tmp_path / 'victim').exists()


@pytest.mark.parametrize('content', [[1, 2], {'features.0.weight': 'text'}])
def test_file_without_a_state_dict_is_refused(tmp_path, content):
    path = tmp_path / 'wrong.pth'
    torch.save(content, path)
    with pytest.raises(ValueError, match='holds no state dict'):
        VGG16Features(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r'no such file of VGG-16 weights: .*missing.pth'):
        VGG16Features(tmp_path / 'missing.pth')
