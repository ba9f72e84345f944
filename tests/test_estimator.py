"""Tests of the estimator: what its results depend on, its arguments and its two ways of calling."""

import copy
import inspect
import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning
from helpers_removal import SHAPE, SOURCES, assert_same, discs, make_sky, make_wcs
from numpy.testing import assert_allclose, assert_array_equal
from photutils.background import LocalBackground
from photutils.centroids import centroid_com
from photutils.datasets import make_noise_image
from photutils.detection import DAOStarFinder
from photutils.psf import (
    CircularGaussianPRF,
    IterativePSFPhotometry,
    PSFPhotometry,
    SourceGrouper,
    make_psf_model_image,
)
from regions import CirclePixelRegion, EllipsePixelRegion, PixCoord, PolygonPixelRegion

from csr_astro import NeuralBackgroundEstimator
from csr_astro.flags import decode_flags
from csr_astro.nn.weights import read_info


@pytest.fixture(scope='module')
def estimator(make_estimator):
    return make_estimator()


@pytest.fixture(scope='module')
def sky():
    return make_sky()


@pytest.fixture(scope='module')
def result(estimator, sky):
    return estimator.estimate(sky, SOURCES)


# What the result must not depend on


@pytest.mark.parametrize('preset', ['default', 'paper'])
@pytest.mark.parametrize('mask_radius', [None, [5, 9, 7, 6, 5, 7, 6.5]])
@pytest.mark.parametrize('order', [[6, 5, 4, 3, 2, 1, 0], [2, 0, 5, 6, 1, 4, 3]])
def test_result_does_not_depend_on_the_order_of_the_sources(
    make_estimator, sky, preset, mask_radius, order
):
    positions = np.array([*SOURCES, SOURCES[0], (44.1, 57.3)])
    radii = mask_radius if mask_radius is None else np.array(mask_radius)
    estimator = make_estimator(preset=preset, batch_size=3)
    result = estimator.estimate(sky, positions, mask_radius=radii)
    other = estimator.estimate(
        sky, positions[order], mask_radius=None if radii is None else radii[order]
    )
    assert_array_equal(other.background, result.background)
    assert_array_equal(other.background_rms, result.background_rms)
    for name in set(result.sources.colnames) - {'id'}:
        assert_array_equal(other.sources[name], result.sources[name][order])


@pytest.mark.parametrize('batch_size', [1, 3, 16])
@pytest.mark.parametrize(
    ('name', 'tolerance'), [('default', 1e-5), ('local', 1e-3), ('minmax', 1e-3)]
)
def test_result_does_not_depend_on_the_batch_size(make_estimator, sky, name, tolerance, batch_size):
    result = make_estimator(name, batch_size=2).estimate(sky, SOURCES)
    other = make_estimator(name, batch_size=batch_size).estimate(sky, SOURCES)
    tolerance *= result.background[result.mask].std()
    assert_allclose(other.background, result.background, rtol=0, atol=tolerance)
    assert_array_equal(other.sources['snr'], result.sources['snr'])


def test_source_far_from_others_is_measured_as_if_alone(estimator):
    positions = [(60.0, 50.0), (60.0, 250.0)]
    sky = make_sky((310, 124), positions)
    both, alone = (estimator.estimate(sky, p) for p in (positions, positions[1:]))
    assert_allclose(both.background[150:], alone.background[150:], rtol=0, atol=1e-4)
    for name in ('snr', 'mask_name', 'mask_radius', 'flags'):
        assert_array_equal(both.sources[name][1:], alone.sources[name])


FLIPS = {
    'y': (lambda a: a[::-1], lambda x, y: (x, SHAPE[0] - 1 - y)),
    'x': (lambda a: a[:, ::-1], lambda x, y: (SHAPE[1] - 1 - x, y)),
    'both': (lambda a: a[::-1, ::-1], lambda x, y: (SHAPE[1] - 1 - x, SHAPE[0] - 1 - y)),
    'transposed': (lambda a: a.T, lambda x, y: (y, x)),
    'quarter turn': (np.rot90, lambda x, y: (y, SHAPE[1] - 1 - x)),
    'three quarters': (lambda a: np.rot90(a, 3), lambda x, y: (SHAPE[0] - 1 - y, x)),
}


@pytest.mark.parametrize('flip', FLIPS)
def test_result_follows_flips_and_rotations(make_estimator, sky, flip):
    turn, move = FLIPS[flip]
    estimator = make_estimator(orientations=8)
    positions = np.array(SOURCES)
    data = sky.copy()
    data[30:38, 84:] = np.nan
    result = estimator.estimate(data, positions)
    turned = estimator.estimate(turn(data), np.column_stack(move(*positions.T)))
    assert_array_equal(turned.mask, turn(result.mask))
    assert_allclose(turned.background, turn(result.background), rtol=0, atol=1e-3)
    assert_allclose(turned.sources['snr'], result.sources['snr'], rtol=1e-6)
    for name in ('mask_name', 'mask_radius', 'flags'):
        assert_array_equal(turned.sources[name], result.sources[name])


