"""Errors in Gaussian fields of known covariance, for which the best prediction is known."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import vstack
from scipy import fft

from csr_astro.evaluation.baselines import kriging_limit
from csr_astro.evaluation.discs import background_errors
from csr_astro.evaluation.positions import check_positions, draw_positions
from csr_astro.kriging.stationary import power_law_covariance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from astropy.table import Table

    from csr_astro.typing import Methods

__all__ = ['GAUSSIAN_FIELDS', 'gaussian_errors', 'gaussian_fields']


_FIELD = 256
# Discs in each Gaussian field: few, so that they sample different structures.
_PER_FIELD = 20
#: (slope of the power spectrum, white noise over the field's scatter) of the Gaussian fields.
GAUSSIAN_FIELDS = tuple((s, n) for s in (-2.5, -3.0, -3.6) for n in (0.02, 0.06, 0.2))
_WHITE = 'white noise'


def gaussian_fields(
    n_fields: int,
    *,
    seed: int = 0,
    fields: Sequence[tuple[float, float]] = GAUSSIAN_FIELDS,
    size: int = _FIELD,
) -> tuple[dict[str, list[np.ndarray]], dict[str, np.ndarray]]:
    """Periodic Gaussian fields of known covariance, and white noise.

    The fields are those of `~csr_astro.simulation.diffuse.power_law_field` plus noise, but not
    scaled to the same scatter, which would change the covariance of each field at random.

    Parameters
    ----------
    n_fields : int
        Number of fields of each kind.
    seed : int, optional
        Decides the fields.
    fields : sequence of (float, float), optional
        Slopes of the power spectra, and noise over the field's scatter.
    size : int, optional
        Pixels per side.

    Returns
    -------
    groups : dict of str to list of (size, size) `~numpy.ndarray`
    covariances : dict of str to (size, size) `~numpy.ndarray`
        As `~csr_astro.kriging.stationary.kriging_mean` takes them.

    Examples
    --------
    >>> from csr_astro.evaluation.gaussian import gaussian_fields
    >>> groups, covariances = gaussian_fields(1, fields=[(-3, 0.1)], size=64)
    >>> list(groups)
    ['slope -3 noise 0.1', 'white noise']
    """
    covariances = {
        _field_name(slope, noise): power_law_covariance((size, size), slope, noise)
        for slope, noise in fields
    }
    covariances[_WHITE] = np.zeros((size, size))
    covariances[_WHITE][0, 0] = 1
    groups = {}
    for number, (name, covariance) in enumerate(covariances.items()):
        amplitude = np.sqrt(np.maximum(fft.rfft2(covariance).real, 0))
        rng = np.random.default_rng([seed, 7, number])
        groups[name] = [
            fft.irfft2(amplitude * fft.rfft2(rng.standard_normal((size, size))), s=(size, size))
            for _ in range(n_fields)
        ]
    return groups, covariances


def gaussian_errors(
    methods: Methods,
    *,
    radii: Sequence[float] = (5.0, 9.0, 12.0),
    n: int = 300,
    apertures: Sequence[float] = (4.0,),
    seed: int = 0,
    fields: Sequence[tuple[float, float]] = GAUSSIAN_FIELDS,
    positions: Table | None = None,
    progress: bool | None = None,
) -> Table:
    """Errors in Gaussian fields, and those of the best possible prediction.

    Parameters
    ----------
    methods, apertures, progress
        As in `~csr_astro.evaluation.discs.background_errors`.
    radii : sequence of float, optional
        Radii of the discs in pixels.
    n : int, optional
        Number of positions for each field and radius.
    seed : int, optional
        Decides the fields and the positions.
    fields : sequence of (float, float), optional
        As in `gaussian_fields`.
    positions : `~astropy.table.Table`, optional
        Positions as from `~csr_astro.evaluation.positions.draw_positions`, instead of drawing
        them. Their seed is also that of the fields.

    Returns
    -------
    errors : `~astropy.table.Table`
        As from `~csr_astro.evaluation.discs.background_errors`, with a method ``limit``: kriging
        with the exact covariance, from the pixels that the other methods have.

    Examples
    --------
    >>> from csr_astro.evaluation.gaussian import gaussian_errors
    >>> from csr_astro.evaluation.baselines import get_baselines
    >>> errors = gaussian_errors(get_baselines(['plane']), radii=[5], n=1, fields=[(-3.0, 0.05)])
    >>> print('plane' in errors.colnames, 'limit' in errors.colnames)
    True True
    """
    n_fields = number_of_fields(n)
    if positions is not None:
        seed, n_fields = positions.meta.get('seed', seed), int(positions['map'].max()) + 1
    groups, covariances = gaussian_fields(n_fields, seed=seed, fields=fields)
    if positions is None:
        positions = draw_positions(groups, radii, n, aperture=max(apertures), seed=seed)
    check_positions(positions, groups)
    parts = []
    for group in dict.fromkeys(positions['group']):
        limit = {'limit': partial(kriging_limit, covariance=covariances[group])}
        parts.append(
            background_errors(
                {group: groups[group]},
                positions[positions['group'] == group],
                limit | dict(methods),
                apertures=apertures,
                progress=progress,
            )
        )
    return vstack(parts, metadata_conflicts='silent')


def number_of_fields(n):
    """Number of fields of each kind for a number of positions.

    Parameters
    ----------
    n : int
        Number of positions.
    """
    return -(-n // _PER_FIELD)


def _field_name(slope, noise):
    return f'slope {slope:g} noise {noise:g}'
