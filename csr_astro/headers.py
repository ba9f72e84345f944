"""Beam and frequency of a map, by its header."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ['header_beam', 'header_frequency']


def header_beam(header: Mapping[str, Any] | None) -> u.Quantity | None:
    """Return the axes of the beam in a header, FWHM in arcsec, or None.

    Parameters
    ----------
    header : mapping or None
        Header with ``BMAJ`` and perhaps ``BMIN``, in degrees.

    Returns
    -------
    beam : (2,) `~astropy.units.Quantity` or None
    """
    values: list[float] = []
    for key in ('BMAJ', 'BMIN'):
        try:
            values.append(float((header or {}).get(key, values[0] if values else np.nan)))
        except (TypeError, ValueError):
            return None
    if not all(np.isfinite(value) and value > 0 for value in values):
        return None
    return (values * u.deg).to(u.arcsec)


def header_frequency(header: Mapping[str, Any] | None) -> u.Quantity | None:
    """Return the frequency of a map by its header, or None.

    Parameters
    ----------
    header : mapping or None
        Header with an axis ``FREQ``, ``RESTFRQ`` or ``RESTFREQ``.

    Returns
    -------
    frequency : `~astropy.units.Quantity` or None
    """
    header = header or {}
    for axis in range(3, 6):
        one_channel = header.get(f'NAXIS{axis}', 1) == 1
        if str(header.get(f'CTYPE{axis}', '')).startswith('FREQ') and one_channel:
            steps = 1 - float(header.get(f'CRPIX{axis}', 1))
            value = float(header[f'CRVAL{axis}']) + steps * float(header.get(f'CDELT{axis}', 0))
            return u.Quantity(value, header.get(f'CUNIT{axis}', 'Hz'))
    for key in ('RESTFRQ', 'RESTFREQ'):
        if header.get(key):
            return float(header[key]) * u.Hz
    return None
