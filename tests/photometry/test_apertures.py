"""Tests of aperture photometry on predicted backgrounds."""

import tracemalloc

import numpy as np
import photutils.aperture
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import (
    CCDData,
    InverseVariance,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.table import QTable
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import (
    ApertureStats,
    CircularAnnulus,
    CircularAperture,
    EllipticalAperture,
    SkyCircularAperture,
    SkyEllipticalAperture,
    aperture_photometry,
)
from photutils.centroids import centroid_2dg
from regions import (
    CirclePixelRegion,
    CircleSkyRegion,
    EllipsePixelRegion,
    LinePixelRegion,
    PixCoord,
    PolygonPixelRegion,
    RectanglePixelRegion,
    Regions,
)

from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator
from csr_astro.flags import decode_flags
from csr_astro.images import read_image

SHAPE = (120, 130)
SOURCES = np.array([(40.3, 60.2), (90.0, 33.4), (47.8, 66.6), (100.2, 90.1)])
BLUE = 'pacs-scanmap-blue'


@pytest.fixture(scope='module')
def estimator(weights):
    return NeuralBackgroundEstimator(weights, orientations=1, fwhm=3.5)


@pytest.fixture(scope='module')
def blue(weights):
    return NeuralBackgroundEstimator(weights, orientations=1, instrument=BLUE)


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
    """A slope, noise of scatter 1 and Gaussian stars of flux 400."""
    yy, xx = np.indices(SHAPE)
    sky = 20 + 0.05 * xx - 0.02 * yy + np.random.default_rng(0).normal(0, 1, SHAPE)
    for x, y in SOURCES:
        sky += 100 / np.pi * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 4)
    sky.flags.writeable = False
    return sky


@pytest.fixture(scope='module')
def ccd(sky, wcs):
    return CCDData(sky, unit='Jy/pixel', wcs=wcs)


def value(column):
    return u.Quantity(column).value


def assert_same_table(table, other):
    assert table.colnames == other.colnames
    for name in table.colnames:
        if isinstance(table[name], SkyCoord):
            assert_array_equal(table[name].ra, other[name].ra)
        else:
            assert_array_equal(table[name], other[name])


# What photutils itself says


def coordinates(wcs):
    return wcs.pixel_to_world(*SOURCES.T)


APERTURES = {
    'radius': lambda _: (4.5, CircularAperture(SOURCES, 4.5)),
    'integer radius': lambda _: (4, CircularAperture(SOURCES, 4)),
    'list of radii': lambda _: ([3, 5.5], [CircularAperture(SOURCES, r) for r in (3, 5.5)]),
    'list of one': lambda _: ([3], [CircularAperture(SOURCES, 3)]),
    'array of radii': lambda _: (
        np.array([3, 5.5]), [CircularAperture(SOURCES, r) for r in (3, 5.5)]
    ),
    'pixels': lambda _: (4.5 * u.pix, CircularAperture(SOURCES, 4.5)),
    'angle': lambda _: (8 * u.arcsec, CircularAperture(SOURCES, 5)),
    'list of angles': lambda _: (
        [4.8, 8] * u.arcsec, [CircularAperture(SOURCES, r) for r in (3, 5)]
    ),
    'aperture': lambda _: (CircularAperture(SOURCES, 4.5),) * 2,
    'aperture elsewhere': lambda _: (CircularAperture((3, 3), 4.5), CircularAperture(SOURCES, 4.5)),
    'apertures': lambda _: ([CircularAperture(SOURCES, r) for r in (3, 5)],) * 2,
    'ellipse': lambda _: (EllipticalAperture(SOURCES, 5, 3, theta=0.5),) * 2,
    'sky aperture': lambda w: (SkyCircularAperture(coordinates(w), 6 * u.arcsec),) * 2,
    'sky ellipse': lambda w: (
        SkyEllipticalAperture(coordinates(w), 6 * u.arcsec, 4 * u.arcsec, theta=30 * u.deg),
    ) * 2,
    'region': lambda _: (CirclePixelRegion(PixCoord(3, 3), 4.5), CircularAperture(SOURCES, 4.5)),
    'sky region': lambda w: (
        CircleSkyRegion(coordinates(w)[0], 6 * u.arcsec),
        SkyCircularAperture(coordinates(w), 6 * u.arcsec),
    ),
    'ellipse region': lambda _: (
        EllipsePixelRegion(PixCoord(3, 3), 10, 6, angle=30 * u.deg),
        EllipticalAperture(SOURCES, 5, 3, theta=np.pi / 6),
    ),
    'regions': lambda _: (
        Regions([CirclePixelRegion(PixCoord(3, 3), r) for r in (3, 5)]),
        [CircularAperture(SOURCES, r) for r in (3, 5)],
    ),
}  # fmt: skip


