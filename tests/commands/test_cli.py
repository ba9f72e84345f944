import gzip
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from regions import CirclePixelRegion, PixCoord, PointSkyRegion, Regions

import csr_astro
from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator, list_instruments
from csr_astro.cli import main
from csr_astro.nn.unet import DECODER, ENCODER
from csr_astro.nn.weights import load_model

SHAPE = (100, 110)
SOURCES = np.array([(40.3, 60.2), (80.6, 33.4)])
COMMANDS = [
    '', 'remove', 'photometry', 'demo', 'weights', 'weights list', 'weights info',
    'weights convert', 'instruments', 'train', 'evaluate', 'evaluate accuracy', 'batch',
]  # fmt: skip


@pytest.fixture(scope='module')
def wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval = 269.15, 51.49
    wcs.wcs.crpix = 60, 50
    wcs.wcs.cdelt = -1.6 / 3600, 1.6 / 3600
    return wcs


@pytest.fixture(scope='module')
def sky():
    yy, xx = np.indices(SHAPE)
    sky = 20 + 0.05 * xx - 0.02 * yy + np.random.default_rng(0).normal(0, 1, SHAPE)
    for x, y in SOURCES:
        sky += 300 * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 4)
    sky[20:23, 60:66] = np.nan
    return sky


@pytest.fixture
def map_path(tmp_path, sky, wcs):
    """A file like those of archives: several extensions, the image in one of them."""
    primary = fits.PrimaryHDU()
    primary.header['OBJECT'] = 'nothing'
    primary.header['INSTRUME'] = 'PACS'
    primary.header['OBS_MODE'] = 'Scan map'
    primary.header['WAVELNTH'] = 70.0
    image = fits.ImageHDU(sky.astype('>f8'), wcs.to_header(), name='image')
    image.header['BUNIT'] = 'Jy/pixel', 'Unit of the data'
    image.header['HIERARCH long.keyword'] = 'kept'
    image.header.add_comment('a comment')
    image.header.add_history('made by hand')
    coverage = fits.ImageHDU(np.arange(SHAPE[0] * SHAPE[1], dtype='>i2').reshape(SHAPE),
                             wcs.to_header(), name='coverage')  # fmt: skip
    columns = [
        fits.Column('counts', 'J', bzero=2**31, array=np.array([1, 2, 3], np.uint32)),
        fits.Column('text', '8A', array=['a', 'b', 'c']),
        fits.Column('ragged', 'PE()', array=np.array([[1.0], [1, 2], [3]], object)),
    ]
    table = fits.BinTableHDU.from_columns(columns, name='history')
    path = tmp_path / 'map.fits'
    fits.HDUList([primary, coverage, image, table, fits.ImageHDU(name='empty')]).writeto(path)
    return path


@pytest.fixture
def run(weights, capsys):
    """Run a command: its exit code, standard output and standard error."""

    def run_command(*arguments, options=True):
        arguments = [str(argument) for argument in arguments]
        if options and arguments[0] in ('remove', 'photometry'):
            arguments += ['--weights', str(weights), '--orientations', '1']
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_command


PIXELS = [text for x, y in SOURCES for text in ('--pixel', str(x), str(y))]


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*.*')}


def hdu_bytes(path, name):
    """Header and data of an extension as they stand in the file."""
    with fits.open(path) as hdus:
        info = hdus[name].fileinfo()
    content = path.read_bytes()
    return content[info['hdrLoc'] : info['datLoc'] + info['datSpan']]


def discs(radii):
    yy, xx = np.indices(SHAPE)
    return np.any(
        [np.hypot(xx - x, yy - y) <= r for (x, y), r in zip(SOURCES, radii, strict=True)], axis=0
    )


# Removing


