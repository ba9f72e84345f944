"""``csr-astro evaluate``."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from helpers_evaluation import check_page
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro.cli import main
from csr_astro.simulation.field import synthetic_map


@pytest.fixture
def map_path(tmp_path):
    """A map of smooth structure and noise."""
    path = tmp_path / 'cloud.fits'
    field = synthetic_map('power-law', (150, 170), 4, pixel_scale=1.6)
    fits.PrimaryHDU(np.asarray(field.data)).writeto(path)
    return path


def test_command_writes_tables_that_repeat(map_path, weights, tmp_path, capsys):
    command = ['evaluate', 'accuracy', str(map_path), '--methods', 'network,annulus_median',
               '--weights', str(weights), '--orientations', '1', '--number', '5']  # fmt: skip
    assert main([*command, '--radii', '5', '--inject', '-o', str(tmp_path / 'one')]) == 0
    printed = capsys.readouterr().out
    assert 'blank_ratios:' in printed
    assert 'bright:' in printed
    names = sorted(path.name for path in (tmp_path / 'one').iterdir())
    assert names == [
        'blank.ecsv', 'blank_averages.ecsv', 'blank_coverage.ecsv', 'blank_errors.ecsv',
        'blank_ratios.ecsv', 'bright.ecsv', 'injected.ecsv', 'injected_coverage.ecsv',
        'injected_errors.ecsv', 'positions.ecsv',
    ]  # fmt: skip
    again = ['--positions', str(tmp_path / 'one' / 'positions.ecsv'), '-o', str(tmp_path / 'two')]
    assert main(command + again) == 0
    for name in ('blank_errors', 'injected_errors'):
        first, second = (
            Table.read(tmp_path / folder / f'{name}.ecsv') for folder in ('one', 'two')
        )
        for column in ('x', 'network', 'annulus_median'):
            assert_array_equal(first[column], second[column])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'give maps, or --gaussian'),
        (['none.fits'], "no such file: 'none.fits'"),
        (['MAP', '--methods', 'magic'], 'a method must be one of'),
        (['MAP', '--weights', 'none'], 'none'),
        (['MAP', '--radii', '0'], 'radii must be'),
        (['MAP', '--number', '1000000'], 'have room for'),
        (['MAP', '--number', '0'], 'number of positions must be'),
        (['MAP', '--positions', 'none.ecsv'], 'no table of positions'),
        (['MAP', '--inject', '--instrument', 'eye'], 'instrument must be one of'),
        (['MAP', '--flux-levels', '5'], 'are of injected sources, and need --inject'),
        (['--gaussian', '--inject'], 'give maps to put sources on'),
    ],
)
def test_bad_command_is_one_sentence(arguments, message, map_path, capsys):
    arguments = [str(map_path) if each == 'MAP' else each for each in arguments]
    if '--methods' not in arguments and '--weights' not in arguments:
        arguments += ['--methods', 'plane']
    assert main(['evaluate', 'accuracy', *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_stars_at_the_shell(shared_data, tmp_path, capsys):
    maps = sorted((shared_data / 'data' / 'pacs_gamma_dra').glob('*blue*.fits'))
    output = tmp_path / 'stars.ecsv'
    assert main(['evaluate', 'stars', *map(str, maps), '-o', str(output)]) == 0
    assert 'gamma Dra' in capsys.readouterr().out
    assert_allclose(Table.read(output)['ratio'], 1, atol=0.03)
    assert main(['evaluate', 'stars', *map(str, maps), '-o', str(output)]) == 1
    assert 'exists' in capsys.readouterr().err
    assert main(['evaluate', 'stars', *map(str, maps), '--apertures', '5']) == 1
    assert 'must be angles' in capsys.readouterr().err


def test_report_at_the_shell(weights, tmp_path, capsys):
    field = synthetic_map('lognormal', (200, 200), 1, noise=0.1, pixel_scale=3.0)
    path = tmp_path / 'map.fits'
    header = field.wcs.to_header()
    header['BUNIT'] = 'Jy/pixel'
    fits.writeto(path, np.asarray(field.data), header)
    command = ['evaluate', 'report', str(path), '--inject', '1', '--fwhm', '10arcsec',
               '--weights', str(weights), '--orientations', '1', '--number', '2',
               '--apertures', '12arcsec,6', '-o', str(tmp_path / 'report')]  # fmt: skip
    assert main(command) == 0
    check_page(tmp_path / 'report')
    fluxes = QTable.read(tmp_path / 'report' / 'fluxes.ecsv')
    assert_allclose(np.unique(fluxes['aperture']), [4, 6])
    assert main(command) == 1
    assert 'exists' in capsys.readouterr().err
    assert main([*command, '--pixel', '3', '4', '--overwrite']) == 1
    assert 'not both' in capsys.readouterr().err
    assert main(['evaluate', 'report', '-o', str(tmp_path / 'other')]) == 1
    assert 'a MAP with a CATALOG' in capsys.readouterr().err
    assert not (tmp_path / 'other').exists()


def test_report_of_a_simulation_that_was_written(weights, tmp_path):
    simulated = tmp_path / 'simulated'
    assert main(['simulate', '--field', 'lognormal', '--shape', '200', '200', '--instrument',
                 'pacs-parallel-blue', '--random', '1', '--number', '6', '-o',
                 str(simulated)]) == 0  # fmt: skip
    (catalog,) = simulated.glob('*random*.ecsv')
    truth, = simulated.glob('*_truth.fits')
    assert main(['evaluate', 'report', str(catalog.with_suffix('.fits')), str(catalog),
                 '--truth', str(truth), '--instrument', 'pacs-parallel-blue', '--weights',
                 str(weights), '--orientations', '1', '--number', '2', '-o',
                 str(tmp_path / 'report')]) == 0  # fmt: skip
    check_page(tmp_path / 'report')
    fluxes = QTable.read(tmp_path / 'report' / 'fluxes.ecsv')
    assert len(np.unique(fluxes['id'])) == 6
