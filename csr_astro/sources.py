"""Conversion of source lists of any kind to `Sources`.

`Sources` are pixel positions in the order given, with the regions that the user drew
as masks, and the identifiers and columns of the user's catalogue.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, Row, Table

from csr_astro.catalogues import FILE_KEY, read_sources
from csr_astro.columns import find_identifier, find_positions
from csr_astro.drawings import has_area, is_region, only_sources, region_center, to_pixel
from csr_astro.utils.sky import sky_to_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csr_astro.typing import SourcesLike, WcsLike

__all__ = ['Sources', 'parse_sources', 'read_sources']


_ACCEPTED = (
    'a SkyCoord, one or many regions, a table with pixel or sky columns, an (N, 2) array of '
    '(x, y) pixels, or the path of a catalogue'
)
# Kinds of dtype without real numbers: complex, times, time differences and structures.
_NO_NUMBERS = 'cMmV'
# Properties of a region that name it.
_LABELS = ('text', 'label', 'name')


@dataclass(frozen=True, eq=False)
class Sources:
    """Pixel positions of sources, the regions drawn around them, and what identifies them.

    Attributes
    ----------
    x, y : (N,) `~numpy.ndarray` of float64
        Pixel positions, zero-based; NaN for a source without position.
    regions : list of `~regions.PixelRegion` or None, or None
        Region that the user drew around each source; None for points.
    ids : (N,) `~numpy.ndarray` of int or str, or None
        Identifiers of the user's catalogue; None if it has none.
    columns : str
        Columns that hold the positions, in words; empty if there are none.
    id_column : str
        Column that holds the identifiers; empty if there is none.
    table : `~astropy.table.Table` or None
        Columns of the user's catalogue to keep in the results.

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
    ids: np.ndarray | None = None
    columns: str = ''
    id_column: str = ''
    table: Table | None = None

    def __repr__(self) -> str:
        n_regions = sum(region is not None for region in self.regions or [])
        drawn = f', {n_regions} with regions' if n_regions else ''
        return f'<Sources: {len(self)}{drawn}>'

    def __len__(self) -> int:
        return len(self.x)

    @property
    def provenance(self) -> dict[str, str]:
        """Columns that were used, for the ``meta`` of results."""
        found = {'columns': self.columns, 'id_column': self.id_column}
        return {name: value for name, value in found.items() if value}


def _from_sky(coordinates, wcs):
    return Sources(*sky_to_pixels(coordinates, wcs))


def _from_regions(regions, wcs):
    for region in regions:
        if not is_region(region):
            raise TypeError(
                f'sources must be {_ACCEPTED}, got a list with a {type(region).__name__}.'
            )
    regions = only_sources(regions)
    pixel = [to_pixel(region, wcs) for region in regions]
    centers = np.array([region_center(region) for region in pixel]).reshape(-1, 2)
    # Points have no area that could be masked.
    shapes = [region if has_area(region) else None for region in pixel]
    labels, name = _region_labels(regions)
    return Sources(
        centers[:, 0], centers[:, 1], shapes if any(shapes) else None, labels, id_column=name
    )


def _region_labels(regions):
    """Return the labels of regions and the property that holds them, if all have one."""
    for name in _LABELS:
        labels = [str((region.meta or {}).get(name, '')).strip() for region in regions]
        if labels and all(labels):
            return np.array(labels), name
    return None, ''


def _from_table(table, wcs, columns, keep):
    try:
        found = find_positions(table, wcs, columns)
    except ValueError as error:
        if FILE_KEY in table.meta:
            raise ValueError(f'{table.meta[FILE_KEY]!r}: {error}') from None
        raise
    name, ids = find_identifier(table, found.columns) or ('', None)
    return Sources(
        found.x, found.y, None, ids, str(found), name, table.copy() if keep else None
    )


