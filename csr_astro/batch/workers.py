"""Workers of a dask cluster, on this machine or elsewhere."""

from __future__ import annotations

import logging
import re
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from csr_astro.nn.weights import list_weights
from csr_astro.utils.optional import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from distributed import Client

    from csr_astro.typing import PathLike

__all__ = ['check_number', 'connect', 'found_anywhere', 'open_client', 'require_dask']

# Host of dask's dashboard, which other machines cannot see.
_HOST = '127.0.0.1'


def require_dask() -> ModuleType:
    """Module ``distributed``, or an error that says how to get it.

    Examples
    --------
    >>> from csr_astro.batch import require_dask
    >>> require_dask().__name__
    'distributed'
    """
    return require('distributed', 'batches need', 'dask', 'dask')


@contextmanager
def open_client(
    scheduler: str | None = None, *, workers: int | None = None, threads: int = 1
) -> Iterator[Client]:
    """Open a dask client of a local cluster, or of an existing one, for the length of a block.

    Scripts that call it need an ``if __name__ == '__main__':``, because worker
    processes import them.

    Parameters
    ----------
    scheduler : str, optional
        Address of a dask scheduler whose workers have csr_astro and see the files
        under the same paths; by default a cluster on this machine is started.
    workers : int, optional
        Number of worker processes on this machine; by default that of its processors.
        With 0, threads of this process do the work.
    threads : int, optional
        Number of maps at a time in each process, which share one model.

    Yields
    ------
    client : `distributed.Client`

    Examples
    --------
    >>> from csr_astro.batch import open_client
    >>> with open_client(workers=0, threads=2) as client:
    ...     print(client.submit(sum, [1, 2]).result())
    3
    """
    distributed = require_dask()
    check_number('workers', workers, 0)
    check_number('threads', threads, 1)
    if scheduler is not None:
        try:
            client = distributed.Client(scheduler)
        except (OSError, ValueError) as error:
            raise ValueError(f'no dask scheduler answers at {scheduler!r}: {error}.') from None
        with client:
            yield client
        return
    import dask
    from dask.system import CPU_COUNT

    workers = CPU_COUNT if workers is None else workers
    config = {
        # A worker that died is given up if the next is not there by then; imports may be slow.
        'distributed.deploy.lost-worker-timeout': '10 minutes',
        # Threads of PyTorch in each process.
        'distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS': max(1, CPU_COUNT // (workers or 1)),
    }
    with (
        _silent_once_interrupted(),
        dask.config.set(config),
        distributed.LocalCluster(
            n_workers=workers or 1,
            threads_per_worker=threads,
            processes=workers > 0,
            # Memory is not limited: dask would end a worker whose map takes more than its share.
            memory_limit=0,
            dashboard_address=f'{_HOST}:0',
            silence_logs='ERROR',
            **({'preload': [__name__]} if workers else {}),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@contextmanager
def _silent_once_interrupted():
    # Tasks that are cut off log errors until the cluster is closed. They begin before this thread
    # hears of the interruption, so the signal itself must end the messages.
    disabled, heard = logging.root.manager.disable, signal.getsignal(signal.SIGINT)

    def silence(*args):
        logging.disable(logging.CRITICAL)
        heard(*args)

    # Only the main thread may say who hears a signal, and only it is interrupted.
    ours = threading.current_thread() is threading.main_thread() and callable(heard)
    if ours:
        signal.signal(signal.SIGINT, silence)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, heard)
        logging.disable(disabled)


@contextmanager
def connect(cluster: Client | dict | None, *, progress: bool = False) -> Iterator[Client]:
    """Use the client of a cluster for the length of a block.

    Parameters
    ----------
    cluster : `distributed.Client` or dict or None
        Client to use, which stays open, or arguments of `open_client`.
    progress : bool, optional
        Whether to show the address of dask's dashboard.

    Yields
    ------
    client : `distributed.Client`
    """
    if cluster is None or isinstance(cluster, dict):
        with open_client(**(cluster or {})) as client:
            # Without processes, dask says another address than that on which it listens.
            link = re.sub('//[^:/]+', f'//{_HOST}', client.dashboard_link or '')
            _show_dashboard(link, progress=progress)
            yield client
    else:
        _show_dashboard(cluster.dashboard_link, progress=progress)
        yield cluster


def _show_dashboard(link, *, progress):
    if progress and link:
        tqdm.write(f'dashboard: {link}', file=sys.stderr)


def check_number(name: str, value: int | None, lowest: int) -> None:
    """Raise an error for a number that is too small.

    Parameters
    ----------
    name : str
        Name of the argument.
    value : int or None
        Its value.
    lowest : int
        Smallest value that is accepted.
    """
    if value is not None and value < lowest:
        raise ValueError(f'{name} must be a number from {lowest} up, got {value}.')


def found_anywhere(weights: PathLike) -> PathLike:
    """Name of weights that does not depend on the folder in which a worker runs.

    Parameters
    ----------
    weights : str or path-like
        As in `~csr_astro.NeuralBackgroundEstimator`.
    """
    return weights if weights in list_weights() else str(Path(weights).absolute())


def dask_setup(_):
    """Prepare a worker process that `open_client` starts: dask calls this."""
    # Ctrl-C is for the process that collects, and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A semaphore, as tqdm takes otherwise, would outlive a process that is killed.
    tqdm.set_lock(threading.RLock())
