"""Removal of sources from many maps."""

from __future__ import annotations

import secrets
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from csr_astro.batch.distributed import estimate_distributed
from csr_astro.batch.manifest import Manifest, describe_files
from csr_astro.batch.settings import Settings
from csr_astro.batch.workers import check_number, connect, found_anywhere, require_dask
from csr_astro.flags import count_sources
from csr_astro.removal import remove_file
from csr_astro.utils.files import locked, sweep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from astropy import units as u
    from astropy.table import Table
    from distributed import Client

    from csr_astro.batch.jobs import Job
    from csr_astro.typing import PathLike

__all__ = ['remove_many']

# In the output folder while a batch runs.
_LOCK = '.csr-astro.lock'


def remove_many(
    jobs: Sequence[Job],
    folder: PathLike,
    *,
    cluster: Client | dict | None = None,
    hdu: str | int | None = None,
    reading: dict | None = None,
    mask_radius: float | u.Quantity | Literal['snr'] | None = None,
    photometry: dict | None = None,
    subtract: bool = False,
    errors: bool = True,
    find: float | None = None,
    columns: str | Sequence[str] | None = None,
    keep: bool = True,
    split: int | None = None,
    overwrite: bool = False,
    verify: bool = False,
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
        Folder for the results, made if missing. Another batch in it is refused meanwhile.
    cluster : `distributed.Client` or dict, optional
        Client of the cluster that does the work, or arguments of `open_client`, which is
        called if there is work to do.
    hdu : str or int, optional
        Extension of the images, see `~csr_astro.images.find_image_hdu`.
    reading : dict, optional
        Other arguments of `~csr_astro.images.read_image`.
    mask_radius : float, Quantity or 'snr', optional
        As in `~csr_astro.NeuralBackgroundEstimator.estimate`.
    photometry : dict, optional
        Arguments of `~csr_astro.InpaintedAperturePhotometry`, ``apertures`` at least, or of
        `~csr_astro.InpaintedPSFPhotometry`.
    subtract : bool, optional
        As in `~csr_astro.removal.remove_file`.
    errors : bool, optional
        Whether the maps get an extension of the background's errors.
    find : float, optional
        Threshold of `~csr_astro.NeuralSourceFinder`, for maps without a catalogue.
    columns : str or sequence of str, optional
        Columns of the catalogues that hold the positions, see
        `~csr_astro.columns.find_positions`.
    keep : bool, optional
        Whether the tables keep all columns of the catalogues.
    split : int, optional
        Number of parts into which each map is divided, one map after the other; see
        `estimate_distributed`.
    overwrite : bool, optional
        Whether to do everything anew, and to replace files of others.
    verify : bool, optional
        Whether to read all inputs and results of maps that are done. By default they are
        known by their sizes, and inputs by their times.
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
        ``photometry``) with their sizes and hashes, a ``fingerprint`` of everything that
        the results depend on, and a hash of the inputs. Rows of earlier batches in the
        folder follow.

    Raises
    ------
    ValueError
        Before anything is written: if two maps have the same output, files of others
        would be replaced, the manifest is damaged, or another batch writes to the folder.

    Warns
    -----
    AstropyUserWarning
        If a result is no longer as it was written: its map is done again.

    Examples
    --------
    >>> from csr_astro.batch import read_jobs, remove_many
    >>> jobs = read_jobs(['/maps/m31.fits', '/maps/m33.fits'], '/lists/stars.ecsv')
    >>> manifest = remove_many(jobs, 'out', instrument='spire-250')  # doctest: +SKIP
    """
    estimator['weights'] = found_anywhere(estimator.get('weights', 'default'))
    settings = Settings(
        estimator, hdu, mask_radius, photometry, errors, find, reading or {}, columns, keep,
        subtract,
    )  # fmt: skip
    check_number('split', split, 1)
    # A wrong argument is one error here, and not that of every map.
    settings.check()
    folder = Path(folder).absolute()
    start = partial(Manifest, folder, jobs, settings, overwrite=overwrite)
    if not folder.is_dir():
        # Jobs that clash leave no folder behind.
        start()
        folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        manifest = start(verify=verify, progress=progress)
        todo = manifest.todo()
        manifest.save()
        try:
            if todo:
                with connect(cluster, progress=progress) as client:
                    spread = _side_by_side if split is None else partial(_one_by_one, split=split)
                    work = spread(client, [(i, jobs[i]) for i in todo], settings, folder)
                    manifest.collect(work, progress=progress)
        finally:
            # Workers that died left files half written.
            sweep(folder)
    return manifest.table()


@contextmanager
def _alone_in(folder):
    """Keep other batches out of a folder."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / _LOCK))
        except BlockingIOError:
            raise ValueError(
                f'another batch is writing to {str(folder)!r}; wait until it has ended, or give '
                'another folder.'
            ) from None
        yield


def _side_by_side(client, jobs, settings, folder):
    """Do several maps at a time; yields the number of each and the columns that change."""
    killed = []
    for (i, job), future in _completed(client, jobs, settings, folder):
        if _is_killed(future):
            killed.append((i, job))
        else:
            yield i, _outcome(future)
    # A map that kills its worker takes along those that wait there: each is tried alone.
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
        # Without its loop, dask takes that of the client that was opened last.
        for future in require_dask().as_completed(list(futures), loop=client.loop):
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
    """Do one map; returns the columns of its row that change."""
    started = time.monotonic()
    try:
        inputs = settings.inputs_sha256(job)
        table = _write_results(job, settings, folder, estimate)
        written = describe_files(folder, settings.outputs(job))
    except Exception as error:  # noqa: BLE001  (a bad map stops no other)
        outcome = {'status': 'failed', 'message': _sentence(error)}
    else:
        outcome = {
            'status': 'done',
            'message': count_sources(table, 'removed'),
            'n_sources': len(table),
            'instrument': table.meta['instrument'],
            'inputs_sha256': inputs,
            **written,
        }
    return outcome | {'seconds': round(time.monotonic() - started, 2)}


def _write_results(job, settings, folder, estimate):
    """Write the files of one map; returns the table of its sources."""
    names = settings.outputs(job)
    result = remove_file(
        job.map,
        job.catalog or None,
        folder / names['output'],
        table=folder / names['table'],
        photometry=settings.photometry,
        photometry_table=folder / names['photometry'],
        subtract=settings.subtract,
        hdu=settings.hdu,
        reading=settings.reading | job.files,
        mask_radius=settings.mask_radius,
        errors=settings.errors,
        find=settings.find,
        columns=settings.columns,
        keep=settings.keep,
        estimate=estimate,
        **{'progress': False} | settings.estimator_options(job),
    )
    return result.sources
