"""Errors of predicted backgrounds and their covariance.

The background behind a source differs from any prediction by the structure that does not follow
from the pixels around, and by noise. Kriging of the map around the source (`csr_astro.kriging`)
gives the variance of both. `data/error_model.toml` scales it by how much larger the errors were
on maps where the truth is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from photutils.aperture import PixelAperture

from csr_astro.cutouts import MAX_RADIUS, extract, extract_mask, nearest_pixel, window_size
from csr_astro.images import Image, shape_text
from csr_astro.kriging import Kriging, block_window
from csr_astro.masking import combined_mask
from csr_astro.utils.data import read_data

if TYPE_CHECKING:

    from astropy import units as u

    from csr_astro.masking import SourceMask

__all__ = ['BackgroundCovariance', 'BackgroundErrors', 'PredictedSource', 'predicted_sources']


# Values this many scatters off are clipped, as for the network.
_CLIP = 30.0
# Fewer valid pixels than this say nothing.
_MIN_PIXELS = 12
# Masks wider than this are handled in blocks of pixels, and this many pixels are the most whose
# covariance is written out.
_MAX_RADIUS = 20.0
_MAX_PIXELS = 10_000
# Given errors this many scatters large are taken for this, lest their squares overflow.
_MAX_NOISE = 1e100


@dataclass(frozen=True, eq=False)
class BackgroundCovariance:
    """Covariance of the errors of the background behind a source.

    Attributes
    ----------
    x, y : (P,) `~numpy.ndarray` of int
        Pixels of the map.
    matrix : (P, P) `~numpy.ndarray` or `~astropy.units.Quantity`
        In the unit of the map, squared.

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
        """1-sigma error of the sum of the background in an aperture.

        Parameters
        ----------
        aperture : `~photutils.aperture.PixelAperture`
            With one position on the map. Pixels outside the mask have no error.
        method : {'exact', 'center', 'subpixel'}, optional
            How pixels on its rim count.

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
    """Fraction of each of some pixels that lies in an aperture with one position.

    Parameters
    ----------
    aperture : `~photutils.aperture.PixelAperture`
        With one position on the map.
    x, y : (P,) array of int
        Pixels.
    method : {'exact', 'center', 'subpixel'}
        How pixels on its rim count.
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


class _Window:
    """Kriging around one source, and how pixels of the map become places of it."""

    def __init__(self, image, hole, source, size):
        x, y = np.array([source.x]), np.array([source.y])
        self.x0, self.y0 = int(nearest_pixel(source.x)), int(nearest_pixel(source.y))
        radius = source.mask.radius
        values, covered = extract(image, x, y, size)[0], extract_mask(hole, x, y, size)[0]
        valid = np.isfinite(values) & ~covered
        self.kriging = None
        if valid.sum() < _MIN_PIXELS:
            return
        location, self.scale = _normalization(values, valid)
        values = np.where(valid, (values - location) / self.scale, 0).clip(-_CLIP, _CLIP)
        noise = None
        if image.error is not None:
            noise = _relative_variance(extract(Image(image.error), x, y, size)[0], self.scale)
            # Where it is not known it is taken for what it typically is.
            known = np.isfinite(noise)
            noise[~known] = np.median(noise[known]) if known.any() else 0
        self._block = 2 * int(np.ceil((radius / _MAX_RADIUS - 1) / 2)) + 1 if radius else 1
        if self._block > 1:
            values, valid, noise = block_window(values, valid, noise, self._block)
            if valid.sum() < _MIN_PIXELS:
                return
        kriging = Kriging(
            values, valid, radius / self._block,
            peak=(source.peak - location) / self.scale, noise=noise,
        )  # fmt: skip
        if kriging.variogram is None and np.ptp(values[valid]) > 0:
            # Too few pixels to tell how they vary.
            return
        self.kriging = kriging
        self.places, self.number = self.blocks(*source.mask.on_map())
        self.features = self._features((source.predicted - location) / self.scale)
        model = read_data('error_model.toml')
        self._factor = np.exp(
            2 * (model['constant'] + np.dot(model['coefficients'], self.features))
        )

    def _features(self, predicted):
        """Logarithms of what tells how far the errors are from those in a Gaussian field."""
        difference = np.abs(predicted - self.kriging.predict(self.places)[self.number]).mean()
        weights = np.bincount(self.number) / len(self.number)
        expected = np.sqrt(self.kriging.variance(self.places, weights[np.newaxis])[0])
        disagreement = difference / expected if expected > 0 else 1.0
        found = [*self.kriging.left_out(), disagreement]
        return np.log(np.clip(found, *read_data('error_model.toml')['range']))

    def blocks(self, rows, columns):
        """Blocks in which pixels of the map lie, and of each pixel the number of its block."""
        dx, dy = columns - self.x0, rows - self.y0
        if self._block > 1:
            dx, dy = (np.floor(d / self._block + 0.5).astype(int) for d in (dx, dy))
        blocks, number = np.unique(np.stack([dy, dx]), axis=1, return_inverse=True)
        return (blocks[1], blocks[0]), number.reshape(-1)

    def variances(self, weights, *, given=True, pixels=None):
        """Variances of weighted sums of the mask's pixels: of the structure, and of the noise.

        In units of `scale` squared, which may be too large or small for a number itself; the
        structure without the factor by which the errors were found to be larger.
        """
        places, number = (self.places, self.number) if pixels is None else self.blocks(*pixels)
        into_blocks = np.zeros((len(number), len(places[0])))
        into_blocks[np.arange(len(number)), number] = 1
        weights = weights @ into_blocks
        flat = weights.reshape(-1, weights.shape[-1])
        structure = self.kriging.variance(places, flat).reshape(weights.shape[:-1])
        return structure, weights**2 @ self.kriging.own_variance(places, given=given)

    def variance(self, weights, *, given=True, pixels=None):
        """Variances of the errors of weighted sums, in units of `scale` squared."""
        structure, own = self.variances(weights, given=given, pixels=pixels)
        return self._factor * structure + own

    def covariance(self, places=None, others=None):
        """Covariance of the errors, of the mask's blocks or others, in units of `scale` squared."""
        structure = self._structure if places is None else self.kriging.covariance(places, others)
        own = self.kriging.own_noise(self.places if places is None else places, others)
        return self._factor * structure + own

    @cached_property
    def _structure(self):
        return self.kriging.covariance(self.places)


