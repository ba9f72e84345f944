"""Files and metadata of result tables."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Column, QTable
from astropy.utils.exceptions import AstropyUserWarning

from csr_astro.utils.files import atomic_path
from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from astropy.table import Table

    from csr_astro.typing import PathLike

__all__ = [
    'TABLE_FORMATS', 'add_columns', 'check_table_path', 'fits_meta', 'printable', 'versions',
    'write_table',
]  # fmt: skip

#: Table formats by file extension.
TABLE_FORMATS = {'.ecsv': 'ascii.ecsv', '.csv': 'ascii.csv', '.fits': 'fits', '.xml': 'votable',
                 '.vot': 'votable'}
# FITS keywords of at most eight characters; longer ones leave no room for a hash.
_FITS_NAMES = {
    'csr_astro': 'csrastro',
    'photutils': 'photutil',
    'weights_sha256': 'sha256',
    'instrument': 'instrume',
    'orientations': 'orient',
    'centroid_func': 'centroid',
    'mask_radius': 'maskrad',
    'image_hdu': 'imagehdu',
    'error_hdu': 'errorhdu',
    'mask_hdu': 'maskhdu',
    'id_column': 'idcolumn',
}


def versions() -> dict[str, str]:
    """Return the versions of the packages used, for the ``meta`` of tables."""
    return {
        name: version(name) for name in ('csr_astro', 'astropy', 'photutils', 'numpy', 'torch')
    }


def fits_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the ``meta`` of a table to keywords and values of a FITS header.

    Parameters
    ----------
    meta : dict
        Metadata of a table; entries that are not scalar are left out.

    Returns
    -------
    meta : dict
        Entries under shortened keywords, with text as printable ASCII.

    Examples
    --------
    >>> from csr_astro.tables import fits_meta
    >>> fits_meta({'weights_sha256': '0f', 'weights': 'größer', 'mask_radius': 'by SNR'})
    {'sha256': '0f', 'weights': 'gr??er', 'maskrad': 'by SNR'}
    """
    return {
        _FITS_NAMES.get(name, name): printable(value)
        for name, value in meta.items()
        if np.isscalar(value)
    }


def printable(value: Any) -> Any:
    """Replace the characters of a text that a FITS header cannot hold.

    Parameters
    ----------
    value : object
        Text, such as a path or a printed array; other values are returned unchanged.
    """
    if not isinstance(value, str):
        return value
    return ' '.join(value.encode('ascii', 'replace').decode().split())


def add_columns(table: QTable, catalog: Table | None, prefix: str = 'catalog_') -> None:
    """Add the columns of a catalogue to a table of results, in place.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        Table of results.
    catalog : `~astropy.table.Table` or None
        Catalogue with the same rows; None adds nothing.
    prefix : str, optional
        Put before names that are taken, in whatever case: FITS does not tell them apart.

    Examples
    --------
    >>> from astropy.table import QTable, Table
    >>> from csr_astro.tables import add_columns
    >>> table = QTable({'id': [7], 'flux': [1.5]})
    >>> add_columns(table, Table({'id': [7], 'Flux': [3.0], 'z': [0.1]}))
    >>> table.colnames
    ['id', 'flux', 'catalog_Flux', 'z']
    """
    if catalog is None:
        return
    taken = {name.lower() for name in table.colnames}
    for name in catalog.colnames:
        column = _storable(catalog[name])
        if column is None or (name == 'id' and _equal(column, table['id'])):
            continue
        new = name
        while new.lower() in taken:
            new = f'{prefix}{new}'
        taken.add(new.lower())
        # A unit that is not known leaves the column as it is.
        with ignored(AstropyUserWarning):
            table[new] = column
        table[new].info.description = column.info.description


def _storable(column):
    """Return a copy of a column that files can hold, or None."""
    if getattr(column, 'dtype', None) is not None and column.dtype.kind == 'O':
        values = column.tolist()
        text = [each for each in values if isinstance(each, str)]
        unknown = [each for each in values if each is None or np.ma.is_masked(each)]
        if not text or len(text) + len(unknown) < len(values):
            return None
        text = [each if isinstance(each, str) else '' for each in values]
        return Column(np.array(text, dtype=str), description=column.info.description)
    column = column.copy()
    if isinstance(column.info.unit, u.UnrecognizedUnit):
        # No reader takes such a unit without a warning.
        said = column.info.description
        column.info.description = f'{said or ""} [{column.info.unit}]'.strip()
        column.unit = None
    return column


def _equal(column, other):
    return len(column) == len(other) and bool(np.all(np.asarray(column) == np.asarray(other)))


def check_table_path(path: PathLike) -> None:
    """Raise an error, before any work is lost, if a file extension has no table format.

    Parameters
    ----------
    path : path-like
        Path of the table.
    """
    if Path(path).suffix.lower() not in TABLE_FORMATS:
        raise ValueError(
            f'the table {str(path)!r} must end in one of {sorted(TABLE_FORMATS)}, by which its '
            'format is chosen.'
        )


def write_table(path: PathLike, table: QTable) -> None:
    """Write a table in the format of its file extension, replacing it atomically.

    Parameters
    ----------
    path : path-like
        Path of the table: ``.ecsv`` (everything is kept), ``.csv`` (names with
        units, such as ``flux [Jy]``; ``sky_center`` becomes ``ra`` and ``dec`` in
        degrees), ``.fits``, ``.xml`` or ``.vot``.
    table : `~astropy.table.QTable`
        Table to write.
    """
    check_table_path(path)
    kind = TABLE_FORMATS[Path(path).suffix.lower()]
    if kind != 'ascii.ecsv':
        table = _plain(table, text=kind == 'ascii.csv')
    if kind == 'ascii.csv':
        table = _labelled(table)
    # FITS warns about long entries of the meta, which only ECSV keeps in full.
    with atomic_path(path) as temporary, ignored(fits.verify.VerifyWarning):
        table.write(temporary, format=kind, overwrite=True)


def _labelled(table):
    """Write units into the names of columns, ``flux [Jy]``: CSV has no other place for them.

    Positions keep their names, by which they are found again: degrees and pixels.
    """
    for name in table.colnames:
        unit = getattr(table[name], 'unit', None)
        if unit not in (None, u.dimensionless_unscaled, u.deg, u.pix):
            table.rename_column(name, f'{name} [{unit}]')
    return table


def _plain(table, *, text=False):
    """Convert to columns that every format can hold: a SkyCoord becomes ``ra`` and ``dec``."""
    plain = QTable(meta=fits_meta(table.meta))
    taken = {name.lower() for name in table.colnames}
    for name in table.colnames:
        column = table[name]
        if isinstance(column, SkyCoord):
            free = name == 'sky_center' and not {'ra', 'dec'} & taken
            before = '' if free else f'{name}_'
            plain[f'{before}ra'] = column.icrs.ra.to(u.deg)
            plain[f'{before}dec'] = column.icrs.dec.to(u.deg)
        elif text and getattr(column, 'ndim', 1) > 1:
            # One column for each element, because a line has no room for lists.
            values = column.reshape(len(column), -1)
            for i in range(values.shape[1]):
                plain[f'{name}_{i + 1}'] = values[:, i]
        else:
            plain[name] = column
    return plain
