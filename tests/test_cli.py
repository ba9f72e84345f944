import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

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


# Messages


def test_misspelt_words_are_told_what_they_may_mean(capsys):
    for arguments, meant in (
        (['photometry', 'map.fits', 'list.csv', '--aperturs', '4', '--apertures', '4'],
         '--apertures'),
        (['remove', 'map.fits', 'list.csv', '--instrumnet', 'spire-250'], '--instrument'),
        (['remov', 'map.fits'], 'remove'),
        (['evaluate', 'reprt'], 'report'),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as info:
            main(arguments)
        assert info.value.code == 2
        assert capsys.readouterr().err.rstrip().endswith(f'; did you mean {meant}?')


def write_noise(path, **keywords):
    data = np.random.default_rng(0).normal(size=(60, 70))
    fits.writeto(path, data, fits.Header(keywords))
    return str(path)


POINT = ['--pixel', '30', '30', '--fwhm', '3.5', '--orientations', '1']


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['remove', '.', *POINT], "'.' is a folder; give one FITS file."),
        (['remove', 'cube.fits', *POINT], r'is a cube of shape \(3, 60, 70\): .*by --plane\.'),
        (['remove', 'map.fits', *POINT, '--plane', '1'], 'no cube of which a plane'),
        (['remove', 'map.fits', *POINT, '--plane', 'one'], "--plane must be a number, got 'one'"),
        (['remove', 'map.fits', *POINT, '-o', 'x.png'], r"'x.png' is written as FITS and must end"),
        (['remove', 'map.fits', '--position', '10 20', '--fwhm', '3'], 'have none; give pixels'),
        (['remove', 'both.fits', *POINT], 'known to be the image; name it by --hdu'),
        (['remove', 'odd.fits', *POINT], 'give --ignore-errors'),
        (['photometry', 'map.fits', *POINT, '--apertures', '4', '--flux-unit', 'MJy/sr'],
         'the unit of the map is given by --unit'),
        (['photometry', 'map.fits', *POINT, '--apertures', '4', '--beam', '4'],
         '--beam must be an angle such as 18arcsec'),
        (['photometry', 'log.fits', *POINT, '--apertures', '4'], 'in mag, which is logarithmic'),
    ],
)  # fmt: skip
def test_messages_speak_the_language_of_the_shell(
    arguments, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_noise('map.fits')
    write_noise('log.fits', BUNIT='mag')
    data = fits.getdata('map.fits')
    fits.writeto('cube.fits', np.stack(3 * [data]))
    both = [fits.ImageHDU(data, name=name) for name in ('error', 'coverage')]
    fits.HDUList([fits.PrimaryHDU(), *both]).writeto('both.fits')
    odd = [fits.ImageHDU(data, fits.Header({'BUNIT': unit}), name=name)
           for name, unit in (('image', 'Jy'), ('error', 'K'))]  # fmt: skip
    fits.HDUList([fits.PrimaryHDU(), *odd]).writeto('odd.fits')
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert re.search(sentence, err), err
    assert '= ' not in err
    assert '=.' not in err


def test_files_that_cannot_be_read_are_named_without_a_number(tmp_path, capsys, monkeypatch):
    path = write_noise(tmp_path / 'map.fits')

    error = PermissionError(13, 'Permission denied', path)
    monkeypatch.setattr('csr_astro.utils.files.fits.open', Mock(side_effect=error))
    assert main(['remove', path, *POINT]) == 1
    err = capsys.readouterr().err
    assert 'Errno' not in err
    assert 'permission denied' in err.lower()


def test_warnings_are_lines_of_the_shell(tmp_path):
    path = write_noise(tmp_path / 'map.fits', BUNIT='adu')
    root = Path(csr_astro.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, '-m', 'csr_astro', 'photometry', path, *POINT, '--apertures', '4'],
        env=os.environ | {'PYTHONPATH': str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'WARNING: fluxes are plain sums of pixels, not in Jy: adu' in done.stderr
    assert '.py' not in done.stderr


def test_plane_of_a_cube_is_cleaned_and_the_others_are_kept(tmp_path, capsys):
    data = np.random.default_rng(0).normal(size=(3, 60, 70))
    data[1, 30, 30] += 100
    fits.writeto(tmp_path / 'cube.fits', data)
    assert main(['remove', str(tmp_path / 'cube.fits'), *POINT, '--plane', '1']) == 0
    assert capsys.readouterr().out.splitlines()[-1] == 'read: image PRIMARY (0), plane 1'
    with fits.open(tmp_path / 'cube_source_free.fits') as hdus:
        clean, mask = hdus[0].data, hdus['CSR_MASK'].data > 0
        assert 'plane 1' in str(hdus[0].header['HISTORY'])
    for plane in (0, 2):
        assert (clean[plane] == data[plane]).all()
    assert (clean[1][~mask] == data[1][~mask]).all()
    assert clean[1, 30, 30] < 10


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'tcsh'])
def test_completion_knows_commands_options_and_instruments(capsys, shell):
    pytest.importorskip('shtab')
    with pytest.raises(SystemExit) as stopped:
        main(['--print-completion', shell])
    script = capsys.readouterr().out
    assert stopped.value.code == 0
    assert all(word in script for word in ('photometry', '--mask-radius', 'spire-250'))


def test_completion_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'shtab', None)
    assert main(['--print-completion', 'bash']) == 1
    assert 'pip install "csr_astro[completion]"' in capsys.readouterr().err
