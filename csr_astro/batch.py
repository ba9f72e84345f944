"""How are many maps done at once, or one very large map, without losing work on the way?

Maps, or the parts of one, go to the workers of a dask cluster. The files in the
output folder are the state: whatever stops a batch, the same call goes on with it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import re
import secrets
import signal
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import partial
from glob import glob
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from astropy.table import Table
from tqdm import tqdm

from csr_astro.background import combine
from csr_astro.estimator import NeuralBackgroundEstimator
from csr_astro.flags import count_sources
from csr_astro.images import read_image
from csr_astro.instruments import require_instrument, warn_of_another
from csr_astro.nn.weights import list_weights, read_info
from csr_astro.photometry import InpaintedAperturePhotometry
from csr_astro.plan import plan_batches
from csr_astro.products import describe_removal, write_source_free
from csr_astro.sources import read_sources
from csr_astro.tables import versions, write_table
from csr_astro.uncertainty import BackgroundErrors
from csr_astro.utils.files import atomic_path, stem, sweep
from csr_astro.utils.optional import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from astropy import units as u
    from distributed import Client

    from csr_astro.background import NeuralBackground
    from csr_astro.typing import PathLike, QuantityLike, SourcesLike

__all__ = [
    'MANIFEST',
    'Job',
    'estimate_distributed',
    'open_client',
    'read_jobs',
    'remove_many',
    'require_dask',
]


MANIFEST = 'manifest.ecsv'
# Where dask's dashboard of this machine's own workers is seen: nowhere else.
_HOST = '127.0.0.1'

_TABLES = {'.csv': 'ascii.csv', '.ecsv': 'ascii.ecsv'}
_COLUMNS = {
    'map': str, 'catalog': str, 'instrument': str, 'status': str, 'message': str,
    'n_sources': int, 'seconds': float, 'output': str, 'table': str, 'photometry': str,
    'fingerprint': str,
}  # fmt: skip
_OUTPUTS = ('output', 'table', 'photometry')
# What changes speed and memory, not results.
_SPEED = ('device', 'batch_size', 'progress')
# Columns of a table of maps.
_OF_A_JOB = ('map', 'catalog', 'instrument', 'output')
# Seconds between two versions of the manifest: that of a survey takes a while to write.
_SAVE_EVERY = 1.0


# ------------------------------------------------------------------------------- what is to do


@dataclass(frozen=True)
class Job:
    """A map, and what shall be done with it.

    Attributes
    ----------
    map, catalog : str
        FITS file and its sources, see `~csr_astro.sources.read_sources`.
    output : str
        Name of the source-free map in the output folder.
    instrument : str or None
        By default that of the batch, else by the header.

    Examples
    --------
    >>> from csr_astro.batch import Job
    >>> Job('m31.fits', 'stars.ecsv', 'm31_source_free.fits', instrument='spire-250').instrument
    'spire-250'
    """

    map: str
    catalog: str
    output: str
    instrument: str | None = None


def read_jobs(maps: PathLike | Sequence[PathLike], catalog: PathLike | None = None) -> list[Job]:
    """What a batch shall do.

    Parameters
    ----------
    maps : path-like or list of path-like
        FITS files and patterns such as ``'maps/*.fits'``; or one table, ``.csv`` or
        ``.ecsv``, with columns ``map`` and, if wanted, ``catalog``, ``instrument``
        and ``output``. Files named in a table are relative to its folder.
    catalog : path-like, optional
        The sources of those maps that have no catalogue of their own.

    Returns
    -------
    jobs : list of `Job`

    Examples
    --------
    >>> from csr_astro.batch import read_jobs
    >>> for job in read_jobs(['/maps/m31.fits', '/maps/m33.fits'], '/lists/stars.ecsv'):
    ...     print(job.map, job.catalog, job.output)
    /maps/m31.fits /lists/stars.ecsv m31_source_free.fits
    /maps/m33.fits /lists/stars.ecsv m33_source_free.fits
    """
    paths = [Path(path) for path in ([maps] if isinstance(maps, str | os.PathLike) else maps)]
    if any(path.suffix.lower() in _TABLES for path in paths):
        if len(paths) > 1:
            raise ValueError('give maps or one table of maps, not both.')
        jobs = _table_jobs(paths[0], catalog)
    else:
        jobs = [_job(path, catalog) for pattern in paths for path in _expand(pattern)]
    if not jobs:
        raise ValueError('there are no maps to do.')
    # A file may match two patterns.
    return list(dict.fromkeys(jobs))


def _expand(pattern):
    if pattern.exists() or not any(letter in str(pattern) for letter in '*?['):
        return [pattern]
    found = sorted(glob(str(pattern), recursive=True))  # noqa: PTH207  (absolute patterns too)
    if not found:
        raise ValueError(f'no file matches {str(pattern)!r}.')
    return found


def _table_jobs(path, catalog):
    if not path.is_file():
        raise ValueError(f'no such file: {str(path)!r}.')
    table = Table.read(path, format=_TABLES[path.suffix.lower()])
    if 'map' not in table.colnames:
        raise ValueError(
            f'the table {str(path)!r} must have a column map, and may have catalog, instrument and '
            f'output; it has {", ".join(table.colnames)}.'
        )
    for name in set(table.colnames) - set(_OF_A_JOB):
        # Remarks are welcome; what is meant for a column that counts must not be lost.
        if meant := get_close_matches(name.lower(), _OF_A_JOB, cutoff=0.8):
            raise ValueError(f'the column {name!r} of {str(path)!r} must be called {meant[0]}.')
    jobs = []
    for row in table:
        cells = {
            name: str(row[name])
            for name in _OF_A_JOB
            if name in table.colnames and not np.ma.is_masked(row[name]) and str(row[name])
        }
        if 'map' not in cells:
            raise ValueError(f'row {row.index + 1} of {str(path)!r} has no map.')
        own = path.parent / cells.pop('catalog') if 'catalog' in cells else catalog
        jobs.append(_job(path.parent / cells.pop('map'), own, **cells))
    return jobs


def _job(path, catalog, output=None, instrument=None):
    path = Path(path).absolute()
    if catalog is None:
        raise ValueError(f'there is no catalogue for {str(path)!r}.')
    output = output or f'{stem(path).name}_source_free.fits'
    if Path(output).name != output or stem(Path(output)).name == output:
        raise ValueError(f'output must be the name of a FITS file, got {output!r}.')
    return Job(str(path), str(Path(catalog).absolute()), output, instrument)


# --------------------------------------------------------------------------------- the workers


def require_dask() -> ModuleType:
    """The module ``distributed``, or an error that says how to get it.

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
    """A dask client for the length of a block: of a local cluster, or of one that exists.

    Scripts that call it need an ``if __name__ == '__main__':``, because worker
    processes import them.

    Parameters
    ----------
    scheduler : str, optional
        Address of a dask scheduler whose workers have csr_astro and see the files
        under the same paths; by default a cluster on this machine is started.
    workers : int, optional
        Its worker processes; by default as many as there are processors. With 0,
        threads of this process do the work.
    threads : int, optional
        Maps at a time in each process, which share one model.

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
    _check_number('workers', workers, 0)
    _check_number('threads', threads, 1)
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
        # The threads of PyTorch in each process.
        'distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS': max(1, CPU_COUNT // (workers or 1)),
    }
    with (
        _silent_once_interrupted(),
        dask.config.set(config),
        distributed.LocalCluster(
            n_workers=workers or 1,
            threads_per_worker=threads,
            processes=workers > 0,
            # A map needs what it needs; dask would end a worker that takes more than its share.
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
    # Whatever is cut off complains until the cluster is closed, of use to nobody. It starts before
    # this thread hears of the interruption, so the signal itself must end the messages.
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


def _check_number(name, value, lowest):
    if value is not None and value < lowest:
        raise ValueError(f'{name} must be a number from {lowest} up, got {value}.')


def dask_setup(_):
    """What dask calls in each worker process that `open_client` starts."""
    # Ctrl-C is for the process that collects, and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A semaphore, as tqdm takes otherwise, would outlive a process that is killed.
    tqdm.set_lock(threading.RLock())


# --------------------------------------------------------------------------------- many maps


def remove_many(
    jobs: Sequence[Job],
    folder: PathLike,
    *,
    cluster: Client | dict | None = None,
    hdu: str | int | None = None,
    mask_radius: float | u.Quantity | Literal['snr'] | None = None,
    photometry: dict | None = None,
    errors: bool = True,
    split: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
    **estimator: Any,
) -> Table:
    """Remove the sources of many maps.

    Writes for each map its source-free copy and a table of its sources, and a table
    of photometry if asked for; and ``manifest.ecsv``, with one row per map. A map
    that cannot be done does not stop the others: its row says why. After an
    interruption the same call does what is left, and what has changed.

    Parameters
    ----------
    jobs : list of `Job`
        From `read_jobs`.
    folder : path-like
        For the results; made if missing. It belongs to one batch at a time.
    cluster : `distributed.Client` or dict, optional
        Does the work; or arguments of `open_client`, which is called if there is work
        to do.
    hdu : str or int, optional
        Extension of the images, see `~csr_astro.images.find_image_hdu`.
    mask_radius : float, Quantity or 'snr', optional
        As in `~csr_astro.NeuralBackgroundEstimator.estimate`.
    photometry : dict, optional
        Arguments of `~csr_astro.InpaintedAperturePhotometry`, ``apertures`` at least.
    errors : bool, optional
        Whether the maps get an extension of the background's errors.
    split : int, optional
        Maps are done one after the other, each divided into so many parts; see
        `estimate_distributed`.
    overwrite : bool, optional
        Whether to do everything anew, and to replace files of others.
    progress : bool, optional
        Whether to show a progress bar, and the address of dask's dashboard.
    **estimator
        Arguments of `~csr_astro.NeuralBackgroundEstimator`. Without ``instrument``
        and ``fwhm``, each map's header tells the instrument.

    Returns
    -------
    manifest : `~astropy.table.Table`
        One row per map, in the order given: ``map``, ``catalog``, ``instrument``,
        ``status`` (pending, done or failed), ``message``, ``n_sources``,
        ``seconds``, names of the files written (``output``, ``table``,
        ``photometry``), and a ``fingerprint`` of everything that the results
        depend on. Rows of earlier batches in the folder follow.

    Raises
    ------
    ValueError
        Before anything is written: if two maps have the same output, or files of
        others would be replaced.

    Examples
    --------
    >>> from csr_astro.batch import read_jobs, remove_many
    >>> jobs = read_jobs(['/maps/m31.fits', '/maps/m33.fits'], '/lists/stars.ecsv')
    >>> manifest = remove_many(jobs, 'out', instrument='spire-250')  # doctest: +SKIP
    """
    estimator['weights'] = _found_anywhere(estimator.get('weights', 'default'))
    settings = _Settings(estimator, hdu, mask_radius, photometry, errors)
    _check_number('split', split, 1)
    # Now, so that a wrong argument is one error and not that of every map.
    settings.check()
    folder = Path(folder).absolute()
    manifest = _Manifest(folder, jobs, settings, overwrite=overwrite)
    todo = manifest.todo()
    folder.mkdir(parents=True, exist_ok=True)
    manifest.save()
    try:
        if todo:
            with _connect(cluster, progress=progress) as client:
                spread = _side_by_side if split is None else partial(_one_by_one, split=split)
                work = spread(client, [(i, jobs[i]) for i in todo], settings, folder)
                manifest.collect(work, progress=progress)
    finally:
        # Of workers that died, now or in an earlier run.
        sweep(folder)
    return manifest.table()


@contextmanager
def _connect(cluster, *, progress):
    open_it = cluster is None or isinstance(cluster, dict)
    with open_client(**(cluster or {})) if open_it else nullcontext(cluster) as client:
        link = client.dashboard_link
        if open_it and link:
            # Without processes, dask says another address than that on which it listens.
            link = re.sub('//[^:/]+', f'//{_HOST}', link)
        if progress and link:
            tqdm.write(f'dashboard: {link}', file=sys.stderr)
        yield client


@dataclass(frozen=True)
class _Settings:
    """What is done with every map."""

    estimator: dict
    hdu: str | int | None
    mask_radius: object
    photometry: dict | None
    errors: bool

    def check(self):
        # The workers have devices of their own.
        options = {name: each for name, each in self.estimator.items() if name != 'device'}
        self.make_photometry(NeuralBackgroundEstimator(**options))

    def make_estimator(self, instrument, header):
        options = dict(self.estimator)
        if instrument is not None:
            options.update(instrument=instrument, fwhm=None)
        elif options.get('instrument') is None and options.get('fwhm') is None:
            options['instrument'] = require_instrument(header)
        estimator = NeuralBackgroundEstimator(**options)
        warn_of_another(estimator.instrument.name, header)
        return estimator

    def make_photometry(self, estimator):
        if self.photometry is None:
            return None
        return InpaintedAperturePhotometry(estimator=estimator, **self.photometry)

    def outputs(self, job):
        """Names of the files that are written for a map."""
        name = stem(Path(job.output))
        return {
            'output': job.output,
            'table': f'{name}.ecsv',
            'photometry': '' if self.photometry is None else f'{name}_photometry.ecsv',
        }

    def fingerprint(self, job):
        """Changes with everything that the results depend on."""
        facts = asdict(self) | {'version': versions()['csr_astro']}
        # A default that is named makes no difference.
        bound = inspect.signature(NeuralBackgroundEstimator).bind(**self.estimator)
        bound.apply_defaults()
        facts['estimator'] = {k: v for k, v in bound.arguments.items() if k not in _SPEED}
        facts['estimator']['weights'] = read_info(self.estimator['weights']).sha256
        facts['instrument'] = job.instrument
        facts['files'] = [_state(job.map), _state(job.catalog)]
        text = json.dumps(facts, sort_keys=True, default=_describe)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _found_anywhere(weights):
    """Weights under a name that does not depend on the folder a worker runs in."""
    return weights if weights in list_weights() else str(Path(weights).absolute())


def _state(path):
    """Size and time of a file; maps of a survey are too large to be read for it."""
    try:
        state = Path(path).stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns]


def _describe(value):
    """Everything that makes an object different from others, for JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        numbers = np.asarray(value).tolist()
        return [numbers, str(value.unit)] if hasattr(value, 'unit') else numbers
    return getattr(value, '__qualname__', None) or str(value)


