"""Columns of a catalogue at the shell."""

import numpy as np
import pytest
from astropy.table import QTable, Table
from helpers_commands import SOURCES
from numpy.testing import assert_allclose, assert_array_equal


@pytest.fixture
def catalog(tmp_path, wcs):
    sky = wcs.pixel_to_world(*SOURCES.T)
    table = Table({
        'ID': ['b7', 'a1'], 'lon': sky.galactic.l.deg, 'lat': sky.galactic.b.deg, 'x': SOURCES[:, 0], 'y': SOURCES[:, 1],
        'flux': [3.0, 4.0], 'z': [0.1, 0.2],
    })  # fmt: skip
    table.write(tmp_path / 'catalog.csv')
    return tmp_path / 'catalog.csv'


COMMANDS = {
    'remove': (['remove'], 'map_source_free.ecsv'),
    'photometry': (['photometry', '--apertures', '4', '--aperture-correction', 'none'],
                   'map_photometry.ecsv'),
}  # fmt: skip


@pytest.mark.parametrize('command', COMMANDS)
def test_ids_and_columns_are_kept(run, map_path, tmp_path, catalog, command):
    (name, *options), table = COMMANDS[command]
    code, _, err = run(name, map_path, catalog, *options)
    assert code == 0, err
    found = QTable.read(tmp_path / table)
    assert_array_equal(found['id'], ['b7', 'a1'])
    assert_array_equal(found['z'], [0.1, 0.2])
    assert_array_equal(found['catalog_flux' if command == 'photometry' else 'flux'], [3, 4])
    assert found.meta['columns'] == 'x, y (pixels)'
    assert run(name, map_path, catalog, *options, '--no-keep', '--overwrite')[0] == 0
    found = QTable.read(tmp_path / table)
    assert_array_equal(found['id'], ['b7', 'a1'])
    assert 'z' not in found.colnames


@pytest.mark.parametrize('columns', ['lon,lat,galactic', 'x,y', 'X, Y', 'x,y,pixel'])
def test_columns_are_chosen(run, map_path, tmp_path, catalog, columns):
    code, _, err = run('remove', map_path, catalog, '--columns', columns)
    assert code == 0, err
    found = QTable.read(tmp_path / 'map_source_free.ecsv')
    assert_allclose(np.transpose([found['x_center'], found['y_center']]), SOURCES, atol=1e-4)


@pytest.mark.parametrize(
    ('columns', 'sentence'),
    [('lon,lat', 'lon,lat,icrs'), ('lon', 'holds no SkyCoord'), ('a,b', "no column 'a'")],
)
def test_wrong_columns_are_one_sentence_with_the_file(fails, catalog, columns, sentence):
    fails(
        ['remove', 'map.fits', catalog, '--columns', columns], rf"'.*catalog\.csv': .*{sentence}"
    )