@pytest.mark.parametrize('apertures', APERTURES)
@pytest.mark.parametrize('with_unit', [True, False])
def test_columns_of_photutils_are_a_subset(estimator, ccd, sky, wcs, apertures, with_unit):
    given, same = APERTURES[apertures](wcs)
    if not with_unit and apertures.startswith('sky'):
        same = same.to_pixel(wcs)
    data, known = (ccd.data * ccd.unit, {'wcs': wcs}) if with_unit else (sky, {})
    scale = {} if with_unit else {'wcs': wcs}
    expected = aperture_photometry(data, same, **known)
    photometry = InpaintedAperturePhotometry(given, estimator=estimator)
    table = photometry(ccd if with_unit else sky, SOURCES, **scale)
    assert isinstance(table, QTable)
    if with_unit:
        shared = [name for name in table.colnames if name in expected.colnames]
        assert shared == expected.colnames
    assert_array_equal(table['id'], expected['id'])
    for name in expected.colnames[1:]:
        if name == 'sky_center':
            assert table[name].separation(expected[name]).max() < 1e-6 * u.arcsec
        else:
            assert getattr(table[name], 'unit', None) == getattr(expected[name], 'unit', None)
            assert_allclose(value(table[name]), value(expected[name]), rtol=1e-9)


@pytest.mark.parametrize('method', ['exact', 'center', 'subpixel'])
@pytest.mark.parametrize('with_error', [False, True])
def test_table_of_photutils_is_the_beginning_of_ours(estimator, ccd, wcs, method, with_error):
    mask = np.zeros(SHAPE, bool)
    mask[30, 88:91] = True
    error = np.full(SHAPE, 0.7) if with_error else None
    photometry = InpaintedAperturePhotometry([3.2, 5], estimator=estimator, method=method)
    table = photometry(ccd, SOURCES, mask=mask, error=error)
    expected = aperture_photometry(
        ccd.data * ccd.unit,
        [CircularAperture(SOURCES, r) for r in (3.2, 5)],
        mask=mask,
        error=error if error is None else error * ccd.unit,
        method=method,
        wcs=wcs,
    )
    names = [name for name in expected.colnames if 'err' not in name]
    assert [name for name in table.colnames if name in names] == names
    assert set(expected.colnames) <= set(table.colnames)
    for name in set(names) - {'sky_center'}:
        assert_array_equal(table[name], expected[name])


def test_columns_are_those_promised(estimator, ccd):
    one = InpaintedAperturePhotometry(4, estimator=estimator, annulus=(10, 15))(ccd, SOURCES)
    ours = ['aperture_sum', 'aperture_sum_err', 'background_sum', 'flux', 'flux_err',
            'annulus_flux']  # fmt: skip
    common = ['snr', 'mask_name', 'mask_radius', 'flags']
    assert {'id', *ours, *common} <= set(one.colnames)
    two = InpaintedAperturePhotometry([4, 5], estimator=estimator)(ccd, SOURCES)
    assert {f'{name}_{i}' for name in ours[:-1] for i in (0, 1)} <= set(two.colnames)
    assert not any('annulus' in name for name in two.colnames)
    assert two.colnames[-4:] == common


def test_sources_are_by_default_the_positions_of_the_aperture(estimator, ccd, wcs):
    expected = InpaintedAperturePhotometry(4, estimator=estimator)(ccd, SOURCES)
    by_pixel = InpaintedAperturePhotometry(CircularAperture(SOURCES, 4), estimator=estimator)
    assert_same_table(by_pixel(ccd), expected)
    aperture = SkyCircularAperture(coordinates(wcs), 6.4 * u.arcsec)
    by_sky = InpaintedAperturePhotometry(aperture, estimator=estimator)
    assert_allclose(by_sky(ccd)['flux'], expected['flux'], rtol=1e-6)
    single = InpaintedAperturePhotometry(CircularAperture(SOURCES[0], 4), estimator=estimator)
    assert len(single(ccd)) == 1


# Fluxes


@pytest.mark.parametrize(
    ('correction', 'fractions'),
    [
        (None, (0.59090795, 0.77766401, 0.85323257)),
        ('eef', (0.59090795, 0.77766401, 0.85323257)),
        ('vesta', (0.648448, 0.852883, 0.934142)),
        ('none', (1, 1, 1)),
        (0.5, (0.5, 0.5, 0.5)),
        ([0.5, 0.6, 0.7], (0.5, 0.6, 0.7)),
    ],
)
def test_flux_is_the_difference_over_the_enclosed_energy(blue, ccd, correction, fractions):
    photometry = InpaintedAperturePhotometry(
        [5, 10, 18] * u.arcsec, estimator=blue, aperture_correction=correction
    )
    result = blue.estimate(ccd, SOURCES, mask_radius=12)
    table = photometry(ccd, SOURCES, mask_radius=12)
    yy, xx = np.indices(SHAPE)
    for i, (arcsec, fraction) in enumerate(zip((5, 10, 18), fractions, strict=True)):
        aperture = CircularAperture(SOURCES, arcsec / 1.6)
        background = aperture_photometry(result.background, aperture)['aperture_sum']
        assert_allclose(table[f'background_sum_{i}'].value, background, rtol=1e-9)
        difference = table[f'aperture_sum_{i}'].value - background
        assert_allclose(table[f'flux_{i}'].value, difference / fraction, rtol=1e-7)
        error = table[f'aperture_sum_err_{i}']
        assert_allclose(table[f'flux_err_{i}'].value, error.value / fraction, rtol=1e-7)
    # Pixels by their centres, counted by hand.
    by_center = InpaintedAperturePhotometry(4, estimator=blue, method='center',
                                            aperture_correction='none')(result)  # fmt: skip
    for row, (x, y) in zip(by_center, SOURCES, strict=True):
        inside = np.hypot(xx - x, yy - y) < 4
        assert_allclose(row['flux'].value, result.source_image[inside].sum(), rtol=1e-7)


