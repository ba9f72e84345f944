"""Aperture photometry on predicted backgrounds."""

from __future__ import annotations

import copy
import numbers
from typing import TYPE_CHECKING, Literal

import numpy as np
from astropy import units as u
from astropy.table import QTable
from photutils.aperture import (
    Aperture,
    CircularAnnulus,
    CircularAperture,
    SkyAperture,
    aperture_photometry,
    region_to_aperture,
)
from regions import Region, Regions

from csr_astro.background import NeuralBackground
from csr_astro.estimator import NeuralBackgroundEstimator
from csr_astro.flags import BITS, NOT_INPAINTED
from csr_astro.fluxes import measured_scale, parse_beam, parse_flux_unit, warn_of_removed
from csr_astro.images import parse_image
from csr_astro.uncertainty import aperture_weights
from csr_astro.utils.representation import html_table
from csr_astro.utils.warnings import one_at_a_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from csr_astro.typing import AperturesLike, ImageLike, QuantityLike, SourcesLike, WcsLike

__all__ = ['InpaintedAperturePhotometry']

_ACCEPTED = 'radii (pixels or an angle), photutils apertures or regions, one or many'
# Smallest enclosed-energy fraction that is accepted as an aperture correction.
_SMALLEST_FRACTION = 1e-9
# Larger integers do not convert to floats.
_HUGE = 10**300
# Apertures and annuli with a larger radius in pixels are mistakes, and do not fit into memory.
_MAX_RADIUS = 2000.0
# Largest separation of sky apertures at the same position.
_SAME_PLACE = 1e-3 * u.arcsec
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
        `~photutils.aperture.aperture_photometry`.
    estimator : `~csr_astro.NeuralBackgroundEstimator`
        Estimator of the background.
    method : {'exact', 'center', 'subpixel'}, optional
        Weighting of pixels on the rim of an aperture, as in photutils.
    aperture_correction : str, float, sequence of float or None, optional
        Enclosed-energy fraction by which fluxes are divided: ``'eef'`` or
        ``'vesta'`` for the instrument's tables of real sources and of injected
        Vesta PSFs, a number for all or one for each aperture, or ``'none'``. By
        default ``'eef'`` if the instrument has a table, else ``'none'``. Tables are
        for circular apertures: for other shapes give a number or ``'none'``.
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
    ) -> None:
        if not isinstance(estimator, NeuralBackgroundEstimator):
            raise TypeError(
                f'estimator must be a NeuralBackgroundEstimator, got {type(estimator).__name__}.'
            )
        if method not in _METHODS:
            raise ValueError(f'method must be one of {_METHODS}, got {method!r}.')
        self.estimator = estimator
        self.method = method
        self.apertures, self._single = _parse_apertures(apertures)
        self.aperture_correction = _parse_correction(aperture_correction, len(self.apertures))
        self.annulus = _parse_annulus(annulus)
        self.beam = None if beam is None else parse_beam(beam)
        self.flux_unit = parse_flux_unit(flux_unit)

    def __repr__(self) -> str:
        return (
            f'<InpaintedAperturePhotometry(apertures={self.apertures}, '
            f'estimator={self.estimator!r}, method={self.method!r}, '
            f'aperture_correction={self.aperture_correction!r}, annulus={self.annulus!r})>'
        )

    def _repr_html_(self) -> str:
        correction = self.aperture_correction
        if correction is None:
            correction = "'eef' where it is known"
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
        hdu: str | int | None = None,
        plane: int | Sequence[int] | None = None,
    ) -> QTable:
        """Remove the sources of a map and measure them.

        Parameters
        ----------
        data : path-like, NDData, CCDData, HDU, HDUList, Quantity, array, NeuralBackground
            The map, or a result that the estimator made from it.
        sources : SkyCoord, regions, table or (N, 2) array, optional
            The sources, as in `NeuralBackgroundEstimator.estimate`; by default
            the positions of the first aperture, if it has any.
        mask, error, wcs, mask_radius, hdu, plane : optional
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
            ``snr``, ``mask_name``, ``mask_radius`` and ``flags``. Sums are in the unit of
            the map; fluxes in ``flux_unit``, or its default.

            NaN, masked and off-map pixels are left out of ``background_sum`` and
            ``flux`` (flag ``aperture_invalid``, which is also set where an aperture contains
            pixels that an earlier removal filled); ``aperture_sum`` is that of
            photutils. If an aperture extends beyond the mask (flag
            ``aperture_exceeds_mask``), ``flux`` is that inside the mask, over the
            enclosed-energy fraction at the radius of the mask.
        """
        if isinstance(data, NeuralBackground):
            if any(value is not None for value in (sources, mask, error, wcs, mask_radius)):
                raise TypeError('a NeuralBackground already has its sources, mask, error and WCS.')
            return self._measure(data)
        image = parse_image(data, mask=mask, error=error, wcs=wcs, hdu=hdu, plane=plane)
        if sources is None:
            sources = self._positions()
        return self._measure(self.estimator.estimate(image, sources, mask_radius=mask_radius))

    def _positions(self):
        first, *others = self.apertures
        if not isinstance(first, Aperture):
            raise TypeError('sources are needed: apertures given as radii have no positions.')
        if not all(_at_same_place(first, other) for other in others):
            raise ValueError(
                'apertures must all have the same positions, as all are measured at each source; '
                'for others give sources=.'
            )
        if isinstance(first, SkyAperture):
            return first.positions
        return np.atleast_2d(first.positions)

    # ------------------------------------------------------------------------------- measuring

    def _measure(self, result):
        image = result.image
        result.require_unchanged()
        sources = result.sources
        unmeasured = (sources['flags'] & NOT_INPAINTED) > 0
        removed = (sources['flags'] & BITS['already_removed']) > 0
        warn_of_removed(removed)
        x = np.where(unmeasured, _NOWHERE, sources['x_center'])
        y = np.where(unmeasured, _NOWHERE, sources['y_center'])
        instrument = result.instrument
        scale = image.pixel_scale or instrument.pixel_scale
        shapes = [_place(a, x, y, image.wcs, scale) for a in self.apertures]
        fractions = self._fractions(shapes, sources['mask_radius'], instrument)
        table = self._table(image, shapes, len(x))
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
            wholes = self._fractions(shapes, np.full(len(x), np.inf), instrument)

        scale = measured_scale(image, instrument, self.beam, self.flux_unit)
        columns = {}
        for i, (shape, fraction, found) in enumerate(zip(shapes, fractions, sums, strict=True)):
            n = self._suffix(i)
            total, background, area, incomplete = found
            flags[incomplete] |= BITS['aperture_invalid']
            flags[_exceeds(shape, result.source_masks)] |= BITS['aperture_exceeds_mask']
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
        table.meta['aperture_correction'] = self._correction(instrument)
        table.meta['annulus'] = str(self.annulus)
        table.meta['flux_per_sum'] = scale.factor
        return table

    def _suffix(self, i):
        return '' if self._single else f'_{i}'

    def _table(self, image, shapes, n):
        """Return the table of photutils for the map, as a plain QTable."""
        if not n:
            # photutils refuses empty lists: take its columns from one position, without rows.
            shapes = [_moved(shape, [0.0], [0.0]) for shape in shapes]
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
        for name in table.colnames:
            if name.startswith('aperture_sum'):
                table[name] = image.with_unit(np.asarray(table[name]))
        return table[:n]

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
        for i, source_mask in enumerate(result.source_masks):
            if source_mask is None:
                continue
            (rows, columns), pixels = source_mask.on_map(), None
            # Predictions behind neighbours are correlated with that behind the source.
            box = _common_box([shape[i] for shape in shapes], image.shape)
            near = result.errors.predicted_near(i, box)
            if not source_mask.holds(*near).all():
                rows, columns = pixels = near
            weights = image.valid((rows, columns)) * np.array([
                aperture_weights(shape[i], columns, rows, self.method) for shape in shapes
            ])
            if own is None or not np.isfinite(own[:, i]).all():
                errors[:, i] = result.errors.sum_error(i, weights, pixels=pixels)
            if own is not None:
                known = np.isfinite(own[:, i])
                beside = result.errors.sum_error(i, weights, given=False, pixels=pixels)
                errors[known, i] = np.hypot(own[known, i], beside[known])
                flags[i] |= BITS['error_unknown'] * bool(not known.all())
        unknown = np.isnan(errors).any(axis=0)
        flags[unknown] |= BITS['error_unknown']
        return errors, flags

    def _annulus_level(self, image, x, y, instrument):
        """Compute the mean of the valid pixels with centres in the annulus around each source."""
        if isinstance(self.annulus, str):
            inner, outer = instrument.annulus
        else:
            scale = image.pixel_scale or instrument.pixel_scale
            inner, outer = (_pixels(radius, scale, 'annulus') for radius in self.annulus)
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

    def _correction(self, instrument):
        """Return the aperture correction: a table's name, a list of fractions, or 'none'."""
        if self.aperture_correction is None:
            return 'none' if instrument.corrections is None else 'eef'
        return self.aperture_correction

    def _fractions(self, shapes, mask_radius, instrument):
        """Return a list of the enclosed-energy fractions of all sources, for each aperture."""
        correction = self._correction(instrument)
        n = len(mask_radius)
        if correction == 'none':
            return [np.ones(n) for _ in shapes]
        if isinstance(correction, list):
            return [np.full(n, fraction) for fraction in correction]
        fractions = []
        for shape in shapes:
            if not hasattr(shape, 'r'):
                raise ValueError(
                    f'the enclosed energy in a {type(shape).__name__} is not known; give '
                    "aperture_correction= as a number, or 'none'."
                )
            if n:
                # The aperture must be in the table; a mask may be smaller than its smallest radius.
                instrument.enclosed_energy(shape.r, correction)
            radius = np.fmin(shape.r, mask_radius)
            fractions.append(instrument.enclosed_energy(radius, correction, outside='nan'))
        return fractions


