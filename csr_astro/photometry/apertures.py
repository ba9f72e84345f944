"""Aperture photometry on predicted backgrounds."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from photutils.aperture import (
    Aperture,
    CircularAnnulus,
    CircularAperture,
    PixelAperture,
    SkyAperture,
    aperture_photometry,
)

from csr_astro.flags import BITS, NOT_INPAINTED
from csr_astro.fluxes import measured_scale, parse_beam, parse_flux_unit, warn_of_removed
from csr_astro.images import parse_image
from csr_astro.photometry.common import is_result, require_estimator
from csr_astro.photometry.rows import Rows
from csr_astro.photometry.shapes import (
    PerSource,
    aperture_box,
    at_same_place,
    exceeds_mask,
    parse_annulus,
    parse_apertures,
    place_aperture,
    radius_in_pixels,
    region_aperture,
)
from csr_astro.tables import add_columns
from csr_astro.uncertainty import aperture_weights
from csr_astro.utils.representation import html_table
from csr_astro.utils.rows import distinct_rows
from csr_astro.utils.warnings import one_at_a_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from csr_astro.background import NeuralBackground
    from csr_astro.estimator import NeuralBackgroundEstimator
    from csr_astro.typing import AperturesLike, ImageLike, QuantityLike, SourcesLike, WcsLike

__all__ = ['InpaintedAperturePhotometry']

# Smallest enclosed-energy fraction that is accepted as an aperture correction.
_SMALLEST_FRACTION = 1e-9
_METHODS = ('exact', 'center', 'subpixel')
# Position off the map for sources that are not measured.
_NOWHERE = -1e6


class InpaintedAperturePhotometry:
    """Aperture photometry on backgrounds predicted by a network.

    Parameters
    ----------
    apertures : float, Quantity, aperture, region, or a sequence of them
        Radii in pixels or as an angle, or shapes that are moved to each source.
        Columns are numbered for a sequence, not for one aperture, as in
        `~photutils.aperture.aperture_photometry`. With ``'regions'`` each source is
        measured in its own region.
    estimator : `~csr_astro.NeuralBackgroundEstimator`
        Estimator of the background.
    method : {'exact', 'center', 'subpixel'}, optional
        Weighting of pixels on the rim of an aperture, as in photutils.
    aperture_correction : str, float, sequence of float or None, optional
        Enclosed-energy fraction of a point source by which fluxes are divided: ``'eef'`` or
        ``'vesta'`` for the instrument's tables of real sources and of injected PSFs,
        ``'gaussian'`` for a Gaussian of the beam's FWHM, ``'psf'`` for the PSF of the
        estimator, a number for all or one for each aperture, or ``'none'``. By default
        ``'eef'`` if the instrument has a table, else ``'psf'`` if the estimator was given one,
        else ``'gaussian'``, which knows no wings. All are for circular apertures: other shapes
        need a number or ``'none'`` with a table, and are not corrected by default without.
    annulus : (float, float), Quantity or 'instrument', optional
        Inner and outer radius of a classical background annulus (pixels or angle),
        or ``'instrument'`` for the instrument's own; adds the column
        ``annulus_flux`` for comparison.
    beam : Quantity or radio_beam.Beam, optional
        Beam of a map per beam: FWHM as an angle, major and minor axis, or solid angle. By
        default ``BMAJ`` and ``BMIN`` of the header, else the instrument's.
    flux_unit : str or `~astropy.units.UnitBase`, optional
        Unit of the fluxes; by default that of the sums of a map per pixel, such as mJy for
        mJy/pixel, and Jy for other maps, or plain sums with a warning where they cannot be
        converted; ``'map'`` for plain sums.
    per_source : bool, optional
        Whether the apertures are one for each source, in their order, and not all for
        each source.

    Raises
    ------
    TypeError
        If the estimator is of another class, or an aperture is not a radius or shape.
    ValueError
        If a value is out of range or, when measuring, if an aperture is not in the
        enclosed-energy table.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator
    >>> yy, xx = np.indices((120, 120))
    >>> star = np.exp(-0.5 * ((xx - 60) ** 2 + (yy - 50) ** 2) / 2.0) * 1000 / (4 * np.pi)
    >>> phot = InpaintedAperturePhotometry(6.0, estimator=NeuralBackgroundEstimator(fwhm=3.3))
    >>> table = phot(3 + 0.01 * xx + star, [(60, 50)])
    >>> bool(abs(table['flux'][0] - 1000) < 5)
    True
    """

    def __init__(
        self,
        apertures: AperturesLike,
        *,
        estimator: NeuralBackgroundEstimator,
        method: Literal['exact', 'center', 'subpixel'] = 'exact',
        aperture_correction: str | float | Sequence[float | None] | None = None,
        annulus: tuple[float, float] | u.Quantity | Literal['instrument'] | None = None,
        beam: u.Quantity | None = None,
        flux_unit: str | u.UnitBase | None = None,
        per_source: bool = False,
    ) -> None:
        if method not in _METHODS:
            raise ValueError(f'method must be one of {_METHODS}, got {method!r}.')
        self.estimator = require_estimator(estimator)
        self.method = method
        self.per_source = per_source or (isinstance(apertures, str) and apertures == 'regions')
        if isinstance(apertures, str) and self.per_source:
            self.apertures: list = [apertures]
            self._single = True
        else:
            self.apertures, self._single = parse_apertures(apertures)
        if per_source:
            self.apertures, self._single = [self.apertures], True
        self.aperture_correction = _parse_correction(aperture_correction, len(self.apertures))
        self.annulus = parse_annulus(annulus)
        self.beam = None if beam is None else parse_beam(beam)
        self.flux_unit = parse_flux_unit(flux_unit)

    def __repr__(self) -> str:
        return (
            f'<InpaintedAperturePhotometry(apertures={self.apertures}, '
            f'estimator={self.estimator!r}, method={self.method!r}, '
            f'aperture_correction={self.aperture_correction!r}, annulus={self.annulus!r}, '
            f'per_source={self.per_source})>'
        )

    def _repr_html_(self) -> str:
        correction = self.aperture_correction
        if correction is None:
            correction = 'of the instrument, the PSF or a Gaussian'
        return html_table(
            'InpaintedAperturePhotometry',
            {
                'apertures': ', '.join(str(each) for each in self.apertures),
                'method': self.method,
                'aperture correction': correction,
                'annulus': self.annulus,
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
        """Remove the sources of a map and measure them.

        Parameters
        ----------
        data : path-like, NDData, CCDData, HDU, HDUList, Quantity, array, NeuralBackground
            The map, or a result that the estimator made from it.
        sources : path-like, SkyCoord, regions, table or (N, 2) array, optional
            The sources, as in `NeuralBackgroundEstimator.estimate`; by default
            the positions of the first aperture, if it has any.
        mask, error, wcs, mask_radius, columns, keep, hdu, plane : optional
            As in `NeuralBackgroundEstimator.estimate`.

        Returns
        -------
        table : `~astropy.table.QTable`
            One row per source, in the order given. Columns are those of
            `~photutils.aperture.aperture_photometry` of the installed version:
            ``id``, positions, ``aperture_sum`` of the map and
            ``aperture_sum_err``, which includes the error of the background;
            and ``background_sum``, ``flux`` (their difference over the
            enclosed-energy fraction), ``flux_err``, ``annulus_flux`` on request,
            ``snr`` (peak contrast, not flux over error), ``mask_name``, ``mask_radius`` and
            ``flags``. Sums are in the unit of the map; fluxes in ``flux_unit``, or its default.

            NaN, masked and off-map pixels are left out of ``background_sum`` and
            ``flux`` (flag ``aperture_invalid``, which is also set where an aperture contains
            pixels that an earlier removal filled); ``aperture_sum`` is that of
            photutils. All are NaN, errors too, if no pixel of the aperture is valid. If an
            aperture extends beyond the mask (flag ``aperture_exceeds_mask``), ``flux`` is that
            inside the mask, over the enclosed-energy fraction at the radius of the mask.
        """
        if is_result(data, sources, mask, error, wcs, mask_radius, columns, hdu, plane):
            return self._measure(cast('NeuralBackground', data))
        image = parse_image(data, mask=mask, error=error, wcs=wcs, hdu=hdu, plane=plane)
        if sources is None:
            sources = self._positions()
        return self._measure(self.estimator.estimate(
            image, sources, mask_radius=mask_radius, columns=columns, keep=keep
        ))

    def _positions(self):
        first, *others = self.apertures
        if self.per_source and isinstance(first, list):
            return _own_positions(first)
        if not isinstance(first, Aperture):
            raise TypeError('sources are needed: apertures given as radii have no positions.')
        if not all(at_same_place(first, other) for other in others):
            raise ValueError(
                'apertures must all have the same positions, as all are measured at each source; '
                'for others give sources=.'
            )
        if isinstance(first, SkyAperture):
            return first.positions
        return np.atleast_2d(first.positions)

    # ------------------------------------------------------------------------------- measuring

    def _measure(self, result):
        result.require_unchanged()
        sources = result.sources
        if self.per_source or not len(sources):
            table = self._measure_rows(result)
        else:
            # Sources that are given more than once, or not measured, are one row here.
            unmeasured = (sources['flags'] & NOT_INPAINTED) > 0
            facts = [np.where(unmeasured, 0, sources[name]) for name in ('x_center', 'y_center')]
            kept, inverse = distinct_rows([*facts, np.where(unmeasured, -1, result.first)])
            # One after the other, sources with the same prediction share its kriging.
            order = np.argsort(result.first[kept], kind='stable')
            kept, inverse = kept[order], np.argsort(order)[inverse]
            table = self._measure_rows(Rows(result, kept))[inverse]
            for name, given in zip(
                ('id', *table.colnames[1:3], 'sky_center', 'snr', 'mask_name', 'mask_radius'),
                ('id', 'x_center', 'y_center', 'sky_center', 'snr', 'mask_name', 'mask_radius'),
                strict=True,
            ):
                if given in sources.colnames:
                    unit = getattr(table[name], 'unit', None)
                    table[name] = sources[given] if unit is None else sources[given] * unit
            table['flags'] = np.where(unmeasured, sources['flags'], table['flags'])
        add_columns(table, None if result.catalog is None else result.catalog.table)
        return table

    def _measure_rows(self, result):
        image, sources = result.image, result.sources
        unmeasured = (sources['flags'] & NOT_INPAINTED) > 0
        removed = (sources['flags'] & BITS['already_removed']) > 0
        warn_of_removed(removed)
        x = np.where(unmeasured, _NOWHERE, sources['x_center'])
        y = np.where(unmeasured, _NOWHERE, sources['y_center'])
        instrument = result.instrument
        scale = image.pixel_scale or instrument.pixel_scale
        where = {'wcs': image.wcs, 'scale': scale, 'shape': image.shape}
        apertures = self.apertures
        if self.per_source:
            apertures = [_one_each(apertures[0], result)]
        shapes = [place_aperture(each, x, y, **where) for each in apertures]
        fractions = self._fractions(shapes, sources['mask_radius'], result)
        table = self._table(image, shapes, len(x))
        table['id'] = sources['id']
        # photutils refuses positions that are not finite; the table keeps them.
        for name, position in zip(table.colnames[1:3], ('x_center', 'y_center'), strict=True):
            table[name].view(np.ndarray)[unmeasured] = sources[position][unmeasured]
        if 'sky_center' in sources.colnames:
            # photutils 2 adds the column only for apertures on the sky.
            table['sky_center'] = sources['sky_center']
            names = [name for name in table.colnames if name != 'sky_center']
            table = table[[*names[:3], 'sky_center', *names[3:]]]
        sums = [_sums(result, shape, self.method, len(x)) for shape in shapes]
        errors, flags = self._errors(result, shapes, table)
        flags |= sources['flags']
        level = None
        if self.annulus is not None:
            level = self._annulus_level(image, x, y, instrument)
            # A classical background is subtracted in the whole aperture, regardless of the mask.
            wholes = self._fractions(shapes, np.full(len(x), np.inf), result)

        scale = measured_scale(image, instrument, self.beam, self.flux_unit)
        columns = {}
        for i, (shape, fraction, found) in enumerate(zip(shapes, fractions, sums, strict=True)):
            n = self._suffix(i)
            total, background, area, incomplete = found
            # A sum of no pixels is no measurement, although its error would be zero.
            errors[i][np.isnan(area)] = np.nan
            table[f'aperture_sum{n}'][np.isnan(area)] = np.nan
            flags[incomplete] |= BITS['aperture_invalid']
            flags[_exceeding(shape, result.source_masks)] |= BITS['aperture_exceeds_mask']
            flags[np.isnan(fraction)] |= BITS['no_correction']
            columns[f'background_sum{n}'] = image.with_unit(background)
            table[f'aperture_sum_err{n}'] = image.with_unit(errors[i])
            columns[f'flux{n}'] = scale.of((total - background) / fraction)
            columns[f'flux_err{n}'] = scale.of(errors[i] / fraction)
            if level is not None:
                annulus_flux = (total - level * area) / wholes[i]
                columns[f'annulus_flux{n}'] = scale.of(annulus_flux)
        for name, column in columns.items():
            table[name] = column
        for name in table.colnames:
            if name.startswith(('aperture_sum', 'background_sum', 'flux', 'annulus_flux')):
                table[name][unmeasured] = np.nan
            if 'flux' in name:
                table[name][removed] = np.nan
        for name in ('snr', 'mask_name', 'mask_radius'):
            table[name] = sources[name]
        table['flags'] = np.where(unmeasured, sources['flags'], flags)
        table.meta.update(sources.meta)
        table.meta['aperture_method'] = self.method
        table.meta['apertures'] = [_describe(aperture) for aperture in self.apertures]
        table.meta['per_source'] = self.per_source
        table.meta['aperture_correction'] = self._correction(result)
        table.meta['annulus'] = str(self.annulus)
        table.meta['flux_per_sum'] = scale.factor
        return table

    def _suffix(self, i):
        return '' if self._single else f'_{i}'

    def _table(self, image, shapes, n):
        """Return the table of photutils for the map, as a plain QTable."""
        given, places = shapes, [(0.0, 0.0)]
        if n:
            # Circles stand for shapes that photutils does not take in one call.
            places = [each for shape in shapes if isinstance(shape, PerSource)
                      for each in (a.positions for a in shape.apertures)][:n]  # fmt: skip
        # photutils refuses empty lists: take its columns from one position, without rows.
        shapes = [
            CircularAperture(places, 1.0) if not n or isinstance(shape, PerSource) else shape
            for shape in shapes
        ]
        with one_at_a_time:
            # Without units: a Quantity would copy a map of integers.
            found = aperture_photometry(
                np.asarray(image.data),
                shapes[0] if self._single else shapes,
                error=image.error,
                mask=image.mask,
                method=self.method,
                wcs=image.wcs,
            )
        table = QTable({name: found[name] for name in found.colnames}, meta=dict(found.meta))
        for k, shape in enumerate(given if n else ()):
            if isinstance(shape, PerSource):
                columns = [f'aperture_sum{self._suffix(k)}', f'aperture_sum_err{self._suffix(k)}']
                for name, values in zip(columns, self._sums_of_each(image, shape), strict=True):
                    if name in table.colnames:
                        table[name] = values
        for name in table.colnames:
            if name.startswith('aperture_sum'):
                table[name] = image.with_unit(np.asarray(table[name]))
        return table[:n]

    def _sums_of_each(self, image, shape):
        """Return the sums of the map and their errors in apertures of different shapes."""
        sums, errors = np.full((2, len(shape)), np.nan)
        for i, aperture in enumerate(shape.apertures):
            total, error = aperture.do_photometry(
                np.asarray(image.data), error=image.error, mask=image.mask, method=self.method
            )
            sums[i] = total[0]
            errors[i] = error[0] if len(error) else np.nan
        return sums, errors

    def _errors(self, result, shapes, table):
        """Compute the 1-sigma error of each aperture sum over the background, and flags."""
        image, n = result.image, len(table)
        flags = np.zeros(n, dtype=int)
        errors = np.full((len(shapes), n), np.nan)
        own = None
        if image.error is not None:
            # The error of photutils includes the noise of the map and of the source itself.
            names = [f'aperture_sum_err{self._suffix(k)}' for k in range(len(shapes))]
            own = np.array([u.Quantity(table[name]).value for name in names])

        def measure(i):
            """Errors of the sums at one source, and whether the given errors are all known."""
            source_mask, pixels = result.source_masks[i], None
            rows, columns = source_mask.on_map()
            # Predictions behind neighbours are correlated with that behind the source.
            box = aperture_box([shape[i] for shape in shapes], image.shape)
            near = result.errors.predicted_near(i, box)
            if not source_mask.holds(*near).all():
                rows, columns = pixels = near
            weights = image.valid((rows, columns)) * np.array([
                aperture_weights(shape[i], columns, rows, self.method) for shape in shapes
            ])
            if own is None:
                return result.errors.sum_error(i, weights, pixels=pixels), True
            known = np.isfinite(own[:, i])
            beside = result.errors.sum_error(i, weights, given=False, pixels=pixels)
            found = np.hypot(own[:, i], beside)
            if not known.all():
                found[~known] = result.errors.sum_error(i, weights, pixels=pixels)[~known]
            return found, known.all()

        measured = [i for i, mask in enumerate(result.source_masks) if mask is not None]
        for i, (found, known) in zip(
            measured, result.errors.spread(measure, measured), strict=True
        ):
            errors[:, i] = found
            flags[i] |= BITS['error_unknown'] * bool(not known)
        unknown = np.isnan(errors).any(axis=0)
        flags[unknown] |= BITS['error_unknown']
        return errors, flags

    def _annulus_level(self, image, x, y, instrument):
        """Compute the mean of the valid pixels with centres in the annulus around each source."""
        if isinstance(self.annulus, str):
            inner, outer = instrument.annulus
        else:
            scale = image.pixel_scale or instrument.pixel_scale
            inner, outer = (radius_in_pixels(radius, scale, 'annulus') for radius in self.annulus)
        level = np.full(len(x), np.nan)
        for i, position in enumerate(zip(x, y, strict=True)):
            ring = CircularAnnulus(position, inner, outer).to_mask(method='center')
            overlap, inside = ring.get_overlap_slices(image.shape)
            if overlap is None:
                continue
            pixels = image.valid(overlap) & (ring.data[inside] > 0)
            if pixels.any():
                level[i] = np.mean(image.data[overlap][pixels], dtype=float)
        return level

    def _correction(self, result):
        """Return the aperture correction: a table's name, 'psf', a list of fractions, or 'none'."""
        if self.aperture_correction is not None:
            return self.aperture_correction
        default = result.instrument.default_correction
        given = getattr(result.estimator, 'psf', None) is not None
        return 'psf' if given and default == 'gaussian' else default

    def _fractions(self, shapes, mask_radius, result):
        """Return a list of the enclosed-energy fractions of all sources, for each aperture."""
        correction, instrument = self._correction(result), result.instrument
        n = len(mask_radius)
        if correction == 'none':
            return [np.ones(n) for _ in shapes]
        if isinstance(correction, list):
            return [np.full(n, fraction) for fraction in correction]
        if correction == 'psf':
            energy = result.estimator.pixel_psf(result.image.pixel_scale).enclosed_energy
        else:
            energy = partial(instrument.enclosed_energy, table=correction)
        fractions = []
        for shape in shapes:
            if not hasattr(shape, 'r'):
                if self.aperture_correction is None and correction != 'eef':
                    fractions.append(np.ones(n))
                    continue
                raise ValueError(
                    f'the enclosed energy in a {type(shape).__name__} is not known; give '
                    "aperture_correction= as a number, or 'none'."
                )
            if n:
                # The aperture must be in the table; a mask may be smaller than its smallest radius.
                energy(shape.r)
            radius = np.fmin(shape.r, mask_radius)
            outside = {'outside': 'nan'} if isinstance(energy, partial) else {}
            fractions.append(np.broadcast_to(energy(radius, **outside), n))
        return fractions


