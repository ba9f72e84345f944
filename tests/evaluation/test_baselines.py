import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from photutils.background import LocalBackground, MeanBackground, MedianBackground
from scipy import ndimage

from csr_astro.evaluation import baselines
from csr_astro.evaluation.baselines import BASELINES, annulus, get_baselines, lpi
from csr_astro.kriging.stationary import (
    kriging_mean,
    power_law_covariance,
)

SIZE = 65
HALF = SIZE // 2
RADIUS = 6.0
DISTANCE = np.hypot(*np.ogrid[-HALF : HALF + 1, -HALF : HALF + 1])
CENTER = (HALF, HALF, RADIUS)


def window(*, gap=True):
    """A smooth random window with noise, a disc, and a gap that touches it."""
    rng = np.random.default_rng(3)
    values = 5 + 20 * ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), 4)
    values += rng.normal(0, 0.05, values.shape)
    finite = np.ones(values.shape, dtype=bool)
    if gap:
        finite[:, HALF + 4 : HALF + 8] = False
        finite[:9] = False
    disc = DISTANCE <= RADIUS
    return values, finite & ~disc, finite & disc


@pytest.fixture(params=list(BASELINES))
def fill(request):
    if request.param in ('biharmonic', 'maskfill'):
        pytest.importorskip({'biharmonic': 'skimage'}.get(request.param, request.param))
    return BASELINES[request.param]


# Every peer


def test_fill_predicts_each_pixel_of_the_hole(fill):
    values, valid, hole = window()
    prediction = fill(values, valid, hole, *CENTER)
    assert prediction.shape == (hole.sum(),)
    assert np.isfinite(prediction).all()
    assert np.ptp(prediction) < np.ptp(values[valid])


def test_fill_looks_at_valid_pixels_only(fill):
    values, valid, hole = window()
    expected = fill(values, valid, hole, *CENTER)
    for other in (np.nan, 1e9):
        spoilt = np.where(valid, values, other)
        kept = spoilt.copy()
        assert_array_equal(fill(spoilt, valid, hole, *CENTER), expected)
        assert_array_equal(spoilt, kept)


@pytest.mark.parametrize('scale', [1e-9, 1e6])
def test_fill_scales_with_the_map(fill, scale):
    values, valid, hole = window()
    expected = 3 * scale + scale * fill(values, valid, hole, *CENTER)
    found = fill(3 * scale + scale * values, valid, hole, *CENTER)
    # Rounding may cost the solver of lpi a step.
    assert_allclose(found, expected, rtol=1e-12, atol=2e-3 * scale * values[valid].std())


def test_fill_of_a_constant_map_is_the_constant(fill):
    _, valid, hole = window()
    assert_allclose(fill(np.full((SIZE, SIZE), 7.25), valid, hole, *CENTER), 7.25)


def test_fill_without_valid_pixels_is_nan(fill):
    values, valid, hole = window()
    assert np.isnan(fill(values, np.zeros_like(valid), hole, *CENTER)).all()


@pytest.mark.parametrize('name', ['plane', 'biharmonic'])
def test_plane_is_continued(name):
    if name == 'biharmonic':
        pytest.importorskip('skimage')
    _, valid, hole = window(gap=False)
    y, x = np.indices((SIZE, SIZE))
    slope = 2.0 * x - 3.0 * y
    assert_allclose(BASELINES[name](slope, valid, hole, *CENTER), slope[hole], atol=1e-6)


@pytest.mark.parametrize(
    ('name', 'estimator'), [('annulus_mean', MeanBackground), ('annulus_median', MedianBackground)]
)
def test_annulus_is_that_of_photutils(name, estimator):
    values, valid, hole = window()
    x, y = HALF + 0.3, HALF - 0.2
    local = LocalBackground(
        RADIUS + 2, RADIUS + 12, bkg_estimator=estimator(sigma_clip=None)
    )
    expected = local(values, x, y, mask=~valid)
    assert_allclose(BASELINES[name](values, valid, hole, x, y, RADIUS), expected)


def test_annulus_takes_other_radii():
    values, valid, hole = window()
    ring = valid & (DISTANCE >= 20) & (DISTANCE <= 25)
    found = annulus(values, valid, hole, *CENTER, inner=20, outer=25)
    assert_allclose(found, np.median(values[ring]))


# Choosing peers


def test_baselines_are_chosen_by_name():
    assert list(get_baselines(['lpi', 'plane'])) == ['lpi', 'plane']
    assert list(get_baselines('plane')) == ['plane']
    with pytest.raises(ValueError, match=r"must be one of \['annulus_mean', .*got 'median'"):
        get_baselines(['median'])


@pytest.mark.parametrize(
    ('name', 'module', 'package'),
    [('biharmonic', 'skimage.restoration', 'scikit-image'), ('maskfill', 'maskfill', 'maskfill')],
)
def test_missing_package_says_what_to_install(name, module, package, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'needs {package}.*csr_astro\[evaluate\]'):
        get_baselines([name])
    monkeypatch.setattr(baselines, 'find_spec', lambda module: None)  # noqa: ARG005
    assert name not in get_baselines()


# Kriging


def test_lpi_is_close_to_the_limit_on_gaussian_fields():
    covariance = power_law_covariance((128, 128), -3, 0.1)
    amplitude = np.sqrt(np.maximum(np.fft.rfft2(covariance).real, 0))
    rng = np.random.default_rng(8)
    valid, hole = DISTANCE > RADIUS, DISTANCE <= RADIUS
    errors = {'lpi': [], 'limit': [], 'annulus': []}
    for _ in range(40):
        field = np.fft.irfft2(amplitude * np.fft.rfft2(rng.normal(size=(128, 128))), s=(128, 128))
        values = field[:SIZE, :SIZE]
        best = kriging_mean(values, valid, covariance)[hole]
        for name, prediction in (
            ('limit', best),
            ('lpi', lpi(values, valid, hole, *CENTER)),
            ('annulus', annulus(values, valid, hole, *CENTER)),
        ):
            errors[name].append(np.sum((prediction - values[hole])[DISTANCE[hole] <= 4]))
    rms = {name: np.sqrt(np.mean(np.square(each))) for name, each in errors.items()}
    assert rms['lpi'] < 1.25 * rms['limit']
    assert rms['annulus'] > 1.4 * rms['lpi']
