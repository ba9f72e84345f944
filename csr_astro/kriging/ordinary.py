"""Ordinary kriging in a window: prediction behind a mask, and covariance of its errors.

The prediction is the conditional mean of a Gaussian field given the valid pixels, with the
variogram of the window around the mask (`csr_astro.kriging.variogram`). Pixels far from the
mask enter as averages over blocks, so that a few hundred numbers represent thousands of pixels.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import linalg, sparse

from csr_astro.kriging.blocks import BLOCKS, find_blocks
from csr_astro.kriging.lags import LagTables
from csr_astro.kriging.likelihood import window_variogram
from csr_astro.kriging.variogram import Variogram, local_weight
from csr_astro.kriging.wings import CONTRAST, WING_SLOPES, wing, wing_amplitude

if TYPE_CHECKING:
    from csr_astro.typing import Places

__all__ = ['Kriging']


# Fraction of the variogram between neighbours that always counts as noise, because predictions
# that trust the fitted smoothness extrapolate wildly on real maps.
_JITTER = 0.03
# Number of discs next to the mask that are left out to test the prediction, and smallest number of
# blocks in one.
_LEFT_OUT = 12
_MIN_LEFT_OUT = 3
# Attributes that are computed anew when they are needed.
_CACHES = ('_kept_factor', '_kept_tables', '_last', '_last_whitened')


class Kriging:
    """Ordinary kriging in a window, with an unknown, constant mean.

    Parameters
    ----------
    values : (S, S) `~numpy.ndarray` of float
        Window with the source at pixel (S // 2, S // 2); finite where valid.
    valid : (S, S) `~numpy.ndarray` of bool
        True for background pixels, at least one.
    radius : float
        Radius in pixels of the area to predict.
    peak : float, optional
        Brightest pixel of the source. If given, wings of the source outside the radius
        are fitted and subtracted from the background.
    noise : (S, S) `~numpy.ndarray` of float, optional
        Known noise variance of each pixel; by default it is the same for all and
        follows from the variogram.
    distance : (S, S) `~numpy.ndarray` of float, optional
        Distance of each pixel from the area to predict, if that is not round: fewer blocks
        represent the pixels far from it.

    Attributes
    ----------
    variogram : `~csr_astro.kriging.variogram.Variogram` or None
        None if the window is constant.
    size : int
        Width of the window.
    n_valid : int
        Number of valid pixels.
    varies : bool
        Whether the valid pixels differ.

    Examples
    --------
    In white noise of variance 4, the error of a sum of 61 pixels is their noise and
    the error of the mean around them:

    >>> import numpy as np
    >>> from csr_astro.kriging.ordinary import Kriging
    >>> values = np.random.default_rng(1).normal(7, 2, (97, 97))
    >>> y, x = np.mgrid[:97, :97] - 48
    >>> hidden = np.hypot(x, y) <= 4.5
    >>> kriging = Kriging(values, ~hidden, 4.5)
    >>> places = (x[hidden], y[hidden])
    >>> bool(abs(kriging.predict(places).mean() - 7) < 0.3)
    True
    >>> variance = (kriging.covariance(places) + kriging.own_noise(places)).sum()
    >>> bool(3.5 < variance / hidden.sum() < 6)
    True
    """

    def __init__(
        self,
        values: np.ndarray,
        valid: np.ndarray,
        radius: float,
        *,
        peak: float | None = None,
        noise: np.ndarray | None = None,
        distance: np.ndarray | None = None,
    ) -> None:
        self.size = len(values)
        self.n_valid, self.varies = int(valid.sum()), bool(np.ptp(values[valid]) > 0)
        self.variogram: Variogram | None = None
        self._radius = radius
        self._level = self._offset = values[valid].mean()
        self._noise: tuple[np.ndarray, np.ndarray, float] | None = None
        self._wings: list[tuple[float, int]] = []
        self._wing_error = 0.0
        self.forget()
        values = np.where(valid, values - self._offset, 0.0)
        self._blocks = find_blocks(valid, radius, distance)
        if not len(self._blocks):
            return
        self._means = self._blocks.means(values)
        if noise is not None:
            self._noise = self._known_noise(noise, valid)
        # The second round fits the variogram again, without the wing found in the first.
        for _ in range(2):
            weights = window_variogram(values, valid, radius)
            if weights is None:
                self._level, self.variogram = self._offset + self._means.mean(), None
                return
            self.variogram = Variogram(weights, self.size)
            self.forget()
            right, solved = self._solve()
            if peak is None:
                break
            amplitude, error, number = wing_amplitude(right.T @ solved)
            if amplitude == 0 or CONTRAST * amplitude > peak - self._offset:
                break
            self._means = self._means - amplitude * right[:, 2 + number]
            solved[:, 1] -= amplitude * solved[:, 2 + number]
            values -= amplitude * self._wing(number)
            self._wings.append((amplitude, number))
            self._wing_error = error
        self._finish(solved)

    def __repr__(self) -> str:
        return f'<Kriging: {self.variogram or "a window that does not vary"}>'

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | dict.fromkeys(_CACHES)

    def __copy__(self) -> Kriging:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def forget(self) -> None:
        """Free memory: the factor of the covariance is computed anew when it is needed."""
        self.__dict__.update(dict.fromkeys(_CACHES))

    @property
    def nbytes(self) -> int:
        """Memory that `forget` frees, in bytes."""
        caches = self._kept_factor, self._kept_tables
        return sum(each.nbytes for each in caches if each is not None)

    def with_noise(self, noise: np.ndarray, valid: np.ndarray) -> Kriging:
        """Return the same kriging for pixels whose noise is known.

        Parameters
        ----------
        noise : (S, S) `~numpy.ndarray` of float
            Known noise variance of each pixel.
        valid : (S, S) `~numpy.ndarray` of bool
            The valid pixels.

        Returns
        -------
        kriging : `Kriging`
            With the variogram and the wing of this one.
        """
        other = copy.copy(self)
        other.forget()
        if self.variogram is not None:
            other._noise = self._known_noise(noise, valid)  # noqa: SLF001
            other._finish(other._solve()[1])  # noqa: SLF001
        return other

    @property
    def wing(self) -> np.ndarray | float:
        """Subtracted wing of the source, (S, S) `~numpy.ndarray` of float; 0 without one."""
        return sum((amplitude * self._wing(number) for amplitude, number in self._wings), 0.0)

    def predict(self, places: Places) -> np.ndarray:
        """Compute the conditional mean.

        Parameters
        ----------
        places : (x, y) of (P,) `~numpy.ndarray` of int
            Offsets of pixels that are not valid from the central pixel.

        Returns
        -------
        prediction : (P,) `~numpy.ndarray` of float
        """
        if self.variogram is None:
            return np.full(len(places[0]), self._level)
        return self._level + self._to_data(places, keep=False) @ self._solved

    def weights(self, places: Places) -> np.ndarray:
        """Weights of the valid blocks in the prediction, which is linear in their means.

        Parameters
        ----------
        places : (x, y) of (P,) `~numpy.ndarray` of int
            As in `predict`.

        Returns
        -------
        weights : (P, N) `~numpy.ndarray` of float
            Each row has the sum 1. The prediction from other values of the same valid pixels,
            such as a source adds, is ``weights @ (averaging_matrix() @ values.ravel())``.
        """
        n = len(self._blocks)
        if self.variogram is None:
            return np.full((len(places[0]), n), 1 / max(n, 1))
        to_data = self._to_data(places)
        whitened = self._whitened(to_data)[0]
        solved = linalg.solve_triangular(
            self._factor, whitened, lower=True, trans=1, check_finite=False
        ).T
        missing = 1 - to_data @ self._ones
        return solved + np.outer(missing, self._ones / self._ones.sum())

    def averaging_matrix(self) -> sparse.csr_array:
        """Matrix that averages a window over the valid blocks.

        Returns
        -------
        matrix : (N, S * S) `~scipy.sparse.csr_array`
            To be multiplied with a flattened window. ``weights(places) @ matrix`` is what
            kriging makes of single pixels.
        """
        pixels, number = [], []
        for n in BLOCKS:
            steps = np.arange(n) - n // 2 + self.size // 2
            rows, columns = (
                center[:, np.newaxis] + steps for center in self._blocks.places(n)[::-1]
            )
            flat = rows[:, :, np.newaxis] * self.size + columns[:, np.newaxis, :]
            pixels.append(flat.ravel())
            number.append(np.full(len(flat), n * n))
        counts = np.concatenate(number)
        starts = np.concatenate([[0], np.cumsum(counts)])
        values = np.repeat(1.0 / counts, counts)
        shape = len(counts), self.size**2
        return sparse.csr_array((values, np.concatenate(pixels), starts), shape=shape)

    def covariance(self, places: Places, others: Places | None = None) -> np.ndarray:
        """Compute the covariance of the prediction errors, without the noise of the pixels.

        Parameters
        ----------
        places, others : (x, y) of (P,) and of (Q,) `~numpy.ndarray` of int
            As in `predict`; by default both are the same.

        Returns
        -------
        covariance : (P, Q) `~numpy.ndarray` of float
            Covariance of the structure, of the unknown mean and of the wing, if any; 0 in
            a constant window. Errors of a prediction also include `own_noise`.
        """
        same = others is None
        others = places if others is None else others
        if self.variogram is None:
            return np.zeros((len(places[0]), len(others[0])))
        first = self._whitened(self._to_data(places))
        second = first if same else self._whitened(self._to_data(others))
        covariance = self._tables.covariance(places, others)
        covariance -= first[0].T @ second[0]
        for one, other in zip(first[1:], second[1:], strict=True):
            covariance += np.multiply.outer(one, other)
        return covariance

    def variance(self, places: Places, weights: np.ndarray) -> np.ndarray:
        """Compute the variance of the errors of weighted sums, faster than by `covariance`.

        Parameters
        ----------
        places : (x, y) of (P,) `~numpy.ndarray` of int
            As in `predict`.
        weights : (K, P) `~numpy.ndarray` of float
            Weights of the pixels in each sum.

        Returns
        -------
        variance : (K,) `~numpy.ndarray` of float
        """
        if self.variogram is None:
            return np.zeros(len(weights))
        before = weights @ self._tables.covariance(places, places)
        variance = (before * weights).sum(axis=1)
        known, *rest = self._whitened(weights @ self._to_data(places), weights.sum(axis=1))
        variance -= (known**2).sum(axis=0)
        for part in rest:
            variance += part**2
        return np.maximum(variance, 0)

    def variances(self, places: Places) -> np.ndarray:
        """Compute the variance of the error of each pixel, the diagonal of `covariance`.

        Parameters
        ----------
        places : (x, y) of (P,) `~numpy.ndarray` of int
            As in `predict`.

        Returns
        -------
        variance : (P,) `~numpy.ndarray` of float
        """
        if self.variogram is None:
            return np.zeros(len(places[0]))
        origin = np.zeros(1, dtype=int), np.zeros(1, dtype=int)
        known, *rest = self._whitened(self._to_data(places))
        variance = self._tables.covariance(origin, origin)[0] - (known**2).sum(axis=0)
        for part in rest:
            variance += part**2
        return np.maximum(variance, 0)

    def own_noise(self, places: Places, others: Places | None = None) -> np.ndarray:
        """Compute the covariance of the white noise of predicted pixels.

        Parameters
        ----------
        places, others
            As in `covariance`.

        Returns
        -------
        covariance : (P, Q) `~numpy.ndarray` of float
        """
        others = places if others is None else others
        covariance = np.zeros((len(places[0]), len(others[0])))
        rows, columns = _common(places, others)
        covariance[rows, columns] = self.own_variance(places)[rows]
        return covariance

    def own_variance(self, places: Places, *, given: bool = True) -> np.ndarray:
        """Compute the variance of the white noise of predicted pixels.

        Parameters
        ----------
        places
            As in `predict`.
        given : bool, optional
            Whether to include ``noise``, or only the noise of the variogram beyond it.

        Returns
        -------
        variance : (P,) `~numpy.ndarray` of float
        """
        if self.variogram is None:
            return np.zeros(len(places[0]))
        if self._noise is None:
            return np.full(len(places[0]), self.variogram.noise)
        noise, _, mean = self._noise
        x, y = (np.asarray(place) + len(noise) // 2 for place in places)
        return max(self.variogram.noise - mean, 0) + given * noise[y, x]

    @property
    def block_sizes(self) -> np.ndarray:
        """Number of pixels of each valid block, (N,)."""
        return self._blocks.count

    def significance(self, templates: np.ndarray) -> np.ndarray:
        """Compute the significance of patterns in the valid blocks, each fitted on its own.

        Parameters
        ----------
        templates : (K, N) `~numpy.ndarray` of float
            Patterns, averaged over the blocks as by `averaging_matrix`.

        Returns
        -------
        significance : (K,) `~numpy.ndarray` of float
            Best linear unbiased amplitude of each pattern over its standard error. In a
            Gaussian field without the pattern it has mean 0 and variance 1; 0 for patterns
            that are not constrained, and in a constant window.
        """
        if self.variogram is None:
            return np.zeros(len(templates))
        whitened = linalg.solve_triangular(self._factor, templates.T, lower=True,
                                           check_finite=False)  # fmt: skip
        before = (whitened**2).sum(axis=0)
        information = before - (templates @ self._ones) ** 2 / self._ones.sum()
        known = information > 1e-9 * before
        amplitude = np.where(known, templates @ self._solved, 0.0)
        return amplitude / np.sqrt(np.where(known, information, 1.0))

    def left_out(self) -> np.ndarray:
        """Measure how badly the valid pixels near the mask are predicted from all others.

        Returns
        -------
        surprise : (5,) `~numpy.ndarray` of float
            Mean squared errors over their expected variance: of single pixels at the rim,
            of the blocks of 3 x 3 beyond, and of the means of discs next to the mask with
            a radius of 4 pixels and of the mask's radius. Last, the variance of the pixels
            at the rim over the expected one. 1 on average in a Gaussian field, and 1 for
            pixels or discs that are missing.
        """
        surprise = np.ones(5)
        if self.variogram is None:
            return surprise
        discs = (
            (self._radius + 5, 4.0),
            (2 * self._radius + 2, max(self._radius, 4.0)),
        )
        # The largest blocks come first. The inverse covariance of all blocks after those that lie
        # beyond the discs follows from the last part of the factor.
        reach = max(sum(disc) for disc in discs)
        large = self._blocks.places(BLOCKS[0])
        first = int((np.hypot(*large) > reach + 1).sum())
        # Its lower triangle.
        precision = linalg.lapack.dpotri(self._factor[first:, first:], lower=1)[0]
        ones, solved = self._ones[first:], self._solved[first:]
        # The mean is not known.
        precision -= np.multiply.outer(ones / self._ones.sum(), ones)
        diagonal = precision.diagonal()
        if not diagonal.max(initial=0.0) > 0:
            # A single block only determines the unknown mean.
            return surprise
        single = solved**2 / np.maximum(diagonal, 1e-12 * diagonal.max())
        for number, n in enumerate((1, 3)):
            part = self._blocks.parts[n]
            if part.stop > part.start:
                surprise[number] = single[part.start - first : part.stop - first].mean()
        dx, dy, count = (
            each[first:] for each in (self._blocks.dx, self._blocks.dy, self._blocks.count)
        )
        sides = np.column_stack([solved, count])
        angles = 2 * np.pi * np.arange(_LEFT_OUT) / _LEFT_OUT
        for number, (distance, radius) in enumerate(discs, start=2):
            x, y = (distance * f(angles)[:, np.newaxis] for f in (np.cos, np.sin))
            found = [
                _left_out(precision, sides, inside.nonzero()[0])
                for inside in (dx - x) ** 2 + (dy - y) ** 2 <= radius**2
            ]
            if found := [value for value in found if value is not None]:
                surprise[number] = np.mean(found)
        values = self._means[self._blocks.parts[1]]
        if len(values) >= _MIN_LEFT_OUT:
            surprise[4] = values.var() / self._rim_variance
        return surprise

    # ----------------------------------------------------------------------------------- helpers

    @property
    def _tables(self):
        # Local names, because threads may share the window.
        tables = self._kept_tables
        if tables is None:
            tables = self._kept_tables = LagTables(self.variogram)
        return tables

    @property
    def _factor(self):
        factor = self._kept_factor
        if factor is None:
            covariance = self._data_covariance()
            factor = _cholesky(covariance, self.variogram.step)
            rim = covariance[self._blocks.parts[1], self._blocks.parts[1]]
            if len(rim):
                self._rim_variance = rim.diagonal().mean() - rim.mean()
            self._kept_factor = factor
        return factor

    def _solve(self):
        """Solve for a constant, the means of the blocks, and wings; returns both sides."""
        distance = np.hypot(self._blocks.dx, self._blocks.dy)
        shapes = [wing(distance, self._radius, slope) for slope in WING_SLOPES]
        right = np.column_stack([np.ones(len(distance)), self._means, *shapes])
        return right, linalg.cho_solve((self._factor, True), right, check_finite=False)

    def _finish(self, solved):
        """Keep what predictions and errors need of the solution."""
        self._ones = solved[:, 0].copy()
        self._shape = None
        if self._wings:
            self._shape = self._wing_error * solved[:, 2 + self._wings[-1][1]]
        level = solved[:, 1].sum() / self._ones.sum()
        self._level = self._offset + level
        self._solved = solved[:, 1] - level * self._ones

    def _wing(self, number):
        """Return the whole profile of a wing, (S, S)."""
        steps = np.arange(self.size) - self.size // 2
        return wing(np.hypot(steps[:, None], steps), self._radius, WING_SLOPES[number])

    def _known_noise(self, noise, valid):
        """Return the known noise of pixels and of blocks, and its mean about the source.

        The white noise of the variogram is the known noise and a uniform rest.
        """
        known = np.where(valid, noise, 0.0)
        return noise, self._blocks.means(known), _near_mean(known, valid)

    def _data_covariance(self):
        """Compute the covariance of the valid blocks; only the lower triangle is filled."""
        covariance = np.empty((len(self._blocks), len(self._blocks)), order='F')
        for number, p in enumerate(BLOCKS):
            for q in BLOCKS[: number + 1]:
                covariance[self._blocks.parts[p], self._blocks.parts[q]] = self._tables.covariance(
                    self._blocks.places(p), self._blocks.places(q), (p, q)
                )
        noise = self.variogram.noise
        if self._noise is not None:
            noise = max(noise - self._noise[2], 0) + self._noise[1]
        covariance[np.diag_indices(len(covariance))] += noise / self._blocks.count
        return covariance

    def _to_data(self, places, *, keep=True):
        """Compute the covariance of places with the valid blocks; the last result is kept."""
        last = self._last
        if last is not None and last[0] is places:
            return last[1]
        covariance = np.empty((len(places[0]), len(self._blocks)))
        for p in BLOCKS:
            covariance[:, self._blocks.parts[p]] = self._tables.covariance(
                places, self._blocks.places(p), (1, p)
            )
        if keep:
            self._last = places, covariance
        return covariance

    def _whitened(self, to_data, total=1.0):
        """Return the factors of the variance known from the pixels, and of the mean and wing.

        The first reduces the variance of places or sums, the others add to it. ``to_data``
        are the covariances with the pixels, ``total`` the sums of the weights.
        """
        missing = total - to_data @ self._ones
        # Weights and covariance of the same places share the first.
        last = self._last_whitened
        if last is not None and last[0] is to_data:
            known = last[1]
        else:
            known = linalg.solve_triangular(
                self._factor, to_data.T, lower=True, check_finite=False
            )
            self._last_whitened = to_data, known
        rows = [
            known,
            missing / np.sqrt(self._ones.sum()),
        ]
        if self._shape is not None:
            level = self._shape.sum() / self._ones.sum()
            rows.append(to_data @ self._shape + level * missing)
        return rows


def _left_out(precision, sides, inside):
    """Return the squared error of the mean of blocks, predicted from others, over its variance.

    ``sides`` are the solution of the system, and the number of pixels of each block.
    """
    if len(inside) < _MIN_LEFT_OUT:
        return None
    block = precision[inside[:, np.newaxis], inside]
    block.flat[:: len(inside) + 1] *= 1 + 1e-9
    right = sides[inside]
    right[:, 1] /= right[:, 1].sum()
    _, solved, failed = linalg.lapack.dposv(block, right, lower=1)
    if failed:
        return None
    error, variance = right[:, 1] @ solved
    return error**2 / variance if variance > 0 else None


def _common(places, others):
    """Return the indices of the pixels that are in both lists."""
    first, second = (np.asarray(p[1]) * 2**20 + p[0] for p in (places, others))
    _, rows, columns = np.intersect1d(first, second, return_indices=True)
    return rows, columns


def _near_mean(values, valid):
    """Return the mean of the valid pixels, weighted as in the variogram."""
    weight = local_weight(len(values)) * valid
    return (weight * values).sum() / weight.sum()


def _cholesky(covariance, step):
    """Return the Cholesky factor of a covariance given by its lower triangle."""
    diagonal = np.diag_indices(len(covariance))
    variance = covariance[diagonal]
    # Rounding may make the matrix of a smooth map indefinite.
    for jitter in (1, 100, 10_000):
        covariance[diagonal] = variance + jitter * _JITTER * step
        try:
            return linalg.cholesky(covariance, lower=True, check_finite=False)
        except linalg.LinAlgError:
            continue
    covariance[diagonal] = 2 * variance
    return linalg.cholesky(covariance, lower=True, check_finite=False)
