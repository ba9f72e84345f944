"""Tests of what holds for any map, any sources and any arguments.

A run takes a few examples of each. The environment variable ``CSR_ASTRO_EXAMPLES`` sets the
number of `test_map_without_sources_keeps_its_promises`; the other tests take a multiple of it.
1000 make over 10,000 in all, and other ones in each run.
"""

import os
from dataclasses import replace

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import QTable, Table
from astropy.wcs import WCS, Sip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from regions import (
    CirclePixelRegion,
    CircleSkyRegion,
    EllipsePixelRegion,
    PixCoord,
    PointPixelRegion,
    PolygonPixelRegion,
    RectanglePixelRegion,
)

from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator, get_instrument
from csr_astro.cli import main
from csr_astro.evaluation.positions import draw_positions
from csr_astro.flags import BITS, NOT_INPAINTED
from csr_astro.images import parse_image
from csr_astro.instruments import MASK_NAMES
from csr_astro.masking import mask_radii, measure_snr
from csr_astro.simulation.simulate import simulate_map
from csr_astro.sources import parse_sources, read_sources
from csr_astro.tables import write_table

N_EXAMPLES = int(os.environ.get('CSR_ASTRO_EXAMPLES', '60'))
MEASURED = ('background', 'background_scatter', 'mask_radius')


def examples(share=1.0):
    """Settings with a share of the examples; the same ones each time, unless there are many."""
    return settings(
        max_examples=max(10, round(share * N_EXAMPLES)),
        deadline=None,
        derandomize='CSR_ASTRO_EXAMPLES' not in os.environ,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope='module')
def estimator(weights):
    return NeuralBackgroundEstimator(weights, orientations=1, fwhm=3.5)


# Maps, sources and coordinates of every kind

SIDES = st.sampled_from([1, 1, 2, 3, 5, 17, 40]) | st.integers(1, 60)
SCALES = st.sampled_from([1, 1, -1, 1e-3, 1e5, 1e-30, 1e30, 1e-150, 1e150])
DTYPES = st.sampled_from(['f8', 'f8', '>f8', 'f4', '>f4', 'f2', 'g', 'u1', '>i2', 'i4', 'i8', 'u8'])


def contents(kind, shape, rng):
    return {
        'noise': lambda: rng.normal(size=shape),
        'constant': lambda: np.full(shape, 1.7),
        'zero': lambda: np.zeros(shape),
        'nan': lambda: np.full(shape, np.nan),
        'infinite': lambda: np.full(shape, -np.inf),
        'ramp': lambda: np.add.outer(np.arange(shape[0]), 2.0 * np.arange(shape[1])),
        'spikes': lambda: np.where(rng.random(shape) < 0.01, 1e6, rng.normal(size=shape)),
        'binary': lambda: (rng.random(shape) < 0.5) * 1.0,
        'scatter of rounding': lambda: 1 + 1e-14 * rng.normal(size=shape),
    }[kind]()


KINDS = st.sampled_from(['noise', 'noise', 'constant', 'zero', 'nan', 'infinite', 'ramp',
                         'spikes', 'binary', 'scatter of rounding'])  # fmt: skip


@st.composite
def maps(draw):
    shape, rng = (draw(SIDES), draw(SIDES)), np.random.default_rng(draw(st.integers(0, 10**6)))
    values = contents(draw(KINDS), shape, rng)
    dtype = np.dtype(draw(DTYPES))
    if dtype.kind in 'iu':
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        scale = draw(st.sampled_from([1, 100, high / 4]))
        values = np.nan_to_num(values).clip(-1e9, 1e9) * scale
        values = values.clip(0.99 * low, 0.99 * high)
    else:
        with np.errstate(all='ignore'):
            values = values * draw(SCALES)
    if dtype.kind == 'f':
        gaps = rng.random(shape) < draw(st.sampled_from([0, 0, 0.05, 0.5, 0.97]))
        values = np.where(gaps, draw(st.sampled_from([np.nan, np.inf, -np.inf])), values)
    with np.errstate(all='ignore'):
        values = values.astype(dtype)
    values.flags.writeable = False
    return values


