"""Errors of predicted backgrounds and their covariance.

The background behind a source differs from a prediction by noise, and by structure that the
surrounding pixels do not determine. Kriging of the map around the source (`csr_astro.kriging`)
gives the variance of both. The error model in ``data/error_model.toml``, fitted on maps whose
background is known, scales the variance of the structure.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from photutils.aperture import PixelAperture

from csr_astro.cutouts import MAX_RADIUS, window_size
from csr_astro.error_window import ErrorWindow, PredictedSource
from csr_astro.images import shape_text
from csr_astro.masking import combined_mask
from csr_astro.utils.threads import n_threads, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from astropy import units as u

    from csr_astro.error_window import NormalizedKriging
    from csr_astro.images import Image
    from csr_astro.masking import SourceMask
    from csr_astro.source_model import SourceModel

__all__ = ['BackgroundCovariance', 'BackgroundErrors', 'predicted_sources']


_Result = TypeVar('_Result')

# Largest number of mask pixels with a covariance matrix.
_MAX_PIXELS = 10_000


@dataclass(frozen=True, eq=False)
class BackgroundCovariance:
    """Covariance of the errors of the background behind a source.

    Attributes
    ----------
    x, y : (P,) `~numpy.ndarray` of int
        Columns and rows of the pixels on the map.
    matrix : (P, P) `~numpy.ndarray` or `~astropy.units.Quantity`
        Covariance in the squared unit of the map.

    Examples
    --------
    >>> import numpy as np
    >>> from photutils.aperture import CircularAperture
    >>> from csr_astro.uncertainty import BackgroundCovariance
    >>> y, x = np.mgrid[:9, :9]
    >>> white = BackgroundCovariance(x.ravel(), y.ravel(), np.identity(81))
    >>> print(white.sum_err(CircularAperture((4, 4), 2), method='center')**2)
    9.0
    """

    x: np.ndarray
    y: np.ndarray
    matrix: np.ndarray

    def __repr__(self) -> str:
        unit = getattr(self.matrix, 'unit', None)
        unit = '' if unit is None else f' in {unit}'
        return f'<BackgroundCovariance: {len(self.x)} pixels{unit}>'

    def sum_err(
        self, aperture: PixelAperture, method: Literal['exact', 'center', 'subpixel'] = 'exact'
    ) -> float | u.Quantity:
        """Compute the 1-sigma error of the sum of the background in an aperture.

        Parameters
        ----------
        aperture : `~photutils.aperture.PixelAperture`
            Aperture with one position on the map. Pixels outside the mask have no error.
        method : {'exact', 'center', 'subpixel'}, optional
            Weighting of pixels on the rim of the aperture, as in photutils.

        Returns
        -------
        error : float or `~astropy.units.Quantity`
        """
        if not (isinstance(aperture, PixelAperture) and aperture.isscalar):
            raise TypeError(
                'aperture must be a pixel aperture of photutils with one position, '
                f'got {aperture!r}.'
            )
        weights = aperture_weights(aperture, self.x, self.y, method)
        return np.sqrt(np.maximum(weights @ self.matrix @ weights, 0 * self.matrix.flat[0]))


def aperture_weights(aperture, x, y, method):
    """Compute the fraction of each pixel that lies in an aperture.

    Parameters
    ----------
    aperture : `~photutils.aperture.PixelAperture`
        Aperture with one position on the map.
    x, y : (P,) array of int
        Columns and rows of the pixels on the map.
    method : {'exact', 'center', 'subpixel'}
        Weighting of pixels on the rim of the aperture, as in photutils.

    Returns
    -------
    weights : (P,) `~numpy.ndarray` of float
    """
    mask = aperture.to_mask(method=method)
    if isinstance(mask, list):
        (mask,) = mask
    height, width = mask.data.shape
    row, column = y - mask.bbox.iymin, x - mask.bbox.ixmin
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    weights = np.zeros(len(x))
    weights[inside] = mask.data[row[inside], column[inside]]
    return weights


def predicted_sources(
    x: np.ndarray,
    y: np.ndarray,
    masks: list[SourceMask | None],
    measured: list[np.ndarray | None],
    predicted: list[np.ndarray | None],
    first: np.ndarray | None = None,
    krigings: list[NormalizedKriging | None] | None = None,
) -> dict[int, PredictedSource]:
    """Collect the sources with a mask, for `BackgroundErrors`.

    Parameters
    ----------
    x, y : (N,) array of float
        Positions of the sources.
    masks : list of `~csr_astro.masking.SourceMask` or None
        Mask of each source.
    measured, predicted : list of (P,) array of float, or None
        Values of the map and of the predicted background in the pixels of each mask.
    first : (N,) array of int, optional
        For each source the one that it equals, itself by default: both get one object.
    krigings : list of `~csr_astro.error_window.NormalizedKriging` or None, optional
        Kriging of each prediction.

    Returns
    -------
    sources : dict of int to `~csr_astro.error_window.PredictedSource`
        Sources by their index, from 0, in the order of their positions.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.uncertainty import predicted_sources
    >>> from csr_astro.masking import disc
    >>> mask = disc(20, 30, 4, (60, 60))
    >>> n = mask.pixels.sum()
    >>> sources = predicted_sources([20], [30], [mask], [np.full(n, 9.0)], [np.full(n, 1.5)])
    >>> print(sources[0].peak)
    9.0
    """
    sources: dict[int, PredictedSource] = {}
    for i in sorted_sources(x, y, masks):
        if first is not None and first[i] in sources:
            sources[i] = sources[first[i]]
            continue
        seen = measured[i][np.isfinite(measured[i])]
        # A core that was not measured is assumed to be bright.
        peak = seen.max() if len(seen) else np.inf
        kriging = None if krigings is None else krigings[i]
        sources[i] = PredictedSource(
            float(x[i]), float(y[i]), masks[i], peak, predicted[i], kriging
        )
    return sources


class BackgroundErrors:
    """Errors of the background behind every source of a map.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    sources : dict of int to `~csr_astro.error_window.PredictedSource`
        Sources from `predicted_sources`; at least all whose masks reach into the
        windows of the requested sources.
    model : `~csr_astro.source_model.SourceModel`, optional
        Sources whose wings are no background.

    Attributes
    ----------
    sources : dict of int to `~csr_astro.error_window.PredictedSource`
        The sources as given.
    hole : (ny, nx) `~numpy.ndarray` of bool
        True for the pixels of all masks.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.uncertainty import BackgroundErrors, predicted_sources
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.masking import disc
    >>> noise = np.random.default_rng(0).normal(size=(60, 60))
    >>> mask = disc(20, 30, 4, noise.shape)
    >>> measured = noise[mask.on_map()]
    >>> sources = predicted_sources([20], [30], [mask], [measured], [0 * measured])
    >>> rms = BackgroundErrors(parse_image(noise), sources).rms(0)
    >>> print(rms.shape == measured.shape, 0.8 < np.median(rms) < 1.2)
    True True
    """

    def __init__(
        self,
        image: Image,
        sources: dict[int, PredictedSource],
        model: SourceModel | None = None,
    ) -> None:
        self._image, self._model = image, model
        self.sources = sources
        distinct = {id(source): source for source in sources.values()}
        self.hole = combined_mask((source.mask for source in distinct.values()), image.shape)
        # Sources that are the same object, given more than once, are computed once.
        known: dict[int, int] = {}
        self._first = {i: known.setdefault(id(source), i) for i, source in sources.items()}
        self._rms: dict[int, np.ndarray] = {}
        self._features: dict[tuple[int, int], np.ndarray] = {}
        self._last: dict[int, tuple[tuple[int, int], ErrorWindow]] = {}

    def __repr__(self) -> str:
        return f'<BackgroundErrors: {shape_text(self._image)}, {len(self.sources)} sources>'

    def remember_rms(self, rms: dict[int, np.ndarray]) -> None:
        """Store results of `rms` that were computed elsewhere.

        Parameters
        ----------
        rms : dict of int to (P,) `~numpy.ndarray` of float
            Errors of each source, by its index.
        """
        self._rms.update(rms)

    def window(self, i: int, reach: float = 0.0) -> ErrorWindow:
        """Return the kriging in the window around one source.

        Parameters
        ----------
        i : int
            Index of the source, from 0.
        reach : float, optional
            Distance from the source that the window must include, in pixels.
        """
        source, i = self.sources[i], self._first[i]
        size = int(window_size(max(source.mask.radius, reach))) + 1
        # The last window of each thread is kept, because several sums use it.
        thread = threading.get_ident()
        asked, window = self._last.get(thread, ((-1, 0), None))
        if window is None or asked != (i, size):
            if window is not None and 'features' in vars(window):
                self._features[asked] = window.features
            window = ErrorWindow(self._image, self.hole, source, size, self._model)
            if (i, size) in self._features:
                window.features = self._features[i, size]
            self._last[thread] = (i, size), window
        return window

    def spread(self, function: Callable[[int], _Result], numbers: Iterable[int]) -> list[_Result]:
        """Apply a function that uses these errors to sources, in several threads.

        Parameters
        ----------
        function : callable
            Function of the index of a source.
        numbers : iterable of int
            Indices of sources.

        Returns
        -------
        results : list
            Results in the order of the sources.
        """
        known = set(self._last)
        found = list(spread(function, numbers, n_threads()))
        for thread in self._last.keys() - known - {threading.get_ident()}:
            del self._last[thread]
        return found

    def rms(self, i: int) -> np.ndarray:
        """Compute the 1-sigma error of each pixel of a mask.

        Parameters
        ----------
        i : int
            Index of the source, from 0.

        Returns
        -------
        rms : (P,) `~numpy.ndarray` of float
            Errors in the order of the mask's ``on_map()``; NaN if too few valid pixels
            surround the mask.
        """
        i = self._first[i]
        if i in self._rms:
            return self._rms[i]
        window = self.window(i)
        if window.kriging is None:
            return np.full(len(self.sources[i].predicted), np.nan)
        return window.scale * window.rms()

    def predicted_near(self, i: int, box: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """Find the predicted pixels of all sources in a box.

        Parameters
        ----------
        i : int
            Index of the source, from 0, around which the box lies.
        box : tuple of slice
            Rows and columns of the box.

        Returns
        -------
        rows, columns : (P,) `~numpy.ndarray` of int
            Pixels that are close enough to the source to be correlated with it.
        """
        source = self.sources[i]
        rows, columns = np.nonzero(self.hole[box])
        rows, columns = rows + (box[0].start or 0), columns + (box[1].start or 0)
        near = np.hypot(rows - source.y, columns - source.x) <= MAX_RADIUS
        return rows[near], columns[near]

    def sum_error(
        self,
        i: int,
        weights: np.ndarray,
        *,
        given: bool = True,
        pixels: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Compute the 1-sigma error of weighted sums of predicted pixels.

        Parameters
        ----------
        i : int
            Index of the source, from 0.
        weights : (..., P) `~numpy.ndarray` of float
            Weights of the pixels in each sum.
        given : bool, optional
            Whether to include the given error of the map, or only noise beyond it.
        pixels : (rows, columns) of (P,) `~numpy.ndarray` of int, optional
            Pixels from `predicted_near`; by default those of the mask, in the order of
            its ``on_map()``.

        Returns
        -------
        error : (...) `~numpy.ndarray` of float
            NaN if too few valid pixels surround the mask.
        """
        reach = 0.0
        if pixels is not None:
            source = self.sources[i]
            reach = np.hypot(pixels[0] - source.y, pixels[1] - source.x).max(initial=0)
        window = self.window(i, reach)
        if window.kriging is None:
            return np.full(np.shape(weights)[:-1], np.nan)
        return window.scale * np.sqrt(window.variance(weights, given=given, pixels=pixels))

    def variance_parts(
        self, i: int, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compute the parts of the variance of weighted sums, for fits of the error model.

        Parameters
        ----------
        i, weights
            As in `sum_error`.

        Returns
        -------
        structure, noise : (...) `~numpy.ndarray` of float
            Variance of the structure, in a Gaussian field, and of the pixels' noise.
        features : (F,) `~numpy.ndarray` of float or None
            Features that scale the first, see ``data/error_model.toml``; None if too few
            valid pixels surround the mask.
        """
        window = self.window(i)
        if window.kriging is None:
            return *np.full((2, *np.shape(weights)[:-1]), np.nan), None
        structure, noise = (window.scale**2 * part for part in window.variances(weights))
        return structure, noise, window.features

    def covariance(self, i: int, j: int | None = None) -> np.ndarray:
        """Compute the covariance of the pixels of one mask, or between those of two.

        Parameters
        ----------
        i, j : int
            Indices of the sources, from 0; ``j`` is ``i`` by default.

        Returns
        -------
        covariance : (P, Q) `~numpy.ndarray` of float
            Covariance in the order of the masks' ``on_map()``.
        """
        i, j = self._first[i], self._first[i if j is None else j]
        order = list(self.sources)
        if order.index(j) < order.index(i):
            # The same window serves both orders.
            return self.covariance(j, i).T
        first, second = self.sources[i], self.sources[j]
        shape = len(first.predicted), len(second.predicted)
        if max(shape) > _MAX_PIXELS:
            raise ValueError(
                f'the mask has {max(shape)} pixels; covariances are given for up to {_MAX_PIXELS}.'
            )
        reach = 0.0
        if j != i:
            reach = np.hypot(first.x - second.x, first.y - second.y) + second.mask.radius
        if reach > MAX_RADIUS:
            # Masks too far apart for one window are uncorrelated.
            return np.zeros(shape)
        window = self.window(i, reach)
        if window.kriging is None:
            return np.full(shape, np.nan)
        if i == j:
            covariance, number = window.covariance(), window.number
        else:
            places, number = window.blocks(*second.mask.on_map())
            covariance = window.covariance(window.places, places)
        with np.errstate(over='ignore'):
            covariance = covariance * window.scale**2
        if not np.isfinite(covariance).all():
            raise ValueError(
                f'covariances of a map that scatters by {window.scale:.3g} are too large for a '
                'number; give it in another unit.'
            )
        covariance = covariance[np.ix_(window.number, number)]
        if i != j:
            # Scaled to the errors in each source's own window, which differ from those here.
            within = window.covariance(), window.covariance(places)
            covariance *= self._own_over(i, window, within[0], window.number)[:, np.newaxis]
            covariance *= self._own_over(j, window, within[1], number)
        return covariance

    def _own_over(self, i, window, covariance, number):
        """Return the ratio of a mask's errors in its own window to those in another."""
        own = self.rms(i)
        other = window.scale * np.sqrt(np.maximum(covariance.diagonal(), 0))[number]
        return np.divide(own, other, out=np.ones_like(own), where=other > 0)


def sorted_sources(x, y, masks):
    """Return the indices of the sources that have a mask, in the order of their positions.

    Parameters
    ----------
    x, y : (N,) array of float
        Positions of the sources.
    masks : list of `~csr_astro.masking.SourceMask` or None
        Mask of each source.
    """
    drawn = np.array([i for i, mask in enumerate(masks) if mask is not None], dtype=int)
    radius = [masks[i].radius for i in drawn]
    return drawn[np.lexsort((radius, np.asarray(x)[drawn], np.asarray(y)[drawn]))].tolist()
