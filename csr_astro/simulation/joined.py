"""Several datasets of cutouts as one."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from csr_astro.simulation.dataset import CutoutDataset
    from csr_astro.simulation.published import PublishedCutouts

__all__ = ['JoinedDatasets']


class JoinedDatasets:
    """Several datasets, one after the other, as one.

    Parameters
    ----------
    datasets : sequence of `~csr_astro.simulation.dataset.CutoutDataset` or \
            `~csr_astro.simulation.published.PublishedCutouts`
        Datasets with cutouts of the same size.

    Attributes
    ----------
    size : int
        Pixels per side of a cutout.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from csr_astro.simulation.joined import JoinedDatasets
    >>> from csr_astro.training.simulated import simulate_cutouts
    >>> bands = 'pacs-scanmap-blue', 'pacs-scanmap-red'
    >>> with TemporaryDirectory() as folder:
    ...     datasets = [simulate_cutouts(f'{folder}/{band}', {}, [band], 1) for band in bands]
    ...     joined = JoinedDatasets(datasets)
    ...     print(len(joined) == sum(map(len, datasets)), joined.stack(0).shape)
    True (3, 100, 100)
    """

    def __init__(self, datasets: Sequence[CutoutDataset | PublishedCutouts]) -> None:
        sizes = {each.size for each in datasets}
        if len(sizes) > 1:
            raise ValueError(f'cutouts of several datasets must have one size, got {sizes}.')
        self.datasets = list(datasets)
        self.size = sizes.pop()
        self._ends = list(accumulate(map(len, self.datasets)))

    def __repr__(self) -> str:
        return f'<JoinedDatasets: {len(self)} cutouts of {self.size} x {self.size} pixels>'

    def __len__(self) -> int:
        return self._ends[-1]

    def _find(self, i):
        number = next(k for k, end in enumerate(self._ends) if i < end)
        return self.datasets[number], i - (self._ends[number - 1] if number else 0)

    def stack(self, i: int) -> np.ndarray:
        """Channels of a cutout: image, mask and target.

        Parameters
        ----------
        i : int
            Number of the cutout.

        Returns
        -------
        stack : (3, size, size) `~numpy.ndarray` of float32
        """
        dataset, place = self._find(i)
        return dataset.stack(place)

    def source(self, i: int) -> tuple[float, float, float]:
        """Place of the central source and radius of its mask.

        Parameters
        ----------
        i : int
            Number of the cutout.

        Returns
        -------
        dx, dy, radius : float
            As from `~csr_astro.simulation.dataset.CutoutDataset.source`.
        """
        dataset, place = self._find(i)
        return dataset.source(place)
