"""Datasets of cutouts of simulated sources on disk, split by field.

Each split is one memory-mapped array, or the paper's layout of a file for each cutout, with a
table that describes the cutouts. `~csr_astro.training.data.CutoutSampler` draws cutouts without
files; a dataset gives everybody the same ones.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from astropy import units as u
from astropy.table import QTable, Table

from csr_astro.cutouts import extract, extract_mask, nearest_pixel
from csr_astro.masking import combined_mask, disc, measure_snr
from csr_astro.simulation.paper import paper_facts
from csr_astro.simulation.published import PublishedCutouts, read_published
from csr_astro.tables import versions
from csr_astro.utils.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from csr_astro.simulation.result import Simulation
    from csr_astro.typing import PathLike

__all__ = [
    'SPLITS',
    'CutoutDataset',
    'is_dataset',
    'read_dataset',
    'split_fields',
    'write_dataset',
]


SPLITS = ('train', 'validation', 'test')
LAYOUTS = ('array', 'paper')
# Channels of an array, and folders of the paper's layout.
CHANNELS = ('input', 'mask', 'target')
_DESCRIPTION = 'dataset.json'


def split_fields(
    fields: Sequence[str],
    *,
    fractions: dict[str, float] | None = None,
    categories: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, str]:
    """Divide fields into training, validation and test.

    Parameters
    ----------
    fields : sequence of str
        Names of the fields.
    fractions : dict of str to float, optional
        Fraction of the fields in each split; 0.7, 0.15, 0.15 by default.
    categories : sequence of str, optional
        Kind of each field. Every kind is divided on its own, and gives at least one field to
        each split as long as it has enough.
    seed : int, optional
        Decides which field goes where.

    Returns
    -------
    splits : dict of str to str
        Split of each field.

    Examples
    --------
    >>> from csr_astro.simulation.dataset import split_fields
    >>> splits = split_fields([f'field{i}' for i in range(20)])
    >>> [list(splits.values()).count(split) for split in ('train', 'validation', 'test')]
    [14, 3, 3]
    """
    fields = [str(name) for name in fields]
    if len(set(fields)) < len(fields):
        raise ValueError('fields must have different names.')
    fractions = paper_facts()['split'] if fractions is None else fractions
    if set(fractions) - set(SPLITS) or not all(value >= 0 for value in fractions.values()):
        raise ValueError(f'fractions must be positive numbers for {SPLITS}, got {fractions}.')
    weights = np.array([fractions.get(split, 0.0) for split in SPLITS])
    if not weights.sum() > 0:
        raise ValueError('fractions must not all be zero.')
    kinds = ['' for _ in fields] if categories is None else list(categories)
    if len(kinds) != len(fields):
        raise ValueError(f'there are {len(fields)} fields, but {len(kinds)} categories.')
    rng = np.random.default_rng(seed)
    splits = {}
    for kind in sorted(set(kinds)):
        members = [name for name, other in zip(fields, kinds, strict=True) if other == kind]
        for name, number in zip(
            rng.permutation(members), _assign(len(members), weights), strict=True
        ):
            splits[str(name)] = SPLITS[number]
    return {name: splits[name] for name in fields}


def _assign(n, weights):
    """Numbers of the splits of n fields: one field each, then those that lack most."""
    used = np.flatnonzero(weights > 0)
    counts = np.zeros(len(weights))
    chosen = []
    for _ in range(n):
        empty = [i for i in used if counts[i] == 0]
        missing = weights / weights.sum() * n - counts
        # The largest fraction is served first.
        best = max(empty or used, key=lambda i: (missing[i], weights[i]))
        counts[best] += 1
        chosen.append(best)
    return sorted(chosen)


class _ArrayWriter:
    """A ``.npy`` file that grows by stacks of cutouts; closing completes its header."""

    def __init__(self, path, shape):
        self.file = path.open('wb')
        self.shape = shape
        self.n = 0
        # The header leaves room for any number of cutouts.
        self._write_header()
        self.start = self.file.tell()

    def _write_header(self):
        entries = {'descr': '<f4', 'fortran_order': False, 'shape': (self.n, *self.shape)}
        np.lib.format.write_array_header_1_0(self.file, entries)

    def append(self, cutouts):
        self.file.write(np.ascontiguousarray(cutouts, dtype='<f4').tobytes())
        self.n += len(cutouts)

    def close(self):
        self.file.seek(0)
        self._write_header()
        if self.file.tell() != self.start:
            raise RuntimeError('the header of the array grew; this is a bug.')
        self.file.close()


class _FolderWriter:
    """The paper's layout: a ``.npy`` file for each cutout of input, mask and target."""

    def __init__(self, folder):
        self.folder = folder
        self.n = 0
        for channel in CHANNELS:
            (folder / channel).mkdir(parents=True, exist_ok=True)

    def append(self, cutouts):
        for number, cutout in enumerate(cutouts, self.n):
            for channel, values in zip(CHANNELS, cutout, strict=True):
                # The number is that of the row in the table.
                path = self.folder / channel / f'{number:06d}.npy'
                np.save(path, values.astype(np.float32))
        self.n += len(cutouts)

    def close(self):
        # The description, written last, says that all of the files are whole.
        if hasattr(os, 'sync'):
            os.sync()


