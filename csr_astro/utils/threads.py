"""Work spread over threads, and limits of the threads of numerical libraries."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ['one_blas_thread', 'spread']

_Item = TypeVar('_Item')
_Result = TypeVar('_Result')

_lock = threading.Lock()
_limit: dict[str, Any] = {'blocks': 0, 'limiter': None}


@cache
def _controller():
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread within a block, for small matrices.

    More threads wait for each other longer than they compute. The limit is that of the process,
    so the last of several blocks that overlap sets the number of before again.

    Examples
    --------
    >>> from threadpoolctl import threadpool_info
    >>> from csr_astro.utils.threads import one_blas_thread
    >>> with one_blas_thread():
    ...     {each['num_threads'] for each in threadpool_info() if each['user_api'] == 'blas'}
    {1}
    """
    with _lock:
        if not _limit['blocks']:
            _limit['limiter'] = _controller().limit(limits=1, user_api='blas')
        _limit['blocks'] += 1
    try:
        yield
    finally:
        with _lock:
            _limit['blocks'] -= 1
            if not _limit['blocks']:
                _limit['limiter'].restore_original_limits()


def spread(
    function: Callable[[_Item], _Result], items: Iterable[_Item], n_threads: int = 1
) -> Iterator[_Result]:
    """Apply a function to items, in several threads that use one thread of each library.

    Parameters
    ----------
    function : callable
        Function of one item that calls numerical libraries.
    items : iterable
        Its arguments.
    n_threads : int, optional
        Number of threads. With one, the calling thread does the work, and PyTorch uses as many
        threads as it is set to.

    Yields
    ------
    result : object
        Results in the order of the items. At most ``n_threads`` wait to be taken.

    Examples
    --------
    >>> from csr_astro.utils.threads import spread
    >>> list(spread(abs, [-2, 3, -1], 2))
    [2, 3, 1]
    """
    if n_threads == 1:
        for item in items:
            with one_blas_thread():
                result = function(item)
            yield result
        return
    waiting: deque = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(_alone, function, item))
                if len(waiting) > 2 * n_threads:
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
    with one_blas_thread(), _controller().limit(limits=1, user_api='openmp'):
        return function(item)
