"""How far off may a predicted background be, pixel by pixel and together?

What no method can know behind a source is what the map does there: its
structure, as far as it does not follow from the pixels around, and its noise.
Both follow from the map around the source (`csr_astro.kriging`); how much
further off the predictions are was measured on maps where the truth is known.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy import linalg

from csr_astro.cutouts import MAX_RADIUS, extract, extract_mask, nearest_pixel, window_size
from csr_astro.images import Image
from csr_astro.kriging import Kriging, block_window

__all__ = ['BackgroundCovariance', 'BackgroundErrors']

_MODEL = Path(__file__).parent / 'data' / 'error_model.toml'
# Values this many scatters off are clipped, as for the network.
_CLIP = 30.0
# Fewer valid pixels than this say nothing.
_MIN_PIXELS = 12
# Masks wider than this are handled in blocks of pixels, and this many pixels are the most whose
# covariance is written out.
_MAX_RADIUS = 20.0
_MAX_PIXELS = 10_000
# Deviations of pixels this close to a mask, drawn before, are continued in it.
_NEAR = 12.0


@cache
def _coefficients():
    with _MODEL.open('rb') as file:
        return tomllib.load(file)


@dataclass(frozen=True)
class BackgroundCovariance:
    """Covariance of the errors of the background behind a source.

    Attributes
    ----------
    x, y : (P,) `~numpy.ndarray` of int
        Pixels of the map.
    matrix : (P, P) `~numpy.ndarray` or `~astropy.units.Quantity`
        In the unit of the map, squared.
    """

    x: np.ndarray
    y: np.ndarray
    matrix: np.ndarray

    def sum_err(self, aperture, method='exact'):
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
        weights = aperture_weights(aperture, self.x, self.y, method)
        return np.sqrt(np.maximum(weights @ self.matrix @ weights, 0 * self.matrix.flat[0]))


def aperture_weights(aperture, x, y, method):
    """Fraction of each of some pixels that lies in an aperture with one position."""
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

    def __init__(self, image, hole, x, y, radius, peak, reach):
        self.x0, self.y0 = int(nearest_pixel(x)), int(nearest_pixel(y))
        size = int(window_size(max(radius, reach))) + 1
        values, covered = (
            of(array, np.array([x]), np.array([y]), size)[0]
            for of, array in ((extract, image), (extract_mask, hole))
        )
        valid = np.isfinite(values) & ~covered
        self.kriging = None
        if valid.sum() < _MIN_PIXELS:
            return
        location, self.scale = _normalization(values, valid)
        values = np.where(valid, (values - location) / self.scale, 0).clip(-_CLIP, _CLIP)
        peak = (peak - location) / self.scale
        noise = None
        if image.error is not None:
            noise = extract(Image(image.error), np.array([x]), np.array([y]), size)[0]
            noise = (noise / self.scale) ** 2
            # Where it is not known it is taken for what it typically is.
            known = np.isfinite(noise)
            noise[~known] = np.median(noise[known]) if known.any() else 0
        self.block = 2 * int(np.ceil((radius / _MAX_RADIUS - 1) / 2)) + 1 if radius else 1
        if self.block > 1:
            values, valid, noise = block_window(values, valid, noise, self.block)
            if valid.sum() < _MIN_PIXELS:
                return
        kriging = Kriging(values, valid, radius / self.block, peak=peak, noise=noise)
        if kriging.variogram is None and np.ptp(values[valid]) > 0:
            # Too few pixels to tell how they vary.
            return
        self.kriging = kriging
        coefficients = _coefficients()
        surprise = np.log(np.clip(self.kriging.left_out(), *coefficients['range']))
        self.factor = np.exp(
            2 * (coefficients['constant'] + np.dot(coefficients['surprise'], surprise))
        )

    def places(self, rows, columns):
        """Blocks in which pixels of the map lie, and of each pixel the number of its block."""
        dx, dy = columns - self.x0, rows - self.y0
        if self.block > 1:
            dx, dy = (np.floor(d / self.block + 0.5).astype(int) for d in (dx, dy))
        blocks, number = np.unique(np.stack([dy, dx]), axis=1, return_inverse=True)
        return (blocks[1], blocks[0]), number.reshape(-1)

    def covariance(self, places, others=None, *, given=True):
        """Of blocks, in the units of the map, squared."""
        structure = self.kriging.covariance(places, others)
        own = self.kriging.own_noise(places, others, given=given)
        return (self.factor * structure + own) * self.scale**2


def _normalization(values, valid):
    """Median and scatter of the valid pixels; 1 for the scatter of a window without any."""
    location = np.median(values[valid])
    difference = values[valid] - location
    # Scaled by the largest difference, so that squares neither overflow nor underflow.
    unit = np.abs(difference).max()
    if not unit > 0:
        return location, 1.0
    return location, unit * np.sqrt(np.mean((difference / unit) ** 2))


class BackgroundErrors:
    """Errors of the background behind every source of a map.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    hole : (ny, nx) array of bool
        True for the pixels of all masks.
    x, y : (N,) array of float
        Positions of the sources.
    masks : list of `~csr_astro.masking.SourceMask` or None
        Their masks.
    peaks : (N,) array of float
        Brightest pixel of each source; infinite if none was measured.
    """

    def __init__(self, image, hole, x, y, masks, peaks):
        self._image = image
        self._hole = hole
        self._x, self._y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        self._masks = masks
        self._peaks = peaks
        radii = np.array([np.nan if mask is None else mask.radius for mask in masks])
        self._order = [i for i in np.lexsort((radii, x, y)) if masks[i] is not None]
        self._last = None, None

    def _window(self, i, reach=0.0):
        # The last one is kept: an aperture is seldom alone.
        key = i, reach
        if self._last[0] != key:
            mask = self._masks[i]
            window = _Window(
                self._image, self._hole, self._x[i], self._y[i], mask.radius, self._peaks[i], reach
            )
            self._last = key, window
        return self._last[1]

    def rms(self, i):
        """1-sigma error of each pixel of a mask.

        Parameters
        ----------
        i : int
            Number of the source, from 0.

        Returns
        -------
        rms : (P,) `~numpy.ndarray` of float
            In the order of the mask's ``on_map()``.
        """
        window = self._window(i)
        rows, columns = self._masks[i].on_map()
        if window.kriging is None:
            return np.full(len(rows), np.nan)
        places, number = window.places(rows, columns)
        covariance = window.covariance(places)
        return np.sqrt(np.maximum(covariance.diagonal(), 0))[number]

    def sum_error(self, i, rows, columns, weights, *, given=True):
        """1-sigma error of weighted sums of the background in pixels of a mask.

        Parameters
        ----------
        i : int
            Number of the source, from 0.
        rows, columns : (P,) `~numpy.ndarray` of int
            Pixels of the map inside the mask.
        weights : (..., P) `~numpy.ndarray` of float
            Their weights in each of the sums.
        given : bool, optional
            Whether the error of the map that was given counts, or only what there is
            besides.

        Returns
        -------
        error : (...) `~numpy.ndarray` of float
            NaN where nothing is known of the map around the source.
        """
        window = self._window(i)
        if window.kriging is None:
            return np.full(np.shape(weights)[:-1], np.nan)
        places, number = window.places(rows, columns)
        into_blocks = np.zeros((len(number), len(places[0])))
        into_blocks[np.arange(len(number)), number] = 1
        weights = weights @ into_blocks
        covariance = window.covariance(places, given=given)
        variance = np.einsum('...i,ij,...j->...', weights, covariance, weights, optimize=True)
        return np.sqrt(np.maximum(variance, 0))

    def covariance(self, i, j=None):
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
        if self._order.index(j) < self._order.index(i):
            # One window for both ways round.
            return self.covariance(j, i).T
        masks = self._masks[i], self._masks[j]
        pixels = max(int(m.pixels.sum()) for m in masks)
        if pixels > _MAX_PIXELS:
            raise ValueError(
                f'the mask has {pixels} pixels; covariances are given for up to {_MAX_PIXELS}.'
            )
        reach = 0.0
        if j != i:
            reach = np.hypot(self._x[i] - self._x[j], self._y[i] - self._y[j]) + masks[1].radius
        if reach > MAX_RADIUS:
            # Too far apart for one window: nothing connects them.
            return np.zeros(tuple(int(m.pixels.sum()) for m in masks))
        window = self._window(i, reach)
        (first, number), (second, other) = (window.places(*mask.on_map()) for mask in masks)
        if window.kriging is None:
            return np.full((len(number), len(other)), np.nan)
        return window.covariance(first, second)[np.ix_(number, other)]

    def draw(self, rng_of, n):
        """Deviations of the truth from the prediction, drawn at random.

        Sources are taken by position, one after the other: what was drawn next
        to a mask is continued in it, so that masks that touch have no seam.

        Parameters
        ----------
        rng_of : callable
            Of the row and column of a source, gives a `numpy.random.Generator`.
        n : int
            How many draws.

        Returns
        -------
        pixels : (P,) `~numpy.ndarray` of int
            Flat indices of all pixels of masks, sorted.
        deviations : (n, P) `~numpy.ndarray` of float
        """
        width = self._image.shape[1]
        flat = np.flatnonzero(self._hole)
        drawn = np.zeros(len(flat), dtype=bool)
        deviations = np.zeros((n, len(flat)))
        for i in self._order:
            rows, columns = self._masks[i].on_map()
            mine = np.searchsorted(flat, rows * width + columns)
            mine = mine[~drawn[mine]]
            if not len(mine):
                continue
            window = self._window(i)
            rng = rng_of(window.y0, window.x0)
            noise = rng.standard_normal((len(mine), n))
            if window.kriging is None:
                drawn[mine] = True
                continue
            before = self._drawn_near(i, flat, drawn)
            deviations[:, mine] = _conditional_draw(
                window, flat[mine], flat[before], deviations[:, before].T, noise, width
            ).T
            drawn[mine] = True
        return flat, deviations

    def _drawn_near(self, i, flat, drawn):
        """Numbers of the pixels around a mask that have been drawn."""
        height, width = self._image.shape
        reach = self._masks[i].radius + _NEAR
        y0 = max(int(self._y[i] - reach), 0)
        y1 = min(int(np.ceil(self._y[i] + reach)) + 1, height)
        between = np.arange(*np.searchsorted(flat, [y0 * width, y1 * width]))
        between = between[drawn[between]]
        y, x = np.divmod(flat[between], width)
        return between[(y - self._y[i]) ** 2 + (x - self._x[i]) ** 2 <= reach**2]


def _conditional_draw(window, mine, before, known, noise, width):
    """Draws for some pixels, given those for others, (P, n)."""
    places, number = window.places(*np.divmod(mine, width))
    noise = noise[: len(places[0])]
    covariance = window.covariance(places)
    mean = 0.0
    if len(before):
        others, other_number = window.places(*np.divmod(before, width))
        _, first = np.unique(other_number, return_index=True)
        between = window.covariance(places, others)
        factor = _cholesky(window.covariance(others))
        solved = linalg.cho_solve((factor, True), np.column_stack([known[first], between.T]))
        mean = between @ solved[:, : known.shape[1]]
        covariance = covariance - between @ solved[:, known.shape[1] :]
    return (mean + _cholesky(covariance) @ noise)[number]


def _cholesky(covariance):
    """A lower factor, of the nearest such matrix if rounding left one not quite positive."""
    diagonal = covariance.diagonal()
    # Where nothing varies, nothing is drawn.
    tiny = max(1e-9 * diagonal.max(), np.finfo(float).tiny)
    regular = (covariance + covariance.T) / 2 + tiny * np.eye(len(covariance))
    try:
        return linalg.cholesky(regular, lower=True)
    except linalg.LinAlgError:
        values, vectors = linalg.eigh(regular)
        positive = (vectors * np.maximum(values, tiny)) @ vectors.T
        return linalg.cholesky(positive + tiny * np.eye(len(positive)), lower=True)
