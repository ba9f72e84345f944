"""Kriging in the window around one source, for the errors of its background."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from csr_astro.cutouts import extract, extract_mask, nearest_pixel
from csr_astro.images import Image
from csr_astro.kriging import Kriging, block_window
from csr_astro.utils.data import read_data
from csr_astro.utils.outliers import isolated_outliers

if TYPE_CHECKING:
    from csr_astro.masking import SourceMask
    from csr_astro.source_model import SourceModel
    from csr_astro.typing import Pixels, Places

__all__ = ['ErrorWindow', 'NormalizedKriging', 'PredictedSource']


# Normalised values are clipped at this many scatters, as for the network.
_CLIP = 30.0
# Smallest number of valid pixels from which errors are estimated.
_MIN_PIXELS = 12
# Masks with a larger radius are handled in blocks of pixels.
_MAX_RADIUS = 20.0
# Places are numbered by rows of this many pixels, more than a window has.
_ROW = 2**20
# Given errors are clipped at this many scatters, because their squares would overflow.
_MAX_NOISE = 1e100


class NormalizedKriging(NamedTuple):
    """Kriging of the normalised window around a source.

    Attributes
    ----------
    kriging : `~csr_astro.kriging.Kriging`
        Of ``(values - location) / scale``.
    location, scale : float
        In the unit of the map.
    """

    kriging: Kriging
    location: float
    scale: float


@dataclass(frozen=True, eq=False)
class PredictedSource:
    """Source with a prediction: position, mask, peak and predicted background.

    Attributes
    ----------
    x, y : float
        Position in pixels.
    mask : `~csr_astro.masking.SourceMask`
        Mask of the source.
    peak : float
        Largest measured value in the mask.
    predicted : (P,) `~numpy.ndarray` of float
        Predicted background in the pixels of the mask.
    kriging : `NormalizedKriging` or None
        Kriging of the prediction, if there was one; else the errors have their own.

    Examples
    --------
    >>> from csr_astro.error_window import PredictedSource
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
    kriging: NormalizedKriging | None = None

    def __repr__(self) -> str:
        return f'<PredictedSource: x={self.x:.6g}, y={self.y:.6g}, {len(self.predicted)} pixels>'