@st.composite
def positions(draw, shape):
    ny, nx = shape
    ordinary = st.floats(-12, max(shape) + 12)
    coordinate = st.one_of(
        ordinary,
        ordinary.map(np.rint),
        ordinary.map(lambda value: np.floor(value) + 0.5),
        st.sampled_from([0.0, nx - 1.0, ny - 1.0, -0.5, nx - 0.5, ny - 0.5]),
        st.sampled_from([np.nan, np.inf, -np.inf, 1e300, -1e18]),
    )
    pairs = draw(st.lists(st.tuples(coordinate, coordinate), max_size=6))
    if pairs and draw(st.booleans()):
        pairs = pairs + pairs[:1]
    return np.array(pairs, dtype=float).reshape(-1, 2)


def make_wcs(kind, shape):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval = 269.15, 51.49
    wcs.wcs.crpix = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    wcs.wcs.cdelt = -2 / 3600, 2 / 3600
    if kind == 'rotated':
        wcs.wcs.pc = [[0.6, -0.8], [0.8, 0.6]]
    elif kind == 'not square':
        wcs.wcs.cdelt = -1 / 3600, 4 / 3600
    elif kind == 'galactic':
        wcs.wcs.ctype = 'GLON-TAN', 'GLAT-TAN'
    elif kind == 'pole':
        wcs.wcs.crval = 0, 90
    elif kind == 'wrap':
        wcs.wcs.crval = 0, 0
    elif kind == 'SIP':
        wcs.wcs.ctype = 'RA---TAN-SIP', 'DEC--TAN-SIP'
        bend = np.zeros((3, 3))
        bend[2, 0] = 1e-4
        wcs.sip = Sip(bend, bend.T.copy(), None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


WCS_KINDS = ('tangential', 'rotated', 'not square', 'galactic', 'pole', 'wrap', 'SIP')
MASK_RADII = st.none() | st.sampled_from([0.01, 0.5, 1, 3.5, 7, 25, 60, 230, 1e10, 1e300])


@st.composite
def errors(draw, shape):
    value = draw(st.sampled_from([None, None, 1.0, 1e-30, 1e30, 0.0, np.nan, np.inf]))
    if value is None or draw(st.booleans()):
        return value
    rng = np.random.default_rng(0)
    return np.where(rng.random(shape) < 0.8, value, draw(st.sampled_from([np.nan, np.inf, 0.5])))


@st.composite
def masks(draw, shape):
    fraction = draw(st.sampled_from([None, None, 0, 0.2, 0.9, 1]))
    return None if fraction is None else np.random.default_rng(1).random(shape) < fraction


def values_of(quantity):
    return np.asarray(getattr(quantity, 'value', quantity))


# The promises


def assert_promises(result, data, n):
    """What holds of every result, whatever the map and the sources."""
    kind = data.dtype.newbyteorder('=') if data.dtype.kind == 'f' else np.dtype(float)
    outside, table = ~result.mask, result.sources
    kept = data[outside].astype(kind).tobytes()
    background, rms = values_of(result.background), values_of(result.background_rms)
    assert background.dtype == kind
    for cleaned in (background, values_of(result.realization(1))):
        assert cleaned[outside].tobytes() == kept
        assert np.isfinite(cleaned[result.mask]).all()
    assert not values_of(result.source_image)[outside].any()
    assert not rms[outside].any()
    assert not (rms < 0).any()
    assert not np.isinf(rms).any()
    assert_array_equal(table['id'], np.arange(n) + 1)
    unmeasured = (np.asarray(table['flags']) & NOT_INPAINTED) > 0
    for name in MEASURED:
        assert np.isnan(values_of(table[name])[unmeasured]).all()
    for name in ('background', 'mask_radius'):
        assert np.isfinite(values_of(table[name])[~unmeasured]).all()
    return unmeasured


@examples()
@given(data=st.data())
def test_map_without_sources_keeps_its_promises(estimator, data):
    image = data.draw(maps())
    xy = data.draw(positions(image.shape))
    mask, error = data.draw(masks(image.shape)), data.draw(errors(image.shape))
    before = image.tobytes(), xy.tobytes()
    result = estimator.estimate(
        image, xy, mask=mask, error=error, mask_radius=data.draw(MASK_RADII)
    )
    assert_promises(result, image, len(xy))
    assert (image.tobytes(), xy.tobytes()) == before
    assert_array_equal(result.sources['x_center'], xy[:, 0])
    invalid = ~np.isfinite(xy).all(axis=1)
    assert_array_equal((result.flags & BITS['invalid_position']) > 0, invalid)
    result.to_ccddata()


@examples(0.2)
@given(data=st.data())
def test_every_flux_is_a_number_or_flagged(estimator, data):
    image = data.draw(maps())
    xy = data.draw(positions(image.shape))
    photometry = InpaintedAperturePhotometry(
        [1.5, 4.0], estimator=estimator, annulus=data.draw(st.sampled_from([None, (6, 9)]))
    )
    result = estimator.estimate(image, xy, mask=data.draw(masks(image.shape)))
    table = photometry(result)
    unmeasured = (result.flags & NOT_INPAINTED) > 0
    assert len(table) == len(xy)
    for name in ('flux_0', 'flux_1', 'background_sum_1', 'flux_err_0'):
        assert np.isnan(values_of(table[name])[unmeasured]).all()
    flagged = (table['flags'] & (BITS['aperture_invalid'] | NOT_INPAINTED)) > 0
    assert np.isfinite(values_of(table['flux_1'])[~flagged]).all()
    unknown = (table['flags'] & (BITS['error_unknown'] | NOT_INPAINTED)) > 0
    assert np.isfinite(values_of(table['flux_err_1'])[~unknown]).all()


@examples(0.1)
@given(data=st.data())
def test_covariances_are_finite_or_unknown(estimator, data):
    image = data.draw(maps())
    xy = data.draw(positions(image.shape))
    result = estimator.estimate(image, xy, mask_radius=data.draw(st.sampled_from([1, 4, 7])))
    measured = np.flatnonzero((result.flags & NOT_INPAINTED) == 0)
    for i in measured[:2]:
        matrix = values_of(result.covariance(i + 1).matrix)
        assert np.isfinite(matrix).all() or np.isnan(matrix).all()
        assert not (matrix.diagonal() < 0).any()
        assert_allclose(matrix, matrix.T, rtol=1e-6, atol=1e-9 * np.nanmax(matrix, initial=0))
        other = values_of(result.covariance(i + 1, measured[0] + 1))
        assert other.shape[0] == len(matrix)


@examples(0.1)
@given(data=st.data())
def test_order_and_batch_size_do_not_matter(weights, estimator, data):
    image = data.draw(maps())
    xy = data.draw(positions(image.shape))
    radius = data.draw(MASK_RADII)
    order = data.draw(st.permutations(range(len(xy))))
    result = estimator.estimate(image, xy, mask_radius=radius)
    other = estimator.estimate(image, xy[order], mask_radius=radius)
    assert_array_equal(other.background, result.background)
    for name in ('snr', *MEASURED, 'flags'):
        assert_array_equal(other.sources[name], result.sources[name][order])
    one = NeuralBackgroundEstimator(weights, orientations=1, fwhm=3.5, batch_size=1)
    alone = one.estimate(image, xy, mask_radius=radius)
    assert_array_equal(alone.mask, result.mask)
    assert_array_equal(alone.flags, result.flags)
    inside = values_of(result.background)[result.mask].astype(float)
    seen = image[np.isfinite(image)].astype(float)
    spread = np.ptp(seen) if len(seen) else 0.0
    eps = np.finfo(result.background.dtype).eps
    assert_allclose(
        values_of(alone.background)[result.mask].astype(float), inside,
        rtol=8 * eps, atol=1e-3 * max(spread, np.ptp(inside) if len(inside) else 0),
    )  # fmt: skip


@examples(0.1)
@given(
    data=st.data(),
    factor=st.sampled_from([1e-30, 1e-3, 7, 1e5, 1e30]),
    offset=st.sampled_from([0, 3, -1e4]),
)
def test_background_follows_factor_and_offset(estimator, data, factor, offset):
    shape, seed = (data.draw(SIDES), data.draw(SIDES)), data.draw(st.integers(0, 10**6))
    image = np.random.default_rng(seed).normal(size=shape)
    xy = data.draw(positions(shape))
    # Masks by radius: rounding must not decide.
    result = estimator.estimate(image, xy, mask_radius=4)
    other = estimator.estimate(factor * (image + offset), xy, mask_radius=4)
    assert_array_equal(other.mask, result.mask)
    assert_allclose(other.background / factor - offset, result.background, rtol=0, atol=2e-3)
    for name in ('background_rms', 'source_image'):
        found = getattr(other, name) / factor
        assert_allclose(found, getattr(result, name), rtol=0.02, atol=5e-3)


@examples(0.1)
@given(data=st.data(), unit=st.sampled_from(['Jy/pix', 'MJy/sr', '', 'adu', 'erg/(s cm2 Hz)']))
def test_units_come_out_as_they_went_in(estimator, data, unit):
    image = data.draw(maps())
    xy = data.draw(positions(image.shape))
    plain = estimator.estimate(image, xy)
    result = estimator.estimate(u.Quantity(image, unit, dtype=image.dtype, copy=False), xy)
    for name in ('background', 'source_image', 'background_rms'):
        values = getattr(result, name)
        assert values.unit == u.Unit(unit)
        assert_array_equal(values.value, getattr(plain, name))
    assert result.sources['background'].unit == u.Unit(unit)


@pytest.mark.filterwarnings('ignore:.*more than 90 degrees away')
@pytest.mark.filterwarnings('ignore:the pixels of the map are')
@examples(0.3)
@given(data=st.data(), kind=st.sampled_from(WCS_KINDS))
def test_every_place_of_the_sky_has_a_row(estimator, data, kind):
    shape = data.draw(SIDES), data.draw(SIDES)
    wcs = make_wcs(kind, shape)
    image = np.random.default_rng(2).normal(size=shape)
    near = data.draw(positions(shape))
    near = near[(np.abs(near) < 1000).all(axis=1)]
    angles = st.tuples(st.floats(0, 360), st.floats(-90, 90))
    far = np.array(data.draw(st.lists(angles, max_size=5))).reshape(-1, 2)
    sky = wcs.pixel_to_world(*near.T).icrs if len(near) else SkyCoord([], [], unit='deg')
    every = SkyCoord([*sky.ra.deg, *far[:, 0]], [*sky.dec.deg, *far[:, 1]], unit='deg')
    frame = data.draw(st.sampled_from(['icrs', 'galactic', 'fk5']))
    ccd = CCDData(image, unit='Jy/pix', wcs=wcs)
    result = estimator.estimate(ccd, every.transform_to(frame))
    assert_promises(result, image, len(every))
    found = np.column_stack([result.sources[name] for name in ('x_center', 'y_center')])
    assert_allclose(found[: len(near)], near, rtol=0, atol=1e-3)
    # A place on the map is that of the coordinates, and of no others.
    known = np.isfinite(found).all(axis=1)
    back = wcs.pixel_to_world(*found[known].T) if known.any() else every[known]
    assert (back.separation(every[known]) < 1 * u.arcsec).all()
    assert result.to_ccddata().wcs.wcs.compare(wcs.wcs)


# Doors


@examples(0.3)
@given(data=st.data())
def test_regions_of_any_size_and_place_have_a_row(estimator, data):
    image = np.random.default_rng(3).normal(size=(30, 40))
    place = st.floats(-20, 60) | st.sampled_from([np.nan, np.inf, 1e9, 1e300])
    length = st.sampled_from([1e-300, 1e-9, 0.5, 3.0, 20.0, 1e5, 1e18])
    center = st.builds(PixCoord, place, place)
    vertices = st.lists(st.tuples(st.floats(-20, 60), st.floats(-20, 60)), min_size=3, max_size=5)
    region = st.one_of(
        st.builds(PointPixelRegion, center),
        st.builds(CirclePixelRegion, center, length),
        st.builds(EllipsePixelRegion, center, length, length),
        st.builds(RectanglePixelRegion, center, length, length),
        vertices.map(lambda v: PolygonPixelRegion(PixCoord(*map(list, zip(*v, strict=True))))),
    )
    regions = data.draw(st.lists(region, min_size=1, max_size=3))
    result = estimator.estimate(image, regions)
    assert_promises(result, image, len(regions))


@examples(3)
@given(
    x=st.lists(st.floats() | st.integers(-(2**70), 2**70), max_size=5),
    dtype=st.sampled_from(['f8', '>f4', 'f2', 'g', 'O']),
)
def test_positions_are_taken_in_every_form(x, dtype):
    with np.errstate(over='ignore'):
        column = np.array(x, dtype=object).astype(dtype)
        expected = column.astype(float)
    forms = [np.column_stack([column, column])]
    if dtype != 'O':
        forms += [Table({'x': column, 'y': column}), QTable({'x': column, 'y': column * u.pix})]
    for form in forms:
        sources = parse_sources(form)
        assert_array_equal(sources.x, expected)
        assert_array_equal(sources.y, expected)


@examples(0.6)
@given(junk=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
    | st.complex_numbers() | st.binary(max_size=3),
    lambda each: st.lists(each, max_size=3) | st.tuples(each, each),
    max_leaves=6,
))  # fmt: skip
def test_junk_is_refused_with_one_sentence(estimator, junk):
    image = np.ones((9, 9))
    calls = [
        lambda: parse_sources(junk),
        lambda: parse_image(junk),
        lambda: parse_image(image, mask=junk),
        lambda: parse_image(image, error=junk),
        lambda: mask_radii(junk, parse_sources([(4, 4)]), np.ones(1), get_instrument(), None),
        lambda: NeuralBackgroundEstimator(estimator.weights, fwhm=junk),
        lambda: NeuralBackgroundEstimator(estimator.weights, orientations=junk),
        lambda: NeuralBackgroundEstimator(estimator.weights, batch_size=junk),
        lambda: InpaintedAperturePhotometry(junk, estimator=estimator),
        lambda: InpaintedAperturePhotometry(3, estimator=estimator, aperture_correction=junk),
        lambda: InpaintedAperturePhotometry(3, estimator=estimator, annulus=junk),
        lambda: get_instrument('pacs-scanmap-blue').mask(junk),
        lambda: get_instrument('pacs-scanmap-blue').enclosed_energy(junk),
    ]
    for call in calls:
        try:
            call()
        except (TypeError, ValueError) as error:
            assert str(error).endswith('.')  # noqa: PT017
            assert '\n' not in str(error)  # noqa: PT017