class _Manifest:
    """What became of each map, in memory and as a file."""

    def __init__(self, folder, jobs, settings, *, overwrite):
        self.path = folder / MANIFEST
        self._saved = 0.0
        self.n_jobs = len(jobs)
        self.rows = [
            {name: kind() for name, kind in _COLUMNS.items()}
            | {'map': job.map, 'catalog': job.catalog, 'instrument': job.instrument or ''}
            | {'status': 'pending', 'fingerprint': settings.fingerprint(job)}
            | settings.outputs(job)
            for job in jobs
        ]
        old = _read_rows(self.path)
        given = {row['output'] for row in self.rows}
        self.rows += [row for name, row in old.items() if name not in given]
        _refuse_clashes(folder, self.rows)
        if not overwrite:
            self._take_over(folder, old)

    def _take_over(self, folder, old):
        """What an earlier run did and need not be done again."""
        for row in self.rows[: self.n_jobs]:
            before = old.get(row['output'])
            present = [folder / row[name] for name in _OUTPUTS if row[name]]
            present = [path for path in present if path.exists()]
            if present and (before is None or before['map'] != row['map']):
                whose = 'of another batch' if before is None else f'that of {before["map"]!r}'
                raise ValueError(
                    f'{str(present[0])!r} exists and is {whose}; give --overwrite to replace it.'
                )
            complete = len(present) == sum(bool(row[name]) for name in _OUTPUTS)
            same = before is not None and before['fingerprint'] == row['fingerprint']
            if complete and same and before['status'] == 'done':
                row.update(before)

    def todo(self):
        """Numbers of the maps that are not done."""
        return [i for i, row in enumerate(self.rows[: self.n_jobs]) if row['status'] != 'done']

    def table(self):
        """The rows of the maps of this batch."""
        return self._table()[: self.n_jobs]

    def _table(self):
        columns = {name: [row[name] for row in self.rows] for name in _COLUMNS}
        table = Table(columns, dtype=list(_COLUMNS.values()), meta=versions())
        table['seconds'].unit = 's'
        return table

    def save(self, every=0.0):
        """Write the file, unless the last version is that new."""
        if time.monotonic() - self._saved >= every:
            with atomic_path(self.path) as temporary:
                self._table().write(temporary, format='ascii.ecsv', overwrite=True)
            self._saved = time.monotonic()

    def collect(self, work, *, progress):
        """Note what becomes of maps, until all are done or somebody stops it."""
        done = self.n_jobs - len(self.todo())
        with (
            closing(work),
            tqdm(total=self.n_jobs, initial=done, unit='map', disable=not progress) as bar,
        ):
            try:
                for i, outcome in work:
                    self.rows[i].update(outcome)
                    self.save(every=_SAVE_EVERY)
                    failed = sum(row['status'] == 'failed' for row in self.rows[: self.n_jobs])
                    bar.set_postfix({'failed': failed} if failed else {}, refresh=False)
                    bar.update()
            finally:
                self.save()


