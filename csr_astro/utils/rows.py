"""Rows of tables that are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ['distinct_rows']


def distinct_rows(columns: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows that differ from all before them.

    Parameters
    ----------
    columns : sequence of (N,) `~numpy.ndarray`
        Numbers in each row; NaN differs from NaN.

    Returns
    -------
    kept : (M,) `~numpy.ndarray` of int
        Indices of the first row of each kind, in their order.
    inverse : (N,) `~numpy.ndarray` of int
        Index in ``kept`` of each row.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.utils.rows import distinct_rows
    >>> kept, inverse = distinct_rows([np.array([5, 3, 5]), np.array([1, 1, 1])])
    >>> print(kept, inverse)
    [0 1] [0 1 0]
    """
    # A stable sort: the first of equal rows has the smallest index.
    order = np.lexsort(columns)
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.any([column[order][1:] != column[order][:-1] for column in columns], axis=0)
    first = order[new]
    kept = np.sort(first)
    rank, inverse = np.empty((2, len(order)), dtype=int)
    rank[kept] = np.arange(len(kept))
    inverse[order] = rank[first][np.cumsum(new) - 1]
    return kept, inverse
