"""Prediction of the background behind masks, in batches of sources."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from csr_astro.cutouts import extract, extract_mask, prediction_reach, window_corner
from csr_astro.error_window import NormalizedKriging
from csr_astro.flags import BITS
from csr_astro.masking import combined_mask
from csr_astro.utils.forks import fork_safe
from csr_astro.utils.outliers import isolated_outliers
from csr_astro.utils.progress import progress_bar
from csr_astro.utils.scatter import RING_WIDTH, ring_scatter
from csr_astro.utils.threads import n_threads, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from csr_astro.nn.inpainter import Inpainter
    from csr_astro.plan import Plan
    from csr_astro.typing import Batches, PathLike

__all__ = [
    'BATCH_SIZES', 'ORIENTATIONS', 'Part', 'Prediction', 'Predictor', 'combine_parts', 'predict',
    'predict_windows',
]  # fmt: skip

# Width in pixels of the rim around a mask that is checked for valid background.
_RIM = 5
# Reach of the published blending beyond a mask, in pixels.
_BLUR = 4
# Width of the published blurring in pixels.
_BLUR_WIDTH = 5.0
#: Number of flips and rotations to average over, unless a preset or the user says another.
ORIENTATIONS = 8
#: Number of sources in a batch, by type of device.
BATCH_SIZES = {'cpu': 32, 'cuda': 128, 'mps': 32}
# Factors of covariances up to this size in all are kept for the errors; others are computed anew.
_KEPT_BYTES = 256 * 2**20
# Lets each process load a model only once, also from several threads.
_LOADING = fork_safe(threading.Lock())


@dataclass(frozen=True, eq=False)
class Part:
    """Prediction for one batch of sources.

    Attributes
    ----------
    index : (K,) `~numpy.ndarray` of int
        Indices of the sources.
    scatter, mean : (K,) `~numpy.ndarray` of float
        Scatter in the ring around each mask, and mean prediction under the mask.
    flags : (K,) `~numpy.ndarray` of int
        Flags of each source.
    pixels : (P,) `~numpy.ndarray` of int
        Flat indices of the pixels to change; a pixel in several masks appears several times.
    weights, values : (P,) `~numpy.ndarray` of float
        Weight of the prediction in each pixel, and the prediction.
    krigings : list of `~csr_astro.error_window.NormalizedKriging` or None
        Kriging of each source's window, for its errors.
    """

    index: np.ndarray
    scatter: np.ndarray
    mean: np.ndarray
    flags: np.ndarray
    pixels: np.ndarray
    weights: np.ndarray
    values: np.ndarray
    krigings: list[NormalizedKriging | None]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Prediction for all sources of a map.

    Attributes
    ----------
    pixels : (P,) `~numpy.ndarray` of int
        Flat indices of the pixels to change, sorted.
    values, shares : (P,) `~numpy.ndarray` of float
        Background in each pixel, and the fraction of it that is predicted: below 1 only in
        blended pixels.
    scatter, mean : (N,) `~numpy.ndarray` of float
        Scatter in the ring around each mask, and mean prediction under the mask; NaN for a
        source without prediction.
    flags : (N,) `~numpy.ndarray` of int
        Flags of each source.
    krigings : list of `~csr_astro.error_window.NormalizedKriging` or None
        Kriging of each source's window, for its errors; None for a source that is predicted as
        another, and where the network was not shown that of the whole window.
    """

    pixels: np.ndarray
    values: np.ndarray
    shares: np.ndarray
    scatter: np.ndarray
    mean: np.ndarray
    flags: np.ndarray
    krigings: list[NormalizedKriging | None]


