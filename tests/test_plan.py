"""Tests of the plan of a removal."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from helpers_removal import SHAPE, SOURCES, make_sky, make_wcs
from numpy.testing import assert_array_equal
from photutils.centroids import centroid_com

from csr_astro.flags import decode_flags
from csr_astro.images import parse_image
from csr_astro.instruments import get_instrument
from csr_astro.masking import combined_mask, measure_snr
from csr_astro.plan import plan_removal
from csr_astro.sources import parse_sources

BLUE = get_instrument('pacs-scanmap-blue')
# The last two have no mask.
POSITIONS = [*SOURCES, (-300.0, 20.0), (np.nan, 5.0)]


@pytest.fixture(scope='module')
def sky():
    return make_sky()


@pytest.fixture(scope='module')
def make_plan(sky):
    """Plan a removal from `sky`, or from another map."""

    def make(positions=POSITIONS, data=sky, instrument=BLUE, **options):
        return plan_removal(parse_image(data), parse_sources(positions), instrument, **options)

    return make


def test_plan_says_what_is_known_before_a_prediction(make_plan, sky):
    plan = make_plan()
    assert len(plan.sources) == len(plan.masks) == len(POSITIONS)
    assert_array_equal(plan.snr, measure_snr(parse_image(sky), *np.transpose(POSITIONS), BLUE))
    names, radii = BLUE.mask(plan.snr[:5])
    assert_array_equal(plan.mask_names[:5], names)
    assert_array_equal(plan.mask_radii, [*radii, np.nan, np.nan])
    assert [mask is None for mask in plan.masks] == [False] * 5 + [True] * 2
    flags = decode_flags(plan.flags)
    assert flags[:5] == [['overlap'], ['overlap'], [], ['edge'], ['edge']]
    assert 'off_map' in flags[5]
    assert flags[6] == ['invalid_position']
    assert '7 sources' in repr(plan)


def test_plan_is_of_the_pixels_of_the_map(sky):
    hdu = fits.ImageHDU(sky, make_wcs(scale=0.8).to_header())
    plan = plan_removal(parse_image(hdu), parse_sources(SOURCES), BLUE)
    assert plan.instrument.pixel_scale == pytest.approx(0.8)
    assert set(plan.mask_radii.round(9)) <= {2 * radius for radius in BLUE.mask_radii}


def test_plan_leaves_its_arguments_alone(make_plan, sky):
    positions = np.array(POSITIONS)
    image, sources = parse_image(sky.copy()), parse_sources(positions)
    plan_removal(image, sources, BLUE, centroid_func=centroid_com)
    assert_array_equal(image.data, sky)
    assert_array_equal(sources.x, positions[:, 0])
    assert_array_equal(make_plan(mask_radius=4).mask_names, 'fixed')


@pytest.mark.parametrize('batch_size', [1, 3, 100])
def test_every_source_with_a_mask_is_in_one_batch(make_plan, batch_size):
    # Radii for windows of two sizes.
    radii = np.array([5, 40, 5, 40, 6, 5, 5])
    plan = make_plan(mask_radius=radii, batch_size=batch_size)
    assert sorted(np.concatenate([index for index, _ in plan.batches])) == [0, 1, 2, 3, 4]
    for index, size in plan.batches:
        assert 1 <= len(index) <= batch_size
        assert size % 2 == 1
        assert (size / 2 > radii[index] + 20).all()
    assert len({size for _, size in plan.batches}) == 2


def test_batches_are_the_same_places_in_any_order(make_plan):
    order = np.random.default_rng(3).permutation(len(SOURCES))
    plan = make_plan(SOURCES, batch_size=2)
    other = make_plan(np.array(SOURCES)[order], batch_size=2)
    for (index, size), (other_index, other_size) in zip(plan.batches, other.batches, strict=True):
        assert_array_equal(index, order[other_index])
        assert size == other_size


@pytest.mark.parametrize('positions', [[], [(-300, 5), (np.nan, 3)]])
def test_plan_without_masks_has_no_batches(make_plan, positions):
    plan = make_plan(positions)
    assert plan.batches == []
    assert len(plan.flags) == len(positions)


# Parts of a plan


def test_restricted_plan_keeps_the_masks_that_reach_into_its_windows(make_plan):
    positions = [(60.0, 50.0), (66.0, 50.0), (60.0, 105.0), (60.0, 400.0)]
    plan = make_plan(positions, data=make_sky((450, 124), positions), batch_size=1, mask_radius=6)
    (number,) = (n for n, (index, _) in enumerate(plan.batches) if index[0] == 0)
    part = plan.restricted([plan.batches[number]])
    assert part.batches == [plan.batches[number]]
    # The window is 97 pixels wide: the third mask is 49 pixels off, the fourth far away.
    assert [mask is None for mask in part.masks] == [False, False, False, True]
    size = part.batches[0][1]
    window = np.s_[50 - size // 2 : 51 + size // 2, 60 - size // 2 : 61 + size // 2]
    assert_array_equal(
        combined_mask(part.masks, part.image.shape)[window],
        combined_mask(plan.masks, plan.image.shape)[window],
    )
    # The whole plan is as it was, and what is not about masks is shared.
    assert all(mask is not None for mask in plan.masks)
    assert part.image is plan.image
    assert_array_equal(part.flags, plan.flags)


def test_plan_travels_to_another_process_without_its_map(make_plan):
    plan = replace(make_plan(), image=None)
    copy = pickle.loads(pickle.dumps(plan))
    assert_array_equal(copy.snr, plan.snr)
    assert_array_equal(copy.mask_radii, plan.mask_radii)
    assert len(pickle.dumps(plan)) < make_sky().nbytes / 4


# Centroids


def test_centroid_function_refines_displaced_centers(make_estimator):
    lone = np.array([SOURCES[2]])
    estimator = make_estimator(centroid_func=centroid_com)
    data = make_sky(sources=lone, flux=1e4) - make_sky(sources=())
    found = estimator.estimate(data, np.add(lone, (1.2, -0.9))).sources
    before = np.hypot(1.2, 0.9)
    after = np.hypot(found['x_center'] - lone[0, 0], found['y_center'] - lone[0, 1])[0]
    assert after < before / 3
    assert decode_flags(found['flags']) == [[]]


@pytest.mark.parametrize('x', [60.0, 1.0])
@pytest.mark.parametrize('found', [(np.nan, np.nan), (500.0, 3.0), ValueError('no')])
def test_failed_centroids_keep_the_position_and_are_flagged(make_estimator, sky, found, x):
    def fail(data, mask=None):
        assert data.shape == mask.shape
        if isinstance(found, Exception):
            raise found
        return np.array(found)

    table = make_estimator(centroid_func=fail).estimate(sky, [(x, 50.25)], mask_radius=0.5).sources
    assert (table['x_center'][0], table['y_center'][0]) == (x, 50.25)
    assert decode_flags(table['flags']) == [['centroid_failed']]


def test_centroids_on_a_blank_field_are_flagged_and_no_error(make_estimator):
    estimator = make_estimator(centroid_func=centroid_com)
    blank = estimator.estimate(np.full(SHAPE, np.nan), [(60, 50)])
    zero = estimator.estimate(np.zeros(SHAPE), [(60, 50), (300, 50), (np.nan, 3)])
    assert decode_flags(blank.flags) == [['no_background']]
    assert decode_flags(zero.flags) == [['centroid_failed'], ['off_map'], ['invalid_position']]