def _read_rows(path):
    """The rows of a manifest, by the name of the source-free map."""
    if not path.exists():
        return {}
    table = Table.read(path, format='ascii.ecsv')
    if not set(_COLUMNS) <= set(table.colnames):
        raise ValueError(f'{str(path)!r} is not the manifest of a batch; give another folder.')
    return {
        str(row['output']): {
            # astropy reads an empty text as a masked one.
            name: kind() if np.ma.is_masked(row[name]) else kind(row[name])
            for name, kind in _COLUMNS.items()
        }
        for row in table
    }


def _refuse_clashes(folder, rows):
    """Two maps must not write to one file, nor one to a file that is read."""
    owners = {MANIFEST: 'the manifest'}
    inputs = {row[name] for row in rows for name in ('map', 'catalog')}
    for row in rows:
        for name in filter(None, (row[kind] for kind in _OUTPUTS)):
            if name in owners:
                raise ValueError(
                    f'{owners[name]} and {row["map"]} would both be written to {name!r}; name the '
                    'outputs in a table of maps, column output.'
                )
            if str(folder / name) in inputs:
                raise ValueError(f'{str(folder / name)!r} would be replaced, and is an input.')
            owners[name] = row['map']


def _side_by_side(client, jobs, settings, folder):
    """Do several maps at a time; yields the number of each and what came of it."""
    killed = []
    for (i, job), future in _completed(client, jobs, settings, folder):
        if _is_killed(future):
            killed.append((i, job))
        else:
            yield i, _outcome(future)
    # A map that kills its worker takes those along that wait there: alone, it shows which it was.
    for each in killed:
        for (i, _), future in _completed(client, [each], settings, folder):
            yield i, _outcome(future)


