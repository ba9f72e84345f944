"""How do masks and a network become new pixels of the map?"""

import numpy as np
from scipy import ndimage

from csr_astro.cutouts import extract, extract_mask, nearest_pixel, predict, window_size
from csr_astro.flags import BITS
from csr_astro.scatter import ring_scatter

__all__ = ['Predictor']

# A prediction rests on the pixels just around the mask: this many rows of them.
_RIM = 5
_SMALLEST = int(window_size(0))
_BATCH_SIZES = {'cpu': 16, 'cuda': 128, 'mps': 32}


class Predictor:
    """Runs the network behind masks and puts its answers together."""

    def __init__(self, model, blend, orientations, batch_size, progress):
        self.model = model
        self.blend = blend
        self.orientations = orientations
        device = next(model.parameters()).device.type
        self.batch_size = batch_size or _BATCH_SIZES.get(device, 16)
        self.progress = progress

    def _batches(self, masks, sources):
        """Indices of sources whose windows have one size, in an order that is not the user's.

        Sorted by position, so that the result does not depend on the order of
        the sources to the last bit.
        """
        index = np.array([i for i, m in enumerate(masks) if m is not None], dtype=int)
        if not len(index):
            return
        radii = np.array([masks[i].radius for i in index])
        sizes = window_size(radii)
        order = np.lexsort((radii, sources.x[index], sources.y[index], sizes))
        index, sizes = index[order], sizes[order]
        for size in np.unique(sizes):
            same = index[sizes == size]
            # Larger windows, fewer of them: a batch always takes about the same memory.
            count = max(1, self.batch_size * _SMALLEST**2 // int(size) ** 2)
            for start in range(0, len(same), count):
                yield same[start : start + count], int(size) + 1

    def _predictions(self, image, sources, masks, hole):
        """Yield (index, values, valid, prediction), a batch at a time."""
        from tqdm import tqdm

        total = sum(m is not None for m in masks)
        with tqdm(total=total, unit='source', delay=2, disable=not self.progress) as bar:
            for index, size in self._batches(masks, sources):
                x, y = sources.x[index], sources.y[index]
                values = extract(image, x, y, size)
                covered = extract_mask(hole, x, y, size)
                central = np.zeros_like(covered)
                for k, i in enumerate(index):
                    central[(k, *_inside(masks[i], sources, i, size))] = True
                radius = np.array([masks[i].radius for i in index])
                prediction = predict(
                    self.model, values, covered, central, radius, orientations=self.orientations
                )
                yield index, values, np.isfinite(values) & ~covered, prediction
                bar.update(len(index))

    def __call__(self, image, sources, masks, flags):
        """Predict behind all masks.

        Returns
        -------
        pixels, values, shares : (P,) `~numpy.ndarray`
            Flat indices of the pixels to change, their background, and how much of it
            is predicted.
        scatter, mean : (N,) `~numpy.ndarray`
            Scatter of the ring around each mask; mean prediction under it.
        """
        claims = _claims(masks, image.shape)
        hole = claims > 0
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

        n = len(masks)
        scatter, mean = np.full(n, np.nan), np.full(n, np.nan)
        parts = []
        for index, values, valid, prediction in self._predictions(image, sources, masks, hole):
            radius = np.array([masks[i].radius for i in index])
            scatter[index] = ring_scatter(values, valid, radius)
            _flag_rims(flags, index, valid, radius)
            for k, i in enumerate(index):
                if not valid[k].any():
                    flags[i] |= BITS['no_background']
                    continue
                rows, columns = _inside(masks[i], sources, i, values.shape[-1])
                mean[i] = prediction[k][rows, columns].mean()
                rows, columns, weight = self._weights(
                    rows, columns, values.shape[-1], np.isfinite(values[k])
                )
                y = rows + nearest_pixel(sources.y[i]) - values.shape[-1] // 2
                x = columns + nearest_pixel(sources.x[i]) - values.shape[-1] // 2
                kept = (y >= 0) & (y < image.shape[0]) & (x >= 0) & (x < image.shape[1])
                parts.append((
                    (y * image.shape[1] + x)[kept],
                    weight[kept],
                    prediction[k][rows, columns][kept],
                ))
        return *self._combine(image, parts), scatter, mean

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

    @staticmethod
    def _combine(image, parts):
        """One value per pixel where several masks overlap, in no particular order.

        The weights w_i of the masks leave Π(1−w_i) of the map; the rest is the
        mean of the predictions, weighted by w_i.
        """
        if not parts:
            return np.zeros(0, dtype=int), np.zeros(0), np.zeros(0)
        flat, weight, value = (np.concatenate(column) for column in zip(*parts, strict=True))
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
        return pixels, left * original + (1 - left) * predicted, 1 - left


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


def _flag_rims(flags, index, valid, radius):
    """Flag the sources that have little valid background next to their mask."""
    size = valid.shape[-1]
    steps = np.arange(size) - size // 2
    distance = np.hypot(steps[:, None], steps[None, :])[None]
    radius = radius[:, None, None]
    rim = (distance > radius) & (distance <= radius + _RIM)
    fraction = (rim & valid).sum(axis=(1, 2)) / rim.sum(axis=(1, 2))
    flags[index[fraction < 0.5]] |= BITS['few_valid']
