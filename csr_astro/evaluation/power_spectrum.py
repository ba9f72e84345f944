"""Power spectra (paper, Sect. 5.3.1) and Δ-variance of maps with gaps and edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.table import QTable
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from scipy import fft, ndimage

from csr_astro.images import parse_image
from csr_astro.utils.plane import fit_plane

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from csr_astro.typing import ImageLike, QuantityLike, WcsLike

__all__ = [
    'delta_variance',
    'fit_power_law',
    'power_spectra',
    'power_spectrum',
    'spectra_difference',
]


_SMALLEST = 16
# Logarithmic bins per decade of frequency; the first ones are wider, to hold some modes each.
_PER_DECADE = 12
_FEWEST_MODES = 8
# Spectra steeper than this are flattened before the window is applied, above the frequency of
# this many waves per side.
_STEEP, _KNEE = -1.0, 4.0
# Width in pixels within which the window rises around holes inside a map.
_HOLE_TAPER = 3.0
# Ratio of the diameters of annulus and core (Ossenkopf et al. 2008, Sect. 3).
_RATIO = 1.5
# Distance beyond which a filter is zero, in lags.
_REACH = 1.6
# Least part of a filter that must lie on valid pixels.
_COVERED = 1e-3


# ------------------------------------------------------------------------------ power spectrum


def power_spectrum(
    data: ImageLike,
    *,
    mask: ArrayLike | None = None,
    wcs: WcsLike | None = None,
    taper: float = 0.1,
    n_bins: int | None = None,
) -> QTable:
    """Isotropic power spectrum of a map, corrected for gaps and edges.

    The valid pixels, without their plane, are multiplied by a window that fades out towards
    edges and gaps. The effect of the window is then undone by inverting the matrix of the power
    that it moves from each bin into the others (Hivon et al. 2002, on a plane). Steep spectra
    are flattened before (Das et al. 2009). Waves as long as the map are not reported.

    Parameters
    ----------
    data : NDData, CCDData, image HDU, Quantity or array
        The map, (ny, nx); pixels that are not finite are gaps.
    mask : (ny, nx) array of bool, optional
        True for more invalid pixels.
    wcs : WCS, optional
        World coordinate system; by default that of the data.
    taper : float, optional
        Width over which the window rises at the edge, over the smaller side; 0 for a
        periodic map.
    n_bins : int, optional
        Number of logarithmic bins; 12 per decade by default. Bins of few modes are joined.

    Returns
    -------
    spectrum : `~astropy.table.QTable`
        ``frequency`` (mean of a bin, in cycles per arcmin, or per pixel without a WCS),
        ``n_modes`` (number of independent waves), ``power`` in the unit of the map squared
        × arcmin² or pixel², and its 1-sigma error ``power_err``, the sample variance of a
        Gaussian field. The power of white noise is its variance per pixel × area of a pixel.

    Raises
    ------
    ValueError
        If the map has less than 16 × 16 pixels or too few valid ones.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.power_spectrum import power_spectrum
    >>> noise = np.random.default_rng(1).normal(0, 2, (128, 128))
    >>> noise[40:60, 30:70] = np.nan
    >>> spectrum = power_spectrum(noise)
    >>> print(spectrum['power'][-1].round(1))
    4.0 pix2
    """
    spectra = power_spectra({'power': data}, mask=mask, wcs=wcs, taper=taper, n_bins=n_bins)
    spectra.meta.clear()
    return spectra


def power_spectra(
    maps: Mapping[str, ImageLike],
    *,
    mask: ArrayLike | None = None,
    wcs: WcsLike | None = None,
    taper: float = 0.1,
    n_bins: int | None = None,
) -> QTable:
    """Power spectra of several versions of one map, from the pixels that are valid in all.

    Parameters
    ----------
    maps : dict of str to NDData, CCDData, image HDU, Quantity or array
        Maps of one shape and unit, by name; or lists of maps, whose spectra are averaged.
    mask, wcs, taper, n_bins
        As in `power_spectrum`.

    Returns
    -------
    spectra : `~astropy.table.QTable`
        As from `power_spectrum`, with columns ``NAME`` and ``NAME_err`` for each map.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.power_spectrum import power_spectra
    >>> noise = np.random.default_rng(0).normal(size=(64, 64))
    >>> spectra = power_spectra({'original': noise, 'half': noise / 2})
    >>> print(np.allclose(spectra['half'] / spectra['original'], 0.25))
    True
    """
    images = {
        name: [parse_image(each, mask=mask, wcs=wcs) for each in _several(data)]
        for name, data in maps.items()
    }
    together = [image for several in images.values() for image in several]
    first = _same_grid(together)
    valid = np.logical_and.reduce([_valid(each) for each in together])
    scales, length = _pixel_sides(first)
    bins = _Bins(first.shape, scales, n_bins)
    window = _Window(valid, taper, 0.0)
    # Slope of the sum of all spectra.
    total = sum(bins.mean(window.power(each.data)) for each in together)
    slope = _slope(bins.frequency, total)
    if slope < _STEEP:
        window = _Window(valid, taper, _KNEE / min(first.shape))
    pseudo = {
        name: np.mean([bins.mean(window.power(each.data)) for each in several], axis=0)
        for name, several in images.items()
    }
    coupling = bins.coupling(window, slope)
    unit = (first.unit or u.dimensionless_unscaled) ** 2 * length**2
    kept = bins.reported
    table = QTable({
        'frequency': bins.frequency[kept] / length,
        'n_modes': bins.n_modes[kept] * window.fraction,
    })
    for name, measured in pseudo.items():
        power = np.linalg.solve(coupling, measured)[kept] * np.prod(scales)
        table[name] = power * unit
        table[f'{name}_err'] = np.abs(power) / np.sqrt(np.maximum(table['n_modes'], 1)) * unit
    table.meta['maps'] = list(maps)
    return table


def spectra_difference(spectra: QTable, name: str, reference: str = 'original') -> QTable:
    """Relative difference of two spectra.

    Parameters
    ----------
    spectra : `~astropy.table.QTable`
        As from `power_spectra`.
    name, reference : str
        Columns.

    Returns
    -------
    difference : `~astropy.table.QTable`
        ``frequency``; ``relative``, power of ``name`` over that of ``reference`` minus one;
        ``normalized``, the difference of the two after each is divided by the sum of the
        reference's powers, as in the paper's Fig. 13.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.power_spectrum import power_spectra, spectra_difference
    >>> noise = np.random.default_rng(0).normal(size=(64, 64))
    >>> spectra = power_spectra({'original': noise, 'half': noise / 2})
    >>> difference = spectra_difference(spectra, 'half')
    >>> print(np.allclose(difference['relative'], -0.75))
    True
    """
    power, truth = (u.Quantity(spectra[each]) for each in (name, reference))
    difference = power - truth
    return QTable({
        'frequency': spectra['frequency'],
        'relative': (difference / truth).to_value(u.dimensionless_unscaled),
        'normalized': (difference / truth.sum()).to_value(u.dimensionless_unscaled),
    })


def _several(data):
    return data if isinstance(data, list | tuple) else [data]


def _same_grid(images):
    if not images:
        raise ValueError('give at least one map.')
    first = images[0]
    for image in images:
        if image.shape != first.shape or image.unit != first.unit:
            raise ValueError('the maps must have one shape and one unit.')
    if min(first.shape) < _SMALLEST:
        raise ValueError(
            f'a map must have at least {_SMALLEST} x {_SMALLEST} pixels, got {first.shape}.'
        )
    return first


def _valid(image):
    return image.valid((slice(None), slice(None)))


def _pixel_sides(image):
    """Height and width of a pixel, and their unit: arcmin with a WCS, else pixel."""
    if image.wcs is None:
        return np.ones(2), u.pix
    if isinstance(image.wcs, WCS):
        sides = proj_plane_pixel_scales(image.wcs.celestial)[::-1] * u.deg
        return sides.to_value(u.arcmin), u.arcmin
    return np.full(2, image.pixel_scale / 60), u.arcmin


class _Window:
    """Weights of the pixels of a map, and the filter that flattens its spectrum before.

    With a ``knee`` in waves per pixel, the map is replaced by a multiple of itself minus its
    Laplacian: waves longer than the knee stay, shorter ones grow as the square of their
    frequency. The edges of the window then leak little power from long waves into short
    ones, and the Laplacian needs neighbouring pixels only (Das et al. 2009).
    """

    def __init__(self, valid, taper, knee):
        if not (np.isfinite(taper) and 0 <= taper <= 0.5):
            raise ValueError(f'taper must be between 0 and 0.5, got {taper}.')
        if valid.sum() < _SMALLEST**2:
            raise ValueError('the map has hardly a valid pixel.')
        self._valid = valid
        self._own = (2 * np.pi * knee) ** 2
        if knee:
            valid = np.logical_and.reduce([valid, *_neighbours(valid)])
            if taper:
                # Pixels of the opposite edge are not neighbours.
                valid[[0, -1]] = valid[:, [0, -1]] = False
        values = valid.astype(float)
        if taper:
            whole = ndimage.binary_fill_holes(valid)
            width = taper * min(valid.shape)
            # Pixels beyond the edge of the array are outside the map.
            edge = ndimage.distance_transform_edt(np.pad(whole, 1))[1:-1, 1:-1]
            values = _rise(edge, width)
            inside = ndimage.distance_transform_edt(np.pad(valid | ~whole, 1, constant_values=True))
            values *= np.where(valid, _rise(inside[1:-1, 1:-1], min(_HOLE_TAPER, width)), 0)
        self.values = values
        self._square = (values**2).sum()
        #: Ratio of the number of independent waves to that of a map without a window.
        self.fraction = self._square**2 / (values.size * (values**4).sum())

    def power(self, data):
        """|Fourier transform|² of the windowed map, per mode, of half the plane."""
        values = np.where(self._valid, np.nan_to_num(data, posinf=0, neginf=0), 0).astype(float)
        values[self._valid] -= values[self._valid].mean()
        if self._own:
            values = (self._own + 4) * values - sum(_neighbours(values))
        values = values - fit_plane(values[np.newaxis], self.values[np.newaxis])[0]
        return np.abs(fft.rfft2(values * self.values)) ** 2 / self._square

    def transfer(self, shape):
        """Factor by which the filter changes the power of each wave, before the window."""
        if not self._own:
            return 1.0
        y, x = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])[None, :]
        return (self._own + 4 * np.sin(np.pi * y) ** 2 + 4 * np.sin(np.pi * x) ** 2) ** 2


def _neighbours(values):
    return [np.roll(values, step, axis) for step in (-1, 1) for axis in (0, 1)]


def _rise(distance, width):
    return np.sin(np.pi / 2 * np.minimum((distance - 0.5) / width, 1)) ** 2


class _Bins:
    """Rings of spatial frequency on the grid of a map's transform."""

    def __init__(self, shape, sides, n_bins):
        self.shape = shape
        self._grid = np.hypot(
            fft.fftfreq(shape[0])[:, None] / sides[0], fft.rfftfreq(shape[1])[None, :] / sides[1]
        )
        # A real transform keeps one of two conjugate waves: they count twice.
        weight = np.full(self._grid.shape, 2.0)
        weight[:, 0] = 1
        if shape[1] % 2 == 0:
            weight[:, -1] = 1
        nyquist = 0.5 / max(sides)
        lowest = 1 / max(np.array(shape) * sides)
        if n_bins is None:
            n_bins = int(np.ceil(_PER_DECADE * np.log10(nyquist / lowest)))
        if n_bins < 1:
            raise ValueError(f'n_bins must be positive, got {n_bins}.')
        edges = np.geomspace(lowest * (1 - 1e-9), nyquist, n_bins + 1)
        edges = self._joined(edges, weight)
        # The corners of the plane have no full rings, but their power leaks into the others.
        self._index = np.digitize(self._grid, [*edges, np.inf]) - 1
        self._index[0, 0] = -1
        self._weight = np.where(self._index >= 0, weight, 0)
        self._number = len(edges)
        counts = self._sum(np.ones(self._grid.shape))
        # Waves as long as the map cannot be separated from its mean.
        self.reported = 1 + np.flatnonzero(counts[1:-1])
        self._counts = np.maximum(counts, 1)
        self.frequency = self._sum(self._grid) / self._counts
        # Two opposite waves are not independent.
        self.n_modes = counts / 2

    def _joined(self, edges, weight):
        """Edges of bins that are wide enough to hold some waves each."""
        counts, _ = np.histogram(self._grid, edges, weights=weight)
        kept, waiting = [edges[0]], 0
        for edge, count in zip(edges[1:], counts, strict=True):
            waiting += count
            if waiting >= 2 * _FEWEST_MODES:
                kept.append(edge)
                waiting = 0
        kept[-1] = edges[-1]
        return np.array(kept if len(kept) > 1 else [edges[0], edges[-1]])

    def _sum(self, values):
        index = np.where(self._index < 0, self._number, self._index).ravel()
        total = np.bincount(index, (self._weight * values).ravel(), minlength=self._number + 1)
        return total[: self._number]

    def mean(self, power):
        """Mean power in each bin."""
        return self._sum(power) / self._counts

    def coupling(self, window, slope):
        """Mean power found in each bin (row) for power of 1 in each (column).

        Inside a bin the spectrum is taken to have the slope.
        """
        correlation = fft.irfft2(np.abs(fft.rfft2(window.values)) ** 2, s=self.shape)
        correlation /= correlation[0, 0]
        known = self._index >= 0
        inside = np.zeros(self._grid.shape)
        inside[known] = (self._grid[known] / self.frequency[self._index[known]]) ** slope
        inside *= window.transfer(self.shape)
        columns = []
        for number in range(self._number):
            ring = np.where(self._index == number, inside, 0)
            spread = fft.rfft2(fft.irfft2(ring, s=self.shape) * correlation)
            columns.append(self.mean(spread.real))
        matrix = np.column_stack(columns)
        empty = np.flatnonzero(np.diag(matrix) == 0)
        matrix[empty, empty] = 1
        return matrix


