"""What does the map look like behind its sources?

`NeuralBackgroundEstimator` takes a map and sources, and returns a
`NeuralBackground`: the map without them.
"""

from __future__ import annotations

import copy
import numbers
import threading
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from inspect import signature
from typing import TYPE_CHECKING, Literal

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from photutils.background import LocalBackground
from photutils.centroids import centroid_sources
from scipy.spatial import KDTree

from csr_astro.cutouts import extract, nearest_pixel
from csr_astro.errors import (
    BackgroundCovariance,
    BackgroundErrors,
    predicted_sources,
    sorted_sources,
)
from csr_astro.flags import BITS, NOT_INPAINTED, decode_flags
from csr_astro.images import parse_image
from csr_astro.instruments import get_instrument
from csr_astro.masking import draw_masks, mask_radii, measure_snr
from csr_astro.notebook import html_table, shape_text
from csr_astro.prediction import (
    BATCH_SIZES,
    Predictor,
    combine_parts,
    flag_masks,
    plan_batches,
)
from csr_astro.products import count_sources
from csr_astro.quiet import ignored, one_at_a_time
from csr_astro.sources import parse_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from csr_astro.images import Image
    from csr_astro.instruments import Instrument
    from csr_astro.masking import SourceMask
    from csr_astro.prediction import Part
    from csr_astro.sources import Sources
    from csr_astro.typing import ImageLike, PathLike, QuantityLike, RngLike, SourcesLike, WcsLike

__all__ = ['NeuralBackground', 'NeuralBackgroundEstimator']


@dataclass(frozen=True)
class _Preset:
    """What distinguishes the ways of using a network."""

    normalization: str | None
    blend: bool
    orientations: int


_PRESETS = {
    # Normalised as the weights were trained; only the mask is replaced.
    'default': _Preset(normalization=None, blend=False, orientations=8),
    # As published (paper, Sects. 2.4.2 and 4).
    'paper': _Preset(normalization='minmax', blend=True, orientations=1),
}


# One model per process, however many threads ask for it at once.
_LOADING = threading.Lock()


@lru_cache(maxsize=4)
def _model(path, sha256, device, dtype, normalization):
    """The model for a weights file; the hash is part of the key, lest a changed file be missed."""
    from csr_astro.nn.weights import load_model

    del sha256
    model = load_model(path, device, dtype)
    if normalization is not None:
        model = copy.copy(model)
        model.normalization = normalization
    return model


def _counted(numbers):
    return ', '.join(f'{number} {name}' for name, number in numbers.most_common())


