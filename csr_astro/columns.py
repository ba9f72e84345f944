"""Columns of tables that hold the positions and the identifiers of sources.

The names are in ``data/column_names.toml``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord

from csr_astro.utils.data import read_data
from csr_astro.utils.sky import require_wcs, sky_to_pixels
from csr_astro.utils.text import is_text, is_words
from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from astropy.table import Table

    from csr_astro.typing import WcsLike

__all__ = [
    'ORIGIN_KEY', 'Positions', 'find_identifier', 'find_positions', 'has_positions', 'known_names',
]

ORIGIN_KEY = 'pixel_origin'  #: Entry of a table's ``meta``: 1 if its pixels are one-based.

# Kinds of dtype without real numbers: complex, times, time differences and structures.
_NO_NUMBERS = 'cMmV'
# Units of sexagesimal columns in VizieR tables.
_SEXAGESIMAL = ('h:m:s', 'd:m:s')
# Names of units as people write them.
_UNITS = {
    **dict.fromkeys(('deg', 'degs', 'degree', 'degrees', 'd', 'dd', '°'), u.deg),
    **dict.fromkeys(('h', 'hr', 'hour', 'hours', 'hourangle'), u.hourangle),
    **dict.fromkeys(('rad', 'radian', 'radians'), u.rad),
    **dict.fromkeys(('pix', 'pixel', 'pixels', 'px'), u.pix),
}
# Words in brackets after a name that are no units.
_REMARKS = ('j2000', 'j2000.0', '2000', '2000.0', 'icrs', 'hms', 'dms', 'h:m:s', 'd:m:s')
_BRACKETS = re.compile(r'\s*[(\[{]([^()\[\]{}]*)[)\]}]\s*$')
# Kinds that a user may name, and those of the data file.
_KINDS = {
    'pixel': 'pixel', 'pixel1': 'pixel1', 'icrs': 'icrs', 'fk5': 'fk5', 'fk4': 'fk4',
    'galactic': 'galactic', 'ecliptic': 'barycentricmeanecliptic',
}  # fmt: skip
# Columns of the tables that this package writes, whose pixels may be those of another map.
_OWN = {'x_center', 'y_center', 'mask_name', 'mask_radius', 'flags'}
# Columns disagree if half of the sources are farther apart than this, in pixels.
_APART = 2.0
# Number of rows that are compared.
_COMPARED = 1000


@dataclass(frozen=True, eq=False)
class Positions:
    """Pixel positions of the rows of a table, and the columns that hold them.

    Attributes
    ----------
    x, y : (N,) `~numpy.ndarray` of float64
        Zero-based pixels; NaN for an unknown position.
    columns : tuple of str
        Names of the columns.
    kind : str
        What they hold: ``'pixel'``, ``'pixel1'`` or the name of a frame.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.columns import Positions
    >>> print(Positions(np.array([10.0]), np.array([20.0]), ('x', 'y'), 'pixel'))
    x, y (pixels)
    """

    x: np.ndarray
    y: np.ndarray
    columns: tuple[str, ...]
    kind: str

    def __str__(self) -> str:
        kinds = {'pixel': 'pixels', 'pixel1': 'one-based pixels'}
        return f'{", ".join(self.columns)} ({kinds.get(self.kind, self.kind)})'


@dataclass(frozen=True)
class _Candidate:
    """Columns that may hold positions."""

    columns: tuple[str, ...]
    kind: str
    unit: str = 'deg'
    producer: str = ''

    @property
    def on_sky(self):
        return not self.kind.startswith('pixel')

    def __str__(self):
        return ' and '.join(repr(name) for name in self.columns)


def known_names() -> dict[str, Any]:
    """Return the names of columns that are known, the content of ``data/column_names.toml``.

    Examples
    --------
    >>> from csr_astro.columns import known_names
    >>> known_names()['identifier']['names'][:3]
    ['id', 'label', 'name']
    """
    return read_data('column_names.toml')


def _plain(name):
    """Reduce a name to lower-case letters and digits, without a unit in brackets."""
    return re.sub(r'[\W_]', '', _BRACKETS.sub('', str(name)).lower())


@cache
def _pairs():
    """Return the known pairs of names as (names, plain names, entry), in order of preference."""
    found = []
    for entry in known_names()['position']:
        for pair in entry.get('pairs', ()):
            names = tuple(pair.split())
            found.append((names, tuple(map(_plain, names)), entry))
    return found


def _named_unit(name):
    """Return the unit in the brackets of a name, or None."""
    found = _BRACKETS.search(str(name))
    return _UNITS.get(found[1].strip().lower()) if found else None


class _Names:
    """Names of a table's columns, found by any spelling."""

    def __init__(self, table):
        self.lower, self.plain = {}, {}
        for name in table.colnames:
            self.lower.setdefault(name.lower(), name)
            self.plain.setdefault(_plain(name), name)

    def find(self, name, plain=None):
        return self.lower.get(name) or self.plain.get(plain or _plain(name))


