"""Comparison of methods that predict the background behind a source.

Discs are laid on places of maps where the background is known: where no source is, in Gaussian
fields, for which the best possible prediction is known, and behind injected sources. The sum in
an aperture at the centre that each method predicts is compared with the truth, at the same
positions and from the same valid pixels for all methods.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import vstack

from csr_astro.estimator import NeuralBackgroundEstimator
from csr_astro.evaluation.baselines import get_baselines
from csr_astro.evaluation.discs import background_errors
from csr_astro.evaluation.gaussian import (
    GAUSSIAN_FIELDS,
    gaussian_errors,
    gaussian_fields,
    number_of_fields,
)
from csr_astro.evaluation.injected import injected_errors, snr_levels
from csr_astro.evaluation.positions import draw_positions
from csr_astro.evaluation.statistics import (
    average_ratios,
    bright_bias,
    coverage,
    flux_ratios,
    scatter_ratios,
    summarize,
)
from csr_astro.instruments import get_instrument
from csr_astro.simulation.psf import instrument_profile, psf_profile
from csr_astro.tables import write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from astropy.table import Table

    from csr_astro.instruments import Instrument
    from csr_astro.typing import Maps, Methods, PathLike, PsfLike

# The three kinds of measurement are part of this module for its users.
__all__ = [
    'GAUSSIAN_FIELDS',
    'background_errors',
    'evaluate_accuracy',
    'gaussian_errors',
    'gaussian_fields',
    'get_methods',
    'injected_errors',
    'snr_levels',
]


_KINDS = ('blank', 'gaussian', 'injected')
# Ranges of SNR in which errors of injected sources are compared with the stated ones.
_SNR_EDGES = (10.0, 50.0, 300.0)
_SNR_RANGES = ('below 10', '10 to 50', '50 to 300', 'above 300')


def get_methods(
    names: Sequence[str] | None, weights: PathLike = 'default', **options: Any
) -> dict[str, Callable]:
    """Methods to compare, by name.

    Parameters
    ----------
    names : sequence of str or None
        ``'network'`` and keys of `~csr_astro.evaluation.baselines.BASELINES`;
        by default all that can be used here.
    weights : str or path-like, optional
        Weights of the network.
    **options
        Options of `~csr_astro.NeuralBackgroundEstimator`.

    Returns
    -------
    methods : dict of str to callable or `~csr_astro.NeuralBackgroundEstimator`

    Examples
    --------
    >>> from csr_astro.evaluation.accuracy import get_methods
    >>> list(get_methods(['network', 'plane'], fwhm=3.3))
    ['network', 'plane']
    """
    peers = get_baselines(None if names is None else [n for n in names if n != 'network'])
    if names is None or 'network' in names:
        if not {'instrument', 'fwhm'} & set(options):
            # The radii of masks are given, so that the beam has no influence.
            options = options | {'instrument': get_instrument()}
        peers = {'network': NeuralBackgroundEstimator(weights, **options)} | peers
    if not peers:
        raise ValueError('give at least one method.')
    return peers


def evaluate_accuracy(
    groups: Maps,
    methods: Methods,
    folder: PathLike | None = None,
    *,
    n: int = 300,
    radii: Sequence[float] = (5.0, 9.0, 12.0),
    apertures: Sequence[float] = (4.0,),
    gaussian: bool = False,
    inject: bool = False,
    psf: PsfLike | None = None,
    instrument: str | Instrument = 'generic',
    levels: Sequence[float] = (3, 8, 20, 60, 140, 300, 600, 1000),
    flux_levels: Sequence[float] | None = None,
    positions: Table | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> dict[str, Table]:
    """Compare methods behind blank discs, in Gaussian fields and behind injected sources.

    Parameters
    ----------
    groups : dict of str to list of (ny, nx) array
        Maps, as from `~csr_astro.evaluation.positions.read_groups`; may be empty with ``gaussian``.
    methods : dict of str to callable or `~csr_astro.NeuralBackgroundEstimator`
        As in `~csr_astro.evaluation.discs.background_errors`. The first is compared with the
        others.
    folder : path-like, optional
        Folder for the tables, which are written as ECSV; made if missing.
    n : int, optional
        Number of positions per group and radius, and per group of injected
        sources.
    radii, apertures : sequence of float, optional
        Radii of discs and apertures, in pixels.
    gaussian : bool, optional
        Whether to measure in Gaussian fields too.
    inject : bool, optional
        Whether to measure behind injected sources too.
    psf : optional
        PSF of the injected sources, see `~csr_astro.simulation.psf.psf_profile`;
        by default that of the instrument. Estimators know it, and subtract the wings of bright
        sources, unless it is only a beam.
    instrument : str or `~csr_astro.instruments.Instrument`, optional
        Instrument of the injected sources; maps are taken to have its pixels.
    levels, flux_levels : sequence of float, optional
        As in `~csr_astro.evaluation.injected.injected_errors`.
    positions : `~astropy.table.Table`, optional
        Positions of an earlier evaluation, with a column ``kind`` (``'blank'``,
        ``'gaussian'`` or ``'injected'``), to be used again.
    seed : int, optional
        Decides the positions and the Gaussian fields.
    progress : bool, optional
        Whether to show progress bars; by default on a terminal and in a notebook.

    Returns
    -------
    tables : dict of str to `~astropy.table.Table`
        ``positions``; ``blank`` and ``gaussian`` (see
        `~csr_astro.evaluation.statistics.summarize`), both with ``*_errors``,
        ``*_ratios`` and ``*_averages``; ``injected`` (see
        `~csr_astro.evaluation.statistics.flux_ratios`) with ``injected_errors``,
        and ``bright`` (see `~csr_astro.evaluation.statistics.bright_bias`).

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.accuracy import evaluate_accuracy
    >>> from csr_astro.evaluation.baselines import get_baselines
    >>> groups = {'noise': [np.random.default_rng(0).normal(size=(160, 160))]}
    >>> tables = evaluate_accuracy(groups, get_baselines(['plane', 'annulus_mean']), n=4, radii=[5])
    >>> print(*tables['blank']['method'])
    plane annulus_mean
    """
    if not groups and (inject or not gaussian):
        raise ValueError(
            'give maps to put sources on.' if inject else 'give maps, or --gaussian, to measure on.'
        )
    if positions is None:
        positions = _all_positions(groups, n, radii, apertures, gaussian, inject, seed)
    positions = _with_kind(positions)
    chosen = {kind: positions[positions['kind'] == kind] for kind in _KINDS}
    options: dict[str, Any] = {'apertures': apertures, 'progress': progress}
    tables = {'positions': positions}
    if len(chosen['blank']):
        errors = background_errors(groups, chosen['blank'], methods, **options)
        tables |= _compared('blank', errors, [*methods])
        tables |= _covered('blank', errors, 'radius')
    if len(chosen['gaussian']):
        errors = gaussian_errors(methods, positions=chosen['gaussian'], **options)
        tables |= _compared('gaussian', errors, [*methods, 'limit'])
        tables |= _covered('gaussian', errors, 'radius')
    if len(chosen['injected']):
        band = get_instrument(instrument)
        profile = instrument_profile(band) if psf is None else psf_profile(psf, band.pixel_scale)
        knowing = methods
        if psf is not None or band.psf_model is not None:
            knowing = {name: _with_psf(method, profile) for name, method in methods.items()}
        errors = injected_errors(
            groups, chosen['injected'], knowing, profile, instrument=band, levels=levels,
            flux_levels=flux_levels, **options,
        )  # fmt: skip
        tables |= {'injected_errors': errors, 'injected': flux_ratios(errors)}
        tables['bright'] = bright_bias(errors)
        ranges = [_SNR_RANGES[np.searchsorted(_SNR_EDGES, snr)] for snr in errors['snr']]
        errors = errors.copy(copy_data=False)
        errors['snr_range'] = ranges
        tables |= _covered('injected', errors, 'snr_range')
    if folder is not None:
        _write(Path(folder), tables)
    return tables


def _with_psf(method, profile):
    return method.replace(psf=profile) if hasattr(method, 'replace') else method


def _with_kind(positions):
    positions = positions.copy()
    if 'kind' not in positions.colnames:
        positions['kind'] = np.full(len(positions), 'blank')
    unknown = sorted(set(positions['kind']) - set(_KINDS))
    if unknown:
        raise ValueError(f'positions must be of the kinds {list(_KINDS)}, got {unknown}.')
    return positions


def _all_positions(groups, n, radii, apertures, gaussian, inject, seed):
    aperture = max(apertures)
    parts = []

    def add(kind, *args):
        drawn = draw_positions(*args, n, aperture=aperture, seed=seed)
        drawn['kind'] = np.full(len(drawn), kind)
        parts.append(drawn)

    if groups:
        add('blank', groups, radii)
    if gaussian:
        fields, _ = gaussian_fields(number_of_fields(n), seed=seed)
        add('gaussian', fields, radii)
    if inject:
        add('injected', groups, [max(radii)])
        # Positions of sources are not tied to pixels.
        rng = np.random.default_rng([seed, 11])
        for name in ('x', 'y'):
            parts[-1][name] += rng.uniform(-0.5, 0.5, len(parts[-1]))
    positions = vstack(parts, metadata_conflicts='silent')
    positions.meta['seed'] = seed
    return positions


def _compared(kind, errors, names):
    tables = {f'{kind}_errors': errors, kind: summarize(errors)}
    if len(names) > 1:
        ratios = scatter_ratios(errors, names[0], names[1:])
        everywhere = average_ratios(ratios)
        everywhere.add_column(np.full(len(everywhere), 'all'), index=0, name='group')
        tables[f'{kind}_ratios'] = ratios
        tables[f'{kind}_averages'] = vstack([
            average_ratios(ratios, by=('group', 'method', 'reference')), everywhere
        ])
    return tables


def _covered(kind, errors, column):
    """Coverage by group, by another column and in total; empty if no method states errors."""
    if not any(f'{name}_err' in errors.colnames for name in errors.colnames):
        return {}
    errors = errors.copy(copy_data=False)
    errors['all'] = np.full(len(errors), 'all')
    parts = []
    for by in ('all', 'group', column):
        part = coverage(errors, by=(by,))
        part.rename_column(by, 'part')
        part['part'] = [str(value) for value in part['part']]
        parts.append(part)
    return {f'{kind}_coverage': vstack(parts, metadata_conflicts='silent')}


def _write(folder, tables):
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_table(folder / f'{name}.ecsv', table)