@pytest.mark.parametrize(
    ('arcsec', 'mask_radius', 'fraction', 'exceeds'),
    [
        (12.8, 8, None, False),
        (13, 5, 0.72358178, True),
        (18, 5, 0.72358178, True),
        (9, 5, 0.72358178, True),
        (6, 5, 0.64246825, False),
        (8, 5, 0.72358178, False),
    ],
)
def test_aperture_larger_than_the_mask_is_flagged_and_limited(
    blue, ccd, arcsec, mask_radius, fraction, exceeds
):
    photometry = InpaintedAperturePhotometry(arcsec * u.arcsec, estimator=blue)
    table = photometry(ccd, SOURCES[1:2], mask_radius=mask_radius)
    assert ('aperture_exceeds_mask' in decode_flags(table['flags'])[0]) == exceeds
    if fraction is not None:
        difference = table['aperture_sum'] - table['background_sum']
        assert_allclose(table['flux'].value, difference.value / fraction, rtol=1e-7)


@pytest.mark.parametrize(('semimajor', 'exceeds'), [(6, False), (9, True)])
def test_only_ellipses_larger_than_the_mask_are_flagged(estimator, sky, semimajor, exceeds):
    aperture = EllipticalAperture(SOURCES[1], semimajor, 3)
    table = InpaintedAperturePhotometry(aperture, estimator=estimator)(sky, mask_radius=7)
    assert ('aperture_exceeds_mask' in decode_flags(table['flags'])[0]) == exceeds


@pytest.mark.parametrize('annulus', ['instrument', (25, 35) * u.arcsec, (15.625, 21.875)])
def test_annulus_flux_is_that_of_a_classical_annulus(blue, ccd, annulus):
    photometry = InpaintedAperturePhotometry(6 * u.arcsec, estimator=blue, annulus=annulus)
    table = photometry(ccd, SOURCES, mask_radius=2.6)
    ring = CircularAnnulus(SOURCES, 25 / 1.6, 35 / 1.6)
    level = ApertureStats(ccd.data, ring).mean
    aperture = CircularAperture(SOURCES, 6 / 1.6)
    total = aperture_photometry(ccd.data, aperture)['aperture_sum']
    # The mask is smaller than the aperture, which is the annulus' business no more.
    expected = (total - level * aperture.area) / 0.64246825
    assert_allclose(table['annulus_flux'].value, expected, rtol=1e-7)
    assert table['annulus_flux'].unit == u.Jy


@pytest.mark.parametrize('given', [False, True])
def test_error_holds_what_is_predicted_behind_neighbours(given):
    # An untrained network disagrees with the kriging, which enlarges errors.
    estimator = NeuralBackgroundEstimator(orientations=1, fwhm=3.5)
    noise = np.random.default_rng(5).normal(0, 2, SHAPE)
    places = [(60, 60), (67, 60), (60, 95)]
    photometry = InpaintedAperturePhotometry([3, 9], estimator=estimator)
    error = np.full(SHAPE, 2.0) if given else None
    table = photometry(noise, places, mask_radius=4, error=error)
    yy, xx = np.indices(SHAPE)
    hole = np.any([np.hypot(xx - x, yy - y) <= 4 for x, y in places], axis=0)
    for i, place in enumerate(places):
        weights = CircularAperture(place, 9).to_mask().to_image(SHAPE)
        # White noise: each pixel that is not seen, or of which the error is given, counts.
        counted = weights if given else weights * hole
        expected = 2 * np.sqrt((counted if given else counted**2).sum())
        assert_allclose(table['aperture_sum_err_1'][i], expected, rtol=0.15)
    # The nearest neighbour is outside of the small aperture.
    assert_allclose(table['aperture_sum_err_0'][0], table['aperture_sum_err_0'][2], rtol=0.15)


def test_each_annulus_flux_has_the_correction_of_its_aperture(estimator, sky):
    arguments = {'estimator': estimator, 'annulus': (8, 14)}
    none = arguments | {'aperture_correction': 'none'}
    plain = InpaintedAperturePhotometry([2, 4], **none)(sky, SOURCES)
    half = InpaintedAperturePhotometry([2, 4], aperture_correction=[0.5, 0.8], **arguments)
    table = half(sky, SOURCES)
    for name, fraction in (('flux_0', 0.5), ('flux_1', 0.8)):
        assert_allclose(table[name], plain[name] / fraction)
        assert_allclose(table[f'annulus_{name}'], plain[f'annulus_{name}'] / fraction)