class ErrorWindow:
    """Kriging in the window around one source, by pixels of the map.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    hole : (ny, nx) `~numpy.ndarray` of bool
        True for the pixels of all masks.
    source : `PredictedSource`
        The source.
    size : int
        Width of the window in pixels, odd.
    model : `~csr_astro.source_model.SourceModel` or None
        Sources whose wings are no background.

    Attributes
    ----------
    kriging : `~csr_astro.kriging.Kriging` or None
        None if too few valid pixels surround the mask.
    scale : float
        Unit of the normalised values, in that of the map. Its square may overflow or underflow.
    x0, y0 : int
        Central pixel of the window.
    places, number : (x, y) of (B,) and (P,) `~numpy.ndarray` of int
        Blocks that contain pixels of the mask, and the index of each pixel's block.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.error_window import ErrorWindow, PredictedSource
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.masking import disc
    >>> noise = np.random.default_rng(0).normal(size=(120, 120))
    >>> mask = disc(50, 60, 4, noise.shape)
    >>> hole = np.zeros(noise.shape, dtype=bool)
    >>> hole[mask.on_map()] = True
    >>> source = PredictedSource(50, 60, mask, 2.0, np.zeros(hole.sum()))
    >>> window = ErrorWindow(parse_image(noise), hole, source, 97, None)
    >>> rms = window.scale * window.rms()
    >>> print(rms.shape == (hole.sum(),), 0.8 < rms.mean() < 1.2)
    True True
    """

    def __init__(
        self,
        image: Image,
        hole: np.ndarray,
        source: PredictedSource,
        size: int,
        model: SourceModel | None,
    ) -> None:
        self.x0, self.y0 = int(nearest_pixel(source.x)), int(nearest_pixel(source.y))
        radius = source.mask.radius
        self._block = 2 * int(np.ceil((radius / _MAX_RADIUS - 1) / 2)) + 1 if radius else 1
        known = source.kriging
        if known is not None and self._block == 1 and known.kriging.size == size:
            # The prediction has the same window.
            kriging, location, self.scale = known
            if image.error is not None:
                noise = self._noise(image, size)
                valid = _valid_pixels(image, hole, self.x0, self.y0, size)[1]
                kriging = kriging.with_noise(noise, valid)
            else:
                # Whatever is computed from here on is freed with the window.
                kriging = copy.copy(kriging)
        else:
            kriging, location, self.scale = self._krige(image, hole, source, size, model)
        self.kriging: Any = None
        if (
            kriging is None
            or kriging.n_valid < _MIN_PIXELS
            # Too few pixels to fit a variogram.
            or (kriging.variogram is None and kriging.varies)
        ):
            return
        self.kriging = kriging
        under: Any = source.mask.on_map()
        self.places, self.number = self.blocks(*under)
        # Pixels of the mask that are not measured tell no errors of those that are.
        measured = image.valid(under)
        self._told = measured if measured.any() else ~measured
        self._predicted = (source.predicted - location) / self.scale

    def _krige(self, image, hole, source, size, model):
        """Return the kriging of the normalised window, None with few pixels, and its scale."""
        values, valid = _valid_pixels(image, hole, self.x0, self.y0, size)
        if model is not None:
            values = values - model.windows(*_places(self.x0, self.y0), size)[0]
        valid = np.isfinite(values) & valid
        if valid.sum() < _MIN_PIXELS:
            return None, 0.0, 1.0
        location, scale = _normalization(values, valid)
        self.scale = scale
        values = np.where(valid, (values - location) / scale, 0).clip(-_CLIP, _CLIP)
        noise = None if image.error is None else self._noise(image, size)
        if self._block > 1:
            values, valid, noise = block_window(values, valid, noise, self._block)
            if valid.sum() < _MIN_PIXELS:
                return None, 0.0, 1.0
        kriging = Kriging(
            values, valid, source.mask.radius / self._block,
            peak=(source.peak - location) / scale, noise=noise,
        )  # fmt: skip
        return kriging, location, scale

    def _noise(self, image, size):
        """Return the relative variance of the given noise of the pixels."""
        error = extract(Image(image.error), *_places(self.x0, self.y0), size)[0]
        noise = _relative_variance(error, self.scale)
        # Unknown noise is replaced by the median of the known.
        known = np.isfinite(noise)
        noise[~known] = np.median(noise[known]) if known.any() else 0
        return noise

    def __repr__(self) -> str:
        return f'<ErrorWindow at x={self.x0}, y={self.y0}: {self.kriging!r}>'

    @cached_property
    def features(self) -> np.ndarray:
        """Features of the error model: logarithmic deviations from a Gaussian field."""
        difference = np.abs(self._predicted - self.kriging.predict(self.places)[self.number])
        difference = difference[self._told].mean()
        weights = np.bincount(self.number[self._told], minlength=len(self.places[0]))
        weights = weights / weights.sum()
        expected = np.sqrt(self.kriging.variance(self.places, weights[np.newaxis])[0])
        # 1 also where the prediction is that of the kriging.
        disagreement = max(difference / expected, 1.0) if expected > 0 else 1.0
        found = [*self.kriging.left_out(), disagreement]
        return np.log(np.clip(found, *read_data('error_model.toml')['range']))

    @cached_property
    def _factor(self):
        """Factor of the variance of the structure, from the error model."""
        model = read_data('error_model.toml')
        return np.exp(2 * (model['constant'] + np.dot(model['coefficients'], self.features)))

    def blocks(self, rows: np.ndarray, columns: np.ndarray) -> tuple[Places, np.ndarray]:
        """Find the blocks that contain pixels of the map.

        Parameters
        ----------
        rows, columns : (P,) `~numpy.ndarray` of int
            The pixels.

        Returns
        -------
        places : (x, y) of (B,) `~numpy.ndarray` of int
            The blocks, from the central one.
        number : (P,) `~numpy.ndarray` of int
            Index of each pixel's block.
        """
        dx, dy = columns - self.x0, rows - self.y0
        if self._block > 1:
            dx, dy = (np.floor(d / self._block + 0.5).astype(int) for d in (dx, dy))
        # Sorted by rows, then columns.
        blocks, number = np.unique(dy * _ROW + dx, return_inverse=True)
        row = (blocks + _ROW // 2) // _ROW
        return (blocks - row * _ROW, row), number.reshape(-1)

    def variances(
        self, weights: np.ndarray, *, given: bool = True, pixels: Pixels | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the variances of weighted sums of pixels: structure and noise.

        Parameters
        ----------
        weights : (..., P) `~numpy.ndarray` of float
            Weights of the pixels in each sum.
        given : bool, optional
            Whether to include the given error of the map.
        pixels : (rows, columns) of (P,) `~numpy.ndarray` of int, optional
            The pixels, by default those of the mask.

        Returns
        -------
        structure, noise : (...) `~numpy.ndarray` of float
            In units of `scale` squared. The structure is not scaled by the error model.
        """
        places, number = (self.places, self.number) if pixels is None else self.blocks(*pixels)
        flat = np.zeros((len(places[0]), weights[..., 0].size))
        np.add.at(flat, number, weights.reshape(-1, weights.shape[-1]).T)
        used = flat.any(axis=1)
        places, flat = (places[0][used], places[1][used]), flat[used].T
        structure = self.kriging.variance(places, flat)
        own = flat**2 @ self.kriging.own_variance(places, given=given)
        return structure.reshape(weights.shape[:-1]), own.reshape(weights.shape[:-1])

    def variance(
        self, weights: np.ndarray, *, given: bool = True, pixels: Pixels | None = None
    ) -> np.ndarray:
        """Compute the variances of the errors of weighted sums, in units of `scale` squared.

        Parameters
        ----------
        weights, given, pixels
            As in `variances`.

        Returns
        -------
        variance : (...) `~numpy.ndarray` of float
        """
        structure, own = self.variances(weights, given=given, pixels=pixels)
        return self._factor * structure + own

    def rms(self) -> np.ndarray:
        """Compute the errors of the pixels of the mask, (P,), in units of `scale`."""
        structure = self.kriging.variances(self.places)
        own = self.kriging.own_variance(self.places)
        return np.sqrt(self._factor * structure + own)[self.number]

    def covariance(
        self, places: Places | None = None, others: Places | None = None
    ) -> np.ndarray:
        """Compute the covariance of the errors of blocks, in units of `scale` squared.

        Parameters
        ----------
        places, others : (x, y) of (B,) and (C,) `~numpy.ndarray` of int, optional
            The blocks; by default those of the mask, and ``places``.

        Returns
        -------
        covariance : (B, C) `~numpy.ndarray` of float
        """
        structure = self._structure if places is None else self.kriging.covariance(places, others)
        own = self.kriging.own_noise(self.places if places is None else places, others)
        return self._factor * structure + own

    @cached_property
    def _structure(self):
        return self.kriging.covariance(self.places)


def _places(x0, y0):
    """Return a position as arrays, as for cutouts."""
    return np.array([float(x0)]), np.array([float(y0)])


def _valid_pixels(image, hole, x0, y0, size):
    """Return the window around a pixel, and True for the measured pixels outside all masks."""
    values = extract(image, *_places(x0, y0), size)
    valid = np.isfinite(values) & ~extract_mask(hole, *_places(x0, y0), size)
    return values[0], (valid & ~isolated_outliers(values, valid))[0]


def _relative_variance(error, scale):
    """Return the squared ratio of errors to a scale, NaN where the errors are."""
    with np.errstate(over='ignore'):
        ratio = error / scale
    return ratio.clip(-_MAX_NOISE, _MAX_NOISE) ** 2


def _normalization(values, valid):
    """Return the median and scatter of the valid pixels; the scatter of a constant is 1."""
    location = np.median(values[valid])
    difference = values[valid] - location
    # Scaled by the largest difference, so that squares neither overflow nor underflow.
    unit = np.abs(difference).max()
    if not unit > 0:
        return location, 1.0
    return location, unit * np.sqrt(np.mean((difference / unit) ** 2))
