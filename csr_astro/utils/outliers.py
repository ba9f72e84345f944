"""Single pixels that stand out of their surroundings, such as hot pixels and cosmic rays."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

__all__ = ['isolated_outliers']

# Outliers differ from the median of 3 x 3 pixels by more than so many robust scatters of such
# differences, and by so many times more than each of their neighbours, unlike a point source.
_SCATTERS, _ISOLATED = 40.0, 4.0
# More of them than this fraction of the pixels are the tail of a distribution.
_RARE = 1e-3
# Robust scatter of normal numbers over the median of their absolute values.
_NORMAL = 1.4826
_NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)


def isolated_outliers(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Find single pixels that are no background, and no source either.

    A hot pixel decides the scatter and the variogram of the window around it. Point sources with a
    FWHM above 1.5 pixels are wider than one pixel and stay.

    Parameters
    ----------
    values : (N, S, S) `~numpy.ndarray` of float
        Windows; values of invalid pixels have no influence.
    valid : (N, S, S) `~numpy.ndarray` of bool
        True for background pixels.

    Returns
    -------
    outliers : (N, S, S) `~numpy.ndarray` of bool
        All False in windows in which most neighbours are equal, as in images of few photons, and in
        those with many such pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.utils.outliers import isolated_outliers
    >>> values = np.random.default_rng(0).normal(size=(1, 40, 40))
    >>> values[0, 12, 30] = 1000
    >>> print(np.argwhere(isolated_outliers(values, np.ones(values.shape, dtype=bool))))
    [[ 0 12 30]]
    """
    outliers = np.zeros(values.shape, dtype=bool)
    for found, window, good in zip(outliers, values, valid, strict=True):
        known = window[good]
        if not known.size:
            continue
        level = np.median(known)
        scatter = _NORMAL * np.median(np.abs(known - level))
        # Most windows have no pixel this far from all others.
        if not np.abs(known - level).max() > _SCATTERS * scatter > 0:
            continue
        filled = np.where(good, window, level)
        difference = np.abs(filled - ndimage.median_filter(filled, 3))
        difference[~good] = 0
        typical = _NORMAL * np.median(difference[good])
        if not typical > 0:
            continue
        around = ndimage.maximum_filter(difference, footprint=_NEIGHBOURS)
        single = (difference > _SCATTERS * typical) & (difference > _ISOLATED * around)
        if single.sum() <= max(_RARE * known.size, 1):
            found[:] = single
    return outliers
