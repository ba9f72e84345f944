"""Tables of results: their files, and what their ``meta`` says about how they were made."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import QTable

from csr_astro.utils.files import atomic_path
from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csr_astro.typing import PathLike

__all__ = ['TABLE_FORMATS', 'check_table_path', 'fits_meta', 'printable', 'versions', 'write_table']

#: Formats of tables by the end of their names.
TABLE_FORMATS = {'.ecsv': 'ascii.ecsv', '.csv': 'ascii.csv', '.fits': 'fits', '.xml': 'votable',
                 '.vot': 'votable'}
# A keyword of more than eight letters leaves no room for a hash.
_FITS_NAMES = {
    'csr_astro': 'csrastro',
    'photutils': 'photutil',
    'weights_sha256': 'sha256',
    'instrument': 'instrume',
    'orientations': 'orient',
    'centroid_func': 'centroid',
    'mask_radius': 'maskrad',
}


def versions() -> dict[str, str]:
    """Versions of what a result depends on, for the ``meta`` of tables."""
    return {
        name: version(name) for name in ('csr_astro', 'astropy', 'photutils', 'numpy', 'torch')
    }


def fits_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a FITS header can hold of the ``meta`` of a table: names of eight letters, plain text.

    Parameters
    ----------
    meta : dict
        Of a table of ours; what is not one value is left out.

    Returns
    -------
    meta : dict

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
    """What a FITS header can hold of a text; other values as they are.

    Parameters
    ----------
    value : object
        Paths may have letters, and printed arrays ends of lines, that it cannot hold.
    """
    if not isinstance(value, str):
        return value
    return ' '.join(value.encode('ascii', 'replace').decode().split())


def check_table_path(path: PathLike) -> None:
    """Refuse a table whose format its name does not tell, before hours of work are lost.

    Parameters
    ----------
    path : path-like
        Of the table.
    """
    if Path(path).suffix.lower() not in TABLE_FORMATS:
        raise ValueError(
            f'the table {str(path)!r} must end in one of {sorted(TABLE_FORMATS)}, by which its '
            'format is chosen.'
        )


def write_table(path: PathLike, table: QTable) -> None:
    """Write a table in the format that its name says, replacing it in one step.

    Parameters
    ----------
    path : path-like
        Ends in ``.ecsv`` (everything is kept), ``.csv`` (numbers only;
        ``sky_center`` becomes ``ra`` and ``dec`` in degrees), ``.fits``,
        ``.xml`` or ``.vot``.
    table : `~astropy.table.QTable`
        What to write.
    """
    check_table_path(path)
    kind = TABLE_FORMATS[Path(path).suffix.lower()]
    if kind != 'ascii.ecsv':
        table = _plain(table)
    # Long keywords of the meta are cut in FITS; the ECSV keeps them.
    with atomic_path(path) as temporary, ignored(fits.verify.VerifyWarning):
        table.write(temporary, format=kind, overwrite=True)


def _plain(table):
    """Columns that every format can hold: a SkyCoord becomes two numbers."""
    plain = QTable(meta=fits_meta(table.meta))
    for name in table.colnames:
        if isinstance(table[name], SkyCoord):
            plain['ra'] = table[name].icrs.ra.to(u.deg)
            plain['dec'] = table[name].icrs.dec.to(u.deg)
        else:
            plain[name] = table[name]
    return plain
