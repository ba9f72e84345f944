"""Fluxes in mJy, and in the units of maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u

from csr_astro.fluxes import image_flux_scale
from csr_astro.units import FluxScale, flux_scale, is_logarithmic

if TYPE_CHECKING:
    from csr_astro.images import Image
    from csr_astro.instruments import Instrument
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


def map_units_per_millijansky(image: Image, beam: Instrument | float | None = None) -> float:
    """Sum of the pixels of a source of 1 mJy, in the unit of the map.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map, in flux per pixel, per solid angle or per beam. A map without a unit is taken
        to be in mJy per pixel.
    beam : `~csr_astro.instruments.Instrument` or float, optional
        Instrument with radii in pixels of the map, or full width at half maximum of the beam
        in pixels, for maps per beam without ``BMAJ`` in the header.

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
    if image.unit is None:
        return 1.0
    scale = FluxScale(1.0, None) if is_logarithmic(image.unit) else _scale(image, beam)
    if scale.unit is None or not scale.unit.is_equivalent(u.mJy):
        reason = f': {scale.missing}' if 'needs' in scale.missing else ''
        raise ValueError(
            f'a map in {image.unit} cannot take sources in mJy{reason}; it must be in flux per '
            'pixel, per solid angle or per beam, or have no unit (mJy/pixel).'
        )
    return 1 / (scale.factor * scale.unit.to(u.mJy))


def _scale(image, beam):
    if not isinstance(beam, int | float):
        return image_flux_scale(image, beam)
    scale = image_flux_scale(image)
    if 'beam' in scale.missing:
        return flux_scale(image.unit, beam_pixels=np.pi / (4 * np.log(2)) * beam**2)
    return scale