def test_remove_changes_only_what_it_must(run, map_path, tmp_path):
    original = map_path.read_bytes()
    code, out, err = run('remove', map_path, *PIXELS)
    assert (code, err) == (0, 'instrument: pacs-scanmap-blue (from the header)\n')
    output, table_path = tmp_path / 'map_source_free.fits', tmp_path / 'map_source_free.ecsv'
    assert out == f'2 of 2 sources removed: {output}, {table_path}\n'
    assert map_path.read_bytes() == original
    assert set(files(tmp_path)) == {
        Path(name) for name in ('map.fits', 'map_source_free.fits', 'map_source_free.ecsv')
    }
    for name in ('PRIMARY', 'coverage', 'history', 'empty'):
        assert hdu_bytes(output, name) == hdu_bytes(map_path, name)
    table = QTable.read(table_path)
    inside = discs(table['mask_radius'])
    with fits.open(output) as hdus, fits.open(map_path) as before:
        names = ['PRIMARY', 'COVERAGE', 'IMAGE', 'HISTORY', 'EMPTY', 'CSR_MASK', 'CSR_RMS']
        assert [hdu.name for hdu in hdus] == names
        image = hdus['image']
        assert image.data.dtype == '>f8'
        assert image.data[~inside].tobytes() == before['image'].data[~inside].tobytes()
        assert (image.data[inside] != before['image'].data[inside]).all()
        kept, had = (
            [str(card) for card in header.cards if card.keyword != 'HISTORY']
            for header in (image.header, before['image'].header)
        )
        assert kept == had
        assert_array_equal(hdus['CSR_MASK'].data, inside)
        rms = hdus['CSR_RMS']
        assert_array_equal(rms.data > 0, inside)
        assert rms.header['BUNIT'] == 'Jy/pixel'
        for hdu in (hdus['CSR_MASK'], rms):
            assert WCS(hdu.header).wcs.compare(WCS(image.header).wcs)
        history = list(image.header['HISTORY'])
    assert history[0] == 'made by hand'
    text = ' '.join(history)
    for part in ('csr_astro', '2 of 2 sources removed', 'pacs-scanmap-blue',
                 table.meta['weights_sha256']):  # fmt: skip
        assert part in text
    with fits.open(output) as hdus:
        hdus.verify('exception')


def test_scaled_integers_of_other_extensions_stay_as_they_are(run, map_path, tmp_path):
    with fits.open(map_path, mode='append') as hdus:
        scaled = fits.ImageHDU(np.arange(100, dtype='>i2').reshape(10, 10), name='scaled')
        scaled.header['BSCALE'] = 0.5
        hdus.append(scaled)
        hdus.append(fits.ImageHDU(np.arange(100, dtype='u2').reshape(10, 10), name='unsigned'))
    assert run('remove', map_path, *PIXELS)[0] == 0
    for name in ('scaled', 'unsigned'):
        output = tmp_path / 'map_source_free.fits'
        assert hdu_bytes(output, name) == hdu_bytes(map_path, name)


def test_remove_agrees_with_the_estimator(run, map_path, tmp_path, weights):
    output, table_path = tmp_path / 'clean.fits', tmp_path / 'list.ecsv'
    code, _, _ = run('remove', map_path, *PIXELS, '-o', output, '--table', table_path)
    assert code == 0
    estimator = NeuralBackgroundEstimator(weights, orientations=1, instrument='pacs-scanmap-blue')
    with fits.open(map_path) as hdus:
        result = estimator.estimate(hdus, SOURCES)
    assert_array_equal(fits.getdata(output, 'image'), result.background)
    assert_array_equal(fits.getdata(output, 'CSR_RMS'), result.background_rms)
    table = QTable.read(table_path)
    assert table.colnames == result.sources.colnames
    for name in ('snr', 'mask_radius', 'background', 'flags'):
        assert_array_equal(table[name], result.sources[name])
    assert table.meta == result.sources.meta


