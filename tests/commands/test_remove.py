import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.wcs import WCS
from helpers_commands import PIXELS, SHAPE, SOURCES, discs, files, hdu_bytes
from numpy.testing import assert_allclose, assert_array_equal
from regions import CirclePixelRegion, PixCoord, Regions

from csr_astro import InpaintedPSFPhotometry, NeuralBackgroundEstimator
from csr_astro.photometry import subtract_sources

REMOVE = ['remove', 'map.fits', *PIXELS]


def test_remove_changes_only_what_it_must(run, map_path, tmp_path):
    original = map_path.read_bytes()
    code, out, err = run('remove', map_path, *PIXELS)
    assert (code, err) == (0, 'instrument: pacs-scanmap-blue (from the header)\n')
    output, table_path = tmp_path / 'map_source_free.fits', tmp_path / 'map_source_free.ecsv'
    assert out.splitlines() == [
        f'2 of 2 sources removed: {output}, {table_path}',
        'read: image IMAGE (2), mask COVERAGE (1, 0 is not observed)',
    ]
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
        (['--dtype', 'bfloat16'], lambda t: t.meta['dtype'] == 'bfloat16'),
        (['--batch-size', '1', '--device', 'cpu'], lambda t: len(t) == 2),
        (['--hdu', 'image'], lambda t: (t['flags'] == 0).all()),
        (['--hdu', '2'], lambda t: (t['flags'] == 0).all()),
    ],
)
@pytest.mark.filterwarnings('ignore:the header of the map is that of')
def test_remove_regards_its_options(run, map_path, tmp_path, options, check):
    code, _, err = run('remove', map_path, *PIXELS, *options)
    assert code == 0, err
    assert check(QTable.read(tmp_path / 'map_source_free.ecsv'))


def test_preset_of_the_paper_works_out_of_the_box(run, map_path, tmp_path):
    code, _, err = run('remove', map_path, *PIXELS, '--preset', 'paper', options=False)
    assert code == 0, err
    meta = QTable.read(tmp_path / 'map_source_free.ecsv').meta
    assert (meta['preset'], meta['weights']) == ('paper', 'paper-scanmap')


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


@pytest.mark.parametrize('method', ['psf', 'gaussian'])
def test_fitted_sources_are_subtracted(run, map_path, tmp_path, weights, method):
    psf = tmp_path / 'psf.fits'
    steps = np.arange(-9, 10)
    fits.writeto(psf, np.exp(-np.add.outer(steps**2, steps**2) / 4))
    code, out, err = run('remove', map_path, *PIXELS, '--method', method, '--psf', psf)
    assert code == 0, err
    assert '2 of them subtracted as fitted' in out
    estimator = NeuralBackgroundEstimator(
        weights, orientations=1, instrument='pacs-scanmap-blue', psf=str(psf)
    )
    shape = 'point' if method == 'psf' else 'gaussian'
    with fits.open(map_path) as hdus:
        result = estimator.estimate(hdus, SOURCES)
    expected = subtract_sources(
        result, InpaintedPSFPhotometry(estimator=estimator, shape=shape)
    )
    output = tmp_path / 'map_source_free.fits'
    assert_array_equal(fits.getdata(output, 'image'), expected.background)
    assert_array_equal(fits.getdata(output, 'CSR_RMS'), expected.background_rms)
    assert set(np.unique(fits.getdata(output, 'CSR_MASK'))) == {0, 2}
    table = QTable.read(tmp_path / 'map_source_free.ecsv')
    assert_array_equal(table['flux'], expected.sources['flux'])
    assert table.meta['psf'] == str(psf)


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


def test_regions_of_a_catalog_are_the_masks(run, map_path, tmp_path):
    catalog = tmp_path / 'catalog.reg'
    Regions([CirclePixelRegion(PixCoord(x, y), 6.2) for x, y in SOURCES]).write(str(catalog))
    assert run('remove', map_path, catalog)[0] == 0
    mask = fits.getdata(tmp_path / 'map_source_free.fits', 'CSR_MASK') > 0
    assert_array_equal(mask, discs([6.2, 6.2]))


def test_weights_of_any_name_are_told_in_the_history(run, map_path, tmp_path, weights):
    path = tmp_path / 'wé.safetensors'
    path.write_bytes(weights.read_bytes())
    words = ['remove', map_path, *PIXELS, '--weights', path, '-o', tmp_path / 'a.fits']
    assert run(*words, '--no-errors', options=False)[0] == 0
    history = str(fits.getheader(tmp_path / 'a.fits', 'image')['HISTORY'])
    assert 'w?.safetensors' in history.replace('\n', '')
    assert 'CSR_RMS' not in history


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
    ],
)
def test_wrong_input_gets_one_sentence(fails, arguments, sentence):
    fails(arguments, sentence)
