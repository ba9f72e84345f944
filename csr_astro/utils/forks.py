"""Locks that a forked process can use."""

from __future__ import annotations

import os
from typing import TypeVar

__all__ = ['fork_safe']

_Lock = TypeVar('_Lock')


def fork_safe(lock: _Lock) -> _Lock:
    """Free a lock in every forked process, where the thread that may hold it does not exist.

    Parameters
    ----------
    lock : lock
        A `threading.Lock` or `threading.RLock`, kept for as long as the process lives.

    Returns
    -------
    lock : lock
        The same lock.

    Examples
    --------
    >>> import threading
    >>> from csr_astro.utils.forks import fork_safe
    >>> lock = fork_safe(threading.Lock())
    >>> lock.locked()
    False
    """
    if hasattr(os, 'register_at_fork'):
        # Private, and what the standard library calls for its own locks.
        os.register_at_fork(after_in_child=lock._at_fork_reinit)  # type: ignore[attr-defined]  # noqa: SLF001
    return lock
