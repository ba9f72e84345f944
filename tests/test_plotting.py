"""Tests of the plots."""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData
from helpers_removal import SOURCES, make_sky, make_wcs
from numpy.testing import assert_array_equal

from csr_astro.plotting import plot_removal, plot_source, value_range

pyplot = pytest.importorskip('matplotlib.pyplot')


@pytest.fixture(scope='module')
def estimator(make_estimator):
    return make_estimator()


@pytest.fixture(scope='module')
def sky():
    return make_sky()


@pytest.fixture(scope='module')
def result(estimator, sky):
    return estimator.estimate(sky, SOURCES)


@pytest.fixture(autouse=True)
def closed_figures():
    """Close what a test drew."""
    pyplot.switch_backend('Agg')
    yield
    pyplot.close('all')


@pytest.mark.parametrize('with_wcs', [False, True])
@pytest.mark.parametrize('n', [0, 5])
def test_plot_shows_three_maps(estimator, sky, n, with_wcs):
    data = CCDData(sky, unit='Jy/pixel', wcs=make_wcs()) if with_wcs else sky
    axes = estimator.estimate(data, SOURCES[:n]).plot()
    assert len(axes) == 3
    axes[0].figure.canvas.draw()
    assert [ax.get_title() for ax in axes] == ['map', 'without sources', 'sources']
    assert_array_equal(axes[0].images[0].get_array(), sky)


def test_plot_needs_three_axes(result):
    figure = pyplot.figure()
    with pytest.raises(ValueError, match='axes must be three'):
        result.plot(axes=figure.subplots(1, 2))


def test_plot_of_plain_arrays_is_that_of_the_result(result, sky):
    expected = result.plot(percentile=95)
    axes = plot_removal(
        sky, result.background, result.source_image, result.mask, percentile=95, unit=u.Jy
    )
    for ax, other in zip(axes, expected, strict=True):
        assert_array_equal(ax.images[0].get_array(), other.images[0].get_array())
        assert ax.images[0].get_clim() == other.images[0].get_clim()


@pytest.mark.parametrize('with_wcs', [False, True])
def test_plot_of_a_source_shows_its_cutouts(estimator, sky, with_wcs):
    data = CCDData(sky, unit='Jy/pixel', wcs=make_wcs()) if with_wcs else sky
    result = estimator.estimate(data, SOURCES)
    _, cutouts = result.cutouts(3)
    axes = result.plot_source(3)
    axes[0].figure.canvas.draw()
    titles = ['map', 'masked', 'prediction', 'difference', '1σ error']
    assert [ax.get_title() for ax in axes] == titles
    for ax, values in zip(axes, cutouts.values(), strict=True):
        assert_array_equal(np.ma.filled(ax.images[0].get_array(), np.nan), values)


def test_plot_of_a_source_is_at_its_place(result):
    window, cutouts = result.cutouts(3)
    axes = plot_source(cutouts, window)
    left, right, bottom, top = axes[0].images[0].get_extent()
    assert (left + 0.5, right + 0.5) == (window[1].start, window[1].stop)
    assert (bottom + 0.5, top + 0.5) == (window[0].start, window[0].stop)
    with pytest.raises(ValueError, match='axes must be five, got 2'):
        plot_source(cutouts, window, axes=axes[:2])


def test_source_off_the_map_has_no_plot(estimator, sky):
    result = estimator.estimate(sky, [(-300, 20)])
    with pytest.raises(ValueError, match='source 1 has no pixel on the map'):
        result.plot_source(1)


@pytest.mark.parametrize('values', [[], [np.nan], [3.0, 3.0], [np.inf, 1.0]])
def test_colours_have_a_range_whatever_the_map(values):
    low, high = value_range(np.array(values), 99)
    assert np.isfinite([low, high]).all()
    assert low < high


@pytest.mark.parametrize('with_unit', [False, True])
def test_panels_that_share_a_scale_share_its_bar(estimator, sky, with_unit):
    data = CCDData(sky, unit='Jy/pixel') if with_unit else sky
    axes = estimator.estimate(data, SOURCES).plot()
    first, second, third = (ax.images[0] for ax in axes)
    assert first.colorbar is not None
    assert second.colorbar is None
    assert first.get_clim() == second.get_clim()
    text = r'$\mathrm{Jy\,pix^{-1}}$' if with_unit else 'map value'
    assert first.colorbar.ax.get_ylabel() == text
    assert third.colorbar.ax.get_ylabel() == f'{text}, asinh scale'


def test_scale_of_the_sources_shows_faint_ones(result):
    norm = result.plot()[2].images[0].norm
    low, high = norm.vmin, norm.vmax
    # A twentieth of the brightest pixel is far above a twentieth of the range of colours.
    assert norm(high / 20) - norm(0.0) > 0.15
    assert low <= 0 < high
