"""Relations between measurements of a map and of one that was changed in a known way."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro import (
    InpaintedAperturePhotometry,
    InpaintedPSFPhotometry,
    NeuralBackgroundEstimator,
)
from csr_astro.flags import BITS

SIZE = 150
FWHM = 3.5
# Half of the largest window about a source, and what apertures and rings add.
REACH = 70
N_EXAMPLES = int(os.environ.get('CSR_ASTRO_EXAMPLES', '60'))


def relation(function):
    """Check a relation for some maps; the same ones each time, unless many are asked for."""
    examples = settings(
        max_examples=max(3, N_EXAMPLES // 20), deadline=None, database=None,
        derandomize='CSR_ASTRO_EXAMPLES' not in os.environ,
        suppress_health_check=list(HealthCheck),
        # An example of a slow measurement is not made smaller.
        phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    return pytest.mark.parametrize('kind', ['apertures', 'fits'])(examples(function))


@st.composite
def fields(draw, low=0.0, high=SIZE - 1.0):
    """Noise on a slope, and a bright and a faint source in it."""
    place = st.floats(low, high)
    xy = np.array([[draw(place), draw(place)] for _ in range(2)])
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    yy, xx = np.indices((SIZE, SIZE))
    image = 5 + 0.03 * xx - 0.01 * yy + rng.normal(size=xx.shape)
    for (x, y), peak in zip(xy, (200, 15), strict=True):
        image += peak * np.exp(-4 * np.log(2) * ((xx - x) ** 2 + (yy - y) ** 2) / FWHM**2)
    return image, xy


def measure(kind, image, xy, *, orientations=1, n=2):
    """Fluxes, their errors and the backgrounds of the first n sources, and their flags."""
    estimator = NeuralBackgroundEstimator(fwhm=FWHM, orientations=orientations)
    photometry = (
        InpaintedAperturePhotometry([3.0, 6.0], estimator=estimator)
        if kind == 'apertures'
        else InpaintedPSFPhotometry(estimator=estimator)
    )
    # A mask of one size: rounding of the signal-to-noise ratio must not choose it.
    result = estimator.estimate(image, xy, mask_radius=6.0)
    table = photometry(result)[:n]
    names = [name for name in table.colnames if name.startswith('flux')]
    values = {name: np.asarray(table[name], dtype=float) for name in names}
    values |= {
        name: np.asarray(result.sources[name], dtype=float)[:n]
        for name in ('background', 'background_scatter', 'snr')
    }
    return values, np.asarray(table['flags'])


def assert_equal(found, expected, *, rtol, offset=0.0, factor=1.0, ignore=()):
    """Compare measurements; tolerances are in errors of each."""
    (found, found_flags), (expected, flags) = found, expected
    for name, values in expected.items():
        unit = 1.0 if name == 'snr' else factor
        there = found[name] - (offset if name == 'background' else 0)
        error = expected.get(name.replace('flux', 'flux_err'), expected['background_scatter'])
        scale = np.abs(values) if name == 'snr' else np.nan_to_num(error, nan=1.0)
        assert_array_equal(np.isnan(there), np.isnan(values))
        good = ~np.isnan(values)
        assert (np.abs(there / unit - values)[good] <= rtol * scale[good]).all(), name
    kept = ~sum(BITS[name] for name in ignore)
    assert_array_equal(found_flags & kept, flags & kept)


@relation
@given(field=fields(), constant=st.sampled_from([-5.0, 1e3]))
def test_constant_moves_the_background_alone(kind, field, constant):
    image, xy = field
    found = measure(kind, image + constant, xy)
    assert_equal(found, measure(kind, image, xy), rtol=2e-3, offset=constant)


@relation
@given(field=fields(), factor=st.sampled_from([1e-20, 1e-3, 1e20]))
def test_factor_scales_everything(kind, field, factor):
    image, xy = field
    found = measure(kind, factor * image, xy)
    assert_equal(found, measure(kind, image, xy), rtol=2e-3, factor=factor)


TURNS = {
    'mirrored': (lambda image: image[:, ::-1], lambda x, y: (SIZE - 1 - x, y)),
    'upside down': (lambda image: image[::-1], lambda x, y: (x, SIZE - 1 - y)),
    'transposed': (lambda image: image.T, lambda x, y: (y, x)),
    'turned': (np.rot90, lambda x, y: (y, SIZE - 1 - x)),
}


@relation
@given(field=fields(), turn=st.sampled_from(sorted(TURNS)))
def test_map_can_be_turned(kind, field, turn):
    image, xy = field
    of_map, of_places = TURNS[turn]
    there = np.column_stack(of_places(*xy.T))
    found = measure(kind, of_map(image), there, orientations=8)
    assert_equal(found, measure(kind, image, xy, orientations=8), rtol=2e-3)


@relation
@given(field=fields(REACH, SIZE - 1 - REACH), data=st.data())
def test_far_pixels_do_not_matter(kind, field, data):
    image, xy = field
    low = np.floor(xy.min(axis=0)).astype(int) - REACH
    high = np.ceil(xy.max(axis=0)).astype(int) + REACH + 1
    x0, y0 = (data.draw(st.integers(0, max(each, 0))) for each in low)
    x1, y1 = (data.draw(st.integers(min(each, SIZE), SIZE)) for each in high)
    found = measure(kind, image[y0:y1, x0:x1], xy - (x0, y0))
    assert_equal(found, measure(kind, image, xy), rtol=1e-6)


@relation
@given(field=fields(high=60), x=st.floats(60 + REACH + 6, SIZE + 5), y=st.floats(-5, SIZE + 5))
def test_far_sources_do_not_matter(kind, field, x, y):
    image, xy = field
    found = measure(kind, image, [*xy, (x, y)])
    assert_equal(found, measure(kind, image, xy), rtol=1e-6)


@relation
@given(field=fields(-2, SIZE + 1), widths=st.tuples(*[st.integers(0, 40)] * 4))
def test_nan_beyond_the_map_is_its_end(kind, field, widths):
    image, xy = field
    left, right, below, above = widths
    padded = np.pad(image, ((below, above), (left, right)), constant_values=np.nan)
    found = measure(kind, padded, xy + np.array([left, below]))
    # What is off one map is invalid in the other.
    assert_equal(
        found, measure(kind, image, xy), rtol=1e-6,
        ignore=['edge', 'invalid_pixels', 'aperture_invalid'],
    )  # fmt: skip


def test_nan_beyond_the_map_changes_no_pixel_of_it():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(110, 120))
    xy = np.array([(1.0, 55.0), (60.3, 0.2), (118.6, 108.8), (50.0, 50.0)])
    estimator = NeuralBackgroundEstimator(fwhm=FWHM, orientations=1)
    result = estimator.estimate(image, xy, mask_radius=[5, 9, 20, 5])
    padded = np.pad(image, 30, constant_values=np.nan)
    other = estimator.estimate(padded, xy + 30, mask_radius=[5, 9, 20, 5])
    inside = np.s_[30:-30, 30:-30]
    assert_array_equal(other.mask[inside], result.mask)
    for name in ('background', 'source_image', 'background_rms'):
        assert_allclose(getattr(other, name)[inside], getattr(result, name), rtol=0, atol=1e-6)
