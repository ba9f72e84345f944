"""Ellipses and rectangles on the sky, against the closed form in all orientations of a map."""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData
from astropy.wcs import WCS
from numpy.testing import assert_allclose
from photutils.aperture import (
    SkyEllipticalAnnulus,
    SkyEllipticalAperture,
    SkyRectangularAnnulus,
    SkyRectangularAperture,
)
from regions import EllipseSkyRegion, PixCoord, RectangleSkyRegion

from csr_astro import InpaintedAperturePhotometry
from csr_astro.photometry.shapes import place_aperture
from csr_astro.sources import parse_sources
from csr_astro.utils.sky import local_axes

SHAPE = (101, 121)
#: Rotation of the map in degrees, and whether East is to the right of North.
ORIENTATIONS = [(turn, mirrored) for mirrored in (False, True) for turn in (0, 40, 135, 180, 270)]
PA = 35 * u.deg
SCALE = 2.0


def make_wcs(turn, mirrored, form='cd'):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval = 210.8, 54.35
    wcs.wcs.crpix = 61, 51
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    matrix = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([1 if mirrored else -1, 1])
    if form == 'cd':
        wcs.wcs.cd = matrix * SCALE / 3600
    else:
        wcs.wcs.pc, wcs.wcs.cdelt = matrix, (SCALE / 3600, SCALE / 3600)
    wcs.wcs.set()
    return wcs


def on_sky(wcs, x, y):
    """Offsets to the East and North of the centre in arcsec, by the tangential projection.

    Intermediate world coordinates are those offsets (Calabretta & Greisen 2002, Sect. 5.1.3).
    """
    matrix = wcs.pixel_scale_matrix * 3600
    return np.tensordot(matrix, np.stack([x - 60.0, y - 50.0]), axes=1)


def along_and_across(wcs, x, y):
    """Offsets along and across the position angle, from North through East."""
    east, north = on_sky(wcs, x, y)
    sine, cosine = np.sin(PA.to_value(u.rad)), np.cos(PA.to_value(u.rad))
    return east * sine + north * cosine, east * cosine - north * sine


def ellipse(wcs, a, b, x, y):
    along, across = along_and_across(wcs, x, y)
    return (along / a) ** 2 + (across / b) ** 2 <= 1


def rectangle(wcs, w, h, x, y):
    along, across = along_and_across(wcs, x, y)
    return (np.abs(along) <= w / 2) & (np.abs(across) <= h / 2)


YY, XX = np.mgrid[: SHAPE[0], : SHAPE[1]]
SIZES = 40 * u.arcsec, 16 * u.arcsec
APERTURES = {
    'ellipse': (
        lambda c: SkyEllipticalAperture(c, *SIZES, theta=PA),
        lambda w: ellipse(w, 40, 16, XX, YY),
    ),
    'rectangle': (
        lambda c: SkyRectangularAperture(c, *SIZES, theta=PA),
        lambda w: rectangle(w, 40, 16, XX, YY),
    ),
    'elliptical annulus': (
        lambda c: SkyEllipticalAnnulus(c, 20 * u.arcsec, SIZES[0], SIZES[1], theta=PA),
        lambda w: ellipse(w, 40, 16, XX, YY) & ~ellipse(w, 20, 8, XX, YY),
    ),
    'rectangular annulus': (
        lambda c: SkyRectangularAnnulus(c, 20 * u.arcsec, SIZES[0], SIZES[1], theta=PA),
        lambda w: rectangle(w, 40, 16, XX, YY) & ~rectangle(w, 20, 8, XX, YY),
    ),
}
REGIONS = {
    'ellipse': (EllipseSkyRegion, lambda w: ellipse(w, 40, 16, XX, YY)),
    'rectangle': (RectangleSkyRegion, lambda w: rectangle(w, 80, 32, XX, YY)),
}


def pixels(aperture):
    """Pixels whose centres are in the aperture, by the same inequality as the closed form."""
    drawn = aperture.to_mask(method='center')
    return (drawn[0] if isinstance(drawn, list) else drawn).to_image(SHAPE) > 0


