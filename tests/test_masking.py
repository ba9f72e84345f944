"""Tests of masks: signal-to-noise ratio, radius, pixels and flags."""

import math

import numpy as np
import pytest
from astropy import units as u
from numpy.testing import assert_allclose, assert_array_equal
from regions import (
    CircleAnnulusPixelRegion,
    CirclePixelRegion,
    EllipsePixelRegion,
    PixCoord,
    PolygonPixelRegion,
    RectanglePixelRegion,
)

from csr_astro.cutouts import extract_mask
from csr_astro.flags import BITS, decode_flags
from csr_astro.images import parse_image
from csr_astro.instruments import get_instrument
from csr_astro.masking import (
    combined_mask,
    disc,
    draw_masks,
    flag_masks,
    mask_radii,
    measure_snr,
    region_mask,
)
from csr_astro.sources import parse_sources

SHAPE = (40, 50)


def on_map(source_mask, shape=SHAPE):
    """The mask as a boolean map."""
    image = np.zeros(shape, dtype=bool)
    if source_mask is not None:
        image[source_mask.window] = source_mask.pixels
    return image


def distances(x, y, shape=SHAPE):
    return np.array(
        [[math.hypot(column - x, row - y) for column in range(shape[1])] for row in range(shape[0])]
    )


# Discs


@pytest.mark.parametrize(
    ('radius', 'count'),
    [(1, 5), (4, 49), (5, 81), (6, 113), (7, 149), (8, 197), (9, 253), (10, 317), (12, 441)],
)
def test_disc_about_a_pixel_holds_the_known_number_of_pixels(radius, count):
    """How many lattice points a circle holds (OEIS A000328)."""
    source_mask = disc(20, 18, radius, SHAPE)
    assert source_mask.pixels.sum() == count
    assert source_mask.radius == radius
    assert not source_mask.clipped