# ------------------------------------------------------------------------------------ arguments


def _parse_correction(correction, n):
    if correction is None or isinstance(correction, str):
        if correction not in (None, 'eef', 'vesta', 'gaussian', 'psf', 'none'):
            raise ValueError(
                "aperture_correction must be 'eef', 'vesta', 'gaussian', 'psf', 'none', or one or "
                f'more fractions, got {correction!r}.'
            )
        return correction
    try:
        fractions = np.broadcast_to(np.asarray(correction, dtype=float), n)
    except (TypeError, ValueError):
        raise ValueError(
            f'aperture_correction must be one fraction or one for each of the {n} apertures.'
        ) from None
    if not ((fractions >= _SMALLEST_FRACTION) & (fractions <= 1)).all():
        raise ValueError(
            'aperture_correction must hold fractions above 0 and up to 1, by which fluxes are '
            'divided.'
        )
    return [float(fraction) for fraction in fractions]


# ------------------------------------------------------------------------------------- geometry


def _exceeding(shape, source_masks):
    if not source_masks:
        return np.zeros(0, dtype=bool)
    drawn = zip(shape.to_mask(method='center'), source_masks, strict=True)
    return np.array([exceeds_mask(*each) for each in drawn])


def _own_positions(apertures):
    """Return the positions of apertures that are one for each source."""
    for kind in (SkyAperture, PixelAperture):
        if all(isinstance(each, kind) and each.isscalar for each in apertures):
            positions = [each.positions for each in apertures]
            return SkyCoord(positions) if kind is SkyAperture else np.array(positions)
    raise TypeError(
        'sources are needed: the apertures have not each one position, all in pixels or on the sky.'
    )


