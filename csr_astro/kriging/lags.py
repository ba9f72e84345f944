"""Tables of covariances by separation."""

from __future__ import annotations

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
        The variogram.

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
        self._tables: dict[tuple[int, int], tuple[np.ndarray, int, int]] = {}

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
        reach = max(
            max(a.max() - b.min(), b.max() - a.min()) for a, b in zip(places, others, strict=True)
        ) // step  # fmt: skip
        table, width = self._table(blocks, step, int(reach))
        # The separation is the difference of two numbers of places, from the middle of the table.
        first, second = (
            place[1] // step * width + place[0] // step for place in (places, others)
        )
        return table.take(np.subtract.outer(first + len(table) // 2, second))

    def _table(self, blocks, step, reach):
        """Return the covariances of a square of separations, flattened, and its width."""
        blocks = max(blocks), min(blocks)
        table, known = self._tables.get(blocks, (None, -1))
        if known < reach:
            steps = step * np.arange(-reach, reach + 1)
            y, x = (each.ravel() for each in np.meshgrid(steps, steps, indexing='ij'))
            origin = np.zeros(1, dtype=int)
            table = self._variogram.covariance((x, y), (origin, origin), blocks).ravel()
            self._tables[blocks] = table, reach
        return table, int(np.sqrt(len(table)))