@pytest.mark.parametrize(
    ('options', 'check'),
    [
        (['--mask-radius', '6'], lambda t: (t['mask_radius'] == 6).all()),
        (['--mask-radius', '8arcsec'], lambda t: np.allclose(t['mask_radius'], 5)),
        (['--mask-radius', '8"'], lambda t: np.allclose(t['mask_radius'], 5)),
        (['--mask-radius', 'snr'], lambda t: set(t['mask_name']) == {'large'}),
        (['--instrument', 'spire-250'], lambda t: t.meta['instrument'] == 'spire-250'),
        (['--fwhm', '3.3'], lambda t: t.meta['instrument'] == 'generic'),
        (['--fwhm', '5.3arcsec'], lambda t: t.meta['instrument'] == 'generic'),
        (['--preset', 'paper'], lambda t: t.meta['preset'] == 'paper'),
        (['--dtype', 'bfloat16'], lambda t: t.meta['dtype'] == 'bfloat16'),
        (['--batch-size', '1', '--device', 'cpu'], lambda t: len(t) == 2),
        (['--hdu', 'image'], lambda t: (t['flags'] == 0).all()),
        (['--hdu', '2'], lambda t: (t['flags'] == 0).all()),
    ],
)
@pytest.mark.filterwarnings('ignore:the preset', 'ignore:the header of the map is that of')
def test_remove_regards_its_options(run, map_path, tmp_path, options, check):
    code, _, err = run('remove', map_path, *PIXELS, *options)
    assert code == 0, err
    assert check(QTable.read(tmp_path / 'map_source_free.ecsv'))


def test_remove_refines_centers_on_request(run, map_path, tmp_path):
    code, _, _ = run('remove', map_path, '--pixel', 41.3, 59.4, '--refine')
    assert code == 0
    table = QTable.read(tmp_path / 'map_source_free.ecsv')
    assert_allclose([table['x_center'][0], table['y_center'][0]], SOURCES[0], atol=0.1)


def test_errors_can_be_left_out(run, map_path, tmp_path):
    run('remove', map_path, *PIXELS, '--no-errors', '-o', tmp_path / 'plain.fits')
    run('remove', map_path, *PIXELS, '--errors', '-o', tmp_path / 'full.fits')
    with fits.open(tmp_path / 'plain.fits') as plain, fits.open(tmp_path / 'full.fits') as full:
        assert [hdu.name for hdu in full] == [hdu.name for hdu in plain] + ['CSR_RMS']
        assert_array_equal(plain['image'].data, full['image'].data)


def test_realization_fills_with_noise(run, map_path, tmp_path):
    for seed, name in ((3, 'a'), (3, 'b'), (4, 'c')):
        run('remove', map_path, *PIXELS, '--realization', seed, '-o', tmp_path / f'{name}.fits')
    run('remove', map_path, *PIXELS, '-o', tmp_path / 'mean.fits')
    a, b, c, mean = (fits.getdata(tmp_path / f'{n}.fits', 'image') for n in ('a', 'b', 'c', 'mean'))
    mask = fits.getdata(tmp_path / 'mean.fits', 'CSR_MASK') > 0
    assert_array_equal(a, b)
    assert (a != c)[mask].mean() > 0.9
    assert (a != mean)[mask].mean() > 0.9
    assert_array_equal(a[~mask], mean[~mask])
    assert 'realization 3' in str(fits.getheader(tmp_path / 'a.fits', 'image')['HISTORY'])


def test_source_free_map_can_be_cleaned_again(run, map_path, tmp_path):
    first, second = tmp_path / 'first.fits', tmp_path / 'second.fits'
    assert run('remove', map_path, *PIXELS[:3], '-o', first)[0] == 0
    assert run('remove', first, *PIXELS[3:], '-o', second)[0] == 0
    with fits.open(first) as hdus, fits.open(second) as again:
        assert [hdu.name for hdu in again] == [hdu.name for hdu in hdus]
        before, changed = (each['CSR_MASK'].data > 0 for each in (hdus, again))
        assert [changed[33, 81], changed[60, 40]] == [True, True]
        assert [before[33, 81], before[60, 40]] == [False, True]
        kept = (before | ~changed) & np.isfinite(hdus['image'].data)
        for name in ('image', 'CSR_RMS'):
            assert_array_equal(again[name].data[kept], hdus[name].data[kept])
        assert (again['CSR_RMS'].data[changed] > 0).all()
        assert str(again['image'].header['HISTORY']).count('sources removed') == 2


