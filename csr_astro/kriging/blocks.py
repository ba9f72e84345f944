"""Averages of windows over blocks of pixels."""

from __future__ import annotations

import numpy as np

__all__ = ['BLOCKS', 'block_means', 'block_window']

#: Widths of the blocks in pixels.
BLOCKS = (1, 3, 9)
# Distances from the mask in pixels: single pixels up to the first, blocks of 3 x 3 up to the
# second, then 9 x 9. Remains of incomplete 9 x 9 blocks are used up to the third.
_FINE, _MIDDLE, _FAR = 3.5, 8.0, 24.0


def block_means(
    values: np.ndarray,
    valid: np.ndarray,
    radius: float,
    distance: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[int, slice]]:
    """Average the valid pixels of a window in blocks that grow with the distance from the mask.

    Pixels near the mask stay single; farther out are complete blocks of 3 x 3 and 9 x 9.

    Parameters
    ----------
    values, valid : (S, S) `~numpy.ndarray`
        Window with the source at pixel (S // 2, S // 2), and True for valid pixels.
    radius : float
        Radius of the mask in pixels.
    distance : (S, S) `~numpy.ndarray` of float, optional
        Distance of each pixel from the mask, for masks that are not round.

    Returns
    -------
    dx, dy : (B,) `~numpy.ndarray` of int
        Centres of the blocks, relative to the source's pixel.
    mean, count : (B,) `~numpy.ndarray` of float
        Mean and number of pixels of each block.
    parts : dict of int to slice
        Slices of the blocks of 1, 3 and 9 pixels per side among the B.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.blocks import block_means
    >>> y, x = np.mgrid[-48:49, -48:49]
    >>> dx, dy, mean, count, parts = block_means(x, np.hypot(x, y) > 5, 5)
    >>> print(len(mean), sorted(set(count.tolist())), np.allclose(mean, dx))
    272 [1.0, 9.0, 81.0] True
    """
    size = len(values)
    half = size // 2
    steps = np.arange(size) - half
    block = {n: n * np.rint(steps / n) for n in (3, 9)}
    far = {n: np.hypot(block[n][:, None], block[n]) - radius for n in (3, 9)}
    if distance is not None:
        # That of the central pixel of each block; beyond the window, that of its last pixel.
        far = {}
        for n in (3, 9):
            center = np.clip(block[n].astype(int) + half, 0, size - 1)
            far[n] = distance[np.ix_(center, center)]
    level = np.where(far[3] > _FINE, 3, 1)
    level[far[9] > _MIDDLE] = 9
    values = np.where(valid, values, 0.0)
    left = valid.copy()
    found = {}
    for n in (9, 3):
        if n == 3:
            # Far from the mask, remains of incomplete blocks are dropped to save time.
            left &= far[3] <= _FAR
        # Blocks are centred on multiples of n from the source's pixel: symmetric about it.
        before = -(half - n // 2) % n
        count = -(-(size + before) // n)
        padding = (before, count * n - size - before)
        blocks = [
            np.pad(array, (padding, padding)).reshape(count, n, count, n)
            for array in (values, left & (level >= n))
        ]
        whole = blocks[1].all(axis=(1, 3))
        rows, columns = np.nonzero(whole)
        offset = n // 2 - before - half
        found[n] = (
            columns * n + offset,
            rows * n + offset,
            blocks[0].mean(axis=(1, 3))[whole],
            np.full(len(rows), n * n),
        )
        used = np.repeat(np.repeat(whole, n, axis=0), n, axis=1)
        left &= ~used[before : before + size, before : before + size]
    rows, columns = np.nonzero(left & (level == 1))
    found[1] = (columns - half, rows - half, values[rows, columns], np.ones(len(rows)))
    ends = np.cumsum([0] + [len(found[n][0]) for n in BLOCKS])
    parts = {n: slice(ends[k], ends[k + 1]) for k, n in enumerate(BLOCKS)}
    dx, dy, mean, number = (
        np.concatenate(each) for each in zip(*(found[n] for n in BLOCKS), strict=True)
    )
    return dx, dy, mean, number, parts


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
