"""The PSF of a map from its own stars."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from csr_astro.fitting import build_psf, fit_sources, pixel_psf
from csr_astro.images import parse_image
from csr_astro.simulation.diffuse import power_law_field
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import gaussian_profile, moffat_profile

AXIS = np.arange(-5, 5.001, 0.05)


def width(psf):
    """FWHM in pixels of the circle with the area above half the maximum."""
    values = pixel_psf(psf).evaluate(AXIS, AXIS)
    return 2 * np.sqrt((values > values.max() / 2).sum() * 0.05**2 / np.pi)


def field(profile, *, n=25, seed=0, size=240):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(20, size - 20, (2, n))
    background = 100 + 3 * power_law_field((size, size), -3, rng) + rng.normal(size=(size, size))
    return inject_sources(background, x, y, 10 ** rng.uniform(3.7, 4.3, n), profile), x, y


@pytest.mark.parametrize('fwhm', [2.5, 5.0])
@pytest.mark.parametrize('kind', ['gaussian', 'moffat'])
def test_width_is_recovered(fwhm, kind):
    profile = gaussian_profile(fwhm) if kind == 'gaussian' else moffat_profile(fwhm, 3)
    data, x, y = field(profile, size=int(70 * fwhm))
    rng = np.random.default_rng(1)
    start = np.column_stack([x, y]) + rng.normal(0, 0.2, (len(x), 2))
    psf = build_psf(data, start, fwhm=1.15 * fwhm)
    assert_allclose(width(psf), width(profile), rtol=0.02)
    assert_allclose(psf.data.sum() / np.prod(psf.oversampling), 1)


def test_fluxes_by_the_psf_of_the_map_are_right():
    profile = moffat_profile(3.5, 3)
    data, x, y = field(profile)
    positions = np.column_stack([x, y])
    psf = pixel_psf(build_psf(data, positions, fwhm=3.5, size=31))
    fluxes, expected = (
        fit_sources(parse_image(data), x, y, each).flux for each in (psf, pixel_psf(profile))
    )
    assert_allclose(np.median(fluxes / expected), 1, atol=0.02)


def test_bad_stars_are_not_used():
    profile = gaussian_profile(3.5)
    data, x, y = field(profile)
    positions = np.column_stack([x, y])
    expected = build_psf(data, positions, fwhm=3.5)
    more = inject_sources(data, [2.0, 150], [150.0, 2], [9000.0, 9000], profile)
    bad = [*positions, (2, 150), (150, 2), (np.nan, 4), (-30, 20)]
    assert_allclose(width(build_psf(more, bad, fwhm=3.5)), width(expected), rtol=0.01)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ({'fwhm': 0}, 'fwhm must be a positive number'),
        ({'fwhm': 3, 'size': 8}, 'size must be an odd number'),
        ({'fwhm': 3, 'oversampling': 0}, 'oversampling must be a positive integer'),
        ({'fwhm': 3}, 'no star can be used'),
    ],
)
def test_wrong_arguments_get_one_sentence(arguments, sentence):
    noise = np.random.default_rng(0).normal(size=(60, 60))
    with pytest.raises(ValueError, match=sentence):
        build_psf(noise, [(1, 1)], **arguments)