def _slope(frequency, power):
    """Slope of a power law, for the shape of the spectrum inside bins."""
    good = (frequency > 0) & (power > 0)
    if good.sum() < 2:
        return 0.0
    slope = np.polyfit(np.log(frequency[good]), np.log(power[good]), 1)[0]
    return float(np.clip(slope, -6, 2))


# ------------------------------------------------------------------------------- delta variance


def delta_variance(
    data: ImageLike,
    lags: QuantityLike | None = None,
    *,
    mask: ArrayLike | None = None,
    wcs: WcsLike | None = None,
) -> QTable:
    """Δ-variance of a map: the variance of its structure as a function of size.

    The map is filtered by a core of diameter L minus an annulus around it ("Mexican hat",
    diameters 1 : 1.5), each normalised by the valid pixels that it covers (Ossenkopf et al.
    2008, Eqs. 8–12; Stutzki et al. 1998). For a power spectrum ∝ k^−β it grows as L^(β−2).

    Parameters
    ----------
    data, mask, wcs
        As in `power_spectrum`.
    lags : sequence of float or Quantity, optional
        Sizes L in pixels or as angles; by default from 3 pixels to a quarter of the smaller
        side.

    Returns
    -------
    table : `~astropy.table.QTable`
        ``lag`` (arcmin, or pixels without a WCS), ``delta_variance`` in the unit of the map
        squared, and its 1-sigma error ``delta_variance_err`` from the number of independent
        structures of that size on the map.

    Examples
    --------
    White noise has no structure larger than a pixel:

    >>> import numpy as np
    >>> from csr_astro.evaluation.power_spectrum import delta_variance, fit_power_law
    >>> noise = np.random.default_rng(1).normal(size=(256, 256))
    >>> table = delta_variance(noise, [4, 6, 8, 12])
    >>> slope, error = fit_power_law(table['lag'], table['delta_variance'])
    >>> print(round(slope, 1))
    -2.0
    """
    image = parse_image(data, mask=mask, wcs=wcs)
    _same_grid([image])
    valid = _valid(image)
    if valid.sum() < _SMALLEST**2:
        raise ValueError('the map has hardly a valid pixel.')
    sides, length = _pixel_sides(image)
    scale = float(np.sqrt(np.prod(sides)))
    lags = _parse_lags(lags, image.shape, scale, length)
    values = np.where(valid, np.nan_to_num(np.asarray(image.data, dtype=float)), 0)
    values = np.where(valid, values - values[valid].mean(), 0)
    found = np.array([_delta_variance(values, valid, lag) for lag in lags])
    unit = (image.unit or u.dimensionless_unscaled) ** 2
    return QTable({
        'lag': lags * scale * length,
        'delta_variance': found[:, 0] * unit,
        'delta_variance_err': found[:, 1] * unit,
    })


