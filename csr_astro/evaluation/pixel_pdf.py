"""Histograms and moments of pixels in filled discs and whole maps (paper, Sect. 5.3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.table import QTable
from scipy import stats

from csr_astro.images import parse_image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

    from csr_astro.masking import SourceMask
    from csr_astro.typing import ImageLike, QuantityLike

__all__ = ['MOMENTS', 'disc_moments', 'pixel_histogram', 'pixel_moments']


_BOOTSTRAP = 200
_SWAPS = 499


def _iqr(values, axis=None):
    low, high = np.percentile(values, [25, 75], axis=axis)
    return high - low


#: Moments by name, as functions of an array of values.
MOMENTS = {
    'mean': np.mean,
    'median': np.median,
    'std': np.std,
    'skewness': stats.skew,
    'iqr': _iqr,
}


def pixel_moments(values: QuantityLike) -> dict[str, float | u.Quantity]:
    """Mean, median, standard deviation, skewness and interquartile range.

    Parameters
    ----------
    values : array-like or Quantity
        Pixels; those that are not finite are ignored.

    Returns
    -------
    moments : dict of str to float or Quantity
        Keys ``n`` and those of `MOMENTS`, in the unit of the values; the skewness has none.
        NaN if there are no values.

    Examples
    --------
    >>> from csr_astro.evaluation.pixel_pdf import pixel_moments
    >>> moments = pixel_moments([1, 2, 3, 4, 5, 9])
    >>> print(moments['median'], round(moments['skewness'], 2))
    3.5 0.87
    """
    unit = getattr(values, 'unit', None)
    values = np.asarray(u.Quantity(values).value, dtype=float).ravel()
    values = values[np.isfinite(values)]
    moments: dict[str, float | u.Quantity] = {'n': len(values)}
    for name, moment in MOMENTS.items():
        found = float(moment(values)) if len(values) else np.nan
        moments[name] = found * unit if unit is not None and name != 'skewness' else found
    return moments


def disc_moments(
    maps: Mapping[str, ImageLike],
    source_masks: Sequence[SourceMask | None],
    *,
    reference: str = 'original',
    seed: int = 0,
) -> QTable:
    """Moments of the pixels inside filled discs, of several versions of one map.

    Parameters
    ----------
    maps : dict of str to NDData, CCDData, image HDU, Quantity or array
        Maps of one shape and unit, by name.
    source_masks : list of `~csr_astro.masking.SourceMask` or None
        The discs, as in `~csr_astro.NeuralBackground.source_masks`. A pixel of several discs
        belongs to the first.
    reference : str, optional
        The map that others are compared with.
    seed : int, optional
        Seed of bootstrap and test.

    Returns
    -------
    table : `~astropy.table.QTable`
        A row per map: ``map``, ``n`` (pixels that are finite in all maps), the `MOMENTS`
        each with a 1-sigma error ``*_err`` from bootstrap samples of the discs; ``ks``, the
        largest difference between the cumulative distributions of this map and the reference;
        ``p_value``, the fraction of at least as large differences when the two maps are swapped
        at random in each disc. The usual p value of Kolmogorov and Smirnov assumes independent
        pixels, which neighbours are not.

    Raises
    ------
    ValueError
        If the reference is no map, or no pixel is finite.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.pixel_pdf import disc_moments
    >>> from csr_astro.masking import disc
    >>> noise = np.random.default_rng(1).normal(size=(2, 60, 60))
    >>> masks = [disc(x, y, 6, (60, 60)) for x in (15, 45) for y in (15, 45)]
    >>> table = disc_moments({'original': noise[0], 'source_free': noise[1]}, masks)
    >>> print(bool(table['p_value'][1] > 0.05))
    True
    """
    if reference not in maps:
        raise ValueError(f'reference must be one of {list(maps)}, got {reference!r}.')
    images = {name: parse_image(data) for name, data in maps.items()}
    first = next(iter(images.values()))
    if any(each.shape != first.shape or each.unit != first.unit for each in images.values()):
        raise ValueError('the maps must have one shape and one unit.')
    pixels, discs = _pixels(source_masks, first.shape)
    values = {
        name: np.asarray(each.data).reshape(-1)[pixels].astype(float)
        for name, each in images.items()
    }
    measured = np.all([np.isfinite(each) for each in values.values()], axis=0)
    if not measured.any():
        raise ValueError('no pixel of a disc is finite in all maps.')
    values = {name: each[measured] for name, each in values.items()}
    discs = np.unique(discs[measured], return_inverse=True)[1]
    columns = {'map': list(maps), 'n': [int(measured.sum())] * len(maps)}
    stack = np.array(list(values.values()))
    found = _moments(stack)
    spread = np.std([_moments(stack[:, rows]) for rows in _samples(discs, seed)], axis=0)
    for k, name in enumerate(MOMENTS):
        unit = first.unit if first.unit is not None and name != 'skewness' else 1
        columns[name], columns[f'{name}_err'] = found[k] * unit, spread[k] * unit
    tests = [
        _swap_test(values[reference], each, discs, np.random.default_rng(seed))
        for each in values.values()
    ]
    columns['ks'], columns['p_value'] = (np.array(column) for column in zip(*tests, strict=True))
    return QTable(columns)


def _pixels(source_masks, shape):
    """Flat indices of the pixels of discs, each once, and the numbers of their discs."""
    flat, discs = [np.zeros(0, dtype=int)], [np.zeros(0, dtype=int)]
    for number, mask in enumerate(source_masks):
        if mask is not None:
            rows, columns = mask.on_map()
            flat.append(rows * shape[1] + columns)
            discs.append(np.full(len(rows), number))
    pixels, first = np.unique(np.concatenate(flat), return_index=True)
    return pixels, np.concatenate(discs)[first]


def _moments(stack):
    return [moment(stack, axis=1) for moment in MOMENTS.values()]


def _samples(discs, seed):
    """Yield the rows of bootstrap samples of the discs."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(discs == number) for number in range(discs.max() + 1)]
    for chosen in rng.integers(0, len(members), (_BOOTSTRAP, len(members))):
        yield np.concatenate([members[number] for number in chosen])