@pytest.mark.parametrize(('dx', 'dy'), [(0, 13), (7, 0), (30, 21)])
def test_result_follows_shifts_and_blank_pixels_are_like_the_end_of_the_map(
    estimator, sky, result, dx, dy
):
    larger = np.full((SHAPE[0] + 40, SHAPE[1] + 40), np.nan)
    inside = slice(dy, dy + SHAPE[0]), slice(dx, dx + SHAPE[1])
    larger[inside] = sky
    shifted = estimator.estimate(larger, np.add(SOURCES, (dx, dy)))
    assert_array_equal(shifted.mask[inside], result.mask)
    assert_allclose(shifted.background[inside], result.background, rtol=0, atol=1e-4)
    assert_allclose(shifted.sources['snr'], result.sources['snr'], rtol=1e-9)


@pytest.mark.parametrize('offset', [0, -30, 1e5])
@pytest.mark.parametrize('factor', [1e-12, 1e-3, 7, 1e12])
def test_result_follows_factor_and_offset(estimator, sky, result, factor, offset):
    other = estimator.estimate(factor * (sky + offset), SOURCES)
    assert_allclose(other.background / factor - offset, result.background, rtol=0, atol=1e-3)
    assert_allclose(other.background_rms / factor, result.background_rms, rtol=1e-6)
    assert_allclose(other.sources['snr'], result.sources['snr'], rtol=1e-6)
    assert_array_equal(other.sources['mask_name'], result.sources['mask_name'])


@pytest.mark.parametrize('orientations', [1, 8])
@pytest.mark.parametrize('dtype', ['f4', 'f8'])
@pytest.mark.parametrize('value', [0, 0.1, -1234.567, 7.7e-5, 1e20])
def test_constant_map_stays_exactly_constant(make_estimator, value, dtype, orientations):
    data = np.full(SHAPE, value, dtype)
    result = make_estimator(orientations=orientations).estimate(data, SOURCES)
    assert_array_equal(result.background, data)
    assert_array_equal(result.sources['snr'], 0)


@pytest.mark.parametrize('hidden', [1e30, -50.0, np.nan])
def test_pixels_under_the_mask_have_no_influence(estimator, sky, hidden):
    result = estimator.estimate(sky, SOURCES, mask_radius=7)
    other = estimator.estimate(np.where(result.mask, hidden, sky), SOURCES, mask_radius=7)
    assert_array_equal(other.background, result.background)
    assert_array_equal(other.background_rms, result.background_rms)


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e9])
def test_pixels_masked_by_the_user_are_like_blank_ones(estimator, sky, value):
    blank, bad = sky.copy(), sky.copy()
    mask = np.zeros(SHAPE, bool)
    mask[25:60, 30:44] = True
    blank[mask], bad[mask] = np.nan, value
    result = estimator.estimate(blank, SOURCES)
    other = estimator.estimate(bad, SOURCES, mask=mask)
    kept = ~mask
    assert_array_equal(other.background[kept], result.background[kept])
    assert_array_equal(other.sources['snr'], result.sources['snr'])
    assert_array_equal(other.flags, result.flags)


def test_memory_mapped_file_is_read_and_kept(estimator, sky, result, tmp_path):
    path = tmp_path / 'map.fits'
    fits.PrimaryHDU(sky).writeto(path)
    before = path.read_bytes()
    with fits.open(path, memmap=True, mode='denywrite') as hdus:
        assert_same(estimator.estimate(hdus[0], SOURCES), result)
    raw = np.memmap(path, '>f8', 'r', offset=2880, shape=SHAPE)
    assert_same(estimator.estimate(raw, SOURCES), result)
    assert path.read_bytes() == before


# Difficult sources


@pytest.mark.parametrize(
    ('x', 'y', 'flags'),
    [
        (60, 50, []),
        (0, 0, ['edge', 'few_valid']),
        (123, 109, ['edge', 'few_valid']),
        (-0.4, 109.3, ['edge', 'few_valid']),
        (60, 2, ['edge']),
        (60, 6, []),
        (-4, 50, ['edge', 'few_valid']),
        (123.9, 50, ['edge', 'few_valid']),
        (-7.5, 50, ['off_map']),
        (60, 116.5, ['off_map']),
        (1e300, 50, ['off_map']),
        (np.nan, 50, ['invalid_position']),
        (60, -np.inf, ['invalid_position']),
    ],
)
def test_flags_say_where_a_source_lies(estimator, sky, x, y, flags):
    result = estimator.estimate(sky, [(x, y)], mask_radius=6)
    assert decode_flags(result.flags) == [flags]
    measured = not {'off_map', 'invalid_position'} & set(flags)
    row = result.sources[0]
    assert np.isfinite(row['background']) == measured
    assert np.isfinite(row['background_scatter']) == measured
    assert np.isfinite(row['mask_radius']) == measured
    assert_array_equal([row['x_center'], row['y_center']], [x, y])
    expected = discs([(x, y)], 6) if measured else np.zeros(SHAPE, bool)
    assert_array_equal(result.mask, expected)
    assert np.isfinite(result.background).all()


