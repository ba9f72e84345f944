"""Search for sources in rounds: find, remove, find again in what is left of the map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from csr_astro.photometry.matched_filter import MatchedFilter

if TYPE_CHECKING:
    from csr_astro.fitting.psf import PixelPSF

__all__ = ['Candidate', 'search']


# Candidates are kept from this part of the threshold on: the fit that decides may find more.
_CANDIDATE = 0.8
# Candidates have no brighter pixel within this many FWHM of the filtered map.
_SEPARATION = 0.6
# No source is nearer to a brighter one than this many FWHM: point sources, and those of any size,
# of which an elongated one is not two.
_NEAREST = 0.5, 1.25
# χ² by which a single pixel, a filament or a clump must be better than a source, and factor of its
# significance: two sources of any size look like a larger one.
_MARGIN = 4.0
_FACTOR = 1.0, 1.15
# Smallest part of the flux in valid pixels.
_MIN_FRACTION = 0.5
# Sources as they are removed miss the map by this part of themselves, up to so many FWHM away:
# point sources, and those of any size, which need not be round.
_MODEL_ERROR = 0.03, 0.1
_MODEL_REACH = 0.5, 1.0
# Width of a source over that of the PSF is free from this significance on, down to a limit.
_WIDTH_SIGNIFICANCE = 20.0
_NARROWEST, _WIDEST = 0.9, 1.1
# Standard deviations of the priors of positions, in FWHM, and of the logarithm of widths.
_POSITION_PRIOR = 0.5
_WIDTH_PRIOR = 0.05, 0.3
_SWEEPS = 4
_STEPS = 3
_MAX_STEP = 0.3
_TOLERANCE = 0.03


@dataclass(frozen=True)
class Candidate:
    """Source that the search has found.

    Attributes
    ----------
    x, y : float
        Position in pixels.
    flux, flux_err : float
        Flux in units of the sum of the map, and its standard error.
    width : float
        Width over that of the PSF.

    Examples
    --------
    >>> from csr_astro.photometry.candidates import Candidate
    >>> Candidate(30.0, 20.0, 12.0, 2.0).significance
    6.0
    """

    x: float
    y: float
    flux: float
    flux_err: float
    width: float = 1.0

    @property
    def significance(self) -> float:
        """Flux over its standard error."""
        return self.flux / self.flux_err if self.flux_err > 0 else np.inf


def search(
    data: np.ndarray,
    valid: np.ndarray,
    psf: PixelPSF,
    threshold: float,
    *,
    max_size: float = 1.0,
    max_rounds: int = 4,
) -> list[Candidate]:
    """Find sources in a map.

    Parameters
    ----------
    data : (ny, nx) `~numpy.ndarray` of float
        The map; finite where valid.
    valid : (ny, nx) `~numpy.ndarray` of bool
        True for measured pixels.
    psf : `~csr_astro.fitting.psf.PixelPSF`
        The PSF.
    threshold : float
        Smallest significance, of which candidates have at least 0.8.
    max_size : float, optional
        FWHM of the widest sources, over that of the PSF.
    max_rounds : int, optional
        Largest number of rounds.

    Returns
    -------
    candidates : list of `Candidate`
        Brightest first.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.fitting.psf import pixel_psf
    >>> from csr_astro.photometry.candidates import search
    >>> from csr_astro.simulation.inject import inject_sources
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> profile = gaussian_profile(3.5)
    >>> noise = np.random.default_rng(1).normal(7, 1, (96, 96))
    >>> data = inject_sources(noise, [50.2, 54.0], [40.7, 42.0], [900.0, 300.0], profile)
    >>> for found in search(data, np.isfinite(data), pixel_psf(profile), 5):
    ...     print(f'{found.x:.0f} {found.y:.0f} {found.flux:.0f}')
    50 41 9...
    54 42 2...
    """
    field = _Field(data, valid, psf, max_size)
    for _ in range(max_rounds):
        if not field.add(_CANDIDATE * threshold):
            break
        field.refine(_CANDIDATE * threshold)
    return sorted(field.sources, key=lambda source: -source.flux)


class _Field:
    """The map, the sources found so far, and what is left of the map without them."""

    def __init__(self, data, valid, psf, max_size):
        level = np.median(data[valid]) if valid.any() else 0.0
        self.valid, self.psf, self.max_size = valid, psf, max_size
        self.residual = np.where(valid, data - level, 0.0)
        self.filter = MatchedFilter(self.residual, valid, psf, max_size)
        self.sources = []
        self.peak = float(psf.evaluate(np.zeros(1), np.zeros(1))[0, 0])
        self.model = np.zeros(data.shape)

    # ------------------------------------------------------------------------------- one source

    def _draw(self, source, sign):
        """Add a source to the residuals, or take it off, and the reverse for the model."""
        reach = int(np.ceil(self.psf.radius * source.width)) + 1
        x0, y0 = int(np.rint(source.x)), int(np.rint(source.y))
        ny, nx = self.residual.shape
        rows = np.arange(max(y0 - reach, 0), min(y0 + reach + 1, ny))
        columns = np.arange(max(x0 - reach, 0), min(x0 + reach + 1, nx))
        if not len(rows) or not len(columns):
            return
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        image = self.psf.evaluate(
            (columns - source.x) / source.width, (rows - source.y) / source.width
        )
        image = sign * source.flux / source.width**2 * image
        self.residual[window] += np.where(self.valid[window], image, 0)
        self.model[window] -= image

    def fit(self, source):
        """Flux, position and width of a source that is not taken off the residuals."""
        row, column = int(np.rint(source.y)), int(np.rint(source.x))
        row = int(np.clip(row, 0, self.valid.shape[0] - 1))
        column = int(np.clip(column, 0, self.valid.shape[1] - 1))
        rows, columns, seen = self.filter.patch(row, column)
        if not seen.any():
            return None
        values = self.residual[rows, columns]
        number = int(np.argmin(np.abs(self.filter.widths - source.width)))
        scale = self.filter.scale(row, column, number)
        start, low, high = source, _NARROWEST, max(self.max_size, _WIDEST)
        for _ in range(_STEPS):
            templates = self._templates(source, row, column)
            right, normal = self.filter.solve(row, column, values, templates[:1], seen)
            if not normal[0, 0] > 0:
                return None
            flux, error = right[0] / normal[0, 0], normal[0, 0] ** -0.5 * scale
            source = replace(source, flux=flux, flux_err=error)
            if flux <= 0:
                return source
            free = 3 + (flux > _WIDTH_SIGNIFICANCE * error or self.max_size > 1)
            templates = templates[:free].copy()
            templates[1:] *= flux
            left = values - flux * templates[0]
            right, normal = self.filter.solve(row, column, left, templates, seen)
            # Weak priors keep faint sources where they are.
            prior = np.array([np.inf, *2 * [_POSITION_PRIOR * self.psf.fwhm],
                              _WIDTH_PRIOR[self.max_size > 1]])[:free] ** -2.0  # fmt: skip
            step = np.linalg.solve(normal / scale**2 + np.diag(prior), right / scale**2)
            largest = _MAX_STEP * self.psf.fwhm
            dx, dy = np.clip(step[1:3], -largest, largest)
            width = source.width
            if free > 3:
                width = float(np.clip(width * np.exp(np.clip(step[3], -0.3, 0.3)), low, high))
            source = replace(source, x=source.x + dx, y=source.y + dy, width=width)
            if max(abs(dx), abs(dy)) < _TOLERANCE:
                break
        distance = np.hypot(source.x - start.x, source.y - start.y)
        return source if distance < self.psf.fwhm * max(self.max_size, 1) else None

    def _templates(self, source, row, column):
        offsets_x, offsets_y = (
            self.filter.steps + place - center
            for place, center in ((column, source.x), (row, source.y))
        )
        images = self.psf.with_derivatives(offsets_x, offsets_y, width=source.width)
        return images[:, self.filter.disc]

    # ------------------------------------------------------------------------------- all sources

    def add(self, threshold):
        """Find candidates in the residuals, and take them off; how many."""
        significance, errors = self.filter.apply(self.residual)
        resolved = self.max_size > 1
        around = 2 * int(np.ceil(_MODEL_REACH[resolved] * self.psf.fwhm)) + 1
        floor = ndimage.maximum_filter(np.abs(self.model), around)
        floor *= _MODEL_ERROR[resolved] / self.peak
        with np.errstate(invalid='ignore'):
            tempered = significance * errors / np.hypot(errors, floor)
        best = np.nan_to_num(tempered).max(axis=0)
        reach = int(np.ceil(_SEPARATION * self.psf.fwhm))
        ball = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1])
        ball = ball <= max(_SEPARATION * self.psf.fwhm, 1.5)
        peaks = (best >= ndimage.maximum_filter(best, footprint=ball)) & (best > threshold)
        peaks &= self.valid
        rows, columns = np.nonzero(peaks)
        order = np.argsort(-best[rows, columns])
        number = 0
        for row, column in zip(rows[order], columns[order], strict=True):
            width = self._decide(row, column, threshold)
            found = None
            if width is not None:
                found = self.fit(Candidate(float(column), float(row), 0.0, np.inf, width))
            if found is None or not self._is_new(found):
                continue
            if found.flux > threshold * np.hypot(found.flux_err, floor[row, column]):
                self.sources.append(found)
                self._draw(found, -1)
                number += 1
        return number

    def _decide(self, row, column, threshold):
        """Width of the source at a peak, or None if it is no source."""
        _, _, seen = self.filter.patch(row, column)
        images = self.filter.images[0]
        if images[seen].sum() < _MIN_FRACTION * images.sum():
            return None
        source, other, best = self.filter.classify(self.residual, row, column)
        least = _FACTOR[self.max_size > 1] * source
        if source < threshold or (other > 0 and other**2 > least**2 + _MARGIN):
            return None
        return float(self.filter.widths[best])

    def _is_new(self, found):
        ny, nx = self.valid.shape
        if not (-0.5 <= found.x <= nx - 0.5 and -0.5 <= found.y <= ny - 0.5):
            return False
        if not self.sources:
            return True
        places = np.array([(other.x, other.y) for other in self.sources])
        distance = np.hypot(*(places - (found.x, found.y)).T)
        return bool(distance.min() > _NEAREST[self.max_size > 1] * self.psf.fwhm)

    def refine(self, threshold):
        """Fit all sources again, each on the residuals of the others."""
        todo = set(range(len(self.sources)))
        for _ in range(_SWEEPS):
            places = np.array([(source.x, source.y) for source in self.sources])
            changed = []
            for i in sorted(todo, key=lambda i: -self.sources[i].flux):
                before = self.sources[i]
                self._draw(before, 1)
                found = self.fit(before)
                after = before if found is None or found.flux <= 0 else found
                self.sources[i] = after
                self._draw(after, -1)
                if abs(after.flux - before.flux) > 0.3 * after.flux_err:
                    changed.append(i)
            if not changed:
                break
            near = 3 * self.psf.fwhm * max(self.max_size, 1)
            todo = {
                j for i in changed
                for j in np.flatnonzero(np.hypot(*(places - places[i]).T) < near)
            }  # fmt: skip
        for source in list(self.sources):
            if source.significance < threshold:
                self.sources.remove(source)
                self._draw(source, 1)
