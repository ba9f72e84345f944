"""How is a file written so that nobody ever sees half of it?"""

import os
import secrets
from contextlib import contextmanager
from pathlib import Path

__all__ = ['atomic_path']


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
    temporary = path.with_name(f'.csr-astro-{secrets.token_hex(8)}{suffix}')
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
