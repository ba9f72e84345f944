"""Photometry by fits of the PSF, or of Gaussians convolved with it, on predicted backgrounds."""

from __future__ import annotations

import numbers
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from astropy.modeling import Model
from astropy.nddata import NDData
from astropy.table import QTable

from csr_astro.fitting import FitOptions, PixelPSF, fit_sources, pixel_psf
from csr_astro.flags import BITS
from csr_astro.fluxes import measured_scale, parse_beam, parse_flux_unit, warn_of_removed
from csr_astro.images import parse_image
from csr_astro.masking import flag_masks, region_mask
from csr_astro.photometry.common import is_result, require_estimator
from csr_astro.photometry.psf_columns import (
    ellipse_columns,
    fit_columns,
    model_image,
    photutils_columns,
)
from csr_astro.tables import add_columns, versions
from csr_astro.utils.data import read_data
from csr_astro.utils.representation import html_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from astropy import units as u
    from numpy.typing import ArrayLike

    from csr_astro.background import NeuralBackground
    from csr_astro.estimator import NeuralBackgroundEstimator
    from csr_astro.fitting import SourceFits
    from csr_astro.images import Image
    from csr_astro.instruments import Instrument
    from csr_astro.typing import ImageLike, PsfLike, QuantityLike, SourcesLike, WcsLike

__all__ = ['InpaintedPSFPhotometry']

# Reduced χ² above which a fit is poor: that of γ Dra, a good fit at an SNR of 4000, is 4.
_POOR_FIT = 8.0
# The same for the width, over the error that the width of the PSF may have.
_POOR_WIDTH = 3.0
# Residual at the rim of the mask, in its standard deviations, that is more than chance.
_RIM = 3.0
# Distance in pixels from a bound within which a position is at the bound, as in photutils.
_AT_BOUND = 0.01
# Flags of the plan that hold for a fit, too.
_FLAGS_OF_PLAN = ('invalid_position', 'mask_too_large', 'centroid_failed', 'already_removed')