def _coordinate_columns(table):
    """Return the candidates among SkyCoord columns, the known first, and the others."""
    columns = [name for name in table.colnames if isinstance(table[name], SkyCoord)]
    known, producers = [], {}
    for entry in known_names()['position']:
        for each in entry.get('names', ()):
            for name in columns:
                if _plain(name) == _plain(each) and name not in known:
                    known.append(name)
                    producers[name] = entry.get('producer', '')
    words = known_names()['elsewhere']['words']
    others = [
        name
        for name in columns
        if name not in known and not any(word in name.lower() for word in words)
    ]
    return (
        [_Candidate((name,), 'coordinates', producer=producers[name]) for name in known],
        [_Candidate((name,), 'coordinates') for name in others],
    )


def _named_pairs(table):
    """Return the candidates among pairs of columns with known names."""
    names = _Names(table)
    found = []
    for pair, plain, entry in _pairs():
        columns = tuple(map(names.find, pair, plain))
        if None in columns or any(isinstance(table[name], SkyCoord) for name in columns):
            continue
        found.append(_Candidate(columns, entry['kind'], entry['unit'], entry.get('producer', '')))
    return list({each.columns: each for each in reversed(found)}.values())[::-1]


def _numbered_pairs(table):
    """Return pairs of known names with a number after them, as in joined tables: ra_1, dec_1."""
    stems = {}
    for name in table.colnames:
        if match := re.fullmatch(r'(.+?)_(\d)', name):
            stems.setdefault(match[2], {})[_plain(match[1])] = name
    found = []
    for numbered in stems.values():
        for _, plain, entry in _pairs():
            if all(name in numbered for name in plain):
                columns = tuple(numbered[name] for name in plain)
                found.append(_Candidate(columns, entry['kind'], entry['unit']))
                break
    return found


def _split_columns(table):
    """Return the columns of hours, minutes and seconds, or an empty tuple."""
    parts = known_names()['sexagesimal']
    columns = (*parts['longitude'], *parts['latitude'])
    return columns if set(columns) <= set(table.colnames) else ()


def has_positions(table: Table) -> bool:
    """Return whether a table has columns of positions with known names.

    Parameters
    ----------
    table : `~astropy.table.Table`
        The table.

    Examples
    --------
    >>> from astropy.table import Table
    >>> from csr_astro.columns import has_positions
    >>> has_positions(Table({'RA (deg)': [1.0], 'Dec (deg)': [2.0]})), has_positions(Table())
    (True, False)
    """
    return bool(any(_coordinate_columns(table)) or _named_pairs(table) or _split_columns(table))


