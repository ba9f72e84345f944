"""Regions: which are sources, where their centres are, and how their files are read."""

from __future__ import annotations

import re
import sys
import warnings
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.utils.data import get_readable_fileobj
from astropy.utils.exceptions import AstropyUserWarning

from csr_astro.utils.sky import local_axes, require_wcs, sky_shape, sky_to_pixels
from csr_astro.utils.warnings import ignored, one_at_a_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from regions import PixelRegion, Region, Regions

    from csr_astro.typing import WcsLike

__all__ = [
    'drawing_kind', 'has_area', 'is_region', 'only_sources', 'read_regions', 'region_center',
    'to_pixel',
]  # fmt: skip

# Shapes of DS9 that mark no source, as they are named in a message; the plural where it differs.
_DRAWN = {
    'annulus': 'annuli', 'panda': 'pandas', 'epanda': 'pandas', 'bpanda': 'pandas',
    'text': 'texts', 'line': 'lines', 'vector': 'vectors', 'segment': 'segments',
    'projection': 'projections', 'ruler': 'rulers', 'compass': 'compasses',
    'background': 'background regions', 'excluded': 'excluded regions',
}  # fmt: skip
_SINGULAR = {'background': 'background region', 'excluded': 'excluded region', 'epanda': 'panda',
             'bpanda': 'panda'}
# Parameters of an ellipse or a box that has a hole.
_WITH_HOLE = 6
_STATEMENT = re.compile(r'^(#?)\s*([+-]?)\s*([A-Za-z][A-Za-z0-9]*)\s*(.*)$', re.DOTALL)
_QUOTED = re.compile(r'\{[^}]*\}|"[^"]*"|\'[^\']*\'')
# What the reader says of a line that it skips.
_SKIPPED = re.compile(r',? *skipping\.?$|^Cannot parse', re.IGNORECASE)
# A line with a shape: not a comment, not a global setting, more than the name of a frame.
_UNREAD = re.compile(r'^[ \t]*(?!#|global\b)[^\s(]+[ \t(]+\S', re.MULTILINE | re.IGNORECASE)


def is_region(value: object, kind: str = 'Region') -> bool:
    """Return whether a value is a region.

    The package regions, which takes long to import, is not imported for it: without it there are
    no regions.

    Parameters
    ----------
    value : object
        Any value.
    kind : {'Region', 'Regions'}, optional
        Name of the class.

    Examples
    --------
    >>> from csr_astro.drawings import is_region
    >>> from regions import CirclePixelRegion, PixCoord
    >>> is_region(CirclePixelRegion(PixCoord(20, 30), 3)), is_region((20, 30))
    (True, False)
    """
    package = sys.modules.get('regions')
    return package is not None and isinstance(value, getattr(package, kind))


def drawing_kind(region: Region) -> str | None:
    """Return what a region is if it is no source, else None.

    Parameters
    ----------
    region : `~regions.Region`
        The region.

    Returns
    -------
    kind : {'annulus', 'background', 'excluded', 'line', 'text'} or None

    Examples
    --------
    >>> from regions import CircleAnnulusPixelRegion, CirclePixelRegion, PixCoord
    >>> from csr_astro.drawings import drawing_kind
    >>> drawing_kind(CircleAnnulusPixelRegion(PixCoord(20, 30), 3, 6))
    'annulus'
    >>> drawing_kind(CirclePixelRegion(PixCoord(20, 30), 3)) is None
    True
    """
    name, meta = type(region).__name__, region.meta or {}
    if _number(meta.get('include', 1)) == 0:
        return 'excluded'
    if _number(meta.get('background', 0)) == 1 or _number(meta.get('source', 1)) == 0:
        return 'background'
    for word in ('Annulus', 'Text', 'Line'):
        if word in name:
            return word.lower()
    return None


def _number(value):
    """Return the number for a property; the reader gives numbers, booleans or signs."""
    if isinstance(value, str):
        return 0 if value.strip() in ('-', '0', 'False') else 1
    return int(value)