def _one_each(apertures, result):
    """Return the apertures, one for each source: those given, or the regions of the sources."""
    sources = result.sources
    if isinstance(apertures, str):
        regions = getattr(result.catalog, 'regions', None) or [None] * len(sources)
        for region, row in zip(regions, sources, strict=True):
            if region is None:
                raise ValueError(
                    f"apertures='regions' needs a region with an area for each source; that with "
                    f'id {row["id"]!s} has none.'
                )
        return [region_aperture(region) for region in regions]
    if len(apertures) != len(sources):
        raise ValueError(
            f'apertures must be one for each of the {len(sources)} sources, got {len(apertures)}.'
        )
    return apertures


def _describe(aperture):
    """Describe an aperture in one line; the text of some apertures has several."""
    if isinstance(aperture, list):
        return f'{len(aperture)}, one for each source'
    return repr(aperture) if isinstance(aperture, Aperture) else str(aperture)


def _sums(result, shape, method, n):
    """Sum the valid pixels in an aperture at n positions, and find incomplete apertures.

    Only windows of the map are read, because it may be larger than the memory.

    Returns
    -------
    total, background, area : (n,) `~numpy.ndarray` of float
        Sums of the map, of the source-free map, and of ones; NaN without any valid pixel.
    incomplete : (n,) `~numpy.ndarray` of bool
        True where a pixel of the aperture is NaN, masked or off the map, or none is in it.
    """
    image = result.image
    sums, incomplete = np.full((3, n), np.nan), np.ones(n, dtype=bool)
    for i, aperture in enumerate(shape.to_mask(method=method) if n else ()):
        overlap, inside = aperture.get_overlap_slices(image.shape)
        if overlap is None:
            continue
        valid = image.valid(overlap)
        within = aperture.data > 0
        seen = np.zeros(within.shape, dtype=bool)
        seen[inside] = valid if image.inpainted is None else valid & ~image.inpainted[overlap]
        incomplete[i] = not seen[within].all()
        within, weights = within[inside], aperture.data[inside]
        for k, values in enumerate((image.data[overlap], result.background_in(overlap), 1.0)):
            with np.errstate(over='ignore'):
                sums[k, i] = (np.where(valid, values, 0.0) * weights)[within].sum()
        if not sums[2, i] > 0:
            sums[:, i], incomplete[i] = np.nan, True
    return *sums, incomplete
