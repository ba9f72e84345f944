"""Statistics of errors, with errors of their own from bootstrap samples of the positions.

Robust scatter, rms and bias of methods, ratios between methods, and coverage of stated errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.stats import mad_std
from astropy.table import Table

from csr_astro.evaluation.positions import POSITION_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

__all__ = [
    'average_ratios',
    'bright_bias',
    'coverage',
    'flux_ratios',
    'robust_scatter',
    'scatter_ratios',
    'summarize',
]


_BOOTSTRAP = 400
_BRIGHT = 300.0
# Errors more than this many times as large as stated are outliers.
_OUTLIER = 5.0


def robust_scatter(errors: ArrayLike, axis: int = -1) -> np.ndarray:
    """Median absolute deviation, scaled to the standard deviation of a normal distribution.

    Parameters
    ----------
    errors : (..., N) array-like of float
        Errors; NaN is ignored.
    axis : int, optional
        Axis along which the scatter is taken.

    Returns
    -------
    scatter : `~numpy.ndarray` of float

    Examples
    --------
    >>> from csr_astro.evaluation.statistics import robust_scatter
    >>> print(robust_scatter([1, 2, 3, 4, 100]).round(4))
    1.4826
    """
    return mad_std(np.asarray(errors, dtype=float), axis=axis, ignore_nan=True)


_STATISTICS: dict[str, Any] = {
    'scatter': robust_scatter,
    'rms': lambda errors, axis=-1: np.sqrt(np.nanmean(np.square(errors), axis=axis)),
    'bias': np.nanmean,
    'median': np.nanmedian,
}


def _resampled(n, rng, n_bootstrap):
    """Indices of all rows first, then of the bootstrap samples."""
    return np.vstack([np.arange(n), rng.integers(0, n, (n_bootstrap, n))])


def median_and_iqr(values, rng, n_bootstrap=_BOOTSTRAP):
    """Median and interquartile range of some values, with errors from bootstrap samples.

    Parameters
    ----------
    values : (N,) `~numpy.ndarray` of float
        Finite values.
    rng : `numpy.random.Generator`
        Draws the samples.
    n_bootstrap : int, optional
        Number of samples.

    Returns
    -------
    median, median_err, iqr, iqr_err : float
        NaN without values.
    """
    if not len(values):
        return [np.nan] * 4
    sample = values[_resampled(len(values), rng, n_bootstrap)]
    low, middle, high = np.percentile(sample, [25, 50, 75], axis=-1)
    iqr = high - low
    return [middle[0], middle[1:].std(), iqr[0], iqr[1:].std()]


def _methods(errors):
    known = {*POSITION_COLUMNS, 'aperture', 'true', 'local', 'flux', 'flux_aperture', 'snr', 'kind'}
    known |= {'snr_range', 'all', *(f'{name}_err' for name in errors.colnames)}
    return [name for name in errors.colnames if name not in known]


def _by_key(errors, by):
    """Yield (key, rows) for each combination of values, in the order of the table."""
    keys = list(zip(*(errors[name] for name in by), strict=True))
    for key in dict.fromkeys(keys):
        yield key, errors[[i for i, each in enumerate(keys) if each == key]]


def _table(rows, names, errors_of=()):
    table = Table(rows=rows, names=names)
    for name in table.colnames:
        if table[name].dtype.kind == 'f':
            table[name].info.format = '.3g' if name in errors_of else '.4g'
    return table


def summarize(
    errors: Table,
    *,
    by: Sequence[str] = ('group', 'radius', 'aperture'),
    n_bootstrap: int = _BOOTSTRAP,
    seed: int = 0,
) -> Table:
    """Robust scatter, rms and bias of each method, with bootstrap errors.

    Parameters
    ----------
    errors : `~astropy.table.Table`
        As from `~csr_astro.evaluation.accuracy.background_errors` and the like.
    by : sequence of str, optional
        Columns; every combination of their values gets a row per method.
    n_bootstrap : int, optional
        Number of bootstrap samples of the positions.
    seed : int, optional
        Seed of the bootstrap.

    Returns
    -------
    table : `~astropy.table.Table`
        The columns of ``by``, ``method``, ``n`` (positions with a prediction),
        and in the unit of the sum ``scatter`` (`robust_scatter`), ``rms`` (about
        zero), ``bias`` (mean), ``median``; each with its error ``*_err``.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.table import Table
    >>> from csr_astro.evaluation.statistics import summarize
    >>> errors = Table({'group': ['a'] * 400})
    >>> errors['radius'], errors['aperture'] = 5.0, 4.0
    >>> errors['plane'] = np.random.default_rng(1).normal(0.5, 2, 400)
    >>> row = summarize(errors)[0]
    >>> print(row['method'], row['n'], abs(row['scatter'] - 2) < 3 * row['scatter_err'])
    plane 400 True
    """
    rng = np.random.default_rng(seed)
    rows = []
    for key, part in _by_key(errors, by):
        for name in _methods(errors):
            values = np.array(part[name], dtype=float)
            values = values[np.isfinite(values)]
            row = [*key, name, len(values)]
            if not len(values):
                rows.append([*row, *[np.nan] * (2 * len(_STATISTICS))])
                continue
            sample = values[_resampled(len(values), rng, n_bootstrap)]
            for statistic in _STATISTICS.values():
                found = statistic(sample, axis=-1)
                row += [found[0], found[1:].std()]
            rows.append(row)
    names = [part for name in _STATISTICS for part in (name, f'{name}_err')]
    return _table(rows, [*by, 'method', 'n', *names], [f'{name}_err' for name in _STATISTICS])


def scatter_ratios(
    errors: Table,
    method: str,
    references: Sequence[str],
    *,
    by: Sequence[str] = ('group', 'radius', 'aperture'),
    n_bootstrap: int = _BOOTSTRAP,
    seed: int = 0,
) -> Table:
    """Scatter and rms of one method over those of others, on the same positions.

    Parameters
    ----------
    errors, by, n_bootstrap, seed
        As in `summarize`; both methods are resampled alike.
    method : str
        Column of the numerator.
    references : sequence of str
        Columns of the denominators.

    Returns
    -------
    table : `~astropy.table.Table`
        The columns of ``by``, ``method``, ``reference``, ``n`` (positions that
        both predict), ``scatter_ratio`` and ``rms_ratio``; each with ``*_err``.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.table import Table
    >>> from csr_astro.evaluation.statistics import scatter_ratios
    >>> error = np.random.default_rng(0).normal(size=99)
    >>> errors = Table({'group': ['a'] * 99, 'radius': [5.0] * 99, 'aperture': [4.0] * 99,
    ...                 'network': error, 'annulus': 2 * error})
    >>> print(scatter_ratios(errors, 'network', ['annulus'])['scatter_ratio'][0])
    0.5
    """
    rng = np.random.default_rng(seed)
    rows = []
    for key, part in _by_key(errors, by):
        for reference in references:
            pair = np.array([part[method], part[reference]], dtype=float)
            pair = pair[:, np.isfinite(pair).all(axis=0)]
            row = [*key, method, reference, pair.shape[1]]
            if not pair.shape[1]:
                rows.append([*row, *[np.nan] * 4])
                continue
            sample = pair[:, _resampled(pair.shape[1], rng, n_bootstrap)]
            for statistic in ('scatter', 'rms'):
                above, below = _STATISTICS[statistic](sample, axis=-1)
                with np.errstate(divide='ignore', invalid='ignore'):
                    ratio = above / below
                row += [ratio[0], _spread(ratio[1:])]
            rows.append(row)
    names = ['scatter_ratio', 'scatter_ratio_err', 'rms_ratio', 'rms_ratio_err']
    return _table(rows, [*by, 'method', 'reference', 'n', *names], names[1::2])


def _spread(values):
    values = values[np.isfinite(values)]
    return values.std() if len(values) else np.nan


def average_ratios(ratios: Table, *, by: Sequence[str] = ('method', 'reference')) -> Table:
    """Means of `scatter_ratios` over groups, radii and apertures.

    Parameters
    ----------
    ratios : `~astropy.table.Table`
        As from `scatter_ratios`.
    by : sequence of str, optional
        Columns that are not averaged over.

    Returns
    -------
    table : `~astropy.table.Table`
        The columns of ``by``, ``n_ratios``, and means with their errors;
        ``scatter_ratio_worst`` is the largest. Ratios that are not finite are ignored.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.table import Table
    >>> from csr_astro.evaluation.statistics import average_ratios, scatter_ratios
    >>> error = np.random.default_rng(0).normal(size=99)
    >>> errors = Table({'group': ['a'] * 49 + ['b'] * 50, 'radius': [5.0] * 99,
    ...                 'aperture': [4.0] * 99, 'network': error, 'annulus': 2 * error})
    >>> row = average_ratios(scatter_ratios(errors, 'network', ['annulus']))[0]
    >>> print(row['n_ratios'], row['scatter_ratio'])
    2 0.5
    """
    rows = []
    # A method without predictions has no ratio.
    known = np.isfinite(ratios['scatter_ratio']) & np.isfinite(ratios['rms_ratio'])
    for key, part in _by_key(ratios[known], by):
        count = len(part)
        row = [*key, count]
        for name in ('scatter_ratio', 'rms_ratio'):
            error = np.sqrt(np.sum(np.square(part[f'{name}_err']))) / count
            row += [np.mean(part[name]), error]
        rows.append([*row, np.max(part['scatter_ratio'])])
    names = ['scatter_ratio', 'scatter_ratio_err', 'rms_ratio', 'rms_ratio_err']
    return _table(rows, [*by, 'n_ratios', *names, 'scatter_ratio_worst'], names[1::2])


def flux_ratios(
    errors: Table,
    *,
    by: Sequence[str] = ('group', 'aperture', 'flux'),
    n_bootstrap: int = _BOOTSTRAP,
    seed: int = 0,
) -> Table:
    """Ratio of measured to injected flux, per flux level.

    The measured flux is the sum of map minus background in the aperture over the part of the PSF
    that lies in it.

    Parameters
    ----------
    errors : `~astropy.table.Table`
        As from `~csr_astro.evaluation.accuracy.injected_errors`.
    by, n_bootstrap, seed
        As in `summarize`.

    Returns
    -------
    table : `~astropy.table.Table`
        The columns of ``by``, ``method``, ``n``, medians of ``snr`` and
        ``radius`` (of the mask), ``ratio`` (median) and ``iqr``
        (interquartile range), the two with ``*_err``.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.table import Table
    >>> from csr_astro.evaluation.statistics import flux_ratios
    >>> error = np.random.default_rng(0).normal(size=99)
    >>> errors = Table({'group': ['a'] * 99, 'aperture': [4.0] * 99, 'flux': [300.0] * 99,
    ...                 'flux_aperture': [250.0] * 99, 'snr': [50.0] * 99, 'radius': [7.0] * 99,
    ...                 'network': error})
    >>> row = flux_ratios(errors)[0]
    >>> print(row['method'], row['n'], abs(row['ratio'] - 1) < 0.01)
    network 99 True
    """
    rng = np.random.default_rng(seed)
    rows = []
    for key, part in _by_key(errors, by):
        for name in _methods(errors):
            ratio = 1 - np.array(part[name]) / np.array(part['flux_aperture'])
            ratio = ratio[np.isfinite(ratio)]
            row = [*key, name, len(ratio), np.nanmedian(part['snr']), np.nanmedian(part['radius'])]
            rows.append([*row, *median_and_iqr(ratio, rng, n_bootstrap)])
    names = ['ratio', 'ratio_err', 'iqr', 'iqr_err']
    return _table(rows, [*by, 'method', 'n', 'snr', 'radius', *names], names[1::2])


def bright_bias(
    errors: Table,
    *,
    snr: float = _BRIGHT,
    by: Sequence[str] = ('group', 'aperture'),
    n_bootstrap: int = _BOOTSTRAP,
    seed: int = 0,
) -> Table:
    """Bias of the background sum behind bright sources, whose wings are outside their masks.

    Parameters
    ----------
    errors : `~astropy.table.Table`
        As from `~csr_astro.evaluation.accuracy.injected_errors`.
    snr : float, optional
        SNR above which sources are bright.
    by, n_bootstrap, seed
        As in `summarize`.

    Returns
    -------
    table : `~astropy.table.Table`
        The columns of ``by``, ``method``, ``n``, and in units of the ring's
        scatter × the aperture's area ``bias`` (median) and ``scatter``
        (`robust_scatter`); each with ``*_err``. No rows if no source is bright.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.table import Table
    >>> from csr_astro.evaluation.statistics import bright_bias
    >>> error = np.random.default_rng(0).normal(size=99)
    >>> errors = Table({'group': ['a'] * 99, 'aperture': [4.0] * 99, 'snr': [500.0] * 99,
    ...                 'local': [2.0] * 99, 'network': 2 * error + 1})
    >>> row = bright_bias(errors)[0]
    >>> print(row['method'], row['n'], abs(row['bias'] - 0.5) < 0.3)
    network 99 True
    """
    bright = errors[np.array(errors['snr']) > snr]
    rng = np.random.default_rng(seed)
    rows = []
    for key, part in _by_key(bright, by):
        for name in _methods(errors):
            with np.errstate(divide='ignore', invalid='ignore'):
                values = np.array(part[name]) / np.array(part['local'])
            values = values[np.isfinite(values)]
            if not len(values):
                continue
            sample = values[_resampled(len(values), rng, n_bootstrap)]
            middle, scatter = np.median(sample, axis=-1), robust_scatter(sample)
            rows.append([*key, name, len(values), middle[0], middle[1:].std(), scatter[0],
                         scatter[1:].std()])  # fmt: skip
    names = ['bias', 'bias_err', 'scatter', 'scatter_err']
    return _table(rows or None, [*by, 'method', 'n', *names], names[1::2])


def coverage(
    errors: Table, *, by: Sequence[str] = ('group',), n_bootstrap: int = _BOOTSTRAP, seed: int = 0
) -> Table:
    """Fractions of errors within the 1-sigma errors that methods state.

    Parameters
    ----------
    errors : `~astropy.table.Table`
        As from `~csr_astro.evaluation.accuracy.background_errors` and the like. Methods
        that state their errors have a column ``*_err``.
    by, n_bootstrap, seed
        As in `summarize`. The rows of one position, for several apertures, are resampled
        together.

    Returns
    -------
    table : `~astropy.table.Table`
        The columns of ``by``, ``method``, ``n``; the fractions of errors
        ``within_1_sigma`` (0.683 if Gaussian) and ``within_2_sigma`` (0.954) of the
        stated ones; ``pull`` (standard deviation of the ratio of the two, without
        outliers of more than 5), each with ``*_err``; and ``n_outliers``.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.table import Table
    >>> from csr_astro.evaluation.statistics import coverage
    >>> errors = Table({'network': np.random.default_rng(1).normal(size=2000)})
    >>> errors['group'] = 'a'
    >>> errors['network_err'] = 1.0
    >>> row = coverage(errors)[0]
    >>> print(bool(abs(row['within_1_sigma'] - 0.683) < 3 * row['within_1_sigma_err']))
    True
    """
    rng = np.random.default_rng(seed)
    rows = []
    for key, part in _by_key(errors, by):
        for name in _methods(errors):
            if f'{name}_err' not in errors.colnames:
                continue
            with np.errstate(divide='ignore', invalid='ignore'):
                pull = np.array(part[name], dtype=float) / np.array(part[f'{name}_err'])
            known = np.isfinite(pull)
            pull, members = pull[known], _members(part[known])
            sample = [pull] + [
                pull[np.concatenate([members[k] for k in chosen])]
                for chosen in rng.integers(0, len(members), (n_bootstrap, len(members)))
            ] if len(pull) else [pull]
            found = np.array([_coverage_of(each) for each in sample])
            spread = found[1:].std(axis=0) if len(pull) else found[0]
            outliers = int((np.abs(pull) > _OUTLIER).sum())
            row = np.ravel(np.column_stack([found[0], spread]))
            rows.append([*key, name, len(pull), *row, outliers])
    names = [part for name in _COVERAGE for part in (name, f'{name}_err')]
    return _table(rows or None, [*by, 'method', 'n', *names, 'n_outliers'], names[1::2])


_COVERAGE = ('within_1_sigma', 'within_2_sigma', 'pull')


def _coverage_of(pull):
    if not len(pull):
        return [np.nan] * 3
    size = np.abs(pull)
    kept = pull[size <= _OUTLIER]
    return [(size <= 1).mean(), (size <= 2).mean(), kept.std() if len(kept) else np.nan]


def _members(rows):
    """Row numbers by position."""
    names = [name for name in (*POSITION_COLUMNS, 'flux') if name in rows.colnames]
    if 'x' not in names:
        return [[i] for i in range(len(rows))]
    members = {}
    for i, key in enumerate(zip(*(rows[name] for name in names), strict=True)):
        members.setdefault(key, []).append(i)
    return list(members.values())