class NeuralBackground:
    """A map without its sources; made by `NeuralBackgroundEstimator.estimate`.

    Maps are in the unit of the data: a `~astropy.units.Quantity` if the data
    were one, else plain arrays, as ``ccd.data`` is.

    Attributes
    ----------
    sources : `~astropy.table.QTable`
        One row per source, in the order given: ``id``, ``x_center``,
        ``y_center`` (pixels, zero-based), ``sky_center`` (with a WCS), ``snr``,
        ``mask_name``, ``mask_radius`` (pixels), ``background`` (mean of the
        prediction under the mask), ``background_scatter`` (1-sigma scatter of
        a pixel of the ring around the mask) and ``flags``
        (`~csr_astro.flags.FLAGS`). ``meta`` holds versions, weights and
        arguments.
    image : `~csr_astro.images.Image`
        The map that was given.
    source_masks : list of `~csr_astro.masking.SourceMask` or None
        The pixels of each source; None where it has no prediction.
    estimator : `NeuralBackgroundEstimator`
        What made it.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> noise = np.random.default_rng(0).normal(size=(100, 100))
    >>> result = NeuralBackgroundEstimator(fwhm=3.3).estimate(noise, [(60, 50), (20, 30)])
    >>> result
    <NeuralBackground: 100 x 100 map, 2 sources, ... pixels inpainted>
    >>> bool((result.background[~result.mask] == noise[~result.mask]).all())
    True
    """

    def __init__(
        self,
        image: Image,
        sources: QTable,
        source_masks: list[SourceMask | None],
        pixels: np.ndarray,
        values: np.ndarray,
        shares: np.ndarray,
        estimator: NeuralBackgroundEstimator,
    ) -> None:
        self.image = image
        self.sources = sources
        self.source_masks = source_masks
        # Flat indices of the pixels that changed, their background, how much of it is predicted.
        self._pixels = pixels
        self._values = values
        self._shares = shares
        self.estimator = estimator
        # Kept, in case the user cleans the map in place.
        self._measured = np.asarray(image.data).reshape(-1)[pixels].astype(image.dtype)

    @property
    def instrument(self) -> Instrument:
        """The `~csr_astro.instruments.Instrument`, on the pixels of the map."""
        return self.estimator.instrument.on_pixels(self.image.pixel_scale)

    @property
    def unit(self) -> u.UnitBase | None:
        """Unit of the maps, or None."""
        return self.image.unit

    def _map(self, fill, values):
        flat = np.full(self.image.data.size, fill, dtype=self.image.dtype)
        flat[self._pixels] = self._representable(values)
        return self.image.like_input(flat.reshape(self.image.shape))

    def _representable(self, values):
        """Finite values within what the maps can hold; half precision ends at 65504."""
        largest = float(np.finfo(self.image.dtype).max)
        return np.where(np.isinf(values), values, np.clip(values, -largest, largest))

    @cached_property
    def background(self) -> np.ndarray:
        """The source-free map, (ny, nx), in the data's unit.

        Pixels outside `mask` are those of the map, bit for bit.
        """
        background = np.array(self.image.data, dtype=self.image.dtype)
        background.flat[self._pixels] = self._representable(self._values)
        return self.image.like_input(background)

    def background_in(self, window: tuple[slice, slice]) -> np.ndarray:
        """Part of `background`, as plain numbers, without making all of it.

        Parameters
        ----------
        window : (slice, slice)
            Rows and columns, without steps.

        Returns
        -------
        background : `~numpy.ndarray`
            In the unit of the map.

        Examples
        --------
        >>> import numpy as np
        >>> from csr_astro import NeuralBackgroundEstimator
        >>> noise = np.random.default_rng(0).normal(size=(100, 100))
        >>> result = NeuralBackgroundEstimator(fwhm=3.3).estimate(noise, [(60, 50)])
        >>> part = result.background_in(np.s_[40:61, 55:])
        >>> print(part.shape, np.array_equal(part, result.background[40:61, 55:]))
        (21, 45) True
        """
        height, width = self.image.shape
        (top, bottom, _), (left, right, _) = (
            each.indices(n) for each, n in zip(window, (height, width), strict=True)
        )
        background = np.array(self.image.data[top:bottom, left:right], dtype=self.image.dtype)
        first, last = np.searchsorted(self._pixels, (top * width, bottom * width))
        rows, columns = np.divmod(self._pixels[first:last], width)
        here = (columns >= left) & (columns < right)
        predicted = self._representable(self._values[first:last][here])
        background[rows[here] - top, columns[here] - left] = predicted
        return background

    @cached_property
    def source_image(self) -> np.ndarray:
        """The map minus `background`, (ny, nx); zero outside `mask`."""
        return self._map(0, self._measured - self._values)

    @cached_property
    def background_rms(self) -> np.ndarray:
        """1-sigma error of each predicted pixel, (ny, nx); zero outside `mask`.

        What the map does behind the mask as far as its surroundings do not tell, its
        noise included; NaN where too little of the map is left to tell. Worked out when
        it is first asked for. Errors of neighbouring pixels are not independent: that of
        a sum needs `covariance`.
        """
        rms, count = np.zeros(len(self._pixels)), np.zeros(len(self._pixels))
        x, y = (np.asarray(self.sources[name]) for name in ('x_center', 'y_center'))
        for i in sorted_sources(x, y, self.source_masks):
            index = self._index(*self.source_masks[i].on_map())
            # Squares of very large or small numbers would not be numbers.
            rms[index] = np.hypot(rms[index], self.errors.rms(i))
            count[index] += 1
        rms /= np.sqrt(np.maximum(count, 1))
        if (count == 0).any():
            # Blended pixels around a mask, of which part is predicted.
            known = np.flatnonzero(count)
            places = np.column_stack(np.divmod(self._pixels, self.image.shape[1]))
            rms[count == 0] = rms[known][KDTree(places[known]).query(places[count == 0])[1]]
        return self._map(0, rms * self._shares)

    @cached_property
    def errors(self) -> BackgroundErrors:
        """`~csr_astro.errors.BackgroundErrors` of all sources, for sums of pixels."""
        x, y = (np.asarray(self.sources[name]) for name in ('x_center', 'y_center'))
        under = [
            None if mask is None else self._index(*mask.on_map()) for mask in self.source_masks
        ]
        measured, predicted = (
            [None if index is None else values[index] for index in under]
            for values in (self._measured, self._values)
        )
        sources = predicted_sources(x, y, self.source_masks, measured, predicted)
        return BackgroundErrors(self.image, sources)

    def _index(self, rows, columns):
        """Numbers among the changed pixels of some that are."""
        return np.searchsorted(self._pixels, rows * self.image.shape[1] + columns)

    def covariance(
        self, source_id: int, other: int | None = None
    ) -> BackgroundCovariance | np.ndarray:
        """Covariance of the errors of the background behind a source.

        Parameters
        ----------
        source_id : int
            The source, by its ``id`` in `sources`.
        other : int, optional
            A second source: the covariance between the pixels of the two is
            returned, which matters where their masks touch.

        Returns
        -------
        covariance : `~csr_astro.errors.BackgroundCovariance`
            Of the P pixels of the mask; or, with ``other``, a plain (P, Q) array
            or Quantity between the pixels of two masks.

        Raises
        ------
        ValueError
            If there is no such source, it has no prediction, or its mask has more
            than 10,000 pixels.

        Notes
        -----
        Per pixel: the conditional covariance of a random field with the variogram of
        the map around the source, given the valid pixels; scaled, without the noise
        of the pixels themselves, by how well pixels next to the mask are predicted
        from the others, as was found on maps where the truth is known.

        Examples
        --------
        The error of a sum in a circle, in noise of 1 per pixel:

        >>> import numpy as np
        >>> from photutils.aperture import CircularAperture
        >>> from csr_astro import NeuralBackgroundEstimator
        >>> noise = np.random.default_rng(0).normal(size=(120, 120))
        >>> result = NeuralBackgroundEstimator(fwhm=3.3).estimate(noise, [(60, 50)])
        >>> error = result.covariance(1).sum_err(CircularAperture((60, 50), 4))
        >>> bool(1 < error / np.sqrt(np.pi * 4**2) < 1.5)
        True
        """
        numbers = [self._number(source_id)]
        if other is not None:
            numbers.append(self._number(other))
        matrix = self.errors.covariance(*numbers)
        if self.image.unit is not None:
            matrix = u.Quantity(matrix, self.image.unit**2)
        if other is not None:
            return matrix
        rows, columns = self.source_masks[numbers[0]].on_map()
        return BackgroundCovariance(columns, rows, matrix)

    def require_unchanged(self) -> None:
        """Raise an error if the map was changed in place behind the sources.

        Raises
        ------
        ValueError
            What is measured on the map from here on would not be what was there.

        Examples
        --------
        >>> import numpy as np
        >>> from csr_astro import NeuralBackgroundEstimator
        >>> noise = np.random.default_rng(0).normal(size=(100, 100))
        >>> result = NeuralBackgroundEstimator(fwhm=3.3).estimate(noise, [(60, 50)])
        >>> result.require_unchanged()
        >>> noise -= result.source_image
        >>> result.require_unchanged()
        Traceback (most recent call last):
            ...
        ValueError: the map was changed after its background was estimated; ...
        """
        now = np.asarray(self.image.data).reshape(-1)[self._pixels].astype(self.image.dtype)
        if not np.array_equal(now, self._measured, equal_nan=True):
            raise ValueError(
                'the map was changed after its background was estimated; measure it before that, '
                'or change a copy.'
            )

    def _row(self, source_id):
        found = np.flatnonzero(np.asarray(self.sources['id']) == source_id)
        if np.ndim(source_id):
            raise TypeError(f'the id of one source is taken, got {source_id!r}.')
        if not len(found):
            raise ValueError(f'there is no source with id {source_id!r}; ids are 1 to {len(self)}.')
        return int(found[0])

    def _number(self, source_id):
        row = self._row(source_id)
        if self.source_masks[row] is None:
            flags = decode_flags(self.flags[row])
            raise ValueError(f'source {source_id} has no prediction: {", ".join(flags)}.')
        return row

    @cached_property
    def mask(self) -> np.ndarray:
        """True for the inpainted pixels, (ny, nx)."""
        mask = np.zeros(self.image.shape, dtype=bool)
        mask.flat[self._pixels] = True
        return mask

    @property
    def flags(self) -> np.ndarray:
        """The ``flags`` column of `sources`."""
        return self.sources['flags']

    def __len__(self) -> int:
        return len(self.sources)

    def __repr__(self) -> str:
        return (
            f'<NeuralBackground: {shape_text(self.image)}, {len(self)} sources, '
            f'{len(self._pixels)} pixels inpainted>'
        )

    def _repr_html_(self) -> str:
        scale, n_pixels = self.image.pixel_scale, len(self._pixels)
        names = Counter(str(name) for name in self.sources['mask_name'] if name)
        flags = Counter(name for names in decode_flags(self.flags) for name in names)
        return html_table(
            'NeuralBackground: a map without its sources',
            {
                'map': shape_text(self.image),
                'pixels': '' if scale is None else f'{scale:.3g} arcsec',
                'instrument': self.instrument.name,
                'weights': self.estimator.weights,
                'sources': count_sources(self.sources),
                'masks': _counted(names),
                'flags': _counted(flags),
                'inpainted': f'{n_pixels} pixels, {n_pixels / self.image.data.size:.2%}',
            },
        )

    def to_ccddata(self) -> CCDData:
        """The source-free map with unit, mask and, if it is a FITS one, WCS.

        Returns
        -------
        ccd : `~astropy.nddata.CCDData`
            Its mask is that of the input; which pixels were inpainted is in
            ``flags``. What ``sources.meta`` says is in ``meta``, under names that a
            FITS header can hold, such as ``sha256``.
        """
        from csr_astro.tables import fits_meta

        unit = self.image.unit
        return CCDData(
            u.Quantity(self.background).value.copy(),
            unit=u.dimensionless_unscaled if unit is None else unit,
            mask=None if self.image.mask is None else self.image.mask.copy(),
            flags=self.mask.astype(np.uint8),
            # Of a slice of a cube it is of another kind, which a CCDData cannot hold.
            wcs=self.image.wcs if isinstance(self.image.wcs, WCS) else None,
            uncertainty=None
            if self.image.error is None
            else StdDevUncertainty(np.array(self.image.error)),
            meta=fits_meta(self.sources.meta),
        )

    def realization(self, seed: RngLike | None = None, n: int = 1) -> np.ndarray:
        """Source-free maps whose filled pixels carry noise and texture like their surroundings.

        The prediction is the expected background, and smoother than any real one. To
        it, deviations are added that are drawn at random with the covariance of its
        errors: the structure that the surroundings leave open, and the noise. They
        continue the map at the rim of a mask, and each other where masks touch.

        Parameters
        ----------
        seed : int or `numpy.random.Generator`, optional
            The same seed gives the same maps, whatever the order of the sources.
        n : int, optional
            How many maps.

        Returns
        -------
        realization : (ny, nx) or, for n > 1, (n, ny, nx) array or Quantity
            Outside `mask` equal to the map. For statistics of the map, such as its
            power spectrum or its distribution, best averaged over several; for
            photometry use `background`.
        """
        if not (isinstance(n, numbers.Integral) and not isinstance(n, bool) and n > 0):
            raise ValueError(f'n must be a positive integer, got {n!r}.')
        try:
            rng = np.random.default_rng(seed)
        except (TypeError, ValueError):
            raise ValueError(
                f'seed must be a whole number from 0 up or a Generator, got {seed!r}.'
            ) from None
        # A stream for each source, by its place, so that the others have no influence on it.
        key = int(rng.integers(2**63))
        pixels, deviations = self.errors.draw(
            lambda row, column: np.random.default_rng([key, row % 2**32, column % 2**32]), n
        )
        index = np.searchsorted(self._pixels, pixels)
        maps = np.repeat(np.array(u.Quantity(self.background).value)[None], n, axis=0)
        for each, deviation in zip(maps, deviations, strict=True):
            each.flat[pixels] = self._representable(
                each.flat[pixels] + deviation * self._shares[index]
            )
        return self.image.like_input(maps[0] if n == 1 else maps)

    def plot(
        self, *, axes: Sequence[Axes] | np.ndarray | None = None, percentile: float = 99.0
    ) -> np.ndarray:
        """Show the map, the map without its sources, and the sources.

        Parameters
        ----------
        axes : sequence of three `~matplotlib.axes.Axes`, optional
            Where to draw; a new figure by default.
        percentile : float, optional
            Percentile of the source-free map at which the colours end.

        Returns
        -------
        axes : `~numpy.ndarray` of `~matplotlib.axes.Axes`
        """
        from csr_astro.plotting import plot_removal

        return plot_removal(self, axes=axes, percentile=percentile)

    def plot_source(
        self, source_id: int, *, axes: Sequence[Axes] | np.ndarray | None = None
    ) -> np.ndarray:
        """Show one source: map, mask, prediction, difference and error.

        Parameters
        ----------
        source_id : int
            The source, by its ``id`` in `sources`.
        axes : sequence of five `~matplotlib.axes.Axes`, optional
            Where to draw; a new figure by default.

        Returns
        -------
        axes : `~numpy.ndarray` of `~matplotlib.axes.Axes`

        Raises
        ------
        ValueError
            If there is no such source, or it is off the map.
        """
        from csr_astro.plotting import plot_source

        return plot_source(self, self._row(source_id), axes=axes)