@pytest.mark.parametrize(
    ('blank', 'flags'),
    [
        (np.s_[50, 60], ['invalid_pixels']),
        (np.s_[:, :53], []),
        (np.s_[:, :59], ['invalid_pixels']),
        (np.s_[:, :61], ['invalid_pixels', 'few_valid']),
        (np.s_[44:57, 54:67], ['invalid_pixels']),
        (np.s_[:, 67:], []),
        (np.s_[0:4], []),
    ],
)
def test_sources_on_and_beside_blank_pixels_are_measured(estimator, sky, blank, flags):
    data = sky.copy()
    data[blank] = np.nan
    result = estimator.estimate(data, [(60, 50)], mask_radius=6)
    assert decode_flags(result.flags) == [flags]
    disc = discs([(60, 50)], 6)
    assert_array_equal(result.mask, disc)
    assert np.isfinite(result.background[disc]).all()
    assert_array_equal(result.background[~disc], data[~disc])


def test_every_source_has_a_row_in_the_order_given(estimator, sky, result):
    bad = [(np.nan, np.nan), (-500, 20), (20, np.inf)]
    positions = [bad[0], *SOURCES[:2], bad[1], *SOURCES[2:], bad[2]]
    mixed = estimator.estimate(sky, positions)
    good = [1, 2, 4, 5, 6]
    assert_array_equal(mixed.background, result.background)
    assert_array_equal(mixed.sources['id'], np.arange(8) + 1)
    assert_array_equal(mixed.sources['x_center'], np.transpose(positions)[0])
    for name in ('snr', 'mask_name', 'mask_radius', 'background', 'flags'):
        assert_array_equal(mixed.sources[name][good], result.sources[name])
    rest = mixed.sources[[0, 3, 7]]
    for name in ('snr', 'mask_radius', 'background', 'background_scatter'):
        assert np.isnan(rest[name]).all()
    assert list(rest['mask_name']) == [''] * 3
    assert decode_flags(rest['flags']) == [['invalid_position'], ['off_map'], ['invalid_position']]


@pytest.mark.parametrize('unit', [None, 'Jy/pixel'])
@pytest.mark.parametrize('sources', [[], np.empty((0, 2)), QTable({'x': [], 'y': []})])
def test_no_sources_leave_the_map_as_it_is(estimator, sky, sources, unit):
    data = sky if unit is None else CCDData(sky, unit=unit, wcs=make_wcs())
    result = estimator.estimate(data, sources)
    assert len(result) == len(result.sources) == 0
    assert_array_equal(u.Quantity(result.background).value, sky)
    assert_array_equal(u.Quantity(result.realization(1)).value, sky)
    assert not result.mask.any()
    assert {'id', 'snr', 'mask_name', 'flags'} <= set(result.sources.colnames)


def test_duplicates_have_equal_rows(estimator, sky):
    result = estimator.estimate(sky, [SOURCES[2]] * 2)
    alone = estimator.estimate(sky, [SOURCES[2]])
    assert decode_flags(result.flags) == [['overlap'], ['overlap']]
    assert_allclose(result.background, alone.background, rtol=0, atol=1e-4)
    for name in set(result.sources.colnames) - {'id'}:
        assert result.sources[name][0] == result.sources[name][1]


@pytest.mark.parametrize(
    ('distance', 'expected'), [(9.9, ['overlap']), (12.1, ['touching']), (14.1, [])]
)
def test_masks_that_overlap_or_touch_are_flagged(estimator, sky, distance, expected):
    positions = [(40, 50), (40 + distance, 50), (90, 90)]
    result = estimator.estimate(sky, positions, mask_radius=6)
    assert decode_flags(result.flags) == [expected, expected, []]
    assert_array_equal(result.mask, discs(positions, 6))


@pytest.mark.parametrize('preset', ['default', 'paper'])
@pytest.mark.parametrize('how', ['mask', 'blank', 'covered'])
def test_map_without_background_is_left_as_it_is(make_estimator, sky, how, preset):
    data, mask, radius = sky, None, 6
    if how == 'mask':
        mask = np.ones(SHAPE, bool)
    elif how == 'blank':
        data = np.full(SHAPE, np.nan)
    else:
        radius = 150
    result = make_estimator(preset=preset).estimate(data, SOURCES, mask=mask, mask_radius=radius)
    assert decode_flags(result.flags) == [['no_background']] * len(SOURCES)
    assert_array_equal(result.background, data)
    assert not result.mask.any()
    assert np.isnan(result.sources['background']).all()
    assert_array_equal(result.realization(0), data)


def test_mask_that_no_window_holds_is_flagged(estimator, sky):
    result = estimator.estimate(sky, [(60, 50), (20, 20)], mask_radius=[1000, 5])
    assert decode_flags(result.flags) == [['mask_too_large'], []]
    assert_array_equal(result.mask, discs([(20, 20)], 5))


