"""How do masks and a network become new pixels of the map?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from csr_astro.cutouts import (
    extract,
    extract_mask,
    nearest_pixel,
    predict,
    prediction_reach,
    window_size,
)
from csr_astro.flags import BITS
from csr_astro.scatter import RING_WIDTH, ring_scatter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from csr_astro.images import Image
    from csr_astro.masking import SourceMask
    from csr_astro.nn.inpainter import Inpainter
    from csr_astro.sources import Sources

__all__ = ['BATCH_SIZES', 'Part', 'Predictor', 'combine_parts', 'flag_masks', 'plan_batches']

# A prediction rests on the pixels just around the mask: this many rows of them.
_RIM = 5
_SMALLEST = int(window_size(0))
# How far the published blending reaches beyond a mask.
_BLUR = 4
# By the type of device.
BATCH_SIZES = {'cpu': 32, 'cuda': 128, 'mps': 32}


@dataclass(frozen=True, eq=False)
class Part:
    """What the network says of one batch of sources.

    Attributes
    ----------
    index : (K,) `~numpy.ndarray` of int
        Numbers of the sources.
    scatter, mean : (K,) `~numpy.ndarray` of float
        Scatter of the ring around each mask; mean prediction under it.
    flags : (K,) `~numpy.ndarray` of int
        What was found out about each source.
    pixels : (P,) `~numpy.ndarray` of int
        Flat indices of the pixels to change; one of several masks appears several times.
    weights, values : (P,) `~numpy.ndarray` of float
        Weight of the prediction in each, and the prediction.
    """

    index: np.ndarray
    scatter: np.ndarray
    mean: np.ndarray
    flags: np.ndarray
    pixels: np.ndarray
    weights: np.ndarray
    values: np.ndarray


def plan_batches(
    sources: Sources, masks: list[SourceMask | None], batch_size: int
) -> list[tuple[np.ndarray, int]]:
    """Sources that go through the network together.

    Sorted by position, so that the result does not depend on the order of the
    sources to the last bit.

    Parameters
    ----------
    sources : `~csr_astro.sources.Sources`
        The sources.
    masks : list of `~csr_astro.masking.SourceMask` or None
        Their masks.
    batch_size : int
        How many sources with the smallest window there are in a batch.

    Returns
    -------
    batches : list of (index, size)
        Numbers of sources whose windows have one size, and that size, in pixels;
        the prediction of all of them reaches equally far.
    """
    index = np.array([i for i, m in enumerate(masks) if m is not None], dtype=int)
    radii = np.array([masks[i].radius for i in index])
    sizes = window_size(radii)
    groups = np.column_stack([sizes, prediction_reach(radii)])
    order = np.lexsort((radii, sources.x[index], sources.y[index]))
    index, groups = index[order], groups[order]
    batches = []
    for group in np.unique(groups, axis=0):
        same = index[(groups == group).all(axis=1)]
        size = group[0]
        # Larger windows, fewer of them: a batch always takes about the same memory.
        count = max(1, batch_size * _SMALLEST**2 // int(size) ** 2)
        batches += [
            (same[start : start + count], int(size) + 1) for start in range(0, len(same), count)
        ]
    return batches


def flag_masks(image: Image, masks: list[SourceMask | None], flags: np.ndarray) -> None:
    """Flag the sources whose masks overlap, touch, or hold invalid pixels.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    masks : list of `~csr_astro.masking.SourceMask` or None
        Their masks.
    flags : (N,) array of int
        What is found out is added here.
    """
    claims = _claims(masks, image.shape)
    for i, source_mask in enumerate(masks):
        if source_mask is None:
            continue
        flags[i] |= BITS['edge'] * source_mask.clipped
        under = claims[source_mask.window][source_mask.pixels]
        if (under > 1).any():
            flags[i] |= BITS['overlap']
        elif _touches(source_mask, claims):
            flags[i] |= BITS['touching']
        valid = image.valid(source_mask.window)[source_mask.pixels]
        flags[i] |= BITS['invalid_pixels'] * (not valid.all())


class Predictor:
    """Runs the network behind masks, a batch at a time.

    Parameters
    ----------
    model : `~csr_astro.nn.inpainter.Inpainter`
        The network.
    blend : bool
        Whether prediction and map are blended at the rim.
    orientations : {1, 2, 4, 8}
        Flips and rotations to average over.
    progress : bool
        Whether to show a progress bar.
    """

    def __init__(
        self,
        model: Inpainter,
        blend: bool,  # noqa: FBT001
        orientations: int,
        progress: bool,  # noqa: FBT001
    ) -> None:
        self.model = model
        self.blend = blend
        self.orientations = orientations
        self.progress = progress

    def parts(
        self,
        image: Image,
        sources: Sources,
        masks: list[SourceMask | None],
        batches: list[tuple[np.ndarray, int]],
    ) -> Iterator[Part]:
        """Predict behind the masks of some batches.

        Parameters
        ----------
        image : `~csr_astro.images.Image`
            The map.
        sources : `~csr_astro.sources.Sources`
            All sources.
        masks : list of `~csr_astro.masking.SourceMask` or None
            Their masks; those that reach into no window of these batches may be None.
        batches : list of (index, size)
            From `plan_batches`.

        Yields
        ------
        part : `Part`
            One for each batch.
        """
        from tqdm import tqdm

        hole = np.zeros(image.shape, dtype=bool)
        for source_mask in masks:
            if source_mask is not None:
                hole[source_mask.window] |= source_mask.pixels
        total = sum(len(index) for index, _ in batches)
        with tqdm(total=total, unit='source', delay=2, disable=not self.progress) as bar:
            for index, size in batches:
                yield self._part(image, sources, masks, hole, index, size)
                bar.update(len(index))

    def _part(self, image, sources, masks, hole, index, size):
        x, y = sources.x[index], sources.y[index]
        values = extract(image, x, y, size)
        covered = extract_mask(hole, x, y, size)
        central = np.zeros_like(covered)
        for k, i in enumerate(index):
            central[(k, *_inside(masks[i], sources, i, size))] = True
        radius = np.array([masks[i].radius for i in index])
        prediction = self._predict(values, covered, central, radius)
        valid = np.isfinite(values) & ~covered
        mean = np.full(len(index), np.nan)
        flags = _rim_flags(valid, radius)
        changed = [(np.zeros(0, dtype=int), np.zeros(0), np.zeros(0))]
        for k, i in enumerate(index):
            if not valid[k].any():
                flags[k] |= BITS['no_background']
                continue
            rows, columns = _inside(masks[i], sources, i, size)
            mean[k] = prediction[k][rows, columns].mean()
            rows, columns, weight = self._weights(rows, columns, size, np.isfinite(values[k]))
            row = rows + nearest_pixel(sources.y[i]) - size // 2
            column = columns + nearest_pixel(sources.x[i]) - size // 2
            kept = (row >= 0) & (row < image.shape[0]) & (column >= 0) & (column < image.shape[1])
            changed.append((
                (row * image.shape[1] + column)[kept],
                weight[kept],
                prediction[k][rows, columns][kept],
            ))
        pixels, weights, values_there = map(np.concatenate, zip(*changed, strict=True))
        # Of the window, the part with the ring; whoever is in the batch, as in `_predict`.
        reach = min(int(prediction_reach(radius.max())) + RING_WIDTH, size // 2)
        near = slice(size // 2 - reach, size // 2 + reach + 1)
        scatter = ring_scatter(values[:, near, near], valid[:, near, near], radius)
        return Part(index, scatter, mean, flags, pixels, weights, values_there)

    def _predict(self, values, covered, central, radius):
        """Predict as many cutouts at once as the device has memory for."""
        import torch

        n = len(values)
        # The same for all of a batch, whoever is in it: see `plan_batches`.
        reach = int(prediction_reach(radius.max())) + _BLUR * self.blend
        cutouts = values, covered, central, radius
        try:
            return predict(self.model, *cutouts, orientations=self.orientations, reach=reach)
        except torch.OutOfMemoryError:
            if n == 1:
                raise
        # Not while the error is handled: it holds on to what filled the memory.
        halves = slice(n // 2), slice(n // 2, n)
        return np.concatenate([self._predict(*(each[half] for each in cutouts)) for half in halves])

    def _weights(self, rows, columns, size, measured):
        """Pixels of the window to change, and the weight of the prediction in each."""
        if not self.blend:
            return rows, columns, np.ones(len(rows))
        # The published blending: the disc grown by a 5 x 5 minimum filter, blurred 5 x 5.
        keep = np.ones((size, size))
        keep[rows, columns] = 0
        keep = ndimage.minimum_filter(keep, 5, mode='nearest')
        keep = ndimage.gaussian_filter(keep, 1.1, radius=2, mode='nearest')
        # Nothing to mix with where the map was not measured.
        keep[~measured & (keep < 1)] = 0
        rows, columns = np.nonzero(keep < 1 - 1e-12)
        return rows, columns, 1 - keep[rows, columns]


def combine_parts(
    image: Image, parts: Iterable[Part], flags: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Put the answers for all batches together.

    One value per pixel where several masks overlap: the weights w_i of the masks
    leave Π(1−w_i) of the map; the rest is the mean of the predictions, weighted
    by w_i.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    parts : iterable of `Part`
        In the order of the batches: another gives other last bits.
    flags : (N,) array of int
        Those of the parts are added here.

    Returns
    -------
    pixels, values, shares : (P,) `~numpy.ndarray`
        Flat indices of the pixels to change, their background, and how much of it
        is predicted.
    scatter, mean : (N,) `~numpy.ndarray`
        Scatter of the ring around each mask; mean prediction under it.
    """
    scatter, mean = np.full((2, len(flags)), np.nan)
    changed = [(np.zeros(0, dtype=int), np.zeros(0), np.zeros(0))]
    for part in parts:
        scatter[part.index], mean[part.index] = part.scatter, part.mean
        flags[part.index] |= part.flags
        changed.append((part.pixels, part.weights, part.values))
    flat, weight, value = map(np.concatenate, zip(*changed, strict=True))
    if not len(flat):
        return flat, value, value, scatter, mean
    pixels, inverse = np.unique(flat, return_inverse=True)
    inverse = inverse.reshape(-1)
    total = np.bincount(inverse, weight)
    # About a level of the map, so that large numbers do not cost digits.
    level = value[0]
    predicted = level + np.bincount(inverse, weight * (value - level)) / total
    left = np.ones(len(pixels))
    np.multiply.at(left, inverse, 1 - weight)
    original = np.asarray(image.data).reshape(-1)[pixels].astype(float)
    # What stands under a mask may be infinite, and does not matter.
    original[left == 0] = 0
    return pixels, left * original + (1 - left) * predicted, 1 - left, scatter, mean


