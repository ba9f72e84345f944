"""Beam and frequency of a map, by its header."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ['header_beam', 'header_frequency']

_AIPS = re.compile(r'BMAJ=\s*([-+.\dEe]+)\s+BMIN=\s*([-+.\dEe]+)')


def header_beam(header: Mapping[str, Any] | None) -> u.Quantity | None:
    """Return the axes of the beam in a header, FWHM in arcsec, or None.

    Parameters
    ----------
    header : mapping or None
        Header with ``BMAJ`` and perhaps ``BMIN``, in degrees unless their comments say arcsec or
        arcmin; or with a history of AIPS.

    Returns
    -------
    beam : (2,) `~astropy.units.Quantity` or None
    """
    header = header or {}
    values: list[float] = []
    for key in ('BMAJ', 'BMIN'):
        try:
            values.append(float(header.get(key, values[0] if values else np.nan)))
        except (TypeError, ValueError):
            return None
    if 'BMAJ' not in header and 'HISTORY' in header:
        values = _aips_beam(header)
    if not all(np.isfinite(value) and value > 0 for value in values):
        return None
    return (values * _beam_unit(header)).to(u.arcsec)


def _aips_beam(header):
    """Return the axes of the beam that AIPS writes into the history, in degrees."""
    found = _AIPS.findall('\n'.join(str(line) for line in header['HISTORY']))
    # The last one is that of the last image that was made.
    return [float(value) for value in found[-1]] if found else [np.nan]


def _beam_unit(header):
    """Return the unit of the beam: degrees, unless the comment of the keyword says another."""
    comment = getattr(header, 'comments', {'BMAJ': ''})['BMAJ'] if 'BMAJ' in header else ''
    found = re.search(r'\[?\b(arcsec|arcmin)', str(comment), re.IGNORECASE)
    return u.Unit(found[1].lower()) if found else u.deg


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