def only_sources(regions: Sequence[Region], left_out: Counter | None = None,
                 of: str = '') -> list[Region]:  # fmt: skip
    """Return the regions that are sources, with a warning that counts the others.

    Parameters
    ----------
    regions : list of `~regions.Region`
        The regions.
    left_out : `~collections.Counter`, optional
        Kinds of regions that were left out before.
    of : str, optional
        Where the regions are from, for the message.

    Returns
    -------
    sources : list of `~regions.Region`

    Raises
    ------
    ValueError
        If none of the regions is a source.

    Warns
    -----
    AstropyUserWarning
        If some of the regions are no sources.

    Examples
    --------
    >>> from regions import CirclePixelRegion, LinePixelRegion, PixCoord
    >>> from csr_astro.drawings import only_sources
    >>> len(only_sources([CirclePixelRegion(PixCoord(20, 30), 3)]))
    1
    """
    kinds = [drawing_kind(region) for region in regions]
    counts = Counter(kind for kind in kinds if kind is not None)
    counts.update(left_out or {})
    sources = [region for region, kind in zip(regions, kinds, strict=True) if kind is None]
    if counts:
        total = len(sources) + sum(counts.values())
        listed = ', '.join(
            f'{n} {_SINGULAR.get(kind, kind) if n == 1 else _DRAWN[kind]}'
            for kind, n in counts.items()
        )
        if not sources:
            if total == 1:
                raise ValueError(f'the region{of} is no source: {listed}.')
            raise ValueError(f'none of the {total} regions{of} is a source: {listed}.')
        warnings.warn(
            f'{sum(counts.values())} of {total} regions{of} are no sources and are left out: '
            f'{listed}.',
            AstropyUserWarning,
            stacklevel=4,
        )
    return sources


# --------------------------------------------------------------------------------------- pixels


def to_pixel(region: Region, wcs: WcsLike | None) -> PixelRegion:
    """Convert a region to pixels; a region outside the projection becomes a point at NaN.

    Parameters
    ----------
    region : `~regions.Region`
        Region in pixels or on the sky.
    wcs : WCS or None
        World coordinate system of the map.

    Returns
    -------
    region : `~regions.PixelRegion`
    """
    from regions import (
        EllipseSkyRegion,
        PixCoord,
        PointPixelRegion,
        RectangleSkyRegion,
        SkyRegion,
    )

    if not isinstance(region, SkyRegion):
        return region
    require_wcs(wcs, 'sky regions')
    nowhere = PointPixelRegion(PixCoord(np.nan, np.nan))
    places = getattr(region, 'center', getattr(region, 'vertices', None))
    if places is not None and not np.isfinite(sky_to_pixels(places, wcs)).all():
        return nowhere
    try:
        with ignored(UserWarning, RuntimeWarning):
            if isinstance(region, EllipseSkyRegion | RectangleSkyRegion):
                return _turned(region, wcs)
            return region.to_pixel(wcs)
    except (ValueError, np.linalg.LinAlgError):
        return nowhere


def _turned(region, wcs):
    """Convert an ellipse or a rectangle, whose angle is from West through North on the sky.

    Older versions of regions take maps with East to the right for mirrored ones.
    """
    from regions import EllipsePixelRegion, EllipseSkyRegion, PixCoord, RectanglePixelRegion

    (x,), (y,) = sky_to_pixels(region.center, wcs)
    ellipse = isinstance(region, EllipseSkyRegion)
    width, height, angle = sky_shape(
        local_axes(wcs, x, y)[0],
        region.width.to_value(u.arcsec),
        region.height.to_value(u.arcsec),
        region.angle.to_value(u.rad) - np.pi / 2,
        ellipse=ellipse,
    )
    kind = EllipsePixelRegion if ellipse else RectanglePixelRegion
    return kind(
        PixCoord(x, y), width, height, angle=angle * u.rad, meta=region.meta.copy(),
        visual=region.visual.copy(),
    )  # fmt: skip


def has_area(region: PixelRegion) -> bool:
    """Return whether a region has an area that can be masked.

    Parameters
    ----------
    region : `~regions.PixelRegion`
        The region.
    """
    try:
        return bool(region.area > 0)
    except NotImplementedError:
        # The area of compound regions is not implemented.
        return True


def region_center(region: PixelRegion) -> tuple[float, float]:
    """Compute the centre of a region.

    Parameters
    ----------
    region : `~regions.PixelRegion`
        The region.

    Returns
    -------
    x, y : float
        Centre; of a polygon, its centroid.
    """
    center = getattr(region, 'center', None)
    if center is not None:
        return float(center.x), float(center.y)
    vertices = getattr(region, 'vertices', None)
    if vertices is not None:
        places = np.array([vertices.x, vertices.y], dtype=float)
        # Centroid of a polygon by the shoelace formula, relative to a vertex for precision.
        origin = places[:, :1]
        x, y = places - origin
        cross = x * np.roll(y, -1) - np.roll(x, -1) * y
        area = cross.sum() / 2
        if area != 0:
            here = (places - origin + np.roll(places - origin, -1, axis=1)) @ cross / (6 * area)
            return tuple(here + origin[:, 0])
        return tuple(places.mean(axis=1))
    try:
        row, column = region.bounding_box.center
    except ValueError:
        return np.nan, np.nan
    return column, row


