"""Tests of reading maps."""

import gc
import mmap

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import (
    CCDData,
    InverseVariance,
    NDData,
    NDDataRef,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.utils.exceptions import AstropyUserWarning
from astropy.utils.masked import Masked
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro.images import find_image_hdu, parse_image, read_image

DATA = np.arange(1, 31, dtype=float).reshape(5, 6)
SIGMA = DATA / 10


def make_wcs(scale=2.0):
    """Tangential, ``scale`` arcsec per pixel."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval = 269.15, 51.49
    wcs.wcs.crpix = 3, 2
    wcs.wcs.cdelt = -scale / 3600, scale / 3600
    return wcs


def linear_wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'LINEAR', 'LINEAR'
    wcs.wcs.cdelt = 2, 2
    return wcs


def hdu_list(data):
    return fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data, name='image')])


# Kinds of images

KINDS = {
    'array': lambda data: data,
    'list': lambda data: data.tolist(),
    'tuple': lambda data: tuple(data.tolist()),
    'masked array': np.ma.MaskedArray,
    'Quantity': lambda data: data * u.Jy,
    'NDData': NDData,
    'CCDData': lambda data: CCDData(data, unit='Jy'),
    'PrimaryHDU': fits.PrimaryHDU,
    'ImageHDU': fits.ImageHDU,
    'CompImageHDU': fits.CompImageHDU,
    'HDUList': hdu_list,
    'Image': parse_image,
}


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_image_gives_its_pixels(kind):
    original = DATA.copy()
    image = parse_image(KINDS[kind](original))
    assert_array_equal(image.data, DATA)
    assert_array_equal(original, DATA)
    assert image.shape == (5, 6)
    assert image.error is None
    assert image.valid((slice(None), slice(None))).all()


@pytest.mark.parametrize('kind', ['NDData', 'CCDData', 'ImageHDU', 'HDUList', 'masked array'])
@pytest.mark.parametrize('axes', [1, 2])
def test_leading_axes_of_length_one_are_dropped(kind, axes):
    data = DATA.reshape((1,) * axes + DATA.shape)
    image = parse_image(KINDS[kind](data), mask=data > 20, error=data)
    for array in (image.data, image.error):
        assert_array_equal(array, DATA)
    assert_array_equal(image.mask, DATA > 20)


def test_compressed_image_is_read_from_its_file(tmp_path):
    data = DATA.astype('i2')
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data)]).writeto(tmp_path / 'map.fits')
    image, _ = read_image(tmp_path / 'map.fits')
    assert_array_equal(image.data, data)
    with fits.open(tmp_path / 'map.fits') as hdus:
        assert_array_equal(parse_image(hdus[1]).data, data)


ARRAYS = {
    'integer': DATA.astype('i4'),
    'unsigned': DATA.astype('u1'),
    'big-endian': DATA.astype('>f8'),
    'big-endian integer': DATA.astype('>i2'),
    'read-only': np.broadcast_to(np.float32(3), (5, 6)),
    'strided': DATA.repeat(2, axis=1).T[::2].T,
}


def assert_taken_as_it_is(kind, data):
    if kind == 'Quantity':
        image = parse_image(u.Quantity(data, 'Jy', copy=False, dtype=data.dtype))
    else:
        image = parse_image(KINDS[kind](data))
    assert np.shares_memory(image.data, data)
    assert image.data.dtype == data.dtype
    assert_array_equal(image.data, data)


@pytest.mark.parametrize('kind', ['array', 'Quantity', 'NDData', 'ImageHDU', 'masked array'])
@pytest.mark.parametrize('array', ARRAYS)
def test_array_is_taken_as_it_is(kind, array):
    assert_taken_as_it_is(kind, ARRAYS[array])


@pytest.mark.parametrize('kind', ['array', 'Quantity', 'NDData', 'ImageHDU', 'masked array'])
def test_memory_map_is_taken_as_it_is(kind, tmp_path):
    data = np.memmap(tmp_path / 'map.bin', dtype='>f4', mode='w+', shape=(5, 6))
    data[:] = DATA
    assert_taken_as_it_is(kind, data)


@pytest.mark.parametrize(
    ('dtype', 'expected'),
    [
        ('f4', 'f4'),
        ('>f4', 'f4'),
        ('f8', 'f8'),
        ('>f8', 'f8'),
        ('u1', 'f8'),
        ('>i2', 'f8'),
        ('i8', 'f8'),
    ],
)
def test_results_are_floats_of_the_precision_of_the_data(dtype, expected):
    image = parse_image(DATA.astype(dtype))
    assert image.dtype == np.dtype(expected)
    assert image.dtype.isnative


# Masks

MASK = DATA > 25
WITH_MASK = {
    'masked array': lambda mask: np.ma.MaskedArray(DATA, mask),
    'NDData': lambda mask: NDData(DATA, mask=mask),
    'CCDData': lambda mask: CCDData(DATA, mask=mask, unit='Jy'),
    'masked array in NDData': lambda mask: NDData(np.ma.MaskedArray(DATA, mask)),
}


@pytest.mark.parametrize('kind', WITH_MASK)
@pytest.mark.parametrize('given', [None, DATA < 4, (DATA < 4).astype(int).tolist(), True])
def test_masks_are_combined(kind, given):
    image = parse_image(WITH_MASK[kind](MASK), mask=given)
    expected = MASK if given is None else MASK | np.array(given, dtype=bool)
    assert image.mask.dtype == bool
    assert_array_equal(image.mask, expected)


@pytest.mark.parametrize('data', [DATA, DATA * u.Jy], ids=['array', 'Quantity'])
def test_mask_of_astropy_masked_is_kept(data):
    assert_array_equal(parse_image(Masked(data, mask=MASK)).mask, MASK)


def test_valid_pixels_are_finite_and_unmasked():
    data = DATA.copy()
    data[0, 0], data[1, 1], data[2, 2] = np.nan, np.inf, -np.inf
    expected = np.isfinite(data) & ~MASK
    window = (slice(0, 4), slice(1, 6))
    assert_array_equal(parse_image(data, mask=MASK).valid(window), expected[window])
    assert_array_equal(parse_image(data).valid(window), np.isfinite(data)[window])


# Errors


@pytest.mark.parametrize(
    'uncertainty',
    [
        StdDevUncertainty(SIGMA),
        VarianceUncertainty(SIGMA**2),
        InverseVariance(1 / SIGMA**2),
        StdDevUncertainty(1e3 * SIGMA, unit='mJy'),
        VarianceUncertainty(1e6 * SIGMA**2, unit='mJy2'),
        InverseVariance(1e-6 / SIGMA**2, unit='1 / mJy2'),
    ],
    ids=lambda uncertainty: f'{type(uncertainty).__name__} {uncertainty.unit}',
)
def test_uncertainty_becomes_error_in_the_unit_of_the_data(uncertainty):
    for image in (
        parse_image(CCDData(DATA, unit='Jy', uncertainty=uncertainty)),
        parse_image(DATA * u.Jy, error=uncertainty),
    ):
        assert image.unit == u.Jy
        assert_allclose(image.error, SIGMA, rtol=1e-12)


@pytest.mark.parametrize('kind', [StdDevUncertainty, VarianceUncertainty, InverseVariance])
def test_uncertainty_of_data_without_unit(kind):
    uncertainty = StdDevUncertainty(SIGMA).represent_as(kind)
    assert_allclose(parse_image(NDData(DATA, uncertainty=uncertainty)).error, SIGMA, rtol=1e-12)


def test_zero_inverse_variance_is_an_infinite_error():
    image = parse_image(NDData(DATA, uncertainty=InverseVariance(0 * DATA)))
    assert_array_equal(image.error, np.full(DATA.shape, np.inf))


@pytest.mark.parametrize(
    'error',
    [
        SIGMA,
        SIGMA.tolist(),
        SIGMA.astype('>f8'),
        SIGMA * u.Jy,
        1e3 * SIGMA * u.mJy,
        NDData(DATA * u.Jy, uncertainty=StdDevUncertainty(1e3 * SIGMA, unit='mJy')),
    ],
    ids=['array', 'list', 'big-endian', 'Jy', 'mJy', 'NDData'],
)
def test_given_error_replaces_that_of_the_data(error):
    data = CCDData(DATA, unit='Jy', uncertainty=StdDevUncertainty(7 * SIGMA))
    assert_allclose(parse_image(data, error=error).error, SIGMA, rtol=1e-12)


@pytest.mark.parametrize('error', [0.5, 0.5 * u.Jy, 500 * u.mJy])
def test_scalar_error_is_spread_over_the_map(error):
    image = parse_image(DATA * u.Jy, error=error)
    assert_allclose(image.error, np.full(DATA.shape, 0.5), rtol=1e-12)


def test_error_extension_is_the_error_of_an_hdu_list():
    for name in ('stDev', 'error', 'ERR', 'uncert'):
        hdus = [*hdu_list(DATA), fits.ImageHDU(DATA[:3]), fits.ImageHDU(SIGMA, name=name)]
        assert_array_equal(parse_image(fits.HDUList(hdus)).error, SIGMA)
    assert parse_image(fits.HDUList([*hdus[:2], fits.ImageHDU(DATA[:3], name='err')])).error is None


@pytest.mark.parametrize(('hdu', 'factor'), [(1, 1), (3, 2), (-2, 2)])
def test_each_image_of_a_file_has_its_own_error(tmp_path, hdu, factor):
    hdus = [fits.PrimaryHDU()]
    for version in (1, 2):
        hdus.append(fits.ImageHDU(DATA, name='SCI', ver=version))
        hdus.append(fits.ImageHDU(version * SIGMA, name='ERR', ver=version))
    fits.HDUList(hdus).writeto(tmp_path / 'map.fits')
    image, _ = read_image(tmp_path / 'map.fits', hdu)
    assert_array_equal(image.error, factor * SIGMA)


def test_error_of_a_file_is_in_the_unit_of_the_image(tmp_path):
    image = fits.ImageHDU(DATA[None], fits.Header({'BUNIT': 'Jy/pixel'}), name='image')
    error = fits.ImageHDU(1e3 * SIGMA, fits.Header({'BUNIT': 'mJy/pixel'}), name='stDev')
    fits.HDUList([fits.PrimaryHDU(), image, error]).writeto(tmp_path / 'map.fits')
    assert_allclose(read_image(tmp_path / 'map.fits')[0].error, SIGMA, rtol=1e-12)


@pytest.mark.parametrize(
    ('data', 'error', 'exception', 'sentence'),
    [
        (DATA * u.Jy, SIGMA * u.K, ValueError, r'error has unit K, .*unit of data \(Jy\)'),
        (DATA * u.Jy, 0.5 * u.K, ValueError, r'error has unit K, .*unit of data \(Jy\)'),
        (DATA, SIGMA * u.Jy, ValueError, r'error has unit Jy, .*unit of data \(None\)'),
        (DATA * u.Jy, StdDevUncertainty(SIGMA, unit='K'), ValueError, "'?K'? .*Jy"),
        (DATA, SIGMA[:2], ValueError, r'error has shape \(2, 6\), data has \(5, 6\)'),
        (DATA, SIGMA[0], ValueError, 'error must be two-dimensional'),
        (DATA, SIGMA > 1, TypeError, 'error must hold real numbers, got dtype bool'),
        (DATA, SIGMA + 1j, TypeError, 'error must hold real numbers, got dtype complex'),
        (DATA, 'large.fits', ValueError, "no such file: 'large.fits'"),
        (DATA, UnknownUncertainty(SIGMA), TypeError, 'must be a StdDevUncertainty, .*error='),
        (
            NDData(DATA, uncertainty=UnknownUncertainty(SIGMA)),
            None,
            TypeError,
            'got UnknownUncertainty; for others give error=',
        ),
    ],
)
def test_wrong_error_is_refused(data, error, exception, sentence):
    with pytest.raises(exception, match=sentence):
        parse_image(data, error=error)


# Units


@pytest.mark.parametrize(
    ('text', 'unit'),
    [
        ('Jy/pixel', u.Jy / u.pix),
        ('MJy/sr', u.MJy / u.sr),
        (' mJy/beam ', u.mJy / u.beam),
        ('W/m2/sr', u.W / u.m**2 / u.sr),
        ('', None),
        ('   ', None),
        (None, None),
    ],
)
@pytest.mark.parametrize('kind', ['PrimaryHDU', 'ImageHDU', 'CompImageHDU', 'HDUList'])
def test_unit_comes_from_the_header(kind, text, unit):
    data = KINDS[kind](DATA)
    header = data[1].header if kind == 'HDUList' else data.header
    if text is not None:
        header['BUNIT'] = text
    image = parse_image(data)
    assert image.unit == unit
    assert getattr(image.with_unit(DATA), 'unit', None) == unit
    assert_array_equal(u.Quantity(image.with_unit(DATA)).value, DATA)


def test_unit_that_is_not_understood_is_left_out_with_a_warning():
    hdu = fits.PrimaryHDU(DATA)
    hdu.header['BUNIT'] = 'flops/furlong'
    with pytest.warns(AstropyUserWarning, match="'flops/furlong' is not understood"):
        image = parse_image(hdu)
    assert image.unit is None


@pytest.mark.parametrize('unit', [u.MJy / u.sr, u.Jy / u.pix, u.dimensionless_unscaled])
@pytest.mark.parametrize('kind', [u.Quantity, NDData, CCDData])
def test_unit_of_the_object_is_kept(kind, unit):
    assert parse_image(kind(DATA, unit=unit)).unit == unit


# World coordinates


def make_header(axes=2, ctype=('RA---TAN', 'DEC--TAN')):
    header = fits.Header()
    header['WCSAXES'] = axes
    for axis in (1, 2):
        header[f'CTYPE{axis}'] = ctype[axis - 1]
        header[f'CRPIX{axis}'] = 3
        header[f'CRVAL{axis}'] = 30
        header[f'CDELT{axis}'] = 1.6 / 3600
        header[f'CUNIT{axis}'] = 'deg'
    if axes == 3:
        header['CTYPE3'] = 'FREQ'
        header['CDELT3'] = 1e9
        header['CUNIT3'] = 'Hz'
    return header


@pytest.mark.parametrize('kind', [lambda hdu: hdu, lambda hdu: fits.HDUList([hdu])])
def test_wcs_that_is_given_replaces_one_that_cannot_be_read(kind):
    data = kind(fits.PrimaryHDU(DATA, make_header(ctype=('RA---TAN', 'DEC--XXX'))))
    with pytest.raises(ValueError, match='not understood'):
        parse_image(data)
    wcs = make_wcs(1.6)
    found = parse_image(data, wcs=wcs).wcs
    assert found.wcs.compare(wcs.wcs)


@pytest.mark.parametrize('kind', ['NDData', 'CCDData', 'ImageHDU', 'HDUList', 'given'])
def test_wcs_is_kept(kind):
    wcs = make_wcs(1.6)
    image = {
        'NDData': lambda: parse_image(NDData(DATA, wcs=wcs)),
        'CCDData': lambda: parse_image(CCDData(DATA, wcs=wcs, unit='Jy')),
        'ImageHDU': lambda: parse_image(fits.ImageHDU(DATA, wcs.to_header())),
        'HDUList': lambda: parse_image(
            fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(DATA, wcs.to_header())])
        ),
        'given': lambda: parse_image(NDData(DATA, wcs=make_wcs(9)), wcs=wcs),
    }[kind]()
    assert image.pixel_scale == pytest.approx(1.6, rel=1e-9)
    assert image.wcs.pixel_to_world(2, 1).ra.deg == pytest.approx(269.15, abs=1e-9)


def test_pixel_scale_is_the_geometric_mean_of_the_sides():
    wcs = make_wcs()
    wcs.wcs.cdelt = -1 / 3600, 4 / 3600
    with pytest.warns(AstropyUserWarning, match='pixels of the map are 1 x 4 arcsec'):
        image = parse_image(DATA, wcs=wcs)
    assert image.pixel_scale == pytest.approx(2, rel=1e-9)
    assert parse_image(DATA).pixel_scale is None


def test_wcs_of_a_slice_is_understood():
    """Slices of NDData have a WCS of another class."""
    data = NDDataRef(np.ones((30, 40)), wcs=make_wcs(3.2))[5:, 7:]
    image = parse_image(data)
    assert image.pixel_scale == pytest.approx(3.2, rel=1e-6)
    x, y = image.wcs.world_to_pixel(make_wcs(3.2).pixel_to_world(10, 9))
    assert_allclose([x, y], [3, 4], atol=1e-6)


def test_celestial_part_of_a_cube_header_is_taken():
    header = make_header(axes=3)
    for image in (
        parse_image(fits.ImageHDU(DATA[None], header)),
        parse_image(NDData(DATA[None], wcs=WCS(header))),
        parse_image(DATA, wcs=WCS(header)),
    ):
        assert image.wcs.naxis == 2
        assert image.pixel_scale == pytest.approx(1.6, rel=1e-9)


@pytest.mark.parametrize(
    'data',
    [
        fits.ImageHDU(DATA),
        fits.ImageHDU(DATA, make_header(ctype=('LINEAR', 'LINEAR'))),
        NDData(DATA, wcs=linear_wcs()),
        CCDData(DATA, wcs=linear_wcs(), unit='Jy'),
        NDData(DATA, wcs=WCS(naxis=2)),
    ],
    ids=['header without', 'linear header', 'linear NDData', 'linear CCDData', 'empty WCS'],
)
def test_coordinates_that_are_not_celestial_count_as_none(data):
    image = parse_image(data)
    assert image.wcs is None
    assert image.pixel_scale is None


# Bad input


@pytest.mark.parametrize(
    ('data', 'exception', 'sentence'),
    [
        (DATA + 1j, TypeError, 'data must hold real numbers, got dtype complex128'),
        ((DATA + 1j) * u.Jy, TypeError, 'data must hold real numbers, got dtype complex128'),
        (DATA > 3, TypeError, 'data must hold real numbers, got dtype bool'),
        (np.array([['a', 'b']]), TypeError, 'data must hold real numbers, got dtype <U1'),
        (DATA.astype(object), TypeError, 'data must hold real numbers, got dtype object'),
        (DATA[0], ValueError, r'data must be two-dimensional .*got shape \(6,\)'),
        (3 * u.Jy, ValueError, r'data must be two-dimensional .*got shape \(\)'),
        ([], ValueError, 'data must be two-dimensional'),
        (np.ones((2, 3, 4)), ValueError, r'data must be two-dimensional .*\(2, 3, 4\)'),
        (np.ones((3, 1, 4)), ValueError, r'data must be two-dimensional .*\(3, 1, 4\)'),
        (NDData(np.ones((2, 3, 4))), ValueError, r'data must be two-dimensional .*\(2, 3, 4\)'),
        (np.ones((0, 5)), ValueError, r'data is empty: its shape is \(0, 5\)'),
        (fits.ImageHDU(), ValueError, 'the HDU holds no image'),
        (fits.HDUList([fits.PrimaryHDU()]), ValueError, 'no two-dimensional image'),
        (fits.BinTableHDU(), TypeError, 'data must be an NDData, .*got BinTableHDU'),
        ({'data': DATA}, TypeError, 'data must be an NDData, .*got dict'),
        ('map.fits', ValueError, "no such file: 'map.fits'"),
        ('.', ValueError, "'.' is a folder"),
        (None, TypeError, 'data must be an NDData, .*got NoneType'),
    ],
)
def test_wrong_data_are_refused(data, exception, sentence):
    with pytest.raises(exception, match=sentence):
        parse_image(data)


@pytest.mark.parametrize(
    ('mask', 'sentence'),
    [
        (MASK.T, r'mask has shape \(6, 5\), data has \(5, 6\)'),
        (MASK[0], 'mask must be two-dimensional'),
        (np.stack([MASK, MASK]), 'mask must be two-dimensional'),
    ],
)
def test_wrong_mask_is_refused(mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse_image(DATA, mask=mask)


# Files

TABLE = 'table'


def write_extensions(path, extensions):
    """A file of extensions given as (name, shape, or None for no data, or TABLE)."""
    hdus = [fits.PrimaryHDU()]
    for name, shape in extensions:
        if shape == TABLE:
            column = fits.Column(name='x', format='D', array=np.ones(3))
            hdus.append(fits.BinTableHDU.from_columns([column], name=name))
        else:
            hdus.append(fits.ImageHDU(None if shape is None else np.ones(shape), name=name))
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.parametrize(
    ('extensions', 'expected'),
    [
        ([('', (5, 6)), ('image', (5, 6))], 2),
        ([('data', (5, 6)), ('sci', (5, 6)), ('image', (5, 6))], 3),
        ([('data', (5, 6)), ('SCI', (5, 6))], 2),
        ([('coverage', (5, 6)), ('data', (5, 6))], 2),
        ([('a', None), ('t', TABLE), ('b', (5, 6)), ('c', (5, 6))], 3),
        ([('spectrum', (6,)), ('cube', (3, 5, 6)), ('map', (1, 5, 6))], 3),
        ([('image', None), ('other', (5, 6))], 2),
        ([('image', (3, 5, 6)), ('other', (5, 6))], 2),
    ],
)
def test_image_extension_is_found(tmp_path, extensions, expected):
    with fits.open(write_extensions(tmp_path / 'map.fits', extensions)) as hdus:
        assert find_image_hdu(hdus) == expected


def test_primary_image_is_found():
    hdus = fits.HDUList([fits.PrimaryHDU(DATA), fits.ImageHDU(2 * DATA, name='second')])
    assert find_image_hdu(hdus) == 0
    hdus.append(fits.ImageHDU(3 * DATA, name='image'))
    assert_array_equal(parse_image(hdus).data, 3 * DATA)


@pytest.mark.parametrize('name', ['second', 'SECOND', 2, '2'])
def test_extension_is_chosen_by_name_or_number(tmp_path, name):
    path = write_extensions(tmp_path / 'map.fits', [('image', (5, 6)), ('second', (2, 3))])
    with fits.open(path) as hdus:
        assert find_image_hdu(hdus, name) == 2
    assert read_image(path, name)[0].shape == (2, 3)


def test_extension_may_be_counted_from_the_end_or_named_like_a_number(tmp_path):
    path = write_extensions(tmp_path / 'map.fits', [('70', (5, 6)), ('100', (2, 3))])
    with fits.open(path) as hdus:
        assert [find_image_hdu(hdus, name) for name in ('70', -1, '-1', 1)] == [1, 2, 2, 1]


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [
        ('nothing', r"no extension 'nothing'; there are \['PRIMARY', 'IMAGE', 'TAB', 'LINE'\]"),
        (99, '99'),
        ('99', '99'),
        ('tab', '(?i)tab|no .*image'),
        ('line', r'two-dimensional .*got shape \(6,\)'),
        (0, 'holds no image'),
    ],
)
def test_wrong_extension_is_refused(tmp_path, name, sentence):
    extensions = [('image', (5, 6)), ('tab', TABLE), ('line', (6,))]
    path = write_extensions(tmp_path / 'map.fits', extensions)
    with pytest.raises((ValueError, TypeError), match=sentence):
        read_image(path, name)


def test_file_without_an_image_is_refused(tmp_path):
    path = write_extensions(tmp_path / 'map.fits', [('tab', TABLE), ('line', (6,))])
    with pytest.raises(ValueError, match='no two-dimensional image'):
        read_image(path)


@pytest.mark.parametrize('content', [b'', b'no FITS ' * 1000])
def test_file_that_is_not_fits_is_refused(tmp_path, content):
    path = tmp_path / 'map.fits'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"map\.fits' is not a readable FITS file"):
        read_image(path)


@pytest.mark.filterwarnings('ignore:File may have been truncated', 'ignore::ResourceWarning')
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / 'map.fits'
    fits.writeto(path, np.ones((300, 300)))
    path.write_bytes(path.read_bytes()[:300_000])
    try:
        with pytest.raises(ValueError, match=r"map\.fits' is not a readable FITS file"):
            read_image(path)
    finally:
        # The file that astropy leaves open speaks up here, not in another test.
        gc.collect()


def test_missing_file_is_refused(tmp_path):
    for path, sentence in ((tmp_path / 'none.fits', 'no such file'), (tmp_path, 'is a folder')):
        with pytest.raises(ValueError, match=sentence):
            read_image(path)


def test_file_stays_on_disk_until_pixels_are_asked_for(tmp_path):
    fits.writeto(tmp_path / 'map.fits', DATA.astype('f4'))
    image, _ = read_image(str(tmp_path / 'map.fits'))
    base = image.data
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    assert isinstance(base, mmap.mmap)
    assert_array_equal(image.data, DATA)


@pytest.mark.parametrize(
    ('name', 'shape', 'scale', 'wavelength'),
    [
        ('1342217404*MAPB_blue*', (320, 176), 1.6, 70),
        ('1342216069*MAPB_green*', (320, 182), 1.6, 100),
        ('1342217404*MAPR*', (161, 89), 3.2, 160),
        ('1342216069*MAPR*', (162, 94), 3.2, 160),
    ],
)
def test_archive_files_are_read_as_they_are(real_data, name, shape, scale, wavelength):
    (path,) = (real_data / 'pacs_gamma_dra').glob(name)
    image, header = read_image(path)
    assert image.shape == shape
    assert image.data.dtype == np.dtype('>f8')
    assert image.dtype == np.dtype('f8')
    assert image.unit == u.Jy / u.pix
    assert image.pixel_scale == pytest.approx(scale, rel=1e-6)
    assert_array_equal(image.data, fits.getdata(path, 'image'))
    # Zeros of the errors mean no coverage.
    error = fits.getdata(path, 'stDev')
    assert_array_equal(image.error, np.where(error > 0, error, np.nan))
    assert (header['EXTNAME'], header['BUNIT']) == ('image', 'Jy/pixel')
    assert (header['INSTRUME'], header['WAVELNTH']) == ('PACS', wavelength)
    # The star, at 17h56m36.37s +51d29m20.0s, is the brightest pixel around.
    x, y = image.wcs.wcs_world2pix(269.15154, 51.48889, 0)
    rows, columns = np.indices(shape)
    near = np.where(np.hypot(columns - x, rows - y) < 20, image.data, 0)
    row, column = np.unravel_index(near.argmax(), shape)
    assert np.hypot(column - x, row - y) < 2


@pytest.mark.parametrize(('band', 'shape', 'scale'), [(250, 81, 6), (350, 65, 10), (500, 57, 14)])
def test_real_map_is_read_as_it_is(small_data, band, shape, scale):
    path = small_data / f'bet_and_spire{band}.fits'
    image, header = read_image(path)
    assert image.shape == (shape, shape)
    assert image.dtype == np.dtype('f4')
    assert image.unit == u.MJy / u.sr
    assert image.pixel_scale == pytest.approx(scale, rel=1e-6)
    assert_array_equal(image.data, fits.getdata(path))
    assert (header['INSTRUME'], header['WAVELNTH']) == ('SPIRE', band)
    # The star, at 1h09m43.9s +35d37m14s, is the brightest pixel.
    x, y = image.wcs.wcs_world2pix(17.43302, 35.62056, 0)
    row, column = np.unravel_index(np.nanargmax(image.data), image.shape)
    assert np.hypot(column - x, row - y) < 1.5
    assert_array_equal(image.valid(np.s_[:, :]), np.isfinite(image.data))


def test_real_map_in_galactic_coordinates_is_read(small_data):
    image, _ = read_image(small_data / 'extinction_ophiuchus.fits')
    assert image.unit == u.mag
    # Eight degrees from the reference of the projection, where it is 90 arcsec.
    assert image.pixel_scale == pytest.approx(88.7513, rel=1e-5)
    place = image.wcs.pixel_to_world(48, 48).galactic
    assert abs(place.l.wrap_at('180d').deg + 6) < 1
    assert abs(place.b.deg - 16) < 1


def test_header_of_the_image_comes_before_that_of_the_file(tmp_path):
    primary, image = fits.PrimaryHDU(), fits.ImageHDU(DATA)
    primary.header['TELESCOP'], primary.header['OBJECT'] = 'Herschel', 'file'
    image.header['OBJECT'] = 'image'
    fits.HDUList([primary, image]).writeto(tmp_path / 'map.fits')
    _, header = read_image(tmp_path / 'map.fits')
    assert (header['TELESCOP'], header['OBJECT']) == ('Herschel', 'image')
