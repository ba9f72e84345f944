"""Rows of a result, to measure each source once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np

    from csr_astro.background import NeuralBackground

__all__ = ['Rows']


class Rows:
    """Some rows of a result, as far as they are needed to measure its sources.

    Parameters
    ----------
    result : `~csr_astro.NeuralBackground`
        The result.
    rows : (M,) `~numpy.ndarray` of int
        Indices of its sources.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> from csr_astro.photometry.rows import Rows
    >>> noise = np.random.default_rng(0).normal(size=(80, 80))
    >>> result = NeuralBackgroundEstimator(fwhm=3).estimate(noise, [(20, 30), (60, 50)])
    >>> Rows(result, np.array([1])).sources['x_center'][0]
    np.float64(60.0)
    """

    def __init__(self, result: NeuralBackground, rows: np.ndarray) -> None:
        self.image, self.instrument = result.image, result.instrument
        self.estimator = result.estimator
        self.sources = result.sources[rows]
        self.source_masks = [result.source_masks[i] for i in rows]
        self.background_in = result.background_in
        self.errors = self
        self._result, self._rows = result, rows

    def __repr__(self) -> str:
        return f'<Rows: {len(self._rows)} of {self._result!r}>'

    def predicted_near(self, i: int, box: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """Find the predicted pixels of all sources in a box.

        Parameters
        ----------
        i : int
            Row of the source, from 0.
        box : tuple of slice
            Rows and columns of the map.

        Returns
        -------
        rows, columns : (P,) `~numpy.ndarray` of int
        """
        return self._result.errors.predicted_near(self._rows[i], box)

    def sum_error(self, i: int, weights: np.ndarray, **options: Any) -> np.ndarray:
        """Compute the error of weighted sums of predicted pixels.

        Parameters
        ----------
        i : int
            Row of the source, from 0.
        weights, **options
            As in `csr_astro.uncertainty.BackgroundErrors.sum_error`.

        Returns
        -------
        error : `~numpy.ndarray` of float
        """
        return self._result.errors.sum_error(self._rows[i], weights, **options)

    def spread(self, function: Callable, numbers: Iterable) -> Any:
        """Apply a function to the numbers of sources, in threads.

        Parameters
        ----------
        function, numbers
            As in `csr_astro.uncertainty.BackgroundErrors.spread`.
        """
        return self._result.errors.spread(function, numbers)