def test_annulus_leaves_blank_and_masked_pixels_out(estimator, sky):
    data, mask = sky.copy(), np.zeros(SHAPE, bool)
    data[10:30], mask[40:50] = np.nan, True
    photometry = InpaintedAperturePhotometry(
        3, estimator=estimator, annulus=(8, 14), aperture_correction='none'
    )
    table = photometry(data, SOURCES[1:2], mask=mask)
    yy, xx = np.indices(SHAPE)
    distance = np.hypot(xx - 90, yy - 33.4)
    ring = (distance > 8) & (distance < 14) & np.isfinite(data) & ~mask
    level = ((table['aperture_sum'] - table['annulus_flux']) / (9 * np.pi))[0]
    assert_allclose(level, data[ring].mean(), rtol=0, atol=0.03)


@pytest.mark.parametrize('dtype', ['>f4', '<i2'])
def test_of_a_large_map_only_windows_are_read(estimator, sky, tmp_path, dtype):
    shape = 2400, 2600
    data = np.memmap(tmp_path / 'map.bin', dtype, 'w+', shape=shape)
    data[1100 : 1100 + SHAPE[0], 1200 : 1200 + SHAPE[1]] = 100 * sky
    part, places = data[1000:1400, 1100:1500], SOURCES + 100
    photometry = InpaintedAperturePhotometry([3, 5], estimator=estimator, annulus=(10, 15))
    expected = photometry(part, places)
    result = estimator.estimate(data, np.add(places, (1100, 1000)))
    tracemalloc.start()
    table = photometry(result)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A byte for each pixel (is it under a mask?), and what one source takes.
    assert peak < data.size + 10e6
    assert_array_equal(table['flags'], expected['flags'])
    for name in expected.colnames[3:]:
        if np.issubdtype(expected[name].dtype, np.floating):
            # Positions are rounded at the last digits, which are others.
            assert_allclose(table[name], expected[name], rtol=1e-6, err_msg=name)


def test_measured_background_gives_the_same_as_one_call(blue, ccd):
    photometry = InpaintedAperturePhotometry([4, 5], estimator=blue, annulus='instrument')
    result = blue.estimate(ccd, SOURCES, error=0.5 * np.ones(SHAPE), mask_radius=7)
    table = photometry(ccd, SOURCES, error=0.5 * np.ones(SHAPE), mask_radius=7)
    assert_same_table(photometry(result), table)


def test_table_does_not_depend_on_the_order_of_the_sources(estimator, ccd):
    photometry = InpaintedAperturePhotometry([4, 5], estimator=estimator, annulus=(10, 15))
    order = [2, 0, 3, 1]
    table, other = photometry(ccd, SOURCES)[order], photometry(ccd, SOURCES[order])
    table['id'] = other['id']
    assert_same_table(other, table)


# Errors


ERRORS = {
    'array': lambda e: {'error': e},
    'Quantity': lambda e: {'error': (1e3 * e) * u.mJy / u.pix},
    'number': lambda e: {'error': e[0, 0]},
    'StdDevUncertainty': StdDevUncertainty,
    'VarianceUncertainty': lambda e: VarianceUncertainty(e**2),
    'InverseVariance': lambda e: InverseVariance(1 / e**2),
    'StdDevUncertainty in mJy': lambda e: StdDevUncertainty(1e3 * e, unit='mJy/pixel'),
}


@pytest.mark.parametrize('kind', ERRORS)
def test_every_kind_of_error_gives_the_same(estimator, ccd, wcs, kind):
    error = np.full(SHAPE, 0.8)
    photometry = InpaintedAperturePhotometry(4, estimator=estimator)
    given = ERRORS[kind](error)
    if isinstance(given, dict):
        table = photometry(ccd, SOURCES, **given)
    else:
        data = CCDData(ccd.data, unit=ccd.unit, wcs=wcs, uncertainty=given)
        table = photometry(data, SOURCES)
    expected = photometry(ccd, SOURCES, error=error)
    assert_allclose(table['aperture_sum_err'].value, expected['aperture_sum_err'].value, rtol=1e-9)
    assert_allclose(table['flux_err'].value, expected['flux_err'].value, rtol=1e-9)


@pytest.mark.skipif(
    not hasattr(photutils.aperture, 'PolygonAperture'), reason='photutils 3.1 has polygons'
)
def test_polygons_are_apertures(estimator, ccd):
    square = PolygonPixelRegion(PixCoord([1, 9, 9, 1], [1, 1, 9, 9]))
    same = RectanglePixelRegion(PixCoord(5, 5), 8, 8)
    found, expected = (
        InpaintedAperturePhotometry(shape, estimator=estimator)(ccd, SOURCES)
        for shape in (square, same)
    )
    for name in ('aperture_sum', 'background_sum', 'flux', 'flux_err'):
        assert_allclose(found[name].value, expected[name].value, rtol=1e-9)


