"""Which pixels around a source are not background?

From signal-to-noise ratio to mask category to radius to pixels (paper,
Sect. 2.4.4), or straight from the user's radius or region.
"""

from dataclasses import dataclass

import numpy as np

from csr_astro.cutouts import extract

__all__ = ['SourceMask', 'disc', 'measure_snr', 'region_mask']

# Sources whose windows are handled in one go.
_CHUNK = 256


@dataclass(frozen=True)
class SourceMask:
    """The pixels of one source, where they lie on the map.

    Attributes
    ----------
    y0, x0 : int
        Map pixel of the first element of ``pixels``.
    pixels : (h, w) `~numpy.ndarray` of bool
        True for the pixels of the mask; all of them are on the map.
    radius : float
        Radius of the disc, or the largest distance of a pixel from the source.
    clipped : bool
        Whether part of the mask lies off the map.
    """

    y0: int
    x0: int
    pixels: np.ndarray
    radius: float
    clipped: bool

    @property
    def window(self):
        """The slices of the map that ``pixels`` covers."""
        height, width = self.pixels.shape
        return slice(self.y0, self.y0 + height), slice(self.x0, self.x0 + width)


def _clip(y0, x0, pixels, radius, shape):
    ya, xa = max(-y0, 0), max(-x0, 0)
    yb, xb = min(pixels.shape[0], shape[0] - y0), min(pixels.shape[1], shape[1] - x0)
    if ya >= yb or xa >= xb:
        return None
    kept = pixels[ya:yb, xa:xb]
    if not kept.any():
        return None
    return SourceMask(y0 + ya, x0 + xa, kept, radius, bool(kept.sum() < pixels.sum()))


def disc(x, y, radius, shape):
    """Pixels whose centres lie within a radius of a position.

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
        None if no pixel is on the map. A disc smaller than a pixel holds the
        pixel that the position falls on.

    Examples
    --------
    >>> from csr_astro.masking import disc
    >>> disc(10, 10, 2, (50, 50)).pixels.sum()
    13
    """
    y0, x0 = int(np.floor(y - radius)), int(np.floor(x - radius))
    yy, xx = np.ogrid[y0 : int(np.ceil(y + radius)) + 1, x0 : int(np.ceil(x + radius)) + 1]
    # The rim belongs to the disc, whatever rounding a shift of the position brings.
    pixels = (yy - y) ** 2 + (xx - x) ** 2 <= radius**2 * (1 + 1e-12) + 1e-9
    if not pixels.any():
        pixels[int(np.rint(y)) - y0, int(np.rint(x)) - x0] = True
    return _clip(y0, x0, pixels, float(radius), shape)


def region_mask(region, x, y, shape):
    """Pixels whose centres lie inside a region.

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
    """
    drawn = region.to_mask(mode='center')
    pixels = np.asarray(drawn.data) > 0
    y0, x0 = drawn.bbox.iymin, drawn.bbox.ixmin
    if not pixels.any():
        return disc(x, y, 0, shape)
    yy, xx = np.nonzero(pixels)
    radius = float(np.hypot(yy + y0 - y, xx + x0 - x).max())
    return _clip(y0, x0, pixels, radius, shape)


def measure_snr(image, x, y, instrument):
    """Signal-to-noise ratio of the peak over the ring around it.

    ``(peak − mean_ring) / std_ring`` (paper, Eq. 1): the peak within the source
    radius, mean and standard deviation between two radii. Invalid and off-map
    pixels take no part.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    x, y : (N,) array of float
        Positions; NaN gives NaN.
    instrument : `~csr_astro.instruments.Instrument`
        Its ``snr_radii``.

    Returns
    -------
    snr : (N,) `~numpy.ndarray` of float
        NaN where no pixel of the circle or fewer than two of the ring are
        valid; infinite over a ring without scatter.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    peak_radius, inner, outer = instrument.snr_radii
    size = 2 * int(np.ceil(outer + 1)) + 1
    snr = np.full(len(x), np.nan)
    usable = np.flatnonzero(_near_map(x, y, size, image.shape))
    # Chunks, because the windows of all sources of a survey do not fit into memory.
    for start in range(0, len(usable), _CHUNK):
        index = usable[start : start + _CHUNK]
        values = extract(image, x[index], y[index], size)
        steps = np.arange(size) - size // 2
        dy = steps[None, :, None] - (y[index] - np.rint(y[index]))[:, None, None]
        dx = steps[None, None, :] - (x[index] - np.rint(x[index]))[:, None, None]
        distance2 = dx**2 + dy**2
        valid = np.isfinite(values)
        circle = valid & (distance2 <= peak_radius**2)
        ring = valid & (distance2 >= inner**2) & (distance2 <= outer**2)
        snr[index] = _contrast(values, circle, ring)
    return snr


def _near_map(x, y, size, shape):
    reach = size // 2 + 1
    with np.errstate(invalid='ignore'):
        return (
            (x > -reach) & (x < shape[1] + reach) & (y > -reach) & (y < shape[0] + reach)
        )


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
        # A ring of equal numbers has no scatter but that of rounding.
        std[std <= 4 * np.finfo(float).eps * np.abs(mean)] = 0
        snr = contrast / std
    snr[(std == 0) & (np.abs(contrast) <= 8 * np.finfo(float).eps * np.abs(mean))] = 0
    snr[(n_ring < 2) | ~circle.any(axis=axes)] = np.nan
    return snr