def find_positions(
    table: Table, wcs: WcsLike | None = None, columns: str | Sequence[str] | None = None
) -> Positions:
    """Find the positions of the rows of a table.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Table with one row per source.
    wcs : WCS, optional
        World coordinate system of the map. With it, positions on the sky come before pixels,
        which may be those of another map.
    columns : str or sequence of str, optional
        Name of a SkyCoord column, or names of two columns; a third word says what they hold
        if neither name nor unit does: ``'pixel'``, ``'pixel1'`` (one-based), ``'icrs'``,
        ``'fk5'``, ``'fk4'``, ``'galactic'`` or ``'ecliptic'``.

    Returns
    -------
    positions : `Positions`

    Raises
    ------
    ValueError
        If no columns are found, or several that are equally good and disagree.

    Examples
    --------
    >>> from astropy.table import Table
    >>> from csr_astro.columns import find_positions
    >>> found = find_positions(Table({'X_IMAGE': [11.0], 'Y_IMAGE': [21.0]}))
    >>> print(found.x, found)
    [10.] X_IMAGE, Y_IMAGE (one-based pixels)
    """
    if columns is not None:
        return _positions(table, _chosen(table, columns), wcs)
    known, others = _coordinate_columns(table)
    pairs = _named_pairs(table)
    sky = [*known, *(each for each in pairs if each.on_sky)]
    pixels = [each for each in pairs if not each.on_sky]
    if wcs is not None or not pixels:
        _refuse_different(table, known)
    if sky and not (pixels and wcs is None):
        equatorial = [each for each in sky if each.kind not in ('coordinates', 'galactic')]
        best = [sky[0], *equatorial[:1], *pixels[:1]]
        _refuse_disagreement(table, best, wcs)
        return _positions(table, sky[0], wcs)
    if pixels:
        return _positions(table, pixels[0], wcs)
    if split := _split_columns(table):
        return Positions(*sky_to_pixels(_from_parts(table), wcs), split, 'icrs')
    for candidates in (others, _numbered_pairs(table)):
        if len(candidates) > 1:
            raise ValueError(_ambiguity(candidates))
        if candidates:
            return _positions(table, candidates[0], wcs)
    raise ValueError(
        'the table of sources has no columns of positions; pixel columns are x and y (or '
        'x_init, x_0, xcentroid and so on, as in photutils), sky columns a SkyCoord, ra and dec, '
        f'or l and b; it has {table.colnames}; name them with columns=.'
    )


def _ambiguity(candidates):
    listed = '; '.join(map(str, candidates))
    return f'several columns may hold the positions: {listed}; {_how_to_choose(candidates[0])}'


def _how_to_choose(candidate):
    columns = candidate.columns
    return f'choose with columns={columns!r}, or --columns {",".join(columns)} at the shell.'


def _refuse_different(table, candidates):
    """Raise an error if known SkyCoord columns are not of the same places."""
    for one, other in combinations(candidates, 2):
        found = [table[each.columns[0]][:_COMPARED] for each in (one, other)]
        if not len(found[0]):
            return
        apart = np.asarray(found[0].separation(found[1]).to_value(u.arcsec), dtype=float)
        if np.isfinite(apart).any() and np.nanmedian(apart) > _APART:
            raise ValueError(_ambiguity([one, other]))


def _refuse_disagreement(table, candidates, wcs):
    """Raise an error if columns of equal rank put the sources at different places."""
    if wcs is None or not len(table) or set(table.colnames) >= _OWN:
        return
    first, *others = candidates
    sample = table[:_COMPARED]
    for other in others:
        if other == first or (first.producer and first.producer == other.producer):
            continue
        try:
            with ignored(UserWarning):
                places = [_positions(sample, each, wcs) for each in (first, other)]
        except ValueError:
            continue  # Not positions after all, such as text in a column named y.
        apart = np.hypot(places[0].x - places[1].x, places[0].y - places[1].y)
        if np.isfinite(apart).any() and np.nanmedian(apart) > _APART:
            raise ValueError(
                f'{first} and {other} put the sources at different places, '
                f'{np.nanmedian(apart):.3g} pixels apart; {_how_to_choose(first)}'
            )


def _chosen(table, columns):
    """Return the candidate that the user names."""
    given = [columns] if isinstance(columns, str) else list(columns)
    kind = given.pop().strip().lower() if len(given) == 3 else None
    names = [str(name).strip() for name in given]
    if len(names) not in (1, 2) or (kind is not None and kind not in _KINDS):
        raise ValueError(
            'columns must be the name of a SkyCoord column, or two names and, if wanted, one of '
            f'{", ".join(_KINDS)}, got {columns!r}.'
        )
    found = _Names(table)
    names = [name if name in table.colnames else found.lower.get(name.lower()) for name in names]
    if None in names:
        raise ValueError(
            f'the table of sources has no column {given[names.index(None)]!r}; '
            f'it has {table.colnames}.'
        )
    if len(names) == 1:
        if not isinstance(table[names[0]], SkyCoord):
            raise ValueError(
                f'the column {names[0]!r} of sources holds no SkyCoord; give two columns.'
            )
        return _Candidate((names[0],), 'coordinates')
    pair = tuple(names)
    if kind is not None:
        return _Candidate(pair, _KINDS[kind], 'pix' if kind.startswith('pixel') else 'deg')
    plain = tuple(_plain(re.sub(r'_\d$', '', name)) for name in pair)
    for known in (tuple(map(_plain, pair)), plain):
        for _, each, entry in _pairs():
            if each == known:
                return _Candidate(pair, entry['kind'], entry['unit'])
    units = [_column_unit(table[name], name) for name in pair]
    if all(unit is not None and unit.is_equivalent(u.deg) for unit in units):
        return _Candidate(pair, 'icrs')
    if all(unit == u.pix for unit in units):
        return _Candidate(pair, 'pixel', 'pix')
    if all(is_text(table[name]) for name in pair):
        return _Candidate(pair, 'icrs')
    raise ValueError(
        f'neither the names nor the units of {pair[0]!r} and {pair[1]!r} say what they hold; add '
        f'one of {", ".join(_KINDS)}: columns=({pair[0]!r}, {pair[1]!r}, "icrs"), or '
        f'--columns {pair[0]},{pair[1]},icrs.'
    )


