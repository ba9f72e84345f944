"""Conversion of source lists of any kind to `Sources`.

`Sources` are pixel positions in the order given, with the regions that the user drew
as masks.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from regions import (
    LinePixelRegion,
    LineSkyRegion,
    PixCoord,
    PixelRegion,
    PointPixelRegion,
    Region,
    Regions,
    SkyRegion,
    TextPixelRegion,
    TextSkyRegion,
)

from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from csr_astro.typing import PathLike, SourcesLike, WcsLike

__all__ = ['Sources', 'parse_sources', 'read_sources']


_ACCEPTED = (
    'a SkyCoord, one or many regions, a table with pixel or sky columns, or an (N, 2) array of '
    '(x, y) pixels'
)
# Names of position columns in photutils, in order of preference; {} is x or y.
_PIXEL_COLUMNS = (
    '{}_init', '{}init', '{}', '{}_0', '{}0', '{}centroid', '{}_centroid', '{}_peak', '{}peak',
    '{}cen', '{}_cen', '{}center', '{}_center', '{}centre', '{}_centre', '{}pos', '{}_pos',
    '{}_fit', '{}fit', '{}pix', '{}_pix',
)  # fmt: skip
# Kinds of dtype without real numbers: complex, times, time differences and structures.
_NO_NUMBERS = 'cMmV'
# Largest error of a round trip from sky to pixels and back, in units of a pixel's diagonal.
_ROUND_TRIP = 0.1
# Units of sexagesimal columns in VizieR tables.
_SEXAGESIMAL = ('h:m:s', 'd:m:s')
_SKY_COLUMNS = (
    ('ra', 'dec', 'icrs'),
    ('ra_deg', 'dec_deg', 'icrs'),
    ('radeg', 'dedeg', 'icrs'),
    ('raj2000', 'dej2000', 'icrs'),
    ('raj2000', 'decj2000', 'icrs'),
    ('_raj2000', '_dej2000', 'icrs'),
    ('ra_icrs', 'de_icrs', 'icrs'),
    ('ra_j2000', 'dec_j2000', 'icrs'),
    ('alpha_j2000', 'delta_j2000', 'icrs'),
    ('l', 'b', 'galactic'),
    ('glon', 'glat', 'galactic'),
)


@dataclass(frozen=True, eq=False)
class Sources:
    """Pixel positions of sources, and the regions drawn around them.

    Attributes
    ----------
    x, y : (N,) `~numpy.ndarray` of float64
        Pixel positions, zero-based; NaN for a source without position.
    regions : list of `~regions.PixelRegion` or None, or None
        Region that the user drew around each source; None for points.

    Examples
    --------
    >>> from csr_astro.sources import parse_sources
    >>> sources = parse_sources([(20, 30), (40, 35)])
    >>> print(len(sources), sources.x, sources.regions)
    2 [20. 40.] None
    """

    x: np.ndarray
    y: np.ndarray
    regions: list | None = None

    def __repr__(self) -> str:
        n_regions = sum(region is not None for region in self.regions or [])
        drawn = f', {n_regions} with regions' if n_regions else ''
        return f'<Sources: {len(self)}{drawn}>'

    def __len__(self) -> int:
        return len(self.x)


def _need_wcs(wcs, what):
    if wcs is None:
        raise ValueError(f'{what} need a WCS, and the data have none; give wcs= or pixels.')


def _from_sky(coordinates, wcs):
    _need_wcs(wcs, 'sky coordinates')
    coordinates = coordinates.ravel() if coordinates.shape else coordinates.reshape(1)
    x, y = np.full(len(coordinates), np.nan), np.full(len(coordinates), np.nan)
    known = np.ones(len(coordinates), dtype=bool)
    for angle in (coordinates.spherical.lon, coordinates.spherical.lat):
        known &= np.isfinite(getattr(angle, 'unmasked', angle).value)
        known &= ~np.broadcast_to(getattr(angle, 'mask', False), known.shape)
    if known.any():
        found = coordinates[known]
        # Astropy 7.0 refuses Masked coordinates even if none of them is masked.
        x[known], y[known] = _pixels(getattr(found, 'unmasked', found), wcs)
    return Sources(x, y)


def _pixels(coordinates, wcs):
    """Convert coordinates to pixels, NaN where the projection has none.

    Distortions are inverted by iteration, which may fail with a warning outside the map.
    Only pixels that convert back to the coordinates are kept.
    """
    with ignored(UserWarning, RuntimeWarning):
        x, y = (np.array(axis, dtype=float) for axis in wcs.world_to_pixel(coordinates))
        back, beside = wcs.pixel_to_world(x, y), wcs.pixel_to_world(x + 1, y + 1)
        missed = coordinates.separation(back) > _ROUND_TRIP * back.separation(beside)
    x[missed] = y[missed] = np.nan
    return x, y


def _from_regions(regions, wcs):
    pixel = [_to_pixel(region, wcs) for region in regions]
    centers = np.array([_region_center(region) for region in pixel]).reshape(-1, 2)
    # Points and lines have no area that could be masked.
    shapes = [region if _has_area(region) else None for region in pixel]
    return Sources(centers[:, 0], centers[:, 1], shapes if any(shapes) else None)


def _to_pixel(region, wcs):
    if isinstance(region, SkyRegion):
        _need_wcs(wcs, 'sky regions')
        # A region outside the projection is a source without position.
        nowhere = PointPixelRegion(PixCoord(np.nan, np.nan))
        places = getattr(region, 'center', getattr(region, 'vertices', None))
        if places is not None and not np.isfinite(_from_sky(places, wcs).x).all():
            return nowhere
        try:
            with ignored(UserWarning, RuntimeWarning):
                return region.to_pixel(wcs)
        except (ValueError, np.linalg.LinAlgError):
            return nowhere
    if not isinstance(region, PixelRegion):
        raise TypeError(
            f'sources must be {_ACCEPTED}, got a list with a {type(region).__name__}.'
        )
    return region


def _has_area(region):
    try:
        return bool(region.area > 0)
    except NotImplementedError:
        # The area of compound regions is not implemented.
        return True


def _region_center(region):
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


def _filled(table, name, unit):
    """Return a column as floats in some unit, NaN where it is masked."""
    column = table[name]
    own = getattr(column, 'unit', None)
    mask = np.ma.getmaskarray(column) if isinstance(column, np.ma.MaskedArray) else getattr(
        column, 'mask', False
    )
    if column.ndim != 1 or column.dtype.kind in _NO_NUMBERS:
        raise ValueError(f'the column {name!r} of sources must hold a number in each row.')
    try:
        values = np.array(getattr(column, 'unmasked', column), dtype=float)
        values = values if own is None else u.Quantity(values, own).to_value(unit)
    except u.UnitConversionError:
        raise ValueError(
            f'the column {name!r} of sources is in {own}, which does not convert to {unit}.'
        ) from None
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f'the column {name!r} of sources must hold numbers.') from None
    values[np.broadcast_to(mask, values.shape)] = np.nan
    return values


def _from_table(table, wcs):
    names = {}
    for name in table.colnames:
        names.setdefault(name.lower(), name)
    pixels = [
        [names[pattern.format(axis)] for axis in 'xy']
        for pattern in _PIXEL_COLUMNS
        if {pattern.format(axis) for axis in 'xy'} <= names.keys()
    ]
    # Sky positions hold for every map, pixels only for the map on which they were measured.
    sky = None if pixels and wcs is None else _sky_columns(table, names)
    if sky is not None:
        return _from_sky(sky, wcs)
    if pixels:
        return Sources(*(_filled(table, name, u.pix) for name in pixels[0]))
    raise ValueError(
        'the table of sources has no columns of positions; pixel columns are x and y (or '
        'x_init, x_0, xcentroid and so on, as in photutils), sky columns a SkyCoord, ra and dec, '
        f'or l and b; it has {table.colnames}.'
    )


def _sky_columns(table, names):
    """Return the sky coordinates of a table, or None if it has none."""
    for name in table.colnames:
        if isinstance(table[name], SkyCoord):
            return table[name]
    for longitude, latitude, frame in _SKY_COLUMNS:
        if longitude in names and latitude in names:
            columns = names[longitude], names[latitude]
            if all(_is_text(table[column]) for column in columns):
                return _from_text(table, *columns, frame)
            lon, lat = (_filled(table, column, u.deg) for column in columns)
            lat[np.abs(lat) > 90] = np.nan
            lon[~np.isfinite(lon)] = np.nan
            return SkyCoord(lon, lat, unit='deg', frame=frame)
    return None


def _is_text(column):
    # Text columns of VOTables have dtype object.
    kind = column.dtype.kind
    return kind in 'SU' or (kind == 'O' and all(isinstance(each, str) for each in column))


def _from_text(table, longitude, latitude, frame):
    """Parse sexagesimal columns: hours and degrees, unless the column has a unit."""
    units = [
        default if table[name].unit is None or str(table[name].unit).strip('"') in _SEXAGESIMAL
        else table[name].unit
        for name, default in ((longitude, u.hourangle), (latitude, u.deg))
    ]  # fmt: skip
    try:
        return SkyCoord(list(table[longitude]), list(table[latitude]), unit=units, frame=frame)
    except (ValueError, u.UnitsError) as error:
        reason = ' '.join(str(error).split()).rstrip('.')
        raise ValueError(
            f'the columns {longitude!r} and {latitude!r} of sources are not understood: {reason}.'
        ) from None


def _from_array(array):
    given = array
    if isinstance(array, u.Quantity):
        if not array.unit.is_equivalent(u.pix) and array.unit != u.dimensionless_unscaled:
            raise ValueError(
                f'positions must be pixels or a SkyCoord, got a Quantity in {array.unit}.'
            )
        array = array.value
    try:
        array = np.ma.asarray(array)
        # Refuse these kinds, because casting them to float would only warn.
        array = array if array.dtype.kind not in _NO_NUMBERS else None
        # Numbers too large for float64 are off every map.
        with np.errstate(over='ignore'):
            array = np.ma.filled(array.astype(float), np.nan)
    except (AttributeError, TypeError, ValueError, OverflowError):
        kind = type(given).__name__
        raise TypeError(f'sources must be {_ACCEPTED}, got {kind}.') from None
    if array.size == 0:
        array = array.reshape(0, 2)
    if array.shape == (2,):
        array = array[np.newaxis]
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f'sources must be an (N, 2) array of (x, y), got shape {array.shape}.')
    return Sources(array[:, 0].copy(), array[:, 1].copy())


def parse_sources(sources: SourcesLike, wcs: WcsLike | None = None) -> Sources:
    """Convert positions of any accepted kind to `Sources`.

    Parameters
    ----------
    sources : SkyCoord, region, list of regions, `~regions.Regions`, table or array
        Positions: coordinates on the sky; pixel or sky regions of any kind; a
        table with a SkyCoord column, with ra and dec (l and b) in degrees or with
        units, or with pixel columns named as in photutils (``x_init`` before
        ``x_fit``), which are used without sky columns or WCS; (N, 2) pixels (x, y),
        zero-based.
    wcs : optional
        World coordinate system of the map, needed for positions on the sky.

    Returns
    -------
    sources : `Sources`

    Examples
    --------
    >>> from csr_astro.sources import parse_sources
    >>> parse_sources([(10, 20), (30.5, 40)]).x
    array([10. , 30.5])
    """
    if isinstance(sources, Sources):
        return sources
    if isinstance(sources, SkyCoord):
        return _from_sky(sources, wcs)
    if isinstance(sources, Region):
        return _from_regions([sources], wcs)
    if isinstance(sources, Regions):
        return _from_regions(list(sources), wcs)
    if isinstance(sources, Table):
        return _from_table(sources, wcs)
    if isinstance(sources, list | tuple) and len(sources):
        if isinstance(sources[0], Region):
            return _from_regions(sources, wcs)
        if isinstance(sources[0], SkyCoord):
            if not all(isinstance(each, SkyCoord) for each in sources):
                raise TypeError(f'sources must be {_ACCEPTED}, not a mixture.')
            icrs = [each.icrs.reshape(-1) for each in sources]
            ra, dec = (np.concatenate([getattr(c, a).deg for c in icrs]) for a in ('ra', 'dec'))
            return _from_sky(SkyCoord(ra, dec, unit='deg'), wcs)
    if sources is None or isinstance(sources, str | Path | dict):
        raise TypeError(f'sources must be {_ACCEPTED}, got {type(sources).__name__}.')
    return _from_array(sources)


# A line with a shape: not a comment, not a global setting, more than the name of a frame.
_UNREAD = re.compile(r'^[ \t]*(?!#|global\b)[^\s(]+[ \t(]+\S', re.MULTILINE | re.IGNORECASE)


def read_sources(path: PathLike) -> Table | Regions:
    """Read a catalogue file.

    Parameters
    ----------
    path : path-like
        Path of a table in a format that astropy recognises (ECSV, CSV, TSV, FITS,
        VOTable, IPAC, plain columns with a header), compressed or not, or of DS9 or
        CRTF regions (``.reg``, ``.crtf``). Excluded regions, texts and lines are not
        sources and are skipped with a warning.

    Returns
    -------
    sources : `~astropy.table.Table` or `~regions.Regions`
        Input for `parse_sources`.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from astropy.table import Table
    >>> from csr_astro.sources import parse_sources, read_sources
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / 'stars.csv'
    ...     Table({'x': [20, 40], 'y': [30, 35]}).write(path)
    ...     table = read_sources(path)
    >>> print(parse_sources(table).y)
    [30. 35.]
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f'no such file: {str(path)!r}.')
    try:
        return _read(path)
    except Exception as error:
        # Every reader raises its own exceptions; all mean the same to the user.
        reason = str(error).strip().split('\n')[0].rstrip('.')
        raise ValueError(f'{str(path)!r} cannot be read as a catalogue: {reason}.') from error


