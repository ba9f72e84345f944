"""Pixels that are neither background nor part of a source, such as hot ones."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

__all__ = ['boxes_around', 'find_outliers']


# Pixels that differ from the median of a ring around them by more than this many mean absolute
# deviations of those within a box are no background.
_OUTLIER = 10.0
_OUTLIER_BOX = 41
# Widths in pixels of the boxes over which holes are filled, the smallest first.
_FILL = (5, 15, 45)
# Boxes are made of cells of this width.
_CELL = 64


def boxes_around(
    x: np.ndarray, y: np.ndarray, reach: np.ndarray, shape: tuple[int, int]
) -> list[tuple[slice, slice]]:
    """Find the parts of a map that are near positions.

    Parameters
    ----------
    x, y : (N,) `~numpy.ndarray` of float
        Positions in pixels.
    reach : (N,) `~numpy.ndarray` of int
        Half the width of what is needed around each, in pixels.
    shape : (int, int)
        Shape of the map.

    Returns
    -------
    boxes : list of (slice, slice)
        Rows and columns.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.fitting.outliers import boxes_around
    >>> far = np.array([100.0, 900.0])
    >>> len(boxes_around(far, far, np.array([50, 50]), (1000, 1000)))
    2
    """
    cells = np.zeros([-(-n // _CELL) for n in shape], dtype=bool)
    for column, row, r in zip(x, y, reach, strict=True):
        low = [max(int(p - r) // _CELL, 0) for p in (row, column)]
        high = [max(int(p + r) // _CELL + 1, 0) for p in (row, column)]
        cells[low[0] : high[0], low[1] : high[1]] = True
    labels, _ = ndimage.label(cells, np.ones((3, 3)))
    return [
        (_pixels(rows, shape[0]), _pixels(columns, shape[1]))
        for rows, columns in ndimage.find_objects(labels)
    ]


def _pixels(cells, n):
    return slice(cells.start * _CELL, min(cells.stop * _CELL, n))


def find_outliers(
    residual: np.ndarray, usable: np.ndarray, fwhm: float, box: tuple[slice, slice]
) -> np.ndarray:
    """Find pixels far from the median of a ring around them, in units of the scatter nearby.

    Parameters
    ----------
    residual : (ny, nx) `~numpy.ndarray` of float
        Map without sources.
    usable : (ny, nx) `~numpy.ndarray` of bool
        Its background pixels.
    fwhm : float
        Radius of the ring in pixels.
    box : (slice, slice)
        Part of the map to search.

    Returns
    -------
    outliers : (h, w) `~numpy.ndarray` of bool
        True for outliers in the box, and for pixels beside one.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.fitting.outliers import find_outliers
    >>> data = np.random.default_rng(0).normal(size=(60, 60))
    >>> data[30, 20] = 100
    >>> everywhere = slice(0, 60), slice(0, 60)
    >>> int(find_outliers(data, np.ones(data.shape, dtype=bool), 3.0, everywhere).sum())
    9
    """
    pad = _FILL[-1] // 2 + _OUTLIER_BOX // 2 + int(np.ceil(fwhm)) + 3
    wide = tuple(slice(max(part.start - pad, 0), part.stop + pad) for part in box)
    found = _outliers(residual[wide], usable[wide], fwhm)
    return found[tuple(
        slice(part.start - outer.start, part.stop - outer.start)
        for part, outer in zip(box, wide, strict=True)
    )]  # fmt: skip


def _outliers(residual, usable, fwhm):
    """Pixels far from the median of a ring around them, in units of the scatter nearby."""
    if not usable.any():
        return ~usable
    filled = np.where(usable, residual - np.median(residual[usable]), 0.0)
    known = usable.copy()
    # Holes are filled with the mean of what is near, so that the median is of background.
    for width in _FILL:
        weight = ndimage.uniform_filter(usable.astype(float), width)
        mean = ndimage.uniform_filter(np.where(usable, filled, 0.0), width)
        hole = ~known & (weight > 1e-9)
        filled[hole] = mean[hole] / weight[hole]
        known |= hole
    middle = ndimage.median_filter(filled, footprint=_ring(fwhm))
    difference = np.where(usable, np.abs(filled - middle), 0.0)
    weight = ndimage.uniform_filter(usable.astype(float), _OUTLIER_BOX)
    scatter = ndimage.uniform_filter(difference, _OUTLIER_BOX) / np.maximum(weight, 1e-9)
    far = usable & (difference > _OUTLIER * scatter) & (scatter > 0)
    return ndimage.binary_dilation(far, np.ones((3, 3)))


def _ring(radius):
    """Footprint of eight pixels on a circle."""
    angle = np.arange(8) * np.pi / 4
    offsets = np.rint(radius * np.stack([np.cos(angle), np.sin(angle)])).astype(int)
    reach = int(np.abs(offsets).max())
    ring = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=bool)
    ring[tuple(offsets + reach)] = True
    return ring
