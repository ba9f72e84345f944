"""Masks of sources: signal-to-noise ratio, radius, pixels and flags.

The signal-to-noise ratio sets the category and the radius of a mask (paper,
Sect. 2.4.4), unless the user gives a radius or a region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from astropy import units as u
from scipy import ndimage

from csr_astro.cutouts import MAX_RADIUS, extract, nearest_pixel, window_corner
from csr_astro.flags import BITS
from csr_astro.utils.outliers import isolated_outliers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regions import PixelRegion

    from csr_astro.images import Image
    from csr_astro.instruments import Instrument
    from csr_astro.sources import Sources
    from csr_astro.typing import Pixels, QuantityLike

__all__ = [
    'SourceMask',
    'combined_mask',
    'disc',
    'draw_masks',
    'flag_masks',
    'mask_radii',
    'measure_snr',
    'region_mask',
]


# Largest number of window pixels that are processed at once.
_CHUNK_PIXELS = 2**20


@dataclass(frozen=True, eq=False)
class SourceMask:
    """Mask of one source: its pixels, and their position on the map.

    Attributes
    ----------
    y0, x0 : int
        Row and column on the map of the first element of ``pixels``.
    pixels : (h, w) `~numpy.ndarray` of bool
        True for the pixels of the mask; all of them are on the map.
    radius : float
        Radius of the disc, or the largest distance of a pixel from the source.
    clipped : bool
        Whether part of the mask is off the map.
    beyond : (2, Q) `~numpy.ndarray` of int, optional
        Rows and columns of that part, as if the map went on.

    Examples
    --------
    >>> from csr_astro.masking import disc
    >>> mask = disc(1, 5, 2, (60, 60))
    >>> print(mask.y0, mask.x0, mask.pixels.shape, mask.clipped)
    3 0 (5, 4) True
    """

    y0: int
    x0: int
    pixels: np.ndarray
    radius: float
    clipped: bool
    beyond: np.ndarray | None = None

    def __repr__(self) -> str:
        clipped = ', clipped' if self.clipped else ''
        return (
            f'<SourceMask: {self.pixels.sum()} pixels from x={self.x0}, y={self.y0}, '
            f'radius {self.radius:.3g}{clipped}>'
        )

    @property
    def window(self) -> tuple[slice, slice]:
        """Slices of the map that ``pixels`` covers."""
        height, width = self.pixels.shape
        return slice(self.y0, self.y0 + height), slice(self.x0, self.x0 + width)

    def on_map(self) -> Pixels:
        """Return the rows and columns of the mask's pixels on the map."""
        rows, columns = np.nonzero(self.pixels)
        return rows + self.y0, columns + self.x0

    def in_window(self, x: float, y: float, size: int, *, whole: bool = False) -> Pixels:
        """Return the rows and columns of the mask's pixels in the window around a position.

        Parameters
        ----------
        x, y : float
            Position in pixels of the map.
        size : int
            Width of the window in pixels, as in `~csr_astro.cutouts.extract`.
        whole : bool, optional
            Whether to include the part of the mask off the map, as far as it is in the window.

        Returns
        -------
        rows, columns : (P,) `~numpy.ndarray` of int
        """
        rows, columns = self.on_map()
        x0, y0 = window_corner(x, y, size)
        rows, columns = rows - y0, columns - x0
        if whole and self.beyond is not None:
            beyond = self.beyond - np.array([[y0], [x0]])
            beyond = beyond[:, ((beyond >= 0) & (beyond < size)).all(axis=0)]
            rows, columns = np.concatenate([[rows, columns], beyond], axis=1)
        return rows, columns

    def holds(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return whether pixels of the map are in the mask.

        Parameters
        ----------
        rows, columns : (P,) `~numpy.ndarray` of int
            Rows and columns of the pixels on the map.

        Returns
        -------
        held : (P,) `~numpy.ndarray` of bool
        """
        y, x = rows - self.y0, columns - self.x0
        height, width = self.pixels.shape
        held = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        held[held] = self.pixels[y[held], x[held]]
        return held


def _clip(y0, x0, pixels, radius, shape):
    ya, xa = max(-y0, 0), max(-x0, 0)
    yb, xb = min(pixels.shape[0], shape[0] - y0), min(pixels.shape[1], shape[1] - x0)
    if ya >= yb or xa >= xb:
        return None
    kept = pixels[ya:yb, xa:xb]
    if not kept.any():
        return None
    clipped = bool(kept.sum() < pixels.sum())
    # A mask that is too large is only refused.
    if not clipped or radius > MAX_RADIUS:
        return SourceMask(y0 + ya, x0 + xa, kept, radius, clipped)
    outside = pixels.copy()
    outside[ya:yb, xa:xb] = False
    beyond = np.stack(np.nonzero(outside)) + np.array([[y0], [x0]])
    return SourceMask(y0 + ya, x0 + xa, kept, radius, clipped=True, beyond=beyond)


def disc(x: float, y: float, radius: float, shape: tuple[int, int]) -> SourceMask | None:
    """Mask the pixels whose centres lie within a radius of a position.

    Parameters
    ----------
    x, y : float
        Position in pixels.
    radius : float
        Radius in pixels.
    shape : (int, int)
        Shape of the map.

    Returns
    -------
    mask : `SourceMask` or None
        None if no pixel is on the map. A disc without any pixel centre gets the
        pixel at its position.

    Examples
    --------
    >>> from csr_astro.masking import disc
    >>> print(disc(10, 10, 2, (50, 50)).pixels.sum())
    13
    """
    return _discs(np.array([x]), np.array([y]), float(radius), shape)[0]


def _discs(x, y, radius, shape):
    """Apply `disc` to many positions with one radius."""
    # Tolerance that keeps pixels on the rim in the disc despite rounding.
    rim = 1e-7
    y0, x0 = (
        np.minimum(np.ceil(center - radius - rim).astype(int), nearest_pixel(center))
        for center in (y, x)
    )
    steps = np.arange(int(2 * (radius + rim)) + 1)
    dy2, dx2 = ((y0 - y)[:, None] + steps) ** 2, ((x0 - x)[:, None] + steps) ** 2
    pixels = dy2[:, :, None] + dx2[:, None, :] <= radius**2 * (1 + 1e-12) + 1e-9
    empty = np.flatnonzero(~pixels.any(axis=(1, 2)))
    pixels[empty, (nearest_pixel(y) - y0)[empty], (nearest_pixel(x) - x0)[empty]] = True
    return [
        _clip(row, column, each, radius, shape)
        for row, column, each in zip(y0.tolist(), x0.tolist(), pixels, strict=True)
    ]


def region_mask(
    region: PixelRegion, x: float, y: float, shape: tuple[int, int]
) -> SourceMask | None:
    """Mask the pixels whose centres lie inside a region.

    Parameters
    ----------
    region : `~regions.PixelRegion`
        A region with an area.
    x, y : float
        Position of the source.
    shape : (int, int)
        Shape of the map.

    Returns
    -------
    mask : `SourceMask` or None
        None if no pixel is on the map.

    Examples
    --------
    >>> from regions import CirclePixelRegion, PixCoord
    >>> from csr_astro.masking import region_mask
    >>> region = CirclePixelRegion(PixCoord(20, 30), 4)
    >>> print(region_mask(region, 20, 30, (60, 60)).pixels.shape)
    (9, 9)
    """
    box = region.bounding_box
    if min(box.ixmax, box.iymax) <= 0 or box.ixmin >= shape[1] or box.iymin >= shape[0]:
        return None
    drawn = region.to_mask(mode='center')
    pixels = np.asarray(drawn.data) > 0
    y0, x0 = drawn.bbox.iymin, drawn.bbox.ixmin
    if not pixels.any():
        return disc(x, y, 0, shape)
    yy, xx = np.nonzero(pixels)
    radius = float(np.hypot(yy + y0 - y, xx + x0 - x).max())
    return _clip(y0, x0, pixels, radius, shape)


def measure_snr(image: Image, x: np.ndarray, y: np.ndarray, instrument: Instrument) -> np.ndarray:
    """Measure the signal-to-noise ratio of the peak of each source.

    ``(peak − mean_ring) / std_ring`` (paper, Eq. 1): the peak within the source
    radius, mean and standard deviation between two radii. Invalid and off-map
    pixels are ignored, and in the ring single hot ones.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    x, y : (N,) array of float
        Positions; NaN gives NaN.
    instrument : `~csr_astro.instruments.Instrument`
        Instrument with ``snr_radii`` in pixels of the map.

    Returns
    -------
    snr : (N,) `~numpy.ndarray` of float
        NaN if no pixel of the circle or fewer than two of the ring are valid;
        infinite for a ring without scatter.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.instruments import get_instrument
    >>> from csr_astro.masking import measure_snr
    >>> data = np.random.default_rng(0).normal(size=(80, 80))
    >>> data[40, 40] += 50
    >>> snr = measure_snr(parse_image(data), np.array([40.0]), np.array([40.0]), get_instrument())
    >>> bool(45 < snr[0] < 55)
    True
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    peak_radius, inner, outer = instrument.snr_radii
    size = 2 * int(np.ceil(outer + 1)) + 1
    snr = np.full(len(x), np.nan)
    usable = np.flatnonzero(_near_map(x, y, size // 2, image.shape))
    # Chunks, because the windows of all sources of a survey do not fit into memory.
    chunk = max(1, _CHUNK_PIXELS // size**2)
    for start in range(0, len(usable), chunk):
        index = usable[start : start + chunk]
        values = extract(image, x[index], y[index], size)
        steps = np.arange(size) - size // 2
        # Rounded, so that a shift by whole pixels moves no pixel across a radius.
        dy = steps[None, :, None] - np.round(y[index] - nearest_pixel(y[index]), 9)[:, None, None]
        dx = steps[None, None, :] - np.round(x[index] - nearest_pixel(x[index]), 9)[:, None, None]
        distance2 = np.round(dx**2 + dy**2, 8)
        valid = np.isfinite(values)
        circle = valid & (distance2 <= peak_radius**2)
        ring = valid & (distance2 >= inner**2) & (distance2 <= outer**2)
        ring &= ~isolated_outliers(values, valid & (distance2 >= inner**2))
        snr[index] = _contrast(values, circle, ring)
    return snr


def _near_map(x, y, reach, shape):
    reach = reach + 1
    with np.errstate(invalid='ignore'):
        return (x > -reach) & (x < shape[1] + reach) & (y > -reach) & (y < shape[0] + reach)


def _contrast(values, circle, ring):
    axes = (1, 2)
    n_ring = ring.sum(axis=axes)
    peak = np.max(values, axis=axes, where=circle, initial=-np.inf)
    # Scaled by the largest value, so that squares neither overflow nor underflow.
    unit = np.max(np.abs(values), axis=axes, where=ring, initial=0)[:, None, None]
    unit[unit == 0] = 1
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        scaled = np.where(ring, values / unit, 0)
        mean = scaled.sum(axis=axes) / n_ring
        deviation = np.where(ring, scaled - mean[:, None, None], 0)
        std = np.sqrt((deviation**2).sum(axis=axes) / n_ring)
        contrast = peak / unit[:, 0, 0] - mean
        # The scatter of a ring of equal numbers is only rounding.
        std[std <= 4 * np.finfo(float).eps * np.abs(mean)] = 0
        snr = contrast / std
    snr[(std == 0) & (np.abs(contrast) <= 8 * np.finfo(float).eps * np.abs(mean))] = 0
    snr[(n_ring < 2) | ~circle.any(axis=axes)] = np.nan
    return snr


def mask_radii(
    mask_radius: QuantityLike | Literal['snr'] | None,
    sources: Sources,
    snr: np.ndarray,
    instrument: Instrument,
    pixel_scale: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Determine the mask name and radius of each source.

    Parameters
    ----------
    mask_radius : float, Quantity, array, 'snr' or None
        As in `~csr_astro.NeuralBackgroundEstimator.estimate`.
    sources : `~csr_astro.sources.Sources`
        The sources.
    snr : (N,) array of float
        SNR of each source.
    instrument : `~csr_astro.instruments.Instrument`
        Instrument with the mask radii by SNR, in pixels of the map.
    pixel_scale : float or None
        Pixel scale of the map in arcsec, for radii given as angles.

    Returns
    -------
    names : (N,) `~numpy.ndarray` of str
    radii : (N,) `~numpy.ndarray` of float
        Radii in pixels; NaN where a region is the mask.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.instruments import get_instrument
    >>> from csr_astro.masking import mask_radii
    >>> from csr_astro.sources import parse_sources
    >>> sources, blue = parse_sources([(20, 30), (40, 30)]), get_instrument('pacs-scanmap-blue')
    >>> names, radii = mask_radii(None, sources, np.array([500.0, 1.0]), blue, 1.6)
    >>> print(names, radii)
    ['full' 'minimal'] [12. 5.]
    """
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
    except (TypeError, ValueError, OverflowError):
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


def draw_masks(
    image: Image, sources: Sources, radii: np.ndarray
) -> tuple[list[SourceMask | None], np.ndarray]:
    """Draw the mask of each source.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    sources : `~csr_astro.sources.Sources`
        The sources.
    radii : (N,) array of float
        Radii in pixels; NaN where a region is the mask.

    Returns
    -------
    masks : list of `SourceMask` or None
        None for a source without mask.
    flags : (N,) `~numpy.ndarray` of int
        ``invalid_position``, ``mask_too_large`` or ``off_map`` for sources without mask.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.masking import draw_masks
    >>> from csr_astro.sources import parse_sources
    >>> sources = parse_sources([(20, 30), (90, 30)])
    >>> masks, flags = draw_masks(parse_image(np.zeros((60, 60))), sources, np.array([4.0, 4.0]))
    >>> print(masks[0].pixels.sum(), masks[1], flags)
    49 None [0 2]
    """
    masks: list[SourceMask | None] = [None] * len(sources)
    placed = np.isfinite(sources.x) & np.isfinite(sources.y)
    flags = np.where(placed, 0, BITS['invalid_position'])
    on_map = placed & _near_map(sources.x, sources.y, radii, image.shape)
    for radius in np.unique(radii[on_map & (radii <= MAX_RADIUS)]):
        same = np.flatnonzero(on_map & (radii == radius))
        # Chunks, because the discs of all sources of a survey do not fit into memory.
        chunk = max(1, _CHUNK_PIXELS // int(2 * radius + 3) ** 2)
        for start in range(0, len(same), chunk):
            index = same[start : start + chunk]
            discs = _discs(sources.x[index], sources.y[index], radius, image.shape)
            for i, source_mask in zip(index, discs, strict=True):
                masks[i] = source_mask
    too_large = radii > MAX_RADIUS
    for i in np.flatnonzero(placed & np.isnan(radii)):
        region = sources.regions[i]  # type: ignore[index]  # only regions have no radius
        # Checked before the pixels are drawn, because they may not fit into memory.
        too_large[i] = max(region.bounding_box.shape) > 2 * MAX_RADIUS + 1
        if not too_large[i]:
            drawn = region_mask(region, sources.x[i], sources.y[i], image.shape)
            too_large[i] = drawn is not None and drawn.radius > MAX_RADIUS
            masks[i] = None if too_large[i] else drawn
    flags[placed & too_large] |= BITS['mask_too_large']
    nowhere = np.array([each is None for each in masks], dtype=bool)
    flags[placed & nowhere & ~too_large] |= BITS['off_map']
    return masks, flags


def combined_mask(masks: Iterable[SourceMask | None], shape: tuple[int, int]) -> np.ndarray:
    """Combine the masks of all sources.

    Parameters
    ----------
    masks : iterable of `SourceMask` or None
        The masks.
    shape : (int, int)
        Shape of the map.

    Returns
    -------
    mask : (ny, nx) `~numpy.ndarray` of bool
        True for the pixels of any mask.

    Examples
    --------
    >>> from csr_astro.masking import combined_mask, disc
    >>> print(combined_mask([disc(10, 10, 2, (50, 50)), None], (50, 50)).sum())
    13
    """
    combined = np.zeros(shape, dtype=bool)
    for source_mask in masks:
        if source_mask is not None:
            combined[source_mask.window] |= source_mask.pixels
    return combined


def flag_masks(image: Image, masks: list[SourceMask | None]) -> np.ndarray:
    """Flag the sources whose masks overlap, touch, leave the map or contain invalid pixels.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    masks : list of `SourceMask` or None
        Mask of each source; None sets no flag.

    Returns
    -------
    flags : (N,) `~numpy.ndarray` of int

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.flags import decode_flags
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.masking import disc, flag_masks
    >>> image = parse_image(np.zeros((50, 50)))
    >>> masks = [disc(x, 10, 3, image.shape) for x in (10, 14)]
    >>> decode_flags(flag_masks(image, masks))
    [['overlap'], ['overlap']]
    """
    counts = _mask_counts(masks, image.shape)
    flags = np.zeros(len(masks), dtype=int)
    for i, source_mask in enumerate(masks):
        if source_mask is None:
            continue
        flags[i] |= BITS['edge'] * source_mask.clipped
        if (counts[source_mask.window][source_mask.pixels] > 1).any():
            flags[i] |= BITS['overlap']
        elif _touches(source_mask, counts):
            flags[i] |= BITS['touching']
        valid = image.valid(source_mask.window)[source_mask.pixels]
        flags[i] |= BITS['invalid_pixels'] * (not valid.all())
    return flags


def _mask_counts(masks, shape):
    """Count the masks on each pixel of the map: 0, 1, or 2 for two and more."""
    counts = np.zeros(shape, dtype=np.uint8)
    for source_mask in masks:
        if source_mask is not None:
            window = counts[source_mask.window]
            # The count stops at 2, because a sum of very many would overflow.
            window += source_mask.pixels & (window < 2)
    return counts


def _touches(source_mask, counts):
    """Return whether another mask is adjacent to this one, which overlaps none."""
    y0, x0 = max(source_mask.y0 - 1, 0), max(source_mask.x0 - 1, 0)
    height, width = source_mask.pixels.shape
    around = counts[y0 : source_mask.y0 + height + 1, x0 : source_mask.x0 + width + 1]
    own = np.zeros(around.shape, dtype=bool)
    dy, dx = source_mask.y0 - y0, source_mask.x0 - x0
    own[dy : dy + height, dx : dx + width] = source_mask.pixels
    near = ndimage.binary_dilation(own, np.ones((3, 3)))
    return bool((around[near] > own[near]).any())
