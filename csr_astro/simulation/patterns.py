"""Patterns that detectors leave in maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from csr_astro.typing import RngLike

__all__ = ['detector_pattern']


def detector_pattern(shape: tuple[int, int], rng: RngLike) -> np.ndarray:
    """A pattern of the detector: odd and even lines, a checkerboard, offsets of lines, or stripes.

    Parameters
    ----------
    shape, rng
        As in `~csr_astro.simulation.diffuse.power_law_field`.

    Returns
    -------
    pattern : (ny, nx) `~numpy.ndarray` of float64
        Mean 0, standard deviation 1.

    Examples
    --------
    >>> from csr_astro.simulation.patterns import detector_pattern
    >>> print(round(detector_pattern((64, 64), 1).std(), 6))
    1.0
    """
    rng = np.random.default_rng(rng)
    y, x = np.indices(shape)
    lines = (x, y)[rng.integers(2)]
    kind = rng.integers(4)
    if kind == 0:
        # Read-out channels repeat after 2, 4 or 8 lines.
        period = rng.choice([2, 2, 4, 8])
        pattern = rng.standard_normal(period)[lines % period]
    elif kind == 1:
        pattern = (x + y) % 2 * 1.0
    elif kind == 2:
        offsets = rng.standard_normal(max(shape))
        pattern = ndimage.gaussian_filter1d(offsets, rng.uniform(0, 2))[lines]
    else:
        angle, period = rng.uniform(0, np.pi), rng.uniform(2.5, 25)
        phase = x * np.cos(angle) + y * np.sin(angle)
        pattern = np.sin(2 * np.pi * phase / period + rng.uniform(0, 2 * np.pi))
    return (pattern - pattern.mean()) / pattern.std()
