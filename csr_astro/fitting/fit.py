"""Fits of point sources and Gaussians on a background predicted by kriging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import stats

from csr_astro.fitting.gaussian import ellipse_axes
from csr_astro.fitting.group_fit import GroupFit
from csr_astro.fitting.grouping import group_sources
from csr_astro.fitting.psf_errors import profile_error, width_prior
from csr_astro.fitting.scene import FLUX, POSITION, SHAPE, WIDTH, Scene

if TYPE_CHECKING:
    from csr_astro.fitting.psf import PixelPSF
    from csr_astro.images import Image
    from csr_astro.masking import SourceMask

__all__ = ['FitOptions', 'SourceFits', 'fit_sources']


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


@dataclass(frozen=True)
class FitOptions:
    """Options of `fit_sources`.

    Attributes
    ----------
    shape : {'point', 'gaussian'}
        What is fitted: point sources, or elliptical Gaussians convolved with the PSF where the
        data ask for more than a point.
    mask_radius : float
        Radius of the pixels to fit, in FWHM of the source, for sources without a given mask.
    position_error : float
        Standard deviation of the Gaussian prior on each coordinate of the positions, in FWHM of
        the PSF; 0 keeps positions fixed.
    xy_bounds : (float, float)
        Largest distance from the given position in x and in y, in pixels.
    width_error : float
        Relative standard deviation of the width of the PSF, common to all sources; 0 if it is
        known.
    width_scatter : float
        Relative standard deviation of the widths of single sources about the common one.
    profile_error : float
        Relative standard deviation of the PSF in each pixel; 0 if it is known. From the second
        round on the residuals of all sources count, too.
    rounds : int
        How often each group is fitted, at most; shapes take a few more.
    max_group : int
        Larger groups are solved in parts.
    halo : float
        Neighbours up to this many FWHM away are solved with each part.
    """

    shape: Literal['point', 'gaussian'] = 'point'
    mask_radius: float = 1.25
    position_error: float = 0.1
    xy_bounds: tuple[float, float] = (np.inf, np.inf)
    width_error: float = 0.05
    width_scatter: float = 0.01
    profile_error: float = 0.02
    rounds: int = 3
    max_group: int = 6
    halo: float = 1.25


@dataclass(eq=False)
class SourceFits:
    """Results of `fit_sources`.

    Attributes
    ----------
    flux, x, y : (N,) `~numpy.ndarray` of float
        Flux in units of the sum of the map, and position in pixels; NaN where nothing
        constrains the fit.
    flux_err, x_err, y_err : (N,) `~numpy.ndarray` of float
        1-sigma errors; 0 for fixed positions.
    width, width_err : (N,) `~numpy.ndarray` of float
        Width over that of the PSF.
    extended, saturated : (N,) `~numpy.ndarray` of bool
        Sources that were fitted as Gaussians; those of which the flat top was left out.
    major, minor, angle, major_err, minor_err, angle_err : (N,) `~numpy.ndarray` of float
        FWHM of the axes of a Gaussian in pixels, before its convolution with the PSF, and
        angle of the major axis from the x axis in degrees; 0 for point sources.
    chi2, dof : (N,) `~numpy.ndarray` of float
        Goodness of fit in the pixels of the source's own mask, and their number less that of
        its free parameters.
    rim : (N,) `~numpy.ndarray` of float
        Mean residual of the outermost pixels of the mask, over its standard deviation.
    local_bkg : (N,) `~numpy.ndarray` of float
        Predicted background in the pixel nearest to the position.
    group_id, group_size : (N,) `~numpy.ndarray` of int
        Number of the connected masks, from 1, and how many sources they hold; 0 for none.
    masks : list of `~csr_astro.masking.SourceMask` or None
        Masks that were fitted.
    background : list of (rows, columns, values) or None
        Predicted background in the trusted pixels of each mask.
    residual : (ny, nx) `~numpy.ndarray` of float
        The map less all sources; 0 where it is not valid.
    profile_error : float
        Relative error of the PSF in each pixel, as the residuals say.
    """

    flux: np.ndarray
    x: np.ndarray
    y: np.ndarray
    flux_err: np.ndarray
    x_err: np.ndarray
    y_err: np.ndarray
    width: np.ndarray
    width_err: np.ndarray
    extended: np.ndarray
    saturated: np.ndarray
    major: np.ndarray
    minor: np.ndarray
    angle: np.ndarray
    major_err: np.ndarray
    minor_err: np.ndarray
    angle_err: np.ndarray
    chi2: np.ndarray
    dof: np.ndarray
    rim: np.ndarray
    local_bkg: np.ndarray
    group_id: np.ndarray
    group_size: np.ndarray
    masks: list[SourceMask | None]
    background: list[tuple[np.ndarray, np.ndarray, np.ndarray] | None]
    residual: np.ndarray
    profile_error: float

    def __repr__(self) -> str:
        return f'<SourceFits: {len(self.flux)} sources>'


def fit_sources(
    image: Image,
    x: np.ndarray,
    y: np.ndarray,
    psf: PixelPSF,
    *,
    masks: list[SourceMask | None] | None = None,
    flux: np.ndarray | None = None,
    options: FitOptions | None = None,
) -> SourceFits:
    """Fit sources on the background that kriging predicts behind them.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map; its error, if there is one, is taken for the noise of the pixels.
    x, y : (N,) `~numpy.ndarray` of float
        Positions in pixels; NaN gives NaN.
    psf : `~csr_astro.fitting.psf.PixelPSF`
        The PSF.
    masks : list of `~csr_astro.masking.SourceMask` or None, optional
        Pixels to fit. By default discs of ``options.mask_radius``.
    flux : (N,) `~numpy.ndarray` of float, optional
        First guesses; by default 0.
    options : `FitOptions`, optional

    Returns
    -------
    fits : `SourceFits`

    Notes
    -----
    Groups are fitted in turn, the brightest first, on the residuals of all other sources
    (block Gauss-Seidel). Within a group, parameters follow from Gauss-Newton steps of
    generalised least squares with Gaussian priors. The covariance holds the errors of the
    predicted background, the pixels' noise, and ``(e f P)²`` for a PSF of which each pixel is
    known to e.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.fitting.fit import fit_sources
    >>> from csr_astro.fitting.psf import pixel_psf
    >>> from csr_astro.simulation.inject import inject_sources
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> profile = gaussian_profile(3.5)
    >>> data = np.random.default_rng(1).normal(7, 1, (120, 120))
    >>> data = inject_sources(data, [50.2], [40.7], [500.0], profile)
    >>> fits = fit_sources(parse_image(data), [50], [41], pixel_psf(profile))
    >>> bool(abs(fits.flux[0] - 500) < 3 * fits.flux_err[0])
    True
    """
    options = FitOptions() if options is None else options
    scene = Scene(image, x, y, psf, masks, flux, options)
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
    steps = [fit.profile_step for fit in fits.values() if fit.profile_step is not None]
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
    names = ('flux', 'x', 'y', 'flux_err', 'x_err', 'y_err', 'width', 'width_err', 'chi2', 'dof',
             'rim', 'local_bkg', 'major', 'minor', 'angle', 'major_err', 'minor_err',
             'angle_err')  # fmt: skip
    columns = {name: np.full(n, np.nan) for name in names}
    group_id, background = np.zeros(n, dtype=int), [None] * n
    for fit in fits.values():
        group_id[fit.group.members] = fit.group.number + 1
        for k, i in enumerate(fit.group.members):
            if fit.weights is None or not fit.constrained[k]:
                continue
            row = _row(scene, fit, k, i)
            background[i] = row.pop('background')
            for name, value in row.items():
                columns[name][i] = value
    size = np.bincount(group_id, minlength=1)[group_id] * (group_id > 0)
    return SourceFits(
        **columns, extended=scene.extended, saturated=scene.saturated, group_id=group_id,
        group_size=size, masks=scene.masks, background=background, residual=scene.residual,
        profile_error=scene.profile_error,
    )  # fmt: skip


def _row(scene, fit, k, i):
    flux, x, y, log_width = scene.parameters[i, :4]
    errors = fit.errors[k]
    held, chi2, rim = fit.statistics(k)
    rows, columns, values = fit.background_of(k)
    nearest = np.argmin(np.hypot(columns - x, rows - y))
    axes, axes_err = np.zeros(3), np.zeros(3)
    if scene.extended[i]:
        axes, axes_err = ellipse_axes(scene.parameters[i, SHAPE], fit.shape_covariance[k])
    width = np.exp(log_width)
    return {
        'flux': flux, 'x': x, 'y': y, 'width': width,
        'flux_err': errors[FLUX], 'x_err': errors[1], 'y_err': errors[2],
        'width_err': width * errors[WIDTH], 'chi2': chi2, 'dof': held.sum() - (errors > 0).sum(),
        'rim': rim, 'local_bkg': values[nearest], 'background': (rows, columns, values),
        **dict(zip(('major', 'minor', 'angle'), axes, strict=True)),
        **dict(zip(('major_err', 'minor_err', 'angle_err'), axes_err, strict=True)),
    }  # fmt: skip