def write_dataset(
    folder: PathLike,
    simulations: Iterable[Simulation],
    splits: dict[str, str] | str | None = None,
    *,
    size: int | None = None,
    layout: Literal['array', 'paper'] = 'array',
    overwrite: bool = False,
) -> dict[str, int]:
    """Write cutouts of simulated sources.

    Parameters
    ----------
    folder : path-like
        Made if missing.
    simulations : iterable of `~csr_astro.simulation.result.Simulation`
        One at a time is held in memory.
    splits : dict of str to str, or str, optional
        Split of each field, as from `split_fields`; or one split for all fields, ``'train'`` by
        default.
    size : int, optional
        Pixels per side of a cutout: by default those of the paper's network
        plus the shifts of its training, 96 + 2 × 2.
    layout : {'array', 'paper'}, optional
        ``'array'``: for each split one array ``SPLIT.npy`` of (N, 3, size,
        size) float32 to be memory-mapped. ``'paper'``: for each cutout three
        files, in the folders ``SPLIT/input``, ``SPLIT/mask`` and
        ``SPLIT/target``. Both have a table ``SPLIT.ecsv`` beside them.
    overwrite : bool, optional
        Whether a dataset in the folder is replaced.

    Returns
    -------
    counts : dict of str to int
        Number of cutouts of each split.

    Notes
    -----
    Channels: the map with sources, 1 for background and 0 in the discs of all
    sources and where pixels are invalid, and the map without sources. Invalid
    and off-map pixels are NaN in both maps. Radii follow from the SNR, as in
    the removal (paper, Table 3).

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from csr_astro.simulation.dataset import write_dataset
    >>> from csr_astro.simulation.simulate import simulate_map
    >>> noise = np.random.default_rng(0).normal(size=(120, 120))
    >>> simulation = simulate_map(noise, 300, instrument='generic', number=2)
    >>> with TemporaryDirectory() as folder:
    ...     write_dataset(folder, [simulation], size=48)
    {'train': 2}
    """
    folder = Path(folder)
    size = paper_facts()['cutout_size'] + 2 * paper_facts()['shift'] if size is None else int(size)
    if size < 16:
        raise ValueError(f'cutouts need at least 16 pixels per side, got {size}.')
    if layout not in LAYOUTS:
        raise ValueError(f'layout must be one of {LAYOUTS}, got {layout!r}.')
    description = folder / _DESCRIPTION
    if description.exists() and not overwrite:
        raise ValueError(f'{str(folder)!r} holds a dataset; overwrite it or choose another folder.')
    folder.mkdir(parents=True, exist_ok=True)
    # Removed first and written last, so that a stopped run leaves no dataset.
    description.unlink(missing_ok=True)
    _remove_cutouts(folder)
    splits = 'train' if splits is None else splits
    rows: dict[str, list] = {}
    fields: dict[str, set[str]] = {}
    writers: dict[str, _FolderWriter | _ArrayWriter] = {}
    with ExitStack() as stack:
        for simulation in simulations:
            split = splits.get(simulation.field) if isinstance(splits, dict) else splits
            if split not in SPLITS:
                raise ValueError(
                    f'the field {simulation.field!r} must be in one of {SPLITS}, got {split!r}.'
                )
            if split not in writers:
                rows[split] = []
                if layout == 'paper':
                    writers[split] = _FolderWriter(folder / split)
                else:
                    path = stack.enter_context(atomic_path(folder / f'{split}.npy'))
                    writers[split] = _ArrayWriter(path, (len(CHANNELS), size, size))
                stack.callback(writers[split].close)
            cutouts, new = _cut(simulation, size)
            writers[split].append(cutouts)
            rows[split] += new
            fields.setdefault(split, set()).add(simulation.field)
        if not rows:
            raise ValueError('there are no simulations to cut.')
    for split, entries in rows.items():
        with atomic_path(folder / f'{split}.ecsv') as temporary:
            _index(entries).write(temporary, format='ascii.ecsv', overwrite=True)
    entry = {
        'size': size, 'layout': layout, 'channels': CHANNELS, 'versions': versions(),
        'splits': {split: {'cutouts': writers[split].n, 'fields': sorted(names)}
                   for split, names in fields.items()},
    }  # fmt: skip
    with atomic_path(description) as temporary:
        temporary.write_text(json.dumps(entry, indent=1) + '\n', encoding='utf-8')
    return {split: writer.n for split, writer in writers.items()}


