"""Errors of the background sum behind discs that are left out of maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import vstack

from csr_astro.cutouts import extract, window_size
from csr_astro.evaluation.positions import check_positions, check_radii, separate_positions
from csr_astro.evaluation.windows import circle_weights, cut_windows, window_center
from csr_astro.flags import NOT_INPAINTED
from csr_astro.images import parse_image
from csr_astro.masking import combined_mask, disc
from csr_astro.utils.progress import progress_bar
from csr_astro.utils.scatter import ring_scatter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from astropy.table import Table

    from csr_astro.typing import Maps, Methods

__all__ = ['background_errors']


# Least distance between discs that are predicted together, beyond their radii, in pixels.
_SEPARATION = 30.0


def background_errors(
    groups: Maps,
    positions: Table,
    methods: Methods,
    *,
    apertures: Sequence[float] = (4.0,),
    progress: bool | None = None,
) -> Table:
    """Errors of the background sum behind discs without sources.

    Parameters
    ----------
    groups : dict of str to list of (ny, nx) array
        Maps, NaN where blank, as from `~csr_astro.evaluation.positions.read_groups`.
    positions : `~astropy.table.Table`
        As from `~csr_astro.evaluation.positions.draw_positions`.
    methods : dict of str to callable or `~csr_astro.NeuralBackgroundEstimator`
        Methods to compare: functions as in `~csr_astro.evaluation.baselines.BASELINES`, and
        objects with the estimator's method ``estimate``.
    apertures : sequence of float, optional
        Radii of the apertures in pixels. Pixels of an aperture outside the disc have no error.
    progress : bool, optional
        Whether to show a progress bar; by default on a terminal and in a notebook.

    Returns
    -------
    errors : `~astropy.table.Table`
        A row per position and aperture: the columns of ``positions``, ``aperture``, ``true``
        (sum of the map), ``local`` (scatter of the ring around the disc × area of the aperture)
        and for each method the predicted minus the true sum; NaN without a prediction.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.discs import background_errors
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
    with progress_bar(progress=progress, total=len(positions), unit='disc', delay=2) as bar:
        discs = zip(positions['group'], positions['radius'], strict=True)
        for group, radius in dict.fromkeys(discs):
            rows = positions[(positions['group'] == group) & (positions['radius'] == radius)]
            parts.append(_measure(rows, groups[group], methods, apertures, bar.update))
    return vstack(parts, metadata_conflicts='silent')


def _measure(table, images, methods, apertures, progress):
    """Errors of the methods at positions of one group and radius, see `background_errors`."""
    columns = {}
    for m in np.unique(table['map']):
        rows = np.flatnonzero(table['map'] == m)
        x, y, radius = (np.array(table[c][rows], dtype=float) for c in ('x', 'y', 'radius'))
        image = images[m]
        for members in separate_positions(x, y, _SEPARATION + 2 * radius.max()):
            errors = errors_together(
                image, image, x[members], y[members], radius[members], methods, apertures
            )
            for name, values in errors.items():
                column = columns.setdefault(name, np.full((len(table), len(apertures)), np.nan))
                column[rows[members]] = values
            progress(len(members))
    return row_per_aperture(table, apertures, columns)


def row_per_aperture(table, apertures, columns):
    """Repeat the rows of a table for several apertures.

    Parameters
    ----------
    table : `~astropy.table.Table`
        N rows.
    apertures : sequence of float
        A radii.
    columns : dict of str to (N, A) array
        Columns to add.

    Returns
    -------
    repeated : `~astropy.table.Table`
        N × A rows with the columns ``aperture`` and ``columns`` in addition.
    """
    repeated = table[np.repeat(np.arange(len(table)), len(apertures))]
    repeated['aperture'] = np.tile(np.asarray(apertures, dtype=float), len(table))
    for name, column in columns.items():
        repeated[name] = np.ravel(column)
    return repeated

def errors_together(image, truth, x, y, radius, methods, apertures, reach=0.0):
    """Errors of the sums behind discs that are all masked at once.

    Parameters
    ----------
    image, truth : (ny, nx) array
        The map that the methods are given, and the one with the true background.
    x, y, radius : (N,) array of float
        Centres and radii of the discs in pixels.
    methods, apertures
        As in `background_errors`.
    reach : float, optional
        Radius in pixels of a circle that must fit into the windows.

    Returns
    -------
    errors : dict of str to (N, A) array
        ``true``, the sum of the truth; ``local``, the scatter of the ring times the aperture's
        area; for each method the predicted minus the true sum, and as ``*_err`` the error that
        the method states.
    """
    masks = [disc(*place, image.shape) for place in zip(x, y, radius, strict=True)]
    size = max(int(window_size(max(radius))), 2 * int(np.ceil(reach))) + 1
    values, valid, hole = cut_windows(
        parse_image(image), combined_mask(masks, image.shape), masks, x, y, size
    )
    # Methods see no pixel under the discs.
    values[~valid] = np.nan
    wanted = extract(parse_image(truth), x, y, size)
    centers = [window_center(*place, size) for place in zip(x, y, strict=True)]
    rows, columns = np.indices((size, size)).reshape(2, -1)
    weights = np.array([circle_weights(at, apertures, rows, columns) for at in centers])
    weights = weights.reshape(len(x), len(apertures), size, size)
    area = np.pi * np.asarray(apertures, dtype=float) ** 2
    errors = {
        'true': _weighted(weights, np.where(np.isfinite(wanted), wanted, 0)),
        'local': ring_scatter(wanted, valid, radius)[:, None] * area,
    }
    for name, method in methods.items():
        predicted = wanted.copy()
        if hasattr(method, 'estimate'):
            result = method.estimate(image, np.column_stack([x, y]), mask_radius=radius)
            found = extract(parse_image(np.asarray(result.background)), x, y, size)
            predicted[hole] = found[hole]
            predicted[result.flags & NOT_INPAINTED > 0] = np.nan
            if hasattr(result, 'errors'):
                errors[f'{name}_err'] = _stated_errors(result, apertures)
        else:
            for i, at in enumerate(centers):
                predicted[i][hole[i]] = method(values[i], valid[i], hole[i], *at, radius[i])
        errors[name] = _weighted(weights, np.where(hole, predicted - wanted, 0))
    return errors


def _weighted(weights, values):
    return np.einsum('nayx,nyx->na', weights, values)


def _stated_errors(result, apertures):
    """1-sigma errors of the sums behind each source, (N, A); NaN without a mask."""
    stated = np.full((len(result), len(apertures)), np.nan)
    for i, mask in enumerate(result.source_masks):
        if mask is None:
            continue
        rows, columns = mask.on_map()
        measured = np.isfinite(np.asarray(result.image.data)[rows, columns])
        center = result.sources['x_center'][i], result.sources['y_center'][i]
        weights = measured * circle_weights(center, apertures, rows, columns)
        stated[i] = result.errors.sum_error(i, weights)
    return stated