class InpaintedPSFPhotometry:
    """Photometry by fits of the PSF on predicted backgrounds.

    Flux and position follow from generalised least squares with the covariance of the
    predicted background, in place of photutils' fit on a subtracted one. The background is
    that of `~csr_astro.kriging`, whose covariance is known; the network is not run. Sources
    whose masks touch are fitted together.

    Parameters
    ----------
    psf_model : photutils or astropy model, path-like, image HDU, array, or PixelPSF, optional
        The PSF, as in `~csr_astro.simulation.psf.psf_profile`; by default that of the
        estimator. As in photutils, positions are not fitted if ``x_0`` and ``y_0`` of the
        model are ``fixed``.
    estimator : `~csr_astro.NeuralBackgroundEstimator`
        Sets the instrument, its PSF and how positions are refined.
    shape : {'point', 'gaussian'}, optional
        ``'gaussian'`` fits elliptical Gaussians convolved with the PSF to those sources that
        are resolved, and enlarges their masks until nothing is left at the rim.
    xy_bounds : float or (float or None, float or None), optional
        Largest distance from the initial position in pixels, as in photutils.
    fit_shape : int or (int, int), optional
        Odd numbers of pixels (ny, nx) that are fitted, as in photutils, for ``'point'``; by
        default a disc of 1.25 FWHM.
    position_error : float, optional
        Standard deviation of the initial positions, in FWHM of the PSF; 0 keeps them fixed.
    width_error : float, optional
        Relative standard deviation of the width of the PSF; 0 if it is known.
    profile_error : float, optional
        Relative standard deviation of the PSF in each pixel; 0 if it is known.
    aperture_correction : {'eef', 'vesta', 'none'} or float, optional
        Fraction of the energy of a source that the PSF holds, by which fluxes are divided:
        ``'eef'`` for real sources, whose wings extend beyond the models of PACS (60 arcsec) and
        SPIRE; ``'vesta'`` for injected PSFs; a number, or ``'none'``. By default ``'eef'`` if
        the instrument has a table, else ``'none'``.
    beam : Quantity or radio_beam.Beam, optional
        Beam of a map per beam: FWHM as an angle, major and minor axis, or solid angle. By
        default ``BMAJ`` and ``BMIN`` of the header, else the instrument's.
    flux_unit : str or `~astropy.units.UnitBase`, optional
        Unit of the fluxes; by default that of the sums of a map per pixel, such as mJy for
        mJy/pixel, and Jy for other maps, or plain sums with a warning where they cannot be
        converted; ``'map'`` for plain sums.

    Attributes
    ----------
    results : `~astropy.table.QTable` or None
        Table of the last call.
    fits : `~csr_astro.fitting.SourceFits` or None
        All that the last fit found, in pixels and in the unit of the map.
    pixel_psf : `~csr_astro.fitting.PixelPSF` or None
        The PSF of the last fit.

    Raises
    ------
    TypeError
        If the estimator is of another class.
    ValueError
        If a value is out of range, or the model has free parameters that are not fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import InpaintedPSFPhotometry, NeuralBackgroundEstimator
    >>> from photutils.psf import CircularGaussianPRF
    >>> yy, xx = np.indices((120, 120))
    >>> model = CircularGaussianPRF(flux=1000, x_0=60.2, y_0=50.1, fwhm=3.3)
    >>> noise = np.random.default_rng(0).normal(0, 0.1, (120, 120))
    >>> phot = InpaintedPSFPhotometry(model, estimator=NeuralBackgroundEstimator(fwhm=3.3))
    >>> table = phot(3 + 0.01 * xx + model(xx, yy) + noise, [(60, 50)])
    >>> bool(abs(table['flux'][0] - 1000) < 3 * table['flux_err'][0])
    True
    >>> print(table['x_fit'].round(1), table['y_fit'].round(1))
    [60.2] [50.1]
    """

    def __init__(
        self,
        psf_model: PsfLike | PixelPSF | None = None,
        *,
        estimator: NeuralBackgroundEstimator,
        shape: Literal['point', 'gaussian'] = 'point',
        xy_bounds: float | tuple[float | None, float | None] | None = None,
        fit_shape: int | tuple[int, int] | None = None,
        position_error: float = FitOptions.position_error,
        width_error: float = FitOptions.width_error,
        profile_error: float = FitOptions.profile_error,
        aperture_correction: Literal['eef', 'vesta', 'none'] | float | None = None,
        beam: u.Quantity | None = None,
        flux_unit: str | u.UnitBase | None = None,
    ) -> None:
        if shape not in ('point', 'gaussian'):
            raise ValueError(f"shape must be 'point' or 'gaussian', got {shape!r}.")
        if fit_shape is not None and shape == 'gaussian':
            raise ValueError(
                "fit_shape is for shape='point'; masks of Gaussians grow, from mask_radius= on."
            )
        fixed = _fixed_positions(psf_model)
        bounds = _parse_bounds(xy_bounds)
        self.estimator = require_estimator(estimator)
        self.psf_model = psf_model
        self.shape = shape
        self.fit_shape = _parse_shape(fit_shape)
        self.xy_bounds = xy_bounds
        self.aperture_correction = _parse_correction(aperture_correction)
        self.beam = None if beam is None else parse_beam(beam)
        self.flux_unit = parse_flux_unit(flux_unit)
        self._fixed = np.array(fixed) | (_parse_error(position_error, 'position_error') == 0)
        self.options = FitOptions(
            shape=shape,
            position_error=0.0 if self._fixed.all() else float(position_error),
            xy_bounds=(0.0 if fixed[0] else bounds[0], 0.0 if fixed[1] else bounds[1]),
            width_error=_parse_error(width_error, 'width_error'),
            profile_error=_parse_error(profile_error, 'profile_error'),
        )
        self.results: QTable | None = None
        self.fits: SourceFits | None = None
        self._image: Image | None = None
        self.pixel_psf: PixelPSF | None = None

    def __repr__(self) -> str:
        return (
            f'<InpaintedPSFPhotometry(psf_model={self.psf_model!r}, estimator={self.estimator!r}, '
            f'shape={self.shape!r}, xy_bounds={self.xy_bounds!r}, '
            f'aperture_correction={self.aperture_correction!r})>'
        )

    def _repr_html_(self) -> str:
        correction = self.aperture_correction
        return html_table(
            'InpaintedPSFPhotometry',
            {
                'PSF': 'of the instrument' if self.psf_model is None else repr(self.psf_model),
                'shape': self.shape,
                'bounds of positions': self.xy_bounds,
                'aperture correction': "'eef' if known" if correction is None else correction,
                'estimator': self.estimator,
            },
        )

    def __call__(
        self,
        data: ImageLike | NeuralBackground,
        sources: SourcesLike | None = None,
        *,
        mask: ArrayLike | None = None,
        error: QuantityLike | None = None,
        wcs: WcsLike | None = None,
        mask_radius: QuantityLike | Literal['snr'] | None = None,
        columns: str | Sequence[str] | None = None,
        keep: bool = False,
        hdu: str | int | None = None,
        plane: int | Sequence[int] | None = None,
    ) -> QTable:
        """Fit the sources of a map.

        Parameters
        ----------
        data : NDData, CCDData, image HDU, HDUList, Quantity, array, NeuralBackground
            The map, or a result that the estimator made from it.
        sources : path-like, SkyCoord, regions, table or (N, 2) array
            Initial positions, as in `NeuralBackgroundEstimator.estimate`.
        mask, error, wcs, columns, keep, hdu, plane : optional
            As in `NeuralBackgroundEstimator.estimate`.
        mask_radius : float, Quantity, array or 'snr', optional
            Pixels that are fitted, as in `NeuralBackgroundEstimator.estimate`; by default
            regions with an area, and discs of 1.25 FWHM around others.

        Returns
        -------
        table : `~astropy.table.QTable`
            One row per source, in the order given. Columns are those of
            `~photutils.psf.PSFPhotometry` of the installed version: ``id``, ``group_id``,
            ``group_size``, ``local_bkg`` (predicted at the centre), ``x_init``, ``y_init``,
            ``flux_init`` (sum of the mask less its background), ``x_fit``, ``y_fit``,
            ``flux_fit``, their 1-sigma errors (NaN for fixed ones), the number of pixels,
            ``qfit``, ``cfit`` and ``reduced_chi2``. Fluxes are in the unit of a sum of pixels:
            Jy for Jy/pixel. They are followed by ``flux`` (equal to ``flux_fit``),
            ``sky_center``, ``snr`` (peak contrast), ``dof``, ``rim`` (residual at the rim of the
            mask, in its standard deviations), ``width`` (over that of the PSF) and
            ``width_err``, ``mask_name``, ``mask_radius`` and ``flags``, which are
            `~csr_astro.flags.FLAGS`, not those of photutils.

            ``shape='gaussian'`` adds ``extended``, and of the source before its convolution
            ``fwhm_major``, ``fwhm_minor`` (in arcsec with a WCS, else in pixels), ``angle``
            (from the x axis, counter-clockwise), ``position_angle`` (with a WCS; from north
            through east), and their errors; 0 for point sources.
        """
        if is_result(data, sources, mask, error, wcs, mask_radius, columns, hdu, plane):
            result = cast('NeuralBackground', data)
            image, rows = result.image, result.sources
            meta = dict(rows.meta)
            x, y = (np.asarray(rows[name], dtype=float) for name in ('x_center', 'y_center'))
            snr, names, flags = (np.asarray(rows[n]) for n in ('snr', 'mask_name', 'flags'))
            masks, catalog = result.source_masks, result.catalog
            by_snr = meta['mask_radius'] == 'snr'
        else:
            if sources is None:
                raise TypeError('sources are needed: positions, a table or regions.')
            image = parse_image(data, mask=mask, error=error, wcs=wcs, hdu=hdu, plane=plane)
            plan = self.estimator.plan(
                image,
                sources,
                mask_radius=mask_radius,
                columns=columns,
                keep=keep,
                wings=False,
            )
            catalog = plan.sources
            x, y, snr, names = plan.sources.x, plan.sources.y, plan.snr, plan.mask_names
            flags, masks = plan.flags, plan.masks
            by_snr = isinstance(mask_radius, str)
            asked = 'as drawn, else of the fit' if mask_radius is None else str(mask_radius)
            used = {'mask_radius': asked} | catalog.provenance | image.meta
            meta = versions() | self.estimator.for_image(image).provenance | used
        estimator = self.estimator.for_image(image)
        instrument = estimator.instrument.on_pixels(image.pixel_scale)
        scale = image.pixel_scale or instrument.pixel_scale
        psf = (
            estimator.pixel_psf(scale) if self.psf_model is None
            else pixel_psf(self.psf_model, scale)
        )
        given = np.isin(names, ('fixed', 'region')) | by_snr
        options, masks = self._masks(image, x, y, masks, given, names)
        fits = fit_sources(image, x, y, psf, masks=masks, options=options)
        self._image, self.pixel_psf, self.fits = image, psf, fits
        names = np.where(given, names, 'fit').astype('U16')
        kept = sum(BITS[name] for name in _FLAGS_OF_PLAN)
        self.results = self._table(instrument, (x, y), snr, names, np.asarray(flags) & kept)
        if catalog is not None and catalog.ids is not None:
            self.results['id'] = catalog.ids
        self.results.meta.update(meta | self._meta(instrument, options))
        add_columns(self.results, None if catalog is None else catalog.table)
        return self.results

    def _masks(self, image, x, y, masks, given, names):
        """Return the options and the masks of the fit, None for its own discs."""
        if self.fit_shape is not None:
            from regions import PixCoord, RectanglePixelRegion

            height, width = self.fit_shape
            boxes = [
                RectanglePixelRegion(PixCoord(column, row), width - 0.5, height - 0.5)
                if np.isfinite([column, row]).all()
                else None
                for column, row in zip(np.rint(x), np.rint(y), strict=True)
            ]
            return self.options, [
                None if box is None else region_mask(box, *position, image.shape)
                for box, *position in zip(boxes, x, y, strict=True)
            ]
        if not given.any():
            # Masks by SNR are larger at first: small ones would take what is outside a resolved
            # source's core for background.
            return self.options, masks if self.shape == 'gaussian' else None
        radii = {mask.radius for mask in masks if mask is not None}
        if self.shape == 'gaussian' and len(radii) == 1 and (names == 'fixed').all():
            # The first size of masks that grow.
            return replace(self.options, smallest_mask=radii.pop()), None
        return self.options, masks

    # ----------------------------------------------------------------------------------- the table

    def _table(self, instrument, start, snr, names, flags):
        fits, image = self.fits, self._image
        scale = measured_scale(image, instrument, self.beam, self.flux_unit)
        fraction = self._fraction(instrument)
        columns = fit_columns(fits, image, start)
        for name in ('flux_init', 'flux_fit', 'flux_err'):
            columns[name] = scale.of(columns[name] / fraction)
        columns['local_bkg'] = image.with_unit(columns['local_bkg'])
        for name, fixed in zip(('x_err', 'y_err'), self._fixed, strict=True):
            if fixed:
                columns[name] = np.full(len(flags), np.nan)
        table = QTable(
            {
                name: columns.get(plain, np.full(len(flags), np.nan))
                for name, plain in photutils_columns().items()
                if name != 'flags'
            }
        )
        if 'reduced_chi2' not in table.colnames:
            table['reduced_chi2'] = columns['reduced_chi2']
        table['flux'] = table['flux_fit']
        if image.wcs is not None:
            known = np.isfinite(fits.flux)
            x, y = (np.where(known, *pair) for pair in zip((fits.x, fits.y), start, strict=True))
            table['sky_center'] = image.wcs.pixel_to_world(x, y)
        table['snr'] = snr
        for name in ('dof', 'rim', 'width', 'width_err'):
            table[name] = getattr(fits, name)
        if self.shape == 'gaussian':
            for name, column in ellipse_columns(fits, image).items():
                table[name] = column
        table['mask_name'] = np.where([mask is None for mask in fits.masks], '', names)
        table['mask_radius'] = [np.nan if mask is None else mask.radius for mask in fits.masks]
        table['flags'] = flags | self._flags(columns['reduced_chi2'], start)
        removed = (table['flags'] & BITS['already_removed']) > 0
        warn_of_removed(removed)
        if removed.any():
            for name in table.colnames:
                if name.startswith('flux'):
                    table[name][removed] = np.nan
        return table

    def _flags(self, reduced_chi2, start):
        fits, image = self.fits, self._image
        nowhere = np.array([mask is None for mask in fits.masks], dtype=bool)
        placed = np.isfinite(start[0]) & np.isfinite(start[1])
        # Blends are solved together, and ``group_size`` counts them.
        flags = flag_masks(image, fits.masks) & ~(BITS['overlap'] | BITS['touching'])
        flags |= BITS['off_map'] * (nowhere & placed)
        flags |= BITS['not_fitted'] * (~nowhere & np.isnan(fits.flux))
        flags |= BITS['saturated'] * fits.saturated | BITS['blended'] * fits.ambiguous
        with np.errstate(invalid='ignore'):
            width_error = np.hypot(self.options.width_error, fits.width_err)
            flags |= BITS['poor_fit'] * (
                (reduced_chi2 > _POOR_FIT)
                | (np.abs(np.log(fits.width)) > _POOR_WIDTH * width_error)
            )
            flags |= BITS['exceeds_mask'] * (fits.rim > _RIM)
            for found, first, bound, fixed in zip(
                (fits.x, fits.y), start, self.options.xy_bounds, self._fixed, strict=True
            ):
                if not fixed:
                    flags |= BITS['at_bound'] * (np.abs(found - first) > bound - _AT_BOUND)
        return flags

    def _correction(self, instrument):
        if self.aperture_correction is None:
            return 'none' if instrument.corrections is None else 'eef'
        return self.aperture_correction

    def _fraction(self, instrument: Instrument) -> float:
        """Fraction of the energy of a source that the PSF holds."""
        correction = self._correction(instrument)
        if not isinstance(correction, str):
            return float(correction)
        if correction == 'eef' and instrument.psf_model is not None:
            model = read_data('psf_models.toml')[instrument.psf_model]
            return float(model['energy_within_edge'])
        return 1.0

    def _meta(self, instrument, options):
        return {
            'shape': options.shape,
            'fit_shape': str(self.fit_shape),
            'fit_radius': options.mask_radius,
            'xy_bounds': str(self.xy_bounds),
            'position_error': options.position_error,
            'width_error': options.width_error,
            'profile_error': options.profile_error,
            'background': 'kriging',
            **({} if self.psf_model is None else {'psf': type(self.psf_model).__name__}),
            'psf_fwhm': self.pixel_psf.fwhm,
            'psf_radius': self.pixel_psf.radius,
            'psf_profile_error': self.fits.profile_error,
            'aperture_correction': self._correction(instrument),
        }

    # ---------------------------------------------------------------------------------- the images

    def make_model_image(
        self,
        shape: tuple[int, int],
        *,
        psf_shape: int | tuple[int, int] | None = None,
        include_local_bkg: bool = False,
    ) -> np.ndarray:
        """Make an image of the fitted sources of the last call.

        Parameters
        ----------
        shape : (int, int)
            Shape of the image, (ny, nx).
        psf_shape : int or (int, int), optional
            Size of the box around each source that is drawn; by default all of the PSF.
        include_local_bkg : bool, optional
            Whether to add the predicted background in the pixels that were fitted.

        Returns
        -------
        image : (ny, nx) `~numpy.ndarray` of float
            In the unit of the map, as plain numbers; without the sources that were not fitted.

        Examples
        --------
        >>> import numpy as np
        >>> from csr_astro import InpaintedPSFPhotometry, NeuralBackgroundEstimator
        >>> noise = np.random.default_rng(0).normal(size=(60, 60))
        >>> phot = InpaintedPSFPhotometry(estimator=NeuralBackgroundEstimator(fwhm=3.3))
        >>> table = phot(noise, [(30, 25)])
        >>> image = phot.make_model_image(noise.shape)
        >>> bool(np.isclose(image.sum(), table['flux'][0]))
        True
        """
        fits = self._done()
        return model_image(
            fits,
            cast('PixelPSF', self.pixel_psf),
            shape,
            psf_shape=psf_shape,
            include_local_bkg=include_local_bkg,
        )

    def make_residual_image(
        self,
        data: ImageLike,
        *,
        psf_shape: int | tuple[int, int] | None = None,
        include_local_bkg: bool = False,
    ) -> Any:
        """Take the fitted sources of the last call off a map.

        Parameters
        ----------
        data : NDData, Quantity or array
            The map, (ny, nx). It is not modified.
        psf_shape, include_local_bkg : optional
            As in `make_model_image`.

        Returns
        -------
        residual : NDData, Quantity or array
            Of the kind of ``data``.

        Examples
        --------
        >>> import numpy as np
        >>> from csr_astro import InpaintedPSFPhotometry, NeuralBackgroundEstimator
        >>> noise = np.random.default_rng(0).normal(size=(60, 60))
        >>> phot = InpaintedPSFPhotometry(estimator=NeuralBackgroundEstimator(fwhm=3.3))
        >>> _ = phot(noise, [(30, 25)])
        >>> print(phot.make_residual_image(noise).shape)
        (60, 60)
        """
        self._done()
        image = parse_image(data)
        model = self.make_model_image(
            image.shape, psf_shape=psf_shape, include_local_bkg=include_local_bkg
        )
        residual = np.asarray(image.data, dtype=image.dtype) - model
        if isinstance(data, NDData):
            kept = type(data)(data, copy=True)
            kept.data[...] = residual
            return kept
        return image.like_input(residual)

    def _done(self) -> SourceFits:
        if self.fits is None:
            raise ValueError('no source was fitted yet; call the instance with a map first.')
        return self.fits


