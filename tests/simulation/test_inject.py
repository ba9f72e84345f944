"""Positions and injected sources."""

import numpy as np
import pytest
from astropy import units as u
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import pdist

from csr_astro.simulation.inject import inject_sources, random_positions
from csr_astro.simulation.psf import (
    gaussian_profile,
    moffat_profile,
)

SHAPE = (120, 150)


PROFILES = {
    'Gaussian': gaussian_profile(3.5),
    'narrow Gaussian': gaussian_profile(1.2),
    'Moffat': moffat_profile(4, 2),
}


def centroid(image):
    rows, columns = np.indices(image.shape)
    return (columns * image).sum() / image.sum(), (rows * image).sum() / image.sum()


@pytest.mark.parametrize('name', PROFILES)
@pytest.mark.parametrize(('x', 'y'), [(70, 60), (70.5, 60.5), (69.77, 60.31)])
def test_injected_flux_is_where_and_what_it_should_be(name, x, y):
    image = inject_sources(np.zeros(SHAPE), [x], [y], [250.0], PROFILES[name])
    assert image.sum() == pytest.approx(250, rel=1e-4)
    assert_allclose(centroid(image), [x, y], atol=0.03)
    if abs(x % 1 - 0.5) > 0.1:
        assert np.unravel_index(image.argmax(), SHAPE) == (round(y), round(x))


def test_sources_add_to_a_copy_of_the_map():
    background = np.random.default_rng(0).normal(size=SHAPE).astype('>f4')
    original = background.copy()
    x, y, flux = [50, 52.3, 90.1], [40.7, 41, 88], [10, -3, 1e4]
    injected = inject_sources(background, x, y, flux, PROFILES['Gaussian'])
    assert_array_equal(background, original)
    assert injected.dtype == np.float64
    alone = [
        inject_sources(np.zeros(SHAPE), [x[i]], [y[i]], [flux[i]], PROFILES['Gaussian'])
        for i in range(3)
    ]
    assert_allclose(injected - original, sum(alone), atol=1e-9)
    assert (injected - original).sum() == pytest.approx(10_007, rel=1e-4)


@pytest.mark.parametrize(
    ('arguments', 'error', 'sentence'),
    [
        ((np.zeros(SHAPE) * u.Jy, [4], [5], [6] * u.mJy), TypeError, 'simulate_map takes maps'),
        ((np.zeros(SHAPE), [4], [5], [6] * u.mJy), TypeError, 'must be plain numbers'),
        ((np.zeros(SHAPE), [4, 3], [5], [6]), ValueError, 'equally many, got 2, 1 and 1'),
        ((np.zeros(SHAPE), [4], [np.nan], [6]), ValueError, 'must be finite'),
    ],
)
def test_sources_that_cannot_be_injected_are_refused(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        inject_sources(*arguments, PROFILES['Gaussian'])


def test_no_sources_change_nothing():
    image = np.random.default_rng(0).normal(size=SHAPE)
    assert_array_equal(inject_sources(image, [], [], [], PROFILES['Gaussian']), image)


@pytest.mark.parametrize(
    ('x', 'y', 'fraction'),
    [
        (-0.5, 60, 0.5),
        (70, 119.5, 0.5),
        (149.5, -0.5, 0.25),
        (-20, 60, 0),
        (1e6, -1e6, 0),
        (-33.5, -33.5, 0),
    ],
)
def test_source_at_the_edge_leaves_its_part_on_the_map(x, y, fraction):
    image = inject_sources(np.zeros(SHAPE), [x], [y], [8.0], PROFILES['Gaussian'])
    assert image.sum() == pytest.approx(8 * fraction, abs=8e-4)


def test_source_at_the_edge_is_cut_and_not_changed():
    large = inject_sources(np.zeros((200, 200)), [100.3], [99.6], [5.0], PROFILES['Moffat'])
    small = inject_sources(np.zeros((60, 40)), [10.3], [-0.4], [5.0], PROFILES['Moffat'])
    assert_allclose(small, large[100:160, 90:130], atol=1e-12)


@pytest.mark.parametrize(('n', 'separation', 'margin'), [(60, 12, 0), (25, 15, 20), (1, 500, 10)])
def test_positions_keep_apart_and_off_the_edges(n, separation, margin):
    for seed in range(5):
        x, y = random_positions(SHAPE, n, seed, separation=separation, margin=margin)
        assert x.shape == y.shape == (n,)
        if n > 1:
            assert pdist(np.column_stack([x, y])).min() >= separation
        for position, size in ((x, SHAPE[1]), (y, SHAPE[0])):
            assert position.min() >= margin
            assert position.max() <= size - 1 - margin


def test_positions_depend_on_the_seed_only():
    first = random_positions(SHAPE, 10, 3, separation=5)
    again = random_positions(SHAPE, 10, np.random.default_rng(3), separation=5)
    assert_array_equal(first, again)
    assert not np.array_equal(first, random_positions(SHAPE, 10, 4, separation=5))


def test_positions_fill_the_map():
    x, y = random_positions(SHAPE, 2000, 0, separation=0)
    for position, size in ((x, SHAPE[1]), (y, SHAPE[0])):
        counts = np.histogram(position, bins=5, range=(0, size - 1))[0]
        assert_allclose(counts, 400, atol=90)


def test_no_positions_are_no_error():
    x, y = random_positions(SHAPE, 0, 0, separation=5)
    assert len(x) == len(y) == 0


@pytest.mark.parametrize(
    ('shape', 'n', 'separation', 'margin', 'sentence'),
    [
        ((50, 60), 100, 20, 0, r'100 positions 20 pixels apart do not fit on 50 x 60'),
        ((50, 60), 2, 100, 0, 'do not fit on 50 x 60 pixels; 1 do'),
        ((50, 60), 1, 5, 25, 'a map of 50 x 60 pixels has no room inside a margin of 25'),
        ((50, 60), 1, 5, 24.9, 'has no room inside a margin of 24.9'),
    ],
)
def test_impossible_positions_are_refused(shape, n, separation, margin, sentence):
    with pytest.raises(ValueError, match=sentence):
        random_positions(shape, n, 0, separation=separation, margin=margin)


def test_positions_lie_on_valid_pixels():
    valid = np.zeros(SHAPE, dtype=bool)
    valid[20:60, 30:90] = True
    x, y = random_positions(SHAPE, 20, 0, separation=4, valid=valid)
    assert valid[np.rint(y).astype(int), np.rint(x).astype(int)].all()