def _parse_lags(lags, shape, scale, length):
    """Lags in pixels."""
    largest = min(shape) / 2
    if lags is None:
        top = min(shape) / 4
        return np.geomspace(min(3, top), top, max(int(8 * np.log10(top / 3)) + 1, 2))
    lags = u.Quantity(lags)
    if lags.unit.is_equivalent(u.arcmin):
        if length is u.pix:
            raise ValueError('lags are angles, and the data have no WCS; give pixels.')
        lags = lags.to_value(u.arcmin) / scale
    elif lags.unit in (u.pix, u.dimensionless_unscaled):
        lags = lags.value
    else:
        raise ValueError(f'lags must be in pixels or angles, got {lags.unit}.')
    lags = np.atleast_1d(lags).astype(float)
    if not (lags.size and ((lags >= 1) & (lags <= largest)).all()):
        raise ValueError(
            f'lags must be between 1 pixel and half the smaller side, {largest:g} pixels.'
        )
    return lags


def _delta_variance(values, valid, lag):
    """Variance at one lag in pixels, and its error."""
    margin = int(np.ceil(_REACH * lag))
    shape = [fft.next_fast_len(n + margin, real=True) for n in values.shape]
    k2 = fft.fftfreq(shape[0])[:, None] ** 2 + fft.rfftfreq(shape[1])[None, :] ** 2
    exponent = (np.pi * lag / 2) ** 2 * k2
    core = np.exp(-exponent)
    filters = core, (_RATIO**2 * np.exp(-(_RATIO**2) * exponent) - core) / (_RATIO**2 - 1)
    window = tuple(slice(n) for n in values.shape)
    data, cover = fft.rfft2(values, s=shape), fft.rfft2(valid.astype(float), s=shape)
    means, weight = [], valid.astype(float)
    for each in filters:
        covered = fft.irfft2(cover * each, s=shape)[window]
        weight *= np.where(covered > _COVERED, covered, 0)
        with np.errstate(divide='ignore', invalid='ignore'):
            mean = fft.irfft2(data * each, s=shape)[window] / covered
        means.append(np.where(covered > _COVERED, mean, 0))
    difference = means[0] - means[1]
    total = weight.sum()
    difference = np.where(weight > 0, difference - (weight * difference).sum() / total, 0)
    variance = (weight * difference**2).sum() / total
    return variance, variance * np.sqrt(2 / _independent(difference, weight, shape, margin))