def test_map_can_be_replaced_by_its_source_free_copy(run, map_path, tmp_path):
    expected = tmp_path / 'expected.fits'
    run('remove', map_path, *PIXELS, '-o', expected)
    code, _, _ = run('remove', map_path, *PIXELS, '-o', map_path, '--overwrite')
    assert code == 0
    assert_array_equal(fits.getdata(map_path, 'image'), fits.getdata(expected, 'image'))


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


def write_map(path, data, wcs, kind):
    header = wcs.to_header()
    if kind == 'gzip':
        fits.PrimaryHDU(data, header).writeto(path.with_suffix('.plain'))
        path.write_bytes(gzip.compress(path.with_suffix('.plain').read_bytes()))
    elif kind == 'compressed':
        image = fits.CompImageHDU(data.astype('f4'), header, name='image')
        fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
    elif kind == 'scaled':
        image = fits.PrimaryHDU(np.nan_to_num(data), header)
        image.scale('int16', bscale=0.0125, bzero=100)
        image.header['BLANK'] = -32768
        image.writeto(path)
    elif kind == 'unsigned':
        fits.PrimaryHDU(np.nan_to_num(data).astype('u2'), header).writeto(path)
    elif kind == 'third axis':
        header = WCS(header).sub([1, 2, 0]).to_header()
        fits.PrimaryHDU(data[None].astype('f4'), header).writeto(path)
    elif kind == 'checksum':
        fits.PrimaryHDU(data, header).writeto(path, checksum=True)
    else:
        fits.PrimaryHDU(data.astype(kind), header).writeto(path)


@pytest.mark.parametrize(
    ('kind', 'suffix'),
    [
        ('>f4', '.fits'),
        ('>i4', '.fits'),
        ('gzip', '.fits.gz'),
        ('compressed', '.fits.fz'),
        ('scaled', '.fits'),
        ('unsigned', '.fits'),
        ('third axis', '.fits'),
        ('checksum', '.fits'),
    ],
)
def test_every_kind_of_image_keeps_its_other_pixels(run, tmp_path, sky, wcs, kind, suffix):
    path, output = tmp_path / f'data{suffix}', tmp_path / f'data_source_free{suffix}'
    data = np.nan_to_num(sky) if kind == '>i4' else sky
    write_map(path, data, wcs, kind)
    code, out, err = run('remove', path, *PIXELS, '--fwhm', '3.3', '-o', output)
    assert (code, err) == (0, '')
    assert str(tmp_path / 'data_source_free.ecsv') in out
    with fits.open(path) as before, fits.open(output, checksum=True) as hdus:
        index = 1 if kind == 'compressed' else 0
        outside = hdus['CSR_MASK'].data == 0
        original, written = before[index].data, hdus[index].data
        assert written.shape == original.shape
        assert_array_equal(written.reshape(SHAPE)[outside], original.reshape(SHAPE)[outside])
        assert (written.reshape(SHAPE) != original.reshape(SHAPE))[~outside].mean() > 0.9
        assert ('CHECKSUM' in hdus[0].header) == (kind == 'checksum')


