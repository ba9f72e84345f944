"""The finder: its protocol, what it finds, and what it is not fooled by."""

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import QTable
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from photutils.detection import DAOStarFinder
from photutils.psf import CircularGaussianPRF, IterativePSFPhotometry, PSFPhotometry
from photutils.utils.exceptions import NoDetectionsWarning
from scipy import ndimage

from csr_astro import NeuralBackgroundEstimator, NeuralSourceFinder
from csr_astro.flags import decode_flags
from csr_astro.simulation.diffuse import power_law_field
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import gaussian_profile

BEAM = 3.4
PROFILE = gaussian_profile(BEAM)
SHAPE = (110, 120)
X, Y = np.array([30.2, 80.7, 60.4]), np.array([25.6, 40.1, 85.3])


def noise(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).normal(10, 1, shape)


def stars(data=None, x=X, y=Y, flux=200.0):
    data = noise() if data is None else data
    return inject_sources(data, x, y, np.broadcast_to(flux, np.shape(x)), PROFILE)


@pytest.fixture
def make_finder(make_estimator):
    def make(threshold=5.0, **options):
        return NeuralSourceFinder(make_estimator(fwhm=BEAM), threshold, **options)

    return make


@pytest.fixture
def finder(make_finder):
    return make_finder()


def positions(table):
    return np.column_stack([table[table.colnames[1]], table[table.colnames[2]]])


def assert_found(table, x=X, y=Y, within=0.5):
    found, expected = positions(table), np.column_stack([x, y])
    assert len(found) == len(expected)
    distance = np.hypot(*(found[:, np.newaxis] - expected).T)
    assert (distance.min(axis=1) < within).all()
    assert (distance.min(axis=0) < within).all()


# ---------------------------------------------------------------------------------- the protocol


def test_columns_are_called_as_in_photutils(finder):
    table = finder(stars())
    names = DAOStarFinder(5.0, BEAM)(stars()).colnames
    assert table.colnames[:3] == names[:3]
    assert isinstance(table, QTable)
    assert_array_equal(table['id'], [1, 2, 3])
    assert_found(table)
    assert_allclose(table['flux'], 200, atol=60)
    assert (np.abs(table['flux'] - 200) < 4 * table['flux_err']).all()
    assert (np.diff(table['snr']) <= 0).all()


def test_finder_of_photometry_with_photutils(finder):
    model = CircularGaussianPRF(fwhm=BEAM)
    photometry = PSFPhotometry(model, 9, finder=finder, aperture_radius=4)
    table = photometry(stars() - 10)
    assert_allclose(np.sort(table['x_fit']), np.sort(X), atol=0.3)


def test_finder_of_iterative_photometry_with_photutils(finder):
    model = CircularGaussianPRF(fwhm=BEAM)
    photometry = IterativePSFPhotometry(model, 9, finder=finder, aperture_radius=4)
    table = photometry((stars() - 10) * u.Jy)
    assert_allclose(np.sort(table['x_fit']), np.sort(X), atol=0.3)


@pytest.mark.parametrize('method', ['__call__', 'find_stars'])
def test_none_and_a_warning_if_nothing_is_found(finder, method):
    with pytest.warns(NoDetectionsWarning, match='No sources were found'):
        assert getattr(finder, method)(noise()) is None


def test_empty_table_has_all_columns(finder):
    empty, full = finder.table(noise()), finder.table(stars())
    assert len(empty) == 0
    assert empty.colnames == full.colnames


def test_finder_is_described(finder):
    assert 'threshold=5' in repr(finder)
    assert 'threshold' in finder._repr_html_()


# --------------------------------------------------------------------------------- kinds of data


def test_units_and_sky():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.cdelt = -2 / 3600, 2 / 3600
    finder = NeuralSourceFinder(NeuralBackgroundEstimator(fwhm=2 * BEAM * u.arcsec))
    table = finder(CCDData(stars(), unit='Jy/pix', wcs=wcs))
    assert table['flux'].unit == table['flux_err'].unit == u.Jy
    assert table['peak'].unit == table['local_bkg'].unit == u.Jy / u.pix
    x, y = wcs.world_to_pixel(table['sky_centroid'])
    assert_allclose(np.column_stack([x, y]), positions(table), atol=1e-6)
    assert_found(table)
    table = finder(fits.PrimaryHDU(stars(), wcs.to_header()))
    assert_found(table)


def test_table_is_a_list_of_sources(finder, make_estimator):
    table = finder(stars())
    result = make_estimator(fwhm=BEAM).estimate(stars(), table)
    assert_allclose(result.sources['x_center'], positions(table)[:, 0])


def test_map_is_not_modified_and_units_of_numbers_do_not_matter(finder):
    data = stars().astype('>f4')
    data.flags.writeable = False
    expected = positions(finder(data))
    for factor in (1e-20, 1e12):
        assert_allclose(positions(finder(stars() * factor)), expected, atol=1e-3)


# -------------------------------------------------------------------------- what it is to find


