import copy
import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from photutils.background import LocalBackground
from photutils.centroids import centroid_com
from regions import CirclePixelRegion, EllipsePixelRegion, PixCoord, PolygonPixelRegion
from scipy import ndimage

from csr_astro import NeuralBackground, NeuralBackgroundEstimator, cutouts, prediction
from csr_astro.flags import decode_flags
from csr_astro.nn.inpainter import Inpainter
from csr_astro.nn.unet import PartialConvUNet
from csr_astro.nn.weights import save_weights

# Invariances of the paper's preset hold for any weights.
pytestmark = pytest.mark.filterwarnings('ignore:the preset')

SHAPE = (110, 124)
# (x, y): a pair that overlaps, a lone one, one on the edge, one in a corner.
SOURCES = [(40.3, 60.2), (47.8, 62.6), (90.0, 33.4), (60.2, 1.0), (121.7, 108.4)]


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Networks that have learnt nothing: what must hold for any weights holds for them.

    'blank' says that every pixel is the middle between the minimum and the maximum.
    """
    folder = tmp_path_factory.mktemp('weights')
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        network = PartialConvUNet(0.125)
        for parameter in network.parameters():
            if parameter.ndim == 4:
                torch.nn.init.kaiming_normal_(parameter)
        last = network.decoder[-1].conv
        # Answers of the size of the normalised image.
        answer = network.eval()(torch.randn(1, 1, 96, 96), torch.ones(1, 1, 96, 96))
        last.weight /= 3 * answer.std()
        save_weights(folder / 'local.safetensors', Inpainter(network, 'local'))
        save_weights(folder / 'minmax.safetensors', Inpainter(network, 'minmax', fill='none'))
        last.weight[:], last.bias[:] = 0, 0
        save_weights(folder / 'blank.safetensors', Inpainter(network, 'minmax', fill='none'))
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope='module')
def make(weights):
    def make_estimator(name='local', *, orientations=1, **options):
        return NeuralBackgroundEstimator(
            weights.get(name, name), orientations=orientations, **options
        )

    return make_estimator


@pytest.fixture(scope='module')
def estimator(make):
    return make()


def make_sky(shape=SHAPE, sources=SOURCES, flux=400, seed=0):
    """A slope, noise of scatter 1 and Gaussian stars of FWHM 3.3."""
    yy, xx = np.indices(shape)
    sky = 20 + 0.05 * xx - 0.02 * yy + np.random.default_rng(seed).normal(0, 1, shape)
    for x, y in sources:
        sky += flux / (4 * np.pi) * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 4)
    sky.flags.writeable = False
    return sky


@pytest.fixture(scope='module')
def sky():
    return make_sky()


@pytest.fixture(scope='module')
def result(estimator, sky):
    return estimator.estimate(sky, SOURCES)


def make_wcs(scale=1.6):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval = 269.15, 51.49
    wcs.wcs.crpix = 60, 50
    wcs.wcs.cdelt = -scale / 3600, scale / 3600
    return wcs


def discs(positions, radii, shape=SHAPE):
    """Pixels whose centres lie in any of the discs."""
    yy, xx = np.indices(shape)
    radii = np.broadcast_to(radii, len(positions))
    return np.any(
        [np.hypot(xx - x, yy - y) <= r + 1e-9 for (x, y), r in zip(positions, radii, strict=True)],
        axis=0,
    )


def assert_same(result, other):
    """Equal to the last bit."""
    for name in ('background', 'background_rms', 'source_image', 'mask'):
        assert_array_equal(getattr(result, name), getattr(other, name))
    for name in result.sources.colnames:
        assert_array_equal(result.sources[name], other.sources[name])


# Pixels outside the mask


@pytest.mark.parametrize('dtype', ['<f4', '>f4', '<f8', '>f8', '<f2', '>i2', 'u1', '<i4'])
def test_pixels_outside_the_mask_are_bit_identical(estimator, sky, dtype):
    data = sky.astype(dtype)
    if data.dtype.kind == 'f':
        data[20:25, 30:40] = np.nan
        data[70, 20:23] = np.inf, -np.inf, -0.0
    data.flags.writeable = False
    result = estimator.estimate(data, SOURCES)
    kind = data.dtype.newbyteorder('=') if data.dtype.kind == 'f' else np.dtype(float)
    outside = ~result.mask
    assert result.background.dtype == kind
    assert result.background[outside].tobytes() == data[outside].astype(kind).tobytes()
    assert np.isfinite(result.background[result.mask]).all()
    assert not result.source_image[outside].any()
    assert not result.background_rms[outside].any()
    assert (result.background_rms[result.mask] > 0).all()


@pytest.mark.parametrize('dtype', ['f4', 'f8', '>i2'])
def test_map_minus_sources_is_the_background(estimator, sky, dtype):
    data = sky.astype(dtype)
    result = estimator.estimate(data, SOURCES)
    eps = np.finfo(result.background.dtype).eps
    assert_allclose(data - result.source_image, result.background, rtol=0, atol=200 * eps)
    outside = ~result.mask
    assert_array_equal((data - result.source_image)[outside], result.background[outside])


def test_map_may_be_cleaned_in_place(estimator, sky):
    data = sky.copy()
    result = estimator.estimate(data, SOURCES)
    expected = estimator.estimate(sky, SOURCES).source_image
    data[:] = result.background
    assert_array_equal(result.source_image, expected)


def test_inputs_are_not_modified(estimator, sky):
    table = QTable({'x': [40.3, 90.0], 'y': [60.2, np.nan]})
    inputs = [sky.copy(), np.zeros(SHAPE, bool), np.ones(SHAPE), np.array([[5.0, 6.0]])]
    before = copy.deepcopy(inputs)
    data, mask, error, positions = inputs
    estimator.estimate(data, positions, mask=mask, error=error).background[:] = 0
    estimator.estimate(data, table).source_image[:] = 0
    estimator.estimate(CCDData(data, unit='Jy', mask=mask), table).to_ccddata().data[:] = 0
    for changed, original in zip(inputs, before, strict=True):
        assert_array_equal(changed, original)
    assert_array_equal(table['x'], [40.3, 90.0])
    assert_array_equal(table['y'], [60.2, np.nan])


def test_memory_mapped_file_is_read_and_kept(estimator, sky, result, tmp_path):
    path = tmp_path / 'map.fits'
    fits.PrimaryHDU(sky).writeto(path)
    before = path.read_bytes()
    with fits.open(path, memmap=True, mode='denywrite') as hdus:
        assert_same(estimator.estimate(hdus[0], SOURCES), result)
    raw = np.memmap(path, '>f8', 'r', offset=2880, shape=SHAPE)
    assert_same(estimator.estimate(raw, SOURCES), result)
    assert path.read_bytes() == before


# What the result must not depend on


@pytest.mark.parametrize('preset', ['default', 'paper'])
@pytest.mark.parametrize('mask_radius', [None, [5, 9, 7, 6, 5, 7, 6.5]])
@pytest.mark.parametrize('order', [[6, 5, 4, 3, 2, 1, 0], [2, 0, 5, 6, 1, 4, 3]])
def test_result_does_not_depend_on_the_order_of_the_sources(make, sky, preset, mask_radius, order):
    positions = np.array([*SOURCES, SOURCES[0], (44.1, 57.3)])
    radii = mask_radius if mask_radius is None else np.array(mask_radius)
    estimator = make(preset=preset, batch_size=3)
    result = estimator.estimate(sky, positions, mask_radius=radii)
    other = estimator.estimate(
        sky, positions[order], mask_radius=None if radii is None else radii[order]
    )
    assert_array_equal(other.background, result.background)
    assert_array_equal(other.background_rms, result.background_rms)
    for name in set(result.sources.colnames) - {'id'}:
        assert_array_equal(other.sources[name], result.sources[name][order])


def test_batches_are_halved_when_memory_runs_out(make, sky, monkeypatch):
    expected = make(batch_size=1).estimate(sky, SOURCES).background
    sizes = []

    def little_memory(model, values, *args, **options):
        sizes.append(len(values))
        if len(values) > 1:
            raise torch.OutOfMemoryError
        return cutouts.predict(model, values, *args, **options)

    monkeypatch.setattr(prediction, 'predict', little_memory)
    assert_allclose(make(batch_size=4).estimate(sky, SOURCES).background, expected, rtol=1e-6)
    assert max(sizes) > 1
    monkeypatch.setattr(prediction, 'predict', lambda *_, **__: _out_of_memory())
    with pytest.raises(torch.OutOfMemoryError):
        make(batch_size=4).estimate(sky, SOURCES)


def _out_of_memory():
    raise torch.OutOfMemoryError


@pytest.mark.parametrize('batch_size', [1, 3, 16])
@pytest.mark.parametrize(
    ('name', 'tolerance'), [('default', 1e-5), ('local', 1e-3), ('minmax', 1e-3)]
)
def test_result_does_not_depend_on_the_batch_size(make, sky, name, tolerance, batch_size):
    result = make(name, batch_size=2).estimate(sky, SOURCES)
    other = make(name, batch_size=batch_size).estimate(sky, SOURCES)
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
def test_result_follows_flips_and_rotations(make, sky, flip):
    turn, move = FLIPS[flip]
    estimator = make(orientations=8)
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
def test_constant_map_stays_exactly_constant(make, value, dtype, orientations):
    data = np.full(SHAPE, value, dtype)
    result = make(orientations=orientations).estimate(data, SOURCES)
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


# Sources that are difficult


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
def test_map_without_background_is_left_as_it_is(make, sky, how, preset):
    data, mask, radius = sky, None, 6
    if how == 'mask':
        mask = np.ones(SHAPE, bool)
    elif how == 'blank':
        data = np.full(SHAPE, np.nan)
    else:
        radius = 150
    result = make(preset=preset).estimate(data, SOURCES, mask=mask, mask_radius=radius)
    assert decode_flags(result.flags) == [['no_background']] * len(SOURCES)
    assert_array_equal(result.background, data)
    assert not result.mask.any()
    assert np.isnan(result.sources['background']).all()
    assert_array_equal(result.realization(0), data)


def test_mask_that_no_window_holds_is_flagged(estimator, sky):
    result = estimator.estimate(sky, [(60, 50), (20, 20)], mask_radius=[1000, 5])
    assert decode_flags(result.flags) == [['mask_too_large'], []]
    assert_array_equal(result.mask, discs([(20, 20)], 5))


def test_source_without_signal_to_noise_gets_the_smallest_mask(make, sky):
    data = sky.copy()
    data[33:68, 43:78] = np.nan
    result = make(instrument='pacs-scanmap-blue').estimate(data, [(60, 50)])
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
def test_signal_to_noise_decides_the_mask(make, instrument, radii, masks):
    positions = [(30.0, 30.0), (90.3, 30.2), (30.0, 100.4), (90.0, 100.0), (150.0, 30.0),
                 (150.0, 100.0)]  # fmt: skip
    fluxes = [40, 90, 150, 2000, 4500, 30000]
    sky = np.array(make_sky((130, 180), ()))
    for position, flux in zip(positions, fluxes, strict=True):
        sky += make_sky(sky.shape, [position], flux) - make_sky(sky.shape, ())
    table = make(instrument=instrument).estimate(sky, positions).sources
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


def test_masks_keep_their_size_on_the_sky(make, sky):
    """Twice the pixels per beam, twice the radius in pixels."""
    estimator = make(instrument='pacs-scanmap-blue')
    radii = {'moderate': 9, 'small': 7, 'focused': 6, 'minimal': 5}
    for scale, factor in [(1.6, 1), (1.61, 1), (0.8, 2), (3.2, 0.5)]:
        row = estimator.estimate(sky, SOURCES[2:3], wcs=make_wcs(scale)).sources[0]
        assert_allclose(row['mask_radius'], factor * radii[row['mask_name']], rtol=1e-9)


# Units and world coordinates


@pytest.mark.parametrize('unit', [None, 'Jy/pixel', 'MJy/sr', ''])
def test_unit_in_is_unit_out(estimator, sky, result, unit):
    data = sky if unit is None else u.Quantity(sky, unit)
    found = estimator.estimate(data, SOURCES)
    columns = [found.sources[name] for name in ('background', 'background_scatter')]
    images = [found.background, found.background_rms, found.source_image, found.realization(1)]
    for values in images + columns:
        assert isinstance(values, u.Quantity) == (unit is not None)
        if unit is not None:
            assert values.unit == u.Unit(unit)
    assert_array_equal(u.Quantity(found.background).value, result.background)


def test_sky_coordinates_give_pixels_and_stay_in_the_table(estimator, sky, result):
    wcs = make_wcs()
    coordinates = wcs.pixel_to_world(*np.transpose(SOURCES))
    found = estimator.estimate(CCDData(sky, unit='adu', wcs=wcs), coordinates)
    assert_allclose(found.background, result.background, rtol=0, atol=1e-4)
    assert_allclose(found.sources['x_center'], np.transpose(SOURCES)[0], rtol=1e-9)
    assert isinstance(found.sources['sky_center'], SkyCoord)
    assert found.sources['sky_center'].separation(coordinates).max() < 1e-6 * u.arcsec
    assert 'sky_center' not in result.sources.colnames


# Centres


def test_centroid_function_refines_displaced_centers(make):
    lone = np.array([SOURCES[2]])
    estimator = make(centroid_func=centroid_com)
    data = make_sky(sources=lone, flux=1e4) - make_sky(sources=())
    found = estimator.estimate(data, np.add(lone, (1.2, -0.9))).sources
    before = np.hypot(1.2, 0.9)
    after = np.hypot(found['x_center'] - lone[0, 0], found['y_center'] - lone[0, 1])[0]
    assert after < before / 3
    assert decode_flags(found['flags']) == [[]]


@pytest.mark.parametrize('x', [60.0, 1.0])
@pytest.mark.parametrize('found', [(np.nan, np.nan), (500.0, 3.0), ValueError('no')])
def test_failed_centroids_keep_the_position_and_are_flagged(make, sky, found, x):
    def fail(data, mask=None):
        assert data.shape == mask.shape
        if isinstance(found, Exception):
            raise found
        return np.array(found)

    table = make(centroid_func=fail).estimate(sky, [(x, 50.25)], mask_radius=0.5).sources
    assert (table['x_center'][0], table['y_center'][0]) == (x, 50.25)
    assert decode_flags(table['flags']) == [['centroid_failed']]


def test_centroids_on_a_blank_field_are_flagged_and_no_error(make):
    estimator = make(centroid_func=centroid_com)
    blank = estimator.estimate(np.full(SHAPE, np.nan), [(60, 50)])
    zero = estimator.estimate(np.zeros(SHAPE), [(60, 50), (300, 50), (np.nan, 3)])
    assert decode_flags(blank.flags) == [['no_background']]
    assert decode_flags(zero.flags) == [['centroid_failed'], ['off_map'], ['invalid_position']]


# The published way


def test_paper_preset_mixes_prediction_and_map_at_the_rim(make, sky):
    """With a network that says 'the middle of the range' everywhere, the weights can be seen."""
    position = [(60.0, 50.0)]
    result = make('blank', preset='paper').estimate(sky, position, mask_radius=7)
    window = sky[2:98, 12:108]
    middle = (window.min() + window.max()) / 2
    keep = ndimage.minimum_filter((~discs(position, 7)).astype(float), 5)
    kernel = np.exp(-0.5 * (np.arange(-2, 3) / 1.1) ** 2)
    kernel /= kernel.sum()
    keep = ndimage.convolve(keep, np.outer(kernel, kernel))
    expected = keep * sky + (1 - keep) * middle
    assert_allclose(result.background, expected, rtol=0, atol=1e-5)
    assert_array_equal(result.mask, keep < 1 - 1e-12)
    assert_allclose(result.background[discs(position, 7)], middle, rtol=1e-6)
    outside = ~result.mask
    assert_array_equal(result.background[outside], sky[outside])
    rim = result.mask & ~discs(position, 8.5)
    low, high = np.minimum(sky, middle), np.maximum(sky, middle)
    assert ((result.background >= low - 1e-5) & (result.background <= high + 1e-5))[rim].all()


def test_paper_preset_agrees_with_the_plain_prediction_inside_the_disc(make, sky):
    position = [SOURCES[2]]
    paper = make('minmax', preset='paper').estimate(sky, position, mask_radius=7)
    plain = make('minmax').estimate(sky, position, mask_radius=7)
    disc = discs(position, 7)
    assert_array_equal(plain.mask, disc)
    assert_allclose(paper.background[disc], plain.background[disc], rtol=1e-9)
    assert paper.mask.sum() > disc.sum()
    assert (paper.background != plain.background).any()


def test_paper_preset_fills_blank_pixels_at_the_rim(make, sky):
    data = sky.copy()
    data[:, 68] = np.nan
    result = make('minmax', preset='paper').estimate(data, [(60, 50)], mask_radius=7)
    assert result.mask[50, 68]
    assert np.isfinite(result.background[result.mask]).all()
    assert_array_equal(result.background[~result.mask], data[~result.mask])


@pytest.mark.parametrize(('preset', 'depends'), [('default', False), ('paper', True)])
def test_only_the_paper_preset_depends_on_the_brightness_of_the_source(make, preset, depends):
    name = 'minmax' if preset == 'paper' else 'local'
    estimator = make(name, preset=preset)
    position = [(60.0, 50.0)]
    faint, bright = (
        estimator.estimate(make_sky(sources=position, flux=flux), position, mask_radius=12)
        for flux in (100, 1e5)
    )
    center = np.s_[45:56, 55:66]
    difference = np.abs(bright.background - faint.background)[center].max()
    assert difference > 1 if depends else difference < 1e-3


def test_paper_preset_warns_of_weights_trained_otherwise(weights):
    with pytest.warns(AstropyUserWarning, match='were trained with .local.'):
        NeuralBackgroundEstimator(weights['local'], preset='paper')


def test_default_preset_uses_eight_orientations_and_paper_one(weights):
    assert NeuralBackgroundEstimator(weights['local']).orientations == 8
    assert NeuralBackgroundEstimator(weights['minmax'], preset='paper').orientations == 1


@pytest.mark.parametrize('orientations', [2, 4, 8])
def test_orientations_change_the_prediction(make, sky, result, orientations):
    other = make(orientations=orientations).estimate(sky, SOURCES)
    assert_array_equal(other.mask, result.mask)
    assert (other.background != result.background)[result.mask].mean() > 0.9


# The protocol of photutils


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


# Sharing, copying and being a good neighbour


@pytest.mark.parametrize(
    'duplicate',
    [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))],
    ids=['copy', 'deepcopy', 'pickle'],
)
def test_copies_give_identical_results(make, sky, duplicate):
    estimator = make(instrument='pacs-scanmap-blue', centroid_func=centroid_com)
    result = estimator.estimate(sky, SOURCES)
    other = duplicate(estimator)
    assert repr(other) == repr(estimator)
    assert_same(other.estimate(sky, SOURCES), result)
    copied = duplicate(result)
    assert_same(copied, result)
    assert_array_equal(copied.realization(3), result.realization(3))


def test_threads_share_an_estimator(make):
    estimator = make(batch_size=2)
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


def test_global_state_is_left_alone(weights, sky):
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
    estimator = NeuralBackgroundEstimator(weights['minmax'], batch_size=7, orientations=2)
    result = estimator.estimate(sky, SOURCES)
    result.realization(3)
    estimator(sky, 60, 50)
    assert state() == before


# Realizations


@pytest.fixture(scope='module')
def noise():
    """A map of noise alone, and the network that is delivered."""
    sky = np.random.default_rng(4).normal(5, 1, (128, 128))
    estimator = NeuralBackgroundEstimator(orientations=1)
    return sky, estimator.estimate(sky, [(30, 30), (90, 40), (40, 95)], mask_radius=7)


def test_realization_is_reproducible(noise):
    sky, result = noise
    first, again, other = (result.realization(seed) for seed in (1, 1, 2))
    assert_array_equal(first, again)
    assert (first != other)[result.mask].mean() > 0.9
    assert_array_equal(first[~result.mask], sky[~result.mask])
    generator = result.realization(np.random.default_rng(1))
    assert_array_equal(generator, first)


def test_realization_has_the_scatter_of_the_map(noise):
    sky, result = noise
    scatter = sky[~result.mask].std()
    off = [
        abs(image[result.mask].std() - scatter)
        for image in (result.realization(1), result.background)
    ]
    assert off[0] < 0.25 * scatter
    assert off[0] < off[1]
    assert abs(result.realization(1)[result.mask].mean() - 5) < 0.5


def test_realization_does_not_change_the_background(noise):
    _, result = noise
    before = result.background.copy()
    result.realization(5)[:] = 0
    assert_array_equal(result.background, before)


# Results as other things


def test_ccddata_carries_unit_mask_and_wcs(estimator, sky):
    mask = np.zeros(SHAPE, bool)
    mask[3:6] = True
    data = CCDData(sky, unit='Jy/pixel', mask=mask, wcs=make_wcs())
    result = estimator.estimate(data, SOURCES)
    ccd = result.to_ccddata()
    assert isinstance(ccd, CCDData)
    # Plain arrays, as ccd.data is.
    assert result.unit == data.unit
    assert_array_equal(ccd.data, result.background)
    clean = data.data - result.source_image
    assert_allclose(clean, result.background, rtol=0, atol=1e-4)
    assert_array_equal(clean[~result.mask], sky[~result.mask])
    assert ccd.unit == u.Unit('Jy/pixel')
    assert_array_equal(ccd.mask, mask)
    assert_array_equal(ccd.flags, result.mask)
    assert ccd.wcs.wcs.compare(data.wcs.wcs)
    assert ccd.meta['sha256'] == result.sources.meta['weights_sha256']
    assert estimator.estimate(sky, []).to_ccddata().unit == u.dimensionless_unscaled


def test_ccddata_can_be_written(make, weights, sky, tmp_path):
    local = tmp_path / 'gewöhnliche weights.safetensors'
    local.write_bytes(weights['local'].read_bytes())
    variance = VarianceUncertainty(sky**2)
    data = CCDData(sky, unit='Jy', mask=sky < 0, wcs=make_wcs(), uncertainty=variance)
    radius = np.linspace(5, 6, len(SOURCES))
    result = make(str(local)).estimate(data, SOURCES, mask_radius=radius)
    path = tmp_path / 'source-free.fits'
    result.to_ccddata().write(path)
    ccd = CCDData.read(path)
    assert_array_equal(ccd.data, result.background)
    assert ccd.header['SHA256'] == result.sources.meta['weights_sha256']
    assert ccd.uncertainty.uncertainty_type == 'std'


def test_meta_says_how_it_was_made(make, weights, sky):
    estimator = make(instrument='pacs-scanmap-blue')
    meta = estimator.estimate(sky, SOURCES, mask_radius=6).sources.meta
    assert {'csr_astro', 'astropy', 'photutils', 'numpy', 'torch'} <= set(meta)
    assert meta['weights'] == str(weights['local'])
    assert len(meta['weights_sha256']) == 64
    expected = {'instrument': 'pacs-scanmap-blue', 'preset': 'default', 'orientations': 1,
                'dtype': 'float32', 'mask_radius': '6'}  # fmt: skip
    assert {key: meta[key] for key in expected} == expected


def test_reprs_say_what_matters(estimator, sky):
    text = repr(estimator)
    assert "instrument='generic'" in text
    assert "preset='default'" in text
    result = estimator.estimate(u.Quantity(sky, 'Jy'), SOURCES)
    assert isinstance(result, NeuralBackground)
    assert '110 x 124 map in Jy, 5 sources' in repr(result)
    assert f'{result.mask.sum()} pixels' in repr(result)


@pytest.mark.parametrize('with_wcs', [False, True])
@pytest.mark.parametrize('n', [0, 5])
def test_plot_returns_three_axes(estimator, sky, n, with_wcs):
    pyplot = pytest.importorskip('matplotlib.pyplot')
    pyplot.switch_backend('Agg')
    data = CCDData(sky, unit='Jy/pixel', wcs=make_wcs()) if with_wcs else sky
    axes = estimator.estimate(data, SOURCES[:n]).plot()
    try:
        assert len(axes) == 3
        axes[0].figure.canvas.draw()
        assert [ax.get_title() for ax in axes] == ['map', 'without sources', 'sources']
        assert_array_equal(axes[0].images[0].get_array(), sky)
    finally:
        pyplot.close(axes[0].figure)


def test_plot_needs_three_axes(result):
    figure = pytest.importorskip('matplotlib.figure').Figure()
    with pytest.raises(ValueError, match='axes must be three'):
        result.plot(axes=figure.subplots(1, 2))


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
        ({'data': 'map.fits'}, 'data must be .* got str'),
        ({'data': u.Magnitude(np.zeros((20, 20)))}, 'data are in mag, which is logarithmic'),
        ({'sources': 'catalog.csv'}, 'sources must be .* got str'),
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