def test_error_contains_that_of_the_map(estimator, ccd):
    photometry = InpaintedAperturePhotometry(4, estimator=estimator)
    without = photometry(ccd, SOURCES)['aperture_sum_err'].value
    for sigma in (0, 0.1, 50):
        error = np.full(SHAPE, float(sigma))
        # Since 3.1 photutils squares the fractions of pixels too, which gives a smaller error.
        own = aperture_photometry(ccd.data, CircularAperture(SOURCES, 4), error=error)
        own = np.array(own['aperture_sum_err'])
        found = photometry(ccd, SOURCES, error=error)['aperture_sum_err'].value
        assert (found >= own * (1 - 1e-9)).all()
        assert (found >= without * (1 - 1e-9)).all()
    assert_allclose(found, own, rtol=0.1)


def test_faint_star_on_a_noiseless_slope():
    yy, xx = np.indices((120, 120))
    star = 100 / (4 * np.pi) * np.exp(-0.5 * ((xx - 60) ** 2 + (yy - 50) ** 2) / 2.0)
    photometry = InpaintedAperturePhotometry(6.0, estimator=NeuralBackgroundEstimator(fwhm=3.3))
    table = photometry(3 + 0.01 * xx + star, [(60, 50)])
    assert abs(table['flux'][0] - 100) < 2


def test_error_on_white_noise_is_that_of_independent_pixels():
    sky = np.random.default_rng(3).normal(100, 2, (140, 140))
    positions = [(35, 35), (105, 40), (40, 100), (100.5, 105.2)]
    estimator = NeuralBackgroundEstimator(fwhm=3.5, orientations=1)
    photometry = InpaintedAperturePhotometry([2, 4], estimator=estimator)
    for error in (None, 2.0):
        table = photometry(sky, positions, mask_radius=6, error=error)
        for i, radius in enumerate((2, 4)):
            expected = 2 * np.sqrt(np.pi) * radius
            assert_allclose(table[f'aperture_sum_err_{i}'], expected, rtol=0.4)
            assert_allclose(np.mean(table[f'aperture_sum_err_{i}']), expected, rtol=0.25)


# Rows that say what went wrong


@pytest.mark.parametrize('unit', [None, 'Jy/pixel'])
@pytest.mark.parametrize('apertures', [4, [4, 5]])
def test_unmeasured_sources_have_rows_of_nan(estimator, sky, unit, apertures):
    data = sky if unit is None else u.Quantity(sky, unit)
    positions = np.array([SOURCES[0], (np.nan, 20), SOURCES[1], (-300, 20)])
    photometry = InpaintedAperturePhotometry(apertures, estimator=estimator, annulus=(10, 15))
    table = photometry(data, positions)
    assert_array_equal(table['id'], [1, 2, 3, 4])
    x = next(name for name in table.colnames if name.startswith('x'))
    assert_array_equal(value(table[x]), positions[:, 0])
    names = [n for n in table.colnames if n.startswith(('aperture', 'backg', 'flux', 'annulus'))]
    assert len(names) == 6 * np.size(apertures)
    for name in [*names, 'snr']:
        assert_array_equal(np.isnan(value(table[name])), [False, True, False, True])
    assert decode_flags(table['flags'][[1, 3]]) == [['invalid_position'], ['off_map']]
    good = photometry(data, positions[[0, 2]])
    for name in names:
        assert_array_equal(table[name][[0, 2]], good[name])


def test_invalid_sky_positions_keep_their_rows(estimator, ccd):
    catalog = SkyCoord([np.nan, 269.15] * u.deg, [np.nan, 51.49] * u.deg)
    table = InpaintedAperturePhotometry(4, estimator=estimator)(ccd, catalog)
    assert_array_equal(np.isnan(table['flux']), [True, False])
    assert decode_flags(table['flags'])[0] == ['invalid_position']


@pytest.mark.parametrize(
    ('position', 'flagged'), [((90, 33), False), ((90, 2), True), ((60, 93), True)]
)
def test_apertures_with_invalid_pixels_are_flagged(estimator, sky, position, flagged):
    mask = np.zeros(SHAPE, bool)
    mask[90, 60] = True
    table = InpaintedAperturePhotometry(4, estimator=estimator)(sky, [position], mask=mask)
    assert ('aperture_invalid' in decode_flags(table['flags'])[0]) == flagged
    assert np.isfinite(table['flux'][0])
    assert np.isfinite(table['flux_err'][0])


def test_error_is_flagged_where_too_little_is_left_to_tell(estimator, sky):
    data = np.full(SHAPE, np.nan)
    data[44:77, 24:57] = sky[44:77, 24:57]
    photometry = InpaintedAperturePhotometry(6, estimator=estimator)
    table = photometry(data, SOURCES[:1], mask_radius=22)
    assert 'error_unknown' in decode_flags(table['flags'])[0]
    assert np.isnan(table['flux_err'][0])
    assert np.isfinite(table['flux'][0])