def _completed(client, jobs, settings, folder):
    futures = {
        client.submit(
            _remove_sources, job, settings, folder,
            key=f'remove_sources-{job.output}-{secrets.token_hex(8)}',
        ): (i, job)
        for i, job in jobs
    }  # fmt: skip
    try:
        for future in require_dask().as_completed(list(futures)):
            yield futures[future], future
            future.release()
    finally:
        client.cancel(list(futures))


def _is_killed(future):
    return future.status == 'error' and isinstance(
        future.exception(), require_dask().KilledWorker
    )


def _outcome(future):
    if future.status == 'finished':
        return future.result()
    if _is_killed(future):
        message = 'every worker that tried died; was there too little memory?'
        return {'status': 'failed', 'message': message}
    if future.status == 'error':
        return {'status': 'failed', 'message': _sentence(future.exception())}
    raise RuntimeError('the dask cluster is gone; what is done is done, run it again.')


def _sentence(error):
    return ' '.join(str(error).split()) or type(error).__name__


def _one_by_one(client, jobs, settings, folder, *, split):
    """Do one map at a time with all workers."""
    estimate = partial(estimate_distributed, client=client, parts=split)
    for i, job in jobs:
        yield i, _remove_sources(job, settings, folder, estimate)


def _remove_sources(job, settings, folder, estimate=None):
    """Do one map; returns what came of it, whatever that is."""
    started = time.monotonic()
    try:
        table = _write_results(job, settings, folder, estimate)
    except Exception as error:  # noqa: BLE001  (a bad map stops no other)
        outcome = {'status': 'failed', 'message': _sentence(error)}
    else:
        outcome = {
            'status': 'done',
            'message': count_sources(table, 'removed'),
            'n_sources': len(table),
            'instrument': table.meta['instrument'],
        }
    return outcome | {'seconds': round(time.monotonic() - started, 2)}


