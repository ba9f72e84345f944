"""Sources of known flux on maps."""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import CircularAperture
from scipy.spatial.distance import pdist

from csr_astro.images import read_image
from csr_astro.instruments import get_instrument
from csr_astro.simulation.field import synthetic_map
from csr_astro.simulation.paper import flux_levels
from csr_astro.simulation.psf import (
    encircled_energy,
    gaussian_profile,
    pacs_profile,
    psf_stamp,
)
from csr_astro.simulation.simulate import flux_range, simulate_levels, simulate_map


@pytest.fixture(scope='module')
def field():
    return synthetic_map('lognormal', (200, 220), 1)


def test_simulation_holds_what_its_table_says(field):
    simulation = simulate_map(field, 700, instrument='pacs-scanmap-green', number=12, seed=4)
    sources = simulation.sources
    assert len(sources) == 12
    assert set(sources['flux']) == {700 * u.mJy}
    assert pdist(np.column_stack([sources['x'], sources['y']])).min() >= 2 * 13
    again = field.wcs.world_to_pixel(sources['sky_center'])
    assert_allclose(again, [sources['x'], sources['y']], atol=1e-6)
    added = (simulation.data - simulation.truth).to_value(u.mJy / u.pix)
    assert added.min() > -1e-9
    # Less the wings off the map.
    assert 0.97 * 12 * 700 < added.sum() <= 12 * 700 * (1 + 1e-6)
    for row in sources:
        near = CircularAperture((row['x'], row['y']), 6.25).do_photometry(added)[0][0]
        expected = 700 * encircled_energy(pacs_profile('green', 1.6), 6.25)
        # With the wings of the others.
        assert near == pytest.approx(expected, rel=0.015)


def test_simulation_depends_on_the_seed_only(field):
    first, again, other = (
        simulate_map(field, 300, gaussian_profile(4), number=8, seed=seed) for seed in (1, 1, 2)
    )
    assert_array_equal(first.data, again.data)
    assert_array_equal(first.sources['x'], again.sources['x'])
    assert not np.array_equal(first.data, other.data)


def test_levels_are_those_of_the_paper_within_the_range(field):
    assert len(flux_levels()) == 51
    assert (flux_levels()[0], flux_levels()[-1]) == (10, 40000)
    series = list(simulate_levels(field, lowest=1250, highest=1.75 * u.Jy, number=3, seed=5))
    assert [s.sources['flux'][0].value for s in series] == [1250, 1500, 1750]
    # A level is the same whatever others there are.
    alone = next(iter(simulate_levels(field, levels=[1500], number=3, seed=5)))
    assert_array_equal(alone.data, series[1].data)
    assert not np.array_equal(series[0].sources['x'], series[1].sources['x'])


def test_levels_can_be_random(field):
    series = list(
        simulate_levels(field, lowest=40, highest=100, random=2, number=20, separation=8, seed=5)
    )
    assert len(series) == 2
    for simulation in series:
        assert set(simulation.sources['flux'].value) <= {40, 60, 80, 100}
        assert len(set(simulation.sources['flux'].value)) > 1
    assert series[0].name != series[1].name


def test_default_levels_are_visible_and_realistic():
    noise = np.random.default_rng(0).normal(0, 2, (300, 300))
    lowest, highest = flux_range(noise, gaussian_profile(4))
    peak = psf_stamp(gaussian_profile(4)).max()
    assert lowest * peak / 2 == pytest.approx(3, rel=0.03)
    assert highest * peak / 2 == pytest.approx(1000, rel=0.03)
    series = simulate_levels(noise, gaussian_profile(4), number=1)
    fluxes = [simulation.sources['flux'][0].value for simulation in series]
    assert_array_equal(fluxes, flux_levels(lowest, highest))


def test_number_follows_from_the_area():
    # Masks of 5.1 pixels; the PSF matters for the time only.
    psf = np.outer([1, 2, 1], [1, 2, 1])
    instrument = get_instrument('generic', fwhm=1.5)
    counts = [
        len(simulate_map(np.zeros((n, n)), 1, psf, instrument=instrument).sources)
        for n in (80, 130, 300)
    ]
    # Positions keep a mask's radius from the edge; a source for each square of 3 radii.
    assert counts == [25, 120**2 // 15.3**2, 210]


def test_invalid_pixels_stay_and_take_no_sources():
    data = np.full((200, 200), 3.0, dtype='>f4')
    data[:, 100:] = np.nan
    mask = np.zeros(data.shape, dtype=bool)
    mask[:60] = True
    ccd = CCDData(data, unit='Jy/pix', mask=mask)
    simulation = simulate_map(ccd, 100, number=5)
    assert (simulation.sources['x'] < 88.5).all()
    assert (simulation.sources['y'] > 71.5).all()
    assert_array_equal(simulation.injected.data[:60], data[:60])
    assert simulation.injected.dtype == np.float32
    assert np.isnan(simulation.injected.data[:, 100:]).all()


def test_unobserved_zeros_of_pacs_stay(shared_data):
    path = next((shared_data / 'data' / 'pacs_gamma_dra').glob('*_blue_*'))
    image, header = read_image(path)
    simulation = simulate_map(image, 500, instrument='pacs-scanmap-blue', number=6, header=header,
                              avoid=[(88, 157.6)])  # fmt: skip
    blank = image.data == 0
    assert blank.mean() > 0.2
    assert (simulation.injected.data[blank] != 0).mean() < 0.01
    x, y = simulation.sources['x'], simulation.sources['y']
    assert not blank[np.rint(y).astype(int), np.rint(x).astype(int)].any()
    assert np.hypot(x - 88, y - 157.6).min() > 24


@pytest.mark.parametrize(
    ('data', 'flux', 'options', 'sentence'),
    [
        (np.zeros((200, 200)), 'bright', {}, 'fluxes must be numbers of mJy'),
        (np.zeros((200, 200)), np.nan, {}, 'fluxes must be finite'),
        (np.zeros((200, 200)), [1, 2], {'number': 3}, 'one for each of 3 sources'),
        (np.zeros((200, 200)), 1, {'number': 2.5}, 'number must be a whole number'),
        (np.zeros((200, 200)), 1, {'number': -1}, 'number must be a whole number'),
        (np.zeros((60, 60)), 1, {}, 'do fit on|do not fit .*: give a smaller number'),
        (np.zeros((200, 200)), 1, {'separation': -2}, 'separation must not be negative'),
        (np.full((50, 50), np.nan), 1, {}, 'the map has no valid pixels'),
        (np.zeros((200, 200)) * u.mag, 1, {}, 'a map in mag cannot take sources in mJy'),
        (np.zeros((200, 200)) * u.MJy / u.sr, 1, {}, 'needs a WCS'),
        (np.zeros((200, 200)), 1, {'fast_scan': True}, 'only PACS has fast scans'),
        (
            np.zeros((200, 200)),
            1,
            {'psf': gaussian_profile(3), 'fast_scan': True},
            'fast_scan is for the PSF of a PACS instrument',
        ),
    ],
)
def test_impossible_simulations_are_refused(data, flux, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        simulate_map(data, flux, **options)


def test_levels_must_leave_some():
    with pytest.raises(ValueError, match='no flux level of 10 to 40000 mJy lies between 1 and 2'):
        next(simulate_levels(np.zeros((200, 200)), lowest=1, highest=2))
    with pytest.raises(ValueError, match='the map does not scatter'):
        next(simulate_levels(np.zeros((200, 200))))
    with pytest.raises(ValueError, match='flux levels must be positive'):
        next(simulate_levels(np.zeros((200, 200)), levels=[0, 1]))
