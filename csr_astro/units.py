"""Units of maps: spellings in headers, and the conversion of sums of pixels to fluxes."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, NamedTuple

from astropy import units as u
from astropy.utils.exceptions import AstropyUserWarning

from csr_astro.utils.data import read_data
from csr_astro.utils.warnings import ignored, one_at_a_time

if TYPE_CHECKING:
    import numpy as np

__all__ = ['FluxScale', 'flux_scale', 'is_logarithmic', 'parse_unit']

# Irreducible units of fluxes of all kinds: per frequency, per wavelength, or of a line.
_OF_FLUXES = {'kg', 'm', 's'}
# Flux density of magnitude zero in the AB system; a maggy is this much.
_MAGGY = 3631 * u.Jy


class FluxScale(NamedTuple):
    """Conversion of sums of the pixels of a map to fluxes.

    Attributes
    ----------
    factor : float
        Factor by which a sum is multiplied.
    unit : `~astropy.units.UnitBase` or None
        Unit of the product: Jy if the sums are flux densities.
    missing : str
        Reason why the product is no flux; empty if it is one.
    """

    factor: float
    unit: u.UnitBase | None
    missing: str = ''

    def of(self, sums: np.ndarray) -> np.ndarray | u.Quantity:
        """Convert sums of the pixels of the map.

        Parameters
        ----------
        sums : `~numpy.ndarray`
            Plain numbers, in the unit of the map.
        """
        values = sums * self.factor
        return values if self.unit is None else u.Quantity(values, self.unit, copy=False)


def parse_unit(text: object) -> u.UnitBase | None:
    """Parse the unit of a header.

    Parameters
    ----------
    text : str or None
        Value of ``BUNIT`` or a similar keyword.

    Returns
    -------
    unit : `~astropy.units.UnitBase` or None
        None without a unit, and with a warning if the unit is not understood.

    Examples
    --------
    >>> from csr_astro.units import parse_unit
    >>> parse_unit('JY/BEAM')
    Unit("Jy / beam")
    """
    if isinstance(text, u.UnitBase):
        return text
    name = '' if text is None else ' '.join(str(text).split())
    if not name:
        return None
    spellings = read_data('file_conventions.toml')['units']
    known = spellings.get(name) or spellings.get(name.lower())
    with one_at_a_time, ignored(u.UnitsWarning):
        unit = u.Unit(known or name, parse_strict='silent')
        if isinstance(unit, u.UnrecognizedUnit):
            unit = _rewritten(name)
    if isinstance(unit, u.FunctionUnitBase):
        return unit
    if not isinstance(unit, u.UnitBase) or isinstance(unit, u.UnrecognizedUnit):
        warnings.warn(
            f'the unit {name!r} is not understood; the results carry no unit.',
            AstropyUserWarning,
            stacklevel=4,
        )
        return None
    return unit


def _rewritten(name):
    """Parse a unit whose parts are written in other ways, or in capital letters."""
    for pattern, replacement in read_data('file_conventions.toml')['unit_parts'].items():
        name = re.sub(pattern, replacement, name)
    unit = u.Unit(name, parse_strict='silent')
    if isinstance(unit, u.UnrecognizedUnit) and name.replace('sr', 'SR').isupper():
        # Fixed-format headers of old programs.
        name = name.replace('MJY', 'MJy').replace('JY', 'Jy')
        for each in (name, name.replace('SR', 'sr').replace('BEAM', 'beam'), name.lower()):
            unit = u.Unit(each, parse_strict='silent')
            if not isinstance(unit, u.UnrecognizedUnit):
                break
    return unit


def is_logarithmic(unit: u.UnitBase | None) -> bool:
    """Return whether a unit is logarithmic, so that sums of pixels mean nothing.

    Parameters
    ----------
    unit : `~astropy.units.UnitBase` or None
        Unit of a map.

    Examples
    --------
    >>> from astropy import units as u
    >>> from csr_astro.units import is_logarithmic
    >>> is_logarithmic(u.mag / u.arcsec**2), is_logarithmic(u.Jy)
    (True, False)
    """
    if unit is None:
        return False
    if isinstance(unit, u.FunctionUnitBase):
        return True
    return any(base.is_equivalent(u.dex) for base in unit.decompose().bases)


def flux_scale(
    unit: u.UnitBase | None,
    *,
    pixel_area: u.Quantity | None = None,
    beam_pixels: float | None = None,
    frequency: u.Quantity | None = None,
) -> FluxScale:
    """Return the factor that converts sums of the pixels of a map to fluxes.

    Parameters
    ----------
    unit : `~astropy.units.UnitBase` or None
        Unit of the map: per pixel (also if it does not say so), per beam or per solid angle;
        or a brightness temperature.
    pixel_area : `~astropy.units.Quantity`, optional
        Solid angle of a pixel, for units per solid angle and temperatures.
    beam_pixels : float, optional
        Solid angle of the beam in pixels, for units per beam.
    frequency : `~astropy.units.Quantity`, optional
        Frequency of the map, for temperatures (Rayleigh-Jeans).

    Returns
    -------
    scale : `FluxScale`

    Raises
    ------
    ValueError
        If the unit is logarithmic.

    Examples
    --------
    >>> from astropy import units as u
    >>> from csr_astro.units import flux_scale
    >>> scale = flux_scale(u.mJy / u.beam, beam_pixels=20)
    >>> print(f'{scale.factor:.5f} {scale.unit}')
    0.00005 Jy
    >>> print(flux_scale(u.ct).missing)
    ct is not calibrated in flux
    """
    if unit is None:
        return FluxScale(1.0, None, 'the map has no unit')
    if is_logarithmic(unit):
        raise ValueError(
            f'the map is in {unit}, which is logarithmic, so that sums of its pixels mean nothing; '
            'give it in a linear unit.'
        )
    powers = dict(zip(unit.bases, unit.powers, strict=True))
    factor, plain = 1.0, unit
    if powers.get(u.pix) == -1:
        plain = unit * u.pix
    elif powers.get(u.beam) == -1:
        if beam_pixels is None:
            return FluxScale(1.0, unit, f'a map in {unit} needs the beam')
        factor, plain = 1 / beam_pixels, unit * u.beam
    elif (solid := _solid_angle(powers)) is not None:
        if pixel_area is None:
            return FluxScale(
                1.0, unit, f'a map in {unit} needs a WCS, which tells the area of its pixels'
            )
        factor, plain = pixel_area.to_value(solid), unit * solid
    elif unit.is_equivalent(u.K):
        if pixel_area is None or frequency is None:
            return FluxScale(1.0, unit, f'a map in {unit} needs a frequency and a WCS')
        per_kelvin = (1 * u.K).to(u.Jy / u.sr, u.brightness_temperature(frequency))
        factor = (per_kelvin * pixel_area).to_value(u.Jy) * unit.to(u.K)
        plain = u.Jy
    return _in_janskys(factor, plain, unit)


def _solid_angle(powers):
    """Return the solid angle by which a unit is divided, None without one."""
    for base, power in powers.items():
        if (base.is_equivalent(u.sr) and power == -1) or (
            base.is_equivalent(u.rad) and power == -2
        ):
            return base**-power
    return None


def _in_janskys(factor, plain, unit):
    if plain.is_equivalent(u.Jy):
        return FluxScale(float(factor * plain.to(u.Jy)), u.Jy)
    if plain.is_equivalent(u.mgy):
        return FluxScale(float(factor * (plain.to(u.mgy) * _MAGGY).to_value(u.Jy)), u.Jy)
    if {str(base) for base in plain.decompose().bases} <= _OF_FLUXES and plain.bases:
        # Flux of a line, or per wavelength.
        return FluxScale(float(factor), plain)
    if not plain.bases:
        return FluxScale(float(factor), plain, 'the map has no unit')
    return FluxScale(float(factor), plain, f'{unit} is not calibrated in flux')
