"""Tests of the result of a removal."""

import copy

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty
from astropy.table import QTable, Table
from helpers_removal import SHAPE, SOURCES, assert_same, make_sky, make_wcs
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro import NeuralBackground
from csr_astro.combine import combine
from csr_astro.flags import decode_flags


@pytest.fixture(scope='module')
def estimator(make_estimator):
    return make_estimator()


@pytest.fixture(scope='module')
def sky():
    return make_sky()


@pytest.fixture(scope='module')
def result(estimator, sky):
    return estimator.estimate(sky, SOURCES)


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
    assert_allclose(data - result.source_image, result.background, rtol=eps, atol=200 * eps)
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


# The three steps of a removal


@pytest.mark.parametrize('preset', ['default', 'paper'])
def test_the_three_steps_are_the_removal(make_estimator, sky, preset):
    estimator = make_estimator(preset=preset, batch_size=2)
    positions = [*SOURCES, (-300, 20), (np.nan, 5)]
    plan = estimator.plan(sky, positions)
    # In reverse, as they may come back from other processes.
    found = [next(estimator.predictor.parts(plan, [each])) for each in plan.batches[::-1]]
    result = combine(plan, found[::-1], estimator)
    assert_same(result, estimator.estimate(sky, positions))
    assert result.sources.meta == estimator.estimate(sky, positions).sources.meta
    assert result.estimator is estimator


def test_sources_that_cannot_be_measured_keep_only_why(make_estimator, sky):
    estimator = make_estimator()
    result = estimator.estimate(sky, [SOURCES[0], (-300, 20), (np.nan, 5)])
    assert decode_flags(result.flags) == [[], ['off_map'], ['invalid_position']]
    assert list(result.sources['mask_name'][1:]) == ['', '']
    assert np.isnan(result.sources['mask_radius'][1:]).all()
    assert result.source_masks[1:] == [None, None]


# Cutouts of one source


def test_cutouts_are_parts_of_the_maps(result, sky):
    for row in result.sources:
        window, cutouts = result.cutouts(row['id'])
        maps = {
            'map': sky,
            'masked': np.where(result.mask, np.nan, sky),
            'background': result.background,
            'source': result.source_image,
            'rms': np.where(result.mask, result.background_rms, np.nan),
        }
        assert list(cutouts) == list(maps)
        for name, values in maps.items():
            assert_array_equal(cutouts[name], values[window])
            assert cutouts[name].dtype == float


@pytest.mark.parametrize(('radius', 'reach'), [(3.0, 9), (8.0, 16)])
def test_cutouts_reach_beyond_the_mask(estimator, sky, radius, reach):
    window, _ = estimator.estimate(sky, [(60, 50)], mask_radius=radius).cutouts(1)
    assert window == (slice(50 - reach, 51 + reach), slice(60 - reach, 61 + reach))


def test_cutouts_end_with_the_map(estimator, sky):
    result = estimator.estimate(sky, [(1, 108), (-300, 20), (np.nan, 5)], mask_radius=5)
    window, cutouts = result.cutouts(1)
    assert window == (slice(97, 110), slice(0, 13))
    assert cutouts['map'].shape == (13, 13)
    for off_map in (2, 3):
        window, cutouts = result.cutouts(off_map)
        assert all(each.size == 0 for each in cutouts.values())
        assert sky[window].size == 0


def test_cutouts_are_plain_numbers_and_blank_where_the_map_is(estimator, sky):
    mask = np.zeros(SHAPE, bool)
    mask[50, 70] = True
    plain = estimator.estimate(sky, [(60, 50)], mask_radius=6, mask=mask)
    result = estimator.estimate(sky * u.Jy, [(60, 50)], mask_radius=6, mask=mask)
    window, cutouts = result.cutouts(1)
    assert np.argwhere(np.isnan(cutouts['map'])).tolist() == [[12, 22]]
    for name, values in plain.cutouts(1)[1].items():
        assert type(cutouts[name]) is np.ndarray
        assert_array_equal(cutouts[name], values)
    assert window == plain.cutouts(1)[0]


@pytest.mark.parametrize(
    ('source_id', 'exception', 'sentence'),
    [
        (0, ValueError, 'there is no source with id 0; ids are 1 to 5'),
        (6, ValueError, 'there is no source with id 6'),
        ([1, 2, 3, 4, 5], TypeError, r'the id of one source is taken, got \[1, 2'),
        ([1, 2], TypeError, r'the id of one source is taken, got \[1, 2\]'),
    ],
)
def test_cutouts_of_no_source_are_refused(result, source_id, exception, sentence):
    with pytest.raises(exception, match=sentence):
        result.cutouts(source_id)


# Conversions and representations


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


def test_ccddata_can_be_written(make_estimator, networks, sky, tmp_path):
    local = tmp_path / 'gewöhnliche weights.safetensors'
    local.write_bytes(networks['local'].read_bytes())
    variance = VarianceUncertainty(sky**2)
    data = CCDData(sky, unit='Jy', mask=sky < 0, wcs=make_wcs(), uncertainty=variance)
    radius = np.linspace(5, 6, len(SOURCES))
    result = make_estimator(str(local)).estimate(data, SOURCES, mask_radius=radius)
    path = tmp_path / 'source-free.fits'
    result.to_ccddata().write(path)
    ccd = CCDData.read(path)
    assert_array_equal(ccd.data, result.background)
    assert ccd.header['SHA256'] == result.sources.meta['weights_sha256']
    assert ccd.uncertainty.uncertainty_type == 'std'


def test_keywords_of_a_header_are_short(make_estimator, sky, tmp_path):
    fits.writeto(tmp_path / 'map.fits', sky)
    Table(np.array(SOURCES), names=['x', 'y']).write(tmp_path / 'stars.csv')
    result = make_estimator().estimate(tmp_path / 'map.fits', tmp_path / 'stars.csv')
    assert max(len(name) for name in result.to_ccddata().meta) <= 8


def test_meta_says_how_it_was_made(make_estimator, networks, sky):
    estimator = make_estimator(instrument='pacs-scanmap-blue')
    meta = estimator.estimate(sky, SOURCES, mask_radius=6).sources.meta
    assert {'csr_astro', 'astropy', 'photutils', 'numpy', 'torch'} <= set(meta)
    assert meta['weights'] == str(networks['local'])
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
