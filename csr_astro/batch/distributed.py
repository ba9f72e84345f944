"""Prediction of the background of one large map by all workers of a cluster."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm import tqdm

from csr_astro.batch.workers import found_anywhere
from csr_astro.combine import combine
from csr_astro.images import read_image
from csr_astro.plan import plan_batches
from csr_astro.uncertainty import BackgroundErrors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distributed import Client

    from csr_astro import NeuralBackgroundEstimator
    from csr_astro.background import NeuralBackground
    from csr_astro.typing import PathLike, QuantityLike, SourcesLike

__all__ = ['estimate_distributed']


def estimate_distributed(
    path: PathLike,
    sources: SourcesLike,
    *,
    estimator: NeuralBackgroundEstimator,
    client: Client,
    hdu: str | int | None = None,
    reading: Mapping[str, Any] | None = None,
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
        Client of the cluster, see `open_client`.
    hdu : str or int, optional
        Extension of the image, see `~csr_astro.images.find_image_hdu`.
    reading : mapping, optional
        Other arguments of `~csr_astro.images.read_image`.
    mask_radius : optional
        As in `~csr_astro.NeuralBackgroundEstimator.estimate`.
    parts : int, optional
        Largest number of parts; by default four for each thread of the workers.
    errors : bool, optional
        Whether the workers also estimate the errors that ``background_rms`` shows.

    Returns
    -------
    result : `~csr_astro.NeuralBackground`
        Equal to that of ``estimator.estimate`` to the last bit if PyTorch computes alike:
        on as many threads of the same kind of processor.

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
    file = str(Path(path).absolute()), {'hdu': hdu, **(reading or {})}
    image = _read(*file)
    parts = parts or 4 * max(sum(client.nthreads().values()), 1)
    plan = estimator.plan(image, sources, mask_radius=mask_radius)
    predictor = estimator.for_image(image).predictor
    predictor = replace(predictor, weights=found_anywhere(predictor.weights))
    tasks = [(_parts_there, predictor, each, file) for each in _divide_plan(plan, parts)]
    found = _in_order(client, tasks, progress=estimator.progress)
    result = combine(plan, chain.from_iterable(found), estimator)
    if errors:
        tasks = [
            (_rms_there, file, *each, plan.model) for each in _divide_errors(plan, result, parts)
        ]
        for rms in _in_order(client, tasks, progress=estimator.progress):
            result.errors.remember_rms(rms)
    return result


def _read(path, reading):
    return read_image(path, **reading)[0]


def _in_order(client, tasks, *, progress):
    """Results of calls (function, *arguments), in their order, computed by all workers."""
    futures = [client.submit(*task, pure=False) for task in tasks]
    try:
        for future in tqdm(futures, unit='part', delay=2, disable=not progress):
            yield future.result()
    finally:
        client.cancel(futures)


def _parts_there(predictor, plan, file):
    return list(predictor.parts(replace(plan, image=_read(*file))))


def _rms_there(file, sources, numbers, model):
    errors = BackgroundErrors(_read(*file), sources, model)
    return {i: errors.rms(i) for i in numbers}


def _divide_plan(plan, n):
    """Plans of up to ``n`` parts, without the image, which workers read themselves."""
    # Without the columns of the catalogue, which no worker needs.
    plan = replace(plan, sources=replace(plan.sources, table=None, ids=None))
    return [replace(plan.restricted(some), image=None) for some in _divide(plan.batches, n)]


def _divide(batches, n):
    """Batches in up to ``n`` parts of about equal cost, in their order."""
    cost = np.cumsum([len(index) * size**2 for index, size in batches])
    bounds = np.searchsorted(cost, cost[-1:] * np.arange(1, n) / n) + 1 if len(cost) else []
    edges = [0, *bounds, len(batches)]
    return [batches[a:b] for a, b in pairwise(edges) if a < b]


def _divide_errors(plan, result, n):
    """Sources on which the errors of up to ``n`` parts depend, and the numbers of their own."""
    plan = replace(plan, masks=result.source_masks)
    own = [mask if result.first[i] == i else None for i, mask in enumerate(plan.masks)]
    for some in _divide(plan_batches(plan.sources, own, 1), n):
        near = plan.restricted(some).masks
        known = {i: each for i, each in result.errors.sources.items() if near[i] is not None}
        yield known, [int(i) for index, _ in some for i in index]
