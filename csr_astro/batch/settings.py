"""Settings of a batch, and the fingerprint of what its results depend on."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from csr_astro.estimator import NeuralBackgroundEstimator
from csr_astro.nn.weights import preset_weights, read_info
from csr_astro.photometry.finder import NeuralSourceFinder
from csr_astro.removal import check_subtraction, make_photometry
from csr_astro.simulation.psf import psf_profile
from csr_astro.tables import versions
from csr_astro.utils.files import file_sha256, stem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csr_astro.batch.jobs import Job

__all__ = ['Settings']

# Arguments that change speed and memory, not results.
_SPEED = ('device', 'batch_size', 'progress')


@dataclass(frozen=True)
class Settings:
    """Arguments of the removal that are the same for all maps of a batch.

    Attributes
    ----------
    estimator : dict
        Arguments of `~csr_astro.NeuralBackgroundEstimator`.
    hdu, mask_radius, photometry, errors, find, reading, columns, keep, subtract
        As in `~csr_astro.batch.remove_many`.
    """

    estimator: dict
    hdu: str | int | None
    mask_radius: object
    photometry: dict | None
    errors: bool
    find: float | None = None
    reading: dict = field(default_factory=dict)
    columns: str | Sequence[str] | None = None
    keep: bool = True
    subtract: bool = False

    def check(self) -> None:
        """Raise the error that wrong arguments would raise for every map."""
        # The workers have devices of their own.
        options = {name: each for name, each in self.estimator.items() if name != 'device'}
        estimator = NeuralBackgroundEstimator(**options)
        if self.find is not None:
            NeuralSourceFinder(estimator, self.find)
        if self.photometry is not None:
            make_photometry(estimator, **self.photometry)
        check_subtraction(self.photometry, subtract=self.subtract)
        if estimator.psf is not None:
            psf_profile(estimator.psf)

    def estimator_options(self, job: Job) -> dict[str, Any]:
        """Arguments of the estimator for one map.

        Parameters
        ----------
        job : `~csr_astro.batch.Job`
            The map.
        """
        if job.instrument is None:
            return self.estimator
        return self.estimator | {'instrument': job.instrument, 'fwhm': None}

    def outputs(self, job: Job) -> dict[str, str]:
        """Names of the files that are written for a map.

        Parameters
        ----------
        job : `~csr_astro.batch.Job`
            The map.

        Returns
        -------
        names : dict
            ``output``, ``table`` and ``photometry``, the last one empty if sources are
            not measured.
        """
        name = stem(Path(job.output))
        return {
            'output': job.output,
            'table': f'{name}.ecsv',
            'photometry': '' if self.photometry is None else f'{name}_photometry.ecsv',
        }

    def fingerprint(self, job: Job) -> str:
        """Hash of everything that the results of a map depend on.

        Parameters
        ----------
        job : `~csr_astro.batch.Job`
            The map.
        """
        facts = asdict(self) | {'version': versions()['csr_astro']}
        for name in ('reading', 'subtract'):
            if not facts[name]:
                # Batches of versions without this setting go on.
                del facts[name]
        # A default that is named makes no difference.
        bound = inspect.signature(NeuralBackgroundEstimator).bind(**self.estimator)
        bound.apply_defaults()
        facts['estimator'] = {k: v for k, v in bound.arguments.items() if k not in _SPEED}
        weights = bound.arguments['weights']
        if weights == 'default':
            instrument = job.instrument or bound.arguments['instrument']
            name = getattr(instrument, 'name', instrument)
            weights = preset_weights(bound.arguments['preset'], name)
        if weights not in self._hashes:
            # Once for all maps.
            self._hashes[weights] = read_info(weights).sha256
        facts['estimator']['weights'] = self._hashes[weights]
        facts['instrument'] = job.instrument
        facts['files'] = [_state(path) for path in self._files(job)]
        text = json.dumps(facts, sort_keys=True, default=_describe)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def inputs_sha256(self, job: Job) -> str:
        """Hash of the content of all files that the results of a map depend on.

        Parameters
        ----------
        job : `~csr_astro.batch.Job`
            The map.
        """
        together = ' '.join(file_sha256(path) for path in self._files(job))
        return hashlib.sha256(together.encode()).hexdigest()

    @cached_property
    def _hashes(self):
        return {}

    def _files(self, job):
        """Return the files that the results of a map depend on, without the weights."""
        options = (
            self.estimator | {'weights': None}, self.reading, self.photometry or {}, job.files,
        )  # fmt: skip
        given = [job.map, job.catalog, *(each for some in options for each in some.values())]
        names = [os.fspath(each) for each in given if isinstance(each, str | os.PathLike)]
        # Other texts are names of instruments and the like.
        return [name for name in names if os.path.isfile(name)]  # noqa: PTH113


def _state(path):
    """Name, size and time of a file; maps of a survey are too large to be read for it."""
    state = Path(path).stat()
    return [path, state.st_size, state.st_mtime_ns]


def _describe(value):
    """Everything that makes an object different from others, for JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        numbers = np.asarray(value).tolist()
        return [numbers, str(value.unit)] if hasattr(value, 'unit') else numbers
    return getattr(value, '__qualname__', None) or str(value)
