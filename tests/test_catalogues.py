"""Tests of files of catalogues as other programs write them."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from helpers_removal import make_wcs
from numpy.testing import assert_allclose, assert_array_equal
from photutils.segmentation import SourceCatalog, detect_sources

from csr_astro.catalogues import FORMATS
from csr_astro.sources import parse_sources, read_sources

X = np.array([30.25, 4.0, 17.5])
Y = np.array([12.0, 28.75, 3.125])
IDS = np.array([7, 3, 5])


@pytest.fixture(scope='module')
def wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval = 83.8, -5.4
    wcs.wcs.crpix = 20, 15
    wcs.wcs.cdelt = -2 / 3600, 2 / 3600
    return wcs


@pytest.fixture(scope='module')
def sky(wcs):
    return wcs.pixel_to_world(X, Y)


def rows(sky, separator, form='{0} {1:.9f} {2:.9f} {3}'):
    values = zip(IDS, sky.ra.deg, sky.dec.deg, [1.5, 2.5, 3.5], strict=True)
    return '\n'.join(form.replace(' ', separator).format(*each) for each in values) + '\n'


def sextractor(_):
    text = (
        '#   1 NUMBER                 Running object number\n'
        '#   2 FLUX_AUTO              Flux within a Kron-like aperture           [count]\n'
        '#   3 X_IMAGE                Object position along x                    [pixel]\n'
        '#   4 Y_IMAGE                Object position along y                    [pixel]\n'
    )
    values = zip(IDS, [1.5, 2.5, 3.5], X + 1, Y + 1, strict=True)
    return text + ''.join(f'  {a}  {b}  {c:.4f}  {d:.4f}\n' for a, b, c, d in values)


def sextractor_sky(sky):
    text = (
        '#   1 NUMBER                 Running object number\n'
        '#   2 ALPHA_J2000            Right ascension of barycenter (J2000)      [deg]\n'
        '#   3 DELTA_J2000            Declination of barycenter (J2000)          [deg]\n'
        '#   4 FLUX_APER              Flux vector within apertures               [count]\n'
        '#   6 FLAGS                  Extraction flags\n'
    )
    return text + rows(sky, ' ', '{0} {1:.9f} {2:.9f} {3} 9.9 0')


def vizier(sky, separator='\t', *, sexagesimal=False):
    head = (
        '#\n#   VizieR Astronomical Server vizier.cds.unistra.fr\n#INFO\tqueryParameters=5\n'
        '#Column\trecno\t(I8)\tRecord number\t[ucd=meta.record]\n'
        '#Title: stars\n'
    )
    if sexagesimal:
        names, units = ('ID', 'RAJ2000', 'DEJ2000', 'Fnu'), (' ', '"h:m:s"', '"d:m:s"', 'mJy')
        ra = [each.ra.to_string('hourangle', sep=' ', precision=6, pad=True) for each in sky]
        dec = [each.dec.to_string(sep=' ', precision=5, alwayssign=True, pad=True) for each in sky]
        cells = [*zip(IDS.astype(str), ra, dec, ['1.5', '', '3.5'], strict=True)]
    else:
        names, units = ('ID', '_RAJ2000', '_DEJ2000', 'Fnu'), (' ', 'deg', 'deg', 'mJy')
        cells = [
            (str(n), f'{c.ra.deg:.9f}', f'{c.dec.deg:.9f}', f)
            for n, c, f in zip(IDS, sky, ['1.5', '', '3.5'], strict=True)
        ]
    lines = [names, units, ('--', '----------', '------', '---'), *cells]
    return head + '\n'.join(separator.join(line) for line in lines) + '\n\n#END#\n'


def mrt(sky):
    lines = [
        'Title: Stars',
        'Authors: Nobody N.',
        'Table: Positions',
        '=' * 80,
        'Byte-by-byte Description of file: datafile1.txt',
        '-' * 80,
        ' Bytes Format Units  Label     Explanations',
        '-' * 80,
        ' 1- 3  I3     ---    ID        Number',
        ' 5- 6  I2     h      RAh       Hour',
        ' 8- 9  I2     min    RAm       Minute',
        '11-18  F8.5   s      RAs       Second',
        '   20  A1     ---    DE-       Sign',
        '21-22  I2     deg    DEd       Degree',
        '24-25  I2     arcmin DEm       Minute',
        '27-33  F7.4   arcsec DEs       Second',
        '-' * 80,
    ]
    for n, each in zip(IDS, sky, strict=True):
        hours, lat = each.ra.hms, each.dec.signed_dms
        lines.append(
            f'{n:3d} {int(hours.h):2d} {int(hours.m):2d} {hours.s:8.5f} '
            f'{"-" if lat.sign < 0 else "+"}{int(lat.d):2d} {int(lat.m):2d} {lat.s:7.4f}'
        )
    return '\n'.join(lines) + '\n'


TEXTS = {
    'comma.csv': lambda sky: 'id,ra,dec,f\n' + rows(sky, ','),
    'semicolon.csv': lambda sky: 'id;ra;dec;f\n' + rows(sky, ';'),
    'tab.csv': lambda sky: 'id\tra\tdec\tf\n' + rows(sky, '\t'),
    'tab.tsv': lambda sky: '# from somewhere\nid\tra\tdec\tf\n' + rows(sky, '\t'),
    'spreadsheet.csv': lambda sky: (
        '\ufeff"id","ra","dec","f"\r\n' + rows(sky, ',').replace('\n', '\r\n')
    ),
    'quoted.csv': lambda sky: 'id,RA (deg),Dec (deg),f\n' + rows(sky, ','),
    'vizier.tsv': vizier,
    'vizier.txt': vizier,
    'vizier_semicolon.tsv': lambda sky: vizier(sky, ';'),
    'vizier_bar.tsv': lambda sky: vizier(sky, '|'),
    'vizier_sexagesimal.tsv': lambda sky: vizier(sky, sexagesimal=True),
    'plain.txt': lambda sky: 'id ra dec f\n' + rows(sky, ' '),
    'commented.dat': lambda sky: '# id ra dec f\n' + rows(sky, ' '),
    'plain.cat': lambda sky: 'id ra dec f\n' + rows(sky, ' '),
    'commented.cat': lambda sky: '# id ra dec f\n' + rows(sky, '  '),
    'bars.txt': lambda sky: 'id|ra|dec|f\n' + rows(sky, '|'),
    'sextractor.cat': sextractor,
    'sextractor_sky.cat': sextractor_sky,
    'sextractor.txt': sextractor,
    'table.mrt': mrt,
    'table.dat': mrt,
    'ipac.tbl': lambda sky: (
        '\\fixlen = T\n|id  |ra            |dec           |f   |\n'
        '|int |double        |double        |real|\n'
        + ''.join(
            f' {n:4d} {c.ra.deg:14.9f} {c.dec.deg:14.9f} {1.5:4.1f} \n'
            for n, c in zip(IDS, sky, strict=True)
        )
    ),
    'ecsv.txt': lambda sky: (
        '# %ECSV 1.0\n# ---\n# datatype:\n# - {name: id, datatype: int64}\n'
        '# - {name: ra, datatype: float64}\n# - {name: dec, datatype: float64}\n'
        '# - {name: f, datatype: float64}\nid ra dec f\n'
        + rows(sky, ' ')
    ),
}


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('name', TEXTS)
def test_text_of_other_programs_is_read(tmp_path, sky, wcs, name, packed):
    content = TEXTS[name](sky).encode()
    path = tmp_path / f'{name}{".gz" * packed}'
    path.write_bytes(gzip.compress(content) if packed else content)
    sources = parse_sources(read_sources(path), wcs)
    assert_allclose(sources.x, X, atol=1e-4)
    assert_allclose(sources.y, Y, atol=1e-4)
    assert_array_equal(sources.ids, IDS)


def ldac_header():
    return fits.BinTableHDU.from_columns(
        [fits.Column('Field Header Card', '80A', array=['SIMPLE  =                    T'])],
        name='LDAC_IMHEAD',
    )


def objects(sky, name='LDAC_OBJECTS'):
    table = Table(
        {
            'NUMBER': IDS,
            'X_IMAGE': X + 1,
            'Y_IMAGE': Y + 1,
            'ALPHA_J2000': sky.ra.deg,
            'DELTA_J2000': sky.dec.deg,
            'FLUX_APER': np.ones((3, 2)),
        }
    )
    hdu = fits.BinTableHDU(table, name=name)
    hdu.header['TUNIT2'] = 'pixel'
    hdu.header['TUNIT6'] = 'count'
    return hdu


def other_table():
    return fits.BinTableHDU(Table({'wavelength': [1.0, 2.0]}), name='FILTERS')


FITS = {
    'ldac.cat': lambda sky: [ldac_header(), objects(sky)],
    'ldac.fits': lambda sky: [ldac_header(), objects(sky)],
    'ldac.ldac': lambda sky: [ldac_header(), objects(sky)],
    'fits10.cat': lambda sky: [objects(sky, 'OBJECTS')],
    'second.fits': lambda sky: [other_table(), objects(sky)],
    'image.fits': lambda sky: [fits.ImageHDU(np.zeros((4, 4))), objects(sky)],
    'unnamed.fit': lambda sky: [objects(sky, '')],
}


@pytest.mark.parametrize('name', FITS)
def test_fits_of_other_programs_is_read(tmp_path, sky, wcs, name):
    path = tmp_path / name
    fits.HDUList([fits.PrimaryHDU(), *FITS[name](sky)]).writeto(path)
    for where in (wcs, None):
        sources = parse_sources(read_sources(path), where)
        assert_allclose(sources.x, X, atol=1e-6)
        assert_allclose(sources.y, Y, atol=1e-6)
        assert_array_equal(sources.ids, IDS)
    assert sources.columns == 'X_IMAGE, Y_IMAGE (one-based pixels)'


@pytest.mark.parametrize(
    ('hdus', 'sentence'),
    [
        (lambda _: [], 'it has images and no table'),
        (lambda _: [fits.ImageHDU(np.zeros((4, 4)))], 'it has images and no table'),
        (lambda _: [ldac_header()], 'it has the headers of images and no table of sources'),
        (
            lambda sky: [ldac_header(), objects(sky), ldac_header(), objects(sky)],
            '2 of its tables have positions, extensions 2, 4: name the one that is meant',
        ),
    ],
)
def test_fits_without_one_table_of_positions_is_refused(tmp_path, sky, hdus, sentence):
    path = tmp_path / 'cat.fits'
    fits.HDUList([fits.PrimaryHDU(), *hdus(sky)]).writeto(path)
    with pytest.raises(ValueError, match=f"cat.fits' cannot be read as a catalogue: {sentence}"):
        read_sources(path)


def test_units_and_missing_values_of_vizier_are_kept(tmp_path, sky):
    path = tmp_path / 'v.tsv'
    path.write_text(vizier(sky))
    table = read_sources(path)
    assert table['Fnu'].unit == u.mJy
    assert table['_RAJ2000'].unit == u.deg
    assert_array_equal(table['Fnu'].mask, [False, True, False])


def test_first_table_of_vizier_with_positions_is_used(tmp_path, sky, wcs):
    path = tmp_path / 'v.tsv'
    without = 'band\tlambda\n \tum\n----\t------\nJ\t1.2\nH\t1.6\n\n'
    path.write_text(without + vizier(sky))
    assert_allclose(parse_sources(read_sources(path), wcs).x, X, atol=1e-4)
    path.write_text(vizier(sky) + without)
    assert_allclose(parse_sources(read_sources(path), wcs).x, X, atol=1e-4)
    path.write_text(vizier(sky) + vizier(sky))
    with pytest.warns(
        AstropyUserWarning, match=r'2 tables of .*v\.tsv.* have positions; the first'
    ):
        assert len(read_sources(path)) == 3


def test_every_format_of_the_docs_is_tested():
    tested = {Path(name).suffix for name in [*TEXTS, *FITS]}
    elsewhere = {'.vot', '.xml', '.ecsv', '.reg', '.ds9', '.crtf', '.coo', '.mag', '.als'}
    shown = {each.strip() for suffixes in FORMATS.values() for each in suffixes.split(',')}
    assert shown - elsewhere <= tested


# What programs write besides


def test_names_of_pybdsf_are_in_a_comment(tmp_path, sky, wcs):
    lines = [f'{i}, {a}, 1e-5, {d}' for i, a, d in zip(IDS, sky.ra.deg, sky.dec.deg, strict=True)]
    head = ['# Gaussian list', '# Generated by PyBDSF', ' ', '# Gaus_id, RA, E_RA, DEC']
    (tmp_path / 'map.csv').write_text('\n'.join([*head, *lines]))
    sources = parse_sources(read_sources(tmp_path / 'map.csv'), wcs)
    assert_allclose(sources.x, X, atol=1e-4)
    assert len(sources.y) == len(Y)


def test_numbers_may_have_decimal_commas_between_semicolons(tmp_path, sky, wcs):
    lines = [f'{i};{a};{d}' for i, a, d in zip(IDS, sky.ra.deg, sky.dec.deg, strict=True)]
    (tmp_path / 'c.csv').write_text('id;ra;dec\n' + '\n'.join(lines).replace('.', ','))
    assert_allclose(parse_sources(read_sources(tmp_path / 'c.csv'), wcs).x, X, atol=1e-4)


def test_numbers_without_names_are_not_taken_for_names(tmp_path):
    (tmp_path / 'c.csv').write_text('20.5,30.5\n40,50\n')
    with pytest.raises(ValueError, match='it has no line of names, such as "ra,dec" or "x,y"'):
        read_sources(tmp_path / 'c.csv')


# Objects


def test_source_catalog_of_photutils_is_a_list_of_sources(wcs):
    yy, xx = np.mgrid[:40, :50]
    data = sum(
        np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / 2) for x, y in zip(X, Y, strict=True)
    )
    segments = detect_sources(data, 0.2, 4)
    for options in ({}, {'wcs': wcs}):
        catalog = SourceCatalog(data, segments, **options)
        sources = parse_sources(catalog, options.get('wcs'), keep=True)
        order = np.argsort(sources.x)
        assert_allclose(sources.x[order], np.sort(X), atol=0.1)
        assert_array_equal(sources.ids, catalog.labels)
        assert sources.id_column == 'label'
        assert 'segment_flux' in sources.table.colnames
        one = parse_sources(catalog[1], options.get('wcs'))
        assert_allclose(one.x, sources.x[1:2])


def test_structured_array_of_sep_is_a_list_of_sources():
    """The fields of sep.extract, which counts pixels from zero."""
    fields = [
        ('thresh', 'f8'),
        ('npix', 'i8'),
        ('xmin', 'i8'),
        ('ymin', 'i8'),
        ('x', 'f8'),
        ('y', 'f8'),
        ('x2', 'f8'),
        ('y2', 'f8'),
        ('a', 'f8'),
        ('b', 'f8'),
        ('theta', 'f8'),
        ('cflux', 'f8'),
        ('flux', 'f8'),
        ('xcpeak', 'i8'),
        ('ycpeak', 'i8'),
        ('xpeak', 'i8'),
        ('ypeak', 'i8'),
        ('flag', 'i8'),
    ]
    array = np.zeros(3, dtype=fields)
    array['x'], array['y'], array['xpeak'] = X, Y, 99
    sources = parse_sources(array)
    assert_array_equal(sources.x, X)
    assert_array_equal(sources.y, Y)
    assert sources.ids is None
    assert_array_equal(parse_sources(array[1]).x, X[1:2])
    assert_array_equal(parse_sources(array.view(np.recarray)).x, X)
    assert parse_sources(array[:0]).x.shape == (0,)


def test_table_hdu_and_its_data_and_rows_are_sources(sky, wcs):
    hdu = objects(sky)
    for each in (hdu, hdu.data):
        assert_allclose(parse_sources(each, wcs).x, X, atol=1e-6)
    table = QTable({'id': IDS, 'sky_center': sky})
    assert_allclose(parse_sources(table[1], wcs).x, X[1:2], atol=1e-6)


# Errors


@pytest.mark.parametrize(
    ('name', 'text', 'sentence'),
    [
        ('a.csv', 'id,ra,dec\n1,83.8,-5.4\n2,83.8,-5.4,9,9\n', 'row 2'),
        ('a.tsv', 'ra\tdec\ndeg\tdeg\n---\t---\n1\t2\n3\n', 'line 5 has 1 columns, not 2'),
        ('a.ecsv', 'ra dec\n1 2\n', '.'),
        ('a.txt', 'some words of\nno table at all\n\nor so\n', '.'),
        ('a.vot', '<VOTABLE', '.'),
        ('a.fits', 'SIMPLE  =    T', '.'),
    ],
)
def test_error_of_reading_names_the_file_in_one_line(tmp_path, name, text, sentence):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(
        ValueError, match=f"{name}' cannot be read as a catalogue: .*{sentence}"
    ) as info:
        read_sources(path)
    assert '\n' not in str(info.value)


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        (
            'name,x,y\na,1,2\nb,one,2\n',
            "the column 'x' of sources must hold numbers, row 2 holds 'one'",
        ),
        ('name,flux\na,1\n', r"no columns of positions; .*it has \['name', 'flux'\]; name them"),
        ('ra,dec\n17:56:36,51:29:20\n17:61:36,51:29:20\n', "in row 2, '17:61:36' and '51:29:20'"),
        ('ra_1,dec_1,ra_2,dec_2\n1,2,3,4\n', 'several columns may hold the positions'),
    ],
)
def test_error_of_columns_names_the_file(tmp_path, wcs, text, sentence):
    path = tmp_path / 'stars.csv'
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"^'.*stars\.csv': .*{sentence}"):
        parse_sources(read_sources(path), wcs)


def test_columns_without_names_are_chosen(tmp_path, sky, wcs):
    path = tmp_path / 'bare.cat'
    path.write_text(rows(sky, ' '))
    table = read_sources(path)
    with pytest.raises(ValueError, match=r"no columns of positions.*'col1', 'col2'"):
        parse_sources(table, wcs)
    sources = parse_sources(table, wcs, columns=('col2', 'col3', 'icrs'))
    assert_allclose(sources.x, X, atol=1e-4)


def test_folder_and_file_without_permission_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='is a folder, not a catalogue'):
        read_sources(tmp_path)
    path = tmp_path / 'shut.csv'
    path.write_text('x,y\n1,2\n')

    def refuse(*_, **__):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr('csr_astro.catalogues.get_readable_fileobj', refuse)
    with pytest.raises(ValueError, match=r"the catalogue '.*shut\.csv' may not be read"):
        read_sources(path)


# Tables of other packages, and files with several tables


IRAF = """\
#K IRAF       = NOAO/IRAFV2.14.1        version    %-23s
#N XCENTER   YCENTER   MAG      SHARPNESS   SROUND      GROUND      ID         \\
#U pixels    pixels    #        #           #           #           #          \\
#F %-13.3f   %-10.3f   %-9.3f   %-12.3f     %-12.3f     %-12.3f     %-6d       \\
#
   20.000    31.500    -1.200   0.500       0.100       0.100       7
   41.000    52.000    -0.700   0.500       0.100       0.100       9
