"""Files of catalogues: tables in the formats of many programs, and regions."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

from astropy import units as u
from astropy.io import ascii as text_tables
from astropy.io import fits
from astropy.table import Table
from astropy.utils.data import get_readable_fileobj
from astropy.utils.exceptions import AstropyUserWarning

from csr_astro.columns import ORIGIN_KEY, has_positions
from csr_astro.drawings import read_regions
from csr_astro.utils.files import split_extension
from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from regions import Regions

    from csr_astro.typing import PathLike

__all__ = ['FILE_KEY', 'FORMATS', 'read_sources']

#: Entry of a table's ``meta`` with the path of the file that it was read from.
FILE_KEY = 'catalog_file'

#: Formats of catalogues and their file extensions, for the documentation.
FORMATS = {
    'ECSV': '.ecsv',
    'CSV, separated by commas or semicolons': '.csv',
    "tab-separated, and VizieR's own with lines of units and dashes": '.tsv',
    'plain columns below a line of names': '.txt, .dat, .cat',
    'SExtractor, ASCII_HEAD': '.cat',
    'SExtractor, FITS_1.0 and FITS_LDAC': '.cat, .fits, .ldac',
    'FITS table': '.fits',
    'VOTable': '.vot, .xml',
    'IPAC': '.tbl',
    'IRAF, with #K and #N (daofind, phot, allstar), one-based': '.coo, .mag, .als',
    'CDS and machine-readable tables of the AAS': '.txt, .dat, .mrt',
    'DS9 regions': '.reg, .ds9',
    'CRTF regions': '.crtf',
}

_COMPRESSED = ('.gz', '.bz2', '.xz')
_REGIONS = {'.reg': 'ds9', '.ds9': 'ds9', '.crtf': 'crtf'}
# Files that astropy knows by their name or content; all others are text.
_OTHERS = ('.vot', '.votable', '.xml', '.hdf5', '.h5', '.parquet', '.html', '.tex', '.rdb')
_FITS_SUFFIXES = ('.fits', '.fit', '.fts', '.ldac')
# Number of characters by which a format is recognised.
_HEAD = 20_000
# utf-8-sig removes the byte-order mark that spreadsheets write before the first name.
_TEXT = {'encoding': 'utf-8-sig'}
_FORMATS = {
    '.ecsv': {'format': 'ascii.ecsv'},
    '.csv': {'format': 'ascii.csv', 'comment': '#', **_TEXT},
    '.tsv': {'format': 'ascii.tab', 'comment': '#', **_TEXT},
    '.mrt': {'format': 'ascii.mrt'},
    **{end: {'format': 'ascii', **_TEXT} for end in ('.txt', '.dat', '.tbl', '.cat')},
}
# First column of a SExtractor catalogue with a header.
_SEXTRACTOR = re.compile(r'^#\s+1\s+[A-Z][A-Z0-9_]*\b', re.MULTILINE)
# Line of dashes between the names and the rows of a VizieR table.
_DASHES = re.compile(r'^-+(?:[\t;|, ]-+)*[\t;|, ]*$')
_SEPARATORS = ('\t', ';', '|', ',')


def read_sources(path: PathLike) -> Table | Regions:
    """Read a catalogue file.

    Parameters
    ----------
    path : path-like
        Path of a table (ECSV, CSV, TSV, FITS, VOTable, IPAC, CDS, SExtractor with a header,
        LDAC, plain columns with a header), compressed or not, or of DS9 or CRTF regions
        (``.reg``, ``.crtf``). Annuli, background and excluded regions, texts, lines and the
        like are no sources: they are left out with a warning that counts them. One of several
        tables of a FITS file is named as in CFITSIO, by its number or name: ``stars.fits[2]``,
        ``chips.ldac[LDAC_OBJECTS,3]``.

    Returns
    -------
    sources : `~astropy.table.Table` or `~regions.Regions`
        Input for `~csr_astro.sources.parse_sources`.

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
    path, table = split_extension(path)
    if path.is_dir():
        raise ValueError(f'{str(path)!r} is a folder, not a catalogue.')
    if not path.is_file():
        raise ValueError(f'no such file: {str(path)!r}.')
    try:
        found = _read(path) if table is None else _read_fits(path, table)
    except PermissionError:
        raise ValueError(f'the catalogue {str(path)!r} may not be read: no permission.') from None
    except Exception as error:
        # Every reader raises its own exceptions; all mean the same to the user.
        raise ValueError(
            f'{str(path)!r} cannot be read as a catalogue: {_reason(error)}.'
        ) from error
    if isinstance(found, Table):
        found.meta[FILE_KEY] = str(path)
    return found


