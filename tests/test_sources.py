"""Tests of reading sources."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.nddata import NDDataRef
from astropy.table import Column, MaskedColumn, QTable, Table
from astropy.utils.exceptions import AstropyUserWarning
from astropy.utils.masked import Masked
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import CircularAperture, aperture_photometry
from photutils.detection import DAOStarFinder
from regions import (
    CirclePixelRegion,
    EllipsePixelRegion,
    PixCoord,
    PointPixelRegion,
    PolygonPixelRegion,
    RectanglePixelRegion,
    Regions,
    RegularPolygonPixelRegion,
)

from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import gaussian_profile
from csr_astro.sources import parse_sources, read_sources

# Not sorted in any way.
X = np.array([30.25, 4.0, 17.5])
Y = np.array([12.0, 28.75, 3.125])
XY = np.column_stack([X, Y])


@pytest.fixture
def wcs():
    """Tangential, 2 arcsec per pixel, turned by 30 degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval = 269.15, 51.49
    wcs.wcs.crpix = 20, 15
    wcs.wcs.cdelt = -2 / 3600, 2 / 3600
    wcs.wcs.pc = [[np.sqrt(0.75), -0.5], [0.5, np.sqrt(0.75)]]
    return wcs


@pytest.fixture
def sky(wcs):
    return wcs.pixel_to_world(X, Y)


def assert_at(sources, x=X, y=Y, atol=1e-6):
    assert len(sources) == len(x)
    for found, expected in ((sources.x, x), (sources.y, y)):
        assert found.dtype == np.float64
        assert_allclose(found, expected, rtol=0, atol=atol)


# Arrays

ARRAYS = {
    'array': XY,
    'float32': XY.astype('f4'),
    'big-endian': XY.astype('>f8'),
    'list of tuples': [*zip(X, Y, strict=True)],
    'list of lists': XY.tolist(),
    'tuple of arrays': tuple(XY),
    'pixels': XY * u.pix,
    'without unit': XY * u.dimensionless_unscaled,
}


@pytest.mark.parametrize('kind', ARRAYS)
def test_arrays_are_x_and_y_in_their_order(kind):
    sources = parse_sources(ARRAYS[kind])
    assert_at(sources)
    assert sources.regions is None


@pytest.mark.parametrize('pair', [(7, 9), [7.0, 9.0], np.array([7, 9]), [7, 9] * u.pix])
def test_one_pair_is_one_source(pair):
    assert_at(parse_sources(pair), [7], [9])


@pytest.mark.parametrize(
    'nothing',
    [
        [],
        (),
        np.zeros((0, 2)),
        Regions([]),
        Table({'x': [], 'y': []}),
        QTable({'ra': [] * u.deg, 'dec': [] * u.deg}),
        SkyCoord([], [], unit='deg'),
    ],
    ids=['list', 'tuple', 'array', 'Regions', 'pixel table', 'sky table', 'SkyCoord'],
)
def test_no_sources_are_no_error(nothing, wcs):
    assert_at(parse_sources(nothing, wcs), [], [])


def test_invalid_positions_keep_their_place():
    array = np.ma.MaskedArray(XY, [[0, 0], [0, 1], [0, 0]])
    assert_at(parse_sources(array), X, [Y[0], np.nan, Y[2]])
    assert_at(parse_sources([(np.nan, 1), (2, np.inf)]), [np.nan, 2], [1, np.inf])


def test_sources_do_not_share_memory_with_their_origin():
    array = XY.copy()
    sources = parse_sources(array)
    array[:] = 0
    assert_at(sources)
    assert parse_sources(sources) is sources


# The sky