# ------------------------------------------------------------------------------------ arguments


def _is_radius(value):
    return isinstance(value, numbers.Real | u.Quantity) and not isinstance(value, bool)


def _is_length(unit):
    """Return whether a radius can have this unit: pixels or an angle."""
    return unit.is_equivalent(u.arcsec) or unit in (u.pix, u.dimensionless_unscaled)


def _parse_apertures(apertures):
    """Return a list of radii (float or Quantity) and apertures, and whether it was only one."""
    if isinstance(apertures, Regions):
        apertures = list(apertures)
    single = isinstance(apertures, Aperture | Region) or (
        not isinstance(apertures, list | tuple) and np.ndim(apertures) == 0
    )
    if single and isinstance(apertures, np.ndarray) and not isinstance(apertures, u.Quantity):
        apertures = apertures.item()
    items = [apertures] if single else list(apertures)
    if not items:
        raise ValueError(f'apertures must be {_ACCEPTED}; got none.')
    parsed = []
    for item in items:
        if isinstance(item, Region):
            parsed.append(_from_region(item))
        elif isinstance(item, Aperture):
            parsed.append(item)
        elif _is_radius(item):
            value = item.value if isinstance(item, u.Quantity) else item
            if isinstance(value, int) and abs(value) > _HUGE:
                value = np.inf
            unit = getattr(item, 'unit', u.pix)
            if not _is_length(unit):
                raise ValueError(f'aperture radii must be in pixels or an angle, got {item}.')
            if np.ndim(value):
                raise ValueError(f'apertures must be {_ACCEPTED}; got a list in a list.')
            if not 0 < value < np.finfo(float).max:
                raise ValueError(f'aperture radii must be positive and finite, got {item}.')
            parsed.append(item if unit.is_equivalent(u.arcsec) else float(value))
        else:
            raise TypeError(f'apertures must be {_ACCEPTED}, got {type(item).__name__}.')
    return parsed, single


