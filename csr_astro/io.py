"""How is a file written so that nobody ever sees half of it?"""

import os
import tempfile
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
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix='.csr-astro-', suffix=''.join(path.suffixes)[-20:]
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; the finished one follows the user's umask.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
