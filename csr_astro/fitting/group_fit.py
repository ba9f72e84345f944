"""Generalised least squares for one group of sources on the residuals of all others.

For pixels M of the group and the background pixels O around them, kriging predicts the
background in M from O by weights K. A source of flux f and PSF P adds f P to both, so that
d_M − K d_O = f (P_M − K P_O) + error: the effective template T = P_M − K P_O holds the wings of
the source outside its mask. The covariance C of the errors is that of kriging and of the pixels'
noise. The conditional covariance of a background behind stars is the idea of Saydjari &
Finkbeiner (2022, ApJ 933, 155).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg, ndimage

from csr_astro.fitting.calibration import structure_factor
from csr_astro.fitting.gaussian import FWHM, shape_of
from csr_astro.fitting.scene import FLUX, POSITION, SHAPE, WIDTH
from csr_astro.fitting.window import FitWindow, block_width
from csr_astro.kriging import Kriging

if TYPE_CHECKING:
    from csr_astro.fitting.grouping import SourceGroup
    from csr_astro.fitting.scene import Scene

__all__ = ['GroupFit']


# So much of the variogram between neighbours is added to the variance of each pixel, as in
# kriging itself: without it the covariance of a smooth map is not positive definite.
_FLOOR = 0.03
# Fewer background pixels than this say nothing.
_MIN_PIXELS = 12
# Relative rounding error of a map in single precision.
_ROUNDING = 1e-7
# Half the width in FWHM of the stamp of the PSF with which errors are calibrated.
_STAMP = 1.25
# The error of the profile is learned from pixels in which a source has more than this part of the
# square of its peak.
_BRIGHT = 1e-3
# Parameters have converged when they change by less than this part of their errors; groups whose
# pixels changed by less than this part of their noise are not fitted again.
_TOLERANCE = 0.02
_UNCHANGED = 0.05
_SETTLED = 1.0
# The same for the error of the profile.
_SAME_PROFILE = 0.2
_ITERATIONS = 6
# Steps that make the fit worse, by more than rounding, are shortened: close blends diverge.
_FRACTIONS = (1.0, 0.5, 0.25, 0.1, 0.0)
_WORSE = 1e-6
# One source in the place of two is as good if χ² is larger by less than this, after so many steps
# in which the flux of the fainter is held to this part of the sum; the standard deviation of a
# share of which nothing is known, and the error of one of which little is.
_AS_GOOD, _MERGED_ITERATIONS, _HELD = 9.0, 5, 1e-3
_ANY_SHARE, _UNKNOWN_SHARE = 12**-0.5, 0.15
# Combinations of parameters with less than this part of the largest eigenvalue of the normal matrix
# are not constrained.
_SINGULAR = 1e-10
# The largest steps of position and size, over the FWHM, and of the logarithm of the width.
_MAX_STEP = 0.3
# A source with less than this part of its flux in the trusted pixels is not constrained.
_MIN_FRACTION = 1e-3
# The smallest standard deviation at which the fit of a size starts, over the FWHM.
_SMALLEST_SIZE = 0.2


class GroupFit:
    """Fit of one group of sources.

    Parameters
    ----------
    scene : `~csr_astro.fitting.scene.Scene`
        The map and all sources. `solve` changes the parameters of those of the group.
    group : `~csr_astro.fitting.grouping.SourceGroup`
        The sources.
    rough : bool, optional
        Leave out the halo and the calibration of the errors.

    Attributes
    ----------
    index : (n,) `~numpy.ndarray` of int
        Numbers of the sources: members, then halo.
    window : `~csr_astro.fitting.window.FitWindow`
        Pixels around the group. Masks of large sources are averaged over blocks.
    rows, columns : (P,) `~numpy.ndarray` of int
        Trusted pixels of the masks, or the central ones of the blocks.
    weights : (P, B) `~numpy.ndarray` of float or None
        Of kriging; None where too few background pixels surround the masks.
    constrained : (n,) `~numpy.ndarray` of bool
        Sources with some flux in the pixels.
    errors : (n, 7) `~numpy.ndarray` of float
        1-sigma errors of the parameters; 0 for fixed ones.
    covariance : (n, 7, 7) `~numpy.ndarray` of float
        Of the parameters of each source; 0 for fixed ones.
    residual, background : (P,) `~numpy.ndarray` of float
        What is left of d_M − K d_O after the fit; the predicted background.
    ambiguous : (n,) `~numpy.ndarray` of bool
        Sources of which the data tell little more than the sum of their fluxes, by
        `settle_blends`.
    profile_step : (float, float) or None
        Score and information of the variance of the profile.
    """

    def __init__(self, scene: Scene, group: SourceGroup, *, rough: bool = False) -> None:
        self._scene, self.group = scene, group
        self.index = group.members if rough else np.concatenate([group.members, group.halo])
        self.masks = [scene.masks[i] for i in self.index]
        n = len(self.index)
        self.errors = np.full((n, SHAPE.stop), np.nan)
        self.covariance = np.full((n, SHAPE.stop, SHAPE.stop), np.nan)
        self.constrained = np.zeros(n, dtype=bool)
        self.ambiguous = np.zeros(n, dtype=bool)
        self.profile_step, self._converged = None, False
        self._held: dict[int, tuple[float, float]] = {}
        self._place_window()
        self._krige(rough)

    # ---------------------------------------------------------------------------- the background

    def _place_window(self):
        scene = self._scene
        block = min(
            block_width(mask.radius, scene.narrowest(i))
            for i, mask in zip(self.index, self.masks, strict=True)
        )
        x, y = scene.start[self.index].T
        self.window = window = FitWindow(self.masks, x, y, scene.valid, block)
        self.rows, self.columns = window.rows, window.columns

    def _krige(self, rough):
        scene, window = self._scene, self.window
        background = window.all(scene.valid & ~scene.hidden & ~scene.outliers)
        self.weights = None
        if background.sum() < _MIN_PIXELS or not len(self.rows):
            return
        noise = None if scene.image.error is None else self._noise(background)
        own = np.zeros(background.shape, dtype=bool)
        own.flat[window.inside] = True
        distance = ndimage.distance_transform_edt(~own)
        residual = window.average(window.cut(scene.residual))
        kriging = Kriging(residual, background, window.radius, noise=noise, distance=distance)
        places = window.places
        # All that is needed of it: its factors take ten times the memory.
        self.weights, self._averages = kriging.weights(places), kriging.averaging_matrix()
        factor = 1.0
        if not rough:
            factor = structure_factor(kriging, background, distance, self._stamp())
        self._own_variance = kriging.own_variance(places)
        step = 0.0 if kriging.variogram is None else kriging.variogram.step
        largest = float(np.abs(scene.image.data[self.rows, self.columns]).max())
        rounding = (_ROUNDING * max(largest, np.finfo(float).tiny ** 0.25)) ** 2
        self._covariance = factor * kriging.covariance(places)
        diagonal = np.diag_indices(len(self.rows))
        self._covariance[diagonal] += self._own_variance + factor * _FLOOR * step + rounding

    def _noise(self, background):
        """Variances of the noise of blocks, typical ones where they are not known."""
        error = np.asarray(self.window.cut(self._scene.image.error), dtype=float)
        known = np.isfinite(error) & (error > 0)
        near = known & np.kron(background, np.ones((self.window.block,) * 2, dtype=bool))
        typical = np.median(error[near]) if near.any() else 0.0
        variance = np.where(known, error, typical) ** 2
        return self.window.average(variance) / self.window.block**2

    def _stamp(self):
        """The PSF in the blocks around it."""
        psf, n = self._scene.psf, self.window.block
        reach = int(np.ceil(_STAMP * psf.fwhm / n))
        steps = np.arange((2 * reach + 1) * n) - ((2 * reach + 1) * n) // 2
        shape = 2 * reach + 1, n, 2 * reach + 1, n
        return psf.evaluate(steps, steps).reshape(shape).mean(axis=(1, 3))

    def _predict(self, windows):
        """What kriging predicts in M from the pixels around, (Q, P)."""
        flat = windows.reshape(len(windows), -1)
        return (self.weights @ (self._averages @ flat.T)).T

    def _effective(self, windows):
        """What windows hold in M beyond what kriging predicts from them: W_M − K W_O."""
        seen = windows.reshape(len(windows), -1)[:, self.window.inside]
        return seen - self._predict(windows)

    def _map(self):
        """Residuals of all sources in the window."""
        return self.window.average(self.window.cut(self._scene.residual))

    def _residual(self):
        return self._effective(self._map()[np.newaxis])[0]

    # -------------------------------------------------------------------------------- the sources

    def _templates(self):
        """Effective templates and their derivatives, (n, k, P), and the images in M, (n, P)."""
        window = self.window
        windows = np.stack([
            window.average(self._scene.templates(i, window.x, window.y)) for i in self.index
        ])
        n, k = windows.shape[:2]
        images = windows[:, 0].reshape(n, -1)[:, window.inside]
        effective = self._effective(windows.reshape(n * k, window.size, window.size))
        return effective.reshape(n, k, -1), images

    def _factor(self, images):
        """Factor of the covariance of the background, the noise and the profile of the PSF."""
        flux = self._scene.parameters[self.index, FLUX, np.newaxis]
        covariance = self._covariance.copy()
        variance = ((self._scene.profile_error * flux * images) ** 2).sum(axis=0)
        covariance[np.diag_indices(len(covariance))] += variance
        return linalg.cho_factor(covariance, lower=True, check_finite=False)

    def solve(self, iterations: int = _ITERATIONS) -> None:
        """Gauss-Newton steps until the parameters change by little of their errors.

        Parameters
        ----------
        iterations : int, optional
            Their largest number.
        """
        if self.weights is not None:
            self._finish(*self._iterate(iterations))

    def _iterate(self, iterations, factor=None):
        """Gauss-Newton steps, with the covariance of the errors as it is or as given.

        Its factor and the images of the sources in the last step are returned.
        """
        scene, given = self._scene, factor
        for _ in range(iterations):
            templates, images = self._templates()
            self.constrained = np.abs(images).sum(axis=1) > _MIN_FRACTION
            factor = self._factor(images) if given is None else given
            self._share_flux(templates, factor)
            step = self._step(templates, factor)
            before, start = self._objective(factor), scene.parameters[self.index]
            for fraction in _FRACTIONS:
                self._apply(start, fraction * step)
                if self._objective(factor) <= before * (1 + _WORSE):
                    break
            self._converged = (np.abs(step) <= _TOLERANCE * self.errors[:, : step.shape[1]]).all()
            if self._converged:
                break
        return factor, images

    def _share_flux(self, templates, factor):
        """Set the prior of the fluxes of sources that are hardly told apart.

        Each has its part of their sum, and any part is as likely.
        """
        self._shares = np.zeros(len(self.index)), np.full(len(self.index), np.inf)
        place = {int(i): k for k, i in enumerate(self.index)}
        for blend in self._scene.blends:
            flux = self._scene.parameters[blend, FLUX]
            inside = [place[int(i)] for i in blend if int(i) in place]
            if not flux.any() or not inside:
                continue
            solved = linalg.cho_solve(factor, templates[inside, 0].T, check_finite=False)
            noise = 1 / (templates[inside, 0] * solved.T).sum(axis=1)
            n = len(blend)
            spread = np.sqrt((n - 1) / (n + 1)) / n
            self._shares[0][inside] = flux.sum() / n
            self._shares[1][inside] = np.sqrt((spread * flux.sum()) ** 2 + noise)
        for k, (flux, error) in self._held.items():
            self._shares[0][k], self._shares[1][k] = flux, error

    def _prior(self):
        """Mean and standard deviation of the parameters before the fit, (n, 7)."""
        mean, error = self._scene.prior(self.index)
        mean[:, FLUX], error[:, FLUX] = self._shares
        return mean, error

    def _design(self, templates):
        """Derivatives of the model with respect to all parameters, (n, k, P)."""
        design = templates.copy()
        design[:, 1:] *= self._scene.parameters[self.index, FLUX, np.newaxis, np.newaxis]
        return design

    def _step(self, templates, factor):
        """Changes of the parameters of every source, (n, k)."""
        n, k = templates.shape[:2]
        mean, prior_error = self._prior()
        offset = (mean - self._scene.parameters[self.index])[:, :k].ravel()
        prior_error = prior_error[:, :k].ravel()
        free = (prior_error > 0) & np.repeat(self.constrained, k)
        step = np.zeros(n * k)
        if free.any():
            design = self._design(templates).reshape(n * k, -1)[free]
            solved = linalg.cho_solve(factor, design.T, check_finite=False)
            precision = prior_error[free] ** -2.0
            self._normal_inverse = _inverse(design @ solved + np.diag(precision))
            right = self._residual() @ solved + precision * offset[free]
            step[free] = self._normal_inverse @ right
            self._solved = solved
            self._keep_errors(free, n, k)
        return step.reshape(n, k)

    def _keep_errors(self, free, n, k):
        covariance = np.zeros((n * k, n * k))
        covariance[np.ix_(free, free)] = self._normal_inverse
        self.errors[:] = 0
        self.errors[:, :k] = np.sqrt(np.maximum(covariance.diagonal(), 0)).reshape(n, k)
        blocks = covariance.reshape(n, k, n, k)
        self.covariance[:] = 0
        for i in range(n):
            self.covariance[i, :k, :k] = blocks[i, :, i]

    def _objective(self, factor):
        """χ² of the residuals and of the priors."""
        residual = self._residual()
        parameters = self._scene.parameters[self.index]
        mean, error = self._prior()
        pull = np.divide(parameters - mean, error, out=np.zeros_like(mean), where=error > 0)
        return residual @ linalg.cho_solve(factor, residual, check_finite=False) + (pull**2).sum()

    def _apply(self, start, step):
        """Move the sources a step away from where they started, within bounds."""
        scene = self._scene
        k = step.shape[1]
        largest = np.full(SHAPE.stop, _MAX_STEP * scene.psf.fwhm)
        largest[FLUX], largest[WIDTH] = np.inf, _MAX_STEP
        parameters = start.copy()
        parameters[:, :k] += np.clip(step, -largest[:k], largest[:k])
        bounds, given = np.array(scene.options.xy_bounds), scene.start[self.index]
        parameters[:, POSITION] = np.clip(parameters[:, POSITION], given - bounds, given + bounds)
        for i, values in zip(self.index, parameters, strict=True):
            scene.move(i, values)

    def settle_blends(self) -> None:
        """Raise the errors of pairs of which only the sum of the fluxes is known.

        Derivatives at the best fit do not tell of other fits that are as good: a pair of sources
        closer than half the FWHM looks like one that is a little wider. So pairs count that one
        source describes as well, fits that do not converge or have a negative flux, and large
        errors.
        """
        if self.weights is None:
            return
        scene, place = self._scene, {int(i): k for k, i in enumerate(self.index)}
        errors, covariance = self.errors.copy(), self.covariance.copy()
        best, converged = scene.parameters[self.index], self._converged
        pairs = [(place[i], place[j]) for i, j in scene.blended_pairs if {i, j} <= place.keys()]
        if not pairs:
            return
        templates, images = self._templates()
        factor = self._factor(images)
        for pair in pairs:
            total = best[pair, FLUX].sum()
            if not total > 0:
                continue
            unclear = not converged or best[pair, FLUX].min() <= 0
            unclear = unclear or errors[pair, FLUX].max() > _UNKNOWN_SHARE * total
            # No share is likelier than another.
            self._held = dict.fromkeys(pair, (0.0, np.inf))
            self._share_flux(templates, factor)
            lowest = self._objective(factor)
            self._held[min(pair, key=lambda k: best[k, FLUX])] = 0.0, _HELD * total
            self._iterate(_MERGED_ITERATIONS, factor)
            if unclear or self._objective(factor) - lowest < _AS_GOOD:
                self.ambiguous[list(pair)] = True
                for k in pair:
                    wanted = np.hypot(errors[k, FLUX], _ANY_SHARE * total)
                    covariance[k] *= (wanted / errors[k, FLUX]) ** 2
                    errors[k] *= wanted / errors[k, FLUX]
            self._apply(best, np.zeros((len(best), 1)))
        self._held, self._converged = {}, converged
        self.errors, self.covariance = errors, covariance

    # --------------------------------------------------------------------------------- the results

    def _finish(self, factor, images):
        scene = self._scene
        seen = self._map()
        self.background = self._predict(seen[np.newaxis])[0]
        self._last_seen = seen.flat[self.window.inside]
        self.residual = self._last_seen - self.background
        self._lower = np.tril(factor[0])
        self._profile_error = scene.profile_error
        self._width_prior = scene.prior(self.index)[0][:, WIDTH]
        self.profile_step = self._score_profile(factor, images)

    def _score_profile(self, factor, images):
        """Score and information of the variance of the profile of the PSF.

        None if there is no point source: deviations of others are their shapes.
        """
        scene = self._scene
        flux = np.where(scene.extended[self.index], 0, scene.parameters[self.index, FLUX])
        squares = ((flux[:, np.newaxis] * images) ** 2).sum(axis=0)
        if not squares.max(initial=0) > 0:
            return None
        bright = squares > _BRIGHT * squares.max()
        unit = np.identity(len(squares))[:, bright]
        inverse = linalg.cho_solve(factor, unit, check_finite=False)[bright]
        weighted = linalg.cho_solve(factor, self.residual, check_finite=False)[bright]
        squares = squares[bright]
        score = (weighted**2 - inverse.diagonal()) @ squares / 2
        return score, squares @ inverse**2 @ squares / 2

    def is_outdated(self) -> bool:
        """Whether other sources, or what is known of the PSF, have changed since it was solved."""
        if self.weights is None:
            return False
        scene = self._scene
        mean, errors = (part[:, WIDTH] for part in scene.prior(self.index))
        if (np.abs(mean - self._width_prior) > _UNCHANGED * errors).any():
            return True
        if np.abs(self._profile_error - scene.profile_error) > _SAME_PROFILE * scene.profile_error:
            return True
        return self._change() > _UNCHANGED

    def has_settled(self) -> bool:
        """Whether its residuals are those of its sources, not of neighbours that were still moving.

        Only such fits tell of the errors of the PSF.
        """
        return self.weights is not None and bool(self._converged) and self._change() < _SETTLED

    def _change(self):
        """Largest change of a pixel since the solution, over the noise."""
        change = np.abs(self._map().flat[self.window.inside] - self._last_seen)
        noise = np.sqrt(np.median(self._covariance.diagonal()))
        return float(change.max(initial=0) / noise)

    def has_new_masks(self) -> bool:
        """Whether a mask was drawn anew since the fit was set up."""
        return any(
            mask is not self._scene.masks[i]
            for i, mask in zip(self.index, self.masks, strict=True)
        )

    def statistics(self, k: int) -> tuple[np.ndarray, float, float]:
        """Goodness of fit of one source.

        Parameters
        ----------
        k : int
            Number of the source in ``index``.

        Returns
        -------
        held : (P,) `~numpy.ndarray` of bool
            Pixels of its own mask.
        chi2 : float
            Their χ².
        rim : float
            Mean residual of the outermost of them over its standard deviation.
        """
        x, y = self._scene.parameters[self.index[k], POSITION]
        held = self.masks[k].holds(self.rows, self.columns)
        rows = self._lower[held]
        covariance, residual = rows @ rows.T, self.residual[held]
        # The triangle of their own covariance: products of numbers of any size lose digits.
        triangle = linalg.qr(rows.T, mode='r', check_finite=False)[0][: len(rows)]
        whitened = linalg.solve_triangular(triangle, residual, trans='T', check_finite=False)
        chi2 = whitened @ whitened
        rim = _is_rim(self.masks[k], self.rows[held], self.columns[held], self.window.block)
        rim = rim.astype(float)
        if not rim.any():
            rim[np.argmax(np.hypot(self.columns[held] - x, self.rows[held] - y))] = 1
        return held, float(chi2), float(rim @ residual / np.sqrt(rim @ covariance @ rim))

    def shape_error(self, k: int) -> float:
        """Error of the flux of a source whose shape is not that of the model.

        Parameters
        ----------
        k : int
            Number of the source in ``index``.

        Returns
        -------
        error : float
            Sum of the residuals in its own mask, as far as it exceeds their standard deviation.
        """
        held = self.masks[k].holds(self.rows, self.columns)
        noise = self._lower[held].sum(axis=0)
        excess = self.residual[held].sum() ** 2 - noise @ noise
        return float(np.sqrt(max(excess, 0)) * self.window.block**2)

    def background_of(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predicted background in the trusted pixels of the mask of one source.

        Parameters
        ----------
        k : int
            Number of the source in ``index``.

        Returns
        -------
        rows, columns : (Q,) `~numpy.ndarray` of int
        values : (Q,) `~numpy.ndarray` of float
        """
        rows, columns = self.masks[k].on_map()
        number = self.window.number(rows, columns)
        known = number >= 0
        return rows[known], columns[known], self.background[number[known]]

    def size_test(self, k: int) -> tuple[float, np.ndarray]:
        """Whether the residuals of a point source ask for a size.

        Parameters
        ----------
        k : int
            Number of the source in ``index``.

        Returns
        -------
        gain : float
            By how much χ² falls with the three second moments as free parameters (score test).
        shape : (3,) `~numpy.ndarray` of float
            (a, b, c) of the moments, where the fit of the shape can start; NaN if the source is
            smaller than the PSF.
        """
        scene, i = self._scene, self.index[k]
        window = self.window
        windows = window.average(scene.size_templates(i, window.x, window.y))
        sizes = scene.parameters[i, FLUX] * self._effective(windows)
        factor = self._lower, True
        solved = linalg.cho_solve(factor, sizes.T, check_finite=False)
        mixed = sizes @ self._solved
        normal = sizes @ solved - mixed @ self._normal_inverse @ mixed.T
        right = self.residual @ solved
        found = _inverse(normal) @ right
        second_moments = np.array([[found[0], found[1]], [found[1], found[2]]])
        # The width of a point source goes beyond its prior before the source is resolved.
        log_width = scene.parameters[i, WIDTH]
        mean, error = (part[0, WIDTH] for part in scene.prior(np.array([i])))
        penalty = ((log_width - mean) / error) ** 2 if error > 0 else 0.0
        wider = (np.exp(2 * (log_width - mean)) - 1) * (scene.psf.fwhm / FWHM) ** 2
        second_moments += wider * np.identity(2)
        if np.trace(second_moments) <= 0:
            return 0.0, np.full(3, np.nan)
        smallest = _SMALLEST_SIZE * scene.psf.fwhm
        return float(right @ found + penalty), shape_of(second_moments, smallest)


def _inverse(normal):
    """Pseudo-inverse of a normal matrix, of which some parameters may be unconstrained."""
    scale = 1 / np.sqrt(np.maximum(normal.diagonal(), np.finfo(float).tiny))
    inverse = np.linalg.pinv(normal * np.outer(scale, scale), _SINGULAR, hermitian=True)
    return inverse * np.outer(scale, scale)


def _is_rim(mask, rows, columns, step):
    """Pixels of a mask beside one that is not in it."""
    beside = np.zeros(len(rows), dtype=bool)
    for dy, dx in ((0, step), (0, -step), (step, 0), (-step, 0)):
        beside |= ~mask.holds(rows + dy, columns + dx)
    return beside
