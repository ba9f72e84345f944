import pytest
import torch

import csr_astro
from csr_astro.nn.unet import DECODER, ENCODER
from csr_astro.nn.weights import load_model


def test_weights_are_listed_and_described(run, weights):
    code, out, _ = run('weights', 'list')
    assert code == 0
    assert [line.split(':')[0] for line in out.splitlines()] == csr_astro.list_weights()
    code, out, _ = run('weights', 'info', 'default')
    assert code == 0
    info = dict(line.split(': ', 1) for line in out.splitlines() if ': ' in line)
    assert info['name'] == 'default'
    assert len(info['sha256']) == 64
    assert info['normalization'] == 'local'
    code, out, _ = run('weights', 'info', weights)
    assert 'width: 0.125' in out.splitlines()


def test_checkpoint_is_converted(run, tmp_path):
    """Zeros that share their memory, so that the file is small."""
    zero, state = torch.zeros(()), {}
    layers = [(f'e{i}', o, n, k) for i, (n, o, k, *_) in enumerate(ENCODER, 1)]
    layers += [(f'd{i}', o, n, k) for i, (n, o, k, *_) in enumerate(DECODER, 1)]
    for name, n_out, n_in, kernel in layers:
        shape = (n_out, n_in) if name[0] == 'e' else (n_in, n_out)
        shape = (*shape, kernel, kernel)
        state[f'{name}.conv.input_conv.weight'] = zero.expand(shape)
        state[f'{name}.conv.mask_conv.weight'] = torch.ones(()).expand(shape)
        for key in ('weight', 'bias', 'running_mean', 'running_var'):
            state[f'{name}.bn.{key}'] = zero.expand(n_out)
    for key in [key for key in state if key.startswith('d11.bn')]:
        del state[key]
    state['d11.conv.input_conv.bias'] = torch.tensor([0.25])
    torch.save(state, tmp_path / 'published.pth')
    output = tmp_path / 'published.safetensors'
    arguments = ('weights', 'convert', tmp_path / 'published.pth', output, '--title', 'Theirs')
    code, out, _ = run(*arguments)
    assert code == 0
    model = load_model(output)
    assert model.info.sha256 in out
    assert (model.info.title, model.normalization, model.fill) == ('Theirs', 'minmax', 'none')
    assert model.network.decoder[-1].conv.bias == 0.25
    code, _, err = run(*arguments)
    assert code == 1
    assert 'give --overwrite to replace it' in err
    assert run(*arguments, '--overwrite')[0] == 0


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['weights', 'info', 'none-such'], 'weights must be one of'),
        (['weights', 'convert', 'none.pth', 'a.safetensors'], "no such checkpoint: 'none.pth'"),
        (['weights', 'convert', 'text.csv', 'a.safetensors'], 'is damaged, or not a PyTorch file'),
    ],
)
def test_wrong_input_gets_one_sentence(fails, arguments, sentence):
    fails(arguments, sentence)
