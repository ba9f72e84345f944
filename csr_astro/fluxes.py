"""Fluxes of sources from sums of the pixels of a map."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS

from csr_astro.headers import header_beam, header_frequency
from csr_astro.units import FluxScale, flux_scale

if TYPE_CHECKING:
    from csr_astro.images import Image
    from csr_astro.instruments import Instrument

__all__ = [
    'image_flux_scale',
    'measured_scale',
    'parse_beam',
    'parse_flux_unit',
    'warn_of_missing',
    'warn_of_removed',
]

# Solid angle of a Gaussian beam of FWHM 1.
_GAUSSIAN = np.pi / (4 * np.log(2))
_HINTS = {
    'frequency': 'put RESTFRQ into the header, or convert the map to Jy/sr',
    'beam': 'give it by beam= (--beam), or BMAJ and BMIN in the header',
    'WCS': 'give wcs=',
    'calibrated': 'calibrate the map to have them in Jy',
}


def parse_beam(beam: Any) -> u.Quantity:
    """Return the solid angle of a beam.

    Parameters
    ----------
    beam : `~astropy.units.Quantity` or radio_beam.Beam
        Full width at half maximum of a Gaussian beam, an angle; two of them, of the major and
        the minor axis; or the solid angle.

    Returns
    -------
    area : `~astropy.units.Quantity`
        In square arcsec.

    Examples
    --------
    >>> from astropy import units as u
    >>> from csr_astro.fluxes import parse_beam
    >>> print(f'{parse_beam([20, 10] * u.arcsec):.2f}')
    226.62 arcsec2
    """
    try:
        given = u.Quantity(beam)
    except (TypeError, ValueError):
        given = u.Quantity(np.nan)
    if given.unit.is_equivalent(u.sr) and given.shape == ():
        area = given.to(u.arcsec**2)
    elif given.unit.is_equivalent(u.arcsec) and given.shape in ((), (2,)):
        area = _GAUSSIAN * np.prod(np.broadcast_to(given.to_value(u.arcsec), 2)) * u.arcsec**2
    else:
        raise TypeError(
            f'beam must be the FWHM as an angle, two of them, or a solid angle, got {beam!r}.'
        )
    if not (np.isfinite(area.value) and area.value > 0):
        raise ValueError(f'beam must be positive, got {beam!r}.')
    return area


def image_flux_scale(
    image: Image, instrument: Instrument | None = None, beam: Any = None
) -> FluxScale:
    """Return the factor that converts sums of the pixels of a map to fluxes in Jy.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    instrument : `~csr_astro.instruments.Instrument`, optional
        Instrument with radii in pixels of the map; its beam is used for a map per beam whose
        header has none, and its pixel scale for a map without WCS.
    beam : optional
        Beam, see `parse_beam`; before those of header and instrument.

    Returns
    -------
    scale : `~csr_astro.units.FluxScale`

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from csr_astro.fluxes import image_flux_scale
    >>> from csr_astro.images import parse_image
    >>> image_flux_scale(parse_image(np.zeros((20, 30)) * u.mJy / u.pix)).factor
    0.001
    """
    area = image.pixel_area
    header = image.header or {}
    if area is None and isinstance(header.get('PIXAR_SR'), float):
        area = (header['PIXAR_SR'] * u.sr).to(u.arcsec**2)
    if area is None and instrument is not None and instrument.pixel_scale is not None:
        area = (instrument.pixel_scale * u.arcsec) ** 2
    pixels = None
    if beam is None:
        beam = header_beam(image.header)
    if beam is not None:
        pixels = None if area is None else float((parse_beam(beam) / area).to_value(''))
        per_beam = image.unit is not None and u.beam in image.unit.bases
        if per_beam and pixels is not None and pixels > np.prod(image.shape):
            raise ValueError(
                f'the beam covers {pixels:.3g} pixels, more than the map has: is BMAJ of the '
                'header in arcsec, not in degrees? Give the beam by beam= (--beam).'
            )
    elif instrument is not None:
        pixels = instrument.beam_pixels
    frequency = header_frequency(image.header)
    if frequency is None and isinstance(image.wcs, WCS) and image.wcs.wcs.restfrq:
        # CCDData takes the keyword out of the header.
        frequency = image.wcs.wcs.restfrq * u.Hz
    return flux_scale(image.unit, pixel_area=area, beam_pixels=pixels, frequency=frequency)


def parse_flux_unit(unit: Any) -> u.UnitBase | str | None:
    """Return the unit of fluxes that the user asked for.

    Parameters
    ----------
    unit : str, `~astropy.units.UnitBase` or None
        Unit, or ``'map'`` for plain sums.
    """
    if unit is None or (isinstance(unit, str) and unit == 'map'):
        return unit
    try:
        parsed = u.Unit(unit)
    except (TypeError, ValueError):
        parsed = None
    if parsed is None or flux_scale(parsed).missing or {u.pix, u.beam} & set(parsed.bases):
        raise ValueError(
            f"flux_unit must be the unit of a flux, such as 'mJy', or 'map', got {unit!r}; the "
            'unit of the map is given by unit= or --unit.'
        )
    return parsed


def measured_scale(
    image: Image, instrument: Instrument, beam: Any, unit: u.UnitBase | str | None
) -> FluxScale:
    """Return the factor that converts sums of a map to fluxes, in the unit that was asked for.

    Parameters
    ----------
    image, instrument, beam
        As in `image_flux_scale`.
    unit : `~astropy.units.UnitBase`, 'map' or None
        Unit of the fluxes, see `parse_flux_unit`; by default Jy, or mJy and so on for a map
        in mJy/pixel.

    Returns
    -------
    scale : `~csr_astro.units.FluxScale`

    Raises
    ------
    ValueError
        If the sums cannot be converted to the unit that was asked for.

    Warns
    -----
    AstropyUserWarning
        If the sums cannot be converted to Jy, and no unit was asked for.
    """
    scale = image_flux_scale(image, instrument, beam)
    own = image.unit
    if own is not None and u.pix in own.bases:
        own = own * u.pix
    plain = own is not None and own.is_equivalent(u.Jy) and own.scale == 1
    if isinstance(unit, str) or (unit is None and plain):
        # Sums of a map in mJy/pixel are fluxes, in mJy.
        return FluxScale(1.0, own)
    if unit is not None:
        if scale.missing or scale.unit is None or not scale.unit.is_equivalent(unit):
            reason = scale.missing or f'sums of the map are in {scale.unit}'
            raise ValueError(f'fluxes cannot be in {unit}: {reason}.')
        return FluxScale(scale.factor * scale.unit.to(unit), unit)
    # An array without a unit may have none on purpose.
    if scale.missing and 'no unit' not in scale.missing:
        warn_of_missing(scale)
    return scale


def warn_of_missing(scale: FluxScale) -> None:
    """Warn that fluxes are plain sums, and say what is missing.

    Parameters
    ----------
    scale : `~csr_astro.units.FluxScale`
        Result of `image_flux_scale`.
    """
    hint = next(hint for word, hint in _HINTS.items() if word in scale.missing)
    warnings.warn(
        f'fluxes are plain sums of pixels, not in Jy: {scale.missing}; {hint}.',
        AstropyUserWarning,
        stacklevel=5,
    )


def warn_of_removed(removed: np.ndarray) -> None:
    """Warn that sources were removed from the map before.

    Parameters
    ----------
    removed : (N,) `~numpy.ndarray` of bool
        True for the sources on pixels that an earlier removal filled.
    """
    if not removed.any():
        return
    warnings.warn(
        f'{removed.sum()} of {len(removed)} sources lie on pixels that an earlier removal filled '
        '(CSR_MASK); their fluxes are NaN (flag already_removed): measure them on the original '
        'map.',
        AstropyUserWarning,
        stacklevel=4,
    )