def test_source_without_signal_to_noise_gets_the_smallest_mask(make_estimator, sky):
    data = sky.copy()
    data[33:68, 43:78] = np.nan
    result = make_estimator(instrument='pacs-scanmap-blue').estimate(data, [(60, 50)])
    assert decode_flags(result.flags) == [['invalid_pixels', 'few_valid', 'no_snr']]
    assert np.isnan(result.sources['snr'][0])
    assert result.sources['mask_name'][0] == 'minimal'
    assert_array_equal(result.mask, discs([(60, 50)], 5))


# Masks


@pytest.mark.parametrize(
    ('mask_radius', 'radii'),
    [
        (6, 6),
        (6.4 * u.pix, 6.4),
        (8 * u.arcsec, 5),
        ([3, 4, 5, 6, 7.5], [3, 4, 5, 6, 7.5]),
        ([6.4, 8, 9.6, 11.2, 12.8] * u.arcsec, [4, 5, 6, 7, 8]),
        (0.2, 0.45),
    ],
)
def test_masks_have_the_radius_asked_for(estimator, sky, mask_radius, radii):
    # The smallest disc holds one pixel, if only that of a whole position.
    positions = np.round(SOURCES) if np.max(radii) < 1 else SOURCES
    result = estimator.estimate(sky, positions, wcs=make_wcs(), mask_radius=mask_radius)
    assert_array_equal(result.mask, discs(positions, radii))
    assert set(result.sources['mask_name']) == {'fixed'}


def test_regions_are_the_masks(estimator, sky):
    yy, xx = np.indices(SHAPE)
    regions = [
        CirclePixelRegion(PixCoord(30, 40), 6.2),
        EllipsePixelRegion(PixCoord(70, 50), 18, 8),
        PolygonPixelRegion(PixCoord([90.5, 105.5, 105.5, 90.5], [80.5, 80.5, 90.5, 90.5])),
    ]
    expected = discs([(30, 40)], 6.2)
    expected |= ((xx - 70) / 9) ** 2 + ((yy - 50) / 4) ** 2 < 1
    expected |= (xx > 90.5) & (xx < 105.5) & (yy > 80.5) & (yy < 90.5)
    result = estimator.estimate(sky, regions)
    assert_array_equal(result.mask, expected)
    assert list(result.sources['mask_name']) == ['region'] * 3
    assert_allclose(result.sources['mask_radius'][0], np.sqrt(37), rtol=1e-9)
    assert_allclose(result.sources['x_center'], [30, 70, 98], rtol=1e-9)
    by_snr = estimator.estimate(sky, regions, mask_radius='snr')
    centers = [(30, 40), (70, 50), (98, 85.5)]
    assert_array_equal(by_snr.mask, estimator.estimate(sky, centers).mask)


@pytest.mark.parametrize(
    ('instrument', 'radii', 'masks'),
    [
        ('pacs-scanmap-blue', (8, 10, 22), {300: 12, 140: 11, 13: 9, 8: 7, 4: 6, -np.inf: 5}),
        ('pacs-scanmap-green', (8, 10, 22), {300: 13, 140: 11, 13: 10, 8: 8, 4: 6, -np.inf: 5}),
        ('pacs-parallel-blue', (4, 8, 18), {855: 9, 590: 8, 300: 7, 20: 6, 13: 5, -np.inf: 4}),
    ],
)
def test_signal_to_noise_decides_the_mask(make_estimator, instrument, radii, masks):
    positions = [(30.0, 30.0), (90.3, 30.2), (30.0, 100.4), (90.0, 100.0), (150.0, 30.0),
                 (150.0, 100.0)]  # fmt: skip
    fluxes = [40, 90, 150, 2000, 4500, 30000]
    sky = np.array(make_sky((130, 180), ()))
    for position, flux in zip(positions, fluxes, strict=True):
        sky += make_sky(sky.shape, [position], flux) - make_sky(sky.shape, ())
    table = make_estimator(instrument=instrument).estimate(sky, positions).sources
    yy, xx = np.indices(sky.shape)
    names = dict(
        zip(masks, ['full', 'large', 'moderate', 'small', 'focused', 'minimal'], strict=True)
    )
    for row, (x, y) in zip(table, positions, strict=True):
        distance = np.hypot(xx - x, yy - y)
        ring = sky[(distance >= radii[1]) & (distance <= radii[2])]
        snr = (sky[distance <= radii[0]].max() - ring.mean()) / ring.std()
        threshold = max(limit for limit in masks if snr >= limit)
        assert_allclose(row['snr'], snr, rtol=1e-9)
        assert (row['mask_name'], row['mask_radius']) == (names[threshold], masks[threshold])
    assert len(set(table['mask_name'])) >= 3


def test_masks_keep_their_size_on_the_sky(make_estimator, sky):
    """Twice the pixels per beam, twice the radius in pixels."""
    estimator = make_estimator(instrument='pacs-scanmap-blue')
    radii = {'moderate': 9, 'small': 7, 'focused': 6, 'minimal': 5}
    for scale, factor in [(1.6, 1), (1.61, 1), (0.8, 2), (3.2, 0.5)]:
        row = estimator.estimate(sky, SOURCES[2:3], wcs=make_wcs(scale)).sources[0]
        assert_allclose(row['mask_radius'], factor * radii[row['mask_name']], rtol=1e-9)