@pytest.mark.parametrize('unit', [None, 'Jy/pixel'])
@pytest.mark.parametrize('annulus', [None, (10, 15)])
@pytest.mark.parametrize('apertures', [4, [4, 5], CircularAperture((1, 1), 3)])
def test_no_sources_give_an_empty_table(estimator, sky, unit, annulus, apertures):
    data = sky if unit is None else u.Quantity(sky, unit)
    photometry = InpaintedAperturePhotometry(apertures, estimator=estimator, annulus=annulus)
    table, full = photometry(data, []), photometry(data, SOURCES)
    assert len(table) == 0
    assert table.colnames == full.colnames
    for name in table.colnames:
        assert getattr(table[name], 'unit', None) == getattr(full[name], 'unit', None)


# Units, and what the table says of itself


@pytest.mark.parametrize(
    ('unit', 'flux_unit', 'factor'),
    [
        ('Jy/pixel', 'Jy', 1),
        ('mJy pix-1', 'mJy', 1),
        ('Jy/beam', 'Jy', 4 * np.log(2) / np.pi / 3.5**2),
        ('W m-2 pix-1', 'W m-2', 1),
        ('', '', 1),
        (None, None, 1),
    ],
)
def test_fluxes_have_the_unit_of_a_sum_or_jansky(estimator, sky, unit, flux_unit, factor):
    data = sky if unit is None else u.Quantity(sky, unit)
    photometry = InpaintedAperturePhotometry(4, estimator=estimator, annulus=(10, 15))
    table = photometry(data, SOURCES)
    for name in ('flux', 'flux_err', 'annulus_flux'):
        assert getattr(table[name], 'unit', None) == (flux_unit if unit is None else u.Unit(
            flux_unit))  # fmt: skip
    for name in ('aperture_sum', 'aperture_sum_err', 'background_sum'):
        assert getattr(table[name], 'unit', None) == (unit if unit is None else u.Unit(unit))
    plain = photometry(sky, SOURCES)
    assert_allclose(value(table['flux']), factor * plain['flux'], rtol=1e-9)


@pytest.mark.parametrize('dtype', ['>f4', '>f8', '>i2'])
def test_every_kind_of_number_is_measured(estimator, sky, dtype):
    data = sky.astype(dtype)
    table = InpaintedAperturePhotometry(4, estimator=estimator)(data, SOURCES)
    expected = aperture_photometry(data.astype(float), CircularAperture(SOURCES, 4))
    assert_allclose(table['aperture_sum'], expected['aperture_sum'], rtol=1e-6)
    assert np.isfinite(table['flux']).all()


def test_meta_says_how_the_table_was_made(blue, weights, ccd):
    photometry = InpaintedAperturePhotometry(
        [5, 6] * u.arcsec, estimator=blue, method='center', aperture_correction='vesta'
    )
    meta = photometry(ccd, SOURCES, mask_radius=9).meta
    assert {'csr_astro', 'astropy', 'photutils', 'numpy', 'torch'} <= set(meta)
    assert meta['weights'] == str(weights)
    assert len(meta['weights_sha256']) == 64
    assert meta['instrument'] == BLUE
    assert meta['aperture_method'] == 'center'
    assert meta['aperture_correction'] == 'vesta'
    assert meta['mask_radius'] == '9'
    assert [text.split()[0] for text in meta['apertures']] == ['5.0', '6.0']


def test_table_survives_a_file(blue, ccd, tmp_path):
    positions = [*SOURCES, (np.nan, 3)]
    apertures = [CircularAperture(SOURCES[0], r) for r in (4, 5)]
    table = InpaintedAperturePhotometry(apertures, estimator=blue)(ccd, positions)
    table.write(tmp_path / 'table.ecsv')
    again = QTable.read(tmp_path / 'table.ecsv')
    assert again.colnames == table.colnames
    assert again.meta == table.meta
    for name in set(table.colnames) - {'sky_center', 'mask_name'}:
        assert_array_equal(value(again[name]), value(table[name]))
        assert getattr(again[name], 'unit', None) == getattr(table[name], 'unit', None)
    assert list(np.ma.filled(again['mask_name'], '')) == list(table['mask_name'])
    assert again['sky_center'][:4].separation(table['sky_center'][:4]).max() < 1e-6 * u.arcsec


def test_repr_says_what_matters(blue):
    text = repr(InpaintedAperturePhotometry(4, estimator=blue, annulus='instrument'))
    assert "method='exact'" in text
    assert BLUE in text
    assert "annulus='instrument'" in text


# Real stars


@pytest.mark.parametrize(
    ('pattern', 'band', 'reference', 'colour', 'tolerance', 'radii'),
    [
        ('*1342217404*blue*', 'blue', 3.283, 1.016, 0.03, [5, 6, 8, 10]),
        ('*1342216069*green*', 'green', 1.604, 1.033, 0.03, [5, 6, 8, 10, 12]),
        ('*1342217404*MAPR*', 'red', 0.621, 1.074, 0.06, [9, 10, 12]),
        ('*1342216069*MAPR*', 'red', 0.621, 1.074, 0.06, [9, 10, 12]),
    ],
)
def test_flux_of_gamma_draconis(real_data, pattern, band, reference, colour, tolerance, radii):
    """Table 5 of the paper; the file as the archive delivers it."""
    (path,) = (real_data / 'pacs_gamma_dra').glob(pattern)
    estimator = NeuralBackgroundEstimator(
        instrument=f'pacs-scanmap-{band}', centroid_func=centroid_2dg
    )
    star = SkyCoord(269.152 * u.deg, 51.489 * u.deg)
    with fits.open(path) as hdus:
        table = InpaintedAperturePhotometry(radii * u.arcsec, estimator=estimator)(hdus, star)
    assert table['flags'][0] == 0
    ratios = [table[f'flux_{i}'][0].to_value('Jy') / colour / reference for i in range(len(radii))]
    assert_allclose(ratios, 1, rtol=0, atol=tolerance)


