"""Tables of covariances by separation."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from csr_astro.kriging.variogram import Variogram
    from csr_astro.typing import Places

__all__ = ['LagTables']


class LagTables:
    """Covariances of a variogram, from tables by separation that are computed once.

    Parameters
    ----------
    variogram : `~csr_astro.kriging.variogram.Variogram`
        The variogram, the same in all directions.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.lags import LagTables
    >>> from csr_astro.kriging.variogram import Variogram, fit_variogram, measure_variogram
    >>> noise = np.random.default_rng(0).normal(size=(65, 65))
    >>> weights = fit_variogram(*measure_variogram(noise, np.ones(noise.shape, dtype=bool)))
    >>> variogram = Variogram(weights, 65)
    >>> ones, threes = (np.array([4, 5]), np.array([0, 1])), (np.array([-3]), np.array([9]))
    >>> found = LagTables(variogram).covariance(ones, threes, (1, 3))
    >>> np.array_equal(found, variogram.covariance(ones, threes, (1, 3)))
    True
    """

    def __init__(self, variogram: Variogram) -> None:
        self._variogram = variogram
        self._tables: dict[tuple[int, int], tuple[np.ndarray, int]] = {}

    @property
    def nbytes(self) -> int:
        """Memory of the tables in bytes."""
        return sum(table.nbytes for table, _ in self._tables.values())

    def covariance(
        self, places: Places, others: Places, blocks: tuple[int, int] = (1, 1)
    ) -> np.ndarray:
        """Compute the covariance without the white noise.

        Parameters
        ----------
        places, others : (x, y) of (M,) and of (N,) `~numpy.ndarray` of int
            Centres of two lists of blocks, multiples of the blocks' width.
        blocks : (int, int), optional
            Widths of the blocks in pixels.

        Returns
        -------
        covariance : (M, N) `~numpy.ndarray` of float
        """
        if not (len(places[0]) and len(others[0])):
            return np.empty((len(places[0]), len(others[0])))
        # Separations of blocks are multiples of the smaller width.
        step = min(blocks)
        table, width = self._table(blocks, step, (_extent(places) + _extent(others)) // step)
        # The separation is the difference of two numbers of places, from the middle of the table.
        first, second = (place[1] // step * width + place[0] // step for place in (places, others))
        return table.take(np.subtract.outer(first + len(table) // 2, second))

    def _table(self, blocks, step, reach):
        """Return the covariances of a square of separations, flattened, and its width."""
        blocks = max(blocks), min(blocks)
        table, known = self._tables.get(blocks, (np.empty(0), -1))
        if known < reach:
            known, (x, y, number) = reach, _separations(reach)
            origin = np.zeros(1, dtype=int)
            found = self._variogram.covariance((step * x, step * y), (origin, origin), blocks)
            table = found.ravel().take(number)
            self._tables[blocks] = table, reach
        return table, 2 * known + 1


def _extent(places):
    """Return the largest distance from the central pixel along an axis."""
    x, y = places
    return int(max(x.max(), -x.min(), y.max(), -y.min()))


@lru_cache(maxsize=32)
def _separations(reach):
    """Return one separation (x, y) of each distance in a square, and the number of that of each."""
    steps = np.arange(-reach, reach + 1)
    squared = np.add.outer(steps**2, steps**2).ravel()
    _, index, number = np.unique(squared, return_index=True, return_inverse=True)
    y, x = np.divmod(index, len(steps))
    return steps[x], steps[y], number.reshape(-1)
