"""Matched filters for point sources on a background with the covariance of the map around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, ndimage, signal

from csr_astro.fitting.gaussian import FWHM
from csr_astro.kriging.variogram import Variogram, fit_variogram, measure_variogram

if TYPE_CHECKING:
    from csr_astro.fitting.psf import PixelPSF

__all__ = ['MatchedFilter', 'fill_gaps']


# Each tile of the map has a covariance, measured in a window around it; both in pixels.
_TILE = 48
_WINDOW = 97
# Fewer background pixels in a window than this say nothing.
_MIN_PIXELS = 30
# Radius of the pixels that a filter weights, in FWHM of the widest source, and limits in pixels.
_REACH = 2.5
_REACH_LIMITS = 5, 14
# So much of the variogram between neighbours is added to the variance of each pixel.
_FLOOR = 0.03
# The same, over the largest value of the map: rounding.
_ROUNDING = 1e-7
# Sub-pixel places at which a template is compared with the map.
_SHIFTS = np.array([-1.0, 0.0, 1.0]) / 3
# Widths of sources that are too narrow or, over the largest, too wide; and the width along a
# filament. All in FWHM of the PSF.
_NARROW = 0.5
_WIDE = 1.5, 2.25
_LONG = 2.5
_ANGLES = np.arange(4) * np.pi / 4
# Largest ratio of the widths of two filters.
_WIDTH_RATIO = 1.5
# Pixels beyond this many robust scatters of a difference of Gaussians are not background.
_OUTLIER = 5.0


class MatchedFilter:
    """Filters that give the flux of a source at each pixel by generalised least squares.

    The covariance of the background is that of the variogram of a window around each tile, so
    that a filter takes the structure of the map for what it is, and its unknown mean.

    Parameters
    ----------
    data : (ny, nx) `~numpy.ndarray` of float
        The map; finite everywhere.
    valid : (ny, nx) `~numpy.ndarray` of bool
        True for measured pixels.
    psf : `~csr_astro.fitting.psf.PixelPSF`
        The PSF.
    max_size : float, optional
        FWHM of the widest sources, over that of the PSF.

    Attributes
    ----------
    widths : (K,) `~numpy.ndarray` of float
        Widths of the sources to look for, over that of the PSF.
    steps : (S,) `~numpy.ndarray` of int
        Offsets of rows and columns from the pixel of a source.
    disc : (S, S) `~numpy.ndarray` of bool
        Pixels that are weighted.
    offsets : (2, P) `~numpy.ndarray` of int
        Their rows and columns.
    images : (K, P) `~numpy.ndarray` of float
        Sources of unit flux in them.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.fitting.psf import pixel_psf
    >>> from csr_astro.photometry.matched_filter import MatchedFilter
    >>> from csr_astro.simulation.inject import inject_sources
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> profile = gaussian_profile(3.5)
    >>> noise = np.random.default_rng(1).normal(7, 1, (96, 96))
    >>> data = inject_sources(noise, [50.2], [40.7], [100.0], profile)
    >>> found = MatchedFilter(data, np.isfinite(data), pixel_psf(profile))
    >>> significance, _ = found.apply(data)
    >>> print(np.unravel_index(significance[0].argmax(), data.shape), significance.max() > 10)
    (np.int64(41), np.int64(50)) True
    """

    def __init__(
        self, data: np.ndarray, valid: np.ndarray, psf: PixelPSF, max_size: float = 1.0
    ) -> None:
        self._valid, self._psf = valid, psf
        number = 1 + int(np.ceil(np.log(max_size) / np.log(_WIDTH_RATIO) - 1e-9))
        self.widths = np.geomspace(1, max_size, number) if number > 1 else np.ones(1)
        reach = int(np.ceil(np.clip(_REACH * np.sqrt(max_size) * psf.fwhm, *_REACH_LIMITS)))
        steps = np.arange(-reach, reach + 1)
        rows, columns = np.meshgrid(steps, steps, indexing='ij')
        self.disc = np.hypot(rows, columns) <= reach + 0.3
        self.offsets = np.stack([rows[self.disc], columns[self.disc]])
        self.steps, self._reach = steps, reach
        largest = np.abs(data[valid]).max(initial=0.0)
        self._rounding = (_ROUNDING * max(float(largest), np.finfo(float).tiny ** 0.25)) ** 2
        self._templates()
        self._tiles: dict[tuple[int, int], _Tile | None] = {}
        self._background(data, self._outliers(data))

    def __repr__(self) -> str:
        return f'<MatchedFilter: {len(self._tiles)} tiles, {len(self.widths)} widths>'

    # --------------------------------------------------------------------------------- templates

    def _image(self, width=1.0, narrow=1.0, angle=None, shift=(0.0, 0.0)):
        """A source in the pixels of the disc; unit flux."""
        psf = self._psf
        larger = max(width**2 - 1, 0) * (psf.fwhm / FWHM) ** 2
        if angle is not None:
            along = np.array([np.cos(angle), np.sin(angle)])
            psf = self._cached(('long', angle), larger * np.outer(along, along))
        elif larger > 0:
            psf = self._cached(('wide', width), larger * np.identity(2))
        values = psf.evaluate((self.steps - shift[0]) / narrow, (self.steps - shift[1]) / narrow)
        return values[self.disc] / narrow**2

    def _cached(self, key, moments):
        if key not in self._convolved:
            self._convolved[key] = self._psf.convolved(moments)
        return self._convolved[key]

    def _templates(self):
        """Sources of all widths at all shifts, and what is no source."""
        self._convolved = {}
        shifts = [(x, y) for y in _SHIFTS for x in _SHIFTS]
        self._shifts = np.array(shifts)
        self.images = np.stack([self._image(width) for width in self.widths])
        kinds = [{'width': width} for width in self.widths]
        others = [{'width': self.widths[-1] * width} for width in _WIDE]
        others += [{'width': _LONG * self.widths[-1], 'angle': angle} for angle in _ANGLES]
        others += [{'narrow': _NARROW}]
        images = [self._image(**kind, shift=shift) for kind in kinds + others for shift in shifts]
        pixel = (self.offsets == 0).all(axis=0).astype(float)
        self._dictionary = np.stack([*images, pixel])
        self._is_source = np.arange(len(self._dictionary)) < len(kinds) * len(shifts)

    # --------------------------------------------------------------------------------- background

    def _outliers(self, data):
        """Pixels of what may be sources, by a difference of Gaussians."""
        sigma = self._psf.fwhm / FWHM
        filled = fill_gaps(data, self._valid)
        difference = ndimage.gaussian_filter(filled, sigma)
        difference -= ndimage.gaussian_filter(filled, 3 * sigma)
        far = np.zeros(data.shape, dtype=bool)
        for tile, window in self._windows():
            values = np.abs(difference[window][self._valid[window]])
            if len(values):
                limit = _OUTLIER * 1.4826 * np.median(values)
                far[tile] = np.abs(difference[tile]) > limit
        reach = int(np.ceil(self._psf.fwhm))
        ball = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1]) <= self._psf.fwhm
        return ndimage.binary_dilation(far & self._valid, ball)

    def _windows(self):
        """Tiles of the map and the windows around them."""
        ny, nx = self._valid.shape
        for y in range(0, ny, _TILE):
            for x in range(0, nx, _TILE):
                bounds = [(start, min(start + _TILE, n)) for start, n in ((y, ny), (x, nx))]
                margin = (_WINDOW - _TILE) // 2
                yield tuple(slice(*b) for b in bounds), tuple(
                    slice(max(a - margin, 0), min(b + margin, n))
                    for (a, b), n in zip(bounds, (ny, nx), strict=True)
                )

    def _background(self, data, hidden):
        usable = self._valid & ~hidden
        for tile, window in self._windows():
            y, x = tile[0].start, tile[1].start
            good = usable[window]
            if good.sum() < _MIN_PIXELS:
                good = self._valid[window]
            if good.sum() < _MIN_PIXELS:
                self._tiles[y, x] = None
                continue
            covariance = self._covariance(data[window], good)
            self._tiles[y, x] = _Tile(covariance, self.images)

    def _covariance(self, values, good):
        """Covariance of the pixels of the disc."""
        size = max(_WINDOW, *values.shape)
        square, known = np.zeros((size, size)), np.zeros((size, size), dtype=bool)
        corner = [(size - n) // 2 for n in values.shape]
        inside = tuple(slice(c, c + n) for c, n in zip(corner, values.shape, strict=True))
        square[inside] = np.where(good, values - values[good].mean(), 0)
        known[inside] = good
        weights = fit_variogram(*measure_variogram(square, known))
        diagonal = np.full(self.offsets.shape[1], self._rounding)
        if weights is None:
            return np.diag(diagonal)
        variogram = Variogram(weights, size)
        places = self.offsets[1], self.offsets[0]
        covariance = variogram.covariance(places, places)
        diagonal += variogram.noise + _FLOOR * variogram.step
        covariance[np.diag_indices(len(diagonal))] += diagonal
        return covariance

    # ------------------------------------------------------------------------------------ results

    def apply(self, residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Filter a map.

        Parameters
        ----------
        residual : (ny, nx) `~numpy.ndarray` of float
            The map less the sources that are known; finite everywhere.

        Returns
        -------
        significance : (K, ny, nx) `~numpy.ndarray` of float
            Flux of a source of each width at each pixel over its standard error, in the robust
            scatter of the filtered map around; 0 in tiles without background.
        flux_err : (K, ny, nx) `~numpy.ndarray` of float
            Standard errors; infinite in tiles without background.
        """
        filled = np.pad(fill_gaps(residual, self._valid), self._reach, mode='edge')
        shape = len(self.widths), *residual.shape
        significance, errors = np.zeros(shape), np.full(shape, np.inf)
        for tile, _ in self._windows():
            found = self._tiles[tile[0].start, tile[1].start]
            if found is None:
                continue
            rows, columns = (slice(s.start, s.stop + 2 * self._reach) for s in tile)
            values = filled[rows, columns]
            # A constant has no influence, and would cost precision.
            values = values - values.mean()
            for k, (kernel, error) in enumerate(zip(found.kernels, found.errors, strict=True)):
                square = np.zeros(self.disc.shape)
                square[self.disc] = kernel
                flux = signal.fftconvolve(values, square[::-1, ::-1], mode='valid')
                significance[(k, *tile)] = flux / error
                errors[(k, *tile)] = error
        # Maps are no Gaussian fields: scatters decide, where they are larger.
        for tile, window in self._windows():
            good, found = self._valid[window], self._tiles[tile[0].start, tile[1].start]
            if found is None or not good.any():
                continue
            scatter = 1.4826 * np.median(np.abs(significance[(slice(None), *window)][:, good]), 1)
            scale = np.maximum(scatter, 1)[:, np.newaxis, np.newaxis]
            significance[(slice(None), *tile)] /= scale
            errors[(slice(None), *tile)] *= scale
            found.scale = scale[:, 0, 0]
        return significance, errors

    def patch(self, row: int, column: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels around a source.

        Parameters
        ----------
        row, column : int
            Pixel of the source.

        Returns
        -------
        rows, columns : (P,) `~numpy.ndarray` of int
            Pixels of the map; 0 for those that are not on it.
        seen : (P,) `~numpy.ndarray` of bool
            Those that are on the map and valid.
        """
        rows, columns = row + self.offsets[0], column + self.offsets[1]
        ny, nx = self._valid.shape
        inside = (rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)
        rows, columns = np.where(inside, rows, 0), np.where(inside, columns, 0)
        return rows, columns, inside & self._valid[rows, columns]

    def _tile(self, row, column):
        return self._tiles[row // _TILE * _TILE, column // _TILE * _TILE]

    def classify(self, residual: np.ndarray, row: int, column: int) -> tuple[float, float, int]:
        """Compare the map around a pixel with sources, and with what is no source.

        Parameters
        ----------
        residual : (ny, nx) `~numpy.ndarray` of float
            The map less the sources that are known.
        row, column : int
            The pixel.

        Returns
        -------
        source, other : float
            Significance of the best source, and of the best single pixel, narrow spot, wide
            clump or piece of a filament.
        best : int
            Number of the source's width in ``widths``.
        """
        tile = self._tile(row, column)
        rows, columns, seen = self.patch(row, column)
        if tile is None or not seen.any():
            return 0.0, 0.0, 0
        values = residual[rows, columns]
        if seen.all():
            solved, norm = tile.solutions(self._dictionary)
            amplitude = solved @ (values - values.mean())
        else:
            values = values[seen] - values[seen].mean()
            dictionary = self._dictionary[:, seen]
            solved = tile.solve(dictionary, seen)
            norm = (solved * dictionary).sum(axis=1)
            amplitude = solved @ values
        scores = amplitude / np.sqrt(np.maximum(norm, np.finfo(float).tiny))
        sources = scores[self._is_source]
        best = int(sources.argmax()) // len(self._shifts)
        return float(sources.max()), float(scores[~self._is_source].max()), best

    def solve(
        self, row: int, column: int, values: np.ndarray, templates: np.ndarray, seen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Amplitudes of templates by generalised least squares.

        Parameters
        ----------
        row, column : int
            Pixel of the source.
        values : (P,) `~numpy.ndarray` of float
            The map in the pixels of `patch`.
        templates : (K, P) `~numpy.ndarray` of float
            Templates there.
        seen : (P,) `~numpy.ndarray` of bool
            Pixels to use.

        Returns
        -------
        right : (K,) `~numpy.ndarray` of float
            ``Tᵀ C⁻¹ d``.
        normal : (K, K) `~numpy.ndarray` of float
            ``Tᵀ C⁻¹ T``.
        """
        tile = self._tile(row, column)
        used = None if seen.all() else seen
        if used is not None:
            values, templates = values[seen], templates[:, seen]
        solved = tile.solve(templates, used)
        return solved @ (values - values.mean()), solved @ templates.T

    def scale(self, row: int, column: int, number: int = 0) -> float:
        """Factor of the standard errors at a pixel, from the scatter of the filtered map.

        Parameters
        ----------
        row, column : int
            The pixel.
        number : int, optional
            Number of the width in ``widths``.
        """
        tile = self._tile(row, column)
        return np.inf if tile is None else float(tile.scale[number])


class _Tile:
    """Covariance of the background around one tile, and the filters that follow from it."""

    def __init__(self, covariance, kernels):
        self._covariance = covariance
        self._factor = _factor(covariance)
        solved = linalg.cho_solve(self._factor, kernels.T, check_finite=False).T
        norm = (solved * kernels).sum(axis=1)
        self.kernels = solved / norm[:, np.newaxis]
        self.errors = norm**-0.5
        self.scale = np.ones(len(kernels))
        self._solutions = None

    def solutions(self, dictionary):
        if self._solutions is None:
            solved = self.solve(dictionary, None)
            self._solutions = solved, (solved * dictionary).sum(axis=1)
        return self._solutions

    def solve(self, templates, seen):
        factor = self._factor
        if seen is not None:
            factor = _factor(self._covariance[np.ix_(seen, seen)])
        return linalg.cho_solve(factor, templates.T, check_finite=False).T


def _factor(covariance):
    """Cholesky factor, with as much white noise as it takes."""
    jitter, diagonal = 0.0, covariance.diagonal().mean()
    while True:
        try:
            matrix = covariance + jitter * diagonal * np.identity(len(covariance))
            return linalg.cho_factor(matrix, lower=True, check_finite=False)
        except linalg.LinAlgError:
            jitter = max(10 * jitter, 1e-10)


def fill_gaps(data: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Fill invalid pixels with means of what is near.

    Parameters
    ----------
    data : (ny, nx) `~numpy.ndarray` of float
        The map; finite everywhere.
    valid : (ny, nx) `~numpy.ndarray` of bool
        True for measured pixels.

    Returns
    -------
    filled : (ny, nx) `~numpy.ndarray` of float

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.photometry.matched_filter import fill_gaps
    >>> valid = np.ones((9, 9), dtype=bool)
    >>> valid[4, 4] = False
    >>> print(fill_gaps(np.where(valid, 3.0, 0.0), valid)[4, 4])
    3.0
    """
    if valid.all() or not valid.any():
        return data.astype(float)
    level = data[valid].mean()
    centred = np.where(valid, data - level, 0.0)
    filled, known = centred.copy(), valid.copy()
    width = 3
    while not known.all() and width < 2 * max(data.shape):
        weight = ndimage.uniform_filter(valid.astype(float), width, mode='constant')
        mean = ndimage.uniform_filter(centred, width, mode='constant')
        hole = ~known & (weight > 0.5 / width**2)
        filled[hole] = mean[hole] / weight[hole]
        known |= hole
        width = 2 * width + 1
    return filled + level