def _write_results(job, settings, folder, estimate):
    image, header = read_image(job.map, settings.hdu)
    estimator = settings.make_estimator(job.instrument, header)
    sources = read_sources(job.catalog)
    if estimate is None:
        result = estimator.estimate(image, sources, mask_radius=settings.mask_radius)
    else:
        result = estimate(
            job.map, sources, estimator=estimator, hdu=settings.hdu,
            mask_radius=settings.mask_radius, errors=settings.errors,
        )  # fmt: skip
    photometry = settings.make_photometry(estimator)
    names = settings.outputs(job)
    # All are complete before one takes its name.
    with ExitStack() as stack:
        new = {
            kind: stack.enter_context(atomic_path(folder / name))
            for kind, name in names.items()
            if name
        }
        write_table(new['table'], result.sources)
        if photometry is not None:
            write_table(new['photometry'], photometry(result))
        write_source_free(
            new['output'], job.map, result, hdu=settings.hdu, errors=settings.errors,
            history=describe_removal(result, errors=settings.errors),
        )  # fmt: skip
    return result.sources


# ------------------------------------------------------------------------------ one large map


def estimate_distributed(
    path: PathLike,
    sources: SourcesLike,
    *,
    estimator: NeuralBackgroundEstimator,
    client: Client,
    hdu: str | int | None = None,
    mask_radius: QuantityLike | Literal['snr'] | None = None,
    parts: int | None = None,
    errors: bool = True,
) -> NeuralBackground:
    """Predict the background of one map with all workers of a cluster.

    The sources are divided by place. Each worker opens the file, memory-mapped where
    its format allows it, and predicts behind its own sources, knowing the masks of
    the others.

    Parameters
    ----------
    path : path-like
        FITS file, which workers see under the same path.
    sources : SkyCoord, regions, table or (N, 2) array of (x, y)
        The sources; see `~csr_astro.sources.parse_sources`.
    estimator : `~csr_astro.NeuralBackgroundEstimator`
        Predicts the background.
    client : `distributed.Client`
        Of the cluster, see `open_client`.
    hdu : str or int, optional
        Extension of the image, see `~csr_astro.images.find_image_hdu`.
    mask_radius : optional
        As in `~csr_astro.NeuralBackgroundEstimator.estimate`.
    parts : int, optional
        How many parts there are, at most; by default four for each thread of the
        workers.
    errors : bool, optional
        Whether the workers also work out the errors that ``background_rms`` shows.

    Returns
    -------
    result : `~csr_astro.NeuralBackground`
        To the last bit what ``estimator.estimate`` returns, where PyTorch computes
        alike: on as many threads of the same kind of processor.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> from csr_astro.batch import estimate_distributed, open_client
    >>> folder = getfixture('tmp_path')
    >>> noise = np.random.default_rng(1).normal(size=(150, 150))
    >>> fits.PrimaryHDU(noise).writeto(folder / 'large.fits')
    >>> estimator = NeuralBackgroundEstimator(fwhm=3.5, orientations=1)
    >>> with open_client(workers=0) as client:
    ...     result = estimate_distributed(
    ...         folder / 'large.fits', [(40, 50), (90, 95)], estimator=estimator, client=client
    ...     )
    >>> print(result)
    <NeuralBackground: 150 x 150 map, 2 sources, ... pixels inpainted>
    """
    image, _ = read_image(path, hdu)
    file = str(Path(path).absolute()), hdu
    parts = parts or 4 * max(sum(client.nthreads().values()), 1)
    plan = estimator.plan(image, sources, mask_radius=mask_radius)
    predictor = replace(estimator.predictor, weights=_found_anywhere(estimator.weights))
    tasks = [
        # The worker opens the map itself.
        (_parts_there, predictor, replace(plan.restricted(some), image=None), file)  # type: ignore[arg-type]
        for some in _divide(plan.batches, parts)
    ]
    found = _in_order(client, tasks, progress=estimator.progress)
    result = combine(plan, chain.from_iterable(found), estimator)
    if errors:
        tasks = [(_rms_there, file, *each) for each in _divide_errors(plan, result, parts)]
        for rms in _in_order(client, tasks, progress=estimator.progress):
            result.errors.remember_rms(rms)
    return result