@pytest.mark.parametrize('suffix', ['.ecsv', '.csv', '.fits', '.vot', '.xml'])
def test_table_has_the_format_that_its_name_says(run, map_path, tmp_path, wcs, suffix):
    path = tmp_path / f'list{suffix}'
    code, _, err = run('remove', map_path, *PIXELS, '--pixel', 'nan', 5, '--table', path)
    assert code == 0, err
    table = Table.read(path)
    assert len(table) == 3
    assert_allclose(np.ma.filled(table['x_center'], np.nan), [*SOURCES[:, 0], np.nan])
    coordinates = wcs.pixel_to_world(*SOURCES.T)
    if suffix == '.ecsv':
        ra, dec = table['sky_center'].ra.deg, table['sky_center'].dec.deg
    else:
        ra, dec = table['ra'], table['dec']
    assert_allclose(np.asarray(ra)[:2], coordinates.ra.deg, rtol=1e-9)
    assert_allclose(np.asarray(dec)[:2], coordinates.dec.deg, rtol=1e-9)
    assert [str(name) for name in table['mask_name'][:2]] == ['large', 'large']


def test_unmeasured_sources_are_counted(run, map_path, tmp_path):
    code, out, _ = run('remove', map_path, *PIXELS, '--pixel', '-500', '20')
    assert code == 0
    assert out.startswith('2 of 3 sources removed (1 could not be, see flags)')
    assert len(QTable.read(tmp_path / 'map_source_free.ecsv')) == 3


# Where the sources are


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


def test_regions_of_a_catalog_are_the_masks(run, map_path, tmp_path):
    catalog = tmp_path / 'catalog.reg'
    Regions([CirclePixelRegion(PixCoord(x, y), 6.2) for x, y in SOURCES]).write(str(catalog))
    assert run('remove', map_path, catalog)[0] == 0
    mask = fits.getdata(tmp_path / 'map_source_free.fits', 'CSR_MASK') > 0
    assert_array_equal(mask, discs([6.2, 6.2]))


def test_table_of_a_removal_is_a_catalog(run, map_path, tmp_path):
    run('remove', map_path, *PIXELS)
    table = tmp_path / 'map_source_free.ecsv'
    code, _, err = run('photometry', map_path, table, '--apertures', 4,
                       '--aperture-correction', 'none')  # fmt: skip
    assert code == 0, err
    assert len(QTable.read(tmp_path / 'map_photometry.ecsv')) == 2


# Measuring


@pytest.mark.parametrize(
    ('apertures', 'radii'),
    [('6arcsec', 6 * u.arcsec), ('5arcsec,6arcsec', [5, 6] * u.arcsec), ('4,5.5', [4, 5.5]),
     ('4', 4.0), ('6"', 6 * u.arcsec), ('0.1 arcmin', 6 * u.arcsec)],
)  # fmt: skip
def test_photometry_agrees_with_the_class(run, map_path, tmp_path, weights, apertures, radii):
    code, out, _ = run('photometry', map_path, *PIXELS, '--apertures', apertures, '--annulus')
    assert code == 0
    path = tmp_path / 'map_photometry.ecsv'
    assert out.splitlines()[-1] == f'2 of 2 sources measured: {path}'
    assert 'annulus_flux' in out
    assert ' ... ' not in out
    estimator = NeuralBackgroundEstimator(weights, orientations=1, instrument='pacs-scanmap-blue')
    photometry = InpaintedAperturePhotometry(radii, estimator=estimator, annulus='instrument')
    with fits.open(map_path) as hdus:
        expected = photometry(hdus, SOURCES)
    table = QTable.read(path)
    assert table.colnames == expected.colnames
    for name in expected.colnames:
        if 'flux' in name:
            assert table[name].unit == u.Jy
            assert_array_equal(table[name], expected[name])


@pytest.mark.parametrize(
    ('correction', 'fraction'), [('none', 1), ('vesta', 0.704962), ('0.5', 0.5), (None, 0.64246825)]
)
def test_photometry_takes_corrections(run, map_path, tmp_path, correction, fraction):
    options = [] if correction is None else ['--aperture-correction', correction]
    path = tmp_path / 'out.csv'
    code, _, _ = run('photometry', map_path, *PIXELS, '--apertures', '6arcsec', '-o', path,
                     *options)  # fmt: skip
    assert code == 0
    table = Table.read(path)
    assert_allclose(table['flux'], (table['aperture_sum'] - table['background_sum']) / fraction)
    assert not any('annulus' in name for name in table.colnames)


