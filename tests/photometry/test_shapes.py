"""Tests of apertures of different shapes, one for each source."""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData
from helpers_removal import SOURCES, make_sky, make_wcs
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import (
    CircularAperture,
    EllipticalAperture,
    RectangularAperture,
    SkyCircularAperture,
    aperture_photometry,
)
from regions import CirclePixelRegion, EllipsePixelRegion, PixCoord, PointPixelRegion

from csr_astro import InpaintedAperturePhotometry

RADII = [3.0, 4.0, 5.0, 3.5, 6.0]


@pytest.fixture(scope='module')
def ccd():
    return CCDData(make_sky(), unit='Jy/pixel', wcs=make_wcs())


@pytest.fixture(scope='module')
def estimator(make_estimator):
    return make_estimator(fwhm=3.3)


def assert_rows_as_alone(table, photometry_of, result):
    """Each row is that of all sources measured in the aperture of one."""
    for i, each in enumerate(table):
        alone = photometry_of(i)(result)[i]
        for name in ('aperture_sum', 'aperture_sum_err', 'flux', 'flux_err', 'background_sum'):
            assert_allclose(each[name].value, alone[name].value, rtol=1e-10)
        assert each['flags'] == alone['flags']


@pytest.mark.parametrize('with_error', [False, True])
def test_radii_one_for_each_source(estimator, ccd, with_error):
    error = np.full(ccd.shape, 0.5) if with_error else None
    result = estimator.estimate(ccd, SOURCES, error=error)
    options = {'estimator': estimator, 'aperture_correction': 'none'}
    photometry = InpaintedAperturePhotometry(RADII, per_source=True, **options)
    table = photometry(result)
    assert 'flux' in table.colnames
    assert 'flux_0' not in table.colnames
    assert table.meta['apertures'] == ['5, one for each source']
    assert_rows_as_alone(table, lambda i: InpaintedAperturePhotometry(RADII[i], **options), result)
    assert 'InpaintedAperturePhotometry' in photometry._repr_html_()
    assert 'per_source=True' in repr(photometry)


def test_shapes_one_for_each_source(estimator, ccd):
    shapes = [
        CircularAperture(SOURCES[0], 4),
        EllipticalAperture(SOURCES[1], 6, 3, theta=0.5),
        RectangularAperture(SOURCES[2], 6, 3, theta=0.5),
        5 * u.arcsec,
        EllipsePixelRegion(PixCoord(*SOURCES[4]), 8, 5, angle=30 * u.deg),
    ]
    result = estimator.estimate(ccd, SOURCES)
    options = {'estimator': estimator, 'aperture_correction': 'none'}
    table = InpaintedAperturePhotometry(shapes, per_source=True, **options)(result)
    assert_rows_as_alone(table, lambda i: InpaintedAperturePhotometry(shapes[i], **options), result)


def test_apertures_bring_their_own_positions(estimator, ccd):
    shapes = [CircularAperture(place, r) for place, r in zip(SOURCES, RADII, strict=True)]
    options = {'estimator': estimator, 'aperture_correction': 'none', 'per_source': True}
    table = InpaintedAperturePhotometry(shapes, **options)(ccd)
    for shape, row in zip(shapes, table, strict=True):
        expected = aperture_photometry(ccd.data, shape)['aperture_sum'][0]
        assert_allclose(row['aperture_sum'].value, expected)
    on_sky = [
        SkyCircularAperture(ccd.wcs.pixel_to_world(*place), r * 1.6 * u.arcsec)
        for place, r in zip(SOURCES, RADII, strict=True)
    ]
    other = InpaintedAperturePhotometry(on_sky, **options)(ccd)
    assert_allclose(other['aperture_sum'].value, table['aperture_sum'].value, rtol=1e-3)


def test_each_source_is_measured_in_its_own_region(estimator, ccd):
    regions = [
        CirclePixelRegion(PixCoord(*SOURCES[0]), 5),
        EllipsePixelRegion(PixCoord(*SOURCES[2]), 14, 8, angle=30 * u.deg).to_sky(ccd.wcs),
    ]
    photometry = InpaintedAperturePhotometry(
        'regions', estimator=estimator, aperture_correction='none'
    )
    table = photometry(ccd, regions)
    expected = [
        CircularAperture(SOURCES[0], 5),
        EllipticalAperture(SOURCES[2], 7, 4, theta=30 * u.deg),
    ]
    for shape, row in zip(expected, table, strict=True):
        assert_allclose(
            row['aperture_sum'].value,
            aperture_photometry(ccd.data, shape)['aperture_sum'][0],
            rtol=1e-4,
        )
    assert table.meta['apertures'] == ['regions']


def test_sources_off_the_map_are_rows_of_nan(estimator, ccd):
    table = InpaintedAperturePhotometry(
        [3.0, 4.0], per_source=True, estimator=estimator, aperture_correction='none'
    )(ccd, [SOURCES[2], (-500, 10)])
    assert np.isfinite(table['flux'][0])
    for name in ('flux', 'flux_err', 'aperture_sum', 'aperture_sum_err', 'background_sum'):
        assert np.isnan(table[name][1])


def test_corrections_are_those_of_each_radius(ccd, make_estimator):
    blue = make_estimator(instrument='pacs-scanmap-blue')
    result = blue.estimate(ccd, SOURCES)
    radii = [4, 5, 6, 5, 4] * u.arcsec
    table = InpaintedAperturePhotometry(list(radii), per_source=True, estimator=blue)(result)
    for i, radius in enumerate(radii):
        alone = InpaintedAperturePhotometry(radius, estimator=blue)(result)
        assert_allclose(table['flux'][i], alone['flux'][i])


@pytest.mark.parametrize(
    ('shapes', 'sources', 'sentence'),
    [
        ([3.0, 4.0], SOURCES, 'apertures must be one for each of the 5 sources, got 2'),
        (
            'regions',
            SOURCES,
            'needs a region with an area for each source; that with id 1 has none',
        ),
        (
            'regions',
            [CirclePixelRegion(PixCoord(*SOURCES[0]), 5), PointPixelRegion(PixCoord(9, 9))],
            'that with id 2 has none',
        ),
    ],
)
def test_apertures_that_do_not_fit_the_sources_are_refused(
    estimator, ccd, shapes, sources, sentence
):
    photometry = InpaintedAperturePhotometry(
        shapes, per_source=shapes != 'regions', estimator=estimator, aperture_correction='none'
    )
    with pytest.raises(ValueError, match=sentence):
        photometry(ccd, sources)


def test_no_sources_are_no_rows(estimator, ccd):
    options = {'estimator': estimator, 'aperture_correction': 'none'}
    for photometry in (
        InpaintedAperturePhotometry('regions', **options),
        InpaintedAperturePhotometry([3.0], **options),
    ):
        table = photometry(ccd, np.empty((0, 2)))
        assert_array_equal(len(table), 0)