@pytest.mark.parametrize('form', ['cd', 'pc'])
@pytest.mark.parametrize(('turn', 'mirrored'), ORIENTATIONS)
@pytest.mark.parametrize('kind', APERTURES)
def test_aperture_on_the_sky_has_the_pixels_of_the_closed_form(kind, turn, mirrored, form):
    wcs = make_wcs(turn, mirrored, form)
    make, inside = APERTURES[kind]
    aperture = make(wcs.pixel_to_world(60, 50))
    placed = place_aperture(
        aperture, np.array([60.0]), np.array([50.0]), wcs=wcs, scale=SCALE, shape=SHAPE
    )
    # Pixel centres on the rim fall to either side by rounding.
    assert (pixels(placed) != inside(wcs)).sum() <= 4
    assert inside(wcs).sum() > 60


@pytest.mark.parametrize(('turn', 'mirrored'), ORIENTATIONS)
@pytest.mark.parametrize('kind', REGIONS)
def test_region_on_the_sky_masks_the_pixels_of_the_closed_form(kind, turn, mirrored):
    wcs = make_wcs(turn, mirrored)
    make, inside = REGIONS[kind]
    # The angle of a region is from the West through the North, 90 degrees from that of an aperture.
    region = make(wcs.pixel_to_world(60, 50), 80 * u.arcsec, 32 * u.arcsec, angle=PA + 90 * u.deg)
    sources = parse_sources(region, wcs)
    drawn = sources.regions[0].contains(PixCoord(XX, YY))
    assert (drawn != inside(wcs)).sum() <= 4
    assert_allclose([sources.x[0], sources.y[0]], [60, 50], atol=1e-6)


@pytest.mark.parametrize(('turn', 'mirrored'), ORIENTATIONS)
@pytest.mark.parametrize('from_region', [False, True])
def test_flux_of_an_elongated_source_is_that_of_its_ellipse(
    make_estimator, turn, mirrored, from_region
):
    """An elliptical Gaussian along the position angle: 1 - exp(-k² / 2) is within k sigma."""
    wcs = make_wcs(turn, mirrored)
    along, across = along_and_across(wcs, XX, YY)
    source = np.exp(-0.5 * ((along / 10) ** 2 + (across / 4) ** 2))
    source *= 1000 / source.sum()
    center = wcs.pixel_to_world(60, 50)
    if from_region:
        shape = EllipseSkyRegion(center, 50 * u.arcsec, 20 * u.arcsec, angle=PA + 90 * u.deg)
    else:
        shape = SkyEllipticalAperture(center, 25 * u.arcsec, 10 * u.arcsec, theta=PA)
    photometry = InpaintedAperturePhotometry(
        shape, estimator=make_estimator('blank', fwhm=3.3), aperture_correction='none'
    )
    table = photometry(CCDData(source, unit='Jy/pixel', wcs=wcs), center, mask_radius=16)
    total = u.Quantity(table['aperture_sum']).value[0]
    # Along the other diagonal less than half of it would be in the ellipse.
    assert_allclose(total, 1000 * (1 - np.exp(-(2.5**2) / 2)), rtol=2e-3)


def test_axes_are_those_of_the_matrix():
    for turn, mirrored in ORIENTATIONS:
        wcs = make_wcs(turn, mirrored)
        expected = np.linalg.inv(wcs.pixel_scale_matrix * 3600)
        assert_allclose(local_axes(wcs, 60, 50)[0], expected, atol=1e-8)
        assert np.isnan(local_axes(wcs, np.nan, 50)).all()


@pytest.mark.parametrize('mirrored', [False, True])
def test_aperture_off_the_sky_takes_the_north_of_the_centre(mirrored):
    from astropy.coordinates import SkyCoord

    wcs = make_wcs(40, mirrored)
    there = {'wcs': wcs, 'scale': SCALE, 'shape': SHAPE}
    where = np.array([60.0]), np.array([50.0])
    here = APERTURES['ellipse'][0](wcs.pixel_to_world(60, 50))
    nowhere = APERTURES['ellipse'][0](SkyCoord(np.nan, np.nan, unit='deg'))
    found, expected = (place_aperture(each, *where, **there) for each in (nowhere, here))
    assert_allclose(pixels(found), pixels(expected))