@dataclass(frozen=True)
class Predictor:
    """Predict the background with a network; small enough to be sent to other processes.

    Attributes
    ----------
    weights : str or path-like
        Name or path of the network's weights.
    sha256 : str
        Expected hash of the weights.
    blend : bool
        Whether to blend prediction and map at the rim of the mask, as the published tool.
    orientations : {1, 2, 4, 8}
        Number of flips and rotations to average over.
    device : str or None
        Device of the network; by default a GPU if available.
    dtype : {'float32', 'bfloat16'}
        Precision of the network's arithmetic.
    """

    weights: PathLike
    sha256: str
    blend: bool = False
    orientations: int = ORIENTATIONS
    device: str | None = None
    dtype: str = 'float32'

    def parts(
        self, plan: Plan, batches: Batches | None = None, *, progress: bool | None = False
    ) -> Iterator[Part]:
        """Predict the background behind the masks of some batches.

        Parameters
        ----------
        plan : `~csr_astro.plan.Plan`
            The plan, including its map.
        batches : list of (index, size), optional
            Batches of the plan; all by default.
        progress : bool or None, optional
            Whether to show a progress bar; None as in `~csr_astro.utils.progress.progress_bar`.

        Yields
        ------
        part : `Part`
            Prediction for each batch.
        """
        batches = plan.batches if batches is None else batches
        if not batches:
            return
        model = self._model()
        hole = combined_mask(plan.masks, plan.image.shape)
        total = sum(len(index) for index, _ in batches)
        # A processor computes several batches side by side, which keeps all threads busy also in
        # what the libraries do on one.
        on_processor = next(model.parameters()).device.type == 'cpu'
        threads = min(n_threads(), len(batches)) if on_processor else 1
        parts = spread(lambda batch: self._part(model, plan, hole, *batch), batches, threads)
        with progress_bar(progress=progress, total=total, unit='source', delay=2) as bar:
            for part in parts:
                yield part
                bar.update(len(part.index))

    def _model(self):
        import torch

        from csr_astro.nn.device import resolve_device

        device, dtype = resolve_device(self.device), getattr(torch, self.dtype)
        with _LOADING:
            model = _load(self.weights, self.sha256, device, dtype)
        if model.info.sha256 != self.sha256:
            raise ValueError(
                f'the weights {str(self.weights)!r} changed since the estimator was made.'
            )
        return model

    def _part(self, model, plan, hole, index, size):
        image, masks = plan.image, plan.masks
        x, y = plan.centers(index)
        values = extract(image, x, y, size)
        if plan.model is not None:
            values -= plan.model.windows(x, y, size)
        covered = extract_mask(hole, x, y, size)
        flags = np.zeros(len(index), dtype=int)
        if not self.blend:
            # The published tool keeps them.
            outliers = isolated_outliers(values, np.isfinite(values) & ~covered)
            values[outliers] = np.nan
            flags[outliers.any(axis=(1, 2))] |= BITS['outliers']
        inside = [
            masks[i].in_window(column, row, size)
            for i, column, row in zip(index, x, y, strict=True)
        ]
        central = np.zeros_like(covered)
        for k, i in enumerate(index):
            # Beyond the map's end, too, where pixels are as unknown as NaN.
            whole = masks[i].in_window(x[k], y[k], size, whole=not self.blend)
            central[(k, *whole)] = True
        radius = np.array([masks[i].radius for i in index])
        # All sources of a batch have the same reach, see `csr_astro.plan.plan_batches`.
        reach = int(prediction_reach(radius.max()))
        prediction, krigings = self._within_memory(
            model,
            (values, covered, central, radius),
            reach=reach + _BLUR * self.blend,
            wings_known=plan.model is not None,
        )
        valid = np.isfinite(values) & ~covered
        mean = np.full(len(index), np.nan)
        flags |= _rim_flags(valid, radius)
        changed = [(np.zeros(0, dtype=int), np.zeros(0), np.zeros(0))]
        for k, places in enumerate(inside):
            if not valid[k].any():
                flags[k] |= BITS['no_background']
                continue
            under = prediction[k][places]
            measured = np.isfinite(values[k][places])
            mean[k] = under[measured].mean() if measured.any() else under.mean()
            drawn = None if plan.mask_names[index[k]] == 'region' else radius[k]
            rows, columns, weight = self._weights(*places, size, np.isfinite(values[k]), drawn)
            x0, y0 = window_corner(x[k], y[k], size)
            row, column = rows + y0, columns + x0
            kept = (row >= 0) & (row < image.shape[0]) & (column >= 0) & (column < image.shape[1])
            changed.append((
                (row * image.shape[1] + column)[kept],
                weight[kept],
                prediction[k][rows, columns][kept],
            ))
        pixels, weights, values_there = map(np.concatenate, zip(*changed, strict=True))
        # Only the part of the window that contains the ring.
        around = min(reach + RING_WIDTH, size // 2)
        near = slice(size // 2 - around, size // 2 + around + 1)
        scatter = ring_scatter(values[:, near, near], valid[:, near, near], radius)
        return Part(index, scatter, mean, flags, pixels, weights, values_there, krigings)

    def _within_memory(self, model, cutouts, **options):
        """Predict cutouts, in halves if the device runs out of memory."""
        import torch

        n = len(cutouts[0])
        try:
            return predict_windows(model, *cutouts, orientations=self.orientations, **options)
        except torch.OutOfMemoryError:
            if n == 1:
                raise
        # Outside the except block, because the exception keeps the tensors in memory.
        halves = slice(n // 2), slice(n // 2, n)
        found = [
            self._within_memory(model, tuple(each[half] for each in cutouts), **options)
            for half in halves
        ]
        return np.concatenate([prediction for prediction, _ in found]), found[0][1] + found[1][1]

    def _weights(self, rows, columns, size, measured, radius):
        """Return the pixels of the window to change, and the weight of the prediction in each."""
        if not self.blend:
            return rows, columns, np.ones(len(rows))
        # The published blending: the disc around the central pixel, not around the source, grown
        # by a 5 x 5 minimum filter, blurred 5 x 5 with a width of 5 pixels.
        keep = np.ones((size, size))
        if radius is None:
            keep[rows, columns] = 0
        else:
            steps = np.arange(size) - size // 2
            keep[steps[:, None] ** 2 + steps**2 <= radius**2] = 0
        keep = ndimage.minimum_filter(keep, 5, mode='nearest')
        keep = ndimage.gaussian_filter(keep, _BLUR_WIDTH, radius=2, mode='nearest')
        # Pixels that were not measured take the prediction alone.
        keep[~measured & (keep < 1)] = 0
        rows, columns = np.nonzero(keep < 1 - 1e-12)
        return rows, columns, 1 - keep[rows, columns]


@lru_cache(maxsize=4)
def _load(path, sha256, device, dtype):
    """Load the model of a weights file; the hash in the cache key detects a changed file."""
    from csr_astro.nn.weights import load_model

    del sha256
    model = load_model(path, device, dtype)
    return model.folded() if device.type == 'cpu' else model


def predict(
    model: Inpainter,
    values: np.ndarray,
    hole: np.ndarray,
    central: np.ndarray,
    radius: np.ndarray,
    *,
    orientations: int = ORIENTATIONS,
    reach: int | None = None,
    wings_known: bool = False,
) -> np.ndarray:
    """Predict the background of a stack of cutouts.

    Parameters
    ----------
    model : `~csr_astro.nn.inpainter.Inpainter`
        The network.
    values : (N, S, S) array of float64
        Cutouts as from `~csr_astro.cutouts.extract`; S is a multiple of 32 plus 1.
    hole : (N, S, S) array of bool
        True for the pixels of all masks.
    central : (N, S, S) array of bool
        True for the pixels of the central source's mask.
    radius : (N,) array of float
        Radius of the central mask in pixels.
    orientations : {1, 2, 4, 8}, optional
        Number of flips and rotations to average over. Each has the source at the
        same pixel of its window, so that the average over all eight does not change
        when the map is flipped or rotated.
    reach : int, optional
        Largest distance of a predicted pixel from the central one along each axis,
        less than half the window; by default the whole window. A small reach is faster.
    wings_known : bool, optional
        Whether the wings of the sources were subtracted from the cutouts.

    Returns
    -------
    prediction : (N, S, S) `~numpy.ndarray` of float64
        NaN beyond ``reach``. Use only the pixels of the central mask.
    """
    return predict_windows(
        model, values, hole, central, radius,
        orientations=orientations, reach=reach, wings_known=wings_known,
    )[0]  # fmt: skip


def predict_windows(
    model: Inpainter,
    values: np.ndarray,
    hole: np.ndarray,
    central: np.ndarray,
    radius: np.ndarray,
    *,
    orientations: int = ORIENTATIONS,
    reach: int | None = None,
    wings_known: bool = False,
) -> tuple[np.ndarray, list[NormalizedKriging | None]]:
    """Predict the background of a stack of cutouts, and keep the kriging of each.

    Parameters
    ----------
    model, values, hole, central, radius, orientations, reach, wings_known
        As in `predict`.

    Returns
    -------
    prediction : (N, S, S) `~numpy.ndarray` of float64
        As from `predict`.
    krigings : list of `~csr_astro.error_window.NormalizedKriging` or None
        Kriging of each cutout; None without one, and for a single orientation, which sees a
        smaller cutout.
    """
    import torch

    from csr_astro.nn.unet import central_pixels

    device = next(model.parameters()).device
    measured = np.isfinite(values)
    image = torch.from_numpy(np.where(measured, values, 0.0))[:, None]
    finite = torch.from_numpy(measured.astype(float))[:, None]
    valid = torch.from_numpy((measured & ~hole).astype(float))[:, None]
    central = torch.from_numpy(np.array(central, dtype=np.float32))[:, None]
    radius = torch.from_numpy(np.asarray(radius, dtype=float))
    size = values.shape[-1] - 1
    reach = size // 2 - 1 if reach is None else reach
    with torch.inference_mode():
        if orientations == 1:
            # A single orientation uses one even-sized window, also for the normalisation.
            image, valid, finite, central = (
                t[..., :size, :size] for t in (image, valid, finite, central)
            )
        normalized, hints, location, scale, krigings = model.prepare(
            image, valid, finite, central, radius, wings_known=wings_known
        )
        share = model.network_share(hints, len(values)).cpu()
        asked = share > 0
        # Kriging is the whole prediction of the others.
        found = central_pixels((hints or (normalized,))[0], reach).cpu().double()
        if asked.any():
            inputs = [t[asked] for t in (normalized, valid, *hints)]
            total = 0
            for turns, flip in _ORIENTATIONS[orientations]:
                seen, seen_valid, *seen_hints = (
                    _orient(t, turns, flip)[..., :size, :size].to(device) for t in inputs
                )
                output = model.predict_normalized(seen, seen_valid, seen_hints, reach=reach)
                total = total + _reorient(output.cpu().double(), turns, flip)
            part = share[asked].double().reshape(-1, 1, 1, 1)
            found[asked] = part * (total / orientations) + (1 - part) * found[asked]
    prediction = np.full(values.shape, np.nan)
    near = slice(size // 2 - reach, size // 2 + reach + 1)
    prediction[:, near, near] = (location + scale * found)[:, 0].numpy()
    if orientations == 1:
        # Errors take the whole window.
        return prediction, [None] * len(values)
    units = zip(krigings, location.flatten().tolist(), scale.flatten().tolist(), strict=True)
    return prediction, [
        None if kriging is None else NormalizedKriging(kriging, middle, width or 1.0)
        for kriging, middle, width in units
    ]


# (quarter turns, flipped): the symmetry group of the square and its subgroups.
_ALL = [(turns, flip) for turns in (0, 2, 1, 3) for flip in (False, True)]
_ORIENTATIONS = {
    1: _ALL[:1],
    2: [(0, False), (2, False)],
    4: [(turns, False) for turns in range(4)],
    8: _ALL,
}


def _orient(tensor, turns, flip):
    tensor = tensor.rot90(turns, (-2, -1))
    return tensor.flip(-1) if flip else tensor


def _reorient(tensor, turns, flip):
    tensor = tensor.flip(-1) if flip else tensor
    return tensor.rot90(-turns, (-2, -1))


def combine_parts(plan: Plan, parts: Iterable[Part]) -> Prediction:
    """Combine the predictions of all batches.

    Overlapping masks with weights w_i give one value per pixel: the fraction Π(1−w_i)
    of the map is kept, and the rest is the mean of the predictions, weighted by w_i.

    Parameters
    ----------
    plan : `~csr_astro.plan.Plan`
        The plan.
    parts : iterable of `Part`
        Parts in the order of the batches; another order changes the last bits.

    Returns
    -------
    prediction : `Prediction`
    """
    n = len(plan.sources)
    flags = np.zeros(n, dtype=int)
    krigings: list[NormalizedKriging | None] = [None] * n
    room = _KEPT_BYTES
    scatter, mean = np.full((2, n), np.nan)
    changed = [(np.zeros(0, dtype=int), np.zeros(0), np.zeros(0))]
    for part in parts:
        scatter[part.index], mean[part.index] = part.scatter, part.mean
        flags[part.index] = part.flags
        for i, each in zip(part.index, part.krigings, strict=True):
            krigings[i] = each
            if each is not None:
                room -= each.kriging.nbytes
                if room < 0:
                    each.kriging.forget()
        changed.append((part.pixels, part.weights, part.values))
    if plan.first is not None:
        scatter, mean, flags = (each[plan.first] for each in (scatter, mean, flags))
    flat, weight, value = map(np.concatenate, zip(*changed, strict=True))
    if not len(flat):
        return Prediction(flat, value, value, scatter, mean, flags, krigings)
    pixels, inverse = np.unique(flat, return_inverse=True)
    inverse = inverse.reshape(-1)
    total = np.bincount(inverse, weight)
    # Relative to one value, because a large level would cost precision.
    level = value[0]
    predicted = level + np.bincount(inverse, weight * (value - level)) / total
    left = np.ones(len(pixels))
    np.multiply.at(left, inverse, 1 - weight)
    original = np.asarray(plan.image.data).reshape(-1)[pixels].astype(float)
    # Pixels that are fully replaced may be infinite.
    original[left == 0] = 0
    values = left * original + (1 - left) * predicted
    return Prediction(pixels, values, 1 - left, scatter, mean, flags, krigings)


def _rim_flags(valid, radius):
    """Flag the sources that have few valid pixels next to their mask."""
    size = valid.shape[-1]
    steps = np.arange(size) - size // 2
    distance = np.hypot(steps[:, None], steps[None, :])[None]
    radius = radius[:, None, None]
    rim = (distance > radius) & (distance <= radius + _RIM)
    fraction = (rim & valid).sum(axis=(1, 2)) / rim.sum(axis=(1, 2))
    return np.where(fraction < 0.5, BITS['few_valid'], 0)