# Presets


@pytest.mark.parametrize(('preset', 'depends'), [('default', False), ('paper', True)])
def test_only_the_paper_preset_depends_on_the_brightness_of_the_source(
    make_estimator, preset, depends
):
    name = 'minmax' if preset == 'paper' else 'local'
    estimator = make_estimator(name, preset=preset)
    position = [(60.0, 50.0)]
    faint, bright = (
        estimator.estimate(make_sky(sources=position, flux=flux), position, mask_radius=12)
        for flux in (100, 1e5)
    )
    center = np.s_[45:56, 55:66]
    difference = np.abs(bright.background - faint.background)[center].max()
    assert difference > 1 if depends else difference < 1e-3


def test_paper_preset_refuses_weights_of_another_network(networks):
    with pytest.raises(ValueError, match=r"needs weights of the paper's network.*'local' and"):
        NeuralBackgroundEstimator(networks['local'], preset='paper')


@pytest.mark.parametrize(
    ('instrument', 'weights'),
    [
        ('pacs-scanmap-green', 'paper-scanmap'),
        ('pacs-parallel-blue', 'paper-parallel'),
        ('pacs-parallel-green', 'paper-parallel'),
        # The PSF of the scan map.
        ('pacs-parallel-red', 'paper-scanmap'),
        ('spire-250', 'paper-scanmap'),
    ],
)
def test_paper_preset_has_weights_for_each_mode(instrument, weights):
    estimator = NeuralBackgroundEstimator(instrument=instrument, preset='paper')
    assert estimator.provenance['weights'] == weights
    assert estimator.predictor.weights == weights


def test_paper_preset_warns_of_its_bundled_weights(networks):
    with pytest.warns(AstropyUserWarning, match="^the bundled weights of the preset 'paper' are"):
        NeuralBackgroundEstimator(instrument='spire-250', preset='paper')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        NeuralBackgroundEstimator(networks['minmax'], preset='paper')


def test_paper_preset_takes_the_mode_from_the_header(sky):
    header = make_wcs(3.2).to_header()
    header.update(INSTRUME='PACS', WAVELNTH=70, OBS_MODE='PACS/SPIRE parallel')
    result = NeuralBackgroundEstimator(preset='paper').estimate(
        fits.ImageHDU(sky, header), SOURCES
    )
    assert result.sources.meta['weights'] == 'paper-parallel'


def test_default_preset_uses_eight_orientations_and_paper_one(networks):
    assert NeuralBackgroundEstimator(networks['local']).orientations == 8
    assert NeuralBackgroundEstimator(networks['minmax'], preset='paper').orientations == 1


@pytest.mark.parametrize('orientations', [2, 4, 8])
def test_orientations_change_the_prediction(make_estimator, sky, result, orientations):
    other = make_estimator(orientations=orientations).estimate(sky, SOURCES)
    assert_array_equal(other.mask, result.mask)
    assert (other.background != result.background)[result.mask].mean() > 0.9


# The local-background protocol of photutils


def test_estimator_is_a_local_background(estimator):
    assert isinstance(estimator, LocalBackground)
    assert 0 < estimator.inner_radius < estimator.outer_radius


def test_call_gives_one_number_per_source(estimator, sky, result):
    positions = np.array(SOURCES)
    x, y = positions.T
    values = estimator(sky, x, y)
    assert values.shape == (len(SOURCES),)
    # The lone one by hand: the prediction under its mask, weighted by the beam.
    yy, xx = np.indices(SHAPE)
    disc = discs([SOURCES[2]], result.sources['mask_radius'][2])
    weight = disc * np.exp(-4 * np.log(2) * ((xx - x[2]) ** 2 + (yy - y[2]) ** 2) / 3.5**2)
    expected = (weight * result.background).sum() / weight.sum()
    assert_allclose(values[2], expected, rtol=1e-9)
    assert_array_equal(estimator(sky, list(x), list(y)), values)


@pytest.mark.parametrize('convert', [float, np.float64, lambda v: [v], lambda v: np.array([v])])
def test_call_has_the_shape_that_photutils_gives(estimator, sky, convert):
    x, y = convert(60.0), convert(50.0)
    found, expected = estimator(sky, x, y), LocalBackground(9, 15)(sky, x, y)
    assert np.shape(found) == np.shape(expected)
    assert np.isfinite(found)


def test_call_gives_nan_off_the_map(estimator, sky):
    values = estimator(sky, [60, -300, np.nan], [50, 50, 50])
    assert_array_equal(np.isnan(values), [False, True, True])
    assert np.isnan(estimator(sky, -300, 50))


def test_call_regards_the_mask(estimator, sky):
    bad, mask = sky.copy(), np.zeros(SHAPE, bool)
    mask[20:30] = True
    bad[mask] = 1e6
    blank = np.where(mask, np.nan, sky)
    assert_array_equal(estimator(bad, [60], [45], mask=mask), estimator(blank, [60], [45]))


# The scripts of photutils' documentation, with the estimator as their local background


