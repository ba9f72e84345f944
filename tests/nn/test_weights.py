"""Tests of weights files: reading, writing, the registry and checkpoints of the authors."""

import hashlib
import os
import pickle

import pytest
import torch
from helpers_textbook import random_discs, textbook_state
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from csr_astro.nn import weights
from csr_astro.nn.inpainter import FILLS, Inpainter
from csr_astro.nn.unet import PartialConvUNet
from csr_astro.nn.weights import (
    convert_checkpoint,
    list_weights,
    load_model,
    read_info,
    save_weights,
)
from csr_astro.utils.data import DATA, read_data

CARD = {
    'title': 'Ä title',
    'training_data': 'synthetic fields',
    'licence': 'BSD-3-Clause',
    'description': 'two\nlines',
}


def make_model(normalization='local', fill='push-pull'):
    torch.manual_seed(3)
    network = PartialConvUNet(width=0.0625, n_hints=FILLS[fill])
    for block in [*network.encoder, *network.decoder[:-1]]:
        torch.nn.init.normal_(block.norm.running_mean, std=0.3)
        torch.nn.init.uniform_(block.norm.running_var, 0.5, 2)
    torch.nn.init.normal_(network.decoder[-1].conv.bias)
    return Inpainter(network, normalization, fill=fill).eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def good(tmp_path):
    path = tmp_path / 'good.safetensors'
    save_weights(path, make_model(), **CARD)
    return path


def rewrite(path, *, header=None, tensors=None):
    """Change entries of the header or tensors of a file; None removes one."""
    with safe_open(path, framework='pt') as handle:
        new_header = {**handle.metadata(), **(header or {})}
    new_tensors = {**load_file(path), **(tensors or {})}
    save_file(
        {key: value for key, value in new_tensors.items() if value is not None},
        path,
        metadata={key: value for key, value in new_header.items() if value is not None},
    )


