"""All measurements in one go."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from csr_astro import get_instrument
from csr_astro.evaluation.accuracy import evaluate_accuracy, get_methods
from csr_astro.evaluation.positions import (
    blank_positions,
    read_groups,
)
from csr_astro.simulation.psf import moffat_profile


def test_real_maps_are_measured(shared_data):
    folder = shared_data / 'data' / 'maps' / 'validation'
    groups = read_groups([folder / 'higal250_tile01.fits'])
    places = blank_positions(groups['higal250'], 30, 9, 1)
    assert len(places) == 30
    tables = evaluate_accuracy(
        groups, get_methods(['lpi', 'annulus_median']), n=30, radii=[9.0]
    )
    row = tables['blank_ratios'][0]
    assert (row['method'], row['reference'], row['n']) == ('lpi', 'annulus_median', 30)
    assert 0 < row['rms_ratio'] < 1.2


def test_pacs_psf_is_injected(shared_data, groups):
    psf = shared_data / 'data' / 'psf' / 'pacs70_vesta.fits'
    tables = evaluate_accuracy(
        {'second': groups['second']}, get_methods(['plane']), n=3, radii=[9.0], inject=True,
        psf=psf, instrument='pacs-scanmap-blue', levels=(60,), apertures=(3.0, 5.0),
    )  # fmt: skip
    errors = tables['injected_errors']
    fraction = np.array(errors['flux_aperture'] / errors['flux'])
    band = get_instrument('pacs-scanmap-blue')
    # The image ends at 18 arcsec, so that its sum is that of fewer wings; and the map's pixels
    # are wider than its own.
    expected = band.enclosed_energy([3, 5], 'vesta') / band.enclosed_energy(18 / 1.6, 'vesta')
    assert_allclose(fraction.reshape(3, 2), np.broadcast_to(expected, (3, 2)), rtol=0.05)


@pytest.mark.parametrize(
    ('options', 'known'),
    [
        ({'psf': moffat_profile(3.3, 2.5)}, True),
        ({'instrument': 'pacs-scanmap-blue'}, True),
        ({}, False),
    ],
)
def test_estimators_know_the_psf_of_injected_sources(options, known):
    given = []

    class Estimator:
        def replace(self, **changes):
            given.append(changes['psf'])
            return self

        def estimate(self, image, positions, mask_radius):
            del mask_radius
            return SimpleNamespace(background=image, flags=np.zeros(len(positions), dtype=int))

    groups = {'noise': [np.random.default_rng(0).normal(size=(160, 160))]}
    tables = evaluate_accuracy(
        groups, {'stub': Estimator()}, n=2, radii=[5], inject=True, levels=[20], **options
    )
    assert len(given) == known
    assert len(tables['injected_errors']) == 2
    if known:
        assert given[0](np.zeros(1), np.zeros(1)) > 0
