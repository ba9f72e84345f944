"""Find sources by the significance of fits on predicted backgrounds."""

from __future__ import annotations

import numbers
import warnings
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from photutils.detection import DAOStarFinder
from photutils.utils.exceptions import NoDetectionsWarning

from csr_astro.estimator import NeuralBackgroundEstimator
from csr_astro.fitting.fit import FitOptions, fit_sources
from csr_astro.fluxes import image_flux_scale
from csr_astro.images import parse_image
from csr_astro.masking import flag_masks
from csr_astro.photometry.candidates import search
from csr_astro.tables import versions
from csr_astro.utils.representation import html_table

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from csr_astro.typing import ImageLike, QuantityLike, WcsLike

__all__ = ['NeuralSourceFinder']


# Largest width of a source that can be asked for, in FWHM of the PSF.
_LARGEST = 4.0
# Fits may move a candidate by this part of the FWHM.
_BOUND = 0.5
# Standard deviation of the logarithm of widths of sources, over that of the largest.
_SPREAD = 0.5


class NeuralSourceFinder:
    """Find compact sources in a map, by the significance of their fits.

    Candidates are peaks of the map after a matched filter that knows the covariance of the
    background around. Those for which the map asks for a source, and not for a single pixel, a
    clump or a piece of a filament, are removed, and the search goes on in what is left. A
    generalised least-squares fit of all of them on the background that kriging predicts behind
    them decides.

    photutils accepts an instance as ``finder``.

    Parameters
    ----------
    estimator : `~csr_astro.NeuralBackgroundEstimator`
        Tells the PSF.
    threshold : float, optional
        Smallest flux of a source, in its standard errors.
    max_size : float, optional
        FWHM of the widest sources, over that of the PSF, from 1 to 4. By default
        only point sources are found; what is much wider is background.
    max_rounds : int, optional
        How often sources are looked for in what the ones found before leave of the map.

    Raises
    ------
    TypeError
        If the estimator is of another class.
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator, NeuralSourceFinder
    >>> yy, xx = np.indices((120, 120))
    >>> noise = np.random.default_rng(0).normal(0, 0.2, (120, 120))
    >>> star = np.exp(-0.5 * ((xx - 60) ** 2 + (yy - 50) ** 2) / 2.0)
    >>> finder = NeuralSourceFinder(NeuralBackgroundEstimator(fwhm=3.3), threshold=5)
    >>> table = finder(3 + 0.01 * xx + noise + 2 * star)
    >>> print(len(table), 20 < table['flux'][0] < 30)
    1 True
    """

    def __init__(
        self,
        estimator: NeuralBackgroundEstimator,
        threshold: float = 5.0,
        *,
        max_size: float = 1.0,
        max_rounds: int = 4,
    ) -> None:
        if not isinstance(estimator, NeuralBackgroundEstimator):
            raise TypeError(
                f'estimator must be a NeuralBackgroundEstimator, got {type(estimator).__name__}.'
            )
        self.estimator = estimator
        self.threshold = _number(threshold, 'threshold', 'a positive number', lambda v: v > 0)
        self.max_size = _number(
            max_size, 'max_size', f'from 1 to {_LARGEST:g}', lambda v: 1 <= v <= _LARGEST
        )
        self.max_rounds = int(
            _number(max_rounds, 'max_rounds', 'a positive integer', lambda v: v >= 1 and v % 1 == 0)
        )

    def __repr__(self) -> str:
        return (
            f'<NeuralSourceFinder(estimator={self.estimator!r}, threshold={self.threshold:g}, '
            f'max_size={self.max_size:g}, max_rounds={self.max_rounds})>'
        )

    def _repr_html_(self) -> str:
        return html_table(
            'NeuralSourceFinder',
            {
                'threshold': self.threshold,
                'largest size in beams': self.max_size,
                'rounds': self.max_rounds,
                'estimator': self.estimator,
            },
        )

    def __call__(
        self,
        data: ImageLike,
        mask: ArrayLike | None = None,
        *,
        error: QuantityLike | None = None,
        wcs: WcsLike | None = None,
    ) -> QTable | None:
        """Find the sources of a map.

        Parameters
        ----------
        data : NDData, CCDData, image HDU, HDUList, Quantity or array
            The map, (ny, nx). It is not modified.
        mask : (ny, nx) array of bool, optional
            True for invalid pixels, in addition to those that are not finite.
        error : (ny, nx) array or Quantity, optional
            1-sigma error of the map.
        wcs : optional
            World coordinate system; replaces that of ``data``.

        Returns
        -------
        table : `~astropy.table.QTable` or None
            One row per source, the most significant first; None if there is none, as
            from photutils. ``id``; the position in pixels, in columns that are called as
            in photutils' finders of the installed version; ``sky_centroid`` with a WCS;
            ``fwhm`` in pixels; ``peak``, the height above the background; ``flux`` and
            ``flux_err``, in the unit of the map's sum; ``snr``, their ratio, or the significance
            in the filtered map where that is smaller, for point sources over the root of
            ``reduced_chi2`` where that is more than 1; ``local_bkg``; ``reduced_chi2``, the
            goodness of fit; and ``flags``.

        Warns
        -----
        NoDetectionsWarning
            If no source is found.
        """
        table = self.table(data, mask, error=error, wcs=wcs)
        if not len(table):
            warnings.warn('No sources were found.', NoDetectionsWarning, stacklevel=2)
            return None
        return table

    def find_stars(self, data: ImageLike, mask: ArrayLike | None = None) -> QTable | None:
        """Find the sources of a map, under the name of photutils' finders.

        Parameters
        ----------
        data, mask
            As in a call.

        Returns
        -------
        table : `~astropy.table.QTable` or None
        """
        return self(data, mask)

    def table(
        self,
        data: ImageLike,
        mask: ArrayLike | None = None,
        *,
        error: QuantityLike | None = None,
        wcs: WcsLike | None = None,
    ) -> QTable:
        """Find the sources of a map; the table is empty if there is none.

        Parameters
        ----------
        data, mask, error, wcs
            As in a call.

        Returns
        -------
        table : `~astropy.table.QTable`
            As from a call.
        """
        image = parse_image(data, mask=mask, error=error, wcs=wcs)
        estimator = self.estimator.for_image(image)
        psf = estimator.pixel_psf(image.pixel_scale)
        valid = image.valid((slice(None), slice(None)))
        if estimator.instrument.zero_is_blank:
            valid &= image.data != 0
        values = np.where(valid, image.data, 0.0).astype(float)
        candidates = search(
            values, valid, psf, self.threshold, max_size=self.max_size, max_rounds=self.max_rounds
        )
        x, y, flux, width = (
            np.array([getattr(each, name) for each in candidates], dtype=float)
            for name in ('x', 'y', 'flux', 'width')
        )
        options = FitOptions(xy_bounds=(_BOUND * psf.fwhm, _BOUND * psf.fwhm))
        if self.max_size > 1:
            # Stretched PSFs are enough to tell whether it is a source.
            options = replace(
                options, width_scatter=_SPREAD * np.log(self.max_size),
                mask_radius=options.mask_radius * (1 + self.max_size) / 2,
            )  # fmt: skip
        fits = fit_sources(image, x, y, psf, flux=flux, options=options)
        with np.errstate(divide='ignore', invalid='ignore'):
            snr = fits.flux / fits.flux_err
        # Errors of the fit vary with the few pixels around; a source must stand out in both.
        snr = np.fmin(snr, [each.significance for each in candidates])
        if self.max_size == 1:
            # Clumps and ends of filaments are unlike the PSF. Resolved sources are, too.
            snr /= np.sqrt(np.maximum(fits.chi2 / np.maximum(fits.dof, 1), 1))
        snr[~np.isfinite(fits.flux)] = np.nan
        kept = np.flatnonzero(snr >= self.threshold)
        kept = kept[np.argsort(-snr[kept], kind='stable')]
        return self._table(image, psf, fits, snr, width, kept)

    def _table(self, image, psf, fits, snr, width, kept):
        table = QTable()
        x, y = fits.x[kept], fits.y[kept]
        x_name, y_name = _position_names()
        table['id'] = np.arange(len(kept)) + 1
        table[x_name], table[y_name] = x, y
        if image.wcs is not None:
            table['sky_centroid'] = (
                image.wcs.pixel_to_world(x, y) if len(x) else SkyCoord([], [], unit='deg')
            )
        width = np.where(self.max_size > 1, fits.width, width)[kept]
        table['fwhm'] = psf.fwhm * width
        flux, flux_err = fits.flux[kept], fits.flux_err[kept]
        peak = flux * float(psf.evaluate(np.zeros(1), np.zeros(1))[0, 0]) / width**2
        table['peak'] = image.with_unit(peak)
        estimator = self.estimator.for_image(image)
        scale = image_flux_scale(image, estimator.instrument.on_pixels(image.pixel_scale))
        table['flux'], table['flux_err'] = scale.of(flux), scale.of(flux_err)
        table['snr'] = snr[kept]
        table['local_bkg'] = image.with_unit(fits.local_bkg[kept])
        table['reduced_chi2'] = fits.chi2[kept] / np.maximum(fits.dof[kept], 1)
        table['flags'] = flag_masks(image, [fits.masks[i] for i in kept])
        provenance = estimator.provenance
        table.meta.update(versions() | {name: provenance[name] for name in ('instrument', 'fwhm')})
        table.meta['threshold'] = self.threshold
        table.meta['max_size'] = self.max_size
        return table


def _number(value, name, wanted, is_good):
    """A finite number in some range, or an error."""
    good = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not good or not np.isfinite(value) or not is_good(value):
        raise ValueError(f'{name} must be {wanted}, got {value!r}.')
    return float(value)


@cache
def _position_names():
    """What the installed photutils calls the position of a star."""
    steps = np.arange(-7, 8)
    star = np.exp(-0.5 * (steps**2 + steps[:, np.newaxis] ** 2) / 2.0)
    names = DAOStarFinder(0.1, 3.3)(star).colnames
    return tuple(
        next(name for name in names if name in (f'{axis}_centroid', f'{axis}centroid'))
        for axis in 'xy'
    )
