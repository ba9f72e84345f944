"""Averages of windows over blocks of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from csr_astro.typing import Places

__all__ = ['BLOCKS', 'Blocks', 'block_window', 'find_blocks']

#: Widths of the blocks in pixels, in the order of the blocks.
BLOCKS = (9, 3, 1)
# Distances from the mask in pixels: single pixels up to the first, blocks of 3 x 3 up to the
# second, then 9 x 9. Remains of incomplete 9 x 9 blocks are used up to the third.
_FINE, _MIDDLE, _FAR = 3.5, 8.0, 24.0


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks of pixels of a window.

    Attributes
    ----------
    size : int
        Width of the window.
    dx, dy : (B,) `~numpy.ndarray` of int
        Centres of the blocks, relative to the window's pixel (size // 2, size // 2). The largest
        come first, and among these the farthest from the centre.
    parts : dict of int to slice
        Slices of the blocks of 9, 3 and 1 pixels per side among the B.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.blocks import find_blocks
    >>> y, x = np.mgrid[-48:49, -48:49]
    >>> blocks = find_blocks(np.hypot(x, y) > 5, 5)
    >>> print(blocks, sorted(set(blocks.count.tolist())))
    <Blocks: 72 of 9, 56 of 3 and 144 of 1 pixels> [1.0, 9.0, 81.0]
    >>> print(np.allclose(blocks.means(x), blocks.dx))
    True
    """

    size: int
    dx: np.ndarray
    dy: np.ndarray
    parts: dict[int, slice]

    def __repr__(self) -> str:
        counts = [self.parts[n].stop - self.parts[n].start for n in BLOCKS]
        return '<Blocks: {} of 9, {} of 3 and {} of 1 pixels>'.format(*counts)

    def __len__(self) -> int:
        return len(self.dx)

    @cached_property
    def count(self) -> np.ndarray:
        """Number of pixels of each block, (B,) float."""
        numbers = [self.parts[n].stop - self.parts[n].start for n in BLOCKS]
        return np.repeat(np.square(BLOCKS).astype(float), numbers)

    def places(self, n: int) -> Places:
        """Return the centres (dx, dy) of the blocks of one width.

        Parameters
        ----------
        n : int
            Width of the blocks, 1, 3 or 9.
        """
        return self.dx[self.parts[n]], self.dy[self.parts[n]]

    def means(self, values: np.ndarray) -> np.ndarray:
        """Average a window over the blocks.

        Parameters
        ----------
        values : (size, size) `~numpy.ndarray` of float
            The window; pixels in no block may be NaN.

        Returns
        -------
        means : (B,) `~numpy.ndarray` of float
        """
        half = self.size // 2
        means = []
        for n in BLOCKS[:-1]:
            before, count = _grid(self.size, n)
            sums = _padded(values, before, count * n).reshape(count, n, -1).sum(axis=1)
            sums = sums.reshape(count, count, n).sum(axis=2)
            first = before + half
            dx, dy = self.places(n)
            means.append(sums[(dy + first) // n, (dx + first) // n] / n**2)
        dx, dy = self.places(1)
        return np.concatenate([*means, values[dy + half, dx + half]])


def find_blocks(valid: np.ndarray, radius: float, distance: np.ndarray | None = None) -> Blocks:
    """Divide the valid pixels of a window into blocks that grow with the distance from the mask.

    Pixels near the mask stay single; farther out are complete blocks of 3 x 3 and 9 x 9.

    Parameters
    ----------
    valid : (S, S) `~numpy.ndarray` of bool
        True for valid pixels, with the source at pixel (S // 2, S // 2).
    radius : float
        Radius of the mask in pixels.
    distance : (S, S) `~numpy.ndarray` of float, optional
        Distance of each pixel from the mask, for masks that are not round.

    Returns
    -------
    blocks : `Blocks`

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.blocks import find_blocks
    >>> y, x = np.mgrid[-24:25, -24:25]
    >>> find_blocks(np.hypot(x, y) > 5, 5)
    <Blocks: 16 of 9, 56 of 3 and 144 of 1 pixels>
    """
    size, half = len(valid), len(valid) // 2
    if distance is None:
        coarse, middle, near = _round_levels(size, float(radius))
    else:
        coarse, middle, near = _levels(*(_at_centers(distance, n) for n in (3, 9)))
    left = valid.copy()
    found = {}
    for n, wanted in ((9, coarse), (3, middle)):
        if n == 3:
            # Far from the mask, remains of incomplete blocks are dropped to save time.
            left &= near
        before, count = _grid(size, n)
        inside = _padded(left & wanted, before, count * n)
        whole = inside.reshape(count, n, -1).all(axis=1).reshape(count, count, n).all(axis=2)
        rows, columns = np.nonzero(whole)
        offset = n // 2 - before - half
        dx, dy = columns * n + offset, rows * n + offset
        if n == BLOCKS[0]:
            order = np.argsort(-(dx**2 + dy**2), kind='stable')
            dx, dy = dx[order], dy[order]
        found[n] = dx, dy
        used = whole.repeat(n, axis=0).repeat(n, axis=1)
        left &= ~used[before : before + size, before : before + size]
    rows, columns = np.nonzero(left & ~middle)
    found[1] = columns - half, rows - half
    ends = np.cumsum([0] + [len(found[n][0]) for n in BLOCKS]).tolist()
    parts = {n: slice(ends[k], ends[k + 1]) for k, n in enumerate(BLOCKS)}
    dx, dy = (np.concatenate([found[n][k] for n in BLOCKS]) for k in (0, 1))
    return Blocks(size, dx, dy, parts)


def _grid(size, n):
    """Return the padding before a window, and the number of blocks of n pixels that cover it.

    Blocks are centred on multiples of n from the source's pixel: symmetric about it.
    """
    before = -(size // 2 - n // 2) % n
    return before, -(-(size + before) // n)


def _padded(window, before, size):
    padded = np.zeros((size, size), dtype=window.dtype)
    padded[before : before + len(window), before : before + len(window)] = window
    return padded


def _block_centers(size, n):
    """Return the centre of the block of n pixels in which each pixel of an axis lies."""
    return n * np.rint((np.arange(size) - size // 2) / n).astype(int)


def _at_centers(distance, n):
    """Return the distance at the centre of each pixel's block, or at the last pixel before it."""
    size = len(distance)
    center = (_block_centers(size, n) + size // 2).clip(0, size - 1)
    return distance[np.ix_(center, center)]


def _levels(far3, far9):
    """Return where blocks of at least 9 and at least 3 pixels are wanted, and what is near."""
    coarse = far9 > _MIDDLE
    return coarse, coarse | (far3 > _FINE), far3 <= _FAR


@lru_cache(maxsize=64)
def _round_levels(size, radius):
    steps = [_block_centers(size, n) for n in (3, 9)]
    return _levels(*(np.hypot(step[:, None], step) - radius for step in steps))


def block_window(
    values: np.ndarray, valid: np.ndarray, noise: np.ndarray | None, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Average a window over blocks of n x n pixels.

    Parameters
    ----------
    values, valid : (S, S) `~numpy.ndarray`
        Window with the source at pixel (S // 2, S // 2), and True for valid pixels.
    noise : (S, S) `~numpy.ndarray` of float, or None
        Noise variance of each pixel.
    n : int
        Width of the blocks in pixels, odd.

    Returns
    -------
    values, valid : (C, C) `~numpy.ndarray`
        Window with the source's block in the middle; blocks are valid if at least half
        of their pixels are.
    noise : (C, C) `~numpy.ndarray` of float, or None
        Noise variance of each block.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.blocks import block_window
    >>> values = np.arange(81.0).reshape(9, 9)
    >>> blocks, valid, noise = block_window(values, np.ones((9, 9), dtype=bool), None, 3)
    >>> print(blocks.shape, blocks[2, 2], values[3:6, 3:6].mean(), noise)
    (5, 5) 40.0 40.0 None
    """
    size, half = len(values), len(values) // 2
    reach = -(-(half + n // 2 + 1) // n)
    count = 2 * reach + 1
    before = reach * n + n // 2 - half
    padding = (before, count * n - size - before)

    def blocks(array):
        return np.pad(array, (padding, padding)).reshape(count, n, count, n).sum(axis=(1, 3))

    number = blocks(valid.astype(float))
    mean = blocks(np.where(valid, values, 0.0)) / np.maximum(number, 1)
    if noise is not None:
        noise = blocks(noise) / n**4
    return mean, number >= n * n / 2, noise