def _positions(table, candidate, wcs):
    columns, kind = candidate.columns, candidate.kind
    if kind == 'pixel' and table.meta.get(ORIGIN_KEY) == 1:
        kind = 'pixel1'
    if kind == 'coordinates':
        coordinates = table[columns[0]]
        return Positions(*sky_to_pixels(coordinates, wcs), columns, coordinates.frame.name)
    if kind.startswith('pixel'):
        first = 1.0 if kind == 'pixel1' else 0.0
        x, y = (_filled(table, name, u.pix) - first for name in columns)
        return Positions(x, y, columns, kind)
    require_wcs(wcs, 'sky coordinates')
    return Positions(*sky_to_pixels(_coordinates(table, candidate), wcs), columns, kind)


def _coordinates(table, candidate):
    columns, kind = candidate.columns, candidate.kind
    if any(is_words(table[name]) for name in columns):
        return _from_text(table, *columns, kind)
    units = candidate.unit.split() * 2  # One for both, or one for each.
    lon, lat = (_filled(table, *each) for each in zip(columns, [u.deg] * 2, units, strict=False))
    lat[np.abs(lat) > 90] = np.nan
    lon[~np.isfinite(lon)] = np.nan
    return SkyCoord(lon, lat, unit='deg', frame=kind)


def _column_unit(column, name):
    """Return the unit of a column, or that in its name, or None."""
    own = getattr(column, 'unit', None)
    text = str(own).strip().strip('"').lower() if own is not None else ''
    if not text:
        return _named_unit(name)
    # Hours, which are otherwise a unit of time.
    return _UNITS.get(text, own)


def _filled(table, name, unit, default=None):
    """Return a column as floats in some unit, NaN where it is masked."""
    column = table[name]
    own = _column_unit(column, name)
    own = default if own is None else own
    mask = np.ma.getmaskarray(column) if isinstance(column, np.ma.MaskedArray) else getattr(
        column, 'mask', False
    )
    if column.ndim != 1 or column.dtype.kind in _NO_NUMBERS:
        raise ValueError(f'the column {name!r} of sources must hold a number in each row.')
    try:
        values = _numbers(getattr(column, 'unmasked', column), mask)
        values = values if own is None else u.Quantity(values, own).to_value(unit)
    except u.UnitConversionError:
        raise ValueError(
            f'the column {name!r} of sources is in {own}, which does not convert to {unit}.'
        ) from None
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f'the column {name!r} of sources must hold numbers{_first_bad(column)}.'
        ) from None
    values[np.broadcast_to(mask, values.shape)] = np.nan
    return values


def _numbers(column, mask):
    values = np.array(getattr(column, 'value', column))
    if values.dtype.kind in 'SUO' and np.any(mask):
        # Masked text is empty or has any content.
        values = np.where(np.broadcast_to(mask, values.shape), 'nan', values)
    return values.astype(float)


def _first_bad(column):
    """Describe the first row of a column that holds no number."""
    for i, value in enumerate(np.asarray(column).tolist()):
        try:
            float(value)
        except (TypeError, ValueError):
            return f', row {i + 1} holds {value!r}'
    return ''


