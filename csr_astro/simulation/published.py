"""Cutouts in the folders of the published tool.

The tool of the paper's authors trains on ``train/N.npy``, ``train_target/N.npy`` and
``train_mask/N.npy``, with N from 0 up, and on ``valid``, ``valid_target`` and ``valid_mask``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from csr_astro.typing import PathLike

__all__ = ['PublishedCutouts', 'read_published']


# Names of the splits in both packages.
_FOLDERS = {'train': 'train', 'validation': 'valid'}
# Masks of 21, 11 and 8 pixels and those by SNR are stacked; the last ones are the paper's.
_SNR_MASK = 3


class PublishedCutouts:
    """Cutouts of a split in the folders of the published tool.

    A sequence like `~csr_astro.simulation.dataset.CutoutDataset`, without a table.

    Parameters
    ----------
    folder : path-like
        Folder that holds the folders of the splits (``data_dir`` of the tool's configuration).
    split : {'train', 'validation'}, optional
        The split to read.

    Attributes
    ----------
    size : int
        Pixels per side of a cutout.

    Raises
    ------
    ValueError
        If files are missing, or a file has another shape than the first one.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from csr_astro.simulation.published import PublishedCutouts
    >>> with TemporaryDirectory() as folder:
    ...     for name, shape in (('', (96, 96)), ('_target', (96, 96)), ('_mask', (4, 96, 96))):
    ...         Path(folder, f'train{name}').mkdir()
    ...         np.save(Path(folder, f'train{name}', '0.npy'), np.ones(shape))
    ...     cutouts = PublishedCutouts(folder)
    ...     print(len(cutouts), cutouts[0][1].shape)
    1 (1, 96, 96)
    """

    def __init__(self, folder: PathLike, split: str = 'train') -> None:
        folder = Path(folder).absolute()
        if split not in _FOLDERS:
            raise ValueError(f'split must be one of {list(_FOLDERS)}, got {split!r}.')
        name = _FOLDERS[split]
        self.folders = [folder / f'{name}{kind}' for kind in ('', '_mask', '_target')]
        names = {f'{number}.npy' for number in range(len(list(self.folders[0].glob('*.npy'))))}
        for each in self.folders:
            if missing := names - {path.name for path in each.glob('*.npy')}:
                raise ValueError(f'{str(each)!r} lacks {min(missing)}.')
        self._n = len(names)
        self.size = self._read(0)[0].shape[-1] if names else 0

    def _read(self, i):
        image, mask, target = (np.load(folder / f'{i}.npy') for folder in self.folders)
        if mask.ndim == 3:
            mask = mask[min(_SNR_MASK, len(mask) - 1)]
        if not image.shape == mask.shape == target.shape == image.shape[:1] * 2:
            raise ValueError(
                f'cutout {i} of {str(self.folders[0])!r} must be square, with a mask and a target '
                f'of its shape, got {image.shape}, {mask.shape} and {target.shape}.'
            )
        return image, mask, target

    def __repr__(self) -> str:
        return f'<PublishedCutouts: {len(self)} cutouts of {self.size} x {self.size} pixels>'

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image, mask, target = self.stack(i)[:, np.newaxis]
        return image, mask, target

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
        if not -len(self) <= i < len(self):
            raise IndexError(f'there are {len(self)} cutouts, no number {i}.')
        stack = np.stack(self._read(i % len(self))).astype(np.float32)
        if stack.shape[-1] != self.size:
            raise ValueError(
                f'cutout {i} of {str(self.folders[0])!r} has {stack.shape[-1]} pixels per side, '
                f'the first one {self.size}.'
            )
        return stack

    def source(self, i: int) -> tuple[float, float, float]:
        """Place of the central source and radius of its mask, told by the mask.

        Parameters
        ----------
        i : int
            Number of the cutout.

        Returns
        -------
        dx, dy, radius : float
            Offset from the middle pixel, ``size // 2``, which is 0, and distance to the nearest
            pixel of background, in pixels.
        """
        background = self.stack(i)[1] > 0
        y, x = np.indices(background.shape) - self.size // 2
        distance = np.hypot(x, y)
        # The disc ends before the nearest pixel of background.
        nearest = distance[background].min() if background.any() else self.size / 2
        return 0.0, 0.0, max(float(nearest) - 0.5, 0.5)


def read_published(folder: PathLike) -> dict[str, PublishedCutouts]:
    """All splits of a folder of the published tool.

    Parameters
    ----------
    folder : path-like
        As in `PublishedCutouts`.

    Returns
    -------
    splits : dict of str to `PublishedCutouts`
        Empty if the folder holds none.

    Examples
    --------
    >>> from csr_astro.simulation.published import read_published
    >>> read_published('numpy_examples')
    {}
    """
    return {
        split: PublishedCutouts(folder, split)
        for split, name in _FOLDERS.items()
        if (Path(folder) / f'{name}_mask').is_dir()
    }
