"""Kinds of columns of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from astropy.table import Column

__all__ = ['is_decimal', 'is_text', 'is_words']


def is_text(column: Column) -> bool:
    """Return whether a column holds text.

    Parameters
    ----------
    column : `~astropy.table.Column`
        Column of a table.
    """
    # Text columns of VOTables have dtype object.
    kind = column.dtype.kind
    return kind in 'SU' or (
        kind == 'O' and all(isinstance(each, str | np.ma.core.MaskedConstant) for each in column)
    )


def is_decimal(column: Column) -> bool:
    """Return whether a column of text holds decimal numbers.

    Parameters
    ----------
    column : `~astropy.table.Column`
        Column of a table.
    """
    try:
        np.asarray(column).astype(float)
    except ValueError:
        return False
    return True


def is_words(column: Column) -> bool:
    """Return whether a column holds text that is no decimal number, such as sexagesimal angles.

    Parameters
    ----------
    column : `~astropy.table.Column`
        Column of a table.

    Examples
    --------
    >>> from astropy.table import Column
    >>> from csr_astro.utils.text import is_words
    >>> is_words(Column(['12:00:03.7'])), is_words(Column(['180.1'])), is_words(Column([180.1]))
    (True, False, False)
    """
    return is_text(column) and not is_decimal(column)
