"""A map and the sources on it, as far as they are known: residuals, masks, background pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array, csgraph
from scipy.spatial import KDTree

from csr_astro.cutouts import MAX_RADIUS, window_size
from csr_astro.fitting.gaussian import (
    FWHM,
    elliptical_mask,
    moment_derivatives,
    moments,
    shape_derivatives,
)
from csr_astro.fitting.outliers import boxes_around, find_outliers
from csr_astro.masking import disc

if TYPE_CHECKING:
    from csr_astro.fitting.fit import FitOptions
    from csr_astro.fitting.psf import PixelPSF
    from csr_astro.images import Image
    from csr_astro.masking import SourceMask

__all__ = ['Scene', 'add_source']


# Columns of the parameters of a source: flux; position; logarithm of its width over that of the
# PSF; (a, b, c) of its shape.
FLUX, POSITION, WIDTH, SHAPE = 0, slice(1, 3), 3, slice(4, 7)
# Pixels above this part of the peak are saturated if more than 4 of them, and three times as many
# as a Gaussian PSF has, are that bright. The peak must be so many scatters high to tell.
_FLAT = 0.98
_FLAT_PIXELS = 4
_FLAT_CONTRAST = 150.0
# Sources closer than this part of the FWHM share their flux by a prior.
_BLEND = 0.5
# Standard deviation of the prior of a source's size, in those of the PSF.
_LARGEST = 5.0


class Scene:
    """The map less all sources as they are known so far.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    x, y : (N,) array of float
        Positions in pixels.
    psf : `~csr_astro.fitting.psf.PixelPSF`
        The PSF.
    masks : list of `~csr_astro.masking.SourceMask` or None
        Pixels to fit; discs by default.
    flux : (N,) array of float or None
        First guesses.
    options : `~csr_astro.fitting.fit.FitOptions`

    Attributes
    ----------
    parameters : (N, 7) `~numpy.ndarray` of float
        Flux, x, y, logarithm of the relative width, and (a, b, c) of the shape.
    start : (N, 2) `~numpy.ndarray` of float
        Positions as given.
    extended : (N,) `~numpy.ndarray` of bool
        Sources whose shapes are fitted.
    residual : (ny, nx) `~numpy.ndarray` of float
        The map less all sources; 0 where it is not valid.
    valid, hidden, outliers : (ny, nx) `~numpy.ndarray` of bool
        Pixels that are measured and not saturated; those of masks; those that are neither
        background nor part of a source.
    saturated : (N,) `~numpy.ndarray` of bool
        Sources with a flat top.
    masks : list of `~csr_astro.masking.SourceMask` or None
    blended_pairs : list of (int, int)
        Sources closer than half the FWHM.
    blends : list of (n,) `~numpy.ndarray` of int
        Sources that are connected by these.
    """

    def __init__(
        self,
        image: Image,
        x: np.ndarray,
        y: np.ndarray,
        psf: PixelPSF,
        masks: list[SourceMask | None] | None,
        flux: np.ndarray | None,
        options: FitOptions,
    ) -> None:
        self.image, self.psf, self.options = image, psf, options
        self.start = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
        n = len(self.start)
        self.placed = np.isfinite(self.start).all(axis=1)
        self.parameters = np.zeros((n, SHAPE.stop))
        self.parameters[:, POSITION] = self.start
        self.extended, self.saturated = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        self.profile_error = options.profile_error
        alone = np.hypot(options.width_error, options.width_scatter) * (options.width_error > 0)
        self.width_prior = np.zeros(n), np.full(n, alone)
        self._images: dict[int, tuple[tuple, PixelPSF]] = {}
        self.valid = image.valid((slice(None), slice(None))) & np.isfinite(image.data)
        self.residual = np.where(self.valid, image.data, 0.0).astype(float)
        self._find_saturated()
        self.blended_pairs, self.blends = _blends(self.start, _BLEND * psf.fwhm)
        self.mask_scale = np.ones(n)
        self.masks = [self._mask(i) for i in range(n)] if masks is None else list(masks)
        self.outliers = np.zeros(image.shape, dtype=bool)
        self.hide()
        if flux is not None:
            for i in np.flatnonzero(np.isfinite(flux) & self.placed).tolist():
                self.move(i, np.concatenate([[flux[i]], self.parameters[i, 1:]]))

    # ------------------------------------------------------------------------------- the sources

    def image_of(self, i: int) -> PixelPSF:
        """Image of a source of unit flux: the PSF, convolved with its shape.

        Parameters
        ----------
        i : int
            Number of the source, from 0.
        """
        if not self.extended[i]:
            return self.psf
        shape = tuple(self.parameters[i, SHAPE])
        if i not in self._images or self._images[i][0] != shape:
            convolved = self.psf.convolved(moments(self.parameters[i, SHAPE]))
            self._images[i] = shape, convolved
        return self._images[i][1]

    def move(self, i: int, parameters: np.ndarray) -> None:
        """Change the parameters of a source, and the residuals with them.

        Parameters
        ----------
        i : int
            Number of the source, from 0.
        parameters : (7,) `~numpy.ndarray` of float
            Flux, x, y, logarithm of the relative width, and (a, b, c) of the shape.
        """
        self._add(i, self.parameters[i, FLUX])
        self.parameters[i] = parameters
        self._add(i, -self.parameters[i, FLUX])

    def _add(self, i, flux):
        if flux != 0:
            add_source(self.residual, self.image_of(i), flux, *self.parameters[i, 1:4])

    def templates(self, i: int, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Image of a source of unit flux and its derivatives on a grid of pixels.

        Parameters
        ----------
        i : int
            Number of the source, from 0.
        columns, rows : (nx,), (ny,) `~numpy.ndarray` of int
            Pixels of the map.

        Returns
        -------
        templates : (4, ny, nx) or (7, ny, nx) `~numpy.ndarray` of float
            Seven if the options ask for Gaussian shapes.
        """
        _, x, y, log_width = self.parameters[i, :4]
        image = self.image_of(i)
        templates = image.with_derivatives(columns - x, rows - y, width=np.exp(log_width))
        if self.options.shape == 'point':
            return templates
        shape = np.zeros((3, *templates.shape[1:]))
        if self.extended[i]:
            shape = shape_derivatives(image, columns - x, rows - y, self.parameters[i, SHAPE])
        return np.concatenate([templates, shape])

    def size_templates(self, i: int, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Derivatives of the image of a source with respect to its second moments.

        Parameters
        ----------
        i, columns, rows
            As in `templates`.

        Returns
        -------
        derivatives : (3, ny, nx) `~numpy.ndarray` of float
            By xx, xy and yy, for unit flux.
        """
        _, x, y = self.parameters[i, :3]
        return moment_derivatives(self.psf, columns - x, rows - y)

    def prior(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the parameters of some sources before the fit.

        Parameters
        ----------
        index : (n,) `~numpy.ndarray` of int
            Numbers of the sources.

        Returns
        -------
        mean, deviation : (n, 7) `~numpy.ndarray` of float
            The deviation is 0 for parameters that are fixed.
        """
        mean, errors = np.zeros((2, len(index), SHAPE.stop))
        errors[:, FLUX] = np.inf
        mean[:, POSITION] = self.start[index]
        position_error = np.broadcast_to(self.options.position_error, len(self.start))
        errors[:, POSITION] = position_error[index, np.newaxis] * self.psf.fwhm
        extended = self.extended[index]
        mean[:, WIDTH] = np.where(extended, 0, self.width_prior[0][index])
        errors[:, WIDTH] = np.where(extended, 0, self.width_prior[1][index])
        errors[extended, SHAPE] = _LARGEST * self.psf.fwhm / FWHM
        return mean, errors

    # --------------------------------------------------------------------------------- the pixels

    def second_moments(self, i: int) -> np.ndarray:
        """Second moments of the image of a source, taken as a Gaussian.

        Parameters
        ----------
        i : int
            Number of the source, from 0.

        Returns
        -------
        moments : (2, 2) `~numpy.ndarray` of float
            In square pixels.
        """
        return moments(self.parameters[i, SHAPE]) + (self.psf.fwhm / FWHM) ** 2 * np.identity(2)

    def narrowest(self, i: int) -> float:
        """FWHM of the image of a source along its minor axis, in pixels.

        Parameters
        ----------
        i : int
            Number of the source, from 0.
        """
        if not self.extended[i]:
            return self.psf.fwhm
        return float(FWHM * np.sqrt(np.linalg.eigvalsh(self.second_moments(i))[0]))

    def _mask(self, i):
        """A disc or an ellipse; one FWHM larger where pixels of the core are missing."""
        if not self.placed[i]:
            return None
        x, y = self.parameters[i, POSITION]
        radius = self.options.mask_radius * self.mask_scale[i]
        smallest = self.options.smallest_mask
        if self.extended[i]:
            second_moments = self.second_moments(i)
            radius = max(radius, smallest / (FWHM * np.linalg.det(second_moments) ** 0.25))
            return elliptical_mask(x, y, second_moments, radius, self.image.shape)
        radius = max(radius, smallest / self.psf.fwhm)
        mask = disc(x, y, radius * self.psf.fwhm, self.image.shape)
        if mask is not None and not self.valid[mask.window][mask.pixels].all():
            mask = disc(x, y, (radius + 1) * self.psf.fwhm, self.image.shape)
        return mask

    def redraw(self, i: int) -> None:
        """Draw the mask of a source anew, as its shape and ``mask_scale`` are now.

        Parameters
        ----------
        i : int
            Number of the source, from 0.
        """
        self.masks[i] = self._mask(i)

    def hide(self) -> None:
        """Mark the pixels of all masks."""
        self.hidden = np.zeros(self.image.shape, dtype=bool)
        for mask in self.masks:
            if mask is not None:
                self.hidden[mask.window] |= mask.pixels

    def brightest(self, members: np.ndarray) -> float:
        """Find the brightest residual in the masks of some sources.

        Parameters
        ----------
        members : (n,) `~numpy.ndarray` of int
            Numbers of the sources.
        """
        return max(
            self.residual[self.masks[i].window].max(initial=0, where=self.masks[i].pixels)
            for i in members
        )

    def find_outliers(self) -> None:
        """Mark pixels that are neither background nor part of a source."""
        usable = self.valid & ~self.hidden
        self.outliers = np.zeros(self.image.shape, dtype=bool)
        radius = [0.0 if mask is None else min(mask.radius, MAX_RADIUS) for mask in self.masks]
        reach = window_size(np.array(radius)) // 2 + 1
        x, y = self.start[self.placed].T
        for box in boxes_around(x, y, reach[self.placed], self.image.shape):
            self.outliers[box] |= find_outliers(self.residual, usable, self.psf.fwhm, box)

    def _find_saturated(self):
        """Leave the flat tops of sources out of the valid pixels, with those beside them."""
        gaussian = np.pi * self.psf.fwhm**2 * np.log(1 / _FLAT) / (4 * np.log(2))
        number = max(_FLAT_PIXELS, 3 * gaussian)
        flat = np.zeros(self.valid.shape, dtype=bool)
        for i in np.flatnonzero(self.placed):
            x, y = self.start[i]
            around = disc(x, y, 4 * self.psf.fwhm, self.image.shape)
            core = disc(x, y, self.psf.fwhm, self.image.shape)
            if around is None or core is None:
                continue
            values = self.residual[around.window][around.pixels & self.valid[around.window]]
            if not len(values):
                continue
            level = np.median(values)
            height = self.residual[core.window] - level
            seen = core.pixels & self.valid[core.window]
            peak = height.max(initial=0, where=seen)
            scatter = np.median(np.abs(values - level))
            top = seen & (height > _FLAT * peak)
            if top.sum() > number and peak > _FLAT_CONTRAST * scatter:
                self.saturated[i] = True
                flat[core.window] |= top
        self.valid &= ~ndimage.binary_dilation(flat, np.ones((3, 3)))


def _blends(positions, distance):
    """Find pairs of sources closer than a limit, and the sources that are connected by them."""
    placed = np.flatnonzero(np.isfinite(positions).all(axis=1))
    if len(placed) < 2:
        return [], []
    pairs = KDTree(positions[placed]).query_pairs(distance, output_type='ndarray').T
    graph = coo_array((np.ones(pairs.shape[1]), tuple(pairs)), shape=(len(placed),) * 2)
    labels = csgraph.connected_components(graph, directed=False)[1]
    groups = [placed[labels == k] for k in np.flatnonzero(np.bincount(labels) > 1)]
    return [tuple(pair) for pair in placed[pairs.T].tolist()], groups


def add_source(
    array: np.ndarray, image: PixelPSF, flux: float, x: float, y: float, log_width: float
) -> None:
    """Add a source to a map, in place.

    Parameters
    ----------
    array : (ny, nx) `~numpy.ndarray` of float
        The map.
    image : `~csr_astro.fitting.psf.PixelPSF`
        Image of the source, of unit flux.
    flux, x, y, log_width : float
        Flux, position in pixels, and logarithm of the width over that of the image.
    """
    width = np.exp(log_width)
    reach = int(np.ceil(image.radius * width)) + 1
    ny, nx = array.shape
    x0, y0 = int(np.rint(x)), int(np.rint(y))
    rows = np.arange(max(y0 - reach, 0), min(y0 + reach + 1, ny))
    columns = np.arange(max(x0 - reach, 0), min(x0 + reach + 1, nx))
    if len(rows) and len(columns):
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        values = image.evaluate((columns - x) / width, (rows - y) / width)
        array[window] += flux / width**2 * values