"""


@pytest.mark.parametrize('name', ['stars.coo', 'stars.coo.1', 'stars.mag'])
def test_pixels_of_iraf_are_one_based(tmp_path, name):
    (tmp_path / name).write_text(IRAF)
    sources = parse_sources(read_sources(tmp_path / name))
    assert_allclose(sources.x, [19, 40])
    assert_allclose(sources.y, [30.5, 51])
    assert [int(each) for each in sources.ids] == [7, 9]
    assert 'one-based' in sources.provenance['columns']
    # The same names in a table of photutils are zero-based.
    assert parse_sources(Table({'xcenter': [20], 'ycenter': [31.5]})).x == [20]


def test_columns_below_names_are_read_whatever_the_name_of_the_file(tmp_path):
    for name in ('stars.lis', 'stars', 'stars.asc'):
        (tmp_path / name).write_text('# id x y\n4 20.5 31\n5 40 50\n')
        assert_allclose(parse_sources(read_sources(tmp_path / name)).x, [20.5, 40])


def test_one_of_several_tables_can_be_named(tmp_path):
    path = tmp_path / 'chips.ldac'
    tables = [Table({'NUMBER': [1], 'X_IMAGE': [x], 'Y_IMAGE': [30.0]}) for x in (21.0, 61.0)]
    hdus = [fits.BinTableHDU(each, name='LDAC_OBJECTS', ver=i) for i, each in enumerate(tables, 1)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    with pytest.raises(ValueError, match=r'extensions 1, 2: name the one .* chips.ldac\[1\]'):
        read_sources(path)
    for wanted, x in (('2', 60), ('LDAC_OBJECTS,1', 20), ('1', 20)):
        sources = read_sources(tmp_path / f'chips.ldac[{wanted}]')
        assert parse_sources(sources).x == [x]
    with pytest.raises(ValueError, match='it has no table 7'):
        read_sources(tmp_path / 'chips.ldac[7]')


@pytest.mark.parametrize('package', ['pandas', 'polars'])
def test_data_frames_are_tables(package):
    frame = pytest.importorskip(package).DataFrame
    sources = parse_sources(frame({'name': ['a', 'b'], 'x': [1.5, None], 'y': [3, 4]}))
    assert_array_equal(sources.x, [1.5, np.nan])
    assert list(sources.ids) == ['a', 'b']
    wcs = make_wcs(1.6)
    sky = wcs.pixel_to_world([20, 40], [30, 35])
    text = sky.to_string('hmsdms', precision=6)
    frame = frame({
        'source_id': [3, 1],
        'RA': [each.split()[0] for each in text],
        'DEC': [each.split()[1] for each in text],
    })
    sources = parse_sources(frame, wcs)
    assert_allclose(sources.x, [20, 40], atol=1e-3)
    assert list(sources.ids) == [3, 1]


def test_index_of_a_data_frame_tells_its_rows_apart():
    pandas = pytest.importorskip('pandas')
    frame = pandas.DataFrame({'x': [1.5, 2.5, 3.5], 'y': [3, 4, 5]})
    assert parse_sources(frame).ids is None
    assert list(parse_sources(frame[frame.x > 2]).ids) == [1, 2]
    frame.index = pandas.Index([7, 9, 8], name='source_id')
    assert list(parse_sources(frame).ids) == [7, 9, 8]


def test_positions_on_the_other_side_of_the_sky_are_counted():
    wcs = make_wcs(1.6)
    near = wcs.pixel_to_world(30, 40)
    far = SkyCoord(near.ra + 180 * u.deg, -near.dec)
    with pytest.warns(AstropyUserWarning, match='1 of 2 positions are more than 90 degrees away'):
        sources = parse_sources(SkyCoord([near, far]), wcs)
    assert_allclose(sources.x, [30, np.nan], atol=1e-6)