def _relative_variance(error, scale):
    """Squares of errors over a scale; NaN where they are."""
    with np.errstate(over='ignore'):
        ratio = error / scale
    return ratio.clip(-_MAX_NOISE, _MAX_NOISE) ** 2


def _normalization(values, valid):
    """Median and scatter of the valid pixels; 1 for the scatter of a window without any."""
    location = np.median(values[valid])
    difference = values[valid] - location
    # Scaled by the largest difference, so that squares neither overflow nor underflow.
    unit = np.abs(difference).max()
    if not unit > 0:
        return location, 1.0
    return location, unit * np.sqrt(np.mean((difference / unit) ** 2))


@dataclass(frozen=True, eq=False)
class PredictedSource:
    """A source that has a prediction: where it is, what is under its mask.

    Attributes
    ----------
    x, y : float
        Its position.
    mask : `~csr_astro.masking.SourceMask`
        Its pixels.
    peak : float
        The largest value that was measured there.
    predicted : (P,) `~numpy.ndarray` of float
        The predicted background in the pixels of the mask.

    Examples
    --------
    >>> from csr_astro.uncertainty import PredictedSource
    >>> from csr_astro.masking import disc
    >>> mask = disc(20, 30, 4, (60, 60))
    >>> source = PredictedSource(20, 30, mask, peak=9.0, predicted=mask.pixels[mask.pixels] * 1.5)
    >>> print(source.predicted[0])
    1.5
    """

    x: float
    y: float
    mask: SourceMask
    peak: float
    predicted: np.ndarray

    def __repr__(self) -> str:
        return f'<PredictedSource: x={self.x:.6g}, y={self.y:.6g}, {len(self.predicted)} pixels>'


