"""The pixels of a group of sources, in a window that is averaged over blocks if masks are large."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from csr_astro.cutouts import MAX_RADIUS, nearest_pixel, window_size

if TYPE_CHECKING:
    from csr_astro.masking import SourceMask

__all__ = ['FitWindow', 'block_width']


# Masks with a larger radius are averaged over blocks, at least so many of them per FWHM.
_MAX_RADIUS = 20.0
_BLOCKS_PER_FWHM = 2.5


def block_width(radius: float, fwhm: float) -> int:
    """Width of the blocks in which a mask is fitted.

    Parameters
    ----------
    radius : float
        Radius of the mask in pixels.
    fwhm : float
        FWHM of the image of the source along its minor axis, in pixels.

    Returns
    -------
    width : int
        In pixels, odd.

    Examples
    --------
    >>> from csr_astro.fitting.window import block_width
    >>> block_width(12, 3), block_width(30, 12), block_width(30, 3)
    (1, 3, 1)
    """
    wanted = 2 * int(np.ceil((radius / _MAX_RADIUS - 1) / 2)) + 1
    sampled = 2 * int((fwhm / _BLOCKS_PER_FWHM - 1) // 2) + 1
    return max(1, min(wanted, sampled))


class FitWindow:
    """Window around the masks of a group.

    Parameters
    ----------
    masks : list of `~csr_astro.masking.SourceMask`
        The masks.
    x, y : (n,) `~numpy.ndarray` of float
        Positions of the sources, in pixels.
    valid : (ny, nx) `~numpy.ndarray` of bool
        Trusted pixels of the map.
    block : int, optional
        Width of the blocks in pixels, odd.

    Attributes
    ----------
    size : int
        Width of the window in blocks.
    radius : float
        Largest distance of a pixel of the masks from the central one, in blocks.
    x, y : (size * block,) `~numpy.ndarray` of int
        Columns and rows of the map in the window.
    rows, columns : (P,) `~numpy.ndarray` of int
        Central pixels of the trusted blocks with a pixel of a mask.
    inside : (P,) `~numpy.ndarray` of int
        The same, in the flattened window of blocks.
    places : (x, y) of (P,) `~numpy.ndarray` of int
        The same, relative to the central block.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.fitting.window import FitWindow
    >>> from csr_astro.masking import disc
    >>> mask = disc(50, 60, 4, (120, 100))
    >>> window = FitWindow([mask], [50], [60], np.ones((120, 100), dtype=bool))
    >>> window.size, len(window.rows), int(window.places[0].max())
    (97, 49, 4)
    """

    def __init__(
        self,
        masks: list[SourceMask],
        x: np.ndarray,
        y: np.ndarray,
        valid: np.ndarray,
        block: int = 1,
    ) -> None:
        self.block = block
        rows, columns = np.concatenate([np.stack(mask.on_map()) for mask in masks], axis=1)
        # The mean position, not the middle of the masks: no halves that depend on the side.
        y0 = int(np.clip(nearest_pixel(np.mean(y)), rows.min(), rows.max()))
        x0 = int(np.clip(nearest_pixel(np.mean(x)), columns.min(), columns.max()))
        distance = np.hypot(rows - y0, columns - x0)
        radius = min(float(distance.max()), MAX_RADIUS)
        half = int(window_size(radius)) // 2
        self.size = 2 * -(-half // block) + 1 if block > 1 else 2 * half + 1
        self.radius = radius / block
        steps = np.arange(self.size * block) - (self.size * block) // 2
        self.x, self.y = steps + x0, steps + y0
        near = distance <= MAX_RADIUS
        own = np.zeros((self.size * block, self.size * block), dtype=bool)
        own[rows[near] - self.y[0], columns[near] - self.x[0]] = True
        used = self._blocks(own).any(axis=(1, 3)) & self.all(valid)
        row, column = np.nonzero(used)
        self.inside = np.flatnonzero(used)
        self.rows, self.columns = (
            first[0] + n * block + block // 2 for first, n in ((self.y, row), (self.x, column))
        )
        self.places = column - self.size // 2, row - self.size // 2

    def __repr__(self) -> str:
        return f'<FitWindow: {len(self.rows)} blocks of {self.block} x {self.block} pixels>'

    def cut(self, array: np.ndarray) -> np.ndarray:
        """Cut the window out of a map.

        Parameters
        ----------
        array : (ny, nx) `~numpy.ndarray`
            The map.

        Returns
        -------
        window : (E, E) `~numpy.ndarray`
            Pixels of the window, 0 or False beyond the map.
        """
        window = np.zeros((len(self.y), len(self.x)), dtype=array.dtype)
        overlap, inside = [], []
        for pixels, n in zip((self.y, self.x), array.shape, strict=True):
            first, last = max(pixels[0], 0), max(min(pixels[-1] + 1, n), pixels[0], 0)
            overlap.append(slice(first, last))
            inside.append(slice(first - pixels[0], last - pixels[0]))
        window[tuple(inside)] = array[tuple(overlap)]
        return window

    def average(self, windows: np.ndarray) -> np.ndarray:
        """Average windows over blocks.

        Parameters
        ----------
        windows : (..., E, E) `~numpy.ndarray` of float
            Pixels of windows, as from `cut`.

        Returns
        -------
        blocks : (..., size, size) `~numpy.ndarray` of float
        """
        return windows if self.block == 1 else self._blocks(windows).mean(axis=(-3, -1))

    def all(self, array: np.ndarray) -> np.ndarray:
        """Find the blocks of which all pixels are True.

        Parameters
        ----------
        array : (ny, nx) `~numpy.ndarray` of bool
            A map.

        Returns
        -------
        blocks : (size, size) `~numpy.ndarray` of bool
        """
        return self._blocks(self.cut(array)).all(axis=(1, 3))

    def number(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Find the trusted blocks in which pixels of the map lie.

        Parameters
        ----------
        rows, columns : (Q,) `~numpy.ndarray` of int
            Pixels of the map.

        Returns
        -------
        number : (Q,) `~numpy.ndarray` of int
            Indices among the P, and -1 for pixels in no trusted block.
        """
        known = np.full(self.size**2 + 1, -1)
        known[self.inside] = np.arange(len(self.inside))
        row, column = (rows - self.y[0]) // self.block, (columns - self.x[0]) // self.block
        inside = (row >= 0) & (row < self.size) & (column >= 0) & (column < self.size)
        return known[np.where(inside, row * self.size + column, -1)]

    def _blocks(self, windows):
        shape = (*windows.shape[:-2], self.size, self.block, self.size, self.block)
        return windows.reshape(shape)
