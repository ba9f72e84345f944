"""Errors behind injected sources."""

import numpy as np
import pytest
from astropy.table import Table
from helpers_evaluation import Oracle
from numpy.testing import assert_allclose

from csr_astro import get_instrument
from csr_astro.evaluation.baselines import get_baselines
from csr_astro.evaluation.injected import injected_errors, snr_levels
from csr_astro.evaluation.positions import (
    draw_positions,
)
from csr_astro.evaluation.statistics import (
    bright_bias,
    flux_ratios,
)
from csr_astro.simulation.psf import encircled_energy, gaussian_profile, moffat_profile


def test_injected_flux_is_recovered_by_who_knows_the_background(groups):
    truth = groups['second'][0]

    positions = Table({
        'group': ['second'], 'map': [0], 'radius': [9.0], 'x': [80.25], 'y': [70.0],
    })  # fmt: skip
    profile = gaussian_profile(3.5)
    errors = injected_errors(
        {'second': [truth]}, positions, {'known': Oracle(truth)}, profile, flux_levels=[50.0, 5e4]
    )
    assert_allclose(errors['known'], 0, atol=1e-6)
    fraction = errors['flux_aperture'] / errors['flux']
    assert_allclose(fraction, encircled_energy(profile, 4), rtol=0.01)
    table = flux_ratios(errors)
    assert_allclose(table[table['method'] == 'known']['ratio'], 1, atol=1e-6)
    instrument = get_instrument('generic')
    assert errors['snr'][1] > 300 > errors['snr'][0]
    assert errors['radius'][1] == instrument.mask_radii[0] > errors['radius'][0]


def test_annulus_of_the_instrument_is_compared(groups):
    positions = draw_positions({'second': groups['second']}, [9], 6, seed=5)
    errors = injected_errors(
        groups, positions, get_baselines(['plane']), gaussian_profile(3.5), levels=(20, 300)
    )
    assert {'plane', 'annulus'} <= set(errors.colnames)
    table = flux_ratios(errors)
    assert len(table) == 2 * 2
    # The fainter the source, the more the background counts.
    iqr = [table[table['method'] == 'annulus']['iqr'][i] for i in (0, 1)]
    assert iqr[0] > 5 * iqr[1]


def test_levels_are_snrs():
    image = np.random.default_rng(2).normal(3, 0.5, (200, 200))
    profile = gaussian_profile(3.5)
    positions = draw_positions({'noise': [image]}, [9], 30)
    flux = snr_levels([image], positions, profile, get_instrument('generic'), [10, 100])
    assert_allclose(flux[1] / flux[0], 10)
    peak = flux[0] * gaussian_profile(3.5)(0.0, 0.0) * 4 * np.log(2) / (np.pi * 3.5**2)
    # Averaging over the central pixel lowers the peak a little.
    assert_allclose(peak, 10 * 0.5, rtol=0.1)
    with pytest.raises(ValueError, match='does not scatter'):
        snr_levels([np.ones((200, 200))], positions, profile, get_instrument('generic'), [10])


def test_wings_outside_the_mask_bias_who_sees_only_the_rim():
    rng = np.random.default_rng(1)
    groups = {'noise': [rng.normal(0, 1, (300, 300))]}
    positions = draw_positions(groups, [12], 12)
    errors = injected_errors(
        groups, positions, get_baselines(['annulus_median']), moffat_profile(3.5, 1.8),
        levels=(20, 2000),
    )  # fmt: skip
    table = bright_bias(errors)
    rim, annulus = (table[table['method'] == m][0] for m in ('annulus_median', 'annulus'))
    for row in (rim, annulus):
        assert row['bias'] > 5 * row['bias_err']
    assert rim['n'] == 12
    assert len(bright_bias(errors, snr=1e9)) == 0


def test_wide_annulus_fits_into_the_window(groups):
    positions = draw_positions({'second': groups['second']}, [9], 1, seed=5)
    errors = injected_errors(
        groups, positions, {}, gaussian_profile(11), instrument=get_instrument(fwhm=11.0),
        levels=(20,),
    )  # fmt: skip
    assert np.isfinite(errors['annulus']).all()