LEVEL = 50.0
STARS_SHAPE = (101, 101)
# photutils 2 and 3 call the same argument differently.
KEYWORD = next(
    name
    for name in ('local_bkg_estimator', 'localbkg_estimator')
    if name in inspect.signature(PSFPhotometry).parameters
)


@pytest.fixture(scope='module')
def stars():
    """Ten stars on a constant background with noise of scatter 1, and their true parameters."""
    data, truth = make_psf_model_image(
        STARS_SHAPE,
        CircularGaussianPRF(flux=1, fwhm=2.7),
        10,
        model_shape=(9, 9),
        flux=(500, 700),
        min_separation=10,
        seed=0,
    )
    noise = make_noise_image(STARS_SHAPE, mean=0, stddev=1, seed=0)
    return data + noise + LEVEL, np.ones(STARS_SHAPE), truth


@pytest.fixture(scope='module')
def star_estimator():
    return NeuralBackgroundEstimator(fwhm=2.7, orientations=1)


def matched(table, truth):
    """Rows of the table, in the order of the true stars."""
    dx = np.subtract.outer(truth['x_0'], u.Quantity(table['x_fit']).value)
    dy = np.subtract.outer(truth['y_0'], u.Quantity(table['y_fit']).value)
    nearest = np.hypot(dx, dy).argmin(axis=1)
    assert np.hypot(dx, dy).min(axis=1).max() < 0.2
    assert len(set(nearest)) == len(truth)
    return table[nearest]


def local_background(table):
    name = next(name for name in ('local_bkg', 'localbkg') if name in table.colnames)
    return u.Quantity(table[name]).value


def test_psf_photometry_on_predicted_backgrounds(stars, star_estimator):
    data, error, truth = stars
    psfphot = PSFPhotometry(
        CircularGaussianPRF(flux=1, fwhm=2.7),
        (5, 5),
        finder=DAOStarFinder(6.0, 2.0, exclude_border=True),
        aperture_radius=4,
        **{KEYWORD: star_estimator},
    )
    table = psfphot(data, error=error)
    assert len(table) == len(truth)
    table = matched(table, truth)
    assert_allclose(table['flux_fit'], truth['flux'], rtol=0.05)
    assert_allclose(local_background(table), LEVEL, atol=1)
    residual = psfphot.make_residual_image(data)
    assert abs(np.median(residual) - LEVEL) < 1


def test_psf_photometry_with_units_and_given_positions(stars, star_estimator):
    data, error, truth = stars
    psfphot = PSFPhotometry(
        CircularGaussianPRF(flux=1, fwhm=2.7),
        (5, 5),
        aperture_radius=4,
        **{KEYWORD: star_estimator},
    )
    positions = QTable({'x': truth['x_0'], 'y': truth['y_0']})
    plain = psfphot(data, error=error, init_params=positions)
    table = psfphot(data * u.Jy, error=error * u.Jy, init_params=positions)
    assert table['flux_fit'].unit == u.Jy
    assert_allclose(table['flux_fit'].value, truth['flux'], rtol=0.05)
    assert_allclose(table['flux_fit'].value, plain['flux_fit'], rtol=1e-6)


def test_psf_photometry_of_one_source_with_a_mask(stars, star_estimator):
    data, error, truth = stars
    mask = np.zeros(STARS_SHAPE, bool)
    x, y = truth['x_0'][0], truth['y_0'][0]
    mask[np.hypot(*(np.indices(STARS_SHAPE) - np.array([y, x])[:, None, None])) > 25] = True
    psfphot = PSFPhotometry(
        CircularGaussianPRF(flux=1, fwhm=2.7),
        (5, 5),
        aperture_radius=4,
        **{KEYWORD: star_estimator},
    )
    position = QTable({'x': [x], 'y': [y]})
    table = psfphot(np.where(mask, np.nan, data), error=error, mask=mask, init_params=position)
    assert_allclose(table['flux_fit'], truth['flux'][:1], rtol=0.05)


@pytest.mark.parametrize('mode', ['new', 'all'])
def test_iterative_psf_photometry_on_predicted_backgrounds(stars, star_estimator, mode):
    data, error, truth = stars
    psfphot = IterativePSFPhotometry(
        CircularGaussianPRF(flux=1, fwhm=2.7),
        (5, 5),
        finder=DAOStarFinder(6.0, 2.0, exclude_border=True),
        grouper=SourceGrouper(6),
        aperture_radius=4,
        mode=mode,
        maxiters=2,
        sub_shape=(15, 15),
        **{KEYWORD: star_estimator},
    )
    table = matched(psfphot(data, error=error), truth)
    assert_allclose(table['flux_fit'], truth['flux'], rtol=0.05)


def test_estimator_takes_the_place_of_an_annulus(stars, star_estimator):
    """Both are called in the same way and give the same kind of answer."""
    data, _, truth = stars
    x, y = np.array(truth['x_0']), np.array(truth['y_0'])
    annulus = LocalBackground(8, 15)
    for arguments in ((x, y), (list(x), list(y)), (x[0], y[0]), (x[:1], y[:1])):
        ours, theirs = star_estimator(data, *arguments), annulus(data, *arguments)
        assert np.shape(ours) == np.shape(theirs)
        assert_allclose(ours, theirs, atol=2)
    assert_array_equal(np.isnan(star_estimator(data, [x[0], -500], [y[0], 20])), [False, True])


