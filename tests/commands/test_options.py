import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from helpers_commands import PIXELS, SOURCES, files
from numpy.testing import assert_allclose
from regions import PointSkyRegion, Regions


@pytest.mark.parametrize(
    'form',
    [
        lambda c: f'{c.ra.deg:.8f} {c.dec.deg:.8f}',
        lambda c: c.to_string('hmsdms', precision=5),
        lambda c: c.to_string('hmsdms', precision=5, sep=':'),
        lambda c: c.to_string('hmsdms', precision=5, sep=' '),
        lambda c: f'{c.ra.deg:.8f}d {c.dec.deg:.8f}d',
        lambda c: f'{c.ra.deg:.8f},{c.dec.deg:.8f}',
        lambda c: f'{c.ra.deg:.8f} {c.dec.to_string(sep=":", precision=5)}',
    ],
    ids=['degrees', 'units', 'colons', 'spaces', 'degrees with units', 'comma', 'mixed'],
)
@pytest.mark.parametrize('south', [False, True])
def test_positions_are_understood(run, tmp_path, sky, wcs, form, south):
    if south:
        wcs = wcs.deepcopy()
        wcs.wcs.crval = 10.5, -0.2
    fits.PrimaryHDU(sky, wcs.to_header()).writeto(tmp_path / 'map.fits')
    coordinates = wcs.pixel_to_world(*SOURCES.T)
    positions = [text for c in coordinates for text in ('--position', form(c))]
    code, _, err = run('remove', tmp_path / 'map.fits', *positions, '--fwhm', 3.3)
    assert (code, err) == (0, '')
    table = QTable.read(tmp_path / 'map_source_free.ecsv')
    assert_allclose(table['x_center'], SOURCES[:, 0], atol=1e-3)
    assert_allclose(table['y_center'], SOURCES[:, 1], atol=1e-3)


def write_catalog(path, wcs):
    x, y = SOURCES.T
    coordinates = wcs.pixel_to_world(x, y)
    if path.suffix == '.reg':
        Regions([PointSkyRegion(c) for c in coordinates]).write(str(path), format='ds9')
    elif path.suffix == '.dat':
        path.write_text('x y\n' + '\n'.join(f'{a} {b}' for a, b in SOURCES))
    elif path.suffix == '.csv':
        Table({'RA': coordinates.ra.deg, 'Dec': coordinates.dec.deg}).write(path)
    elif path.suffix == '.ecsv':
        QTable({'star': coordinates}).write(path)
    elif path.suffix == '.fits':
        Table({'xcentroid': x, 'ycentroid': y}).write(path)
    else:
        QTable({'ra': coordinates.ra, 'dec': coordinates.dec}).write(path, format='votable')


@pytest.mark.parametrize('suffix', ['.csv', '.ecsv', '.fits', '.vot', '.xml', '.dat', '.reg'])
def test_catalogs_are_read(run, map_path, tmp_path, wcs, suffix):
    catalog = tmp_path / f'catalog{suffix}'
    write_catalog(catalog, wcs)
    code, _, err = run('remove', map_path, catalog)
    assert code == 0, err
    table = QTable.read(tmp_path / 'map_source_free.ecsv')
    assert_allclose(table['x_center'], SOURCES[:, 0], atol=1e-3)
    assert_allclose(table['y_center'], SOURCES[:, 1], atol=1e-3)


@pytest.mark.parametrize(
    ('words', 'kept'),
    [
        (['remove', '--table', 'sources.ecsv'], 'sources.ecsv'),
        (['remove', '-o', 'sources.ecsv', '--table', 'new.ecsv'], 'sources.ecsv'),
        (['remove', '--table', 'map.fits'], 'map.fits'),
        (['photometry', '--apertures', '6arcsec', '-o', 'sources.ecsv'], 'sources.ecsv'),
        (['photometry', '--apertures', '6arcsec', '-o', 'map.fits'], 'map.fits'),
    ],
)
def test_other_inputs_are_not_replaced(run, map_path, tmp_path, monkeypatch, words, kept):
    monkeypatch.chdir(tmp_path)
    map_path.rename('map.fits')
    Table({'x': [60.0], 'y': [40.0]}).write('sources.ecsv')
    before = files(tmp_path)
    code, _, err = run(words[0], 'map.fits', './sources.ecsv', *words[1:], '--overwrite')
    assert code == 1
    assert f"'{kept}' would be replaced, and is an input." in err
    assert files(tmp_path) == before


def test_nothing_is_overwritten_unless_asked(run, map_path, tmp_path):
    for command in (['remove'], ['photometry', '--apertures', '6arcsec']):
        arguments = [command[0], map_path, *PIXELS, *command[1:]]
        assert run(*arguments)[0] == 0
        before = files(tmp_path)
        code, _, err = run(*arguments, '--mask-radius', '4')
        assert code == 1
        assert 'exists; give --overwrite to replace it.' in err
        assert files(tmp_path) == before
        assert run(*arguments, '--mask-radius', '4', '--overwrite')[0] == 0
        assert set(files(tmp_path)) == set(before)
        assert files(tmp_path) != before
