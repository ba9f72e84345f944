"""Windows of a map around sources, and weights of their pixels in circular apertures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from photutils.aperture import CircularAperture

from csr_astro.cutouts import extract, extract_mask, window_corner
from csr_astro.uncertainty import aperture_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csr_astro.images import Image
    from csr_astro.masking import SourceMask

__all__ = ['circle_weights', 'cut_windows', 'window_center']


def cut_windows(
    image: Image,
    covered: np.ndarray,
    masks: Sequence[SourceMask],
    x: np.ndarray,
    y: np.ndarray,
    size: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut out the pixels around sources, with those that are background and those to predict.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    covered : (ny, nx) array of bool
        True for the pixels of any mask.
    masks : sequence of `~csr_astro.masking.SourceMask`
        The mask of each source.
    x, y : (N,) `~numpy.ndarray` of float
        Positions in pixels.
    size : int
        Pixels per side.

    Returns
    -------
    values : (N, size, size) `~numpy.ndarray` of float64
        Pixels of the map, NaN where it is invalid or ends.
    valid : (N, size, size) `~numpy.ndarray` of bool
        True for background: valid pixels outside all masks.
    hole : (N, size, size) `~numpy.ndarray` of bool
        True for the valid pixels of the source's own mask.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.windows import cut_windows
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.masking import combined_mask, disc
    >>> image, place = parse_image(np.zeros((80, 80))), np.array([40.0])
    >>> mask = disc(40, 40, 2, image.shape)
    >>> covered = combined_mask([mask], image.shape)
    >>> values, valid, hole = cut_windows(image, covered, [mask], place, place, 31)
    >>> print(values.shape, hole.sum(), valid.sum() == 31**2 - 13)
    (1, 31, 31) 13 True
    """
    values = extract(image, x, y, size)
    finite = np.isfinite(values)
    hole = np.zeros(values.shape, dtype=bool)
    for i, mask in enumerate(masks):
        hole[(i, *mask.in_window(x[i], y[i], size))] = True
    return values, finite & ~extract_mask(covered, x, y, size), hole & finite


def window_center(x: float, y: float, size: int) -> tuple[float, float]:
    """Position of a source in its window.

    Parameters
    ----------
    x, y : float
        Position in pixels of the map.
    size : int
        Pixels per side of the window.

    Returns
    -------
    x, y : float
        Position in pixels of the window.

    Examples
    --------
    >>> from csr_astro.evaluation.windows import window_center
    >>> window_center(100.25, 50, 97)
    (48.25, 48.0)
    """
    x0, y0 = window_corner(x, y, size)
    return float(x - x0), float(y - y0)


def circle_weights(
    center: tuple[float, float], radii: Sequence[float], rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Fractions of pixels that lie in circular apertures around one position.

    Parameters
    ----------
    center : (float, float)
        Position (x, y) in pixels.
    radii : sequence of float
        Radii of the apertures in pixels.
    rows, columns : (P,) `~numpy.ndarray` of int
        Pixels.

    Returns
    -------
    weights : (A, P) `~numpy.ndarray` of float

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.windows import circle_weights
    >>> rows, columns = np.indices((9, 9)).reshape(2, -1)
    >>> print(circle_weights((4, 4), [2, 3], rows, columns).sum(axis=1).round(3))
    [12.566 28.274]
    """
    return np.array([
        aperture_weights(CircularAperture(center, radius), columns, rows, 'exact')
        for radius in radii
    ])