def _claims(masks, shape):
    """How many masks claim each pixel of the map: 0, 1, or 2 for all that are more."""
    claims = np.zeros(shape, dtype=np.uint8)
    for source_mask in masks:
        if source_mask is not None:
            window = claims[source_mask.window]
            # Only whether there are several matters; a sum of very many would overflow.
            window += source_mask.pixels & (window < 2)
    return claims


def _inside(source_mask, sources, i, size):
    """Rows and columns of a mask's pixels in the window of source ``i``."""
    rows, columns = source_mask.on_map()
    half = size // 2
    return (
        rows - nearest_pixel(sources.y[i]) + half,
        columns - nearest_pixel(sources.x[i]) + half,
    )


def _touches(source_mask, claims):
    """Whether a pixel of another mask is next to one of this, which overlaps none."""
    y0, x0 = max(source_mask.y0 - 1, 0), max(source_mask.x0 - 1, 0)
    height, width = source_mask.pixels.shape
    around = claims[y0 : source_mask.y0 + height + 1, x0 : source_mask.x0 + width + 1]
    own = np.zeros(around.shape, dtype=bool)
    dy, dx = source_mask.y0 - y0, source_mask.x0 - x0
    own[dy : dy + height, dx : dx + width] = source_mask.pixels
    near = ndimage.binary_dilation(own, np.ones((3, 3)))
    return bool((around[near] > own[near]).any())


def _rim_flags(valid, radius):
    """Flags of the sources that have little valid background next to their mask."""
    size = valid.shape[-1]
    steps = np.arange(size) - size // 2
    distance = np.hypot(steps[:, None], steps[None, :])[None]
    radius = radius[:, None, None]
    rim = (distance > radius) & (distance <= radius + _RIM)
    fraction = (rim & valid).sum(axis=(1, 2)) / rim.sum(axis=(1, 2))
    return np.where(fraction < 0.5, BITS['few_valid'], 0)
