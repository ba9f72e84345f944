"""Strips of pictures and significance of the residual of each source."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.table import QTable

from csr_astro.flags import decode_flags
from csr_astro.plotting import (
    CUTOUTS,
    color_map,
    require_matplotlib,
    source_norm,
    value_range,
)

if TYPE_CHECKING:
    from csr_astro.background import NeuralBackground
    from csr_astro.typing import QuantityLike

__all__ = ['row_strip', 'source_residuals', 'source_strip']


# Pixels of a mask within this distance of its rim, where a source should have faded.
_RIM = 1.5


def source_residuals(result: NeuralBackground, truth: QuantityLike | None = None) -> QTable:
    """Residuals at each source, in units of their stated errors.

    Parameters
    ----------
    result : `~csr_astro.NeuralBackground`
        The removal from the map with the sources.
    truth : (ny, nx) array or Quantity, optional
        The map without sources, if it is known.

    Returns
    -------
    table : `~astropy.table.QTable`
        ``id``, ``x_center``, ``y_center``, ``snr``, ``mask_radius``, ``flags`` and
        ``flag_names`` of the sources; ``removed``, the sum of map minus prediction under the
        mask; ``rim``, the same in the outermost pixels of the mask over its error, which is
        large if the source is extended, its wings are bright or the prediction is off; with
        ``truth`` also ``error``, the sum of prediction minus truth under the mask over its
        stated error. NaN without a prediction.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> from csr_astro.evaluation.source_strips import source_residuals
    >>> noise = np.random.default_rng(0).normal(size=(100, 100))
    >>> result = NeuralBackgroundEstimator(fwhm=3.0).estimate(noise, [(40, 50)])
    >>> print(bool(abs(source_residuals(result, noise)['error'][0]) < 4))
    True
    """
    n = len(result)
    removed, rim, error = np.full((3, n), np.nan)
    source = u.Quantity(result.source_image).value
    background = u.Quantity(result.background).value
    if truth is not None:
        truth = u.Quantity(truth).value
        if truth.shape != result.image.shape:
            raise ValueError(f'truth must be {result.image.shape} pixels, got {truth.shape}.')
    for i, mask in enumerate(result.source_masks):
        if mask is None:
            continue
        rows, columns = mask.on_map()
        seen = np.isfinite(source[rows, columns])
        removed[i] = source[rows, columns][seen].sum()
        x, y = (float(result.sources[name][i]) for name in ('x_center', 'y_center'))
        outer = seen & (np.hypot(columns - x, rows - y) > mask.radius - _RIM)
        weights = np.array([outer, seen], dtype=float)
        stated = result.errors.sum_error(i, weights)
        if truth is not None:
            wrong = (background - truth)[rows, columns]
            known = seen & np.isfinite(wrong)
            error[i] = _over(wrong[known].sum(), stated[1])
        rim[i] = _over(source[rows, columns][outer].sum(), stated[0])
    flux_unit = result.image.unit or u.dimensionless_unscaled
    sources = result.sources
    table = QTable({name: np.asarray(sources[name])
                    for name in ('id', 'x_center', 'y_center', 'snr', 'mask_radius')})  # fmt: skip
    table['removed'] = removed * flux_unit
    table['rim'] = rim
    if truth is not None:
        table['error'] = error
    table['flags'] = np.asarray(sources['flags'])
    table['flag_names'] = [' '.join(decode_flags(flags)) for flags in table['flags']]
    return table


def _over(value, error):
    return value / error if error > 0 else np.nan


def source_strip(
    result: NeuralBackground, source_id: int | str, truth: QuantityLike | None = None
) -> tuple[bytes, list[str], list[tuple[float, float]]]:
    """Pictures of one source side by side, pixel for pixel.

    Parameters
    ----------
    result : `~csr_astro.NeuralBackground`
        The removal.
    source_id : int or str
        The source, by its ``id`` in ``result.sources``.
    truth : (ny, nx) array or Quantity, optional
        The map without sources, shown too if it is known.

    Returns
    -------
    png : bytes
        Map, masked map, prediction, difference and error side by side, one picture pixel for
        each pixel of the map, y upwards. Empty if the source is off the map.
    titles : list of str
        Titles of the pictures.
    ranges : list of (float, float)
        Values of the darkest and the brightest colour of each picture.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> from csr_astro.evaluation.source_strips import source_strip
    >>> noise = np.random.default_rng(0).normal(size=(100, 100))
    >>> result = NeuralBackgroundEstimator(fwhm=3.3).estimate(noise, [(60, 50)])
    >>> png, titles, ranges = source_strip(result, 1)
    >>> print(png[1:4], titles)
    b'PNG' ['map', 'masked', 'prediction', 'difference', '1σ error']
    """
    return row_strip(result, result.row(source_id), truth)


def row_strip(
    result: NeuralBackground, row: int, truth: QuantityLike | None = None
) -> tuple[bytes, list[str], list[tuple[float, float]]]:
    """Pictures of one source side by side, as `source_strip`, by its row.

    Parameters
    ----------
    result : `~csr_astro.NeuralBackground`
        The removal.
    row : int
        Row of ``result.sources``, from 0.
    truth : (ny, nx) array or Quantity, optional
        The map without sources.

    Returns
    -------
    png, titles, ranges
        As from `source_strip`.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> from csr_astro.evaluation.source_strips import row_strip
    >>> noise = np.random.default_rng(0).normal(size=(100, 100))
    >>> result = NeuralBackgroundEstimator(fwhm=3.3).estimate(noise, [(60, 50)])
    >>> row_strip(result, 0)[0][1:4]
    b'PNG'
    """
    window, cutouts = result.cutouts_of_row(row)
    titles = dict(CUTOUTS)
    if truth is not None:
        cutouts['truth'] = u.Quantity(truth).value[window].astype(float)
        titles['truth'] = 'truth'
    if not cutouts['map'].size:
        return b'', [], []
    colors = color_map()
    shared = value_range(cutouts['background'], 99.5)
    pictures, ranges = [], []
    for name in titles:
        low, high = value_range(cutouts[name], 99.5) if name == 'rms' else shared
        scaled = (cutouts[name] - low) / (high - low)
        if name == 'source':
            norm = source_norm(cutouts[name], shared[1] - shared[0])
            low, high = np.asarray(norm.inverse(np.array([0.0, 1.0])))
            scaled = norm(cutouts[name])
        pictures.append(colors(np.ma.masked_invalid(scaled[::-1]))[..., :3])
        # A gap between two pictures.
        pictures.append(np.ones((len(scaled), 1, 3)))
        ranges.append((float(low), float(high)))
    strip = np.concatenate(pictures[:-1], axis=1)
    buffer = BytesIO()
    require_matplotlib('matplotlib.image').imsave(buffer, strip, format='png')
    return buffer.getvalue(), list(titles.values()), ranges