def _independent(field, weight, shape, reach):
    """Number of independent pixels of a Gaussian field: (Σw)² / Σ w w' ρ²."""
    root = np.sqrt(weight)
    correlation = fft.irfft2(np.abs(fft.rfft2(root * field, s=shape)) ** 2, s=shape)
    overlap = fft.irfft2(np.abs(fft.rfft2(root, s=shape)) ** 2, s=shape)
    pairs = fft.irfft2(np.abs(fft.rfft2(weight, s=shape)) ** 2, s=shape)
    if correlation[0, 0] <= 0:
        return 1.0
    # Correlations beyond the reach of the filter are chance.
    y, x = (np.abs(fft.fftfreq(n, 1 / n)) for n in shape)
    known = (np.hypot(y[:, None], x) <= reach) & (overlap > 1e-3 * overlap[0, 0])
    rho = np.where(known, correlation / np.where(known, overlap, 1), 0)
    rho /= rho[0, 0]
    return max(weight.sum() ** 2 / (pairs * rho**2).sum(), 1.0)


def fit_power_law(
    x: QuantityLike, y: QuantityLike, y_err: QuantityLike | None = None
) -> tuple[float, float]:
    """Slope of y ∝ x^slope, by least squares of the logarithms.

    Parameters
    ----------
    x, y : (N,) array-like or Quantity
        Frequencies or lags, and powers; points that are not positive are ignored.
    y_err : (N,) array-like or Quantity, optional
        1-sigma errors; without them all points have the same weight.

    Returns
    -------
    slope, error : float
        The slope and its 1-sigma error, from ``y_err`` or from the scatter about the line.

    Raises
    ------
    ValueError
        If fewer than three points are positive.

    Examples
    --------
    >>> from csr_astro.evaluation.power_spectrum import fit_power_law
    >>> slope, error = fit_power_law([1, 2, 4], [3, 12, 48])
    >>> print(round(slope, 6))
    2.0
    """
    x, y = (np.asarray(u.Quantity(each).value, dtype=float) for each in (x, y))
    good = (x > 0) & (y > 0) & np.isfinite(x) & np.isfinite(y)
    if good.sum() < 3:
        raise ValueError('a power law needs at least three positive points.')
    weights = None
    if y_err is not None:
        weights = y[good] / np.asarray(u.Quantity(y_err).value, dtype=float)[good]
    cov: Any = True if y_err is None else 'unscaled'
    line, covariance = np.polyfit(np.log(x[good]), np.log(y[good]), 1, w=weights, cov=cov)
    return float(line[0]), float(np.sqrt(covariance[0, 0]))