# ---------------------------------------------------------------------------------------- files


def read_regions(path: Path, kind: str) -> Regions:
    """Read the sources in a file of regions.

    Parameters
    ----------
    path : `pathlib.Path`
        Path of the file, compressed or not.
    kind : {'ds9', 'crtf'}
        Format of the file.

    Returns
    -------
    regions : `~regions.Regions`
        Regions that are sources; a warning counts the others by kind.

    Raises
    ------
    ValueError
        If a line cannot be read, or no region is a source.
    """
    from regions import Regions

    with get_readable_fileobj(path, encoding='utf-8') as file:
        text = file.read()
    if kind == 'crtf' and not text.lstrip().startswith('#CRTF'):
        raise ValueError('its first line is not that of the format crtf, #CRTF')
    left_out: Counter = Counter()
    kept = [(0, text)]
    if kind == 'ds9':
        kept = _ds9_statements(text, left_out)
    try:
        regions = _parse(kept, kind)
    except Exception as error:
        number, first = _failing_line(kept, kind, error)
        reason = str(first).strip().split('\n')[0].rstrip('.')
        raise ValueError(f'line {number}: {reason}' if number else reason) from error
    if not len(regions) and not left_out and _UNREAD.search(text):
        raise ValueError(f'there is no region of the format {kind} in it')
    return Regions(only_sources(regions, left_out, f' of {str(path)!r}'))


def _ds9_statements(text, left_out):
    """Return the statements of a DS9 file as (line number, text), without those of no sources."""
    kept = []
    for number, line in enumerate(text.splitlines(), 1):
        for statement in _split(line):
            found = _STATEMENT.match(statement)
            kind = None if found is None else _ds9_kind(*found.groups())
            if kind is None:
                kept.append((number, statement))
            else:
                left_out[kind] += 1
    return kept


def _split(line):
    """Split a line at the semicolons that are in no braces or quotes."""
    hidden = _QUOTED.sub(lambda found: ' ' * len(found[0]), line)
    edges = [-1, *(i for i, letter in enumerate(hidden) if letter == ';'), len(line)]
    parts = (line[a + 1 : b].strip() for a, b in pairwise(edges))
    return [part for part in parts if part]


def _ds9_kind(comment, sign, word, rest):
    """Return the kind of a statement if it is that of no source, else None."""
    word = word.lower()
    # DS9 writes shapes that other programs do not know as comments.
    drawn = word in _DRAWN and word not in ('background', 'excluded')
    if comment:
        return word if drawn and rest.startswith('(') else None
    parameters, _, properties = rest.partition('#')
    shape = parameters.lstrip().startswith('(') or re.match(r'[\s\d+-]', parameters)
    if not shape or word == 'global':
        return None
    if sign == '-':
        return 'excluded'
    if re.search(r'\bbackground\b(?!\s*=\s*0)', _QUOTED.sub('', properties)):
        return 'background'
    if drawn:
        return word
    values = re.findall(r'[^\s,()]+', parameters)
    return 'annulus' if word in ('ellipse', 'box') and len(values) >= _WITH_HOLE else None


def _parse(statements, kind):
    """Parse statements; an error for one that the reader would skip with a warning."""
    from regions import Regions

    with one_at_a_time, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        regions = Regions.parse('\n'.join(line for _, line in statements), format=kind)
    for each in caught:
        text = str(each.message)
        if _SKIPPED.search(text):
            raise ValueError(re.sub(r',? *skipping\.?$', '', text))
        warnings.warn(text, each.category, stacklevel=6)
    return regions


def _failing_line(statements, kind, error):
    """Return the number of the first line that cannot be read, or 0, and the error."""
    frame = (0, '')
    for number, line in statements:
        try:
            with ignored(AstropyUserWarning):
                _parse([frame, (number, line)], kind)
        except Exception as found:  # noqa: BLE001  (every reader raises its own)
            return number, found
        if re.fullmatch(r'[A-Za-z0-9]+', line):
            frame = number, line
    return 0, error