# utf-8-sig removes the byte-order mark that spreadsheets write before the first name.
_TEXT = {'encoding': 'utf-8-sig'}
_FORMATS = {
    '.ecsv': {'format': 'ascii.ecsv'},
    '.csv': {'format': 'ascii.csv', 'comment': '#', **_TEXT},
    '.tsv': {'format': 'ascii.tab', 'comment': '#', **_TEXT},
    **{end: {'format': 'ascii', **_TEXT} for end in ('.txt', '.dat', '.tbl')},
}


def _read(path):
    name = path.with_suffix('') if path.suffix.lower() in ('.gz', '.bz2', '.xz') else path
    suffix = name.suffix.lower()
    if suffix in ('.reg', '.ds9', '.crtf'):
        return _read_regions(path, 'crtf' if suffix == '.crtf' else 'ds9')
    return Table.read(path, **_FORMATS.get(suffix, {}))


def _read_regions(path, kind):
    regions = Regions.read(path, format=kind)
    if not len(regions) and _UNREAD.search(path.read_text(errors='replace')):
        raise ValueError(f'there is no region of the format {kind} in it')
    sources = [region for region in regions if _is_source(region)]
    if len(sources) < len(regions):
        warnings.warn(
            f'{len(regions) - len(sources)} of {len(regions)} regions of {str(path)!r} are '
            'excluded, texts or lines, and are no sources.',
            AstropyUserWarning,
            stacklevel=4,
        )
    return Regions(sources)


def _is_source(region):
    drawn = (TextPixelRegion, TextSkyRegion, LinePixelRegion, LineSkyRegion)
    # The reader turns the minus sign of an excluded DS9 region into a number or a boolean.
    return bool(int(region.meta.get('include', True))) and not isinstance(region, drawn)