def predicted_sources(
    x: np.ndarray,
    y: np.ndarray,
    masks: list[SourceMask | None],
    measured: list[np.ndarray | None],
    predicted: list[np.ndarray | None],
) -> dict[int, PredictedSource]:
    """What errors depend on, besides the map.

    Parameters
    ----------
    x, y : (N,) array of float
        Positions of the sources.
    masks : list of `~csr_astro.masking.SourceMask` or None
        Their masks.
    measured, predicted : list of (P,) array of float, or None
        The map and the predicted background in the pixels of each mask.

    Returns
    -------
    sources : dict of int to `PredictedSource`
        By their numbers, from 0, in the order of their positions.

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
    sources = {}
    for i in sorted_sources(x, y, masks):
        seen = measured[i][np.isfinite(measured[i])]
        # A core that was not measured is taken for bright.
        peak = seen.max() if len(seen) else np.inf
        sources[i] = PredictedSource(float(x[i]), float(y[i]), masks[i], peak, predicted[i])
    return sources


class BackgroundErrors:
    """Errors of the background behind every source of a map.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    sources : dict of int to `PredictedSource`
        From `predicted_sources`; at least all whose masks reach into the windows of
        those that are asked for.

    Attributes
    ----------
    sources : dict of int to `PredictedSource`
        As given.
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

    def __init__(self, image: Image, sources: dict[int, PredictedSource]) -> None:
        self._image = image
        self.sources = sources
        self.hole = combined_mask((source.mask for source in sources.values()), image.shape)
        self._rms: dict[int, np.ndarray] = {}
        self._last: tuple[tuple[int, int] | None, _Window | None] = None, None

    def __repr__(self) -> str:
        return f'<BackgroundErrors: {shape_text(self._image)}, {len(self.sources)} sources>'

    def remember_rms(self, rms: dict[int, np.ndarray]) -> None:
        """Take over what `rms` returned elsewhere, by the numbers of sources.

        Parameters
        ----------
        rms : dict of int to (P,) `~numpy.ndarray` of float
            For each source.
        """
        self._rms.update(rms)

    def window(self, i: int, reach: float = 0.0) -> _Window:
        """Kriging in the window around one source.

        Parameters
        ----------
        i : int
            Number of the source, from 0.
        reach : float, optional
            Distance from the source that the window must hold, in pixels.
        """
        source = self.sources[i]
        size = int(window_size(max(source.mask.radius, reach))) + 1
        # The last one is kept: an aperture is seldom alone.
        asked, window = self._last
        if window is None or asked != (i, size):
            window = _Window(self._image, self.hole, source, size)
            # In one step: threads may share the errors.
            self._last = (i, size), window
        return window

    def rms(self, i: int) -> np.ndarray:
        """1-sigma error of each pixel of a mask.

        Parameters
        ----------
        i : int
            Number of the source, from 0.

        Returns
        -------
        rms : (P,) `~numpy.ndarray` of float
            In the order of the mask's ``on_map()``; NaN where nothing is known of the
            map around the source.
        """
        if i in self._rms:
            return self._rms[i]
        window = self.window(i)
        if window.kriging is None:
            return np.full(len(self.sources[i].predicted), np.nan)
        variance = np.maximum(window.covariance().diagonal(), 0)
        return window.scale * np.sqrt(variance)[window.number]

    def predicted_near(self, i: int, box: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """The predicted pixels of a box: those under the masks of all sources.

        Parameters
        ----------
        i : int
            Number of the source, from 0, around which the box lies.
        box : tuple of slice
            Rows and columns.

        Returns
        -------
        rows, columns : (P,) `~numpy.ndarray` of int
            Without those that are too far from the source to be related to it.
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
        """1-sigma error of weighted sums of predicted pixels.

        Parameters
        ----------
        i : int
            Number of the source, from 0.
        weights : (..., P) `~numpy.ndarray` of float
            Of the pixels.
        given : bool, optional
            Whether the error of the map that was given counts, or only what there is
            besides.
        pixels : (rows, columns) of (P,) `~numpy.ndarray` of int, optional
            As from `predicted_near`; by default those of the mask, in the order of its
            ``on_map()``.

        Returns
        -------
        error : (...) `~numpy.ndarray` of float
            NaN where nothing is known of the map around the source.
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
        """What the variance of weighted sums is made of, for those who fit the model.

        Parameters
        ----------
        i, weights
            As in `sum_error`.

        Returns
        -------
        structure, noise : (...) `~numpy.ndarray` of float
            Variance of the structure, in a Gaussian field, and of the pixels' noise.
        features : (F,) `~numpy.ndarray` of float
            By which the first is scaled, see ``data/error_model.toml``; None where
            nothing is known of the map around the source.
        """
        window = self.window(i)
        if window.kriging is None:
            return *np.full((2, *np.shape(weights)[:-1]), np.nan), None
        structure, noise = (window.scale**2 * part for part in window.variances(weights))
        return structure, noise, window.features

    def covariance(self, i: int, j: int | None = None) -> np.ndarray:
        """Covariance of the pixels of one mask, or between those of two.

        Parameters
        ----------
        i, j : int
            Numbers of the sources, from 0; by default they are the same.

        Returns
        -------
        covariance : (P, Q) `~numpy.ndarray` of float
            In the order of the masks' ``on_map()``.
        """
        j = i if j is None else j
        order = list(self.sources)
        if order.index(j) < order.index(i):
            # One window for both ways round.
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
            # Too far apart for one window: nothing connects them.
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
            # In the window of both, pixels vary more or less than in the window of each.
            within = window.covariance(), window.covariance(places)
            covariance *= self._own_over(i, window, within[0], window.number)[:, np.newaxis]
            covariance *= self._own_over(j, window, within[1], number)
        return covariance

    def _own_over(self, i, window, covariance, number):
        """Errors of the pixels of a mask by its own window over those by another."""
        own = self.rms(i)
        other = window.scale * np.sqrt(np.maximum(covariance.diagonal(), 0))[number]
        return np.divide(own, other, out=np.ones_like(own), where=other > 0)

def sorted_sources(x, y, masks):
    """Numbers of the sources that have a mask, in the order of their positions.

    Parameters
    ----------
    x, y : (N,) array of float
        Positions of the sources.
    masks : list of `~csr_astro.masking.SourceMask` or None
        Their masks.
    """
    radius = [np.nan if mask is None else mask.radius for mask in masks]
    return [int(i) for i in np.lexsort((radius, x, y)) if masks[i] is not None]
