"""Fluxes in mJy, and in the units of maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u

if TYPE_CHECKING:
    from csr_astro.images import Image
    from csr_astro.typing import QuantityLike

__all__ = ['map_units_per_millijansky', 'to_millijansky']


def to_millijansky(flux: QuantityLike) -> float | np.ndarray:
    """Fluxes as plain numbers of mJy.

    Parameters
    ----------
    flux : float, Quantity or array-like
        Plain numbers are taken to be in mJy.

    Returns
    -------
    values : float or `~numpy.ndarray` of float

    Raises
    ------
    ValueError
        If they are no fluxes, or not finite.

    Examples
    --------
    >>> from astropy import units as u
    >>> from csr_astro.simulation.units import to_millijansky
    >>> to_millijansky(0.5 * u.Jy)
    500.0
    """
    try:
        flux = u.Quantity(flux)
        if flux.unit != u.dimensionless_unscaled:
            flux = flux.to(u.mJy)
        values = np.asarray(flux.value, dtype=float)
    except (TypeError, ValueError, u.UnitConversionError):
        raise ValueError(f'fluxes must be numbers of mJy or spectral fluxes, got {flux}.') from None
    if not np.isfinite(values).all():
        raise ValueError('fluxes must be finite.')
    return float(values) if values.ndim == 0 else values


def map_units_per_millijansky(image: Image, fwhm: float | None = None) -> float:
    """Sum of the pixels of a source of 1 mJy, in the unit of the map.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map, in flux per pixel, per solid angle or per beam. A map without a unit is taken
        to be in mJy per pixel.
    fwhm : float, optional
        Full width at half maximum of the beam in pixels, for maps per beam.

    Returns
    -------
    factor : float

    Raises
    ------
    ValueError
        If the unit is no flux, or lacks the WCS or beam that its conversion needs.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.simulation.units import map_units_per_millijansky
    >>> map_units_per_millijansky(parse_image(np.zeros((20, 30)) * u.Jy / u.pix))
    0.001
    """
    unit = image.unit
    if unit is None:
        return 1.0
    flux = 1 * u.mJy
    if unit.is_equivalent(u.Jy / u.pix):
        return float((flux / u.pix).to_value(unit))
    if unit.is_equivalent(u.Jy):
        return float(flux.to_value(unit))
    if unit.is_equivalent(u.Jy / u.sr):
        if image.pixel_scale is None:
            raise ValueError(f'a map in {unit} needs a WCS, which tells the area of its pixels.')
        return float((flux / (image.pixel_scale * u.arcsec) ** 2).to_value(unit))
    if unit.is_equivalent(u.Jy / u.beam) and fwhm is not None:
        pixels_per_beam = np.pi / (4 * np.log(2)) * fwhm**2
        return float((flux / u.beam).to_value(unit) * pixels_per_beam)
    raise ValueError(
        f'a map in {unit} cannot take sources in mJy; it must be in flux per pixel, per solid '
        'angle or per beam, or have no unit (mJy/pixel).'
    )
