"""Synthetic maps."""

import numpy as np
import pytest
from astropy import units as u
from numpy.testing import assert_array_equal

from csr_astro.simulation.diffuse import (
    lognormal_field,
)
from csr_astro.simulation.field import FIELDS, synthetic_map


@pytest.mark.parametrize('kind', FIELDS)
def test_synthetic_maps_have_unit_and_place(kind):
    image = synthetic_map(kind, (40, 64), 3, faint=0.2, gradient=0.5, noise_kind='striped')
    assert image.shape == (40, 64)
    assert image.unit == u.Jy / u.pix
    assert image.pixel_scale == pytest.approx(1.6, rel=1e-6)
    assert image.data.mean() == pytest.approx(5e-3, rel=0.5)
    assert_array_equal(
        image.data,
        synthetic_map(kind, (40, 64), 3, faint=0.2, gradient=0.5, noise_kind='striped').data,
    )


def test_synthetic_map_can_be_like_a_real_one():
    real = lognormal_field((80, 80), -3, 0.5, 1) * u.MJy / u.sr
    image = synthetic_map(real, (64, 64), 2, gaps=True)
    assert image.unit == u.MJy / u.sr
    assert np.isnan(image.data).any()
    assert np.nanmax(image.data) <= real.value.max()


@pytest.mark.parametrize(
    ('kind', 'shape', 'options', 'sentence'),
    [
        ('cirrus', (64, 64), {}, 'kind must be one of'),
        ('power-law', (64, 64), {'width': 3}, "kind 'power-law' has no width"),
        ('flat', (64,), {}, r'shape must be \(ny, nx\)'),
        ('flat', (8, 64), {}, 'at least 16 x 16 pixels'),
        ('flat', (64, 64), {'noise': -1}, 'must not be negative'),
        ('flat', (64, 64), {'noise_kind': 'pink'}, 'noise_kind must be one of'),
        (np.ones((64, 64)), (64, 64), {'slope': -3}, 'a matched field has no'),
    ],
)
def test_impossible_fields_are_refused(kind, shape, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        synthetic_map(kind, shape, 0, **options)
