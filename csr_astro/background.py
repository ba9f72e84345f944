"""Result of a source removal: source-free map, source image, table and errors."""

from __future__ import annotations

import numbers
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS
from scipy.spatial import KDTree

from csr_astro.flags import count_sources, decode_flags
from csr_astro.images import shape_text
from csr_astro.plotting import plot_removal, plot_source
from csr_astro.realization import draw_deviations
from csr_astro.source_table import find_row
from csr_astro.tables import fits_meta
from csr_astro.uncertainty import (
    BackgroundCovariance,
    BackgroundErrors,
    predicted_sources,
    sorted_sources,
)
from csr_astro.utils.representation import html_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from astropy.table import QTable
    from matplotlib.axes import Axes
    from photutils.background import LocalBackground

    from csr_astro.images import Image
    from csr_astro.instruments import Instrument
    from csr_astro.masking import SourceMask
    from csr_astro.prediction import Prediction
    from csr_astro.source_model import SourceModel
    from csr_astro.sources import Sources
    from csr_astro.typing import RngLike

__all__ = ['NeuralBackground']


class NeuralBackground:
    """Source-free map, source image, table and errors of a removal.

    Made by `NeuralBackgroundEstimator.estimate`. Maps are in the unit of the data:
    a `~astropy.units.Quantity` if the data were one, else plain arrays.

    Attributes
    ----------
    sources : `~astropy.table.QTable`
        One row per source, in the order given: ``id`` (that of the catalogue, or 1 to N),
        ``x_center``, ``y_center`` (pixels, zero-based), ``sky_center`` (with a WCS), ``snr``
        (peak contrast: the peak minus the mean of a ring, over the scatter of the ring),
        ``mask_name``, ``mask_radius`` (pixels), ``background`` (mean of the prediction in
        its measured pixels), ``background_scatter`` (1-sigma scatter of the pixels in the ring
        around the mask) and ``flags``
        (`~csr_astro.flags.FLAGS`); with ``keep=True`` the columns of the catalogue
        follow. ``meta`` holds versions, weights, arguments and the columns that were used.
    image : `~csr_astro.images.Image`
        The input map.
    source_masks : list of `~csr_astro.masking.SourceMask` or None
        Mask of each source; None for a source without prediction.
    estimator : `~csr_astro.NeuralBackgroundEstimator`
        Estimator that made the result.
    catalog : `~csr_astro.sources.Sources` or None
        The sources as given, with their regions and the columns that are kept.

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
        prediction: Prediction,
        estimator: LocalBackground,
        model: SourceModel | None = None,
        catalog: Sources | None = None,
        first: np.ndarray | None = None,
    ) -> None:
        self.catalog = catalog
        #: Row of the source that was predicted in the place of each source, mostly itself.
        self.first = np.arange(len(sources)) if first is None else first
        self.image = image
        self.sources = sources
        self.source_masks = source_masks
        self.estimator = estimator
        self._model = model
        self._pixels, self._values = prediction.pixels, prediction.values
        self._shares = prediction.shares
        self._krigings = prediction.krigings
        self._measured = np.asarray(image.data).reshape(-1)[self._pixels].astype(image.dtype)

    @property
    def instrument(self) -> Instrument:
        """The `~csr_astro.instruments.Instrument`, with radii in pixels of the map."""
        return self.estimator.instrument.on_pixels(self.image.pixel_scale)

    @property
    def unit(self) -> u.UnitBase | None:
        """Unit of the maps, or None."""
        return self.image.unit

    def _map(self, values):
        flat = np.zeros(self.image.data.size, dtype=self.image.dtype)
        flat[self._pixels] = self._representable(values)
        return self.image.like_input(flat.reshape(self.image.shape))

    def _representable(self, values):
        """Clip finite values to the range of the dtype of the maps, 65504 in half precision."""
        largest = float(np.finfo(self.image.dtype).max)
        return np.where(np.isinf(values), values, np.clip(values, -largest, largest))

    @cached_property
    def background(self) -> np.ndarray:
        """The source-free map, (ny, nx), in the unit of the data.

        Pixels outside `mask` equal those of the input map bit for bit. A plain array, unless the
        map was a Quantity: for a ``CCDData``, ``ccd.data - result.background`` works, and
        ``ccd.subtract`` takes ``result.background * ccd.unit``, or ``result.to_ccddata()``.
        """
        background = np.array(self.image.data, dtype=self.image.dtype)
        background.flat[self._pixels] = self._representable(self._values)
        return self.image.like_input(background)

    def background_in(self, window: tuple[slice, slice]) -> np.ndarray:
        """Return a part of `background` as plain numbers, without computing all of it.

        Parameters
        ----------
        window : (slice, slice)
            Rows and columns, without steps.

        Returns
        -------
        background : `~numpy.ndarray`

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

    def changed_pixels(self, *, errors: bool) -> tuple[np.ndarray, np.ndarray, tuple]:
        """Return the inpainted pixels alone, without making a map.

        Parameters
        ----------
        errors : bool
            Whether to compute the errors.

        Returns
        -------
        pixels, kinds : (P,) `~numpy.ndarray` of int
            Flat indices, sorted, and 1 for each.
        values : tuple of (P,) `~numpy.ndarray`
            `background` and, with ``errors``, `background_rms`.
        """
        found = [self._values, self._rms] if errors else [self._values]
        values = tuple(self._representable(each).astype(self.image.dtype) for each in found)
        return self._pixels, np.ones(len(self._pixels), np.uint8), values

    @cached_property
    def source_image(self) -> np.ndarray:
        """The map minus `background`, (ny, nx); zero outside `mask`."""
        return self._map(self._measured - self._values)

    @cached_property
    def background_rms(self) -> np.ndarray:
        """1-sigma error of each predicted pixel, (ny, nx); zero outside `mask`.

        The error includes noise and structure that the surrounding pixels do not
        determine. NaN where too few valid pixels surround the mask. The map is computed
        at first access. Errors of neighbouring pixels are correlated: use `covariance`
        for the error of a sum.
        """
        return self._map(self._rms)

    @cached_property
    def _rms(self):
        rms, count = np.zeros(len(self._pixels)), np.zeros(len(self._pixels))
        x, y = (np.asarray(self.sources[name]) for name in ('x_center', 'y_center'))
        order = sorted_sources(x, y, self._distinct(self.source_masks))
        errors = self.errors
        for i, found in zip(order, errors.spread(errors.rms, order), strict=True):
            index = self._index(*self.source_masks[i].on_map())
            # hypot avoids squares that overflow or underflow.
            rms[index] = np.hypot(rms[index], found)
            count[index] += 1
        rms /= np.sqrt(np.maximum(count, 1))
        if (count == 0).any():
            # Blended pixels around a mask take the error of the nearest mask pixel.
            known = np.flatnonzero(count)
            places = np.column_stack(np.divmod(self._pixels, self.image.shape[1]))
            rms[count == 0] = rms[known][KDTree(places[known]).query(places[count == 0])[1]]
        return rms * self._shares

    @cached_property
    def errors(self) -> BackgroundErrors:
        """Errors of all sources, as `~csr_astro.uncertainty.BackgroundErrors`."""
        x, y = (np.asarray(self.sources[name]) for name in ('x_center', 'y_center'))
        under = [
            None if mask is None else self._index(*mask.on_map())
            for mask in self._distinct(self.source_masks)
        ]
        measured, predicted = (
            [None if index is None else values[index] for index in under]
            for values in (self._measured, self._values)
        )
        sources = predicted_sources(
            x, y, self.source_masks, measured, predicted, self.first, self._krigings
        )
        return BackgroundErrors(self.image, sources, self._model)

    def _distinct(self, values):
        """Replace the values of sources that are predicted as another by None."""
        return [each if self.first[i] == i else None for i, each in enumerate(values)]

    def _index(self, rows, columns):
        return np.searchsorted(self._pixels, rows * self.image.shape[1] + columns)

    def covariance(
        self, source_id: int | str, other: int | str | None = None
    ) -> BackgroundCovariance | np.ndarray:
        """Compute the covariance of the background errors behind a source.

        Parameters
        ----------
        source_id : int or str
            ``id`` of the source in `sources`.
        other : int or str, optional
            ``id`` of a second source: the covariance between the pixels of the two
            is returned, which matters if their masks touch.

        Returns
        -------
        covariance : `~csr_astro.uncertainty.BackgroundCovariance`
            Covariance of the P pixels of the mask; or, with ``other``, a plain (P, Q)
            array or Quantity between the pixels of two masks.

        Raises
        ------
        ValueError
            If the source does not exist or has no prediction, or its mask has more
            than 10,000 pixels.

        Notes
        -----
        This is the conditional covariance of a random field with the variogram of the
        map around the source, given the valid pixels, plus the noise of each pixel. The
        former is scaled by a factor that follows from how well pixels next to the mask
        are predicted from the others, fitted on maps whose background is known.

        Examples
        --------
        Compute the error of a sum in a circle, in noise of 1 per pixel:

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
            If the pixels under the masks are not those of the estimate.

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

    def row(self, source_id: int | str) -> int:
        """Return the row of a source in `sources`.

        Parameters
        ----------
        source_id : int or str
            ``id`` of the source.

        Returns
        -------
        row : int

        Raises
        ------
        ValueError
            If no source has the id, or more than one.
        """
        return find_row(self.sources['id'], source_id)

    def _number(self, source_id):
        row = self.row(source_id)
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
                'weights': self.sources.meta['weights'],
                'sources': count_sources(self.sources),
                'masks': _counted(names),
                'flags': _counted(flags),
                'inpainted': f'{n_pixels} pixels, {n_pixels / self.image.data.size:.2%}',
            },
        )

    def to_ccddata(self) -> CCDData:
        """Return the source-free map with unit, mask and FITS WCS.

        Returns
        -------
        ccd : `~astropy.nddata.CCDData`
            Its mask and uncertainty are those of the input; ``flags`` is 1 for
            inpainted pixels; ``meta`` holds ``sources.meta`` under names that fit in
            a FITS header, such as ``sha256``.
        """
        unit = self.image.unit
        return CCDData(
            u.Quantity(self.background).value.copy(),
            unit=u.dimensionless_unscaled if unit is None else unit,
            mask=None if self.image.mask is None else self.image.mask.copy(),
            flags=self.mask.astype(np.uint8),
            # CCDData cannot hold the WCS of a slice of a cube.
            wcs=self.image.wcs if isinstance(self.image.wcs, WCS) else None,
            uncertainty=None
            if self.image.error is None
            else StdDevUncertainty(np.array(self.image.error)),
            meta=fits_meta(self.sources.meta),
        )

    def realization(self, seed: RngLike | None = None, n: int = 1) -> np.ndarray:
        """Draw source-free maps with realistic noise and texture in the inpainted pixels.

        The prediction is the expected background, which is smoother than a real one.
        Random deviations with the covariance of its errors are added: the noise, and
        the structure that the surrounding pixels do not determine. They continue the
        map at the rim of a mask, and each other where masks touch.

        Parameters
        ----------
        seed : int or `numpy.random.Generator`, optional
            Same seed, same maps, regardless of the order of the sources.
        n : int, optional
            Number of maps.

        Returns
        -------
        realization : (ny, nx) or, for n > 1, (n, ny, nx) array or Quantity
            Equal to the map outside `mask`. Average statistics of the map, such as its
            power spectrum, over several realizations; use `background` for photometry.
        """
        if not (isinstance(n, numbers.Integral) and not isinstance(n, bool) and n > 0):
            raise ValueError(f'n must be a positive integer, got {n!r}.')
        try:
            rng = np.random.default_rng(seed)
        except (TypeError, ValueError):
            raise ValueError(
                f'seed must be a whole number from 0 up or a Generator, got {seed!r}.'
            ) from None
        # Each source has a random stream seeded by its position, independent of the others.
        key = int(rng.integers(2**63))
        pixels, deviations = draw_deviations(
            self.errors,
            lambda row, column: np.random.default_rng([key, row % 2**32, column % 2**32]),
            n,
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
        """Plot the map, the source-free map and the sources.

        Parameters
        ----------
        axes : sequence of three `~matplotlib.axes.Axes`, optional
            Axes to draw on; a new figure by default.
        percentile : float, optional
            Percentile of the source-free map at the upper end of the colour range.

        Returns
        -------
        axes : `~numpy.ndarray` of `~matplotlib.axes.Axes`
        """
        return plot_removal(
            self.image.data,
            u.Quantity(self.background).value,
            u.Quantity(self.source_image).value,
            self.mask,
            wcs=self.image.wcs,
            unit=self.unit,
            axes=axes,
            percentile=percentile,
        )

    def cutouts(
        self, source_id: int | str
    ) -> tuple[tuple[slice, slice], dict[str, np.ndarray]]:
        """Cut out the surroundings of one source from all maps.

        Parameters
        ----------
        source_id : int or str
            ``id`` of the source in `sources`.

        Returns
        -------
        window : (slice, slice)
            Rows and columns of the map: the mask with a margin of its radius, at least 6
            pixels; empty if the source is off the map.
        cutouts : dict of str to (h, w) `~numpy.ndarray` of float
            ``map``, ``masked`` (the map, NaN in inpainted pixels), ``background``, ``source``
            (their difference) and ``rms``, as plain numbers in the map's unit.

        Examples
        --------
        >>> import numpy as np
        >>> from csr_astro import NeuralBackgroundEstimator
        >>> noise = np.random.default_rng(0).normal(size=(100, 100))
        >>> result = NeuralBackgroundEstimator(fwhm=3.3).estimate(noise, [(60, 50)])
        >>> window, cutouts = result.cutouts(1)
        >>> print(list(cutouts), cutouts['map'].shape == noise[window].shape)
        ['map', 'masked', 'background', 'source', 'rms'] True
        """
        return self.cutouts_of_row(self.row(source_id))

    def cutouts_of_row(self, row: int) -> tuple[tuple[slice, slice], dict[str, np.ndarray]]:
        """Cut out the surroundings of one source, as `cutouts`, by its row.

        Parameters
        ----------
        row : int
            Row of `sources`, from 0.

        Returns
        -------
        window, cutouts
            As from `cutouts`.
        """
        mask = self.source_masks[row]
        radius = min(self.instrument.mask_radii) if mask is None else mask.radius
        reach = radius + max(radius, 6)
        window = tuple(
            _clipped(float(self.sources[name][row]), reach, size)
            for name, size in zip(('y_center', 'x_center'), self.image.shape, strict=True)
        )
        whole = np.where(self.image.valid(window), self.image.data[window], np.nan).astype(float)
        filled = self.mask[window]
        background, source, rms = (
            u.Quantity(each).value[window].astype(float)
            for each in (self.background, self.source_image, self.background_rms)
        )
        return window, {
            'map': whole,
            'masked': np.where(filled, np.nan, whole),
            'background': background,
            'source': source,
            'rms': np.where(filled, rms, np.nan),
        }

    def plot_source(
        self, source_id: int | str, *, axes: Sequence[Axes] | np.ndarray | None = None
    ) -> np.ndarray:
        """Plot one source: map, mask, prediction, difference and error.

        Parameters
        ----------
        source_id : int or str
            ``id`` of the source in `sources`.
        axes : sequence of five `~matplotlib.axes.Axes`, optional
            Axes to draw on; a new figure by default.

        Returns
        -------
        axes : `~numpy.ndarray` of `~matplotlib.axes.Axes`

        Raises
        ------
        ValueError
            If the source does not exist or is off the map.
        """
        window, cutouts = self.cutouts(source_id)
        if not cutouts['map'].size:
            raise ValueError(f'source {source_id} has no pixel on the map.')
        return plot_source(cutouts, window, wcs=self.image.wcs, unit=self.unit, axes=axes)


def _clipped(center, reach, size):
    """Return the pixels within reach of a position along one axis, none for NaN."""
    if not np.isfinite(center):
        return slice(0, 0)
    first, last = np.ceil(center - reach), np.floor(center + reach) + 1
    return slice(int(np.clip(first, 0, size)), int(np.clip(last, 0, size)))


def _counted(names):
    return ', '.join(f'{number} {name}' for name, number in names.most_common())
