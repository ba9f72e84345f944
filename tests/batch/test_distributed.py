import numpy as np
import pytest
from astropy import units as u
from helpers_batch import write_large_map
from numpy.testing import assert_array_equal
from regions import CirclePixelRegion, EllipsePixelRegion, PixCoord

from csr_astro import NeuralBackgroundEstimator
from csr_astro.batch import estimate_distributed
from csr_astro.flags import decode_flags
from csr_astro.images import read_image
from csr_astro.uncertainty import BackgroundErrors


@pytest.fixture
def large(tmp_path):
    return tmp_path / 'large.fits', write_large_map(tmp_path / 'large.fits')


def assert_same(result, expected):
    assert_array_equal(result.background, expected.background)
    assert_array_equal(result.background_rms, expected.background_rms)
    assert_array_equal(result.mask, expected.mask)
    assert result.sources.colnames == expected.sources.colnames
    for name in result.sources.colnames:
        assert_array_equal(result.sources[name], expected.sources[name])
    assert result.sources.meta == expected.sources.meta


def flags_of(result):
    return {name for flags in result.flags for name in decode_flags(flags)}


@pytest.mark.parametrize('parts', [3, 1000, None])
def test_spread_map_is_that_in_one_piece(large, options, threads, parts):
    path, xy = large
    estimator = NeuralBackgroundEstimator(**options, batch_size=3)
    radii = np.random.default_rng(3).uniform(2, 25, len(xy))
    expected = estimator.estimate(read_image(path)[0], xy, mask_radius=radii)
    result = estimate_distributed(
        path, xy, estimator=estimator, client=threads, parts=parts, mask_radius=radii
    )
    assert {'overlap', 'edge', 'off_map', 'invalid_position'} <= flags_of(expected)
    assert_same(result, expected)


def test_errors_are_worked_out_by_the_workers(large, options, processes, monkeypatch):
    path, xy = large
    estimator = NeuralBackgroundEstimator(**options)
    expected = estimator.estimate(read_image(path)[0], xy).background_rms
    result = estimate_distributed(path, xy, estimator=estimator, client=processes, parts=4)

    def work_out(*_):
        raise AssertionError

    monkeypatch.setattr(BackgroundErrors, 'window', work_out)
    assert_array_equal(result.background_rms, expected)


def test_spread_map_keeps_regions_and_blending(large, networks, threads):
    path, _ = large
    regions = [
        EllipsePixelRegion(PixCoord(100, 80), 30, 12, 30 * u.deg),
        CirclePixelRegion(PixCoord(112, 83), 8),
        CirclePixelRegion(PixCoord(60, 60), 9),
        CirclePixelRegion(PixCoord(3, 150), 9),
    ]
    estimator = NeuralBackgroundEstimator(networks['minmax'], fwhm=3.3, preset='paper')
    expected = estimator.estimate(read_image(path)[0], regions)
    result = estimate_distributed(path, regions, estimator=estimator, client=threads, parts=4)
    assert_same(result, expected)


def test_map_without_sources_can_be_spread(large, options, threads):
    estimator = NeuralBackgroundEstimator(**options)
    result = estimate_distributed(large[0], np.zeros((0, 2)), estimator=estimator, client=threads)
    assert not result.mask.any()