def test_sky_coordinates_follow_the_tangential_projection():
    """Against the formulas of the projection (Calabretta & Greisen 2002, Eqs. 54 and 55)."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval = 269.15, 51.49
    wcs.wcs.crpix = 101, 51
    wcs.wcs.cdelt = -0.01, 0.01
    ra, dec = np.array([268.4, 269.15, 270.2]), np.array([51.3, 52.1, 51.9])
    a, d, d0 = np.radians(ra - 269.15), np.radians(dec), np.radians(51.49)
    cos = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a)
    xi = np.degrees(np.cos(d) * np.sin(a) / cos)
    eta = np.degrees((np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a)) / cos)
    sources = parse_sources(SkyCoord(ra, dec, unit='deg'), wcs)
    assert_at(sources, 100 - xi / 0.01, 50 + eta / 0.01)


@pytest.mark.parametrize('frame', ['icrs', 'fk5', 'fk4', 'galactic'])
def test_frames_are_transformed(sky, wcs, frame):
    coordinates = sky.transform_to(frame)
    assert_at(parse_sources(coordinates, wcs), *wcs.world_to_pixel(coordinates))
    assert_at(parse_sources(coordinates, wcs))


def test_one_coordinate_is_one_source(sky, wcs):
    assert_at(parse_sources(sky[1], wcs), X[1:2], Y[1:2])


@pytest.mark.parametrize('frames', [['icrs'] * 3, ['fk5'] * 3, ['icrs', 'galactic', 'fk5']])
def test_lists_of_coordinates_keep_their_order(frames, sky, wcs):
    coordinates = [c.transform_to(frame) for c, frame in zip(sky, frames, strict=True)]
    assert_at(parse_sources(coordinates, wcs))
    assert_at(parse_sources(tuple(coordinates), wcs))


def test_unknown_coordinates_keep_their_place(wcs, sky):
    coordinates = SkyCoord([np.nan, *sky.ra.deg], [0, *sky.dec.deg], unit='deg')
    assert_at(parse_sources(coordinates, wcs), [np.nan, *X], [np.nan, *Y])


def test_masked_coordinates_are_unknown(wcs, sky):
    mask = [False, True, False]
    coordinates = SkyCoord(Masked(sky.ra, mask=mask), Masked(sky.dec, mask=mask))
    for sources in (coordinates, QTable({'position': coordinates})):
        found = parse_sources(sources, wcs)
        assert_at(found, np.where(mask, np.nan, X), np.where(mask, np.nan, Y))


def test_wcs_of_a_slice_is_understood(sky, wcs):
    """Slices of NDData have a WCS of another class."""
    sliced = NDDataRef(np.ones((40, 50)), wcs=wcs)[2:, 3:].wcs
    assert_at(parse_sources(sky, sliced), X - 3, Y - 2)
    circle = CirclePixelRegion(PixCoord(17.5, 3.125), 3).to_sky(wcs)
    assert_at(parse_sources(circle, sliced), [14.5], [1.125])


# Regions

CENTER = PixCoord(17.5, 13.25)
CIRCLE = CirclePixelRegion(CENTER, 4)
OTHER = CirclePixelRegion(PixCoord(21.5, 13.25), 4)
REGIONS = {
    'circle': CIRCLE,
    'ellipse': EllipsePixelRegion(CENTER, 9, 5, 20 * u.deg),
    'rectangle': RectanglePixelRegion(CENTER, 9, 5, 20 * u.deg),
    # Two thirds of the way from the apex to the base.
    'polygon': PolygonPixelRegion(PixCoord([14.5, 17.5, 20.5], [11.25, 17.25, 11.25])),
    'clockwise polygon': PolygonPixelRegion(PixCoord([20.5, 17.5, 14.5], [11.25, 17.25, 11.25])),
}


@pytest.mark.parametrize('on_sky', [False, True])
@pytest.mark.parametrize('kind', REGIONS)
def test_region_is_a_source_with_a_shape(kind, on_sky, wcs):
    region = REGIONS[kind].to_sky(wcs) if on_sky else REGIONS[kind]
    sources = parse_sources(region, wcs)
    # The shape of an ellipse or polygon on the sky is another one in a projection.
    assert_at(sources, [17.5], [13.25], atol=1e-5)
    assert isinstance(sources.regions[0], type(REGIONS[kind]))
    yy, xx = np.mgrid[:30, :40]
    drawn = sources.regions[0].contains(PixCoord(xx, yy))
    assert (drawn != REGIONS[kind].contains(PixCoord(xx, yy))).sum() <= (2 if on_sky else 0)


def test_center_of_a_narrow_polygon_far_out_is_inside_it():
    x, y = [10000.1, 10002.5, 10001.3], [20000.3, 20002.7, 20001.5 + 1e-9]
    sources = parse_sources(PolygonPixelRegion(PixCoord(x, y)))
    assert_at(sources, [np.mean(x)], [np.mean(y)], atol=1e-3)


@pytest.mark.parametrize('on_sky', [False, True])
@pytest.mark.parametrize(
    ('region', 'center'),
    [(CIRCLE | OTHER, 19.5), (CIRCLE & OTHER, 19.5), (CIRCLE ^ OTHER, 19.5)],
    ids=['or', 'and', 'xor'],
)
def test_compound_region_is_one_source(region, center, on_sky, wcs):
    sources = parse_sources(region.to_sky(wcs) if on_sky else region, wcs)
    assert_at(sources, [center], [13.25], atol=0.5)
    yy, xx = np.mgrid[:30, :40]
    drawn = sources.regions[0].contains(PixCoord(xx, yy))
    assert_array_equal(drawn, region.contains(PixCoord(xx, yy)))


@pytest.mark.parametrize('on_sky', [False, True])
def test_region_without_area_is_a_point(on_sky, wcs):
    region = PointPixelRegion(CENTER)
    sources = parse_sources(region.to_sky(wcs) if on_sky else region, wcs)
    assert sources.regions is None
    assert_at(sources, [17.5], [13.25])


@pytest.mark.parametrize('container', [list, tuple, Regions])
def test_lists_of_regions_keep_their_order(container, wcs):
    regions = [
        PointPixelRegion(PixCoord(3, 4)),
        RegularPolygonPixelRegion(PixCoord(30, 10), 6, 3),
        CirclePixelRegion(PixCoord(9, 20), 2).to_sky(wcs),
    ]
    sources = parse_sources(container(regions), wcs)
    assert_at(sources, [3, 30, 9], [4, 10, 20])
    assert sources.regions[0] is None
    assert sources.regions[1] is regions[1]
    assert isinstance(sources.regions[2], CirclePixelRegion)
    assert sources.regions[2].radius == pytest.approx(2, rel=1e-4)


# Tables

PIXEL_NAMES = (
    # What PSFPhotometry of photutils 2 and 3 takes.
    *('x_init', 'xinit', 'x', 'x_0', 'x0', 'xcentroid', 'x_centroid', 'x_peak', 'xcen', 'x_cen'),
    *('xpos', 'x_pos'),
    # What photutils 2 and 3 write.
    *('xcenter', 'x_center', 'x_fit', 'xpeak'),
)


@pytest.mark.parametrize('name', PIXEL_NAMES)
@pytest.mark.parametrize('kind', [Table, QTable])
def test_pixel_columns_of_photutils_are_found(name, kind):
    names = name, name.replace('x', 'y', 1)
    table = kind({'id': [1, 2, 3], 'flux': X, names[1]: Y * u.pix, names[0]: X * u.pix})
    assert_at(parse_sources(table))
    assert_at(parse_sources(Table([X, Y], names=[n.upper() for n in names])))


def test_outputs_of_the_installed_photutils_are_sources():
    image = inject_sources(np.zeros((41, 41)), X, Y, [100, 200, 300], gaussian_profile(3.5))
    found = parse_sources(DAOStarFinder(threshold=1, fwhm=3.5)(image))
    order = np.argsort(found.x)
    expected = np.argsort(X)
    assert_allclose(found.x[order], X[expected], atol=0.1)
    assert_allclose(found.y[order], Y[expected], atol=0.1)
    assert_at(parse_sources(aperture_photometry(image, CircularAperture(XY, 3))))


def test_initial_positions_come_before_fitted_ones():
    """As in photutils."""
    table = Table({'x_fit': 0 * X, 'y_fit': 0 * Y, 'x_init': X, 'y_init': Y})
    assert_at(parse_sources(table))


SKY_NAMES = [
    ('ra', 'dec'),
    ('RA', 'DEC'),
    ('RAJ2000', 'DEJ2000'),
    ('_RAJ2000', '_DEJ2000'),
    ('RA_ICRS', 'DE_ICRS'),
    ('ALPHA_J2000', 'DELTA_J2000'),
]


@pytest.mark.parametrize('names', SKY_NAMES)
def test_sky_columns_are_found(names, sky, wcs):
    assert_at(parse_sources(Table([sky.ra.deg, sky.dec.deg], names=names), wcs))


@pytest.mark.parametrize('units', [('deg', 'deg'), ('hourangle', 'deg'), ('rad', 'arcmin')])
@pytest.mark.parametrize('kind', [Table, QTable])
def test_units_of_sky_columns_are_used(units, kind, sky, wcs):
    table = kind(
        {
            'ra': Column(sky.ra.to_value(units[0]), unit=units[0]),
            'dec': Column(sky.dec.to_value(units[1]), unit=units[1]),
        }
    )
    assert_at(parse_sources(table, wcs))


@pytest.mark.parametrize('names', [('l', 'b'), ('GLON', 'GLAT')])
def test_galactic_columns_are_found(names, sky, wcs):
    table = Table([sky.galactic.l.deg, sky.galactic.b.deg], names=names)
    assert_at(parse_sources(table, wcs))


def test_column_of_coordinates_is_found(sky, wcs):
    table = QTable({'flux': X, 'sky_center': sky.galactic, 'ra': 0 * X, 'dec': 0 * Y})
    assert_at(parse_sources(table, wcs))


def test_place_on_the_sky_counts_before_pixels_of_another_map(sky, wcs):
    # As in the tables of photutils and of our own, of a map with other pixels.
    table = QTable({'x_center': X + 7, 'y_center': Y, 'sky_center': sky})
    assert_at(parse_sources(table, wcs))
    assert_at(parse_sources(table), X + 7, Y)
    table = Table({'X_IMAGE': X + 7, 'Y_IMAGE': Y, 'ALPHA_J2000': sky.ra, 'DELTA_J2000': sky.dec})
    assert_at(parse_sources(table, wcs))


@pytest.mark.parametrize('kind', [Table, QTable])
@pytest.mark.parametrize('unit', [None, 'pix'])
def test_masked_pixels_are_unknown(kind, unit):
    table = kind({'x': MaskedColumn(X, mask=[0, 1, 0], unit=unit), 'y': Column(Y, unit=unit)})
    assert_at(parse_sources(table), [X[0], np.nan, X[2]], Y)


def test_masked_integers_are_unknown():
    table = Table({'x': MaskedColumn([1, 2], mask=[0, 1]), 'y': [3, 4]})
    assert_at(parse_sources(table), [1, np.nan], [3, 4])


@pytest.mark.parametrize('kind', [Table, QTable])
@pytest.mark.parametrize('unit', [None, 'deg', 'hourangle'])
def test_masked_sky_columns_are_unknown(kind, unit, sky, wcs):
    table = kind(
        {
            'ra': MaskedColumn(sky.ra.to_value(unit or 'deg'), mask=[0, 1, 0], unit=unit),
            'dec': sky.dec.deg,
        }
    )
    assert_at(parse_sources(table, wcs), [X[0], np.nan, X[2]], [Y[0], np.nan, Y[2]])


def test_impossible_latitude_is_unknown(sky, wcs):
    table = Table({'ra': sky.ra.deg, 'dec': [sky.dec.deg[0], 95, -1e3]})
    assert_at(parse_sources(table, wcs), [X[0], np.nan, np.nan], [Y[0], np.nan, np.nan])


# Bad input

COORDINATE = SkyCoord(269.15, 51.49, unit='deg')


@pytest.mark.parametrize(
    ('sources', 'what'),
    [
        (COORDINATE, 'sky coordinates'),
        ([COORDINATE], 'sky coordinates'),
        (Table({'ra': [1.0], 'dec': [2.0]}), 'sky coordinates'),
        (QTable({'position': COORDINATE.reshape(1)}), 'sky coordinates'),
        (CIRCLE.to_sky(WCS(header={'CTYPE1': 'RA---TAN', 'CTYPE2': 'DEC--TAN'})), 'sky regions'),
    ],
    ids=['SkyCoord', 'list', 'columns', 'mixin', 'region'],
)
def test_positions_on_the_sky_need_a_wcs(sources, what):
    with pytest.raises(ValueError, match=f'{what} need a WCS, and the data have none; give wcs='):
        parse_sources(sources)


@pytest.mark.parametrize(
    ('sources', 'exception', 'sentence'),
    [
        (None, TypeError, 'sources must be a SkyCoord, .*got NoneType'),
        ('catalog.csv', ValueError, "no such file: 'catalog.csv'"),
        ({1, 2}, TypeError, 'sources must be a SkyCoord, .*got set'),
        ([['a', 'b']], TypeError, 'sources must be a SkyCoord, .*array of'),
        ([(1, 2), (3,)], TypeError, 'sources must be a SkyCoord, .*array of'),
        ([CIRCLE, (3, 4)], TypeError, 'got a list with a tuple'),
        ([(3, 4), CIRCLE], TypeError, 'sources must be a SkyCoord'),
        ([COORDINATE, (3, 4)], TypeError, 'sources must be a SkyCoord'),
        (5, ValueError, r'an \(N, 2\) array of \(x, y\), got shape \(\)'),
        ([1, 2, 3], ValueError, r'an \(N, 2\) array of \(x, y\), got shape \(3,\)'),
        (np.ones((4, 3)), ValueError, r'an \(N, 2\) array of \(x, y\), got shape \(4, 3\)'),
        (np.ones((1, 4, 2)), ValueError, r'an \(N, 2\) array of \(x, y\), got shape \(1, 4, 2\)'),
        (XY * u.deg, ValueError, 'must be pixels or a SkyCoord, got a Quantity in deg'),
        (Table({'flux': [1]}), ValueError, r"no columns of positions; .*it has \['flux'\]"),
        (Table(), ValueError, r'no columns of positions; .*it has \[\]'),
        (Table({'x': ['a'], 'y': [1]}), ValueError, "column 'x' of sources must hold numbers"),
        (QTable({'x': X * u.deg, 'y': Y * u.deg}), ValueError, "column '?x'? .*deg"),
        (QTable({'ra': X * u.Jy, 'dec': Y * u.deg}), ValueError, "'?Jy'?.* '?deg"),
    ],
)
def test_wrong_sources_are_refused(sources, exception, sentence, wcs):
    with pytest.raises(exception, match=sentence):
        parse_sources(sources, wcs)


# Files


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('cat.ecsv', {}),
        ('cat.csv', {'format': 'ascii.csv'}),
        ('cat.fits', {}),
        ('cat.xml', {'format': 'votable'}),
        ('cat.vot', {'format': 'votable'}),
        ('cat.txt', {'format': 'ascii.fixed_width_two_line'}),
        ('cat.dat', {'format': 'ascii.commented_header'}),
        ('cat.tbl', {'format': 'ascii.ipac'}),
    ],
)
def test_tables_are_read(tmp_path, name, options, sky, wcs):
    with_units = Table({'name': ['b', 'c', 'a'], 'ra': sky.ra.deg, 'dec': sky.dec.deg})
    with_units['ra'].unit = with_units['dec'].unit = 'deg'
    with_units.write(tmp_path / name, **options)
    assert_at(parse_sources(read_sources(tmp_path / name), wcs))
    assert_at(parse_sources(read_sources(str(tmp_path / name)), wcs))


def test_missing_value_of_a_file_is_unknown(tmp_path):
    path = tmp_path / 'cat.csv'
    path.write_text('name,x,y\na,1.5,2.5\nb,,4.5\n')
    assert_at(parse_sources(read_sources(path)), [1.5, np.nan], [2.5, 4.5])


def test_columns_without_header_are_read_as_what_they_are(tmp_path):
    path = tmp_path / 'cat.txt'
    path.write_text('1.5 2.5\n3.5 4.5\n')
    with pytest.raises(ValueError, match='no columns of positions'):
        parse_sources(read_sources(path))


def test_ds9_regions_are_read(tmp_path, wcs):
    path = tmp_path / 'cat.reg'
    # DS9 counts pixels from 1.
    path.write_text(
        '# Region file format: DS9\n'
        'image\n'
        'circle(11, 21, 5)\n'
        'point(31, 9) # point=x\n'
        'icrs\n'
        'circle(269.15, 51.49, 6")\n'
    )
    sources = parse_sources(read_sources(path), wcs)
    assert_at(sources, [10, 30, 19], [20, 8, 14])
    assert sources.regions[0].radius == 5
    assert sources.regions[1] is None
    assert sources.regions[2].radius == pytest.approx(3, rel=1e-4)


def test_crtf_regions_are_read(tmp_path, wcs):
    path = tmp_path / 'cat.crtf'
    path.write_text('#CRTFv0\ncircle[[269.15deg, 51.49deg], 6arcsec], coord=ICRS\n')
    sources = parse_sources(read_sources(path), wcs)
    assert_at(sources, [19], [14])
    assert sources.regions[0].radius == pytest.approx(3, rel=1e-4)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no such file: '.*none\.csv'"):
        read_sources(tmp_path / 'none.csv')


FORMATS = ['cat.fits', 'cat.ecsv', 'cat.xml', 'cat.crtf', 'cat.xyz']


@pytest.mark.parametrize(
    ('name', 'content'),
    [(name, b'\x00\xff\x80 neither\n' * 20) for name in [*FORMATS, 'cat.reg']]
    + [(name, b'') for name in FORMATS],
)
def test_unreadable_file_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}' cannot be read as a catalogue: .") as info:
        read_sources(path)
    assert '\n' not in str(info.value)


@pytest.mark.parametrize(
    ('text', 'line'),
    [('circle(1,2', 1), ('10 20\n30 40\n', 1), ('# of DS9\nfk5\ncircl(1,2,3)\n', 3)],
)
def test_file_of_regions_with_a_line_that_is_none_is_refused(tmp_path, text, line):
    path = tmp_path / 'sources.reg'
    path.write_text(text)
    with pytest.raises(ValueError, match=f'cannot be read as a catalogue: line {line}: .'):
        read_sources(path)


@pytest.mark.parametrize('text', ['', '# Region file format: DS9\nglobal color=green\nimage\n'])
def test_empty_file_of_regions_holds_no_source(tmp_path, text):
    path = tmp_path / 'sources.reg'
    path.write_text(text)
    assert len(read_sources(path)) == 0


CSV = 'ra,dec\n{0.ra.deg:.9f},{0.dec.deg:.9f}\n'


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('excel.csv', '\ufeff' + CSV),
        ('remarks.csv', '# from somewhere\n' + CSV),
        ('tabs.tsv', CSV.replace(',', '\t')),
        ('packed.csv.gz', CSV),
        ('packed.ecsv.gz', '# %ECSV 1.0\n# ---\n# datatype:\n# - {{name: ra, datatype: float64}}\n'
         '# - {{name: dec, datatype: float64}}\n' + CSV.replace(',', ' ')),
        ('cds.csv', CSV.replace('ra,dec', 'RAdeg,DEdeg')),
    ],
)  # fmt: skip
def test_catalogues_of_other_programs_are_read(tmp_path, sky, wcs, name, content):
    text = content.format(sky[0]).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith('.gz') else text)
    assert_at(parse_sources(read_sources(tmp_path / name), wcs), X[:1], Y[:1])


def test_sexagesimal_columns_of_vizier_are_read(tmp_path, sky, wcs):
    texts = sky.to_string('hmsdms', sep=' ', precision=7)
    columns = [[' '.join(text.split()[part]) for text in texts] for part in (slice(3), slice(3, 6))]
    fields = ''.join(
        f'<FIELD name="{name}" datatype="char" arraysize="*" unit="&quot;{unit}&quot;"/>'
        for name, unit in (('RAJ2000', 'h:m:s'), ('DEJ2000', 'd:m:s'))
    )
    rows = ''.join(f'<TR><TD>{a}</TD><TD>{b}</TD></TR>' for a, b in zip(*columns, strict=True))
    (tmp_path / 'list.vot').write_text(
        '<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'
        f'<RESOURCE><TABLE>{fields}<DATA><TABLEDATA>{rows}</TABLEDATA></DATA></TABLE></RESOURCE>'
        '</VOTABLE>'
    )
    assert_at(parse_sources(read_sources(tmp_path / 'list.vot'), wcs), atol=1e-3)


def test_what_is_drawn_beside_sources_is_left_out(tmp_path):
    path = tmp_path / 'drawn.reg'
    path.write_text(
        'image\ncircle(11,21,5)\n-circle(50,50,3)\ntext(5,5) # text={north}\nline(1,1,9,9)\n'
        'point(31,41)\n'
    )
    with pytest.warns(AstropyUserWarning, match='3 of 5 regions of .* are no sources'):
        regions = read_sources(path)
    assert_at(parse_sources(regions), [10, 30], [20, 40])


@pytest.mark.parametrize('kind', [str, Path])
def test_path_of_a_catalogue_is_read(tmp_path, kind):
    (tmp_path / 'stars.csv').write_text('id,x,y\na,10,20\nb,30,40\n')
    sources = parse_sources(kind(tmp_path / 'stars.csv'))
    assert_at(sources, [10, 30], [20, 40])
    assert list(sources.ids) == ['a', 'b']


def test_dictionary_of_columns_is_a_table():
    assert_at(parse_sources({'x': X, 'y': Y}))


@pytest.mark.parametrize('text', ['ra', 'dec', 'both'])
def test_one_of_the_columns_may_be_sexagesimal(sky, wcs, text):
    columns = {
        'ra': sky.ra.to_string(u.hour, sep=':', precision=6),
        'dec': sky.dec.to_string(u.deg, sep=':', precision=5),
    }
    plain = {'ra': sky.ra.deg, 'dec': sky.dec.deg}
    table = {name: columns[name] if text in (name, 'both') else plain[name] for name in columns}
    sources = parse_sources(Table(table), wcs)
    assert_allclose(sources.x, X, atol=1e-3)
    assert_allclose(sources.y, Y, atol=1e-3)