def test_gamma_draconis_is_removed_and_measured(run, shared_data, tmp_path):
    (path,) = (shared_data / 'data' / 'pacs_gamma_dra').glob('*blue*')
    position = ['--position', '269.152 51.489', '--refine', '--orientations', '2']
    clean = tmp_path / 'clean.fits'
    code, out, err = run('remove', path, *position, '-o', clean, options=False)
    assert (code, err) == (0, 'instrument: pacs-scanmap-blue (from the header)\n')
    assert out.startswith('1 of 1 sources removed')
    for name in ('coverage', 'stDev', 'HistoryScript', 'HistoryTasks', 'HistoryParameters'):
        assert hdu_bytes(clean, name) == hdu_bytes(path, name)
    row = QTable.read(tmp_path / 'clean.ecsv')[0]
    with fits.open(clean) as hdus, fits.open(path) as before:
        cleaned, original = hdus['image'].data, before['image'].data
        assert hdus[0].header['WAVELNTH'] == 70
        assert WCS(hdus['image'].header).wcs.compare(WCS(before['image'].header).wcs)
        outside = hdus['CSR_MASK'].data == 0
        assert cleaned[outside].tobytes() == original[outside].tobytes()
        yy, xx = np.indices(original.shape)
        near = np.hypot(xx - row['x_center'], yy - row['y_center']) < 15
        assert original[near].max() > 100 * cleaned[near].max()
    table_path = tmp_path / 'star.ecsv'
    code, _, _ = run('photometry', path, *position, '--apertures', '6arcsec,8arcsec', '-o',
                     table_path, options=False)  # fmt: skip
    assert code == 0
    table = QTable.read(table_path)
    for name in ('flux_0', 'flux_1'):
        assert_allclose(table[name][0].to_value('Jy') / 1.016 / 3.283, 1, atol=0.03)


# The other commands


def test_demo_writes_and_prints(run, tmp_path):
    pytest.importorskip('matplotlib')
    folder = tmp_path / 'new' / 'folder'
    code, out, _ = run('demo', '--output', folder)
    assert code == 0
    assert {path.name for path in folder.iterdir()} == {'demo.fits', 'demo.ecsv', 'demo.png'}
    table = QTable.read(folder / 'demo.ecsv')
    good = np.array(table['injected'] > 100)
    assert_allclose(np.median((table['flux'] / table['injected'])[good]), 1, atol=0.1)
    assert (folder / 'demo.png').read_bytes()[:4] == b'\x89PNG'
    with fits.open(folder / 'demo.fits') as hdus:
        assert [hdu.name for hdu in hdus[1:]] == ['IMAGE', 'SOURCE_FREE', 'TRUTH', 'CSR_MASK']
        kept = hdus['CSR_MASK'].data == 0
        assert_array_equal(hdus['SOURCE_FREE'].data[kept], hdus['IMAGE'].data[kept])
    lines = out.splitlines()
    assert {'injected', 'measured', 'ratio'} <= set(lines[0].split())
    assert len(lines) == len(table) + 4
    assert lines[-3].startswith('network: median error')
    assert lines[-2].startswith('annulus: median error')
    assert all(name in lines[-1] for name in ('demo.fits', 'demo.ecsv', 'demo.png'))


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


def test_instruments_are_listed(run):
    code, out, _ = run('instruments')
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line[0] != ' '}
    assert set(list_instruments()) <= set(rows)
    assert rows['pacs-scanmap-blue'].split()[1:] == ['5.6"', '1.6"', '12', '11', '9', '7', '6', '5']


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


# Help


@pytest.mark.parametrize('command', COMMANDS)
def test_every_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), '--help'])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert 'example' in out
    assert f'csr-astro {command}'.strip() in out.split('example')[-1]