@pytest.mark.parametrize('seed', range(40))
def test_disc_holds_the_pixels_within_its_radius(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform((-8, -8), (57, 47))
    radius = rng.uniform(1, 14)
    expected = distances(x, y) <= radius
    source_mask = disc(x, y, radius, SHAPE)
    assert_array_equal(on_map(source_mask), expected)
    assert (source_mask is None) == (not expected.any())
    whole = disc(x + 100, y + 100, radius, (300, 300)).pixels
    if source_mask is not None:
        assert source_mask.clipped == (expected.sum() < whole.sum())


@pytest.mark.parametrize('shift', [(1, 0), (17, -5), (1000, 2000), (100_003, 65_537)])
@pytest.mark.parametrize(
    ('x', 'y', 'radius'),
    # Pixels lie on the rim of the last three, by the Pythagorean triples 3-4-5 and 7-24-25.
    [(20.37, 18.81, 7.5), (10.3, 20.4, 5.5), (30.7, 20.6, 5.5), (24.4, 20.2, 8)],
)
def test_disc_moves_with_its_source_by_whole_pixels(x, y, radius, shift):
    dx, dy = shift
    shape = (100_000, 200_000)
    here, there = disc(x, y, radius, shape), disc(x + dx, y + dy, radius, shape)
    assert (there.y0 - here.y0, there.x0 - here.x0) == (dy, dx)
    assert_array_equal(there.pixels, here.pixels)


@pytest.mark.parametrize('radius', [0, 1e-9, 0.1, 0.49])
@pytest.mark.parametrize(('x', 'y'), [(7, 9), (7.4, 8.6), (6.51, 9.49)])
def test_tiny_disc_is_the_pixel_of_the_source(radius, x, y):
    assert np.argwhere(on_map(disc(x, y, radius, SHAPE))).tolist() == [[9, 7]]


@pytest.mark.parametrize(
    ('x', 'y'), [(-6, 10), (55.5, 10), (20, -5.8), (20, 45.1), (-4, -4), (1e6, -1e6)]
)
def test_disc_off_the_map_is_none(x, y):
    assert disc(x, y, 5, SHAPE) is None


# Regions

CENTER = PixCoord(21.3, 17.8)
REGIONS = [
    CirclePixelRegion(CENTER, 6.2),
    EllipsePixelRegion(CENTER, 13, 6, 35 * u.deg),
    RectanglePixelRegion(CENTER, 12, 5, 20 * u.deg),
    CircleAnnulusPixelRegion(CENTER, 3, 6),
    PolygonPixelRegion(PixCoord([15, 27.6, 22.1], [12.23, 15.7, 25])),
    CirclePixelRegion(CENTER, 5) | CirclePixelRegion(PixCoord(27, 20), 4),
    CirclePixelRegion(PixCoord(1, 38), 6),
]


@pytest.mark.parametrize('region', REGIONS, ids=lambda region: type(region).__name__)
def test_region_mask_holds_the_pixels_whose_centres_are_inside(region):
    rows, columns = np.indices(SHAPE)
    expected = region.contains(PixCoord(columns, rows))
    source_mask = region_mask(region, 21.3, 17.8, SHAPE)
    assert_array_equal(on_map(source_mask), expected)
    assert_array_equal(on_map(source_mask), region.to_mask(mode='center').to_image(SHAPE) > 0)
    assert source_mask.clipped == (region is REGIONS[-1])
    if not source_mask.clipped:
        assert source_mask.radius == pytest.approx(distances(21.3, 17.8)[expected].max())


def test_region_between_pixel_centres_is_the_pixel_of_the_source():
    region = CirclePixelRegion(PixCoord(20.4, 15.4), 0.2)
    assert np.argwhere(on_map(region_mask(region, 20.4, 15.4, SHAPE))).tolist() == [[15, 20]]


def test_region_off_the_map_is_none():
    assert region_mask(CirclePixelRegion(PixCoord(-10, 5), 6), -10, 5, SHAPE) is None


# Signal-to-noise ratio

BLUE = get_instrument('pacs-scanmap-blue')
SPIRE = get_instrument('spire-500')


def loop_snr(data, x, y, radii):
    """Eq. 1 of the paper, pixel by pixel."""
    peak_radius, inner, outer = radii
    circle, ring = [], []
    for (row, column), value in np.ndenumerate(data):
        distance = math.hypot(column - x, row - y)
        if not math.isfinite(value):
            continue
        if distance <= peak_radius:
            circle.append(float(value))
        if inner <= distance <= outer:
            ring.append(float(value))
    if not circle or len(ring) < 2:
        return math.nan
    mean = math.fsum(ring) / len(ring)
    return (max(circle) - mean) / math.sqrt(math.fsum((v - mean) ** 2 for v in ring) / len(ring))


def make_map(seed=0, shape=(60, 70)):
    rng = np.random.default_rng(seed)
    data = rng.normal(5, 2, shape)
    data[30, 35] += 40
    data[rng.random(shape) < 0.1] = np.nan
    data[:, 55:58] = np.inf
    return data


POSITIONS = np.array([
    (35.2, 30.1), (12.7, 15.3), (0.3, 0.4), (69.1, 59.2), (-3.3, 20.2), (40.1, 70.6), (56.3, 2.2)
])  # fmt: skip


@pytest.mark.parametrize('instrument', [BLUE, SPIRE, get_instrument('pacs-parallel-green')])
def test_snr_is_that_of_the_paper(instrument):
    data = make_map()
    snr = measure_snr(parse_image(data), *POSITIONS.T, instrument)
    expected = [loop_snr(data, x, y, instrument.snr_radii) for x, y in POSITIONS]
    assert_allclose(snr, expected, rtol=1e-12)
    assert np.isfinite(snr[:3]).all()


def test_snr_does_not_see_masked_pixels():
    data = np.nan_to_num(make_map(), nan=1e6, posinf=-1e6)
    mask = ~np.isfinite(make_map())
    snr = measure_snr(parse_image(data, mask=mask), *POSITIONS.T, BLUE)
    assert_array_equal(snr, measure_snr(parse_image(make_map()), *POSITIONS.T, BLUE))


def test_snr_depends_on_no_other_source():
    """More sources than fit into one chunk, in another order."""
    image = parse_image(make_map())
    x, y = np.random.default_rng(1).uniform(-5, 75, (2, 600))
    snr = measure_snr(image, x, y, BLUE)
    order = np.random.default_rng(2).permutation(600)
    assert_array_equal(measure_snr(image, x[order], y[order], BLUE), snr[order])
    assert measure_snr(image, x[:1], y[:1], BLUE) == snr[0]


@pytest.mark.parametrize('shift', [1, 64, 1000])
@pytest.mark.parametrize(('x', 'y'), [(35.2, 30.1), (34.4, 30.2), (35.7, 29.6)])
def test_snr_moves_with_its_source_by_whole_pixels(x, y, shift):
    """Some pixels lie on the rims of the circle and of the ring."""
    data = np.nan_to_num(make_map(), posinf=0)
    # Increasing from the source, so that the outermost pixels matter.
    data += 1e3 * distances(x, y, data.shape)
    moved = np.full((60 + shift, 70 + shift), np.nan)
    moved[shift:, shift:] = data
    here = measure_snr(parse_image(data), [x], [y], BLUE)
    there = measure_snr(parse_image(moved), [x + shift], [y + shift], BLUE)
    assert_allclose(there, here, rtol=1e-12)


@pytest.mark.parametrize('dtype', ['>f8', '>i4', '<i2', 'u1'])
def test_snr_does_not_depend_on_the_kind_of_numbers(dtype):
    data = np.random.default_rng(0).integers(0, 100, (60, 70))
    expected = [loop_snr(data, x, y, BLUE.snr_radii) for x, y in POSITIONS]
    snr = measure_snr(parse_image(data.astype(dtype)), *POSITIONS.T, BLUE)
    assert_allclose(snr, expected, rtol=1e-12)


@pytest.mark.parametrize('factor', [1e-300, 1e-30, -1, 1e30, 1e300])
@pytest.mark.parametrize('offset', [0, 1e4])
def test_snr_does_not_depend_on_the_unit(factor, offset):
    data = make_map() + offset
    expected = measure_snr(parse_image(data), *POSITIONS.T, BLUE)
    if factor < 0:
        data, expected = -data, measure_snr(parse_image(-data), *POSITIONS.T, BLUE)
    snr = measure_snr(parse_image(data * abs(factor)), *POSITIONS.T, BLUE)
    assert_allclose(snr, expected, rtol=1e-9)


@pytest.mark.parametrize('level', [0, 0.1, -3, 1e30, 1e-30])
@pytest.mark.parametrize(('peak', 'expected'), [(2, np.inf), (1, 0), (0.5, -np.inf)])
def test_snr_over_a_ring_without_scatter(level, peak, expected):
    data = np.full((60, 70), level, dtype=float)
    rows, columns = np.indices(data.shape)
    data[np.hypot(columns - 35, rows - 30) <= 8] += (peak - 1) * (abs(level) or 1)
    assert measure_snr(parse_image(data), [35], [30], BLUE) == [expected]


def test_snr_is_unknown_where_nothing_can_be_measured():
    data = make_map()
    rows, columns = np.indices(data.shape)
    distance = np.hypot(columns - 35, rows - 30)
    without_circle = np.where(distance <= 8, np.nan, data)
    without_ring = np.where(distance > 9.9, np.nan, data)
    one_in_ring = without_ring.copy()
    one_in_ring[30, 50] = 1
    for image in (without_circle, without_ring, one_in_ring, np.full_like(data, np.nan)):
        assert np.isnan(measure_snr(parse_image(image), [35], [30], BLUE))
    away = [np.nan, 35, -50, 1e9, -1e300], [30, np.nan, 10, 10, 10]
    assert np.isnan(measure_snr(parse_image(data), *away, BLUE)).all()
    assert measure_snr(parse_image(data), [], [], BLUE).shape == (0,)


# Radii

SOURCES = parse_sources([(10, 10), (20, 20), (30, 30)])
SNR = np.array([500, 9.5, np.nan])
DRAWN = parse_sources([CirclePixelRegion(PixCoord(x, x), 3) for x in (10, 20)])


def test_radii_follow_the_snr():
    for mask_radius in (None, 'snr'):
        names, radii = mask_radii(mask_radius, SOURCES, SNR, BLUE, 1.6)
        assert names.tolist() == ['full', 'small', 'minimal']
        assert radii.tolist() == [12, 7, 5]


@pytest.mark.parametrize(
    ('mask_radius', 'expected'),
    [
        (6, [6, 6, 6]),
        (6.5 * u.pix, [6.5, 6.5, 6.5]),
        (6.5 * u.dimensionless_unscaled, [6.5, 6.5, 6.5]),
        (12 * u.arcsec, [4, 4, 4]),
        (0.2 * u.arcmin, [4, 4, 4]),
        ([4, 5.5, 6], [4, 5.5, 6]),
        ((4, 5, 6) * u.pix, [4, 5, 6]),
        (np.array([6, 9, 15]) * u.arcsec, [2, 3, 5]),
        (np.array([4, 5, 6], dtype='>i2'), [4, 5, 6]),
    ],
)
def test_given_radii_are_used(mask_radius, expected):
    names, radii = mask_radii(mask_radius, SOURCES, SNR, BLUE, 3.0)
    assert names.tolist() == ['fixed'] * 3
    assert_allclose(radii, expected, rtol=1e-12)


def test_angles_without_wcs_use_the_pixels_of_the_instrument():
    _, radii = mask_radii(8 * u.arcsec, SOURCES, SNR, BLUE, None)
    assert_allclose(radii, [5, 5, 5])
    with pytest.raises(ValueError, match='mask_radius is an angle, and the data have no WCS'):
        mask_radii(8 * u.arcsec, SOURCES, SNR, get_instrument(), None)


def test_regions_are_masks_unless_something_else_is_asked_for():
    snr = SNR[:2]
    names, radii = mask_radii(None, DRAWN, snr, BLUE, 1.6)
    assert names.tolist() == ['region', 'region']
    assert np.isnan(radii).all()
    assert mask_radii('snr', DRAWN, snr, BLUE, 1.6)[1].tolist() == [12, 7]
    assert mask_radii(4, DRAWN, snr, BLUE, 1.6)[1].tolist() == [4, 4]


def test_points_among_regions_follow_the_snr():
    mixed = parse_sources([*DRAWN.regions, CirclePixelRegion(PixCoord(9, 9), 3)])
    mixed.regions[1] = None
    names, radii = mask_radii(None, mixed, SNR, BLUE, 1.6)
    assert names.tolist() == ['region', 'small', 'region']
    assert_array_equal(radii, [np.nan, 7, np.nan])


@pytest.mark.parametrize(
    ('mask_radius', 'exception', 'sentence'),
    [
        ('auto', ValueError, "mask_radius must be 'snr', .*got 'auto'"),
        (0, ValueError, 'must be positive and finite'),
        (-3 * u.arcsec, ValueError, 'must be positive and finite'),
        ([5, np.nan, 5], ValueError, 'must be positive and finite'),
        (np.inf, ValueError, 'must be positive and finite'),
        ([5, 6], ValueError, r'one for each of the 3 sources, got shape \(2,\)'),
        (np.ones((3, 1)), ValueError, r'one for each of the 3 sources, got shape \(3, 1\)'),
        (5 * u.Jy, ValueError, 'must be in pixels or an angle, got Jy'),
        ({'radius': 5}, TypeError, 'must be a number or numbers'),
        (['a', 'b', 'c'], TypeError, 'must be a number or numbers'),
    ],
)
def test_wrong_radii_are_refused(mask_radius, exception, sentence):
    with pytest.raises(exception, match=sentence):
        mask_radii(mask_radius, SOURCES, SNR, BLUE, 1.6)


# All masks


def draw(positions, radii):
    image = parse_image(np.zeros(SHAPE))
    masks, flags = draw_masks(image, parse_sources(positions), np.asarray(radii, dtype=float))
    return masks, decode_flags(flags)


def test_every_source_has_a_mask_or_a_flag():
    positions = [(10, 10), (-3, 10), (-9, 10), (20, 20), (1e30, 5), (49.4, 39.4), (25, 20)]
    masks, flags = draw(positions, [5, 5, 5, 221, 5, 0.1, 220])
    assert flags == [[], [], ['off_map'], ['mask_too_large'], ['off_map'], [], []]
    assert [m is None for m in masks] == [bool(names) for names in flags]
    assert [m.clipped for m in masks if m is not None] == [False, True, False, True]
    assert_array_equal(on_map(masks[0]), distances(10, 10) <= 5)
    assert_array_equal(on_map(masks[1]), distances(-3, 10) <= 5)
    assert masks[-1].pixels.all()


def test_regions_are_drawn_where_there_is_no_radius():
    regions = [REGIONS[1], CirclePixelRegion(PixCoord(-20, 0), 3), REGIONS[0]]
    masks, flags = draw(regions, [np.nan, np.nan, 4])
    assert flags == [[], ['off_map'], []]
    assert_array_equal(on_map(masks[0]), REGIONS[1].to_mask(mode='center').to_image(SHAPE) > 0)
    assert masks[1] is None
    assert_array_equal(on_map(masks[2]), distances(21.3, 17.8) <= 4)


def test_region_larger_than_the_largest_window_is_flagged():
    regions = [RectanglePixelRegion(PixCoord(20, 20), 500, 3), CirclePixelRegion(CENTER, 230)]
    masks, flags = draw(regions, [np.nan, np.nan])
    assert masks == [None, None]
    assert flags == [['mask_too_large']] * 2


def test_source_without_position_is_flagged():
    masks, flags = draw([(np.nan, 5), (5, 5), (5, np.inf)], [5, 5, 221])
    assert flags == [['invalid_position'], [], ['invalid_position']]
    assert [m is None for m in masks] == [True, False, True]


# Several masks


def test_combined_mask_holds_the_pixels_of_all():
    masks = [disc(10, 10, 4, SHAPE), None, disc(14, 11, 5, SHAPE), disc(49, 39, 6, SHAPE)]
    combined = combined_mask(masks, SHAPE)
    expected = distances(10, 10) <= 4
    expected |= (distances(14, 11) <= 5) | (distances(49, 39) <= 6)
    assert combined.dtype == bool
    assert_array_equal(combined, expected)
    assert_array_equal(combined_mask(iter(masks), SHAPE), expected)
    # A new array each time.
    combined[:] = False
    assert_array_equal(combined_mask(masks, SHAPE), expected)


@pytest.mark.parametrize('masks', [[], [None, None]])
def test_combined_mask_of_nothing_is_empty(masks):
    combined = combined_mask(masks, SHAPE)
    assert combined.shape == SHAPE
    assert not combined.any()


def flag(masks, data=None):
    image = parse_image(np.zeros(SHAPE) if data is None else data)
    return decode_flags(flag_masks(image, masks))


@pytest.mark.parametrize(
    ('distance', 'expected'), [(6, ['overlap']), (7, ['touching']), (8, []), (0, ['overlap'])]
)
def test_masks_that_overlap_or_touch_are_flagged(distance, expected):
    masks = [disc(15, 20, 3, SHAPE), disc(15 + distance, 20, 3, SHAPE), None]
    assert flag(masks) == [expected, expected, []]


def test_masks_that_touch_at_a_corner_are_flagged():
    masks = [disc(10, 10, 0, SHAPE), disc(11, 11, 0, SHAPE), disc(13, 11, 0, SHAPE)]
    assert flag(masks) == [['touching'], ['touching'], []]


def test_masks_at_the_edge_or_with_invalid_pixels_are_flagged():
    data = np.zeros(SHAPE)
    data[20, 30], data[5, 5] = np.nan, np.inf
    masks = [disc(1, 20, 3, SHAPE), disc(31, 20, 3, SHAPE), disc(3, 5, 4, SHAPE)]
    assert flag(masks, data) == [['edge'], ['invalid_pixels'], ['edge', 'invalid_pixels']]


@pytest.mark.parametrize('n', [1, 2, 255, 256, 65_536])
def test_pixel_may_be_in_any_number_of_masks(n):
    # Masks of one pixel; counts that small integers cannot hold are among them.
    mask = disc(7, 9, 0, SHAPE)
    flags = flag_masks(parse_image(np.zeros(SHAPE)), [mask, None] * n)
    assert set(flags[::2]) == ({BITS['overlap']} if n > 1 else {0})
    assert not flags[1::2].any()


def test_mask_knows_which_pixels_it_holds():
    mask = disc(2, 20, 5, SHAPE)
    rows, columns = np.indices(SHAPE).reshape(2, -1)
    held = mask.holds(rows, columns)
    assert_array_equal(held.reshape(SHAPE), on_map(mask))
    assert not mask.holds(np.array([-1, 20]), np.array([2, -1])).any()


def test_mask_is_at_the_same_place_in_a_window():
    mask = disc(20.4, 18.6, 5, SHAPE)
    window = extract_mask(on_map(mask), [20.4], [18.6], 33)[0]
    inside = np.zeros((33, 33), dtype=bool)
    inside[mask.in_window(20.4, 18.6, 33)] = True
    assert_array_equal(inside, window)