# ------------------------------------------------------------------------------------- arguments


def _fixed_positions(model):
    """Return whether x and y of a model are fixed; refuse what is not fitted."""
    if not isinstance(model, Model) or 'flux' not in model.param_names:
        return False, False
    if model.fixed['flux']:
        raise ValueError('the flux of psf_model must not be fixed; it is what is measured.')
    names = [getattr(model, f'{axis}_name', f'{axis}_0') for axis in 'xy']
    others = [
        name for name in model.param_names if name not in (*names, 'flux') and not model.fixed[name]
    ]
    if others:
        raise ValueError(
            f'the parameters {", ".join(others)} of psf_model must be fixed; the width of the PSF '
            'is fitted within width_error.'
        )
    return tuple(bool(model.fixed[name]) for name in names)


def _parse_bounds(bounds):
    """Return the bounds of x and y, infinite for None."""
    pair = bounds if isinstance(bounds, tuple | list | np.ndarray) else (bounds, bounds)
    if len(pair) == 1:
        pair = (pair[0], pair[0])
    try:
        pair = tuple(np.inf if bound is None else float(bound) for bound in pair)
        good = len(pair) == 2 and all(bound > 0 for bound in pair)
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(
            f'xy_bounds must be a positive number of pixels, or two for x and y, got {bounds!r}.'
        )
    return pair


def _parse_shape(shape):
    """Return the (ny, nx) pixels that are fitted, or None."""
    if shape is None:
        return None
    pair = tuple(np.atleast_1d(shape).tolist())
    pair = pair * 2 if len(pair) == 1 else pair
    if len(pair) != 2 or not all(
        isinstance(n, numbers.Integral) and n > 0 and n % 2 == 1 for n in pair
    ):
        raise ValueError(f'fit_shape must be one or two odd numbers of pixels, got {shape!r}.')
    return pair


def _parse_error(value, name):
    good = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (good and 0 <= value < np.inf):
        raise ValueError(f'{name} must be a number from 0 up, got {value!r}.')
    return float(value)


def _parse_correction(correction):
    good = correction is None or (
        correction in ('eef', 'vesta', 'none')
        if isinstance(correction, str)
        else isinstance(correction, numbers.Real) and 0 < correction <= 1
    )
    if not good:
        raise ValueError(
            "aperture_correction must be 'eef', 'vesta', 'none', or a fraction above 0 and up to "
            f'1, got {correction!r}.'
        )
    return correction
