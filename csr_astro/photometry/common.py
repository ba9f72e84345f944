"""Checks of arguments that all photometry classes share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csr_astro.background import NeuralBackground
from csr_astro.estimator import NeuralBackgroundEstimator

if TYPE_CHECKING:
    from csr_astro.typing import ImageLike

__all__ = ['is_result', 'require_estimator']


def require_estimator(estimator: object) -> NeuralBackgroundEstimator:
    """Return the estimator, or raise an error for an object of another class.

    Parameters
    ----------
    estimator : object
        Argument of a photometry class.

    Returns
    -------
    estimator : `~csr_astro.NeuralBackgroundEstimator`

    Raises
    ------
    TypeError
        If it is none.

    Examples
    --------
    >>> from csr_astro.photometry.common import require_estimator
    >>> require_estimator('default')
    Traceback (most recent call last):
        ...
    TypeError: estimator must be a NeuralBackgroundEstimator, got str.
    """
    if not isinstance(estimator, NeuralBackgroundEstimator):
        raise TypeError(
            f'estimator must be a NeuralBackgroundEstimator, got {type(estimator).__name__}.'
        )
    return estimator


def is_result(data: ImageLike | NeuralBackground, *others: object) -> bool:
    """Return whether the data are a result, which brings its sources and arguments along.

    Parameters
    ----------
    data : map or `~csr_astro.NeuralBackground`
        First argument of a photometry class.
    *others : object
        The other arguments, which must be None for a result.

    Returns
    -------
    is_result : bool

    Raises
    ------
    TypeError
        If other arguments are given with a result.
    ValueError
        If the map was changed since the result was made.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.photometry.common import is_result
    >>> is_result(np.zeros((50, 50)), [(20, 30)])
    False
    """
    if not isinstance(data, NeuralBackground):
        return False
    if any(value is not None for value in others):
        raise TypeError('a NeuralBackground already has its sources, mask, error and WCS.')
    data.require_unchanged()
    return True
