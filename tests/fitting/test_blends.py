"""Sources closer than half the FWHM, against least squares of two PSFs."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from csr_astro.fitting import FitOptions, fit_sources, pixel_psf
from csr_astro.images import parse_image
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import gaussian_profile

FWHM, SIZE = 3.5, 48
PROFILE = gaussian_profile(FWHM)
PSF = pixel_psf(PROFILE)


def pair(separation, flux, rng):
    """A map with two stars, and their positions."""
    angle, center = rng.uniform(0, 2 * np.pi), 24 + rng.uniform(-0.5, 0.5, 2)
    x = center[0] + separation * FWHM * np.cos(angle) * np.array([0, 1])
    y = center[1] + separation * FWHM * np.sin(angle) * np.array([0, 1])
    return inject_sources(rng.normal(0, 1, (SIZE, SIZE)), x, y, np.array(flux), PROFILE), x, y


def two_psfs(data, x, y, flux):
    """Fluxes and their errors by least squares of two PSFs and a constant, from the truth on."""
    axis, near = np.arange(SIZE), np.hypot(*(np.indices(data.shape) - 24.0)) < 10

    def residual(p):
        stars = (f * PSF.evaluate(axis - a, axis - b) for f, a, b in (p[:3], p[3:6]))
        return (data - sum(stars) - p[6])[near]

    start = [flux[0], x[0], y[0], flux[1], x[1], y[1], 0]
    found = least_squares(residual, start, x_scale=[flux[0], 1, 1, flux[1], 1, 1, 1])
    errors = np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))
    return found.x[[0, 3]], errors[[0, 3]]


@pytest.mark.parametrize(
    ('separation', 'flux'),
    [(0.3, (3e4, 3e4)), (0.3, (3e4, 9e3)), (0.4, (3e3, 3e3)), (0.45, (3e4, 3e3))],
)
def test_bright_pairs_are_those_of_least_squares(separation, flux):
    """A constant background and a PSF that is known, but for the noise of the background."""
    rng = np.random.default_rng(3)
    options = FitOptions(position_error=0.5, width_error=0, profile_error=0)
    for _ in range(3):
        data, x, y = pair(separation, flux, rng)
        start = x + rng.normal(0, 0.1, 2), y + rng.normal(0, 0.1, 2)
        fits = fit_sources(parse_image(data), *start, PSF, options=options)
        expected, errors = two_psfs(data, x, y, flux)
        assert (np.abs(fits.flux - expected) < 0.4 * errors).all()
        assert (np.abs(fits.flux_err / errors - 1) < 0.2).all()
        assert not fits.ambiguous.any()


@pytest.mark.parametrize('separation', [0.05, 0.15])
@pytest.mark.parametrize('flux', [(3e4, 3e4), (3e4, 9e3), (1e3, 1e3)])
def test_pairs_that_cannot_be_told_apart_have_honest_errors(separation, flux):
    rng = np.random.default_rng(4)
    ambiguous, pulls = [], []
    for _ in range(10):
        data, x, y = pair(separation, flux, rng)
        start = (place + rng.normal(0, 0.1 * FWHM, 2) for place in (x, y))
        fits = fit_sources(parse_image(data), *start, PSF)
        # Their sum is known well.
        assert abs(fits.flux.sum() / sum(flux) - 1) < 0.02
        assert (fits.flux > -0.2 * sum(flux)).all()
        ambiguous.append(fits.ambiguous.any())
        pulls.append((fits.flux - flux) / fits.flux_err)
    assert np.sqrt(np.mean(np.square(pulls))) < 1.5
    if separation < 0.1:
        assert np.all(ambiguous)


def test_group_of_bright_stars_converges():
    rng = np.random.default_rng(5)
    angle = np.arange(5) * 2 * np.pi / 5
    x, y = 24.2 + 0.35 * FWHM * np.cos(angle), 23.7 + 0.35 * FWHM * np.sin(angle)
    flux = np.array([3e4, 2e4, 1e4, 3e4, 5e3])
    data = inject_sources(rng.normal(0, 1, (SIZE, SIZE)), x, y, flux, PROFILE)
    start = (place + rng.normal(0, 0.1 * FWHM, 5) for place in (x, y))
    fits = fit_sources(parse_image(data), *start, PSF)
    assert abs(fits.flux.sum() / flux.sum() - 1) < 0.01
    assert (np.abs(fits.flux - flux) < 3 * fits.flux_err).all()
    assert (fits.flux > 0).all()
