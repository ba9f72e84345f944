"""Changes of the map, of the catalogue and of the size of the map that must not change results."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from csr_astro.fitting import FitOptions, fit_sources, pixel_psf, tiles
from csr_astro.images import parse_image
from csr_astro.simulation.diffuse import power_law_field
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import gaussian_profile

PROFILE = gaussian_profile(3.4)
PSF = pixel_psf(PROFILE)
X = np.array([40.3, 44.1, 90.2, 93.4, 30.7])
Y = np.array([35.8, 37.1, 88.9, 92.3, 101.4])
FLUX = np.array([900.0, 400.0, 3000.0, 600.0, 100.0])


def field(size=130):
    rng = np.random.default_rng(5)
    data = 20 + power_law_field((size, size), -3, rng) + rng.normal(0, 1, (size, size))
    return inject_sources(data, X, Y, FLUX, PROFILE)


DATA = field()
FITS = fit_sources(parse_image(DATA), X, Y, PSF)


def test_order_of_the_sources():
    order = np.array([3, 0, 4, 2, 1])
    fits = fit_sources(parse_image(DATA), X[order], Y[order], PSF)
    assert (fits.flux == FITS.flux[order]).all()
    assert (fits.flux_err == FITS.flux_err[order]).all()
    assert fits.group_id.tolist() == [1, 2, 3, 1, 2]
    assert (fits.group_size == FITS.group_size[order]).all()


@pytest.mark.parametrize('unit', [1e-20, 1e-3, 1e20])
def test_unit_of_the_map(unit):
    fits = fit_sources(parse_image(unit * DATA), X, Y, PSF)
    assert_allclose(fits.flux / unit, FITS.flux, rtol=1e-6)
    assert_allclose(fits.flux_err / unit, FITS.flux_err, rtol=1e-5)
    assert_allclose(fits.chi2, FITS.chi2, rtol=1e-5)


def test_constant_beneath_the_map():
    fits = fit_sources(parse_image(DATA - 1e4), X, Y, PSF)
    assert_allclose(fits.flux, FITS.flux, rtol=1e-5)


@pytest.mark.parametrize('turn', [
    lambda data, x, y: (data[:, ::-1], len(data) - 1 - x, y),
    lambda data, x, y: (data[::-1], x, len(data) - 1 - y),
    lambda data, x, y: (data.T, y, x),
    lambda data, x, y: (np.rot90(data), y, len(data) - 1 - x),
], ids=['left to right', 'upside down', 'transposed', 'turned'])  # fmt: skip
def test_flips_and_rotations(turn):
    data, x, y = turn(DATA, X, Y)
    fits = fit_sources(parse_image(np.ascontiguousarray(data)), x, y, PSF)
    assert_allclose(fits.flux, FITS.flux, atol=1e-3 * FITS.flux_err.min())
    assert_allclose(fits.flux_err, FITS.flux_err, rtol=1e-3)


def test_same_position_twice_shares_the_flux():
    fits = fit_sources(parse_image(DATA), np.append(X, X[2]), np.append(Y, Y[2]), PSF)
    assert_allclose(fits.flux[[2, 5]], FITS.flux[2] / 2)
    assert (fits.flux_err[[2, 5]] >= fits.flux[2] / 2).all()
    assert_allclose(np.delete(fits.flux, [2, 5]), np.delete(FITS.flux, 2))
    assert fits.group_size.tolist() == [2, 2, 3, 3, 1, 3]


@pytest.mark.parametrize('apart', [1e-7, 1e-3, 0.1])
def test_almost_the_same_position(apart):
    fits = fit_sources(parse_image(DATA), np.append(X, X[2] + apart), np.append(Y, Y[2]), PSF)
    assert np.isfinite(fits.flux).all()
    assert abs(fits.flux[2] + fits.flux[5] - 3000) < 300
    assert abs(fits.flux[2] - 3000) < 3 * fits.flux_err[2]


def test_position_error_of_each_source():
    errors = np.array([0.0, 0.1, 0.0, 0.1, 0.1])
    options = FitOptions(position_error=errors)
    fits = fit_sources(parse_image(DATA), X + 0.1, Y, PSF, options=options)
    assert ((fits.x == X + 0.1) == (errors == 0)).all()
    assert ((fits.x_err == 0) == (errors == 0)).all()


def test_tiles_give_the_results_of_the_whole_map(monkeypatch, tmp_path):
    rng = np.random.default_rng(3)
    x, y = rng.uniform(5, 595, (2, 40))
    x[:4], y[:4] = 256 + 3.5 * np.arange(4), 255.4
    flux = rng.uniform(300, 3000, 40)
    data = inject_sources(rng.normal(9, 1, (600, 600)), x, y, flux, PROFILE)
    options = FitOptions(width_error=0, profile_error=0)
    expected = fit_sources(parse_image(data), x, y, PSF, options=options)
    np.save(tmp_path / 'map.npy', data)
    monkeypatch.setattr(tiles, '_LARGEST_MAP', 1000)
    monkeypatch.setattr(tiles, '_TILE', 256)
    mapped = parse_image(np.load(tmp_path / 'map.npy', mmap_mode='r'))
    fits = fit_sources(mapped, x, y, PSF, options=options)
    assert_allclose(fits.flux, expected.flux, rtol=1e-6)
    assert_allclose(fits.x, expected.x, atol=1e-6)
    assert (fits.group_id == expected.group_id).all()
    for found, wanted in zip(fits.background, expected.background, strict=True):
        assert (found[0] == wanted[0]).all()
        assert_allclose(found[2], wanted[2], rtol=1e-5)
    assert_allclose(fits.residual, expected.residual, atol=1e-4)


def test_no_source_on_a_large_map(monkeypatch):
    monkeypatch.setattr(tiles, '_LARGEST_MAP', 1000)
    fits = fit_sources(parse_image(DATA), [np.nan, -500], [3.0, 9], PSF)
    assert np.isnan(fits.flux).all()
    assert_allclose(fits.residual, DATA)