def assert_refused(function, *args, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        function(*args)
    message = str(caught.value)
    assert message.endswith('.')
    assert '\n' not in message
    assert 'Traceback' not in message


# Saving and loading


@pytest.mark.parametrize('normalization', ['local', 'minmax'])
@pytest.mark.parametrize('fill', ['none', 'push-pull', 'kriging'])
def test_saved_model_loads_as_it_was(tmp_path, normalization, fill):
    path = tmp_path / 'model.safetensors'
    model = make_model(normalization, fill)
    save_weights(path, model)
    loaded = load_model(path)
    state = model.network.state_dict()
    for key, value in loaded.network.state_dict().items():
        # Kernels are kept in half precision, everything else as it is.
        expected = state[key].half().float() if value.ndim == 4 else state[key]
        assert torch.equal(value, expected), key
        assert value.dtype == state[key].dtype
    assert (loaded.normalization, loaded.fill) == (normalization, fill)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_loaded_model_predicts_like_the_saved_one(good):
    image, valid = torch.randn(2, 1, 96, 96), random_discs(2, (96, 96))
    arguments = image, valid, torch.ones_like(valid), 1 - valid, torch.tensor([5.0, 9.0])
    expected = make_model()(*arguments)
    error = load_model(good)(*arguments) - expected
    assert 0 < error.std() < 0.01 * expected.std()


def test_info_says_what_the_file_holds(good):
    info = read_info(good)
    assert {key: getattr(info, key) for key in CARD} == CARD
    assert (info.name, info.path) == (str(good), good)
    assert info.sha256 == hashlib.sha256(good.read_bytes()).hexdigest()
    assert (info.width, info.normalization, info.fill) == (0.0625, 'local', 'push-pull')
    assert load_model(good).info == info


def test_kernels_take_two_bytes_each(good):
    n_kernel = sum(p.numel() for p in make_model().network.parameters() if p.ndim == 4)
    assert good.stat().st_size == pytest.approx(2 * n_kernel, rel=0.2)


def test_path_may_be_a_string(good):
    assert load_model(str(good)).info == load_model(good).info


def test_unknown_card_entries_are_refused(tmp_path):
    path = tmp_path / 'model.safetensors'
    with pytest.raises(ValueError, match=r"no entries \['author'\]"):
        save_weights(path, make_model(), author='me')
    assert not path.exists()


def test_saving_replaces_an_existing_file(good):
    save_weights(good, make_model('minmax', 'none'))
    assert read_info(good).normalization == 'minmax'


# The registry


@pytest.mark.parametrize('name', list_weights())
def test_registered_weights_load_by_name(name):
    info = load_model(name).info
    assert (info.name, info.path.suffix) == (name, '.safetensors')
    assert info.path.is_file()


@pytest.fixture
def altered(tmp_path, monkeypatch):
    """Registered weights with another byte at some place."""

    def alter(place):
        path = read_info('default').path
        content = bytearray(path.read_bytes())
        content[int(place * len(content)) if isinstance(place, float) else place] ^= 1
        copy = tmp_path / 'weights' / path.name
        copy.parent.mkdir()
        copy.write_bytes(content)
        monkeypatch.setattr(weights, 'DATA', tmp_path)

    return alter


@pytest.mark.parametrize('function', [read_info, load_model])
@pytest.mark.parametrize('place', [20, 0.5, -1])
def test_altered_registered_file_is_refused(altered, function, place):
    altered(place)
    assert_refused(function, 'default', sentence='were altered .SHA-256')


@pytest.mark.parametrize('function', [read_info, load_model])
@pytest.mark.parametrize('name', ['Default', 'no-such-file.safetensors', '', '.'])
def test_unknown_name_is_refused_with_the_known_ones(function, name):
    sentence = r"one of \['default'.*\] or the path of a .safetensors"
    assert_refused(function, name, sentence=sentence)


def test_bundled_default_loads():
    model = load_model('default')
    assert (model.info.name, model.training) == ('default', False)
    image, valid = torch.randn(1, 1, 96, 96), random_discs(1, (96, 96))
    with torch.no_grad():
        prediction = model(image, valid, torch.ones_like(valid), 1 - valid, torch.tensor([9.0]))
    assert torch.isfinite(prediction).all()


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'device': 'nonsense'}, "device 'nonsense' cannot be used"),
        ({'dtype': 'bfloat16'}, 'dtype must be torch.float32 or torch.bfloat16'),
        ({'dtype': torch.float64}, 'got torch.float64'),
    ],
)
def test_wrong_device_or_precision_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_model('default', **options)


def test_bundled_files_are_those_of_the_registry():
    entries = read_data('weights.toml')
    assert 'default' in entries
    assert sorted(entries) == list_weights()
    files = {path.name: path for path in (DATA / 'weights').glob('*.safetensors')}
    assert {entry['file'] for entry in entries.values()} == set(files)
    for entry in entries.values():
        content = files[entry['file']].read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry['sha256']


def test_bundled_weights_have_model_cards():
    for name in list_weights():
        info = read_info(name)
        assert info.title, name
        assert info.training_data, name
        assert info.licence, name


# Files that are not what they claim to be


@pytest.mark.parametrize('function', [read_info, load_model])
def test_pickles_are_refused(tmp_path, function):
    path = tmp_path / 'model.pt'
    torch.save(make_model().state_dict(), path)
    assert_refused(function, path, sentence='other formats are not loaded')


@pytest.mark.parametrize('fraction', [0, 0.0001, 0.01, 0.5, 0.999])
def test_truncated_files_are_refused(good, fraction):
    content = good.read_bytes()
    good.write_bytes(content[: int(fraction * len(content))])
    assert_refused(load_model, good, sentence='not a readable safetensors file')


def test_text_files_are_refused(tmp_path):
    path = tmp_path / 'model.safetensors'
    path.write_text('version https://git-lfs.github.com/spec/v1\n')
    assert_refused(load_model, path, sentence='not a readable safetensors file')


@pytest.mark.parametrize('metadata', [None, {'format': 'pt'}])
def test_other_safetensors_are_refused(tmp_path, metadata):
    path = tmp_path / 'other.safetensors'
    save_file({'weight': torch.ones(3)}, path, metadata=metadata)
    assert_refused(load_model, path, sentence='holds no csr_astro weights')