# Copies with other arguments


def test_replaced_argument_is_the_only_change(make_estimator):
    estimator = make_estimator(
        instrument='pacs-scanmap-blue', centroid_func=centroid_com, batch_size=3, orientations=2
    )
    other = estimator.replace(batch_size=5)
    assert (other.batch_size, estimator.batch_size) == (5, 3)
    assert other.provenance == estimator.provenance
    assert other.predictor == estimator.predictor
    assert (other.centroid_func, other.device) == (centroid_com, estimator.device)


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({'instrument': 'spire-250'}, {'instrument': 'spire-250'}),
        ({'fwhm': 5.0}, {'instrument': 'generic', 'fwhm': 5.0}),
        ({'preset': 'paper'}, {'preset': 'paper', 'orientations': 1}),
        ({'preset': 'paper', 'orientations': 4}, {'preset': 'paper', 'orientations': 4}),
        ({'dtype': 'bfloat16'}, {'dtype': 'bfloat16'}),
        ({'centroid_func': centroid_com}, {'centroid_func': 'centroid_com'}),
    ],
)
def test_replaced_arguments_are_in_the_provenance(make_estimator, changes, expected):
    estimator = make_estimator('minmax', orientations=8, instrument='pacs-scanmap-blue')
    provenance = estimator.replace(**changes).provenance
    assert {name: provenance[name] for name in expected} == expected
    assert provenance['weights'] == estimator.provenance['weights']
    assert estimator.provenance['instrument'] == 'pacs-scanmap-blue'


def test_replaced_estimator_gives_the_results_of_a_new_one(make_estimator, sky):
    replaced = make_estimator('minmax').replace(orientations=2, instrument='spire-250')
    expected = make_estimator('minmax', orientations=2, instrument='spire-250')
    assert_same(replaced.estimate(sky, SOURCES), expected.estimate(sky, SOURCES))


def test_replaced_weights_are_others(make_estimator, networks):
    other = make_estimator('local').replace(weights=networks['minmax'])
    assert other.provenance['weights_sha256'] == read_info(networks['minmax']).sha256


@pytest.mark.parametrize(
    ('changes', 'exception', 'sentence'),
    [
        ({'orientations': 3}, ValueError, 'orientations must be 1, 2, 4 or 8, got 3'),
        ({'weights': 'none-such'}, ValueError, 'weights must be one of'),
        (
            {'fwhm': 3, 'instrument': 'spire-250'},
            ValueError,
            "fwhm is for the instrument 'generic'",
        ),
        ({'colour': 'blue'}, TypeError, 'colour'),
    ],
)
def test_wrong_changes_are_refused(estimator, changes, exception, sentence):
    with pytest.raises(exception, match=sentence):
        estimator.replace(**changes)


def test_provenance_is_what_the_results_say(make_estimator, networks, sky):
    estimator = make_estimator(instrument='pacs-scanmap-blue', orientations=2)
    provenance = estimator.provenance
    assert provenance['weights'] == str(networks['local'])
    assert provenance['weights_sha256'] == read_info(networks['local']).sha256
    meta = estimator.estimate(sky, SOURCES).sources.meta
    assert {name: meta[name] for name in provenance} == provenance


# A real map


def test_prediction_on_a_real_map_is_better_than_an_annulus(small_data):
    """Blank places of an extinction map, whose truth is known."""
    data = fits.getdata(small_data / 'extinction_ophiuchus.fits')
    places = [(x, y) for y in (20, 48, 76) for x in (20, 48, 76)]
    result = NeuralBackgroundEstimator(fwhm=3.5).estimate(data, places, mask_radius=6)
    assert_array_equal(result.background[~result.mask], data[~result.mask])
    masks = [mask.on_map() for mask in result.source_masks]
    off = [result.source_image[mask].mean() for mask in masks]
    annulus = LocalBackground(7, 12)(data, *np.transpose(places))
    expected = [data[mask].mean() - level for mask, level in zip(masks, annulus, strict=True)]
    assert np.std(off) < 0.7 * np.std(expected)


# Copies, threads and global state


@pytest.mark.parametrize(
    'duplicate',
    [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))],
    ids=['copy', 'deepcopy', 'pickle'],
)
def test_copies_give_identical_results(make_estimator, sky, duplicate):
    estimator = make_estimator(instrument='pacs-scanmap-blue', centroid_func=centroid_com)
    result = estimator.estimate(sky, SOURCES)
    other = duplicate(estimator)
    assert repr(other) == repr(estimator)
    assert_same(other.estimate(sky, SOURCES), result)
    copied = duplicate(result)
    assert_same(copied, result)
    assert_array_equal(copied.realization(3), result.realization(3))


