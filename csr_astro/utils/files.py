"""Atomic writing of files, and names of FITS files."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from astropy.io import fits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csr_astro.typing import PathLike

__all__ = ['atomic_path', 'fits_files', 'open_fits', 'split_extension', 'stem', 'sweep']

_TEMPORARY = '.csr-astro-'


@contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the block succeeds.

    Parameters
    ----------
    path : path-like
        Path of the finished file, replaced if it exists.

    Yields
    ------
    temporary : `pathlib.Path`
        Path to write to. It has the suffixes of ``path``, because writers choose
        formats and compression by them. Removed if the block raises.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f'cannot write {str(path)!r}: no such folder {str(path.parent)!r}.')
    # Permissions follow the umask; files made by `tempfile` would be private.
    suffix = ''.join(path.suffixes)[-20:]
    temporary = path.with_name(f'{_TEMPORARY}{secrets.token_hex(8)}{suffix}')
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: PathLike) -> None:
    """Remove the temporary files that killed processes left in a folder.

    Parameters
    ----------
    folder : path-like
        Folder to which no process is writing.
    """
    for path in Path(folder).glob(f'{_TEMPORARY}*'):
        path.unlink(missing_ok=True)


def fits_files(folder: PathLike) -> list[Path]:
    """List the FITS files in a folder, sorted by name.

    Parameters
    ----------
    folder : path-like
        Folder to search; other files are ignored.

    Returns
    -------
    paths : list of `pathlib.Path`

    Raises
    ------
    FileNotFoundError
        If the folder contains no FITS files.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from csr_astro.utils.files import fits_files
    >>> with TemporaryDirectory() as folder:
    ...     for name in ('b.fits.gz', 'a.fits', 'a.fits.md5'):
    ...         Path(folder, name).touch()
    ...     [path.name for path in fits_files(folder)]
    ['a.fits', 'b.fits.gz']
    """
    ends = tuple(end + packed for end in ('.fits', '.fit') for packed in ('', '.gz', '.fz'))
    found = sorted(path for path in Path(folder).glob('*') if path.name.lower().endswith(ends))
    if not found:
        raise FileNotFoundError(f'no FITS files in {str(folder)!r}.')
    return found


def split_extension(path: PathLike) -> tuple[Path, int | str | None]:
    """Split the extension in brackets from the name of a FITS file, as in CFITSIO.

    Parameters
    ----------
    path : path-like
        Such as ``map.fits[1]``, ``map.fits[SCI]`` or ``map.fits[SCI,2]``.

    Returns
    -------
    path : `~pathlib.Path`
    extension : int, str or None
        None without brackets, and for a file whose own name ends with them.

    Examples
    --------
    >>> from csr_astro.utils.files import split_extension
    >>> print(*split_extension('map.fits[SCI,2]'))
    map.fits SCI,2
    """
    path = Path(path)
    match = re.fullmatch(r'(.+)\[([\w .-]+(?:,\d+)?)\]', path.name)
    if match is None or path.exists():
        return path, None
    name = match[2]
    return path.with_name(match[1]), int(name) if name.isdigit() else name


@contextmanager
def open_fits(path: PathLike) -> Iterator[fits.HDUList]:
    """Open a FITS file, with one-sentence errors that name the file.

    Parameters
    ----------
    path : path-like
        FITS file; memory-mapped where its format allows it.

    Yields
    ------
    hdus : `~astropy.io.fits.HDUList`

    Raises
    ------
    ValueError
        If the file does not exist, is not a FITS file or is truncated, or the block
        raises a ValueError.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from csr_astro.utils.files import open_fits
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / 'map.fits'
    ...     _ = path.write_text('no map')
    ...     try:
    ...         with open_fits(path) as hdus:
    ...             print(len(hdus))
    ...     except ValueError as error:
    ...         print('is not a readable FITS file' in str(error))
    True
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f'{str(path)!r} is a folder; give one FITS file.')
    if not path.is_file():
        remote = re.match(r'\w{2,}:/', str(path))
        why = '; nothing is downloaded, give a local file' if remote else ''
        raise ValueError(f'no such file: {str(path)!r}{why}.')
    if not os.access(path, os.R_OK):
        raise ValueError(f'{str(path)!r} cannot be read: permission denied.')
    try:
        with fits.open(path) as hdus:
            yield hdus
    except ValueError as error:
        raise ValueError(f'{str(path)!r}: {error}') from None
    except (OSError, BufferError) as error:
        reason = getattr(error, 'strerror', None) or str(error).split(',')[0].rstrip('.')
        raise ValueError(f'{str(path)!r} is not a readable FITS file: {reason}.') from None
    except TypeError as error:
        # numpy's error for a memory map that extends beyond the end of a file.
        if 'buffer' not in str(error):
            raise
        raise ValueError(f'{str(path)!r} is not a readable FITS file: it is truncated.') from None


def stem(path: Path) -> Path:
    """Remove ``.fits``, ``.fits.gz`` and similar suffixes from a path.

    Parameters
    ----------
    path : `pathlib.Path`
        Path of a FITS file.

    Returns
    -------
    stem : `pathlib.Path`

    Examples
    --------
    >>> from pathlib import PurePosixPath
    >>> from csr_astro.utils.files import stem
    >>> print(stem(PurePosixPath('maps/m31.fits.gz')))
    maps/m31
    """
    name = path.name
    for suffix in ('.gz', '.fz', '.fits', '.fit'):
        name = name.removesuffix(suffix)
    return path.with_name(name or path.name)