def _at_same_place(first, other):
    """Return whether an aperture has the positions of the first, or none."""
    if not isinstance(other, Aperture):
        return True
    if np.shape(first.positions) != np.shape(other.positions):
        return False
    if isinstance(first, SkyAperture) != isinstance(other, SkyAperture):
        return False
    if isinstance(first, SkyAperture):
        return bool(np.all(first.positions.separation(other.positions) < _SAME_PLACE))
    return np.array_equal(first.positions, other.positions)


def _from_region(region):
    try:
        return region_to_aperture(region)
    except (TypeError, ValueError):
        raise TypeError(
            f'a {type(region).__name__} cannot be an aperture; circles, ellipses, rectangles and '
            'their annuli can.'
        ) from None


def _parse_correction(correction, n):
    if correction is None or isinstance(correction, str):
        if correction not in (None, 'eef', 'vesta', 'none'):
            raise ValueError(
                "aperture_correction must be 'eef', 'vesta', 'none', or one or more fractions, "
                f'got {correction!r}.'
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


def _parse_annulus(annulus):
    if annulus is None or (isinstance(annulus, str) and annulus == 'instrument'):
        return annulus
    try:
        inner, outer = annulus
        units = (getattr(radius, 'unit', u.pix) for radius in (inner, outer))
        good = all(map(_is_length, units)) and bool(
            0 * inner < inner < outer and np.isfinite(outer)
        )
    except (TypeError, ValueError, OverflowError, u.UnitConversionError):
        good = False
    if not good or isinstance(inner, str):
        raise ValueError(
            "annulus must be (inner, outer) radii in pixels or as an angle, or 'instrument', "
            f'got {annulus!r}.'
        )
    return inner, outer


def _pixels(radius, scale, name):
    if isinstance(radius, u.Quantity) and radius.unit.is_equivalent(u.arcsec):
        if scale is None:
            raise ValueError(f'{name} is an angle, and the data have no WCS; give pixels.')
        pixels = radius.to_value(u.arcsec) / scale
    else:
        pixels = float(getattr(radius, 'value', radius))
    _check_size(pixels, name)
    return pixels


def _check_size(pixels, name):
    if pixels > _MAX_RADIUS:
        raise ValueError(
            f'{name} has a radius of {pixels:.3g} pixels; at most {_MAX_RADIUS:g} are taken.'
        )


# ------------------------------------------------------------------------------------- geometry


def _place(aperture, x, y, wcs, scale):
    """Return the aperture as a photutils pixel aperture at all positions."""
    if not isinstance(aperture, Aperture):
        aperture = CircularAperture((0.0, 0.0), _pixels(aperture, scale, 'the aperture'))
    elif isinstance(aperture, SkyAperture):
        if wcs is None:
            raise ValueError('apertures on the sky need a WCS, and the data have none.')
        aperture = aperture.to_pixel(wcs)
    # From the bounding box, which is up to a pixel larger on each side.
    _check_size(max(np.atleast_1d(aperture.bbox)[0].shape) / 2 - 1, 'the aperture')
    return _moved(aperture, x, y) if len(x) else aperture


def _moved(aperture, x, y):
    aperture = copy.copy(aperture)
    aperture.positions = np.column_stack([x, y])
    return aperture


def _common_box(apertures, shape):
    """Return the rows and columns of a map that contain all apertures of one position."""
    boxes = np.array([(b.iymin, b.iymax, b.ixmin, b.ixmax) for b in (a.bbox for a in apertures)])
    low, high = boxes.min(axis=0).clip(0), boxes.max(axis=0).clip(0)
    return slice(low[0], min(high[1], shape[0])), slice(low[2], min(high[3], shape[1]))


def _describe(aperture):
    """Describe an aperture in one line; the text of some apertures has several."""
    return repr(aperture) if isinstance(aperture, Aperture) else str(aperture)


def _exceeds(shape, source_masks):
    """Return True for sources whose aperture contains a pixel centre outside the mask."""
    if not source_masks:
        return np.zeros(0, dtype=bool)
    exceeds = []
    for aperture, source_mask in zip(shape.to_mask(method='center'), source_masks, strict=True):
        if source_mask is None:
            exceeds.append(False)
            continue
        y, x = np.nonzero(aperture.data)
        y, x = y + aperture.bbox.iymin - source_mask.y0, x + aperture.bbox.ixmin - source_mask.x0
        height, width = source_mask.pixels.shape
        within = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        if source_mask.clipped:
            # Pixels off the map are in no mask, and do not count.
            y, x = y[within], x[within]
            exceeds.append(not source_mask.pixels[y, x].all())
        else:
            exceeds.append(not (within.all() and source_mask.pixels[y, x].all()))
    return np.array(exceeds)


def _sums(result, shape, method, n):
    """Sum the valid pixels in an aperture at n positions, and find incomplete apertures.

    Only windows of the map are read, because it may be larger than the memory.

    Returns
    -------
    total, background, area : (n,) `~numpy.ndarray` of float
        Sums of the map, of the source-free map, and of ones; NaN off the map.
    incomplete : (n,) `~numpy.ndarray` of bool
        True where a pixel of the aperture is NaN, masked or off the map.
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
    return *sums, incomplete
