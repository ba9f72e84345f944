"""Fluxes in the units of maps."""

import numpy as np
import pytest
from astropy import units as u

from csr_astro.images import parse_image
from csr_astro.simulation.field import tangent_wcs
from csr_astro.simulation.psf import (
    gaussian_profile,
)
from csr_astro.simulation.simulate import simulate_map
from csr_astro.simulation.units import map_units_per_millijansky


@pytest.mark.parametrize(
    ('unit', 'factor'),
    [
        (None, 1),
        (u.Jy / u.pix, 1e-3),
        (u.mJy / u.pix, 1),
        (u.Jy, 1e-3),
        (u.MJy / u.sr, 1e-9 / (1.6 / 206264.806) ** 2),
        (u.Jy / u.beam, 1e-3 * np.pi / (4 * np.log(2)) * 3.5**2),
    ],
)
def test_fluxes_are_converted(unit, factor):
    values = np.zeros((200, 200))
    image = parse_image(values if unit is None else values * unit, wcs=tangent_wcs((200, 200), 1.6))
    assert map_units_per_millijansky(image, 3.5) == pytest.approx(factor, rel=1e-6)
    simulation = simulate_map(image, 400, gaussian_profile(3.5), instrument='generic', number=2)
    added = u.Quantity(simulation.data - simulation.truth).value.sum()
    assert added == pytest.approx(2 * 400 * factor, rel=1e-4)