@pytest.mark.parametrize('command', ['remove', 'photometry'])
def test_examples_of_the_help_are_commands(command, run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([command, '--help'])
    examples = capsys.readouterr().out.split('examples:')[1].strip().splitlines()
    assert len(examples) >= 2
    for line in examples:
        name, *arguments = shlex.split(line)
        assert name == 'csr-astro'
        code, _, err = run(*arguments, options=False)
        assert (code, err) == (1, "csr-astro: error: no such file: 'map.fits'.\n")


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


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stop:
        main(['--version'])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == csr_astro.__version__


# What goes wrong


REMOVE = ['remove', 'map.fits', *PIXELS]
PHOTOMETRY = ['photometry', 'map.fits', *PIXELS, '--apertures']


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['remove', 'none.fits', *PIXELS], "no such file: 'none.fits'"),
        (['remove', 'text.csv', *PIXELS], "'text.csv' is not a readable FITS file"),
        (['remove', 'blank.fits', *PIXELS, '--fwhm', '3'], 'holds no two-dimensional image'),
        (['remove', 'map.fits'], 'give the sources once'),
        (['remove', 'map.fits', 'text.csv', *PIXELS], 'give the sources once'),
        (['remove', 'map.fits', 'none.csv'], "no such file: 'none.csv'"),
        (['remove', 'map.fits', 'text.csv'], 'no columns of positions'),
        (['remove', 'map.fits', 'plain.fits'], "'plain.fits' cannot be read as a catalogue"),
        (['remove', 'plain.fits', *PIXELS], 'the header does not tell the instrument; give its'),
        (['remove', 'map.fits', '--position', 'north'], '--position is not understood'),
        (['remove', 'map.fits', '--position', '500 95'], '--position is not understood'),
        (['remove', 'plain.fits', '--position', '9 5', '--fwhm', '3'], 'need a WCS'),
        ([*REMOVE, '--instrument', 'hubble'], "instrument must be one of .* got 'hubble'"),
        ([*REMOVE, '--instrument', 'spire-250', '--fwhm', '3'], 'fwhm is for the instrument'),
        ([*REMOVE, '--fwhm', 'wide'], "--fwhm: 'wide' is neither a number of pixels nor an angle"),
        ([*REMOVE, '--fwhm', '3Jy'], 'fwhm must be in pixels or an angle'),
        ([*REMOVE, '--fwhm', '-3'], 'fwhm must be positive'),
        ([*REMOVE, '--mask-radius', 'big'], "--mask-radius: 'big' is neither"),
        ([*REMOVE, '--mask-radius', '0'], 'mask_radius must be positive'),
        ([*REMOVE, '--hdu', 'nothing'], "there is no extension 'nothing'"),
        ([*REMOVE, '--hdu', '77'], 'there is no extension'),
        ([*REMOVE, '--hdu', 'history'], 'holds no image'),
        ([*REMOVE, '--weights', 'none-such'], 'weights must be one of'),
        ([*REMOVE, '--weights', 'text.csv'], 'not a readable safetensors file'),
        ([*REMOVE, '--device', 'nonsense'], "device 'nonsense' cannot be used"),
        ([*REMOVE, '--batch-size', '0'], 'batch_size must be a positive integer'),
        ([*REMOVE, '--table', 'list.doc'], "the table 'list.doc' must end in one of"),
        ([*REMOVE, '--table', 'text.csv'], "'text.csv' exists; give --overwrite"),
        ([*REMOVE, '-o', 'plain.fits'], "'plain.fits' exists; give --overwrite"),
        ([*REMOVE, '-o', 'new/map.fits'], "there is no folder 'new' to write to"),
        ([*REMOVE, '-o', 'a.fits', '--table', 'new/a.csv'], "there is no folder 'new' to write to"),
        ([*REMOVE, '-o', 'same.fits', '--table', 'same.fits'], 'same'),
        ([*PHOTOMETRY, '4,big'], "--apertures: 'big' is neither"),
        ([*PHOTOMETRY, '0'], 'radii must be positive and finite'),
        ([*PHOTOMETRY, '1arcsec'], 'covers radii of'),
        ([*PHOTOMETRY, '4', '--aperture-correction', 'all'], '--aperture-correction must be eef'),
        ([*PHOTOMETRY, '4', '--aperture-correction', '.5,.6'], 'one for each of the 1 apertures'),
        ([*PHOTOMETRY, '4', '-o', 'list.doc'], "the table 'list.doc' must end in one of"),
        ([*PHOTOMETRY, '4', '-o', 'text.csv'], "'text.csv' exists; give --overwrite"),
        (['weights', 'info', 'none-such'], 'weights must be one of'),
        (['weights', 'convert', 'none.pth', 'a.safetensors'], "no such checkpoint: 'none.pth'"),
        (['weights', 'convert', 'text.csv', 'a.safetensors'], 'is not a PyTorch state dict'),
        (['train', 'none-such', '-o', 'run'], 'recipe must be one of'),
        (['train', 'tiny', '--maps', 'none', '-o', 'run'], 'none'),
    ],
)
@pytest.mark.usefixtures('map_path')
def test_errors_are_one_line_and_leave_nothing_behind(
    run, tmp_path, sky, monkeypatch, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    fits.PrimaryHDU(sky).writeto('plain.fits')
    fits.PrimaryHDU().writeto('blank.fits')
    Path('text.csv').write_text('a,b\n1,2\n')
    before = files(tmp_path)
    code, out, err = run(*arguments, options='--weights' not in arguments)
    assert code == 1
    lines = err.splitlines()
    assert lines[-1].startswith('csr-astro: error: ')
    assert [line for line in lines[:-1] if not line.startswith('instrument: ')] == []
    assert re.search(sentence, lines[-1])
    assert out == ''
    assert files(tmp_path) == before
    assert not Path('new').exists()


def test_weights_of_any_name_are_told_in_the_history(run, map_path, tmp_path, weights):
    path = tmp_path / 'wé.safetensors'
    path.write_bytes(weights.read_bytes())
    words = ['remove', map_path, *PIXELS, '--weights', path, '-o', tmp_path / 'a.fits']
    assert run(*words, '--no-errors', options=False)[0] == 0
    history = str(fits.getheader(tmp_path / 'a.fits', 'image')['HISTORY'])
    assert 'w?.safetensors' in history.replace('\n', '')
    assert 'CSR_RMS' not in history


def test_another_instrument_than_that_of_the_header_is_told(run, map_path):
    with pytest.warns(AstropyUserWarning, match='is that of pacs-scanmap-blue; .* as spire-250'):
        run('photometry', map_path, *PIXELS, '--apertures', '4', '--instrument', 'spire-250')


def test_reader_may_leave_early(map_path, weights):
    words = ['photometry', map_path, *PIXELS, '--apertures', '4', '--weights', weights]
    command = ' '.join([sys.executable, '-m', 'csr_astro', *map(str, words)])
    done = subprocess.run(
        f'{command} | head -1', shell=True, capture_output=True, text=True, check=False
    )
    assert (done.returncode, 'rror' in done.stderr) == (0, False), done.stderr
    assert done.stdout.count('\n') == 1


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


def test_failed_writing_leaves_no_half(run, map_path, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError('disk full')

    monkeypatch.setattr(fits.HDUList, 'writeto', fail)
    before = files(tmp_path)
    code, _, err = run('remove', map_path, *PIXELS)
    assert code == 1
    assert err.endswith('csr-astro: error: disk full\n')
    after = files(tmp_path)
    assert not any(path.suffix == '.fits' for path in set(after) - set(before))
    assert not any(path.name.startswith('.') for path in after)


def test_interrupt_has_its_own_exit_code(run, map_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(NeuralBackgroundEstimator, 'estimate', stop)
    code, _, err = run('remove', map_path, *PIXELS)
    assert code == 130
    assert err.endswith('csr-astro: stopped.\n')


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