def _remove_cutouts(folder):
    """Remove the files of an earlier dataset from a folder."""
    for split in SPLITS:
        paper = (folder / split / channel for channel in CHANNELS)
        # Numbers of cutouts.
        left = [path for each in paper for path in each.glob('[0-9]' * 6 + '*.npy')]
        for path in (*left, folder / f'{split}.npy', folder / f'{split}.ecsv'):
            path.unlink(missing_ok=True)


def _cut(simulation, size):
    """Cutouts of a simulation (N, 3, size, size), and their rows of the table."""
    image, sources = simulation.injected, simulation.sources
    x, y = np.asarray(sources['x'], dtype=float), np.asarray(sources['y'], dtype=float)
    snr = measure_snr(image, x, y, simulation.instrument)
    names, radii = simulation.instrument.mask(snr)
    discs = [disc(*place, image.shape) for place in zip(x, y, radii, strict=True)]
    hole = combined_mask(discs, image.shape)
    injected, target = (extract(each, x, y, size) for each in (image, simulation.original))
    background = np.isfinite(injected) & ~extract_mask(hole, x, y, size)
    rows = [
        {
            'name': simulation.name, 'field': simulation.field, 'source': int(number),
            'x': column, 'y': row, 'flux': flux, 'snr': ratio, 'mask_name': str(mask_name),
            'mask_radius': radius,
        }
        for number, column, row, flux, ratio, mask_name, radius in zip(
            sources['id'], x, y, sources['flux'].to_value(u.mJy), snr, names, radii, strict=True
        )
    ]  # fmt: skip
    return np.stack([injected, background, target], axis=1), rows


def _index(entries):
    table = QTable(rows=entries)
    if 'flux' in table.colnames:
        table['flux'] = np.asarray(table['flux'], dtype=float) * u.mJy
    return table


class _CutoutFiles:
    """The cutouts of the paper's layout, read one by one as if they were an array."""

    def __init__(self, folder, n, size):
        self.folder = folder
        self.shape = (n, len(CHANNELS), size, size)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, i):
        if not -len(self) <= i < len(self):
            raise IndexError(f'there are {len(self)} cutouts, no number {i}.')
        name = f'{i % len(self):06d}.npy'
        return np.stack([np.load(self.folder / channel / name) for channel in CHANNELS])