@pytest.mark.parametrize('separation', [1.2, 1.5, 2.0])
def test_faint_neighbour_of_a_bright_source(finder, separation):
    x, y = [60.2, 60.2 + separation * BEAM], [50.7, 50.7]
    assert_found(finder(stars(x=x, y=y, flux=[3000.0, 600.0])), x, y)


def test_bright_source_has_no_sidelobes(finder):
    assert_found(finder(stars(flux=[1e6, 1e5, 1e4])), within=0.1)


def test_sources_at_edges_and_gaps(finder):
    x, y = np.array([0.4, 70.0, 60.0]), np.array([50.0, 108.8, 50.0])
    data = stars(x=x, y=y, flux=400.0)
    data[48:53, 62:70] = np.nan
    table = finder(data)
    assert_found(table, x, y, within=1)
    near = np.argmin(np.hypot(*(positions(table) - (60, 50)).T))
    assert 'invalid_pixels' in decode_flags(table['flags'][near])
    edge = np.argmin(np.hypot(*(positions(table) - (0.4, 50)).T))
    assert 'edge' in decode_flags(table['flags'][edge])


def test_source_on_a_gradient(finder):
    yy, xx = np.indices(SHAPE)
    assert_found(finder(stars(noise() + (xx / 6) ** 2 + yy)))


def test_larger_sources_on_request(make_finder):
    data = ndimage.gaussian_filter(np.where(np.indices(SHAPE).sum(axis=0) < 0, 0, 0.0), 1)
    data[50, 60] = 1500
    data = ndimage.gaussian_filter(data, 2 * BEAM / 2.3548) + noise()
    assert len(make_finder().table(data)) == 0
    table = make_finder(max_size=2.5).table(data)
    assert_found(table, [60], [50])
    assert_allclose(table['fwhm'], 2 * BEAM, rtol=0.2)


# ----------------------------------------------------------------------- what it is not fooled by


def fooling(kind):
    """Maps without a source."""
    rng = np.random.default_rng(3)
    yy, xx = np.indices(SHAPE)
    data = noise(3)
    if kind == 'hot pixels':
        data[[20, 50, 80], [30, 60, 90]] += [30, 100, 1000]
    elif kind == 'gap':
        data[40:60, 50:70] = np.nan
        data[:, 100] = np.nan
    elif kind == 'step':
        data += 30 * (xx > 60)
    elif kind == 'ridge':
        data += 15 * np.exp(-0.5 * ((xx - yy) / 2.5) ** 2)
    elif kind == 'clump':
        data += 15 * np.exp(-0.5 * ((xx - 60) ** 2 + (yy - 50) ** 2) / 6.0**2)
    elif kind == 'gradient':
        data += (xx / 4) ** 2
    elif kind == 'structure':
        data = 10 * power_law_field(SHAPE, -3, rng) + 0.3 * data
    elif kind == 'holes':
        data = stars(data, flux=-300.0)
    return data


@pytest.mark.parametrize(
    'kind',
    ['noise', 'hot pixels', 'gap', 'step', 'ridge', 'clump', 'gradient', 'structure', 'holes'],
)
def test_no_source_where_there_is_none(finder, kind):
    assert len(finder.table(fooling(kind))) == 0


@pytest.mark.parametrize('data', [np.full(SHAPE, np.nan), np.ones(SHAPE), np.zeros((3, 4))])
def test_no_source_in_an_empty_map(finder, data):
    assert len(finder.table(data)) == 0


def test_masked_source_is_not_found(finder):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[15:36, 20:41] = True
    assert_found(finder(stars(), mask=mask), X[1:], Y[1:])


def test_zeros_of_pacs_maps_are_blank(weights):
    finder = NeuralSourceFinder(
        NeuralBackgroundEstimator(weights, instrument='pacs-scanmap-blue', orientations=1)
    )
    data = noise() - 5
    data[:, 60:] = 0
    assert len(finder.table(data)) == 0


# ---------------------------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ('options', 'error', 'sentence'),
    [
        ({'threshold': 0}, ValueError, 'threshold must be a positive number, got 0'),
        ({'threshold': '5'}, ValueError, 'threshold must be a positive number'),
        ({'max_size': 0.5}, ValueError, 'max_size must be from 1 to 4, got 0.5'),
        ({'max_rounds': 0}, ValueError, 'max_rounds must be a positive integer, got 0'),
    ],
)
def test_wrong_arguments(make_finder, options, error, sentence):
    with pytest.raises(error, match=sentence):
        make_finder(**options)


def test_wrong_estimator():
    with pytest.raises(TypeError, match='estimator must be a NeuralBackgroundEstimator, got None'):
        NeuralSourceFinder(None)


@pytest.mark.parametrize(
    ('data', 'sentence'),
    [('map.fits', 'no such file'), (np.zeros(5), 'data must'), ([[1j]], 'data must')],
)
def test_wrong_data(finder, data, sentence):
    with pytest.raises((TypeError, ValueError, OSError), match=sentence):
        finder(data)