@examples(2)
@given(data=st.data())
def test_signal_to_noise_does_not_depend_on_others_or_on_scale(data):
    image = data.draw(maps())
    xy = data.draw(positions(image.shape))
    instrument = get_instrument('pacs-scanmap-blue')
    parsed = parse_image(image)
    snr = measure_snr(parsed, *xy.T, instrument)
    assert snr.shape == (len(xy),)
    for i in range(len(xy)):
        assert_array_equal(measure_snr(parsed, *xy[i : i + 1].T, instrument), snr[i : i + 1])
    names, radii = instrument.mask(snr)
    assert set(names) <= set(MASK_NAMES)
    assert set(radii) <= set(instrument.mask_radii)
    if image.dtype == np.float64:
        doubled = replace(parsed, data=2 * image)
        assert_allclose(measure_snr(doubled, *xy.T, instrument), snr, rtol=1e-12)


@examples(2)
@given(snr=st.lists(st.floats(), max_size=5), factor=st.floats(0.2, 5))
def test_instruments_answer_for_any_number(snr, factor):
    for name in ('pacs-scanmap-red', 'spire-250', 'generic'):
        band = get_instrument(name)
        order = np.argsort(np.nan_to_num(snr, nan=-np.inf, posinf=np.inf, neginf=-np.inf))
        assert (np.diff(band.mask(snr)[1][order]) >= 0).all()
        fraction = band.enclosed_energy(np.abs(snr), outside='nan')
        assert ((fraction >= 0) & (fraction <= 1.0001) | np.isnan(fraction)).all()
        if band.pixel_scale is not None:
            other = band.on_pixels(band.pixel_scale * factor)
            assert_allclose(other.fwhm * other.pixel_scale, band.fwhm * band.pixel_scale)


