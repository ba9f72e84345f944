"""Tests of the columns of positions and identifiers."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData
from astropy.table import Column, MaskedColumn, QTable, Table
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro.columns import find_identifier, find_positions, has_positions, known_names
from csr_astro.sources import parse_sources, read_sources
from csr_astro.tables import write_table

X = np.array([30.25, 4.0, 17.5])
Y = np.array([12.0, 28.75, 3.125])


@pytest.fixture(scope='module')
def wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval = 83.8, -5.4
    wcs.wcs.crpix = 20, 15
    wcs.wcs.cdelt = -2 / 3600, 2 / 3600
    wcs.wcs.pc = [[np.sqrt(0.75), -0.5], [0.5, np.sqrt(0.75)]]
    return wcs


@pytest.fixture(scope='module')
def sky(wcs):
    return wcs.pixel_to_world(X, Y)


def assert_at(found, x=X, y=Y, atol=1e-6):
    assert_allclose(found.x, x, rtol=0, atol=atol)
    assert_allclose(found.y, y, rtol=0, atol=atol)


ENTRIES = [entry for entry in known_names()['position'] if 'pairs' in entry]
PAIRS = [(entry, pair) for entry in ENTRIES for pair in entry['pairs']]


def values(entry, sky):
    kind = entry['kind']
    if kind.startswith('pixel'):
        return (X + 1, Y + 1) if kind == 'pixel1' else (X, Y)
    there = sky.transform_to(kind).spherical
    hours = 'hourangle' in entry['unit']
    return there.lon.deg / (15 if hours else 1), there.lat.deg


@pytest.mark.parametrize(('entry', 'pair'), PAIRS, ids=[pair for _, pair in PAIRS])
def test_every_known_pair_is_found_in_any_case(entry, pair, sky, wcs):
    """FK4 depends on the epoch of observation, by less than these tolerances."""
    for change in (str.lower, str.upper, str.title):
        names = [change(name) for name in pair.split()]
        table = Table([np.ones(3), *values(entry, sky)], names=['flux', *names])
        found = find_positions(table, wcs)
        assert_at(found, atol=1e-5)
        assert found.columns == tuple(names)
        assert found.kind == entry['kind']


SPELLINGS = [
    ('RA (deg)', 'Dec (deg)', u.deg),
    ('RA [deg]', 'DEC [deg]', u.deg),
    ('Ra_(deg)', 'Dec_(deg)', u.deg),
    ('RA (J2000)', 'DEC (J2000)', u.deg),
    ('RA(2000)', 'DEC(2000)', u.deg),
    ('RA (hours)', 'Dec (deg)', u.hourangle),
    ('RA [rad]', 'Dec [rad]', u.rad),
    ('_RA.icrs', '_DE.icrs', u.deg),
    ('_RA', '_DE', u.deg),
    ('Right Ascension', 'Declination', u.deg),
    ('R.A.', 'Decl.', u.deg),
    ('RA-J2000', 'DEC-J2000', u.deg),
    ('RA_DEGREES', 'DEC_DEGREES', u.deg),
]


@pytest.mark.parametrize(('ra', 'dec', 'unit'), SPELLINGS, ids=[each[0] for each in SPELLINGS])
def test_spellings_with_units_and_punctuation_are_found(ra, dec, unit, sky, wcs):
    latitude = u.rad if unit is u.rad else u.deg
    table = Table({ra: sky.ra.to_value(unit), dec: sky.dec.to_value(latitude)})
    assert_at(find_positions(table, wcs))


@pytest.mark.parametrize('unit', ['deg', 'degrees', 'Degree', 'hourangle', 'h', 'hours', 'rad'])
def test_units_of_columns_are_understood_as_people_write_them(unit, sky, wcs):
    known = {'h': 'hourangle', 'hours': 'hourangle', 'degrees': 'deg', 'Degree': 'deg'}
    ra = Column(sky.ra.to_value(known.get(unit, unit)))
    ra.unit = u.Unit(unit, parse_strict='silent')
    assert_at(find_positions(Table({'ra': ra, 'dec': sky.dec.deg}), wcs))


@pytest.mark.parametrize('separator', [' ', ':', 'hms'])
@pytest.mark.parametrize('names', [('RA', 'DEC'), ('RAJ2000', 'DEJ2000'), ('ra_hms', 'dec_dms')])
def test_sexagesimal_text_is_hours_and_degrees(separator, names, sky, wcs):
    options = {} if separator == 'hms' else {'sep': separator}
    ra = [c.ra.to_string(u.hourangle, precision=7, **options) for c in sky]
    dec = [c.dec.to_string(u.deg, precision=7, alwayssign=True, **options) for c in sky]
    assert_at(find_positions(Table([ra, dec], names=names), wcs), atol=1e-4)


def test_decimal_numbers_in_text_are_degrees(sky, wcs):
    table = Table(
        {'ra': [f'{a:.9f}' for a in sky.ra.deg], 'dec': [f'{d:.9f}' for d in sky.dec.deg]}
    )
    assert_at(find_positions(table, wcs), atol=1e-4)


def test_missing_text_is_an_unknown_position(sky, wcs):
    ra = [sky[0].ra.to_string(u.hourangle, sep=':', precision=7), '', 'x']
    dec = [sky[0].dec.to_string(u.deg, sep=':', precision=7), '', 'x']
    table = Table(
        {'ra': MaskedColumn(ra, mask=[0, 0, 1]), 'dec': MaskedColumn(dec, mask=[0, 0, 1])}
    )
    assert_at(find_positions(table, wcs), [X[0], np.nan, np.nan], [Y[0], np.nan, np.nan], atol=1e-4)


def test_columns_in_parts_are_combined(wcs):
    """The southern sign is in a column of its own, also for 0 degrees."""
    places = SkyCoord(['05h35m10.5s', '05h35m12s'], ['-05d23m30s', '-05d24m00s'])
    table = Table(
        {
            'RAh': [5, 5],
            'RAm': [35, 35],
            'RAs': [10.5, 12.0],
            'DE-': ['-', '-'],
            'DEd': [5, 5],
            'DEm': [23, 24],
            'DEs': [30.0, 0.0],
        }
    )
    assert_at(find_positions(table, wcs), *wcs.world_to_pixel(places))
    table = Table(
        {
            'RAh': [0],
            'RAm': [0],
            'RAs': [4.0],
            'DE-': ['-'],
            'DEd': [0],
            'DEm': [0],
            'DEs': [10.0],
        }
    )
    zero = WCS({'CTYPE1': 'RA---TAN', 'CTYPE2': 'DEC--TAN', 'CDELT1': -0.01, 'CDELT2': 0.01})
    assert_at(
        find_positions(table, zero), *zero.world_to_pixel(SkyCoord(1 / 60, -10 / 3600, unit='deg'))
    )


# Which columns win


def moved(sky, arcsec):
    return sky.directional_offset_by(30 * u.deg, arcsec * u.arcsec)


@pytest.mark.parametrize(
    'other', ['sky_bbox_ll', 'sky_bbox_ur', 'pointing', 'boresight', 'field_center']
)
@pytest.mark.parametrize('known', ['ra dec', 'x y', 'sky_centroid', 'where'])
def test_coordinates_of_other_things_never_win(other, known, sky, wcs):
    columns = {other: moved(sky, 6), 'flux': X}
    if known == 'ra dec':
        columns |= {'ra': sky.ra.deg, 'dec': sky.dec.deg}
    elif known == 'x y':
        columns |= {'x': X, 'y': Y}
    else:
        columns |= {known: sky}
    assert_at(find_positions(QTable(columns), wcs))


@pytest.mark.parametrize('other', ['sky_bbox_ll', 'pointing'])
def test_coordinates_of_other_things_alone_are_refused(other, sky, wcs):
    with pytest.raises(ValueError, match=r'no columns of positions.*name them with columns='):
        find_positions(QTable({other: sky}), wcs)
    assert_at(find_positions(QTable({other: sky}), wcs, other))


@pytest.mark.parametrize(
    ('columns', 'listed'),
    [
        (lambda sky: {'a': sky, 'b': moved(sky, 60)}, "'a'; 'b'"),
        (lambda sky: {'a': sky, 'b': sky}, "'a'; 'b'"),
        (lambda sky: {'coord': sky, 'skycoord': moved(sky, 60)}, "'skycoord'; 'coord'"),
        (
            lambda sky: {'ra': sky.ra.deg, 'dec': sky.dec.deg, 'x': X + 5, 'y': Y},
            "'ra' and 'dec'; 'x'|'x' and 'y'",
        ),
        (
            lambda sky: {'coord': moved(sky, 60), 'ra': sky.ra.deg, 'dec': sky.dec.deg},
            "'coord' and 'ra' and 'dec'",
        ),
        (
            lambda sky: {
                'ra_1': sky.ra.deg,
                'dec_1': sky.dec.deg,
                'ra_2': sky.ra.deg,
                'dec_2': sky.dec.deg,
            },
            "'ra_1' and 'dec_1'; 'ra_2' and 'dec_2'",
        ),
    ],
    ids=['two', 'two equal', 'two known', 'pixel and sky', 'coordinates and columns', 'joined'],
)
def test_ambiguity_is_an_error_that_lists_the_candidates(columns, listed, sky, wcs):
    table = QTable(columns(sky))
    with pytest.raises(ValueError, match=listed) as info:
        find_positions(table, wcs)
    assert 'choose with columns=' in str(info.value)
    assert '--columns ' in str(info.value)
    assert '\n' not in str(info.value)


def test_pixels_and_sky_of_one_place_are_no_ambiguity(sky, wcs):
    """One-based pixels beside coordinates are common, and the sky counts."""
    table = Table({'x': X + 1, 'y': Y + 1, 'ra': sky.ra.deg, 'dec': sky.dec.deg})
    found = find_positions(table, wcs)
    assert_at(found)
    assert found.columns == ('ra', 'dec')
    assert find_positions(table).columns == ('x', 'y')


@pytest.mark.parametrize(
    ('columns', 'used'),
    [
        (('RA', 'DEC'), ('RA', 'DEC')),
        (['ra', 'dec'], ('RA', 'DEC')),
        (('ra_2', 'dec_2'), ('ra_2', 'dec_2')),
        ('where', ('where',)),
        (('where',), ('where',)),
        (('lon', 'lat', 'galactic'), ('lon', 'lat')),
        (('a', 'b'), ('a', 'b')),
        (('X', 'Y'), ('X', 'Y')),
        (('first', 'second', 'pixel1'), ('first', 'second')),
    ],
)
def test_columns_are_chosen_by_name(columns, used, sky, wcs):
    galactic = sky.galactic
    table = QTable(
        {
            'RA': sky.ra.deg,
            'DEC': sky.dec.deg,
            'ra_2': sky.ra.deg,
            'dec_2': sky.dec.deg,
            'where': sky,
            'other': moved(sky, 60),
            'lon': galactic.l.deg,
            'lat': galactic.b.deg,
            'a': sky.ra,
            'b': sky.dec,
            'X': X,
            'Y': Y,
            'first': X + 1,
            'second': Y + 1,
        }
    )
    found = find_positions(table, wcs, columns)
    assert_at(found)
    assert found.columns == used
    assert_at(parse_sources(table, wcs, columns=columns))


@pytest.mark.parametrize(
    ('columns', 'sentence'),
    [
        (('RA', 'DEK'), r"no column 'DEK'; it has \['RA', 'DEC', 'a', 'b'\]"),
        (
            ('a', 'b'),
            r"neither the names nor the units of 'a' and 'b' say what they hold.*a,b,icrs",
        ),
        ('a', "the column 'a' of sources holds no SkyCoord; give two columns"),
        (('a', 'b', 'icsr'), 'or two names and, if wanted, one of pixel, pixel1, icrs'),
        (('a', 'b', 'icrs', 'deg'), 'columns must be the name of a SkyCoord column'),
        ((), 'columns must be the name of a SkyCoord column'),
    ],
)
def test_wrong_columns_are_refused_with_one_sentence(columns, sentence, wcs):
    table = Table({'RA': [1.0], 'DEC': [2.0], 'a': [3.0], 'b': [4.0]})
    with pytest.raises(ValueError, match=sentence):
        find_positions(table, wcs, columns)


def test_columns_of_what_is_no_table_are_refused():
    with pytest.raises(TypeError, match='columns= is for a table of sources, got list'):
        parse_sources([(1, 2)], columns=('x', 'y'))


@pytest.mark.parametrize(
    ('table', 'sentence'),
    [
        (
            Table({'x': ['1', '2', 'three'], 'y': [1, 2, 3]}),
            "'x' of sources must hold numbers, row 3 holds 'three'",
        ),
        (
            Table({'ra': ['05:35:10', '05:35:99'], 'dec': ['-05:23:00', '-05:23:00']}),
            "'ra' and 'dec' of sources are not understood in row 2, '05:35:99'",
        ),
    ],
)
def test_error_names_the_first_row_that_is_wrong(table, sentence, wcs):
    with pytest.raises(ValueError, match=sentence):
        find_positions(table, wcs)


def test_tables_without_positions_are_recognised():
    assert not has_positions(Table({'flux': [1.0], 'x_err': [1.0]}))
    assert has_positions(Table({'GLON': [1.0], 'GLAT': [2.0]}))


@pytest.mark.parametrize('suffix', ['ecsv', 'csv', 'fits', 'vot'])
def test_tables_of_this_package_are_catalogues_of_maps_with_other_pixels(
    tmp_path, make_estimator, wcs, suffix
):
    noise = np.random.default_rng(0).normal(size=(60, 70))
    result = make_estimator(fwhm=3.3).estimate(CCDData(noise, unit='Jy', wcs=wcs), [(30, 25)])
    write_table(tmp_path / f'table.{suffix}', result.sources)
    other = wcs[20:, 10:]
    sources = parse_sources(read_sources(tmp_path / f'table.{suffix}'), other)
    assert_allclose([sources.x[0], sources.y[0]], [20, 5], atol=1e-6)
    assert_array_equal(sources.ids, [1])


# Identifiers


@pytest.mark.parametrize('name', known_names()['identifier']['names'])
@pytest.mark.parametrize('ids', [[7, 3, 5], ['b', 'a', 'c 1']])
def test_every_known_name_of_identifiers_is_found(name, ids):
    for change in (str.lower, str.upper):
        table = Table({'x': X, 'y': Y, change(name): ids, 'flux': Y})
        found, values = find_identifier(table, ('x', 'y'))
        assert found == change(name)
        assert_array_equal(values, ids)
        assert values.dtype.kind == np.array(ids).dtype.kind


def test_identifier_without_doubles_comes_first():
    """The name of the field is that of no source."""
    table = Table({'name': ['M 42'] * 3, 'NUMBER': [4, 5, 6]})
    assert find_identifier(table)[0] == 'NUMBER'
    assert find_identifier(table['name',])[0] == 'name'


@pytest.mark.parametrize(
    'column',
    [
        [1.5, 2.5, 3.5],
        MaskedColumn([1, 2, 3], mask=[0, 1, 0]),
        np.ones((3, 2)),
        [True, False, True],
    ],
    ids=['fractions', 'masked', 'matrix', 'booleans'],
)
def test_columns_that_identify_nothing_are_passed_over(column):
    assert find_identifier(Table({'x': X, 'id': column})) is None


def test_whole_numbers_in_floats_are_identifiers():
    """As in CSV files that passed through a spreadsheet."""
    assert_array_equal(find_identifier(Table({'id': [3.0, 1.0]}))[1], [3, 1])
    ids = find_identifier(Table({'id': np.array([b'a', b'b'])}))[1]
    assert_array_equal(ids, ['a', 'b'])