def _in_order(client, tasks, *, progress):
    """Results of some calls, (function, *arguments), computed by all workers."""
    futures = [client.submit(*task, pure=False) for task in tasks]
    try:
        for future in tqdm(futures, unit='part', delay=2, disable=not progress):
            yield future.result()
    finally:
        client.cancel(futures)


def _parts_there(predictor, plan, file):
    return list(predictor.parts(replace(plan, image=read_image(*file)[0])))


def _rms_there(file, sources, numbers):
    errors = BackgroundErrors(read_image(*file)[0], sources)
    return {i: errors.rms(i) for i in numbers}


def _divide(batches, n):
    """Batches in up to ``n`` parts of about equal cost, in their order."""
    cost = np.cumsum([len(index) * size**2 for index, size in batches])
    bounds = np.searchsorted(cost, cost[-1:] * np.arange(1, n) / n) + 1 if len(cost) else []
    edges = [0, *bounds, len(batches)]
    return [batches[a:b] for a, b in pairwise(edges) if a < b]


def _divide_errors(plan, result, n):
    """What errors of up to ``n`` parts depend on, and the numbers of their sources."""
    plan = replace(plan, masks=result.source_masks)
    for some in _divide(plan_batches(plan.sources, plan.masks, 1), n):
        near = plan.restricted(some).masks
        known = {i: each for i, each in result.errors.sources.items() if near[i] is not None}
        yield known, [int(i) for index, _ in some for i in index]