@examples(0.1)
@given(data=st.data(), suffix=st.sampled_from(['.ecsv', '.csv', '.fits', '.xml', '.vot']))
def test_tables_are_read_back_as_they_were_written(estimator, tmp_path_factory, data, suffix):
    image = data.draw(maps())
    xy = data.draw(positions(image.shape))
    xy = xy[np.isfinite(xy).all(axis=1)]
    table = estimator.estimate(u.Quantity(image.astype(float), 'Jy/pix'), xy).sources
    path = tmp_path_factory.mktemp('tables') / f'sources{suffix}'
    write_table(path, table)
    sources = parse_sources(read_sources(path))
    assert_array_equal(sources.x, xy[:, 0])
    assert_array_equal(sources.y, xy[:, 1])
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@examples(0.1)
@given(data=st.data())
def test_simulation_adds_the_flux_it_says_or_tells_why_not(data):
    image = data.draw(maps())
    finite = np.isfinite(image)
    number, flux = data.draw(st.integers(0, 3)), data.draw(st.sampled_from([1e-30, 5.0, 1e30]))
    before = image.tobytes()
    try:
        simulation = simulate_map(image, flux, number=number, instrument='pacs-scanmap-blue')
    except (TypeError, ValueError) as error:
        assert str(error).endswith('.')  # noqa: PT017
        return
    assert image.tobytes() == before
    assert len(simulation.sources) == number
    assert_array_equal(np.isfinite(simulation.data), finite)


