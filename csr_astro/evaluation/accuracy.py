"""How well is the background known behind a source?

Discs are laid on places of a map whose background is known, because no source
is there or because the source was put there. What each method says of the sum
in an aperture at the centre is compared with the truth, on the same positions
and from the same valid pixels for all methods: behind blank discs, in Gaussian
fields of which the best possible prediction is known, and behind injected
sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import vstack
from photutils.aperture import CircularAperture
from scipy import fft

from csr_astro.cutouts import extract, extract_mask, nearest_pixel, window_size
from csr_astro.evaluation.baselines import annulus, get_baselines, kriging_limit
from csr_astro.evaluation.positions import (
    check_positions,
    check_radii,
    draw_positions,
    separate_positions,
)
from csr_astro.evaluation.statistics import (
    average_ratios,
    bright_bias,
    coverage,
    flux_ratios,
    scatter_ratios,
    summarize,
)
from csr_astro.flags import NOT_INPAINTED
from csr_astro.images import parse_image
from csr_astro.instruments import get_instrument
from csr_astro.kriging.stationary import power_law_covariance
from csr_astro.masking import combined_mask, disc, measure_snr
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import instrument_profile, psf_profile, psf_stamp
from csr_astro.uncertainty import aperture_weights
from csr_astro.utils.scatter import ring_scatter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from astropy.table import Table

    from csr_astro.instruments import Instrument
    from csr_astro.typing import Maps, Methods, PathLike, ProfileLike, PsfLike

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


# Least distance between discs that are predicted together, beyond their radii, in pixels.
_SEPARATION = 30.0
# The same between injected sources, whose wings reach farther.
_SEPARATION_INJECTED = 70.0
_FIELD = 256
# Discs in each Gaussian field: few, so that they tell of different structures.
_PER_FIELD = 20
#: (slope of the power spectrum, white noise over the field's scatter) of the Gaussian fields.
GAUSSIAN_FIELDS = tuple((s, n) for s in (-2.5, -3.0, -3.6) for n in (0.02, 0.06, 0.2))
_WHITE = 'white noise'


# ------------------------------------------------------------------------------------- errors


def _aperture_weights(x, y, radius, size):
    """Fractions of the pixels of a window that lie in an aperture."""
    center = size // 2 + x - nearest_pixel(x), size // 2 + y - nearest_pixel(y)
    return CircularAperture(center, radius).to_mask(method='exact').to_image((size, size))


def _together(image, truth, x, y, radius, methods, apertures, reach=0.0):
    """Errors of the sums behind discs that are all masked at once.

    Parameters are those of `background_errors`, with arrays ``x``, ``y``,
    ``radius``; windows hold a circle of radius ``reach``.

    Returns
    -------
    errors : dict of str to (N, A) array
        Predicted minus true; and, as ``*_err``, what the method says of it.
    true, local : (N, A) array
        Sum of the truth; scatter of the ring times the aperture's area.
    """
    n = len(x)
    masks = [disc(*place, image.shape) for place in zip(x, y, radius, strict=True)]
    hole = combined_mask(masks, image.shape)
    size = max(int(window_size(max(radius))), 2 * int(np.ceil(reach))) + 1
    values = extract(parse_image(image), x, y, size)
    covered = extract_mask(hole, x, y, size)
    finite = np.isfinite(values)
    valid = finite & ~covered
    # Nobody can look under the discs.
    values[~valid] = np.nan
    wanted = extract(parse_image(truth), x, y, size)
    weights = np.array([
        [_aperture_weights(x[i], y[i], a, size) for a in apertures] for i in range(n)
    ])
    inside = np.zeros_like(covered)
    for i, mask in enumerate(masks):
        inside[(i, *mask.in_window(x[i], y[i], size))] = True
    inside &= finite

    errors = {}
    for name, method in methods.items():
        predicted = wanted.copy()
        if hasattr(method, 'estimate'):
            result = method.estimate(image, np.column_stack([x, y]), mask_radius=radius)
            found = extract(parse_image(np.asarray(result.background)), x, y, size)
            predicted[inside] = found[inside]
            predicted[result.flags & NOT_INPAINTED > 0] = np.nan
            if hasattr(result, 'errors'):
                errors[f'{name}_err'] = _stated_errors(result, apertures)
        else:
            for i in range(n):
                center = (
                    size // 2 + x[i] - nearest_pixel(x[i]),
                    size // 2 + y[i] - nearest_pixel(y[i]),
                )
                predicted[i][inside[i]] = method(
                    values[i], valid[i], inside[i], *center, radius[i]
                )
        difference = np.where(inside, predicted - wanted, 0)
        errors[name] = np.einsum('nayx,nyx->na', weights, difference)
    area = np.pi * np.asarray(apertures, dtype=float) ** 2
    local = ring_scatter(extract(parse_image(truth), x, y, size), valid, radius)[:, None] * area
    true = np.einsum('nayx,nyx->na', weights, np.where(np.isfinite(wanted), wanted, 0))
    return errors, true, local


def _stated_errors(result, apertures):
    """1-sigma errors of the sums behind each source, (N, A); NaN where there are none."""
    stated = np.full((len(result), len(apertures)), np.nan)
    for i, mask in enumerate(result.source_masks):
        if mask is None:
            continue
        rows, columns = mask.on_map()
        measured = np.isfinite(np.asarray(result.image.data)[rows, columns])
        center = result.sources['x_center'][i], result.sources['y_center'][i]
        weights = measured * np.array([
            aperture_weights(CircularAperture(center, a), columns, rows, 'exact')
            for a in apertures
        ])
        stated[i] = result.errors.sum_error(i, weights)
    return stated


def _measure(table, images, methods, apertures, progress):
    """Add columns true, local and one per method; a row per position and aperture."""
    columns = {}
    for m in np.unique(table['map']):
        rows = np.flatnonzero(table['map'] == m)
        x, y, radius = (np.array(table[c][rows], dtype=float) for c in ('x', 'y', 'radius'))
        image = images[m]
        for members in separate_positions(x, y, _SEPARATION + 2 * radius.max()):
            errors, true, local = _together(
                image, image, x[members], y[members], radius[members], methods, apertures
            )
            for name, values in ({'true': true, 'local': local} | errors).items():
                column = columns.setdefault(name, np.full((len(table), len(apertures)), np.nan))
                column[rows[members]] = values
            progress(len(members))
    repeated = table[np.repeat(np.arange(len(table)), len(apertures))]
    repeated['aperture'] = np.tile(np.asarray(apertures, dtype=float), len(table))
    for name, column in columns.items():
        repeated[name] = column.ravel()
    return repeated


def _bar(total, progress):
    from tqdm import tqdm

    return tqdm(total=total, unit='disc', disable=not progress)


def background_errors(
    groups: Maps,
    positions: Table,
    methods: Methods,
    *,
    apertures: Sequence[float] = (4.0,),
    progress: bool = False,
) -> Table:
    """Errors of the background sum behind discs where no source is.

    Parameters
    ----------
    groups : dict of str to list of (ny, nx) array
        Maps, NaN where blank, as from `~csr_astro.evaluation.positions.read_groups`.
    positions : `~astropy.table.Table`
        As from `~csr_astro.evaluation.positions.draw_positions`.
    methods : dict of str to callable or `~csr_astro.NeuralBackgroundEstimator`
        What is compared: functions as in `~csr_astro.evaluation.baselines.BASELINES`,
        and anything with the estimator's method ``estimate``.
    apertures : sequence of float, optional
        Radii of the apertures in pixels. Pixels of an aperture outside the disc
        are known, and have no error.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    errors : `~astropy.table.Table`
        A row per position and aperture: the columns of ``positions``,
        ``aperture``, ``true`` (sum of the map), ``local`` (scatter of the ring
        around the disc × area of the aperture) and for each method the sum
        predicted minus the true one; NaN where it had nothing to go by.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.accuracy import background_errors
    >>> from csr_astro.evaluation.baselines import get_baselines
    >>> from csr_astro.evaluation.positions import draw_positions
    >>> slope = {'slope': [np.add.outer(np.arange(80.0), np.arange(80.0))]}
    >>> errors = background_errors(slope, draw_positions(slope, [5], 3), get_baselines(['plane']))
    >>> print(len(errors), bool(np.abs(errors['plane']).max() < 1e-9))
    3 True
    """
    if not isinstance(methods, Mapping):
        raise TypeError(
            'methods must be a dict of names and estimators or functions, as from get_baselines, '
            f'got {type(methods).__name__}.'
        )
    check_positions(positions, groups)
    check_radii(positions['radius'], max(apertures))
    parts = []
    with _bar(len(positions), progress) as bar:
        discs = zip(positions['group'], positions['radius'], strict=True)
        for group, radius in dict.fromkeys(discs):
            rows = positions[(positions['group'] == group) & (positions['radius'] == radius)]
            parts.append(
                _measure(rows, groups[group], methods, apertures, bar.update)
            )
    return vstack(parts, metadata_conflicts='silent')


# ----------------------------------------------------------------------------- Gaussian fields


def _field_name(slope, noise):
    return f'slope {slope:g} noise {noise:g}'


def gaussian_fields(
    n_fields: int,
    *,
    seed: int = 0,
    fields: Sequence[tuple[float, float]] = GAUSSIAN_FIELDS,
    size: int = _FIELD,
) -> tuple[dict[str, list[np.ndarray]], dict[str, np.ndarray]]:
    """Periodic Gaussian fields of known covariance, and one kind that is all white noise.

    They are `~csr_astro.simulation.diffuse.power_law_field` plus noise, without
    its last step: scaling each field to the same scatter would make its
    small-scale power, and so its covariance, a matter of chance.

    Parameters
    ----------
    n_fields : int
        Of each kind.
    seed : int, optional
        Decides what they look like.
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
    >>> from csr_astro.evaluation.accuracy import gaussian_fields
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
    progress: bool = False,
) -> Table:
    """Errors in Gaussian fields, together with those of the best possible prediction.

    Parameters
    ----------
    methods, apertures, progress
        As in `background_errors`.
    radii : sequence of float, optional
        Of the discs in pixels.
    n : int, optional
        Number of positions for each field and radius.
    seed : int, optional
        Decides the fields and the positions.
    fields : sequence of (float, float), optional
        As in `gaussian_fields`.
    positions : `~astropy.table.Table`, optional
        As from `~csr_astro.evaluation.positions.draw_positions`, instead of
        drawing them; their seed is that of the fields, too.

    Returns
    -------
    errors : `~astropy.table.Table`
        As from `background_errors`, with a method ``limit``: kriging with the
        exact covariance, from the pixels that the others have.

    Examples
    --------
    >>> from csr_astro.evaluation.accuracy import gaussian_errors
    >>> from csr_astro.evaluation.baselines import get_baselines
    >>> errors = gaussian_errors(get_baselines(['plane']), radii=[5], n=1, fields=[(-3.0, 0.05)])
    >>> print('plane' in errors.colnames, 'limit' in errors.colnames)
    True True
    """
    n_fields = -(-n // _PER_FIELD)
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


# ----------------------------------------------------------------------------- injected sources


def snr_levels(
    images: Sequence[np.ndarray],
    positions: Table,
    profile: ProfileLike,
    instrument: Instrument,
    levels: Sequence[float],
) -> np.ndarray:
    """Fluxes whose peaks have given ratios to the typical scatter of the ring around them.

    Parameters
    ----------
    images : list of (ny, nx) array
        Maps.
    positions : `~astropy.table.Table`
        Columns ``map``, ``x`` and ``y``.
    profile : callable
        The PSF.
    instrument : `~csr_astro.instruments.Instrument`
        Its ``snr_radii``.
    levels : sequence of float
        Signal-to-noise ratios.

    Returns
    -------
    flux : (L,) `~numpy.ndarray` of float
        In units of the map's sum.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.table import Table
    >>> from csr_astro.evaluation.accuracy import snr_levels
    >>> from csr_astro.instruments import get_instrument
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> noise = np.random.default_rng(0).normal(size=(100, 100))
    >>> places = Table({'map': [0], 'x': [50.0], 'y': [50.0]})
    >>> flux = snr_levels([noise], places, gaussian_profile(3.5), get_instrument(), [10, 20])
    >>> print(flux[1] > flux[0])
    True
    """
    _, inner, outer = instrument.snr_radii
    size = 2 * int(np.ceil(outer)) + 1
    distance = np.hypot(*np.ogrid[-(size // 2) : size // 2 + 1, -(size // 2) : size // 2 + 1])
    ring = (distance >= inner) & (distance <= outer)
    scatter = []
    for m, x, y in zip(positions['map'], positions['x'], positions['y'], strict=True):
        values = extract(parse_image(images[m]), np.array([x]), np.array([y]), size)[0][ring]
        if np.isfinite(values).sum() > 1:
            scatter.append(np.nanstd(values))
    typical = np.median(scatter) if scatter else 0.0
    if not typical > 0:
        raise ValueError('the maps do not scatter, so that no flux is too faint on them.')
    return np.asarray(levels, dtype=float) * typical / psf_stamp(profile).max()


def injected_errors(
    groups: Maps,
    positions: Table,
    methods: Methods,
    profile: ProfileLike,
    *,
    instrument: str | Instrument = 'generic',
    levels: Sequence[float] = (3, 8, 20, 60, 140, 300, 600, 1000),
    flux_levels: Sequence[float] | None = None,
    apertures: Sequence[float] = (4.0,),
    progress: bool = False,
) -> Table:
    """Errors of the background sum behind sources that are put onto maps.

    Every position takes a source of every flux. Masks are those of the
    instrument for the measured SNR, so that bright sources have wings outside.

    Parameters
    ----------
    groups, methods, apertures, progress
        As in `background_errors`. The method ``annulus`` is added, that of the
        instrument's classical photometry.
    positions : `~astropy.table.Table`
        As from `~csr_astro.evaluation.positions.draw_positions`; ``radius`` has no influence.
    profile : callable
        The PSF, in pixels of the maps, as from
        `~csr_astro.simulation.psf.psf_profile`.
    instrument : str or `~csr_astro.instruments.Instrument`, optional
        Decides the masks and the annulus.
    levels : sequence of float, optional
        Flux levels as SNRs over the typical ring of the group, see `snr_levels`.
    flux_levels : sequence of float, optional
        Flux levels in units of the map's sum instead.

    Returns
    -------
    errors : `~astropy.table.Table`
        As from `background_errors`, with columns ``flux`` (injected),
        ``flux_aperture`` (its part in the aperture) and ``snr`` (measured).

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.accuracy import injected_errors
    >>> from csr_astro.evaluation.baselines import get_baselines
    >>> from csr_astro.evaluation.positions import draw_positions
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> groups = {'noise': [np.random.default_rng(0).normal(size=(120, 120))]}
    >>> positions = draw_positions(groups, [5], n=2)
    >>> errors = injected_errors(
    ...     groups, positions, get_baselines(['plane']), gaussian_profile(3.5), levels=[20]
    ... )
    >>> print(len(errors), 'plane' in errors.colnames, 'flux' in errors.colnames)
    2 True True
    """
    instrument = get_instrument(instrument)
    check_positions(positions, groups)
    methods = dict(methods) | {
        'annulus': partial(annulus, inner=instrument.annulus[0], outer=instrument.annulus[1])
    }
    n_levels = len(levels if flux_levels is None else flux_levels)
    parts = []
    with _bar(len(positions) * n_levels, progress) as bar:
        for group in dict.fromkeys(positions['group']):
            rows = positions[positions['group'] == group]
            images = groups[group]
            for flux in (
                snr_levels(images, rows, profile, instrument, levels)
                if flux_levels is None
                else flux_levels
            ):
                part = rows.copy()
                part['flux'] = float(flux)
                parts.append(
                    _inject(part, images, profile, instrument, methods, apertures, bar.update)
                )
    return vstack(parts, metadata_conflicts='silent')


def _inject(table, images, profile, instrument, methods, apertures, progress):
    """Errors for one flux level of a group."""
    parts = []
    for m in np.unique(table['map']):
        rows = table[table['map'] == m]
        x, y = np.array(rows['x'], dtype=float), np.array(rows['y'], dtype=float)
        truth = images[m]
        for members in separate_positions(x, y, _SEPARATION_INJECTED):
            part = rows[members]
            place = x[members], y[members]
            image = inject_sources(truth, *place, part['flux'], profile)
            part['snr'] = measure_snr(parse_image(image), *place, instrument)
            part['radius'] = instrument.mask(part['snr'])[1]
            errors, true, local = _together(
                image, truth, *place, np.array(part['radius']), methods, apertures,
                instrument.annulus[1],
            )  # fmt: skip
            full = part[np.repeat(np.arange(len(part)), len(apertures))]
            full['aperture'] = np.tile(np.asarray(apertures, dtype=float), len(part))
            sources = inject_sources(np.zeros(truth.shape), *place, part['flux'], profile)
            full['flux_aperture'] = np.ravel([
                [CircularAperture(at, a).do_photometry(sources)[0][0] for a in apertures]
                for at in zip(*place, strict=True)
            ])
            full['true'], full['local'] = true.ravel(), local.ravel()
            for name, values in errors.items():
                full[name] = values.ravel()
            parts.append(full)
            progress(len(part))
    return vstack(parts, metadata_conflicts='silent')


# ------------------------------------------------------------------------------ all in one go


def get_methods(
    names: Sequence[str] | None, weights: PathLike = 'default', **options: Any
) -> dict[str, Callable]:
    """What is compared, by name.

    Parameters
    ----------
    names : sequence of str or None
        ``'network'`` and keys of `~csr_astro.evaluation.baselines.BASELINES`;
        by default all that can be used here.
    weights : str or path-like, optional
        Of the network.
    **options
        Of `~csr_astro.NeuralBackgroundEstimator`.

    Returns
    -------
    methods : dict of str to callable or `~csr_astro.NeuralBackgroundEstimator`

    Examples
    --------
    >>> from csr_astro.evaluation.accuracy import get_methods
    >>> list(get_methods(['network', 'plane'], fwhm=3.3))
    ['network', 'plane']
    """
    from csr_astro import NeuralBackgroundEstimator

    peers = get_baselines(None if names is None else [n for n in names if n != 'network'])
    if names is None or 'network' in names:
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
    progress: bool = False,
) -> dict[str, Table]:
    """Compare methods behind blank discs, in Gaussian fields and behind injected sources.

    Parameters
    ----------
    groups : dict of str to list of (ny, nx) array
        Maps, as from `~csr_astro.evaluation.positions.read_groups`; may be empty with ``gaussian``.
    methods : dict of str to callable or `~csr_astro.NeuralBackgroundEstimator`
        As in `background_errors`. The first is compared with the others.
    folder : path-like, optional
        Where the tables are written as ECSV; made if missing.
    n : int, optional
        Number of positions per group and radius, and per group of injected
        sources.
    radii, apertures : sequence of float, optional
        Of discs and apertures, in pixels.
    gaussian : bool, optional
        Whether to measure in `gaussian_fields` too.
    inject : bool, optional
        Whether to measure behind injected sources too.
    psf : optional
        PSF of the injected sources, see `~csr_astro.simulation.psf.psf_profile`;
        by default that of the instrument.
    instrument : str or `~csr_astro.instruments.Instrument`, optional
        Of the injected sources; maps are taken to have its pixels.
    levels, flux_levels : sequence of float, optional
        As in `injected_errors`.
    positions : `~astropy.table.Table`, optional
        Positions of an earlier evaluation, with a column ``kind`` (``'blank'``,
        ``'gaussian'`` or ``'injected'``), to be used again.
    seed : int, optional
        Decides the positions and the Gaussian fields.
    progress : bool, optional
        Whether to show progress bars.

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
        errors = injected_errors(
            groups, chosen['injected'], methods, profile, instrument=band, levels=levels,
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


_KINDS = ('blank', 'gaussian', 'injected')
# In which errors of injected sources are compared with those that are stated.
_SNR_EDGES = (10.0, 50.0, 300.0)
_SNR_RANGES = ('below 10', '10 to 50', '50 to 300', 'above 300')


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
        fields, _ = gaussian_fields(-(-n // _PER_FIELD), seed=seed)
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
    """Coverage by group, by another column, and of all; none if no method states errors."""
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
    from csr_astro.tables import write_table

    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_table(folder / f'{name}.ecsv', table)
