"""Calibration of the covariance of the background by sources that are not there.

Maps are no Gaussian fields, and a variogram describes a whole window. The errors of a flux next
to the masks tell how well both fit: the PSF is fitted to the background on a ring around the
masks, each time on all other pixels, and the mean square of these fluxes over their errors
scales the variance of the structure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from csr_astro.kriging import Kriging

__all__ = ['ring_features', 'structure_factor']


# Width of the ring in pixels, its largest number of positions, and the smallest one that tells.
_RING = 3
_MOST = 80
_FEWEST = 4
# The least part of the flux of the stamp that must lie in known pixels.
_SEEN = 0.5
# log(error over that of kriging) = constant + slope log(mean square + floor)
# + few log(blocks of a full window / blocks), by maximum likelihood of Student's t for fluxes in
# 26 groups of maps kept for training (benchmarks/fit_structure_factor.py). Variograms of few
# blocks are less certain. The constant is 0.11 larger than the likeliest: errors have tails, and
# coverages of 66 and 91 % become 69 and 93 %.
_CONSTANT, _SLOPE, _FEW = -0.05, 0.62, 0.38
_SQUARE_FLOOR = 0.02
_FULL = 240.0
# Limits of the mean square.
_LARGEST = 50.0


def structure_factor(
    kriging: Kriging, background: np.ndarray, distance: np.ndarray, stamp: np.ndarray
) -> float:
    """Compute how much larger the variance of the structure is than that of kriging.

    Parameters
    ----------
    kriging : `~csr_astro.kriging.Kriging`
        Kriging of a window.
    background : (S, S) `~numpy.ndarray` of bool
        Its background pixels.
    distance : (S, S) `~numpy.ndarray` of float
        Distance of each pixel from the sources that are fitted.
    stamp : (n, n) `~numpy.ndarray` of float
        The PSF; n is odd.

    Returns
    -------
    factor : float
        1 if the window is constant or too few pixels are known.

    Examples
    --------
    In a Gaussian field the factor is about 1:

    >>> import numpy as np
    >>> from csr_astro.fitting.calibration import structure_factor
    >>> from csr_astro.fitting.psf import pixel_psf
    >>> from csr_astro.kriging import Kriging
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> values = np.random.default_rng(1).normal(7, 2, (97, 97))
    >>> y, x = np.mgrid[:97, :97] - 48
    >>> distance = np.maximum(np.hypot(x, y) - 4.5, 0)
    >>> kriging = Kriging(values, distance > 0, 4.5)
    >>> stamp = pixel_psf(gaussian_profile(3)).evaluate(np.arange(-4, 5), np.arange(-4, 5))
    >>> bool(0.4 < structure_factor(kriging, distance > 0, distance, stamp) < 2)
    True
    """
    found = ring_features(kriging, background, distance, stamp)
    if found is None:
        return 1.0
    square, few = found
    return float(np.exp(2 * (_CONSTANT + _SLOPE * square + _FEW * few)))


def ring_features(
    kriging: Kriging, background: np.ndarray, distance: np.ndarray, stamp: np.ndarray
) -> tuple[float, float] | None:
    """Measure what scales the variance of the structure.

    Parameters
    ----------
    kriging, background, distance, stamp
        As in `structure_factor`.

    Returns
    -------
    square : float
        Logarithm of the mean square of fluxes on empty places over their variance.
    few : float
        Logarithm of the blocks of a full window over those known, at least 0.
    """
    if kriging.variogram is None:
        return None
    square = _mean_square(kriging, _ring(background, distance), stamp)
    if square is None:
        return None
    few = max(0.0, np.log(_FULL / len(kriging.block_sizes)))
    return float(np.log(min(square, _LARGEST) + _SQUARE_FLOOR)), float(few)


def _ring(background, distance):
    """Rows and columns of background pixels next to the masks, on a grid if they are many."""
    rows, columns = np.nonzero((distance <= _RING) & background)
    middle = len(background) // 2
    dy, dx = rows - middle, columns - middle
    # Grids about the central pixel, the same in a map that is turned or flipped.
    chosen, step = np.ones(len(rows), dtype=bool), 1
    while chosen.sum() > _MOST:
        chosen = (dx + dy) % 2 == 0 if step == 1 else (dx % step == 0) & (dy % step == 0)
        step += 1
    return rows[chosen], columns[chosen]


def _mean_square(kriging, places, stamp):
    """Mean square of fluxes on empty places over their variance; None if few are known."""
    averages = kriging.averaging_matrix()
    size = int(np.sqrt(averages.shape[1]))
    steps = np.arange(len(stamp)) - len(stamp) // 2
    rows, columns = (p[:, np.newaxis, np.newaxis] for p in places)
    rows, columns = rows + steps[:, np.newaxis], columns + steps
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    pixels = (rows * size + columns)[inside]
    number = np.broadcast_to(np.arange(len(rows))[:, np.newaxis, np.newaxis], inside.shape)[inside]
    values = np.broadcast_to(stamp, inside.shape)[inside]
    stamps = sparse.csr_array((values, (pixels, number)), shape=(size**2, len(rows)))
    templates = (averages @ stamps).toarray().T
    known = templates @ kriging.block_sizes > _SEEN * stamp.sum()
    if known.sum() < _FEWEST:
        return None
    return float(np.mean(kriging.significance(templates[known]) ** 2))
