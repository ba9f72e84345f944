"""A simulated field and its sources, for tests of removals."""

import numpy as np
from astropy.wcs import WCS
from numpy.testing import assert_array_equal

SHAPE = (110, 124)
#: (x, y): a pair that overlaps, a lone one, one on the edge, one in a corner.
SOURCES = [(40.3, 60.2), (47.8, 62.6), (90.0, 33.4), (60.2, 1.0), (121.7, 108.4)]


def make_sky(shape=SHAPE, sources=SOURCES, flux=400, seed=0):
    """A slope, noise of scatter 1 and Gaussian stars of FWHM 3.3."""
    yy, xx = np.indices(shape)
    sky = 20 + 0.05 * xx - 0.02 * yy + np.random.default_rng(seed).normal(0, 1, shape)
    for x, y in sources:
        sky += flux / (4 * np.pi) * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 4)
    sky.flags.writeable = False
    return sky


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
