import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import csr_astro
from csr_astro import NeuralBackgroundEstimator
from csr_astro.cli import main

COMMANDS = [
    '', 'remove', 'photometry', 'demo', 'weights', 'weights list', 'weights info',
    'weights convert', 'instruments', 'train', 'evaluate', 'evaluate accuracy', 'evaluate report',
    'evaluate stars', 'batch', 'simulate',
]  # fmt: skip


@pytest.fixture
def words(tmp_path, weights):
    """Arguments that give a map, its source and a quick estimator."""
    path = tmp_path / 'map.fits'
    fits.PrimaryHDU(np.random.default_rng(0).normal(5, 1, (80, 90))).writeto(path)
    options = ['--fwhm', '3.3', '--weights', str(weights), '--orientations', '1']
    return [str(path), '--pixel', '40', '30', *options]


@pytest.mark.parametrize('command', COMMANDS)
def test_every_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), '--help'])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert 'example' in out
    assert f'csr-astro {command}'.strip() in out.split('example')[-1]


@pytest.mark.parametrize('command', ['remove', 'photometry'])
def test_examples_of_the_help_are_commands(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([command, '--help'])
    examples = capsys.readouterr().out.split('examples:')[1].strip().splitlines()
    assert len(examples) >= 2
    for line in examples:
        name, *arguments = shlex.split(line)
        assert name == 'csr-astro'
        assert main(arguments) == 1
        assert capsys.readouterr().err == "csr-astro: error: no such file: 'map.fits'.\n"


def test_command_runs_as_a_module():
    root = Path(csr_astro.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, '-m', 'csr_astro.cli', '--help'],
        env=os.environ | {'PYTHONPATH': str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith('usage: csr-astro')
    assert all(command in done.stdout for command in COMMANDS if ' ' not in command)
    assert done.stderr == ''


def test_help_waits_for_nothing_heavy():
    script = (
        'import contextlib, sys\n'
        'from csr_astro.cli import main\n'
        'with contextlib.suppress(SystemExit):\n'
        '    main(["remove", "--help"])\n'
        'assert not {"torch", "astropy", "numpy", "scipy", "dask"} & set(sys.modules)\n'
    )
    root = Path(csr_astro.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, '-c', script],
        env=os.environ | {'PYTHONPATH': str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, '')


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stop:
        main(['--version'])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == csr_astro.__version__


def test_reader_may_leave_early(words):
    words = [sys.executable, '-m', 'csr_astro', 'photometry', *words, '--apertures', '4']
    done = subprocess.run(
        f'{shlex.join(words)} | head -1', shell=True, capture_output=True, text=True, check=False
    )
    assert (done.returncode, 'rror' in done.stderr) == (0, False), done.stderr
    assert done.stdout.count('\n') == 1


def test_interrupt_has_its_own_exit_code(words, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(NeuralBackgroundEstimator, 'estimate', stop)
    assert main(['remove', *words]) == 130
    assert capsys.readouterr().err.endswith('csr-astro: stopped.\n')


@pytest.mark.parametrize('command', ['remove none.fits --pixel 1 2', 'weights info none-such'])
def test_debug_shows_the_traceback(command):
    with pytest.raises(ValueError, match='none'):
        main([*command.split(), '--debug'])


@pytest.mark.parametrize(
    'command',
    [
        '',
        'clean',
        'remove',
        'weights',
        'weights melt',
        'weights convert a',
        'train',
        'train tiny',
        'photometry map.fits --pixel 1 2',
        'remove map.fits --pixel 1',
        'remove map.fits --pixel a b',
        'remove map.fits --preset fast',
        'remove map.fits --orientations 3',
        'remove map.fits --dtype float16',
        'remove map.fits --batch-size many',
        'remove map.fits --unknown',
    ],
)
def test_wrong_usage_exits_with_two(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith('usage: csr-astro')
    assert 'error: ' in err.splitlines()[-1]