def _reason(error):
    reason = str(error).strip().split('\n')[0].rstrip('.:') or type(error).__name__
    if reason.startswith('ERROR: Unable to guess table format'):
        return 'its lines are not the columns of a table below a line of names'
    # The readers count rows from zero.
    return re.sub(r'data line (\d+)', lambda found: f'row {int(found[1]) + 1}', reason)


def _read(path):
    packed = path.suffix.lower() in _COMPRESSED
    suffix = (path.with_suffix('') if packed else path).suffix.lower()
    if suffix in _REGIONS:
        return read_regions(path, _REGIONS[suffix])
    head = _head(path)
    if suffix in _FITS_SUFFIXES or head.startswith('SIMPLE  ='):
        return _read_fits(path)
    if head.startswith('# Region file format: DS9'):
        return read_regions(path, 'ds9')
    if head.startswith('# %ECSV'):
        return Table.read(path, format='ascii.ecsv')
    if any(_DASHES.match(line) and set(line) & set('\t;|') for line in _lines(head)):
        return _read_vizier(path)
    if head.startswith(('#K IRAF', '#N ')) and '\n#F ' in head:
        table = Table.read(path, format='ascii.daophot')
        table.meta = {ORIGIN_KEY: 1}
        return table
    if _SEXTRACTOR.search(head):
        return Table.read(path, format='ascii.sextractor')
    known = {} if suffix in _OTHERS else {'format': 'ascii', **_TEXT}
    options = _FORMATS.get(suffix, known)
    if options.get('format') == 'ascii.csv':
        commented, decimal_commas = _kind_of_csv(head)
        if commented is not None:
            # PyBDSF writes the names into the last comment.
            options = {'format': 'ascii.commented_header', 'delimiter': ',',
                       'header_start': commented, **_TEXT}  # fmt: skip
        elif decimal_commas:
            with get_readable_fileobj(path, **_TEXT) as file:
                text = re.sub(r'(?<=\d),(?=\d)', '.', file.read())
            return text_tables.read(text, format='basic', delimiter=';', guess=False)
    table = Table.read(path, **options)
    if all(map(_is_number, table.colnames)):
        raise ValueError('it has no line of names, such as "ra,dec" or "x,y", above its numbers')
    for separator in (';', '\t'):
        if len(table.colnames) == 1 and separator in table.colnames[0]:
            options = {'delimiter': separator, 'comment': '#', 'guess': False, **_TEXT}
            return Table.read(path, format='ascii.basic', **options)
    return table


def _kind_of_csv(head):
    """Find the names of a CSV file in a comment, and numbers with decimal commas.

    Returns
    -------
    commented : int or None
        Number of the comment that holds the names.
    decimal_commas : bool
        Whether cells are separated by semicolons and numbers have commas.
    """
    comments, rows = [], []
    for line in _lines(head.rpartition('\n')[0]):
        if line.strip():
            (comments if line.startswith('#') and not rows else rows).append(line)
    if not rows:
        return None, False
    cells = rows[0].split(',')
    numeric = sum(map(_is_number, cells))
    names = comments[-1].lstrip('# ').split(',') if comments else []
    commented = len(names) == len(cells) > 1 and numeric and not any(map(_is_number, names))
    commas = ';' in rows[0] and any(re.search(r'\d,\d', row) for row in rows[1:])
    return len(comments) - 1 if commented else None, commas and '.' not in ''.join(rows[1:])


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _head(path):
    """Return the beginning of a file as text."""
    with get_readable_fileobj(path, encoding='binary') as file:
        return file.read(_HEAD).decode('utf-8-sig', 'replace')


