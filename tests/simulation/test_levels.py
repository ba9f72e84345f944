"""Fluxes of given signal-to-noise ratios."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from csr_astro.images import parse_image
from csr_astro.instruments import get_instrument
from csr_astro.masking import measure_snr
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.levels import flux_of_snr, ring_deviations
from csr_astro.simulation.psf import gaussian_profile

PROFILE, BEAM = gaussian_profile(3.5), get_instrument()


def test_sources_have_the_snr_that_their_flux_is_made_for():
    noise = np.random.default_rng(0).normal(7, 0.5, (200, 200))
    places = np.array([50.0, 100.0, 150.0])
    deviations = ring_deviations(parse_image(noise), places, places, BEAM)
    assert_allclose(deviations, 0.5, rtol=0.1)
    flux = flux_of_snr(200, deviations, PROFILE)
    image = inject_sources(noise, places, places, np.full(3, flux), PROFILE)
    assert_allclose(measure_snr(parse_image(image), places, places, BEAM), 200, rtol=0.15)


def test_rings_without_two_pixels_are_left_out():
    image = np.full((200, 200), np.nan)
    image[:, :100] = np.random.default_rng(0).normal(size=(200, 100))
    found = ring_deviations(parse_image(image), np.array([40.0, 170.0]), np.array([90.0, 90]), BEAM)
    assert len(found) == 1


@pytest.mark.parametrize('deviations', [[], [0.0, 0.0]])
def test_maps_without_scatter_are_refused(deviations):
    with pytest.raises(ValueError, match='the map does not scatter'):
        flux_of_snr(10, np.array(deviations), PROFILE)
