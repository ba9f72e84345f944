"""Apertures as text: radii, shapes, and files of regions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from csr_astro.commands import options

__all__ = ['parse_shapes']

_FILES = ('.reg', '.ds9', '.crtf')
_SHAPE = re.compile(r'([a-z]+)\s*\(([^()]*)\)', re.IGNORECASE)
# Commas that are in no brackets.
_COMMA = re.compile(r',(?![^()]*\))')


def parse_shapes(text: str) -> dict[str, Any]:
    """Arguments of the photometry for apertures as text.

    Parameters
    ----------
    text : str
        Radii and shapes between commas, such as ``5arcsec,ellipse(8arcsec,5arcsec,30)``;
        ``regions`` for those of the catalogue; or a file of regions, one for each source
        or one for all.

    Returns
    -------
    arguments : dict
        ``apertures`` and ``per_source`` of `~csr_astro.InpaintedAperturePhotometry`.
    """
    if text.strip() == 'regions':
        return {'apertures': 'regions'}
    if Path(text).suffix.lower() in _FILES:
        shapes = _read(Path(text))
        return (
            {'apertures': shapes, 'per_source': True}
            if len(shapes) > 1
            else {'apertures': shapes[0]}
        )
    parsed = [_parse_shape(part.strip()) for part in _COMMA.split(text)]
    return {'apertures': parsed if len(parsed) > 1 else parsed[0]}


def _read(path):
    from regions import Regions

    if not path.is_file():
        raise ValueError(f'no such file: {str(path)!r}.')
    try:
        shapes = list(
            Regions.read(path, format='crtf' if path.suffix.lower() == '.crtf' else 'ds9')
        )
    except Exception as error:
        reason = str(error).strip().split('\n')[0].rstrip('.')
        raise ValueError(f'{str(path)!r} cannot be read as regions: {reason}.') from error
    if not shapes:
        raise ValueError(f'{str(path)!r} holds no regions.')
    return shapes


def _parse_shape(text):
    found = _SHAPE.fullmatch(text)
    if found is None:
        return options.length(text, '--apertures')
    makers = {
        'circle': (1, _circle),
        'ellipse': (3, _ellipse),
        'rectangle': (3, _rectangle),
    }
    name, values = found[1].lower(), [part.strip() for part in found[2].split(',')]
    count, make = makers.get(name, (0, None))
    if make is None or len(values) not in (count, count - 1):
        raise ValueError(
            f'--apertures: {text!r} is not understood; shapes are circle(R), ellipse(A,B,ANGLE) '
            'and rectangle(W,H,ANGLE).'
        )
    sizes = [options.length(value, '--apertures') for value in values[: max(count - 1, 1)]]
    angle = values[2] if len(values) > 2 else '0'
    return make(*sizes) if count == 1 else make(*sizes, _angle(angle))


def _angle(text):
    from astropy import units as u

    try:
        angle = u.Quantity(text)
        return angle.value * u.deg if angle.unit == u.dimensionless_unscaled else angle.to(u.deg)
    except (TypeError, ValueError):
        raise ValueError(f'--apertures: {text!r} is no angle, such as 30 or 30deg.') from None


def _circle(radius):
    return radius


def _ellipse(a, b, angle):
    from photutils.aperture import EllipticalAperture, SkyEllipticalAperture

    return _oriented(EllipticalAperture, SkyEllipticalAperture, a, b, angle)


def _rectangle(w, h, angle):
    from photutils.aperture import RectangularAperture, SkyRectangularAperture

    return _oriented(RectangularAperture, SkyRectangularAperture, w, h, angle)


def _oriented(in_pixels, on_sky, first, second, angle):
    """Make a shape whose angle is that from North through East on the sky, or from x in pixels."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    angles = [isinstance(size, u.Quantity) for size in (first, second)]
    if any(angles) != all(angles):
        raise ValueError('--apertures: both sizes of a shape must be pixels, or both angles.')
    try:
        if all(angles):
            # At no position: it is moved to the sources, with the North of the map's centre.
            return on_sky(
                SkyCoord(float('nan'), float('nan'), unit='deg'), first, second, theta=angle
            )
        return in_pixels((0, 0), first, second, theta=angle)
    except (TypeError, ValueError, u.UnitConversionError) as error:
        raise ValueError(f'--apertures: {str(error).rstrip(".")}.') from None
