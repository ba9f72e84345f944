import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table
from helpers_commands import SOURCES, files
from numpy.testing import assert_allclose

BEAM = ['--fwhm', '3.3']


@pytest.fixture
def clear_map(tmp_path, sky, wcs):
    """The same sky without an instrument in its header."""
    path = tmp_path / 'clear.fits'
    header = wcs.to_header()
    header['BUNIT'] = 'Jy/pixel'
    fits.writeto(path, sky, header)
    return path


def positions(path):
    table = QTable.read(path)
    names = [name for name in table.colnames if name in ('x_centroid', 'xcentroid',
                                                         'y_centroid', 'ycentroid')]  # fmt: skip
    return np.sort(np.column_stack([table[name] for name in names]), axis=0)


def test_table_of_sources_is_written(run, clear_map, tmp_path):
    code, out, err = run('find', clear_map, *BEAM)
    path = tmp_path / 'clear_sources.ecsv'
    assert (code, err) == (0, '')
    assert out.splitlines()[-1] == f'2 sources found: {path}'
    assert_allclose(positions(path), np.sort(SOURCES, axis=0), atol=0.1)
    table = QTable.read(path)
    assert table['flux'].unit == u.Jy
    assert_allclose(table['flux'].value, 300 * np.pi * 4, rtol=0.1)


def test_instrument_is_told_by_the_header(run, map_path, tmp_path):
    path = tmp_path / 'nothing.csv'
    code, _, err = run('find', map_path, '-o', path, '--threshold', 1e6)
    assert code == 0
    assert err == 'instrument: pacs-scanmap-blue (from the header)\n'
    assert len(Table.read(path)) == 0


@pytest.mark.parametrize('suffix', ['ecsv', 'csv', 'fits', 'vot'])
def test_table_is_a_catalog_of_other_commands(run, clear_map, tmp_path, suffix):
    table = tmp_path / f'list.{suffix}'
    assert run('find', clear_map, *BEAM, '-o', table)[0] == 0
    code, out, err = run('photometry', clear_map, table, '--apertures', 4, *BEAM)
    assert code == 0, err
    assert '2 of 2 sources measured' in out


def test_psf_of_a_file(run, clear_map, tmp_path):
    steps = np.arange(-10, 11)
    fits.writeto(tmp_path / 'psf.fits', np.exp(-np.add.outer(steps**2, steps**2) / 4))
    code, out, _ = run('find', clear_map, *BEAM, '--psf', tmp_path / 'psf.fits')
    assert code == 0
    assert '2 sources found' in out


@pytest.mark.parametrize('find', [['--find'], ['--find', '7']])
def test_sources_are_found_and_removed(run, clear_map, tmp_path, find):
    code, out, err = run('remove', clear_map, *find, *BEAM)
    assert code == 0, err
    assert out.startswith('2 of 2 sources removed')
    assert len(QTable.read(tmp_path / 'clear_source_free.ecsv')) == 2


def test_sources_are_found_and_measured(run, clear_map):
    code, out, err = run('photometry', clear_map, '--find', '--apertures', '4', *BEAM)
    assert code == 0, err
    assert '2 of 2 sources measured' in out


def test_batch_finds_the_sources_of_every_map(run, clear_map, weights, tmp_path):
    code, out, err = run(
        'batch', clear_map, '--find', '-o', tmp_path / 'out', '--workers', 0, *BEAM,
        '--weights', weights, '--orientations', 1,
    )  # fmt: skip
    assert code == 0, err
    assert out.startswith('1 of 1 maps done')
    manifest = Table.read(tmp_path / 'out' / 'manifest.ecsv')
    assert manifest['n_sources'][0] == 2


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['find', 'none.fits', *BEAM], 'none.fits'),
        (['find', 'plain.fits'], 'instrument'),
        (['find', 'plain.fits', *BEAM, '--threshold', '-1'], 'threshold must be a positive'),
        (['find', 'plain.fits', *BEAM, '--max-size', '0.5'], 'max_size must be from 1 to 4'),
        (['find', 'plain.fits', *BEAM, '-o', 'a.txt'], 'must end in one of'),
        (['find', 'plain.fits', *BEAM, '--psf', 'none.fits'], 'none.fits'),
        (['find', 'plain.fits', *BEAM, '-o', 'text.csv'], 'exists; give --overwrite'),
        (['remove', 'plain.fits', '--find', '1e9', *BEAM], 'no source of 1e.09 standard errors'),
        (['remove', 'plain.fits', 'text.csv', '--find', *BEAM], 'give the sources once'),
        (['batch', 'plain.fits', '--catalog', 'text.csv', '--find', '-o', 'new', *BEAM],
         'give --catalog or --find'),
    ],
)  # fmt: skip
def test_wrong_arguments(fails, arguments, sentence):
    fails(arguments, sentence)


def test_nothing_else_is_written(run, clear_map, tmp_path):
    before = files(tmp_path)
    run('find', clear_map, *BEAM, '-o', tmp_path / 'list.csv')
    assert {str(path) for path in files(tmp_path).keys() - before.keys()} == {'list.csv'}
