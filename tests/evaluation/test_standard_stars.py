"""Standard stars."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from numpy.testing import assert_allclose

from csr_astro.evaluation.standard_stars import find_stars, measure_stars, standard_stars
from csr_astro.images import parse_image
from csr_astro.simulation.field import tangent_wcs


def test_table_of_standard_stars_is_the_papers(shared_data):
    stars = standard_stars()
    reference = Table.read(shared_data / 'reference' / 'standard_stars.csv', format='ascii.csv')
    assert len(stars) == len(reference) == 19
    for band in ('70', '100', '160'):
        for column in ('ref', 'ref_err', 'paper'):
            ours = stars[f'{column}_{band}'].value
            theirs = np.ma.filled(reference[f'{column}_{band}_mjy'].astype(float), np.nan)
            assert_allclose(ours, theirs)
    assert_allclose(stars['sky_center'].ra.deg, reference['ra_deg'])


def test_stars_are_found_on_valid_pixels_only():
    wcs = tangent_wcs((60, 60), 10.0, center=(269.152, 51.489))
    data = np.zeros((60, 60))
    assert list(find_stars(parse_image(data, wcs=wcs))['name']) == ['gamma Dra']
    data[25:35, 25:35] = np.nan
    assert not len(find_stars(parse_image(data, wcs=wcs)))
    assert not len(find_stars(parse_image(data)))


def test_gamma_draconis_has_the_flux_of_the_paper(shared_data):
    """As in the paper's Table 5, whose own ratios are 1.000, 1.002 and 1.004."""
    paths = sorted((shared_data / 'data' / 'pacs_gamma_dra').glob('*.fits'))
    table = measure_stars(paths, apertures=[10, 12] * u.arcsec)
    assert len(table) == 8
    assert set(table['name']) == {'gamma Dra'}
    assert set(table['wavelength'].value) == {70, 100, 160}
    assert_allclose(table['ratio'], 1, atol=0.04)
    assert_allclose(table['annulus_ratio'], 1, atol=0.04)
    assert_allclose(table['ratio'], (table['flux'] / table['reference']).value)
    assert (table['ratio_err'] > 0.001).all()
    assert (np.abs(table['ratio'] - 1) < 4 * table['ratio_err']).all()


def test_maps_that_cannot_be_measured_are_refused(tmp_path):
    path = tmp_path / 'map.fits'
    header = tangent_wcs((60, 60), 1.6, center=(269.152, 51.489)).to_header()
    data = np.random.default_rng(1).normal(size=(60, 60))
    fits.writeto(path, data, header)
    with pytest.raises(ValueError, match='tells no band of PACS'):
        measure_stars(path)
    with pytest.raises(ValueError, match='flux per pixel'):
        measure_stars(path, instrument='pacs-scanmap-blue')
    assert len(measure_stars([])) == 0


def test_coordinates_of_the_table_are_on_the_sky():
    assert isinstance(standard_stars()['sky_center'], SkyCoord)
