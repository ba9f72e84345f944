"""Cutouts of datasets on disk that the network learns from."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from csr_astro.simulation.dataset import read_dataset
from csr_astro.simulation.joined import JoinedDatasets
from csr_astro.simulation.paper import paper_facts
from csr_astro.training.data import LARGEST, SURROUNDINGS

if TYPE_CHECKING:
    from csr_astro.simulation.dataset import CutoutDataset
    from csr_astro.simulation.published import PublishedCutouts
    from csr_astro.typing import PathLike

__all__ = ['DatasetSampler', 'dataset_samplers']


class DatasetSampler:
    """Batches of the cutouts of a dataset.

    Parameters
    ----------
    dataset : `~csr_astro.simulation.dataset.CutoutDataset`, \
            `~csr_astro.simulation.published.PublishedCutouts` or \
            `~csr_astro.simulation.joined.JoinedDatasets`
        A split of a dataset, as ``csr-astro simulate --dataset`` writes it or the published tool
        reads it.
    size : int, optional
        Pixels per side of a cutout, at most those of the dataset; by default the paper's 96, or
        those of the dataset if it has fewer.
    augment : bool, optional
        Whether cutouts are shifted, rotated by quarter turns and flipped at random.
    seed : int, optional
        Decides the order and the augmentation, together with the number of the batch.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from csr_astro.simulation.dataset import CutoutDataset, write_dataset
    >>> from csr_astro.simulation.simulate import simulate_map
    >>> from csr_astro.training.stored import DatasetSampler
    >>> noise = np.random.default_rng(0).normal(size=(200, 200))
    >>> simulation = simulate_map(noise, 300, instrument='generic', number=3)
    >>> with TemporaryDirectory() as folder:
    ...     counts = write_dataset(folder, [simulation])
    ...     sampler = DatasetSampler(CutoutDataset(folder))
    ...     image, target, valid, hole, central, radius = sampler.batch(0, 2)
    >>> print(image.shape, radius.shape)
    (2, 1, 96, 96) (2,)
    """

    def __init__(
        self,
        dataset: CutoutDataset | PublishedCutouts | JoinedDatasets,
        *,
        size: int | None = None,
        augment: bool = True,
        seed: int = 0,
    ) -> None:
        if not len(dataset):
            raise ValueError('the dataset has no cutouts.')
        self.dataset = dataset
        self.size = min(dataset.size, paper_facts()['cutout_size']) if size is None else int(size)
        if not 0 < self.size <= dataset.size:
            raise ValueError(f'size must be between 1 and {dataset.size}, got {size}.')
        self.augment = augment
        self.seed = seed
        self._remember_orders()

    def __repr__(self) -> str:
        return (
            f'<DatasetSampler: {self.size} x {self.size} pixels, {len(self.dataset)} cutouts, '
            f'seed {self.seed}>'
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def _remember_orders(self):
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def __getstate__(self) -> dict:
        # A cache cannot be sent to another process.
        return {key: value for key, value in self.__dict__.items() if key != '_order'}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._remember_orders()

    def _shuffled(self, epoch):
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.dataset))

    def batch(
        self, number: int, batch_size: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Take one batch; every cutout is seen once before any is seen again.

        Parameters
        ----------
        number, batch_size
            As in `CutoutSampler.batch`.

        Returns
        -------
        image, target, valid, hole, central, radius
            As from `CutoutSampler.batch`; images are centred and scaled by the background around
            the central disc.
        """
        rng = np.random.default_rng([self.seed, 1, number])
        out = np.zeros((5, batch_size, 1, self.size, self.size), dtype=np.float32)
        radius = np.zeros(batch_size, dtype=np.float32)
        for i in range(batch_size):
            epoch, place = divmod(number * batch_size + i, len(self.dataset))
            chosen = self._order(epoch)[place]
            dx, dy, drawn = self.dataset.source(chosen)
            radius[i] = np.ceil(drawn)
            image, mask, target, distance = self._crop(chosen, rng, dx, dy)
            out[:, i, 0] = _scaled(image, mask, target, distance, radius[i])
        return (*out, radius)

    def _crop(self, chosen, rng, dx, dy):
        """Channels of a cutout of the wanted size, and distances of the pixels from its source."""
        stack = self.dataset.stack(chosen)
        room = stack.shape[-1] - self.size
        # Without a shift, the source's pixel is at size // 2.
        y0 = x0 = stack.shape[-1] // 2 - self.size // 2
        if self.augment:
            y0, x0 = rng.integers(0, room + 1, 2)
        stack = stack[:, y0 : y0 + self.size, x0 : x0 + self.size]
        yy, xx = np.indices(stack.shape[1:])
        center = self.dataset.size // 2
        distance = np.hypot(yy + y0 - center - dy, xx + x0 - center - dx)
        stack = np.concatenate([stack, distance[np.newaxis]])
        if self.augment:
            stack = np.rot90(stack, int(rng.integers(4)), axes=(1, 2))
            if rng.random() < 0.5:
                stack = stack[:, :, ::-1]
        return stack


def _scaled(image, mask, target, distance, radius):
    """Arrays of a batch: image, target, valid, hole and central disc."""
    finite = np.isfinite(image) & np.isfinite(target)
    valid = finite & (mask > 0)
    near = valid & (distance <= radius + SURROUNDINGS)
    around = image[near if near.sum() > 1 else valid]
    location, scatter = (np.median(around), around.std()) if around.size else (0.0, 1.0)
    scale = scatter if scatter > 0 else 1.0
    image, target = (np.where(finite, (each - location) / scale, 0) for each in (image, target))
    hole = finite & ~(mask > 0)
    return image, np.clip(target, -LARGEST, LARGEST), valid, hole, hole & (distance <= radius)


def dataset_samplers(
    *folders: PathLike, seed: int = 0
) -> tuple[DatasetSampler, DatasetSampler]:
    """Samplers for a training on a dataset, or on several together.

    Parameters
    ----------
    *folders : path-like
        As written by ``csr-astro simulate --dataset`` or
        `~csr_astro.simulation.dataset.write_dataset`, in either layout, or as the published tool
        reads them. The bands of an observing mode are trained on together.
    seed : int, optional
        Decides the order of the cutouts and their augmentation.

    Returns
    -------
    sampler, validation_sampler : `DatasetSampler`
        Samplers of the splits ``'train'``, with augmentation, and ``'validation'``, without.

    Raises
    ------
    ValueError
        If the datasets lack one of these splits, or their cutouts are too small.

    Examples
    --------
    >>> from csr_astro.training.stored import dataset_samplers
    >>> from csr_astro.training.loop import train
    >>> from csr_astro.training.recipe import read_recipe
    >>> samplers = dataset_samplers('cutouts')  # doctest: +SKIP
    >>> train(read_recipe('default'), *samplers, 'trained')  # doctest: +SKIP
    """
    splits = [read_dataset(folder) for folder in folders]
    named = ', '.join(repr(str(folder)) for folder in folders)
    joined = {}
    for split in ('train', 'validation'):
        found = [each[split] for each in splits if split in each]
        if not found:
            raise ValueError(
                f'the dataset {named} has no cutouts for {split}; simulate more fields.'
            )
        joined[split] = found[0] if len(found) == 1 else JoinedDatasets(found)
    size = paper_facts()['cutout_size']
    return (
        DatasetSampler(joined['train'], size=size, seed=seed),
        DatasetSampler(joined['validation'], size=size, augment=False, seed=seed),
    )