def _as_table(sources):
    """Return a table for the objects that are one under another name, else None."""
    if isinstance(sources, Table):
        return sources
    if isinstance(sources, Row):
        return Table(sources)
    if isinstance(sources, fits.BinTableHDU | fits.TableHDU):
        return Table.read(sources)
    if isinstance(sources, np.ndarray | np.void) and sources.dtype.names:
        return Table(np.atleast_1d(sources))
    # A SourceCatalog of photutils, without the import of its package.
    if hasattr(sources, 'to_table') and hasattr(sources, 'labels'):
        return QTable(sources.to_table())
    if isinstance(sources, Mapping) and not hasattr(sources, 'iloc'):
        return Table(dict(sources))
    # A DataFrame of pandas.
    if hasattr(sources, 'to_records') and hasattr(sources, 'iloc'):
        index = np.asarray(sources.index)
        # An index of its own, as of chosen rows, tells the rows apart.
        numbered = index.ndim == 1 and np.array_equal(index, np.arange(len(index)))
        return Table.from_pandas(sources, index=not numbered)
    # A table of polars or pyarrow.
    if hasattr(sources, '__arrow_c_stream__') and hasattr(sources, 'columns'):
        names = getattr(sources, 'column_names', sources.columns)
        return Table({str(name): _from_series(sources[name]) for name in names})
    return None


def _from_series(series):
    values = np.asarray(series)
    missing = np.array([value is None for value in values.tolist()], dtype=bool)
    if not missing.any():
        return values
    filled = ['' if value is None else value for value in values.tolist()]
    return MaskedColumn(filled, mask=missing)


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


def parse_sources(
    sources: SourcesLike,
    wcs: WcsLike | None = None,
    *,
    columns: str | Sequence[str] | None = None,
    keep: bool = False,
) -> Sources:
    """Convert positions of any accepted kind to `Sources`.

    Parameters
    ----------
    sources : path-like, SkyCoord, region, list of regions, `~regions.Regions`, table or array
        Positions: a file for `read_sources`; coordinates on the sky; pixel or sky regions of
        any kind that has no hole; a table (also a `~photutils.segmentation.SourceCatalog`, a
        structured array such as that of ``sep.extract``, a table HDU or a DataFrame);
        (N, 2) pixels (x, y), zero-based.
        In a table, columns with known names are used: those on the sky first if the map has a
        WCS, else pixels. Columns of equal rank that disagree are an error.
    wcs : optional
        World coordinate system of the map, needed for positions on the sky.
    columns : str or sequence of str, optional
        Columns of a table that hold the positions, such as ``('RA', 'DEC')``; see
        `~csr_astro.columns.find_positions`.
    keep : bool, optional
        Whether results keep all columns of a table.

    Returns
    -------
    sources : `Sources`

    Warns
    -----
    AstropyUserWarning
        If some regions are no sources: annuli, backgrounds, excluded regions, texts, lines.

    Examples
    --------
    >>> from csr_astro.sources import parse_sources
    >>> parse_sources([(10, 20), (30.5, 40)]).x
    array([10. , 30.5])
    """
    if isinstance(sources, Sources):
        return sources
    if isinstance(sources, str | os.PathLike):
        sources = read_sources(sources)
    table = _as_table(sources)
    if table is not None:
        return _from_table(table, wcs, columns, keep)
    if columns is not None:
        raise TypeError(
            f'columns= is for a table of sources, got {type(sources).__name__}.'
        )
    return _from_others(sources, wcs)


def _from_others(sources: Any, wcs: WcsLike | None) -> Sources:
    if isinstance(sources, SkyCoord):
        return _from_sky(sources, wcs)
    if is_region(sources):
        return _from_regions([sources], wcs)
    if is_region(sources, 'Regions'):
        return _from_regions(list(sources), wcs)
    if isinstance(sources, list | tuple) and len(sources):
        if is_region(sources[0]):
            return _from_regions(sources, wcs)
        if isinstance(sources[0], SkyCoord):
            if not all(isinstance(each, SkyCoord) for each in sources):
                raise TypeError(f'sources must be {_ACCEPTED}, not a mixture.')
            icrs = [each.icrs.reshape(-1) for each in sources]
            ra, dec = (np.concatenate([getattr(c, a).deg for c in icrs]) for a in ('ra', 'dec'))
            return _from_sky(SkyCoord(ra, dec, unit='deg'), wcs)
    if sources is None or isinstance(sources, dict):
        raise TypeError(f'sources must be {_ACCEPTED}, got {type(sources).__name__}.')
    return _from_array(sources)