@pytest.mark.xfail(strict=True, reason='9 errors at 500 um, not 10: the stated error has grown')
def test_spectrum_of_beta_andromedae_is_that_of_a_photosphere(small_data):
    """In apertures of one beam the fluxes fall with the square of the wavelength."""
    star = SkyCoord(17.43302 * u.deg, 35.62056 * u.deg)
    scaled = []
    for band in (250, 350, 500):
        estimator = NeuralBackgroundEstimator(
            instrument=f'spire-{band}', centroid_func=centroid_2dg
        )
        fwhm = estimator.instrument.fwhm
        photometry = InpaintedAperturePhotometry(fwhm, estimator=estimator, annulus='instrument')
        image, _ = read_image(small_data / f'bet_and_spire{band}.fits')
        table = photometry(image, star)
        assert table['flags'][0] == 0
        # An annulus far from the cirrus gives the same, within the errors of both.
        assert_allclose(table['flux'].value, table['annulus_flux'].value, rtol=0.05)
        assert table['flux'][0] > 10 * table['flux_err'][0]
        scaled.append(table['flux'][0].to_value('Jy') * (band / 250) ** 2)
    assert_allclose(scaled, np.mean(scaled), rtol=0.1)


# Wrong arguments


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ({'estimator': 'default'}, 'estimator must be a NeuralBackgroundEstimator, got str'),
        ({'method': 'fast'}, r"method must be one of .*'exact'.* got 'fast'"),
        ({'apertures': 0}, 'radii must be positive and finite'),
        ({'apertures': [4, -1]}, 'radii must be positive and finite'),
        ({'apertures': np.nan}, 'radii must be positive and finite'),
        ({'apertures': 3 * u.Jy}, 'radii must be in pixels or an angle'),
        ({'apertures': []}, 'apertures must be radii .* got none'),
        ({'apertures': 'big'}, 'apertures must be radii .* got str'),
        ({'apertures': None}, 'apertures must be radii .* got NoneType'),
        ({'apertures': [4, True]}, 'apertures must be radii .* got bool'),
        (
            {'apertures': LinePixelRegion(PixCoord(1, 2), PixCoord(3, 4))},
            'LinePixelRegion cannot be an aperture',
        ),
        ({'aperture_correction': 'all'}, "aperture_correction must be 'eef'.*got 'all'"),
        ({'aperture_correction': 1.56}, 'fractions above 0 and up to 1'),
        ({'aperture_correction': 0}, 'fractions above 0 and up to 1'),
        ({'aperture_correction': [0.5, 0.6]}, 'one for each of the 1 apertures'),
        ({'annulus': (5, 4)}, r'annulus must be \(inner, outer\)'),
        ({'annulus': 5}, r'annulus must be \(inner, outer\)'),
        ({'annulus': 'wide'}, r"annulus must be .* got 'wide'"),
        ({'annulus': (-2, 4) * u.arcsec}, r'annulus must be \(inner, outer\)'),
        ({'annulus': (5, np.nan)}, r'annulus must be \(inner, outer\)'),
        ({'annulus': (5, 8) * u.Jy}, r'annulus must be \(inner, outer\)'),
    ],
)
def test_wrong_options_are_refused_with_a_sentence(estimator, arguments, sentence):
    arguments = {'apertures': 4, 'estimator': estimator} | arguments
    with pytest.raises((ValueError, TypeError), match=sentence):
        InpaintedAperturePhotometry(arguments.pop('apertures'), **arguments)


@pytest.mark.parametrize(
    ('aperture', 'arguments', 'sentence'),
    [
        (4, {}, 'sources are needed'),
        ([CircularAperture(SOURCES, 3), CircularAperture(SOURCES[::-1], 4)], {}, 'same positions'),
        ([CircularAperture(source, 3) for source in SOURCES], {}, 'same positions'),
        (CircularAperture(SOURCES, 1e6), {}, 'the aperture has a radius of 1e\\+06 pixels'),
        (4 * u.arcsec, {'sources': SOURCES}, 'the data have no WCS'),
        (
            SkyCircularAperture(SkyCoord(0 * u.deg, 0 * u.deg), 4 * u.arcsec),
            {'sources': SOURCES},
            'need a WCS',
        ),
        (4, {'sources': SOURCES, 'error': np.ones((3, 3))}, 'error has shape'),
        (4, {'sources': SOURCES, 'mask': np.ones((3, 3), bool)}, 'mask has shape'),
    ],
)
def test_wrong_calls_are_refused_with_a_sentence(estimator, sky, aperture, arguments, sentence):
    photometry = InpaintedAperturePhotometry(aperture, estimator=estimator)
    with pytest.raises((ValueError, TypeError), match=sentence):
        photometry(sky, **arguments)