@pytest.mark.parametrize('function', [read_info, load_model])
@pytest.mark.parametrize(
    ('key', 'value', 'sentence'),
    [
        ('format_version', '2', 'format version 2; this version of csr_astro reads 1'),
        ('format_version', None, 'format version None'),
        ('architecture', 'vision-transformer', "architecture 'vision-transformer'"),
        ('architecture', None, 'architecture None'),
        ('width', '1e9', 'width 1000000000.0; it must be above 0 and at most 4'),
        ('width', '-1', 'it must be above 0 and at most 4'),
        ('width', 'nan', 'it must be above 0 and at most 4'),
        ('width', 'inf', 'it must be above 0 and at most 4'),
        ('width', 'wide', 'does not say the width'),
        ('width', None, 'does not say the width'),
        ('normalization', 'zscore', 'does not say how its images are normalised'),
        ('normalization', None, 'does not say how its images are normalised'),
        ('fill', 'mean', 'does not say how its images are normalised'),
        ('fill', None, 'does not say how its images are normalised'),
    ],
)
def test_wrong_headers_are_refused(good, function, key, value, sentence):
    rewrite(good, header={key: value})
    assert_refused(function, good, sentence=sentence)


KERNEL = 'encoder.0.conv.weight'


@pytest.mark.parametrize(
    ('tensors', 'sentence'),
    [
        ({KERNEL: None}, f'lacks tensors: {KERNEL}'),
        ({'extra': torch.ones(2)}, 'has unknown tensors: extra'),
        ({KERNEL: torch.ones(2, 1, 5, 5)}, r'has shape \(2, 1, 5, 5\), expected \(2, 1, 3, 3\)'),
        ({KERNEL: torch.ones(18)}, r'has shape \(18,\), expected \(2, 1, 3, 3\)'),
        ({KERNEL: torch.full((2, 1, 3, 3), torch.nan)}, 'not finite'),
        ({KERNEL: torch.full((2, 1, 3, 3), torch.inf)}, 'not finite'),
        ({'encoder.0.norm.running_var': torch.full((2,), torch.nan)}, 'not finite'),
    ],
)
def test_wrong_tensors_are_refused(good, tensors, sentence):
    rewrite(good, tensors=tensors)
    assert_refused(load_model, good, sentence=sentence)


def test_weights_of_another_width_are_refused(good):
    rewrite(good, header={'width': '4'})
    assert_refused(load_model, good, sentence='has shape .*, expected')


# Checkpoints of the paper's authors


@pytest.fixture
def checkpoint(tmp_path):
    def save(state):
        path = tmp_path / 'checkpoint.pt'
        torch.save(state, path)
        return path

    return save


@pytest.fixture
def output(tmp_path):
    """A file in the way of the conversion: it must be left as it was, and alone."""
    path = tmp_path / 'out' / 'converted.safetensors'
    path.parent.mkdir()
    path.write_text('older')
    return path


def assert_conversion_refused(checkpoint, output, sentence):
    for existing in (True, False):
        if not existing:
            output.unlink()
        assert_refused(convert_checkpoint, checkpoint, output, sentence=sentence)
        assert list(output.parent.iterdir()) == [output] * existing
        assert not existing or output.read_text() == 'older'


@pytest.mark.parametrize(
    ('key', 'value', 'sentence'),
    [
        ('e3.bn.running_var', None, 'lacks tensors: e3.bn.running_var'),
        ('d11.conv.input_conv.bias', None, 'lacks tensors: d11.conv.input_conv.bias'),
        ('e3.conv.mask_conv.weight', None, 'lacks tensors: e3.conv.mask_conv.weight'),
        ('e12.bn.weight', torch.ones(3), 'has unknown tensors: e12.bn.weight'),
        ('e1.conv.input_conv.bias', torch.ones(32), 'unknown tensors: e1.conv.input_conv.bias'),
        ('d2.conv.input_conv.weight', torch.tensor(1.0).expand(512, 1024, 4, 4), 'has shape'),
        ('e1.conv.mask_conv.weight', torch.full((32, 1, 3, 3), 0.5), 'is not all ones'),
    ],
)
def test_checkpoint_of_another_network_is_refused(checkpoint, output, key, value, sentence):
    state = {**textbook_state(), key: value}
    if value is None:
        del state[key]
    assert_conversion_refused(checkpoint(state), output, sentence)