def _from_text(table, longitude, latitude, frame):
    """Parse sexagesimal columns: hours and degrees, unless the column has a unit."""
    hours = u.deg if frame in ('galactic', 'barycentricmeanecliptic') else u.hourangle
    units = [
        default if is_words(table[name]) and _is_sexagesimal(table[name])
        else _column_unit(table[name], name) or (default if is_words(table[name]) else u.deg)
        for name, default in ((longitude, hours), (latitude, u.deg))
    ]
    known = np.ones(len(table), dtype=bool)
    texts = []
    for name in (longitude, latitude):
        column = table[name]
        mask = np.broadcast_to(getattr(column, 'mask', False), len(table))
        values = [
            '' if hidden else each.decode() if isinstance(each, bytes) else str(each)
            for each, hidden in zip(np.asarray(column).tolist(), mask, strict=True)
        ]
        known &= [bool(value.strip()) for value in values]
        texts.append(values)
    lon, lat = np.full((2, len(table)), np.nan)
    rows = np.flatnonzero(known)
    if len(rows):
        try:
            found = _parse_text(texts, rows, units, frame)
        except (ValueError, u.UnitsError) as error:
            row, error = _first_unreadable(texts, rows, units, frame, error)
            reason = ' '.join(str(error).split()).rstrip('.')
            raise ValueError(
                f'the columns {longitude!r} and {latitude!r} of sources are not understood in '
                f'row {row + 1}, {texts[0][row]!r} and {texts[1][row]!r}: {reason}.'
            ) from None
        lon[rows], lat[rows] = found.spherical.lon.deg, found.spherical.lat.deg
    return SkyCoord(lon, lat, unit='deg', frame=frame)


def _is_sexagesimal(column):
    return column.unit is None or str(column.unit).strip('"') in _SEXAGESIMAL


def _parse_text(texts, rows, units, frame):
    lon, lat = ([each[i] for i in rows] for each in texts)
    return SkyCoord(lon, lat, unit=units, frame=frame)


def _first_unreadable(texts, rows, units, frame, error):
    for row in rows:
        try:
            _parse_text(texts, [row], units, frame)
        except (ValueError, u.UnitsError) as found:
            return row, found
    return rows[0], error


def _from_parts(table):
    """Return the coordinates in columns of hours, degrees, minutes and seconds."""
    parts = known_names()['sexagesimal']
    sign, *latitude = parts['latitude']
    lon, lat = (
        sum(
            np.ma.filled(np.ma.asarray(table[name], dtype=float), np.nan) / 60**power
            for power, name in enumerate(names)
        )
        for names in (parts['longitude'], latitude)
    )
    south = np.array([str(each).strip().startswith('-') for each in table[sign]], dtype=bool)
    return SkyCoord(15 * lon, np.where(south, -lat, lat), unit='deg')


def find_identifier(table: Table, used: Sequence[str] = ()) -> tuple[str, np.ndarray] | None:
    """Find the column that identifies the rows of a table.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Table with one row per source.
    used : sequence of str, optional
        Columns that hold positions.

    Returns
    -------
    found : (str, (N,) `~numpy.ndarray`) or None
        Name of the column and its whole numbers or texts. The first in the order of
        preference that has no value twice comes first. None if no column has such a name.

    Examples
    --------
    >>> from astropy.table import Table
    >>> from csr_astro.columns import find_identifier
    >>> name, ids = find_identifier(Table({'NUMBER': [7, 3], 'FLUX': [1.0, 2.0]}))
    >>> print(name, ids)
    NUMBER [7 3]
    """
    names = _Names(table)
    candidates: list[tuple[str, np.ndarray]] = []
    for each in known_names()['identifier']['names']:
        name = names.find(each)
        if name is None or name in used or name in dict(candidates):
            continue
        values = _identifiers(table[name])
        if values is not None:
            candidates.append((name, values))
    for name, values in candidates:
        if len(np.unique(values)) == len(values):
            return name, values
    return candidates[0] if candidates else None


def _identifiers(column):
    """Return whole numbers or texts, or None if a column holds neither in every row."""
    if getattr(column, 'ndim', 0) != 1 or np.any(getattr(column, 'mask', False)):
        return None
    values = np.array(getattr(column, 'unmasked', getattr(column, 'value', column)))
    if values.dtype.kind == 'S':
        values = np.char.decode(values, 'utf-8', 'replace')
    if values.dtype.kind == 'O':
        if not all(isinstance(each, str) for each in values):
            return None
        values = values.astype(str)
    if values.dtype.kind == 'f':
        if not (np.isfinite(values).all() and (values == np.floor(values)).all()):
            return None
        values = values.astype(int)
    return values if values.dtype.kind in 'iuU' else None
