"""Atomic writing of files, locks, and FITS files."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING

from astropy.io import fits

try:
    import fcntl
except ImportError:
    import msvcrt

    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csr_astro.typing import PathLike

__all__ = [
    'atomic_path', 'file_sha256', 'fits_files', 'locked', 'open_fits', 'split_extension', 'stem',
    'sweep',
]  # fmt: skip

_TEMPORARY = '.csr-astro-'
_LOCK = 'lock'
# Folders in which this process has looked for what others left.
_swept: set[Path] = set()


@contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the block succeeds.

    The content is on the disk before the file takes its name, and its permissions follow the
    umask. What killed processes left in the folder is removed.

    Parameters
    ----------
    path : path-like
        Path of the finished file, replaced if it exists.

    Yields
    ------
    temporary : `pathlib.Path`
        Path to write to, with the name of ``path`` in a temporary folder, which is removed in any
        case.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from csr_astro.utils.files import atomic_path
    >>> with TemporaryDirectory() as folder:
    ...     with atomic_path(Path(folder) / 'log.csv') as temporary:
    ...         _ = temporary.write_text('x,y')
    ...     [each.name for each in Path(folder).iterdir()]
    ['log.csv']
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f'cannot write {str(path)!r}: no such folder {str(path.parent)!r}.')
    if path.is_dir():
        raise IsADirectoryError(f'cannot write {str(path)!r}: it is a folder.')
    if path.parent.name.startswith(_TEMPORARY):
        # Of another block, which does the rest.
        yield path
        return
    if path.parent.absolute() not in _swept:
        _swept.add(path.parent.absolute())
        sweep(path.parent)
    with _temporary_folder(path.parent) as folder:
        temporary = folder / path.name
        yield temporary
        # Some writers make private files.
        temporary.chmod((folder / _LOCK).stat().st_mode & 0o777)
        _flush(temporary)
        temporary.replace(path)
        if os.name == 'posix':
            # Not every file system can do this.
            with suppress(OSError):
                _flush(path.parent)


@contextmanager
def _temporary_folder(parent):
    """Make a folder for a block, with a lock that tells others that its process lives."""
    while True:
        folder = parent / f'{_TEMPORARY}{secrets.token_hex(8)}'
        folder.mkdir()
        try:
            lock = _hold(folder / _LOCK)
            break
        except (BlockingIOError, FileNotFoundError):
            # Somebody is sweeping it away.
            continue
    try:
        yield folder
    finally:
        if fcntl is None:
            lock.close()
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def _hold(path):
    """Open a file that no other process can hold at the same time, making it if necessary."""
    while True:
        file = path.open('a')
        try:
            _lock(file)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        except BaseException:
            file.close()
            raise
        # It was removed before it was free.
        file.close()


def _lock(file):
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        raise BlockingIOError(f'{file.name!r} is held by another process.') from None
    except OSError:
        # This file system has no locks.
        pass


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file that no other process can hold at the same time, and remove it in the end.

    The system frees it when the process ends, however it ends. On a file system without locks,
    others are not kept out.

    Parameters
    ----------
    path : `pathlib.Path`
        The file, made if it is missing.

    Raises
    ------
    BlockingIOError
        If another process holds it, or another block of this one.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from csr_astro.utils.files import locked
    >>> with TemporaryDirectory() as folder:
    ...     with locked(Path(folder) / 'lock'), locked(Path(folder) / 'lock'):
    ...         pass
    Traceback (most recent call last):
    ...
    BlockingIOError: ... is held by another process.
    """
    file = _hold(path)
    try:
        yield
    finally:
        if fcntl is None:
            file.close()
        with suppress(OSError):
            path.unlink()
        file.close()


def _flush(path):
    """Wait until the content of a file or folder is on the disk."""
    number = os.open(path, os.O_RDONLY if os.name == 'posix' else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def file_sha256(path: PathLike) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits.

    Parameters
    ----------
    path : path-like
        The file.
    """
    with Path(path).open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def sweep(folder: PathLike) -> None:
    """Remove the temporary folders that killed processes left in a folder.

    Parameters
    ----------
    folder : path-like
        Folder to which others may be writing: what they hold stays.
    """
    for path in Path(folder).glob(f'{_TEMPORARY}*'):
        # Without a lock it is not ours, or is just being made or removed.
        if (path / _LOCK).is_file():
            with suppress(OSError), locked(path / _LOCK):
                shutil.rmtree(path, ignore_errors=True)


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
    except Exception as error:
        # numpy's error for a memory map that extends beyond the end of a file.
        if isinstance(error, TypeError) and 'buffer' in str(error):
            reason = 'it is truncated'
        elif _raised_by_astropy(error):
            # Errors of any kind, such as KeyError(7) for BITPIX = 7.
            reason = ' '.join(f'{type(error).__name__} {error}'.split()).rstrip('.')
        else:
            raise
        raise ValueError(f'{str(path)!r} is not a readable FITS file: {reason}.') from None


def _raised_by_astropy(error):
    """Return whether an error comes from the reader of FITS files, or from what it calls."""
    frames = [frame.f_globals.get('__name__', '') for frame, _ in walk_tb(error.__traceback__)]
    ours = max(i for i, name in enumerate(frames) if name.startswith('csr_astro.'))
    return any(name.startswith('astropy.io.fits') for name in frames[ours:])


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
