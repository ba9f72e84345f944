from pathlib import Path

import pytest
from helpers_commands import PIXELS, files

from csr_astro.nn.weights import read_info

INSTRUMENTS = ['pacs-scanmap-blue', 'pacs-scanmap-red']


def test_training_is_not_started_twice_nor_resumed_from_nothing(run, tmp_path):
    code, _, err = run('train', 'tiny', '-o', tmp_path / 'run', '--resume')
    assert code == 1
    assert err.startswith('csr-astro: error: there is no')
    assert err.rstrip().endswith('to resume.')
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'checkpoint.pt').write_bytes(b'precious')
    code, _, err = run('train', 'tiny', '-o', tmp_path / 'other')
    assert code == 1
    assert 'resume it (--resume) or choose another folder' in err
    assert files(tmp_path) == {Path('other/checkpoint.pt'): b'precious'}


def test_trained_weights_remove_a_source(run, map_path, tmp_path):
    recipe = tmp_path / 'recipe.toml'
    recipe.write_text('width = 0.125\nn_cutouts = 8\nbatch_size = 4\nn_validation = 4\n')
    code, out, _ = run('train', recipe, '-o', tmp_path / 'run', '--title', 'Mine')
    assert code == 0
    path = tmp_path / 'run' / 'weights.safetensors'
    assert out == f'best weights: {path}\n'
    assert run('train', recipe, '-o', tmp_path / 'run', '--resume')[0] == 0
    code, out, _ = run('weights', 'info', path)
    assert 'title: Mine' in out.splitlines()
    assert run('remove', map_path, *PIXELS, '--weights', path, options=False)[0] == 0


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['train', 'none-such', '-o', 'run'], 'recipe must be one of'),
        (['train', 'tiny', '--maps', 'none', '-o', 'run'], 'none'),
        (['train', 'paper', '-o', 'run'], 'give their --instrument'),
        (['train', 'tiny', '--instrument', 'spire-250', '-o', 'x'], '--instrument is for recipes'),
    ],
)
def test_wrong_input_gets_one_sentence(fails, arguments, sentence):
    fails(arguments, sentence)


@pytest.mark.parametrize('layout', ['array', 'paper'])
def test_training_learns_from_a_simulated_dataset(run, tmp_path, layout):
    code, *_ = run(
        *('simulate', '--field', 'power-law', '--fields', '4', '--shape', '120', '120'),
        *('--fwhm', '3', '--number', '2'),
        *('--flux-levels', '100', '--dataset', tmp_path / 'cutouts', '--layout', layout),
        *('-o', tmp_path / 'maps'),
        options=False,
    )
    assert code == 0
    recipe = tmp_path / 'recipe.toml'
    recipe.write_text('width = 0.125\nn_cutouts = 8\nbatch_size = 4\nn_validation = 2\n')
    code, *_ = run('train', recipe, '--dataset', tmp_path / 'cutouts', '-o', tmp_path / 'run')
    assert code == 0
    _, out, _ = run('weights', 'info', tmp_path / 'run' / 'weights.safetensors')
    assert 'training_data: simulated sources on real maps' in out


def test_dataset_and_maps_are_not_mixed(fails, tmp_path):
    arguments = ['train', 'tiny', '--dataset', tmp_path, '--psf', 'psf.fits', '-o', 'run']
    fails(arguments, 'give no --maps, --validation, --psf')


def test_sources_of_instruments_are_simulated_first(run, tmp_path):
    recipe = tmp_path / 'recipe.toml'
    recipe.write_text(
        'data = "simulations"\nwidth = 0.125\nnormalization = "minmax"\nfill = "none"\n'
        'n_cutouts = 8\nbatch_size = 4\nn_validation = 4\nn_simulated = 8\nvalidate_every = 0\n'
    )
    arguments = ['train', recipe, '--instrument', *INSTRUMENTS, '-o', tmp_path / 'run']
    assert run(*arguments)[0] == 0
    info = read_info(tmp_path / 'run' / 'weights.safetensors')
    names = ', '.join(INSTRUMENTS)
    assert info.training_data == f'simulated sources of {names} on synthetic fields'
    assert run(*arguments, '--resume')[0] == 0
