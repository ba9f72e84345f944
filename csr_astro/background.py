"""What does the map look like behind its sources?

`NeuralBackgroundEstimator` takes a map and sources, and returns a
`NeuralBackground`: the map without them.
"""

import copy
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.nddata import CCDData
from astropy.table import QTable
from photutils.background import LocalBackground
from photutils.centroids import centroid_sources
from scipy import ndimage

from csr_astro.cutouts import MAX_RADIUS, extract, extract_mask, predict, window_size
from csr_astro.flags import BITS, NOT_INPAINTED
from csr_astro.images import parse_image
from csr_astro.instruments import get_instrument
from csr_astro.masking import disc, measure_snr, region_mask
from csr_astro.sources import parse_sources
from csr_astro.uncertainty import ring_scatter

__all__ = ['NeuralBackground', 'NeuralBackgroundEstimator']

# A prediction rests on the pixels just around the mask: this many rows of them.
_RIM = 5
_BATCH_SIZES = {'cpu': 16, 'cuda': 128, 'mps': 32}


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


class NeuralBackground:
    """A map without its sources; made by `NeuralBackgroundEstimator.estimate`.

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
    """

    def __init__(self, image, sources, masks, pixels, values, rms, estimator):
        self._image = image
        self.sources = sources
        # Of each source its SourceMask, or None where it has none.
        self._masks = masks
        # Flat indices of the pixels that changed, their background and its 1-sigma error.
        self._pixels = pixels
        self._values = values
        self._rms = rms
        self._estimator = estimator

    def _map(self, fill, values):
        flat = np.full(self._image.data.size, fill, dtype=self._image.dtype)
        flat[self._pixels] = values
        return self._image.with_unit(flat.reshape(self._image.shape))

    @cached_property
    def background(self):
        """The source-free map, (ny, nx), in the data's unit.

        Pixels outside `mask` are those of the map, bit for bit.
        """
        background = np.array(self._image.data, dtype=self._image.dtype)
        background.flat[self._pixels] = self._values
        return self._image.with_unit(background)

    @cached_property
    def source_image(self):
        """The map minus `background`, (ny, nx); zero outside `mask`."""
        measured = np.asarray(self._image.data).reshape(-1)[self._pixels]
        return self._map(0, measured.astype(self._image.dtype) - self._values)

    @cached_property
    def background_rms(self):
        """1-sigma error of each predicted pixel, (ny, nx); zero outside `mask`."""
        return self._map(0, self._rms)

    @cached_property
    def mask(self):
        """True for the inpainted pixels, (ny, nx)."""
        mask = np.zeros(self._image.shape, dtype=bool)
        mask.flat[self._pixels] = True
        return mask

    @property
    def flags(self):
        """The ``flags`` column of `sources`."""
        return self.sources['flags']

    def __len__(self):
        return len(self.sources)

    def __repr__(self):
        ny, nx = self._image.shape
        unit = '' if self._image.unit is None else f' in {self._image.unit}'
        return (
            f'<NeuralBackground: {ny} x {nx} map{unit}, {len(self)} sources, '
            f'{len(self._pixels)} pixels inpainted>'
        )

    def to_ccddata(self):
        """The source-free map with unit, mask and WCS.

        Returns
        -------
        ccd : `~astropy.nddata.CCDData`
            Its mask is that of the input; which pixels were inpainted is in
            ``flags``.
        """
        unit = self._image.unit
        return CCDData(
            u.Quantity(self.background).value.copy(),
            unit=u.dimensionless_unscaled if unit is None else unit,
            mask=None if self._image.mask is None else self._image.mask.copy(),
            flags=self.mask.astype(np.uint8),
            wcs=self._image.wcs,
            meta=dict(self.sources.meta),
        )

    def realization(self, seed=None):
        """A source-free map whose filled pixels carry noise and texture like their surroundings.

        The prediction is the expected background, and smoother than any real
        one. To each mask the error is added that the same network makes behind
        a mask of the same shape at a random source-free place near the source:
        the map's own noise and unpredicted structure.

        Parameters
        ----------
        seed : int or `numpy.random.Generator`, optional
            The same seed gives the same map.

        Returns
        -------
        realization : (ny, nx) `~numpy.ndarray` or `~astropy.units.Quantity`
            Outside `mask` equal to the map. For statistics of the map; for
            photometry use `background`.
        """
        errors = self._estimator._errors_nearby(self, np.random.default_rng(seed))
        background = np.array(self.background)
        background.flat[self._pixels] += errors
        return self._image.with_unit(background)

    def plot(self, *, axes=None, percentile=99.0):
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
        weights='default',
        *,
        instrument=None,
        fwhm=None,
        preset='default',
        orientations=None,
        centroid_func=None,
        device=None,
        dtype='float32',
        batch_size=None,
        progress=False,
    ):
        if preset not in _PRESETS:
            raise ValueError(f'preset must be one of {sorted(_PRESETS)}, got {preset!r}.')
        if orientations not in (None, 1, 2, 4, 8):
            raise ValueError(f'orientations must be 1, 2, 4 or 8, got {orientations!r}.')
        if dtype not in ('float32', 'bfloat16'):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {dtype!r}.")
        if batch_size is not None and (int(batch_size) != batch_size or batch_size < 1):
            raise ValueError(f'batch_size must be a positive integer, got {batch_size!r}.')
        if centroid_func is not None and not callable(centroid_func):
            raise TypeError(f'centroid_func must be callable, got {centroid_func!r}.')
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

    def _read_info(self):
        from csr_astro.nn.device import resolve_device
        from csr_astro.nn.weights import read_info

        resolve_device(self.device)
        return read_info(self.weights)

    def __repr__(self):
        return (
            f'<NeuralBackgroundEstimator(weights={str(self.weights)!r}, '
            f'instrument={self.instrument.name!r}, preset={self.preset!r}, '
            f'orientations={self.orientations}, inner_radius={self.inner_radius}, '
            f'outer_radius={self.outer_radius}, bkg_estimator={self.bkg_estimator})>'
        )

    def _load(self):
        import torch

        from csr_astro.nn.device import resolve_device

        return _model(
            self.weights,
            self._info.sha256,
            resolve_device(self.device),
            getattr(torch, self.dtype),
            _PRESETS[self.preset].normalization,
        )

    # ------------------------------------------------------------------ the two ways of calling

    def __call__(self, data, x, y, mask=None):
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
        """
        x, y = np.atleast_1d(x).astype(float), np.atleast_1d(y).astype(float)
        result = self.estimate(data, np.column_stack([x, y]), mask=mask)
        background = u.Quantity(result.background).value
        fwhm = self.instrument.on_pixels(result._image.pixel_scale).fwhm
        values = np.full(len(x), np.nan)
        for i, source_mask in enumerate(result._masks):
            if source_mask is None:
                continue
            yy, xx = np.nonzero(source_mask.pixels)
            yy, xx = yy + source_mask.y0, xx + source_mask.x0
            distance2 = (xx - x[i]) ** 2 + (yy - y[i]) ** 2
            # Relative to the nearest pixel, so that weights of far ones cannot all vanish.
            weight = np.exp(-4 * np.log(2) * (distance2 - distance2.min()) / fwhm**2)
            values[i] = np.average(background[yy, xx], weights=weight)
        return values[0] if values.size == 1 else values

    def estimate(self, data, sources, *, mask=None, error=None, wcs=None, mask_radius=None):
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
        names, radii = _mask_radii(mask_radius, sources, snr, instrument, image.pixel_scale)
        needed = np.isnan(snr) & ~np.isin(names, ('fixed', 'region'))
        flags[needed & (flags & BITS['invalid_position'] == 0)] |= BITS['no_snr']
        masks = _draw(image, sources, radii, flags)
        radii = np.array([np.nan if m is None else m.radius for m in masks])
        predictor = _Predictor(
            self._load(),
            _PRESETS[self.preset].blend,
            self.orientations,
            self.batch_size,
            self.progress,
        )
        pixels, values, rms, scatter, mean = predictor(image, sources, masks, flags)
        for i in np.flatnonzero(flags & NOT_INPAINTED):
            # Why it was not measured is all there is to say.
            flags[i] &= NOT_INPAINTED
            masks[i], names[i], radii[i] = None, '', np.nan
        table = self._table(image, sources, snr, names, radii, scatter, mean, flags, mask_radius)
        return NeuralBackground(image, table, masks, pixels, values, rms, self)

    # ----------------------------------------------------------------------------------- pieces

    def _refine(self, image, sources, instrument, flags):
        """Centroids inside the smallest mask; a failure keeps the position and sets a flag."""
        radius = min(instrument.mask_radii)
        footprint = np.hypot(*np.indices((2 * int(radius) + 1,) * 2) - int(radius)) <= radius
        invalid = ~image.valid((slice(None), slice(None)))
        x, y = sources.x.copy(), sources.y.copy()
        inside = (x > -0.5) & (x < image.shape[1] - 0.5) & (y > -0.5) & (y < image.shape[0] - 0.5)
        for i in np.flatnonzero(inside & (flags == 0)):
            try:
                found = centroid_sources(
                    np.asarray(image.data, dtype=float),
                    x[i],
                    y[i],
                    footprint=footprint,
                    mask=invalid,
                    centroid_func=self.centroid_func,
                )
                column, row = found[0][0], found[1][0]
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
        if image.wcs is not None and len(sources):
            table['sky_center'] = image.wcs.pixel_to_world(sources.x, sources.y)
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
                'mask_radius': 'snr' if mask_radius is None else str(mask_radius),
            }
        )
        return table

    def _errors_nearby(self, result, rng):
        """For every inpainted pixel, the error behind the same mask at a random place nearby."""
        image, masks = result._image, result._masks
        errors = np.zeros(image.data.size)
        free = image.valid((slice(None), slice(None))) & ~result.mask
        moved, kept = [], []
        for i, source_mask in enumerate(masks):
            shift = None if source_mask is None else _free_place(source_mask, free, rng)
            if shift is not None:
                kept.append(i)
                moved.append(
                    replace(source_mask, y0=source_mask.y0 + shift[0], x0=source_mask.x0 + shift[1])
                )
        if not kept:
            return errors[result._pixels]
        sources = result.sources
        predictor = _Predictor(self._load(), False, 1, self.batch_size, self.progress)
        centers = np.array([[m.x0 - masks[i].x0, m.y0 - masks[i].y0]
                            for i, m in zip(kept, moved, strict=True)])
        places = parse_sources(
            np.column_stack([sources['x_center'][kept], sources['y_center'][kept]]) + centers
        )
        stack = predictor.each(image, places, moved, result.mask)
        for i, source_mask, prediction in zip(kept, moved, stack, strict=True):
            truth = np.asarray(image.data[source_mask.window], dtype=float)[source_mask.pixels]
            yy, xx = np.nonzero(source_mask.pixels)
            flat = (yy + masks[i].y0) * image.shape[1] + xx + masks[i].x0
            errors[flat] = truth - prediction
        return errors[result._pixels]


def _free_place(source_mask, free, rng):
    """A shift that moves a mask to source-free valid pixels near it, or None."""
    height, width = source_mask.pixels.shape
    reach = int(max(3 * max(height, width), 40))
    ny, nx = free.shape
    for _ in range(200):
        dy, dx = rng.integers(-reach, reach + 1, 2)
        y0, x0 = source_mask.y0 + dy, source_mask.x0 + dx
        if y0 < 0 or x0 < 0 or y0 + height > ny or x0 + width > nx:
            continue
        if free[y0 : y0 + height, x0 : x0 + width][source_mask.pixels].all():
            return int(dy), int(dx)
    return None


def _mask_radii(mask_radius, sources, snr, instrument, pixel_scale):
    """Mask name and radius (pixels) of each source; NaN where a region is the mask."""
    names, radii = instrument.mask(snr)
    names = names.astype('U16')
    if isinstance(mask_radius, str):
        if mask_radius != 'snr':
            raise ValueError(
                "mask_radius must be 'snr', a radius in pixels or an angle, or one for each "
                f'source, got {mask_radius!r}.'
            )
        return names, radii
    if mask_radius is None:
        for i, region in enumerate(sources.regions or []):
            if region is not None:
                names[i], radii[i] = 'region', np.nan
        return names, radii
    given = mask_radius
    if isinstance(given, u.Quantity):
        if given.unit.is_equivalent(u.arcsec):
            scale = pixel_scale or instrument.pixel_scale
            if scale is None:
                raise ValueError('mask_radius is an angle, and the data have no WCS; give pixels.')
            given = given.to_value(u.arcsec) / scale
        elif given.unit in (u.pix, u.dimensionless_unscaled):
            given = given.value
        else:
            raise ValueError(f'mask_radius must be in pixels or an angle, got {given.unit}.')
    try:
        given = np.asarray(given, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f'mask_radius must be a number or numbers, got {mask_radius!r}.') from None
    if given.ndim and given.shape != (len(sources),):
        raise ValueError(
            f'mask_radius must be one number or one for each of the {len(sources)} sources, '
            f'got shape {given.shape}.'
        )
    if not (np.isfinite(given).all() and (given > 0).all()):
        raise ValueError('mask_radius must be positive and finite.')
    names[:] = 'fixed'
    return names, np.broadcast_to(given, len(sources)).astype(float)


def _draw(image, sources, radii, flags):
    """The SourceMask of each source, or None, and what that says of it in ``flags``."""
    masks = []
    for i, (x, y, radius) in enumerate(zip(sources.x, sources.y, radii, strict=True)):
        source_mask = None
        if not flags[i] & BITS['invalid_position']:
            if np.isnan(radius):
                source_mask = region_mask(sources.regions[i], x, y, image.shape)
            elif radius <= MAX_RADIUS and _reaches(x, y, radius, image.shape):
                source_mask = disc(x, y, radius, image.shape)
            elif radius > MAX_RADIUS:
                flags[i] |= BITS['mask_too_large']
            if source_mask is not None and source_mask.radius > MAX_RADIUS:
                source_mask = None
                flags[i] |= BITS['mask_too_large']
            if source_mask is None and not flags[i] & BITS['mask_too_large']:
                flags[i] |= BITS['off_map']
        masks.append(source_mask)
    return masks


def _reaches(x, y, radius, shape):
    reach = radius + 1
    return -reach < x < shape[1] + reach and -reach < y < shape[0] + reach


class _Predictor:
    """Runs the network behind masks and puts its answers together."""

    def __init__(self, model, blend, orientations, batch_size, progress):
        self.model = model
        self.blend = blend
        self.orientations = orientations
        device = next(model.parameters()).device.type
        self.batch_size = batch_size or _BATCH_SIZES.get(device, 16)
        self.progress = progress

    def _batches(self, masks, sources):
        """Indices of sources whose windows have one size, in an order that is not the user's.

        Sorted by position, so that the result does not depend on the order of
        the sources to the last bit.
        """
        index = np.array([i for i, m in enumerate(masks) if m is not None], dtype=int)
        if not len(index):
            return
        sizes = window_size([masks[i].radius for i in index])
        order = np.lexsort((sources.x[index], sources.y[index], sizes))
        index, sizes = index[order], sizes[order]
        for size in np.unique(sizes):
            same = index[sizes == size]
            for start in range(0, len(same), self.batch_size):
                yield same[start : start + self.batch_size], int(size) + 1

    def _predictions(self, image, sources, masks, hole, *, alone=False):
        """Yield (index, values, valid, prediction), a batch at a time.

        ``hole`` holds the pixels of all masks or, if ``alone``, of none of them: each is then
        added to its own cutout only.
        """
        from tqdm import tqdm

        total = sum(m is not None for m in masks)
        with tqdm(total=total, unit='source', delay=2, disable=not self.progress) as bar:
            for index, size in self._batches(masks, sources):
                x, y = sources.x[index], sources.y[index]
                values = extract(image, x, y, size)
                inside = extract_mask(hole, x, y, size)
                if alone:
                    for k, i in enumerate(index):
                        inside[(k, *_inside(masks[i], sources, i, size))] = True
                radius = np.array([masks[i].radius for i in index])
                prediction = predict(
                    self.model, values, inside, radius, orientations=self.orientations
                )
                yield index, values, np.isfinite(values) & ~inside, prediction
                bar.update(len(index))

    def each(self, image, sources, masks, hole):
        """The prediction behind each mask as if the others were not there.

        ``hole`` marks the pixels that are no background besides.
        """
        out = [None] * len(masks)
        for index, _, _, prediction in self._predictions(image, sources, masks, hole, alone=True):
            for k, i in enumerate(index):
                rows, columns = _inside(masks[i], sources, i, prediction.shape[-1])
                out[i] = prediction[k][rows, columns]
        return out

    def __call__(self, image, sources, masks, flags):
        """Predict behind all masks.

        Returns
        -------
        pixels, values, rms : (P,) `~numpy.ndarray`
            Flat indices of the pixels to change, their background, its error.
        scatter, mean : (N,) `~numpy.ndarray`
            Scatter of the ring around each mask; mean prediction under it.
        """
        # How many masks claim each pixel tells where they overlap.
        claims = np.zeros(image.shape, dtype=np.uint16)
        for source_mask in masks:
            if source_mask is not None:
                claims[source_mask.window] += source_mask.pixels
        hole = claims > 0
        for i, source_mask in enumerate(masks):
            if source_mask is None:
                continue
            flags[i] |= BITS['edge'] * source_mask.clipped
            under = claims[source_mask.window][source_mask.pixels]
            flags[i] |= BITS['overlap'] * bool((under > 1).any())
            valid = image.valid(source_mask.window)[source_mask.pixels]
            flags[i] |= BITS['invalid_pixels'] * (not valid.all())

        n = len(masks)
        scatter, mean = np.full(n, np.nan), np.full(n, np.nan)
        parts = []
        for index, values, valid, prediction in self._predictions(image, sources, masks, hole):
            radius = np.array([masks[i].radius for i in index])
            scatter[index] = ring_scatter(values, valid, radius)
            _flag_rims(flags, index, valid, radius)
            for k, i in enumerate(index):
                if not valid[k].any():
                    flags[i] |= BITS['no_background']
                    continue
                rows, columns = _inside(masks[i], sources, i, values.shape[-1])
                mean[i] = prediction[k][rows, columns].mean()
                rows, columns, weight = self._weights(
                    masks[i], rows, columns, values.shape[-1], np.isfinite(values[k])
                )
                y = rows + int(np.rint(sources.y[i])) - values.shape[-1] // 2
                x = columns + int(np.rint(sources.x[i])) - values.shape[-1] // 2
                kept = (y >= 0) & (y < image.shape[0]) & (x >= 0) & (x < image.shape[1])
                parts.append((
                    (y * image.shape[1] + x)[kept],
                    weight[kept],
                    prediction[k][rows, columns][kept],
                    np.full(kept.sum(), scatter[i]),
                ))
        return *self._combine(image, parts), scatter, mean

    def _weights(self, source_mask, rows, columns, size, measured):
        """Pixels of the window to change, and the weight of the prediction in each."""
        if not self.blend:
            return rows, columns, np.ones(len(rows))
        # The published blending: the disc grown by a 5 x 5 minimum filter, blurred 5 x 5.
        keep = np.ones((size, size))
        keep[rows, columns] = 0
        keep = ndimage.minimum_filter(keep, 5, mode='nearest')
        keep = ndimage.gaussian_filter(keep, 1.1, radius=2, mode='nearest')
        # Nothing to mix with where the map was not measured.
        keep[~measured & (keep < 1)] = 0
        rows, columns = np.nonzero(keep < 1 - 1e-12)
        return rows, columns, 1 - keep[rows, columns]

    @staticmethod
    def _combine(image, parts):
        """One value per pixel where several masks overlap, in no particular order.

        The weights w_i of the masks leave Π(1−w_i) of the map; the rest is the
        mean of the predictions, weighted by w_i.
        """
        if not parts:
            return np.zeros(0, dtype=int), np.zeros(0), np.zeros(0)
        flat, weight, value, sigma = (np.concatenate(column) for column in zip(*parts, strict=True))
        pixels, inverse = np.unique(flat, return_inverse=True)
        inverse = inverse.reshape(-1)
        total = np.bincount(inverse, weight)
        # About a level of the map, so that large numbers do not cost digits.
        level = value[0]
        predicted = level + np.bincount(inverse, weight * (value - level)) / total
        rms = np.sqrt(np.bincount(inverse, weight * sigma**2) / total)
        left = np.ones(len(pixels))
        np.multiply.at(left, inverse, 1 - weight)
        original = np.asarray(image.data).reshape(-1)[pixels].astype(float)
        mixed = np.where(left > 0, left * original + (1 - left) * predicted, predicted)
        return pixels, mixed, rms * (1 - left)


def _inside(source_mask, sources, i, size):
    """Rows and columns of a mask's pixels in the window of source ``i``."""
    rows, columns = np.nonzero(source_mask.pixels)
    half = size // 2
    return (
        rows + source_mask.y0 - int(np.rint(sources.y[i])) + half,
        columns + source_mask.x0 - int(np.rint(sources.x[i])) + half,
    )


def _flag_rims(flags, index, valid, radius):
    """Flag the sources that have little valid background next to their mask."""
    size = valid.shape[-1]
    steps = np.arange(size) - size // 2
    distance = np.hypot(steps[:, None], steps[None, :])[None]
    radius = radius[:, None, None]
    rim = (distance > radius) & (distance <= radius + _RIM)
    fraction = (rim & valid).sum(axis=(1, 2)) / rim.sum(axis=(1, 2))
    flags[index[fraction < 0.5]] |= BITS['few_valid']
