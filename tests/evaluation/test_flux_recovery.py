"""Ratios of measured to injected flux."""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData
from astropy.table import QTable
from numpy.testing import assert_allclose
from photutils.aperture import CircularAperture

from csr_astro import NeuralBackgroundEstimator, get_instrument
from csr_astro.evaluation.flux_recovery import (
    default_apertures,
    flux_levels_of,
    recovered_fluxes,
    summarize_recovery,
)
from csr_astro.simulation.field import synthetic_map
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import instrument_profile

FWHM = 3.5


def test_recovered_fluxes_are_those_of_the_photometry(simulation):
    _, result, catalog = simulation
    table = recovered_fluxes(result, catalog['flux'], [4.0, 6.0])
    assert len(table) == 2 * len(result)
    fraction = 1 - np.exp(-4 * np.log(2) * (4.0 / FWHM) ** 2)
    source = np.asarray(result.source_image)
    for i in (0, 7):
        at = result.sources['x_center'][i], result.sources['y_center'][i]
        total = CircularAperture(at, 4.0).do_photometry(source)[0][0]
        expected = total / fraction / catalog['flux'][i]
        assert_allclose(table['network'][i], expected, rtol=1e-6)
    bright = table[(table['snr'] > 50) & (table['aperture'] == 4)]
    assert_allclose(np.median(bright['network']), 1, atol=0.05)
    assert (table['network_err'][:40] > 0).all()


def test_other_methods_see_the_same_pixels(simulation):
    truth, result, catalog = simulation

    def constant(values, valid, hole, x, y, radius):
        del x, y, radius
        assert np.isnan(values[hole]).all()
        assert not (valid & hole).any()
        return np.full(hole.sum(), 12.0)

    table = recovered_fluxes(result, catalog['flux'], [4.0], methods={'constant': constant})
    i = int(np.argmax(catalog['flux']))
    data = np.asarray(result.image.data)
    aperture = CircularAperture((catalog['x'][i], catalog['y'][i]), 4.0)
    fraction = 1 - np.exp(-4 * np.log(2) * (4.0 / FWHM) ** 2)
    expected = aperture.do_photometry(data - 12.0)[0][0] / catalog['flux'][i] / fraction
    assert_allclose(table['constant'][i], expected, rtol=1e-9)
    assert np.isfinite(truth).all()


def test_flux_in_jansky_is_turned_into_the_unit_of_the_map():
    field = synthetic_map('flat', (160, 160), 1, level=5e-3, scatter=0, noise=1e-5, pixel_scale=1.6)
    band = get_instrument('pacs-scanmap-blue')
    data = inject_sources(
        np.asarray(field.data), [80], [80], [0.5], instrument_profile(band.on_pixels(1.6))
    )
    ccd = CCDData(data, unit=field.unit, wcs=field.wcs)
    result = NeuralBackgroundEstimator(instrument=band, orientations=1).estimate(ccd, [(80, 80)])
    table = recovered_fluxes(result, [500] * u.mJy)
    assert_allclose(table['flux'], 0.5, rtol=1e-9)
    assert_allclose(table['network'][2], 1, atol=0.02)
    assert_allclose(table['annulus'][2], 1, atol=0.02)
    with pytest.raises(ValueError, match='one for each of 1 sources'):
        recovered_fluxes(result, [1, 2] * u.mJy)
    with pytest.raises(ValueError, match='must be in Jy'):
        recovered_fluxes(result, [1] * u.s)


def test_default_apertures_follow_the_instrument():
    blue = get_instrument('pacs-scanmap-blue')
    assert_allclose(np.multiply(default_apertures(blue), 1.6), [4, 6, 8, 10, 12, 15, 18])
    assert default_apertures(get_instrument('generic', 4.0))[0] == 3


def test_summary_is_median_and_quartiles_by_level():
    table = QTable({'snr': np.ones(60), 'radius': np.ones(60), 'aperture': np.full(60, 4.0)})
    table['flux'] = np.repeat([1.0, 2.0, 3.0], 20)
    table['network'] = np.random.default_rng(1).normal(1, 0.1, 60)
    table['network'][:5] = np.nan
    summary = summarize_recovery(table)
    assert list(summary['n']) == [15, 20, 20]
    middle = np.asarray(table['network'][20:40])
    assert summary['ratio'][1] == np.median(middle)
    assert_allclose(summary['iqr'][1], np.subtract(*np.percentile(middle, [75, 25])))
    assert 0 < summary['ratio_err'][1] < 0.1


def test_many_fluxes_are_put_into_levels():
    flux = np.geomspace(1, 1000, 50)
    levels = flux_levels_of(flux)
    assert len(np.unique(levels)) == 8
    assert (np.diff(levels) >= 0).all()