def _swap_test(reference, values, discs, rng):
    """Kolmogorov–Smirnov distance of paired samples, and its significance."""
    pooled = np.concatenate([reference, values])
    order = np.argsort(pooled, kind='stable')
    ends = np.append(np.flatnonzero(np.diff(pooled[order])), len(pooled) - 1)
    sign = np.repeat([1.0, -1.0], len(values))[order] / len(values)
    owner = np.concatenate([discs, discs])[order]

    def distance(swapped):
        # Within equal values the distributions are not compared.
        return np.abs(np.cumsum(sign * swapped[owner])[ends]).max()

    found = distance(np.ones(discs.max() + 1))
    larger = sum(
        distance(rng.choice([-1.0, 1.0], discs.max() + 1)) >= found * (1 - 1e-12)
        for _ in range(_SWAPS)
    )
    return found, (larger + 1) / (_SWAPS + 1)


def pixel_histogram(
    maps: Mapping[str, ImageLike],
    *,
    where: ArrayLike | None = None,
    bins: int = 60,
    normalized: bool = False,
) -> QTable:
    """Probability densities of the pixels of several maps, in the same bins.

    Parameters
    ----------
    maps : dict of str to NDData, CCDData, image HDU, Quantity or array
        Maps of one shape and unit, by name.
    where : (ny, nx) array of bool, optional
        Pixels to count; all by default. Pixels that are not finite in one of the maps are
        counted in none.
    bins : int, optional
        Number of bins between the 0.1 and the 99.9 percentile of the first map.
    normalized : bool, optional
        Whether to count η = ln(I / ⟨I⟩), the N-PDF that lognormals and power laws are fitted
        to; ⟨I⟩ is each map's mean, and pixels that are not positive are ignored.

    Returns
    -------
    histogram : `~astropy.table.QTable`
        ``low`` and ``high`` of the bins, and for each map ``NAME`` the density per unit and its
        error ``NAME_err`` for independent pixels. Densities are normalised by all pixels, also
        those outside the bins.

    Raises
    ------
    ValueError
        If no value can be counted.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.pixel_pdf import pixel_histogram
    >>> histogram = pixel_histogram({'map': np.arange(100.0).reshape(10, 10)}, bins=5)
    >>> print(histogram['map'].round(3))
    [0.01 0.01 0.01 0.01 0.01]
    """
    images = {name: parse_image(data) for name, data in maps.items()}
    first = next(iter(images.values()))
    if any(each.shape != first.shape or each.unit != first.unit for each in images.values()):
        raise ValueError('the maps must have one shape and one unit.')
    counted = np.ones(first.shape, dtype=bool) if where is None else np.array(where, dtype=bool)
    for image in images.values():
        counted &= image.valid((slice(None), slice(None)))
    values = {
        name: np.asarray(each.data)[counted].astype(float) for name, each in images.items()
    }
    unit = first.unit or u.dimensionless_unscaled
    if normalized:
        values = {name: _normalized(each) for name, each in values.items()}
        unit = u.dimensionless_unscaled
    if any(not len(each) for each in values.values()):
        raise ValueError('there is no pixel to count; a normalized one must be positive.')
    edges = _edges(next(iter(values.values())), bins)
    table = QTable({'low': edges[:-1] * unit, 'high': edges[1:] * unit})
    for name, each in values.items():
        count, _ = np.histogram(each, edges)
        per = len(each) * np.diff(edges) * unit
        table[name], table[f'{name}_err'] = count / per, np.sqrt(count) / per
    return table


def _normalized(values):
    mean = values.mean() if len(values) else 0.0
    return np.log(values[values > 0] / mean) if mean > 0 else np.zeros(0)


def _edges(values, bins):
    low, high = np.percentile(values, [0.1, 99.9])
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)
