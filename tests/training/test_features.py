"""Feature maps of textures."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.torch import save_file
from torch.nn import functional as F

from csr_astro.training.features import VGG16Features, gram_matrix, oriented_features
from csr_astro.training.losses import (
    style_loss,
)

SHAPE = (3, 1, 40, 48)


def random_images(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *SHAPE, generator=generator, dtype=torch.float64)


def numpy_gram(maps):
    flat = maps.reshape(len(maps), -1)
    return np.einsum('ci,di->cd', flat, flat) / flat.size


def test_gram_matrix_is_that_of_its_formula():
    maps = torch.randn(2, 5, 6, 7, dtype=torch.float64)
    assert_allclose(gram_matrix(maps), [numpy_gram(m) for m in maps.numpy()], rtol=1e-12)


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
    with pytest.raises(ValueError, match=r'is not a|is damaged, or not a'):
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
