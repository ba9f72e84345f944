"""How is a file written so that nobody ever sees half of it?"""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csr_astro.typing import PathLike

__all__ = ['atomic_path', 'fits_files', 'stem', 'sweep']

_TEMPORARY = '.csr-astro-'


@contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends well.

    Parameters
    ----------
    path : path-like
        Where the finished file shall be; replaced if it exists.

    Yields
    ------
    temporary : `pathlib.Path`
        Write here. Its name ends like that of ``path``, because writers choose
        formats and compression by it. Removed if the block raises.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f'cannot write {str(path)!r}: no such folder {str(path.parent)!r}.')
    # Opened for everybody whom the umask admits; a temporary file of the system is private.
    suffix = ''.join(path.suffixes)[-20:]
    temporary = path.with_name(f'{_TEMPORARY}{secrets.token_hex(8)}{suffix}')
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: PathLike) -> None:
    """Remove what processes that were killed had begun to write in a folder.

    Parameters
    ----------
    folder : path-like
        Nobody writes there now.
    """
    for path in Path(folder).glob(f'{_TEMPORARY}*'):
        path.unlink(missing_ok=True)


def fits_files(folder: PathLike) -> list[Path]:
    """The FITS files in a folder, by name.

    Parameters
    ----------
    folder : path-like
        Other files in it are left alone.

    Returns
    -------
    paths : list of `pathlib.Path`

    Raises
    ------
    FileNotFoundError
        If there are none.

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


def stem(path: Path) -> Path:
    """The path without ``.fits``, ``.fits.gz`` and the like.

    Parameters
    ----------
    path : `pathlib.Path`
        Of a FITS file.

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