class NeuralBackgroundEstimator(LocalBackground):
    """Predicts the background behind sources with a partial-convolution U-Net.

    The method is that of Madarász et al. (2025). An instance is also what
    photutils takes as ``local_bkg_estimator``.

    Parameters
    ----------
    weights : str or path-like, optional
        A name from `~csr_astro.list_weights`, or a safetensors file.
    instrument : str or `~csr_astro.instruments.Instrument`, optional
        A name from `~csr_astro.list_instruments`: decides how large masks are.
        By default ``'generic'`` with the beam ``fwhm``.
    fwhm : float or `~astropy.units.Quantity`, optional
        Full width at half maximum of the beam, in pixels or as an angle, for
        the generic instrument; 3.5 pixels by default.
    preset : {'default', 'paper'}, optional
        ``'default'`` normalises by valid pixels only, replaces exactly the
        mask and averages over flips and rotations; ``'paper'`` normalises by
        minimum and maximum and blends prediction and map at the rim, as
        published. The latter is for weights that were trained so.
    orientations : {1, 2, 4, 8}, optional
        Number of flips and rotations to average over; 8 in the default preset,
        1 in the other. Time grows with it.
    centroid_func : callable, optional
        A centroid function of photutils, such as
        `~photutils.centroids.centroid_2dg`: centres are then refined inside the
        smallest mask of the instrument.
    device : str, optional
        ``'cpu'``, ``'cuda'`` and so on; a GPU if there is one.
    dtype : {'float32', 'bfloat16'}, optional
        Precision of the network's arithmetic.
    batch_size : int, optional
        Cutouts per forward pass; changes speed and memory, not results.
    progress : bool, optional
        Whether to show a progress bar on what takes over two seconds.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> yy, xx = np.indices((120, 120))
    >>> slope = 1.0 + 0.01 * xx
    >>> star = 50 * np.exp(-0.5 * ((xx - 60) ** 2 + (yy - 50) ** 2) / 2.0)
    >>> estimator = NeuralBackgroundEstimator(fwhm=3.3)
    >>> result = estimator.estimate(slope + star, [(60, 50)])
    >>> bool(abs(result.background[50, 60] - 1.6) < 0.05)
    True
    """

    def __init__(
        self,
        weights: PathLike = 'default',
        *,
        instrument: str | Instrument | None = None,
        fwhm: float | u.Quantity | None = None,
        preset: Literal['default', 'paper'] = 'default',
        orientations: Literal[1, 2, 4, 8] | None = None,
        centroid_func: Callable | None = None,
        device: str | None = None,
        dtype: Literal['float32', 'bfloat16'] = 'float32',
        batch_size: int | None = None,
        progress: bool = False,
    ) -> None:
        if not isinstance(preset, str) or preset not in _PRESETS:
            raise ValueError(f'preset must be one of {sorted(_PRESETS)}, got {preset!r}.')
        if orientations not in (None, 1, 2, 4, 8):
            raise ValueError(f'orientations must be 1, 2, 4 or 8, got {orientations!r}.')
        if dtype not in ('float32', 'bfloat16'):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {dtype!r}.")
        if batch_size is not None and not (
            isinstance(batch_size, numbers.Integral) and batch_size > 0
        ):
            raise ValueError(f'batch_size must be a positive integer, got {batch_size!r}.')
        if centroid_func is not None and not callable(centroid_func):
            raise TypeError(f'centroid_func must be callable, got {centroid_func!r}.')
        if centroid_func is not None and 'mask' not in signature(centroid_func).parameters:
            raise ValueError(
                "centroid_func must take the keyword 'mask', as those of photutils.centroids do."
            )
        self.instrument = get_instrument('generic' if instrument is None else instrument, fwhm)
        _, inner, outer = self.instrument.snr_radii
        super().__init__(inner, outer)
        self.weights = weights
        self.preset = preset
        self.orientations = orientations or _PRESETS[preset].orientations
        self.centroid_func = centroid_func
        self.device = device
        self.dtype = dtype
        self.batch_size = batch_size
        self.progress = progress
        # Read now, so that a misspelt name fails here and not hours later.
        self._info = self._read_info()
        wanted = _PRESETS[preset].normalization
        if wanted not in (None, self._info.normalization):
            warnings.warn(
                f'the preset {preset!r} normalises by {wanted!r}, the weights {str(weights)!r} '
                f'were trained with {self._info.normalization!r}; predictions will be poor.',
                AstropyUserWarning,
                stacklevel=2,
            )

    def _read_info(self):
        from csr_astro.nn.device import resolve_device
        from csr_astro.nn.weights import read_info

        resolve_device(self.device)
        return read_info(self.weights)

    def __repr__(self) -> str:
        return (
            f'<NeuralBackgroundEstimator(weights={str(self.weights)!r}, '
            f'instrument={self.instrument.name!r}, preset={self.preset!r}, '
            f'orientations={self.orientations})>'
        )

    def _repr_html_(self) -> str:
        return html_table(
            'NeuralBackgroundEstimator',
            {
                'weights': self.weights,
                'instrument': f'{self.instrument.name}, {self.instrument.description}',
                'beam': f'{self.instrument.fwhm:.3g} pixels',
                'preset': self.preset,
                'orientations': self.orientations,
                'centroids': getattr(self.centroid_func, '__name__', self.centroid_func),
                'device': self.device,
                'dtype': self.dtype,
            },
        )

    def _load(self):
        """The model, which must be the one whose hash the results report."""
        import torch

        from csr_astro.nn.device import resolve_device

        with _LOADING:
            model = _model(
                self.weights,
                self._info.sha256,
                resolve_device(self.device),
                getattr(torch, self.dtype),
                _PRESETS[self.preset].normalization,
            )
        if model.info.sha256 != self._info.sha256:
            raise ValueError(
                f'the weights {str(self.weights)!r} changed since the estimator was made.'
            )
        return model

    def predict_parts(
        self,
        image: Image,
        sources: Sources,
        masks: list[SourceMask | None],
        batches: list[tuple[np.ndarray, int]],
    ) -> Iterable[Part]:
        """Predict behind the masks of some batches of sources.

        This is the part of `estimate` that takes the time.

        Parameters
        ----------
        image, sources, masks, batches
            See `csr_astro.prediction.Predictor.parts`.

        Returns
        -------
        parts : iterable of `csr_astro.prediction.Part`
            One for each batch.
        """
        blend = _PRESETS[self.preset].blend
        predictor = Predictor(self._load(), blend, self.orientations, self.progress)
        return predictor.parts(image, sources, masks, batches)

    def _batch_size(self):
        from csr_astro.nn.device import resolve_device

        return self.batch_size or BATCH_SIZES.get(resolve_device(self.device).type, 16)

    # ------------------------------------------------------------------ the two ways of calling

    def __call__(
        self, data: ArrayLike, x: ArrayLike, y: ArrayLike, mask: ArrayLike | None = None
    ) -> float | np.ndarray:
        """Background of each source as one number, photutils' local-background protocol.

        Parameters
        ----------
        data : (ny, nx) array
            The map.
        x, y : float or (N,) array of float
            Positions in pixels.
        mask : (ny, nx) array of bool, optional
            True for invalid pixels.

        Returns
        -------
        background : float or (N,) `~numpy.ndarray` of float
            Mean of the predicted background, weighted by a Gaussian of the
            instrument's beam: the constant that leaves the flux of a PSF fit
            unbiased. NaN for a source that has no prediction.

        Notes
        -----
        photutils passes pixels alone: an instrument is taken on the pixels of its own
        maps. For others, give ``instrument=get_instrument(name).on_pixels(scale)`` with
        the arcseconds of a pixel; an angle as ``fwhm`` cannot be used here.
        """
        x, y = np.atleast_1d(x).astype(float), np.atleast_1d(y).astype(float)
        if x.shape != y.shape:
            raise ValueError(f'x and y must be equally many, got {x.size} and {y.size}.')
        result = self.estimate(data, np.column_stack([x, y]), mask=mask)
        background = u.Quantity(result.background).value
        fwhm = self.instrument.on_pixels(result.image.pixel_scale).fwhm
        values = np.full(len(x), np.nan)
        for i, source_mask in enumerate(result.source_masks):
            if source_mask is None:
                continue
            yy, xx = source_mask.on_map()
            distance2 = (xx - x[i]) ** 2 + (yy - y[i]) ** 2
            # Relative to the nearest pixel, so that weights of far ones cannot all vanish.
            weight = np.exp(-4 * np.log(2) * (distance2 - distance2.min()) / fwhm**2)
            values[i] = np.average(background[yy, xx], weights=weight)
        return values[0] if values.size == 1 else values

    def estimate(
        self,
        data: ImageLike,
        sources: SourcesLike,
        *,
        mask: ArrayLike | None = None,
        error: QuantityLike | None = None,
        wcs: WcsLike | None = None,
        mask_radius: QuantityLike | Literal['snr'] | None = None,
        predict: Callable[..., Iterable[Part]] | None = None,
    ) -> NeuralBackground:
        """Predict the background behind every source of a map.

        Parameters
        ----------
        data : NDData, CCDData, image HDU, HDUList, Quantity or array
            The map, (ny, nx). It is not modified.
        sources : SkyCoord, regions, table or (N, 2) array of (x, y)
            The sources; see `~csr_astro.sources.parse_sources`.
        mask : (ny, nx) array of bool, optional
            True for invalid pixels, besides those that are not finite.
        error : (ny, nx) array or Quantity, optional
            1-sigma error of the map, for photometry.
        wcs : optional
            World coordinate system, for maps that bring none.
        mask_radius : float, Quantity, array or 'snr', optional
            Radius of the discs in pixels or as an angle, one for all or one for
            each source. By default regions with an area are the masks
            themselves, and all other discs follow from the SNR
            (paper, Sect. 2.4.4); with ``'snr'`` those of regions too.
        predict : callable, optional
            Takes the place of `predict_parts`, to compute elsewhere: see
            `~csr_astro.batch.estimate_distributed`.

        Returns
        -------
        result : `NeuralBackground`

        Raises
        ------
        TypeError, ValueError
            If an argument is not of an accepted kind. A source that cannot be
            measured raises nothing; its row has a flag.
        """
        image = parse_image(data, mask=mask, error=error, wcs=wcs)
        sources = parse_sources(sources, image.wcs)
        instrument = self.instrument.on_pixels(image.pixel_scale)
        flags = np.zeros(len(sources), dtype=int)
        flags[~(np.isfinite(sources.x) & np.isfinite(sources.y))] |= BITS['invalid_position']
        if self.centroid_func is not None:
            sources = self._refine(image, sources, instrument, flags)
        snr = measure_snr(image, sources.x, sources.y, instrument)
        names, radii = mask_radii(mask_radius, sources, snr, instrument, image.pixel_scale)
        needed = np.isnan(snr) & ~np.isin(names, ('fixed', 'region'))
        flags[needed & (flags & BITS['invalid_position'] == 0)] |= BITS['no_snr']
        masks = draw_masks(image, sources, radii, flags)
        radii = np.array([np.nan if m is None else m.radius for m in masks])
        flag_masks(image, masks, flags)
        batches = plan_batches(sources, masks, self._batch_size())
        parts = (predict or self.predict_parts)(image, sources, masks, batches)
        pixels, values, shares, scatter, mean = combine_parts(image, parts, flags)
        for i in np.flatnonzero(flags & NOT_INPAINTED):
            # Why it was not measured is all there is to say.
            flags[i] &= NOT_INPAINTED
            masks[i], names[i], radii[i] = None, '', np.nan
        table = self._table(image, sources, snr, names, radii, scatter, mean, flags, mask_radius)
        return NeuralBackground(image, table, masks, pixels, values, shares, self)

    # ----------------------------------------------------------------------------------- pieces

    def _refine(self, image, sources, instrument, flags):
        """Centroids inside the smallest mask; a failure keeps the position and sets a flag."""
        radius = min(instrument.mask_radii)
        half = int(radius)
        footprint = np.hypot(*np.ogrid[-half : half + 1, -half : half + 1]) <= radius
        x, y = sources.x.copy(), sources.y.copy()
        inside = (x > -0.5) & (x < image.shape[1] - 0.5) & (y > -0.5) & (y < image.shape[0] - 0.5)
        for i in np.flatnonzero(inside & (flags == 0)):
            # A cutout, so that the cost does not grow with the map; padded for the footprint.
            size = 4 * half + 5
            cutout = extract(image, x[i : i + 1], y[i : i + 1], size)[0]
            x0, y0 = (nearest_pixel(position) - size // 2 for position in (x[i], y[i]))
            try:
                # Warnings of failures, which are flagged here.
                with one_at_a_time, ignored(AstropyUserWarning):
                    found = centroid_sources(
                        np.nan_to_num(cutout),
                        x[i] - x0,
                        y[i] - y0,
                        footprint=footprint,
                        mask=~np.isfinite(cutout),
                        centroid_func=self.centroid_func,
                    )
                column, row = found[0][0] + x0, found[1][0] + y0
            except ValueError:
                column = row = np.nan
            if np.hypot(column - x[i], row - y[i]) <= radius:
                x[i], y[i] = column, row
            else:
                flags[i] |= BITS['centroid_failed']
        return replace(sources, x=x, y=y)

    def _table(self, image, sources, snr, names, radii, scatter, mean, flags, mask_radius):
        from csr_astro.tables import versions

        table = QTable()
        table['id'] = np.arange(len(sources)) + 1
        table['x_center'] = sources.x
        table['y_center'] = sources.y
        if image.wcs is not None:
            table['sky_center'] = (
                image.wcs.pixel_to_world(sources.x, sources.y)
                if len(sources)
                else SkyCoord([], [], unit='deg')
            )
        table['snr'] = snr
        table['mask_name'] = names
        table['mask_radius'] = radii
        table['background'] = image.with_unit(mean)
        table['background_scatter'] = image.with_unit(scatter)
        table['flags'] = flags
        table.meta.update(
            versions()
            | {
                'weights': self._info.name,
                'weights_sha256': self._info.sha256,
                'instrument': self.instrument.name,
                'preset': self.preset,
                'orientations': self.orientations,
                'dtype': self.dtype,
                'fwhm': self.instrument.fwhm,
                'centroid_func': getattr(self.centroid_func, '__name__', str(self.centroid_func)),
                'mask_radius': 'as drawn, else by SNR' if mask_radius is None else str(mask_radius),
            }
        )
        return table
