import sys

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from helpers_batch import NAMES, contents, write_catalog, write_large_map, write_maps
from numpy.testing import assert_array_equal

from csr_astro.batch import MANIFEST, open_client
from csr_astro.cli import main

WORKERS = ('--workers', '0')


@pytest.fixture
def folder(tmp_path):
    write_maps(tmp_path)
    return tmp_path


@pytest.fixture
def shell(weights, capsys):
    """Run a command: its exit code, standard output and standard error."""

    def run(*arguments):
        options = ['--weights', weights, '--orientations', '1']
        code = main([str(each) for each in (*arguments, *options)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_every_map_gets_what_remove_and_photometry_write(shell, folder):
    given = ['--fwhm', '3.3', '--mask-radius', '6']
    apertures = ['--apertures', '4,6', '--annulus']
    catalog = folder / 'catalog.ecsv'
    with open_client(workers=0, threads=2) as client:
        code, out, err = shell(
            'batch', folder / '[ab].fits', '--catalog', catalog, '-o', folder / 'out', *given,
            *apertures, '--scheduler', client.scheduler.address,
        )  # fmt: skip
    assert (code, out) == (0, f'2 of 2 maps done, see {folder / "out" / MANIFEST}\n')
    assert 'dashboard: http' in err
    expected = folder / 'expected'
    expected.mkdir()
    for name in NAMES[:2]:
        one = [folder / f'{name}.fits', catalog, *given]
        shell('remove', *one, '-o', expected / f'{name}_source_free.fits')
        table = expected / f'{name}_source_free_photometry.ecsv'
        shell('photometry', *one, *apertures, '-o', table)
    assert contents(folder / 'out') == contents(expected)


def test_photometry_options_need_apertures(shell, folder):
    given = ['batch', folder / 'a.fits', '--catalog', folder / 'catalog.ecsv', '-o', folder / 'out']
    code, _, err = shell(*given, '--annulus')
    assert (code, err) == (
        1, 'csr-astro: error: photometry needs --apertures, or --method psf or gaussian.\n'
    )  # fmt: skip


@pytest.mark.parametrize('method', ['psf', 'gaussian'])
def test_sources_are_fitted(shell, folder, method):
    given = ['--fwhm', '3.3', '--method', method]
    catalog = folder / 'catalog.ecsv'
    code, _, err = shell('batch', folder / 'a.fits', '--catalog', catalog, '-o', folder / 'out',
                         *given, *WORKERS)  # fmt: skip
    assert code == 0, err
    shell('photometry', folder / 'a.fits', catalog, *given, '-o', folder / 'alone.ecsv')
    table, alone = (
        Table.read(path)
        for path in (folder / 'out' / 'a_source_free_photometry.ecsv', folder / 'alone.ecsv')
    )
    assert table.colnames == alone.colnames
    assert list(table['flux']) == list(alone['flux'])


def test_subtraction_is_that_of_remove(shell, folder):
    given = ['--fwhm', '3.3', '--method', 'psf']
    catalog = folder / 'catalog.ecsv'
    code, _, err = shell('batch', folder / 'a.fits', '--catalog', catalog, '-o', folder / 'out',
                         '--subtract', *given, *WORKERS)  # fmt: skip
    assert code == 0, err
    assert shell('remove', folder / 'a.fits', catalog, *given, '-o', folder / 'one.fits')[0] == 0
    for name in ('CSR_MASK', 0):
        paths = folder / 'out' / 'a_source_free.fits', folder / 'one.fits'
        assert_array_equal(*(fits.getdata(path, name) for path in paths))
    code, _, err = shell('batch', folder / 'a.fits', '--catalog', catalog, '-o', folder / 'new',
                         '--subtract', '--apertures', '4')  # fmt: skip
    assert (code, err) == (1, 'csr-astro: error: --subtract needs --method psf or gaussian.\n')


def test_missing_dask_is_said_with_the_way_to_get_it(shell, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'distributed', None)
    code, _, err = shell('batch', folder / 'a.fits', '--catalog', 'c.ecsv', '-o', folder / 'out')
    assert code == 1
    assert err == (
        'csr-astro: error: batches need dask; install it with: pip install "csr_astro[dask]"\n'
    )


def test_bad_maps_stop_no_other(shell, folder):
    good = (folder / 'b.fits').read_bytes()
    (folder / 'b.fits').write_text('no FITS file')
    fits.PrimaryHDU(np.zeros((3, 4, 5))).writeto(folder / 'c.fits', overwrite=True)
    (folder / 'd.fits').unlink()
    given = ['batch', *(folder / f'{name}.fits' for name in NAMES), '--fwhm', '3.3']
    given += ['--catalog', folder / 'catalog.ecsv', '-o', folder / 'out']
    code, out, err = shell(*given, *WORKERS)
    assert (code, out) == (1, '')
    path = folder / 'out' / MANIFEST
    assert err.endswith(f'csr-astro: error: 3 of 4 maps failed, see {path}\n')
    assert f'{folder / "d.fits"}: no such file' in err
    manifest = Table.read(path)
    assert list(manifest['status']) == ['done', 'failed', 'failed', 'failed']
    for row, message in zip(
        manifest[1:], ['not a readable FITS file', 'no two-dimensional image', 'no such file'],
        strict=True,
    ):  # fmt: skip
        assert message in row['message']
    assert set(contents(folder / 'out')) == {'a_source_free.fits', 'a_source_free.ecsv'}
    (folder / 'b.fits').write_bytes(good)
    assert shell(*given, *WORKERS)[0] == 1
    assert list(Table.read(path)['status']) == ['done', 'done', 'failed', 'failed']


def test_split_at_the_shell_writes_what_remove_writes(shell, tmp_path):
    path = tmp_path / 'large.fits'
    xy = write_large_map(path)
    write_catalog(tmp_path / 'catalog.ecsv', xy)
    code, _, err = shell(
        'batch', path, '--catalog', tmp_path / 'catalog.ecsv', '-o', tmp_path / 'out',
        '--split', 4, '--fwhm', 3.3, *WORKERS,
    )  # fmt: skip
    assert code == 0, err
    (tmp_path / 'plain').mkdir()
    shell(
        'remove', path, tmp_path / 'catalog.ecsv', '--fwhm', 3.3,
        '-o', tmp_path / 'plain' / 'large_source_free.fits',
    )  # fmt: skip
    assert contents(tmp_path / 'out') == contents(tmp_path / 'plain')


def test_columns_of_the_catalogue_are_chosen_and_kept(shell, folder):
    positions = Table.read(folder / 'catalog.ecsv')
    x, y = (np.asarray(positions[name]) for name in positions.colnames[-2:])
    table = Table({'name': [f's{i}' for i in range(len(x))], 'a': x, 'b': y, 'z': y})
    table.write(folder / 'own.csv')
    code, _, err = shell(
        'batch', folder / 'a.fits', '--catalog', folder / 'own.csv', '-o', folder / 'out',
        '--fwhm', '3.3', '--columns', 'a,b,pixel', *WORKERS,
    )  # fmt: skip
    assert code == 0, err
    found = Table.read(folder / 'out' / 'a_source_free.ecsv')
    assert list(found['id']) == list(table['name'])
    assert list(found['z']) == list(y)


@pytest.mark.parametrize('how', ['rule', 'name', 'table', 'one'])
def test_errors_and_masks_are_those_of_each_map(shell, folder, how):
    for i, name in enumerate(NAMES[:2]):
        (folder / f'{name}.fits').rename(folder / f'{name}_sci.fits')
        level = 1.0 if how == 'one' else 2.0 + i
        fits.PrimaryHDU(np.full((110, 120), level)).writeto(folder / f'{name}_rms.fits')
        bad = np.zeros((110, 120), np.uint8)
        bad[:, 60 + 20 * i] = 1
        fits.PrimaryHDU(bad).writeto(folder / f'{name}_sci_mask.fits')
    maps = [folder / '?_sci.fits']
    given = {
        'rule': ['--error', '_sci=_rms', '--mask', '_sci.=_sci_mask.'],
        'name': ['--error', '_sci=_rms', '--mask', '{}_mask.fits'],
        'one': ['--error', folder / 'a_rms.fits', '--mask', '{}_mask.fits'],
        'table': [],
    }[how]
    if how == 'table':
        maps = [folder / 'maps.csv']
        rows = [(f'{n}_sci.fits', f'{n}_rms.fits', f'{n}_sci_mask.fits') for n in NAMES[:2]]
        Table(rows=rows, names=('map', 'error', 'mask')).write(maps[0])
    same = ['--fwhm', '3.3', '--mask-radius', '6', '--apertures', '4']
    catalog = folder / 'catalog.ecsv'
    code, _, err = shell(
        'batch', *maps, '--catalog', catalog, *given, '-o', folder / 'out', *same, *WORKERS
    )
    assert code == 0, err
    for name in NAMES[:2]:
        error = folder / f'{"a" if how == "one" else name}_rms.fits'
        table = folder / f'{name}.ecsv'
        shell(
            'photometry', folder / f'{name}_sci.fits', catalog, *same, '-o', table,
            '--error', error, '--mask', folder / f'{name}_sci_mask.fits',
        )  # fmt: skip
        written = folder / 'out' / f'{name}_sci_source_free_photometry.ecsv'
        one, many = (Table.read(path) for path in (table, written))
        for column in ('flux', 'flux_err', 'flags'):
            assert_array_equal(np.array(one[column]), np.array(many[column]))


def test_rule_that_does_not_fit_the_name_of_a_map_is_refused(shell, folder):
    code, _, err = shell(
        'batch', folder / 'a.fits', '--find', '--error', '_sci=_rms', '-o', folder / 'out', *WORKERS
    )
    assert code == 1
    assert "error: the name of the map 'a.fits' has no '_sci' to be replaced" in err