def _lines(text):
    return (line.rstrip('\r') for line in text.split('\n'))


# -------------------------------------------------------------------------------------- formats


def _read_fits(path, wanted=None):
    """Read the table of a FITS file that was named, or that has positions."""
    with get_readable_fileobj(path, encoding='binary') as file, fits.open(file) as hdus:
        tables = [
            i for i, hdu in enumerate(hdus)
            if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)
            and not isinstance(hdu, fits.CompImageHDU)
        ]
        if wanted is not None:
            name, _, version = str(wanted).partition(',')
            key = (name, int(version)) if version else wanted
            try:
                tables = [hdus.index_of(key)] if hdus[key].columns else []
            except (AttributeError, KeyError, IndexError):
                raise ValueError(f'it has no table {wanted!r}') from None
        if not tables:
            raise ValueError('it has images and no table' if len(hdus) else 'it has no table')
        with ignored(u.UnitsWarning):
            # LDAC files begin with a table that holds the header of the image.
            read = {
                i: Table.read(hdus[i])
                for i in tables
                if wanted is not None or hdus[i].name != 'LDAC_IMHEAD'
            }
    placed = [i for i in read if has_positions(read[i])] or list(read)[:1]
    if not placed:
        raise ValueError('it has the headers of images and no table of sources')
    if len(placed) > 1:
        raise ValueError(
            f'{len(placed)} of its tables have positions, extensions '
            f'{", ".join(map(str, placed))}: name the one that is meant, as in '
            f'{path.name}[{placed[0]}]'
        )
    return read[placed[0]]


def _read_vizier(path):
    """Read the tab-separated format of VizieR: names, units, dashes, rows; in blocks."""
    with get_readable_fileobj(path, encoding='utf-8-sig') as file:
        lines = [
            (number, line)
            for number, line in enumerate(_lines(file.read()), 1)
            if not line.startswith('#')
        ]
    dashes = [i for i, (_, line) in enumerate(lines) if _DASHES.match(line) and line.strip()]
    tables = []
    for k, i in enumerate(dashes):
        # The names and units of the next block are the lines before its dashes.
        end = dashes[k + 1] - 2 if k + 1 < len(dashes) else len(lines)
        above = [line for _, line in lines[max(i - 2, 0) : i] if line.strip('\r\n')]
        tables.append(_vizier_block(above, lines[i], lines[i + 1 : end]))
    placed = [table for table in tables if has_positions(table)]
    if len(placed) > 1:
        warnings.warn(
            f'{len(placed)} tables of {str(path)!r} have positions; the first is used.',
            AstropyUserWarning,
            stacklevel=5,
        )
    return (placed or tables)[0]


def _vizier_block(above, dashes, rows):
    separator = next(each for each in _SEPARATORS if each in dashes[1])
    names = [name.strip() for name in above[0].split(separator)]
    units = [unit.strip() for unit in above[1].split(separator)] if len(above) > 1 else []
    kept = [names]
    for number, line in rows:
        if not line.strip(f' \r{separator}'):
            continue
        cells = [cell.strip() for cell in line.split(separator)]
        if len(cells) != len(names):
            raise ValueError(f'line {number} has {len(cells)} columns, not {len(names)}')
        kept.append(cells)
    lines = ['\t'.join(cell.replace('"', '') or '""' for cell in cells) for cells in kept]
    table = text_tables.read(lines, format='basic', delimiter='\t', guess=False)
    for name, unit in zip(table.colnames, units, strict=False):
        # Sexagesimal columns are text.
        if unit and table[name].dtype.kind in 'iuf':
            table[name].unit = u.Unit(unit, parse_strict='silent')
    return table
