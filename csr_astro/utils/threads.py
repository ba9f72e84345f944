"""Work spread over threads, and limits of the threads of numerical libraries."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ['n_threads', 'one_blas_thread', 'spread']

_Item = TypeVar('_Item')
_Result = TypeVar('_Result')

# Held by the thread that has set the limit: two that set and reset it by turns would leave another
# number than that of the user.
_limiting = threading.Lock()


@cache
def _controller(user_api):
    """Return the libraries of the process with one interface; all must be loaded by now."""
    import numpy.linalg
    import scipy.linalg
    import torch
    from threadpoolctl import ThreadpoolController

    del numpy, scipy, torch
    return ThreadpoolController().select(user_api=user_api)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread within a block, for small matrices.

    More threads wait for each other longer than they compute. The limit is that of the process,
    and the first of several threads sets it.

    Examples
    --------
    >>> from threadpoolctl import threadpool_info
    >>> from csr_astro.utils.threads import one_blas_thread
    >>> with one_blas_thread():
    ...     {each['num_threads'] for each in threadpool_info() if each['user_api'] == 'blas'}
    {1}
    """
    if not _limiting.acquire(blocking=False):
        yield
        return
    try:
        with _controller('blas').limit(limits=1):
            yield
    finally:
        _limiting.release()


def n_threads() -> int:
    """Number of threads that PyTorch is set to use.

    Examples
    --------
    >>> from csr_astro.utils.threads import n_threads
    >>> n_threads() > 0
    True
    """
    import torch

    return torch.get_num_threads()


def spread(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int = 1
) -> Iterator[_Result]:
    """Apply a function to items, in several threads that use one thread of each library.

    Parameters
    ----------
    function : callable
        Function of one item that calls numerical libraries.
    items : iterable
        Its arguments.
    threads : int, optional
        Number of threads. With one, the calling thread does the work, and PyTorch uses as many
        threads as it is set to.

    Yields
    ------
    result : object
        Results in the order of the items; BLAS has one thread until the last is taken. At most
        twice as many as threads wait to be taken.

    Examples
    --------
    >>> from csr_astro.utils.threads import spread
    >>> list(spread(abs, [-2, 3, -1], 2))
    [2, 3, 1]
    """
    if threads == 1:
        with one_blas_thread():
            yield from map(function, items)
        return
    waiting: deque = deque()
    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(_alone, function, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _alone(function, item):
    import torch

    # PyTorch sets the threads of OpenMP when a thread asks for them first. Those of OpenMP are
    # counted for each thread.
    torch.get_num_threads()
    with _controller('openmp').limit(limits=1):
        return function(item)