def test_threads_share_an_estimator(make_estimator):
    estimator = make_estimator(batch_size=2)
    skies = [make_sky(seed=seed) for seed in range(4)]
    expected = [estimator.estimate(sky, SOURCES) for sky in skies]
    found, barrier = [None] * 4, threading.Barrier(4)

    def work(i):
        barrier.wait()
        found[i] = estimator.estimate(skies[i], SOURCES)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result, other in zip(expected, found, strict=True):
        assert_same(other, result)


def test_global_state_is_left_alone(networks, sky):
    def state():
        return (
            repr(np.random.get_state()),  # noqa: NPY002
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            np.geterr(),
            np.get_printoptions(),
            list(warnings.filters),
        )

    before = state()
    # Another batch size, so that nothing was made before.
    estimator = NeuralBackgroundEstimator(
        networks['minmax'], fwhm=3.5, batch_size=7, orientations=2
    )
    result = estimator.estimate(sky, SOURCES)
    result.realization(3)
    estimator(sky, 60, 50)
    assert state() == before


# Wrong arguments


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'weights': 'none-such'}, r"weights must be one of \['default'.*'none-such'"),
        ({'weights': __file__}, 'not a readable safetensors file'),
        ({'preset': 'fast'}, r"preset must be one of \['default', 'paper'\], got 'fast'"),
        ({'orientations': 3}, 'orientations must be 1, 2, 4 or 8, got 3'),
        ({'orientations': 0}, 'orientations must be 1, 2, 4 or 8, got 0'),
        ({'dtype': 'float16'}, "dtype must be 'float32' or 'bfloat16'"),
        ({'batch_size': 0}, 'batch_size must be a positive integer, got 0'),
        ({'batch_size': 2.5}, 'batch_size must be a positive integer, got 2.5'),
        ({'batch_size': 'many'}, "batch_size must be a positive integer, got 'many'"),
        ({'instrument': 'hubble'}, "instrument must be one of .*'generic'.*got 'hubble'"),
        ({'instrument': 'spire-250', 'fwhm': 3}, "fwhm is for the instrument 'generic'"),
        ({'fwhm': -1}, 'fwhm must be positive'),
        ({'fwhm': 3 * u.Jy}, 'fwhm must be in pixels or an angle'),
        ({'device': 'nonsense'}, "device 'nonsense' cannot be used"),
        ({'centroid_func': 'com'}, "centroid_func must be callable, got 'com'"),
        ({'centroid_func': np.mean}, "centroid_func must take the keyword 'mask'"),
    ],
)
def test_wrong_options_are_refused_with_a_sentence(options, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        NeuralBackgroundEstimator(**options)


def test_options_are_keyword_only():
    with pytest.raises(TypeError, match='positional'):
        NeuralBackgroundEstimator('default', 'pacs-scanmap-blue')


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ({'data': np.zeros(5)}, 'data must be two-dimensional'),
        ({'data': np.zeros((3, 20, 20))}, 'data must be two-dimensional'),
        ({'data': np.zeros((20, 20), complex)}, 'data must hold real numbers'),
        ({'data': 'map.fits'}, "no such file: 'map.fits'"),
        ({'data': u.Magnitude(np.zeros((20, 20)))}, 'data are in mag, which is logarithmic'),
        ({'sources': 'catalog.csv'}, "no such file: 'catalog.csv'"),
        ({'sources': None}, 'sources must be .* got NoneType'),
        ({'sources': [(1, 2, 3)]}, 'sources must be .* got shape'),
        ({'sources': SkyCoord(0 * u.deg, 0 * u.deg)}, 'need a WCS'),
        ({'mask': np.zeros((4, 4), bool)}, 'mask has shape'),
        ({'error': np.ones((4, 4))}, 'error has shape'),
        ({'error': 1 * u.Jy}, 'error has unit Jy'),
        ({'mask_radius': 0}, 'mask_radius must be positive'),
        ({'mask_radius': np.nan}, 'mask_radius must be positive and finite'),
        ({'mask_radius': [1, 2, 3]}, 'one for each of the 1 sources'),
        ({'mask_radius': 'big'}, "mask_radius must be 'snr'.*got 'big'"),
        ({'mask_radius': 3 * u.arcsec}, 'the data have no WCS'),
        ({'mask_radius': 3 * u.Jy}, 'mask_radius must be in pixels or an angle'),
    ],
)
def test_wrong_arguments_are_refused_with_a_sentence(estimator, arguments, sentence):
    arguments = {'data': np.zeros((50, 50)), 'sources': [(20, 20)]} | arguments
    data, sources = arguments.pop('data'), arguments.pop('sources')
    with pytest.raises((ValueError, TypeError), match=sentence):
        estimator.estimate(data, sources, **arguments)


def test_log_tells_what_was_done(make_estimator, caplog):
    estimator = make_estimator()
    with caplog.at_level('INFO', logger='csr_astro'):
        estimator.estimate(make_sky(), SOURCES)
    (record,) = caplog.records
    assert record.name == 'csr_astro.estimator'
    assert f'{len(SOURCES)} of {len(SOURCES)} sources' in record.getMessage()