@pytest.mark.parametrize(
    ('aperture', 'sentence'),
    [
        (2 * u.arcsec, 'covers radii of 4 to 18 arcsec, not 2'),
        (20 * u.arcsec, 'covers radii of 4 to 18 arcsec, not 20'),
        (EllipticalAperture((1, 1), 5, 3), 'enclosed energy in a EllipticalAperture is not known'),
    ],
)
def test_unknown_enclosed_energies_are_refused(blue, ccd, aperture, sentence):
    with pytest.raises(ValueError, match=sentence):
        InpaintedAperturePhotometry(aperture, estimator=blue)(ccd, SOURCES)
    uncorrected = InpaintedAperturePhotometry(aperture, estimator=blue, aperture_correction='none')
    assert np.isfinite(uncorrected(ccd, SOURCES)['flux']).all()


def test_measured_background_has_its_sources(estimator, sky):
    result = estimator.estimate(sky, SOURCES)
    with pytest.raises(TypeError, match='already has its sources'):
        InpaintedAperturePhotometry(4, estimator=estimator)(result, SOURCES)


def test_apertures_at_the_same_positions_need_no_sources(estimator, sky):
    several = [CircularAperture(SOURCES, 3), CircularAperture(SOURCES, 4), 5]
    table = InpaintedAperturePhotometry(several, estimator=estimator)(sky)
    expected = InpaintedAperturePhotometry([3, 4, 5], estimator=estimator)(sky, SOURCES)
    for i in range(3):
        assert_array_equal(table[f'flux_{i}'], expected[f'flux_{i}'])


def test_radius_without_dimensions_is_one(estimator, sky):
    table = InpaintedAperturePhotometry(np.array(4), estimator=estimator)(sky, SOURCES)
    assert 'flux' in table.colnames


def test_map_that_was_cleaned_in_place_is_not_measured(estimator, sky):
    data = sky.copy()
    result = estimator.estimate(data, SOURCES)
    photometry = InpaintedAperturePhotometry(4, estimator=estimator)
    expected = photometry(result)['flux']
    data -= result.source_image
    with pytest.raises(ValueError, match='the map was changed after'):
        photometry(result)
    data[:] = sky
    assert_array_equal(photometry(result)['flux'], expected)


def test_unknown_uncertainties_are_refused(estimator, sky):
    data = CCDData(sky, unit='Jy', uncertainty=UnknownUncertainty(np.ones(SHAPE)))
    photometry = InpaintedAperturePhotometry(4, estimator=estimator)
    with pytest.raises(TypeError, match='uncertainty must be a StdDevUncertainty'):
        photometry(data, SOURCES)
    assert np.isfinite(photometry(data, SOURCES, error=1)['flux_err']).all()


# No measurement


NUMBERS = ('aperture_sum', 'aperture_sum_err', 'background_sum', 'flux', 'flux_err', 'annulus_flux')


@pytest.mark.parametrize('how', ['nan', 'mask', 'infinite', 'mask and error', 'nan and error'])
@pytest.mark.parametrize('shape', [3, EllipticalAperture((0, 0), 3, 2), 'per source'])
def test_aperture_without_a_valid_pixel_is_no_measurement(estimator, sky, how, shape):
    """It was 0.0 ± 0.0, which has all the weight in a mean by 1 / σ²."""
    x, y = SOURCES[1]
    yy, xx = np.indices(sky.shape)
    hole = np.hypot(xx - x, yy - y) < 5
    data, options = sky.copy(), {}
    if how.startswith('mask'):
        options['mask'] = hole
    else:
        data[hole] = np.inf if how == 'infinite' else np.nan
    if how.endswith('error'):
        options['error'] = np.ones(sky.shape)
    apertures = {'apertures': [3.0] * len(SOURCES), 'per_source': True}
    photometry = InpaintedAperturePhotometry(
        **(apertures if shape == 'per source' else {'apertures': shape}),
        estimator=estimator, aperture_correction='none', annulus=(8, 14),
    )  # fmt: skip
    table = photometry(data, SOURCES, **options)
    for name in NUMBERS:
        assert np.isnan(u.Quantity(table[name]).value[1]), name
        assert np.isfinite(u.Quantity(table[name]).value[0])
    assert 'aperture_invalid' in decode_flags(table['flags'])[1]


def test_aperture_without_a_pixel_centre_is_no_measurement(estimator, sky):
    photometry = InpaintedAperturePhotometry(
        0.2, method='center', estimator=estimator, aperture_correction='none'
    )
    table = photometry(sky, [(40.5, 60.5), (40.0, 60.0)])
    for name in NUMBERS[:-1]:
        assert_array_equal(np.isnan(table[name]), [True, False])
    assert 'aperture_invalid' in decode_flags(table['flags'])[0]
