"""Rounds of fits of all groups on a map, until nothing changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from csr_astro.fitting.gaussian import ellipse_axes
from csr_astro.fitting.group_fit import GroupFit
from csr_astro.fitting.grouping import group_sources
from csr_astro.fitting.psf_errors import profile_error, width_prior
from csr_astro.fitting.scene import FLUX, POSITION, SHAPE, WIDTH

if TYPE_CHECKING:
    from typing import Any

    from csr_astro.fitting.scene import Scene

__all__ = ['fit_scene']


# Largest error of the profile of the PSF over the given one. Where shapes are fitted, deviations
# from the PSF are the shape.
_LARGEST_ERROR = {'point': 5.0, 'gaussian': 1.0}
# Gauss-Newton steps of the first round, which is to know the wings of all sources.
_ROUGH_ITERATIONS = 3
# Rounds in which shapes are fitted and masks grow.
_SHAPE_ROUNDS = 8
# A source is resolved if chance gives the gain of χ² of its size less often than this.
_CHANCE = 0.01
# Masks grow by this factor while the residual at their rim is more than so many scatters; up to
# this many times their first size.
_GROWTH = 1.3
_RIM = 3.0
_LARGEST_MASK = 4.0
# Masks of resolved sources are drawn anew if the axes change by more than this part.
_SAME_SIZE = 0.1
# Columns of the results that are numbers.
_COLUMNS = (
    'flux', 'x', 'y', 'flux_err', 'x_err', 'y_err', 'width', 'width_err', 'chi2', 'dof', 'rim',
    'local_bkg', 'major', 'minor', 'angle', 'major_err', 'minor_err', 'angle_err',
)  # fmt: skip


def fit_scene(scene: Scene) -> dict[str, Any]:
    """Fit all sources of a map.

    Parameters
    ----------
    scene : `~csr_astro.fitting.scene.Scene`
        The map and its sources. Their parameters are changed.

    Returns
    -------
    columns : dict of str to (N,) `~numpy.ndarray` or list
        As in `~csr_astro.fitting.SourceFits`.
    """
    options = scene.options
    groups = _groups(scene)
    fits: dict[tuple, GroupFit] = {}
    rounds = options.rounds + _SHAPE_ROUNDS * (options.shape == 'gaussian')
    for number in range(rounds):
        changed = False
        if number:
            scene.find_outliers()
            _learn_psf(scene, fits, rough=number == 1)
        if number > 1 and options.shape == 'gaussian':
            changed = _update_shapes(scene, fits)
            groups = _groups(scene) if changed else groups
        fits, solved = _fit_round(scene, groups, fits, number)
        if number >= options.rounds - 1 and not changed and not solved:
            break
    for fit in fits.values():
        fit.settle_blends()
    return _results(scene, fits)


def _groups(scene):
    """All groups, the brightest first."""
    groups = group_sources(
        *scene.parameters[:, POSITION].T, scene.masks, scene.image.shape,
        max_size=scene.options.max_group, halo_distance=scene.options.halo * scene.psf.fwhm,
    )  # fmt: skip
    return sorted(groups, key=lambda group: -scene.brightest(group.members))


def _fit_round(scene, groups, before, number):
    """Fit each group that has changed; the fits, and whether there was one."""
    fits, solved = {}, False
    rough = number == 0 and scene.options.rounds > 1
    for group in groups:
        key = tuple(group.members), tuple(group.halo)
        fit = before.get(key)
        if number < 2 or fit is None or fit.has_new_masks():
            fit = GroupFit(scene, group, rough=rough)
        elif not fit.is_outdated():
            fits[key] = fit
            continue
        fit.solve(_ROUGH_ITERATIONS) if rough else fit.solve()
        fits[key], solved = fit, True
    return fits, solved


def _learn_psf(scene, fits, *, rough):
    """What the fits so far tell of the errors of the PSF."""
    options = scene.options
    if options.width_error > 0:
        errors = np.full(len(scene.start), np.nan)
        for fit in fits.values():
            members = fit.group.members
            errors[members] = fit.errors[: len(members), WIDTH]
        # Those whose shape is fitted tell nothing of the PSF.
        errors[scene.extended] = np.nan
        scene.width_prior = width_prior(
            scene.parameters[:, WIDTH], errors, *scene.width_prior,
            error=options.width_error, scatter=options.width_scatter,
        )  # fmt: skip
    if rough and options.rounds > 1:
        # Residuals of the first round are of sources that were not yet known.
        return
    steps = [
        fit.profile_step
        for fit in fits.values()
        if fit.profile_step is not None and fit.has_settled()
    ]
    if options.profile_error > 0 and steps:
        scene.profile_error = profile_error(
            options.profile_error, scene.profile_error, *np.transpose(steps),
            largest=_LARGEST_ERROR[options.shape],
        )  # fmt: skip


def _update_shapes(scene, fits):
    """Make sources resolved, and masks larger, where the fits ask for it."""
    threshold = stats.chi2.ppf(1 - _CHANCE, 3)
    changed = False
    for fit in fits.values():
        for k, i in enumerate(fit.group.members):
            if fit.weights is None or not fit.constrained[k]:
                continue
            if not scene.extended[i]:
                gain, shape = fit.size_test(k)
                if gain > threshold and np.isfinite(shape).all():
                    _extend(scene, i, shape)
            _, _, rim = fit.statistics(k)
            if rim > _RIM and scene.mask_scale[i] * _GROWTH < _LARGEST_MASK:
                scene.mask_scale[i] *= _GROWTH
            before = scene.masks[i]
            scene.redraw(i)
            if np.abs(scene.masks[i].pixels.sum() / before.pixels.sum() - 1) > _SAME_SIZE:
                changed = True
            else:
                scene.masks[i] = before
    if changed:
        scene.hide()
    return changed


def _extend(scene, i, shape):
    """Let the shape of a source be free."""
    flux = scene.parameters[i, FLUX]
    scene.move(i, np.concatenate([[0], scene.parameters[i, 1:]]))
    scene.extended[i] = True
    scene.move(i, np.concatenate([[flux], scene.parameters[i, POSITION], [0], shape]))


def _results(scene, fits):
    n = len(scene.start)
    columns = {name: np.full(n, np.nan) for name in _COLUMNS}
    columns['group_id'] = np.zeros(n, dtype=int)
    columns['background'], columns['left'] = [None] * n, [None] * n
    columns['ambiguous'] = np.zeros(n, dtype=bool)
    columns['covariance'] = np.full((n, SHAPE.stop, SHAPE.stop), np.nan)
    for fit in fits.values():
        columns['group_id'][fit.group.members] = fit.group.number + 1
        for k, i in enumerate(fit.group.members):
            if fit.weights is None or not fit.constrained[k]:
                continue
            for name, value in _row(scene, fit, k, i).items():
                columns[name][i] = value
    return columns | {
        'extended': scene.extended, 'saturated': scene.saturated, 'masks': scene.masks,
        'shape': scene.parameters[:, SHAPE],
    }  # fmt: skip


def _row(scene, fit, k, i):
    flux, x, y, log_width = scene.parameters[i, :4]
    errors, covariance = fit.errors[k], fit.covariance[k].copy()
    flux_err = errors[FLUX]
    held, chi2, rim = fit.statistics(k)
    rows, columns, values = fit.background_of(k)
    nearest = np.argmin(np.hypot(columns - x, rows - y))
    axes, axes_err = np.zeros(3), np.zeros(3)
    if scene.extended[i]:
        wrong = fit.shape_error(k)
        flux_err = np.hypot(flux_err, wrong)
        covariance[FLUX, FLUX] += wrong**2
        axes, axes_err = ellipse_axes(scene.parameters[i, SHAPE], covariance[SHAPE, SHAPE])
    width = np.exp(log_width)
    return {
        'flux': flux, 'x': x, 'y': y, 'width': width,
        'flux_err': flux_err, 'x_err': errors[1], 'y_err': errors[2],
        'width_err': width * errors[WIDTH], 'chi2': chi2, 'dof': held.sum() - (errors > 0).sum(),
        'covariance': covariance, 'ambiguous': fit.ambiguous[k],
        'rim': rim, 'local_bkg': values[nearest], 'background': (rows, columns, values),
        'left': scene.residual[rows, columns] - values,
        **dict(zip(('major', 'minor', 'angle'), axes, strict=True)),
        **dict(zip(('major_err', 'minor_err', 'angle_err'), axes_err, strict=True)),
    }  # fmt: skip
