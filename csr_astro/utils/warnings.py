"""Thread-safe suppression of warnings."""

from __future__ import annotations

import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from csr_astro.utils.forks import fork_safe

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ['ignored', 'one_at_a_time']

#: Lock for calls of astropy, photutils and SciPy that use `warnings.catch_warnings`.
one_at_a_time = fork_safe(threading.RLock())
_lock = fork_safe(threading.Lock())


@contextmanager
def ignored(*categories: type[Warning]) -> Iterator[None]:
    """Ignore warnings of some kinds inside a block.

    `warnings.catch_warnings` restores the list of filters that it found. If two
    threads use it at once, the filters of one of them remain. This function
    removes only the filters that it added.

    Parameters
    ----------
    *categories : type
        Kinds of warnings to ignore.

    Examples
    --------
    >>> import warnings
    >>> from csr_astro.utils.warnings import ignored
    >>> with ignored(UserWarning):
    ...     warnings.warn('never seen')
    """
    own = [('ignore', None, category, None, 0) for category in categories]
    with _lock:
        entered: Any = warnings.filters
        entered[:0] = own
    try:
        yield
    finally:
        with _lock:
            # Another catch_warnings may have copied the list, or restored its copy, meanwhile.
            present: Any = warnings.filters
            for filters in (entered, present):
                filters[:] = [each for each in filters if not any(each is mine for mine in own)]