@examples(0.1)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    radius=st.floats(1, 20),
    n=st.integers(-1, 5),
)
def test_drawn_positions_are_blank_discs_or_there_are_none(shape, radius, n):
    try:
        table = draw_positions({'map': [np.zeros(shape)]}, [radius], n, aperture=1.0)
    except ValueError as error:
        assert '\n' not in str(error)  # noqa: PT017
        return
    assert len(table) == n
    assert (table['x'] >= 0).all()
    assert (table['x'] < shape[1]).all()


# The shell

WORDS = st.text(st.characters(codec='ascii', exclude_categories=['C']), max_size=8)


@examples(0.2)
@given(
    option=st.sampled_from(['--apertures', '--fwhm', '--mask-radius', '--position',
                            '--aperture-correction', '--batch-size', '--orientations', '--hdu']),
    word=WORDS | st.floats().map(str) | st.sampled_from(['5"', '3 Jy', '1e999', '-1', '']),
)  # fmt: skip
def test_arguments_of_the_shell_never_end_in_a_traceback(
    tmp_path_factory, weights, capsys, option, word
):
    folder = tmp_path_factory.mktemp('shell')
    fits.PrimaryHDU(np.random.default_rng(4).normal(size=(12, 12))).writeto(folder / 'map.fits')
    arguments = {
        '--apertures': '2', '--fwhm': '3', '--weights': str(weights), '--orientations': '1',
        '--output': str(folder / 'table.ecsv'),
    } | {option: word}  # fmt: skip
    words = ['photometry', str(folder / 'map.fits')]
    words += [f'{key}={value}' for key, value in arguments.items()]
    words += [] if option == '--position' else ['--pixel', '5', '5']
    try:
        code = main(words)
    except SystemExit as stop:
        code = stop.code
    shown = capsys.readouterr().err
    assert code in (0, 1, 2)
    assert 'Traceback' not in shown
    if code == 1:
        assert shown.splitlines()[-1].startswith('csr-astro: error: ')
        assert {path.name for path in folder.iterdir()} == {'map.fits'}


@pytest.mark.filterwarnings('ignore:the pixels of the map are')
@pytest.mark.parametrize('kind', WCS_KINDS)
def test_circles_on_the_sky_are_where_their_centres_are(estimator, kind):
    shape = 40, 50
    wcs = make_wcs(kind, shape)
    center = wcs.pixel_to_world(22.0, 17.0)
    circle = CircleSkyRegion(center, 8 * u.arcsec)
    result = estimator.estimate(np.ones(shape), [circle], wcs=wcs)
    assert_allclose(result.sources['x_center'], 22, atol=1e-3)
    assert result.mask[17, 22]