class Payload:
    """Makes a folder when it is unpickled carelessly."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def write_pickle(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize('write', [torch.save, write_pickle])
def test_payload_of_a_pickle_never_runs(tmp_path, output, write):
    marker, path = tmp_path / 'payload-ran', tmp_path / 'payload.pt'
    write({'state_dict': Payload(marker)}, path)
    assert_conversion_refused(path, output, 'not a PyTorch file that can be loaded safely')
    assert_refused(load_model, path, sentence='other formats are not loaded')
    assert not marker.exists()
    # The payload is live: careless loading runs it.
    if write is torch.save:
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert marker.exists()


@pytest.mark.parametrize(
    ('legacy', 'n_bytes'),
    [
        (False, 400),
        (False, 10_000),
        (False, 100_000),
        (False, -1),
        (True, 16),
        (True, 18),
        (True, 250),
        (True, 100_000),
        (True, -1),
    ],
)
def test_truncated_checkpoint_is_refused(tmp_path, output, legacy, n_bytes):
    path = tmp_path / 'checkpoint.pt'
    torch.save({'a': torch.ones(100_000)}, path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[:n_bytes])
    assert_conversion_refused(path, output, 'not a PyTorch file that can be loaded safely')


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'hello world\n',
        b'SIMPLE  = T',
        b'\x00' * 64,
        b'a.b\n',
    ],
)
def test_file_of_another_kind_is_no_checkpoint(tmp_path, output, content):
    path = tmp_path / 'checkpoint.pt'
    path.write_bytes(content)
    assert_conversion_refused(path, output, 'not a PyTorch file that can be loaded safely')


@pytest.mark.parametrize(
    'content',
    [
        pytest.param(torch.ones(3), id='tensor'),
        pytest.param([torch.ones(3)], id='list'),
        pytest.param({'state_dict': {'epoch': 3}}, id='no tensors'),
        pytest.param({0: torch.ones(3)}, id='unnamed tensors'),
    ],
)
def test_object_of_another_kind_is_no_checkpoint(checkpoint, output, content):
    assert_conversion_refused(checkpoint(content), output, 'holds no state dict')


@pytest.mark.parametrize('name', ['missing.pt', '.'])
def test_missing_checkpoint_is_refused(tmp_path, output, name):
    assert_conversion_refused(tmp_path / name, output, 'no such checkpoint')


@pytest.mark.parametrize(
    ('nest', 'prefix', 'batches_tracked'),
    [(None, '', True), ('state_dict', '', False), ('model_state_dict', 'module.', True)],
)
def test_checkpoints_are_accepted_in_every_wrapping(
    checkpoint, tmp_path, nest, prefix, batches_tracked
):
    state = textbook_state(batches_tracked=batches_tracked)
    content = {prefix + key: value for key, value in state.items()}
    output = tmp_path / 'converted.safetensors'
    convert_checkpoint(checkpoint({nest: content, 'epoch': 3} if nest else content), output)
    with safe_open(output, framework='pt') as handle:
        keys = set(handle.keys())

        def first(key):
            tensor = handle.get_slice(key)
            return tensor[:1].flatten()[0].item()

        # A kernel over 1024 channels of which a quarter of 4 x 4 pixels meets an output pixel.
        assert first('decoder.1.conv.weight') == pytest.approx(
            float(state['d2.conv.input_conv.weight'].flatten()[0]) / (1024 * 4)
        )
        assert first('encoder.1.conv.weight') == pytest.approx(
            float(state['e2.conv.input_conv.weight'].flatten()[0]) / (32 * 16)
        )
        for ours, theirs in (
            ('encoder.10.norm.running_var', 'e11.bn.running_var'),
            ('decoder.9.norm.bias', 'd10.bn.bias'),
            ('decoder.10.conv.bias', 'd11.conv.input_conv.bias'),
        ):
            assert first(ours) == float(state[theirs][0])
    assert len(keys) == 22 + 21 * 4 + 1
    output.unlink()
