"""Maps without sources by subtraction of their fits, in place of inpainting."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
from astropy import units as u

from csr_astro.fitting.gaussian import moments, shape_derivatives
from csr_astro.flags import BITS, NOT_MEASURED
from csr_astro.photometry.psf_columns import source_window

if TYPE_CHECKING:
    from astropy.table import QTable

    from csr_astro.background import NeuralBackground
    from csr_astro.fitting import PixelPSF, SourceFits
    from csr_astro.photometry.psf import InpaintedPSFPhotometry
    from csr_astro.typing import QuantityLike

__all__ = ['SourceSubtraction', 'subtract_sources']


# A fit with one of these flags is not that of the source: it is inpainted.
_UNLIKE = NOT_MEASURED | BITS['poor_fit'] | BITS['exceeds_mask']
# Columns of the fit that the table of the sources gets.
_COLUMNS = (
    'x_fit', 'y_fit', 'flux', 'flux_err', 'reduced_chi2', 'fwhm_major', 'fwhm_minor', 'angle',
    'position_angle',
)  # fmt: skip


@dataclass(eq=False)
class SourceSubtraction:
    """A map less the models of its sources.

    Sources whose fit is good are subtracted, wings and all: their pixels keep the noise and the
    structure of the map. Others are inpainted, as in `~csr_astro.NeuralBackground`; so are pixels
    of a mask that no fit has used, because they are invalid or saturated. Made by
    `subtract_sources`.

    Attributes
    ----------
    result : `~csr_astro.NeuralBackground`
        The removal with the predicted backgrounds.
    fits : `~csr_astro.fitting.SourceFits`
        The fits.
    psf : `~csr_astro.fitting.PixelPSF`
        Their PSF.
    subtracted : (N,) `~numpy.ndarray` of bool
        Sources that are subtracted; others are inpainted, or nothing was done.
    sources : `~astropy.table.QTable`
        Table of ``result``, with ``subtracted``, ``x_fit``, ``y_fit``, ``flux``, ``flux_err``
        and ``reduced_chi2``, the sizes of Gaussians, and the flags of the fit in addition.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import InpaintedPSFPhotometry, NeuralBackgroundEstimator
    >>> from csr_astro.photometry import subtract_sources
    >>> from csr_astro.simulation.inject import inject_sources
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> noise = np.random.default_rng(0).normal(size=(100, 100))
    >>> data = inject_sources(noise, [60.2], [50.1], [900.0], gaussian_profile(3.3))
    >>> estimator = NeuralBackgroundEstimator(fwhm=3.3)
    >>> subtraction = subtract_sources(
    ...     estimator.estimate(data, [(60, 50)]), InpaintedPSFPhotometry(estimator=estimator)
    ... )
    >>> subtraction
    <SourceSubtraction: 1 of 1 sources subtracted>

    The noise in the mask is that of the map, and not a prediction:

    >>> left = subtraction.background - noise
    >>> bool(np.abs(left).max() < 2 and left.std() < 0.1)
    True
    """

    result: NeuralBackground
    fits: SourceFits
    psf: PixelPSF
    subtracted: np.ndarray
    sources: QTable

    def __repr__(self) -> str:
        n = len(self.subtracted)
        return f'<SourceSubtraction: {self.subtracted.sum()} of {n} sources subtracted>'

    @cached_property
    def background(self) -> np.ndarray:
        """The map without sources, (ny, nx), in the unit of the data.

        Equal to the input map outside `mask`, but for the wings of subtracted sources.
        """
        return self.background_of(self.result.background)

    def background_of(self, inpainted: QuantityLike) -> np.ndarray:
        """Make a map without sources from another inpainted one, such as a realization.

        Parameters
        ----------
        inpainted : (ny, nx) array or Quantity
            As `~csr_astro.NeuralBackground.background`.

        Returns
        -------
        background : (ny, nx) `~numpy.ndarray` of float or Quantity
        """
        image = self.result.image
        background = np.array(image.data, dtype=image.dtype)
        for i in np.flatnonzero(self.subtracted):
            window, templates, _ = self._templates(i)
            background[window] -= self.fits.flux[i] * templates[0]
        filled = self.inpainted
        background[filled] = np.asarray(u.Quantity(inpainted).value)[filled]
        return image.like_input(background)

    @cached_property
    def source_image(self) -> np.ndarray:
        """The map less `background`, (ny, nx): the fitted sources, with their wings."""
        image = self.result.image
        left = np.array(image.data, dtype=image.dtype) - u.Quantity(self.background).value
        return image.like_input(left)

    @cached_property
    def mask(self) -> np.ndarray:
        """True for the pixels of the masks of subtracted sources and those inpainted, (ny, nx)."""
        return self.inpainted | self._of_fits(own=True)

    @cached_property
    def inpainted(self) -> np.ndarray:
        """True for the pixels that hold the predicted background, (ny, nx)."""
        inpainted = self._of_fits(own=False)
        for done, mask in zip(self.subtracted, self.result.source_masks, strict=True):
            if not done and mask is not None:
                inpainted[mask.window] |= mask.pixels
        return inpainted & self.result.mask

    @cached_property
    def background_rms(self) -> np.ndarray:
        """1-sigma error of `background`, (ny, nx), without that of the map itself.

        In inpainted pixels that of the prediction, elsewhere that of the models: of flux,
        position, width and shape with their covariance, and of the PSF in each pixel. Zero where
        nothing was changed.
        """
        variance = np.zeros(self.result.image.shape)
        for i in np.flatnonzero(self.subtracted):
            window, templates, covariance = self._templates(i)
            templates[1:] *= self.fits.flux[i]
            known = np.einsum('kyx,kl,lyx->yx', templates, covariance, templates)
            profile = self.fits.profile_error * self.fits.flux[i] * templates[0]
            variance[window] += np.maximum(known, 0) + profile**2
        rms = np.sqrt(variance).astype(self.result.image.dtype)
        filled = self.inpainted
        rms[filled] = u.Quantity(self.result.background_rms).value[filled]
        return self.result.image.like_input(rms)

    def changed_pixels(self, *, errors: bool) -> tuple[np.ndarray, np.ndarray, tuple]:
        """Return the pixels that differ from the map or are in a mask.

        Parameters
        ----------
        errors : bool
            Whether to compute the errors.

        Returns
        -------
        pixels, kinds : (P,) `~numpy.ndarray` of int
            Flat indices of the pixels, sorted; 1 for those inpainted, 2 for those of the masks of
            subtracted sources, 0 for others, in wings.
        values : tuple of (P,) `~numpy.ndarray`
            `background` and, with ``errors``, `background_rms` as plain numbers.
        """
        pixels = np.flatnonzero(self.mask | (np.abs(u.Quantity(self.source_image).value) > 0))
        kinds = np.where(self.inpainted, 1, np.where(self.mask, 2, 0)).reshape(-1)[pixels]
        maps = [self.background, self.background_rms] if errors else [self.background]
        values = tuple(u.Quantity(each).value.reshape(-1)[pixels] for each in maps)
        return pixels, kinds.astype(np.uint8), values

    def _templates(self, i):
        """Window of a source; its image of unit flux and derivatives there; their covariance."""
        fits = self.fits
        extended = bool(fits.extended[i])
        psf = self.psf.convolved(moments(fits.shape[i])) if extended else self.psf
        window, dx, dy = source_window(fits, i, psf, self.result.image.shape)
        templates = psf.with_derivatives(dx, dy, width=fits.width[i])
        if extended:
            shape = shape_derivatives(psf, dx, dy, fits.shape[i])
            templates = np.concatenate([templates, shape])
        n = len(templates)
        return window, templates, fits.covariance[i, :n, :n]

    def _of_fits(self, *, own):
        """Pixels of the masks of subtracted sources; or only those that the fits did not use."""
        pixels = np.zeros(self.result.image.shape, dtype=bool)
        for i in np.flatnonzero(self.subtracted):
            mask = self.fits.masks[i]
            here = mask.pixels.copy()
            if not own:
                rows, columns, _ = self.fits.background[i]
                here[rows - mask.y0, columns - mask.x0] = False
            pixels[mask.window] |= here
        return pixels


def subtract_sources(
    result: NeuralBackground, photometry: InpaintedPSFPhotometry
) -> SourceSubtraction:
    """Fit the sources of a removal, and subtract those whose fit is good from the map.

    Parameters
    ----------
    result : `~csr_astro.NeuralBackground`
        The removal. Sources are inpainted as in it if they have the flag ``poor_fit`` or
        ``exceeds_mask``, or were not fitted.
    photometry : `~csr_astro.InpaintedPSFPhotometry`
        Fits the sources; its ``results`` and ``fits`` are those of this call.

    Returns
    -------
    subtraction : `SourceSubtraction`

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import InpaintedPSFPhotometry, NeuralBackgroundEstimator
    >>> from csr_astro.photometry import subtract_sources
    >>> noise = np.random.default_rng(0).normal(size=(100, 100))
    >>> estimator = NeuralBackgroundEstimator(fwhm=3.3)
    >>> result = estimator.estimate(noise, [(60, 50), (-99, 0)])
    >>> subtraction = subtract_sources(result, InpaintedPSFPhotometry(estimator=estimator))
    >>> print(subtraction.subtracted)
    [ True False]
    """
    table = photometry(result)
    fits, psf = cast('SourceFits', photometry.fits), cast('PixelPSF', photometry.pixel_psf)
    subtracted = np.isfinite(fits.flux) & (np.asarray(table['flags']) & _UNLIKE == 0)
    sources = result.sources.copy()
    new = {'subtracted': subtracted}
    new |= {name: table[name] for name in _COLUMNS if name in table.colnames}
    for name in new:
        taken = name
        while taken in sources.colnames:
            taken = f'catalog_{taken}'
        if taken != name:
            sources.rename_column(name, taken)
    for name, column in new.items():
        sources[name] = column
    sources['flags'] |= table['flags']
    sources.meta['subtracted'] = photometry.shape
    return SourceSubtraction(result, fits, psf, subtracted, sources)