class CutoutDataset:
    """The cutouts of a split, read from disk when they are asked for.

    A sequence of (input, mask, target), each (1, size, size) float32, as in `write_dataset`: a
    dataset for `torch.utils.data.DataLoader`. `~csr_astro.training.stored.DatasetSampler` makes
    batches for the training of this package.

    Parameters
    ----------
    folder : path-like
        As written by `write_dataset`, in either layout.
    split : {'train', 'validation', 'test'}, optional
        The split to read.

    Attributes
    ----------
    cutouts : sequence of (3, size, size) `~numpy.ndarray` of float32
        Input, mask and target: a `numpy.memmap` in the layout ``'array'``.
    index : `~astropy.table.Table`
        A row for each cutout: ``name`` of the simulation, ``field``, ``source``, ``x``, ``y``,
        ``flux``, ``snr``, ``mask_name``, ``mask_radius``.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from csr_astro.simulation.dataset import CutoutDataset, write_dataset
    >>> from csr_astro.simulation.simulate import simulate_map
    >>> noise = np.random.default_rng(0).normal(size=(120, 120))
    >>> simulation = simulate_map(noise, 300, instrument='generic', number=2)
    >>> with TemporaryDirectory() as folder:
    ...     counts = write_dataset(folder, [simulation], size=48)
    ...     image, mask, target = CutoutDataset(folder)[0]
    >>> print(image.shape, mask.min(), image.max() > target.max())
    (1, 48, 48) 0.0 True
    """

    def __init__(self, folder: PathLike, split: str = 'train') -> None:
        folder = Path(folder).absolute()
        description = _describe(folder)
        if split not in description['splits']:
            raise ValueError(f'split must be one of {list(description["splits"])}, got {split!r}.')
        self.path = folder / split if description['layout'] == 'paper' else folder / f'{split}.npy'
        self.index = Table.read(folder / f'{split}.ecsv', format='ascii.ecsv')
        self._n, self.size = description['splits'][split]['cutouts'], description['size']
        self._open()
        if not len(self.index) == self._n == len(self.cutouts):
            raise ValueError(f'{str(folder)!r} is damaged: cutouts and table differ in length.')

    def _open(self):
        if self.path.suffix == '.npy':
            self.cutouts = np.load(self.path, mmap_mode='r')
        else:
            self.cutouts = _CutoutFiles(self.path, self._n, self.size)

    def __getstate__(self) -> dict:
        # Another process maps the file itself.
        return {key: value for key, value in self.__dict__.items() if key != 'cutouts'}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()

    def __repr__(self) -> str:
        return f'<CutoutDataset: {len(self)} cutouts of {self.size} x {self.size} pixels>'

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image, mask, target = np.array(self.cutouts[i])[:, np.newaxis]
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
        return self.cutouts[i]

    def source(self, i: int) -> tuple[float, float, float]:
        """Place of the central source and radius of its mask.

        Parameters
        ----------
        i : int
            Number of the cutout.

        Returns
        -------
        dx, dy, radius : float
            Offset from the middle pixel, ``size // 2``, at most half a pixel, and radius, in
            pixels.
        """
        row = self.index[i]
        dx, dy = (float(row[name] - nearest_pixel(row[name])) for name in ('x', 'y'))
        return dx, dy, float(row['mask_radius'])


def _describe(folder):
    """Description of the dataset in a folder."""
    try:
        return json.loads((folder / _DESCRIPTION).read_text(encoding='utf-8'))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f'{str(folder)!r} holds no complete dataset, and no train_mask of the published tool.'
        ) from None


def is_dataset(folder: PathLike) -> bool:
    """Whether a folder holds a complete dataset of `write_dataset`.

    Parameters
    ----------
    folder : path-like
        The folder.

    Examples
    --------
    >>> from csr_astro.simulation.dataset import is_dataset
    >>> is_dataset('no-such-folder')
    False
    """
    return (Path(folder) / _DESCRIPTION).is_file()


def read_dataset(folder: PathLike) -> dict[str, CutoutDataset] | dict[str, PublishedCutouts]:
    """All splits of a dataset.

    Parameters
    ----------
    folder : path-like
        As written by `write_dataset`, or as the published tool reads it, see
        `~csr_astro.simulation.published.PublishedCutouts`.

    Returns
    -------
    splits : dict of str to `CutoutDataset` or `~csr_astro.simulation.published.PublishedCutouts`

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from csr_astro.simulation.dataset import read_dataset, write_dataset
    >>> from csr_astro.simulation.simulate import simulate_map
    >>> noise = np.random.default_rng(0).normal(size=(120, 120))
    >>> simulation = simulate_map(noise, 300, instrument='generic', number=2)
    >>> with TemporaryDirectory() as folder:
    ...     counts = write_dataset(folder, [simulation], 'test', size=48)
    ...     splits = read_dataset(folder)
    >>> {split: len(cutouts) for split, cutouts in splits.items()}
    {'test': 2}
    """
    if published := read_published(folder):
        return published
    names = _describe(Path(folder))['splits']
    return {split: CutoutDataset(folder, split) for split in SPLITS if split in names}
