"""How is a file written so that nobody ever sees half of it?"""

import os
import secrets
from contextlib import contextmanager
from pathlib import Path

__all__ = ['atomic_path', 'stem', 'sweep']

_TEMPORARY = '.csr-astro-'


@contextmanager
def atomic_path(path):
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


def sweep(folder):
    """Remove what processes that were killed had begun to write in a folder.

    Parameters
    ----------
    folder : path-like
        Nobody writes there now.
    """
    for path in Path(folder).glob(f'{_TEMPORARY}*'):
        path.unlink(missing_ok=True)


def stem(path):
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
    >>> from csr_astro.io import stem
    >>> print(stem(PurePosixPath('maps/m31.fits.gz')))
    maps/m31
    """
    name = path.name
    for suffix in ('.gz', '.fz', '.fits', '.fit'):
        name = name.removesuffix(suffix)
    return path.with_name(name or path.name)
