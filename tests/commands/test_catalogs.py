"""Columns of a catalogue at the shell."""

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable, Table
from helpers_commands import PIXELS, SOURCES
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import (
    CircularAperture,
    EllipticalAperture,
    RectangularAperture,
    aperture_photometry,
)


@pytest.fixture
def catalog(tmp_path, wcs):
    sky = wcs.pixel_to_world(*SOURCES.T)
    table = Table(
        {
            'ID': ['b7', 'a1'],
            'lon': sky.galactic.l.deg,
            'lat': sky.galactic.b.deg,
            'x': SOURCES[:, 0],
            'y': SOURCES[:, 1],
            'flux': [3.0, 4.0],
            'z': [0.1, 0.2],
        }
    )
    table.write(tmp_path / 'catalog.csv')
    return tmp_path / 'catalog.csv'


COMMANDS = {
    'remove': (['remove'], 'map_source_free.ecsv'),
    'photometry': (
        ['photometry', '--apertures', '4', '--aperture-correction', 'none'],
        'map_photometry.ecsv',
    ),
}


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
    fails(['remove', 'map.fits', catalog, '--columns', columns], rf"'.*catalog\.csv': .*{sentence}")


def measured(path):
    return QTable.read(path)['aperture_sum'].value


@pytest.mark.parametrize(
    ('text', 'shape'),
    [
        ('ellipse(5,3,30)', EllipticalAperture(SOURCES, 5, 3, theta=30 * u.deg)),
        ('ellipse(5, 3, 30deg)', EllipticalAperture(SOURCES, 5, 3, theta=30 * u.deg)),
        ('ellipse(5,3)', EllipticalAperture(SOURCES, 5, 3)),
        ('rectangle(6,4,30)', RectangularAperture(SOURCES, 6, 4, theta=30 * u.deg)),
        ('circle(4)', CircularAperture(SOURCES, 4)),
        # North is up: position angles are from the y axis.
        ('ellipse(8arcsec,4.8arcsec,30)', EllipticalAperture(SOURCES, 5, 3, theta=120 * u.deg)),
    ],
)
def test_shapes_are_understood(run, map_path, tmp_path, sky, text, shape):
    options = ['--apertures', text, '--aperture-correction', 'none']
    code, _, err = run('photometry', map_path, *PIXELS, *options)
    assert code == 0, err
    expected = aperture_photometry(sky, shape)['aperture_sum']
    assert_allclose(measured(tmp_path / 'map_photometry.ecsv'), expected, rtol=1e-5)


def test_radii_and_shapes_are_mixed(run, map_path, tmp_path):
    options = ['--apertures', '4,ellipse(5,3,30),6arcsec', '--aperture-correction', 'none']
    assert run('photometry', map_path, *PIXELS, *options)[0] == 0
    table = QTable.read(tmp_path / 'map_photometry.ecsv')
    assert {'flux_0', 'flux_1', 'flux_2'} <= set(table.colnames)


REGIONS = 'image\nellipse({},{},7,4,30) # text={{b}}\ncircle({},{},5) # text={{a}}\n'.format(
    *(SOURCES + 1).ravel()
)


@pytest.mark.parametrize('own', [True, False])
def test_regions_are_apertures_one_for_each_source(run, map_path, tmp_path, sky, own):
    path = tmp_path / 'shapes.reg'
    path.write_text(REGIONS)
    sources = [path] if own else PIXELS
    options = ['--apertures', 'regions' if own else path, '--aperture-correction', 'none']
    code, _, err = run('photometry', map_path, *sources, *options)
    assert code == 0, err
    shapes = (
        EllipticalAperture(SOURCES[0], 7, 4, theta=30 * u.deg),
        CircularAperture(SOURCES[1], 5),
    )
    expected = [aperture_photometry(sky, shape)['aperture_sum'][0] for shape in shapes]
    table = tmp_path / 'map_photometry.ecsv'
    assert_allclose(measured(table), expected, rtol=1e-5)
    assert_array_equal(QTable.read(table)['id'], ['b', 'a'] if own else [1, 2])


def test_one_region_is_the_shape_at_every_source(run, map_path, tmp_path, sky):
    path = tmp_path / 'shape.reg'
    path.write_text('image\nellipse(5,5,5,3,30)\n')
    options = ['--apertures', path, '--aperture-correction', 'none']
    assert run('photometry', map_path, *PIXELS, *options)[0] == 0
    expected = aperture_photometry(sky, EllipticalAperture(SOURCES, 5, 3, theta=30 * u.deg))
    assert_allclose(measured(tmp_path / 'map_photometry.ecsv'), expected['aperture_sum'], rtol=1e-5)


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('elipse(5,3)', r'shapes are circle\(R\), ellipse'),
        ('ellipse(5)', r'shapes are circle\(R\), ellipse'),
        ('ellipse(5,3,north)', "'north' is no angle"),
        ('ellipse(5,3arcsec,30)', 'both sizes of a shape must be pixels, or both angles'),
        ('ellipse(-5,3,30)', '--apertures: .*positive'),
        ('none.reg', "no such file: 'none.reg'"),
        ('three.reg', 'one for each of the 2 sources, got 3'),
    ],
)
def test_wrong_shapes_are_refused(fails, tmp_path, text, sentence):
    (tmp_path / 'three.reg').write_text('image\n' + 'circle(3,3,3)\n' * 3)
    fails(
        ['photometry', 'map.fits', *PIXELS, '--apertures', text, '--aperture-correction', 'none'],
        sentence,
    )
