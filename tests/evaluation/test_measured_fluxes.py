"""Fluxes by aperture and by fit, side by side."""

import numpy as np
import pytest
from astropy import units as u
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro import InpaintedAperturePhotometry, InpaintedPSFPhotometry, NeuralBackgroundEstimator
from csr_astro.evaluation.measured_fluxes import measured_fluxes, summarize_agreement
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import moffat_profile

MOFFAT = moffat_profile(3.4, 2.5)
PLACES = np.array([(40.2, 50.6), (90.4, 60.1), (60.5, 110.7), (700.0, 3.0)])
FLUX = np.array([9000.0, 2e4, 60.0])


@pytest.fixture(scope='module')
def result():
    noise = np.random.default_rng(2).normal(10, 1, (150, 140))
    data = inject_sources(noise, *PLACES[:3].T, FLUX, MOFFAT) * u.Jy / u.pix
    estimator = NeuralBackgroundEstimator(fwhm=3.4, psf=MOFFAT, orientations=1)
    return estimator.estimate(data, PLACES)


def test_both_are_over_the_energy_of_the_psf(result):
    table = measured_fluxes(result, [4.0, 6.0])
    assert len(table) == 2 * len(result)
    bright = table[np.isin(table['id'], [1, 2])]
    truth = np.tile(FLUX[:2], 2) * u.Jy
    assert_allclose(bright['flux'] / truth, 1, atol=0.02)
    assert_allclose(bright['fit'] / truth, 1, atol=0.02)
    assert (np.abs(bright['ratio'] - 1) < 0.03).all()
    assert (table['ratio_err'][~np.isnan(table['ratio'])] > 0).all()
    assert np.isnan(table['ratio'][table['id'] == 4]).all()


def test_they_are_those_of_the_photometry(result):
    table = measured_fluxes(result, [5.0])
    fit = InpaintedPSFPhotometry(estimator=result.estimator)(result)
    assert_array_equal(table['fit'], fit['flux'])
    assert_array_equal(table['fit_err'], fit['flux_err'])
    plain = InpaintedAperturePhotometry(
        5.0, estimator=result.estimator, aperture_correction='none'
    )(result)
    known = np.isfinite(table['ratio'])
    inside = (plain['flux'] / table['flux'])[known].to_value('')
    assert_allclose(inside, inside[0])
    assert 0.7 < inside[0] < 0.95


def test_faint_sources_are_no_part_of_the_summary(result):
    table = measured_fluxes(result, [4.0, 6.0])
    summary = summarize_agreement(table)
    assert list(summary['aperture']) == [4, 6]
    assert list(summary['n']) == [2, 2]
    assert_allclose(summary['ratio'], 1, atol=0.03)
    assert np.isnan(summarize_agreement(table[:0])['ratio']).all()
