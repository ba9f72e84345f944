"""How are warnings that mean nothing to the user left out, when others run in threads?"""

from __future__ import annotations

import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ['ignored', 'one_at_a_time']

#: Held around what astropy, photutils and SciPy do inside `warnings.catch_warnings` of its own.
one_at_a_time = threading.RLock()
_lock = threading.Lock()


@contextmanager
def ignored(*categories: type[Warning]) -> Iterator[None]:
    """Leave warnings of some kinds out while a block runs.

    `warnings.catch_warnings` puts back the list of filters that it found; two
    threads in it at once leave the one's filters to everybody. Here a filter
    of one's own is put in, and exactly that is taken out again.

    Parameters
    ----------
    *categories : type
        Kinds of warnings.

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
            # Somebody else's catch_warnings may have copied the list, or left its copy, meanwhile.
            present: Any = warnings.filters
            for filters in (entered, present):
                filters[:] = [each for each in filters if not any(each is mine for mine in own)]
