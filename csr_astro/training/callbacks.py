"""Files, pictures and progress of a training."""

from __future__ import annotations

import csv
import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from csr_astro.nn.weights import save_weights
from csr_astro.utils.files import atomic_path
from csr_astro.utils.optional import require

if TYPE_CHECKING:
    from pathlib import Path

    from lightning import pytorch as pl
    from lightning.pytorch.loggers import TensorBoardLogger

    from csr_astro.typing import PathLike
else:
    pl = require('lightning.pytorch', 'training needs', 'train')

__all__ = ['Pictures', 'ProgressBar', 'Records', 'tensorboard_logger']


CHECKPOINT = 'checkpoint.pt'
LOG = 'log.csv'
WEIGHTS = 'weights.safetensors'
LAST_WEIGHTS = 'last.safetensors'
PICTURES = 'pictures'
TENSORBOARD = 'tensorboard'

_COLUMNS = ('cutouts', 'learning_rate', 'training_loss', 'validation_loss')
_N_PICTURES = 6


def tensorboard_logger(folder: PathLike) -> TensorBoardLogger | None:
    """Lightning's logger, which writes to ``folder/tensorboard``; None without tensorboard.

    Parameters
    ----------
    folder : path-like
        Folder of the training.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from csr_astro.training.callbacks import tensorboard_logger
    >>> with TemporaryDirectory() as folder:
    ...     logger = tensorboard_logger(folder)
    >>> logger is None or logger.name == 'tensorboard'
    True
    """
    if find_spec('tensorboard') is None and find_spec('tensorboardX') is None:
        return None
    return pl.loggers.TensorBoardLogger(folder, name=TENSORBOARD, version='')


class Records(pl.Callback):
    """Callback that writes weights, log and checkpoint after each validation.

    Each file is replaced in one step.

    Parameters
    ----------
    folder : `pathlib.Path`
        Folder of the files.
    card : dict of str
        Entries of the model card.
    state : dict, optional
        Checkpoint to continue from.

    Attributes
    ----------
    rows : list of list
        Rows of the log.
    best : float
        Lowest validation loss.

    Examples
    --------
    >>> from pathlib import Path
    >>> from csr_astro.training.callbacks import Records
    >>> records = Records(Path('out'), {'title': 'mine'})
    >>> records.best, records.rows
    (inf, [])
    """

    def __init__(self, folder: Path, card: dict[str, str], state: dict | None = None) -> None:
        self.folder = folder
        self.card = card
        self.rows = state['rows'] if state else []
        self.best = state['best'] if state else math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write everything, unless the loss is not finite."""
        cutouts = pl_module.step_number * pl_module.recipe.batch_size
        rate = pl_module.learning_rate
        training, validation = pl_module.finish_validation()
        if not math.isfinite(training + validation):
            raise FloatingPointError(
                f'the loss is not finite after {cutouts} cutouts; lower learning_rate. '
                'The last checkpoint is as it was.'
            )
        row = [cutouts, rate, training, validation]
        self.rows.append(row)
        best, self.best = self.best, min(self.best, validation)
        if not trainer.is_global_zero:
            return
        model = pl_module.average.module
        save_weights(self.folder / LAST_WEIGHTS, model, **self.card)
        if validation < best:
            save_weights(self.folder / WEIGHTS, model, **self.card)
        # Lightning's own checkpoints are moved from the system's temporary folder, which is a
        # copy if that is on another disk.
        with atomic_path(self.folder / CHECKPOINT) as temporary:
            torch.save(
                pl_module.training_state() | {'rows': self.rows, 'best': self.best}, temporary
            )
        with atomic_path(self.folder / LOG) as temporary, temporary.open('w', newline='') as file:
            csv.writer(file).writerows([_COLUMNS, *self.rows])
        if trainer.logger is not None:
            trainer.logger.log_metrics(dict(zip(_COLUMNS[1:], row[1:], strict=True)), cutouts)


class Pictures(pl.Callback):
    """Callback that draws the first cutouts of each validation.

    Parameters
    ----------
    folder : `pathlib.Path`
        Folder of the pictures, which are named after the number of cutouts.

    Examples
    --------
    >>> from pathlib import Path
    >>> from csr_astro.training.callbacks import Pictures
    >>> pictures = Pictures(Path('out'))
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw input, mask, target, prediction and difference."""
        if not trainer.is_global_zero:
            return
        self.folder.mkdir(exist_ok=True)
        cutouts = pl_module.step_number * pl_module.recipe.batch_size
        arrays = [tensor[:_N_PICTURES].numpy() for tensor in pl_module.shown]
        draw_cutouts(self.folder / f'{cutouts:09d}.png', *arrays)


def draw_cutouts(path, image, hole, target, prediction):
    """Draw rows of input, mask, target, prediction and difference.

    The colours of a row span 98 % of its target; those of the difference span the same width
    about 0.

    Parameters
    ----------
    path : path-like
        Picture to write, replaced in one step.
    image, hole, target, prediction : (N, H, W) `~numpy.ndarray`
        In normalised units.
    """
    from matplotlib.figure import Figure

    titles = ('input', 'mask', 'target', 'prediction', 'difference')
    height, width = image.shape[1:]
    # All panels are one image: thirty axes would take a second.
    mosaic = np.full((len(image) * (height + 2), len(titles) * (width + 2)), np.nan)
    for i, panels in enumerate(zip(image, hole, target, prediction, strict=True)):
        low, high = np.percentile(panels[2], [1, 99])
        scale = max(high - low, np.finfo(np.float32).tiny)
        scaled = [(panel - low) / scale for panel in panels]
        scaled[1] = panels[1]
        scaled.append(0.5 + scaled[3] - scaled[2])
        y = slice(i * (height + 2), i * (height + 2) + height)
        for j, panel in enumerate(scaled):
            mosaic[y, j * (width + 2) : j * (width + 2) + width] = panel[::-1]
    drawing = Figure(figsize=(1.4 * len(titles), 1.4 * len(image) + 0.3), layout='constrained')
    ax = drawing.subplots()
    ax.imshow(mosaic, vmin=0, vmax=1, interpolation='nearest')
    ax.set_xticks((np.arange(len(titles)) + 0.5) * (width + 2), titles)
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, left=False)
    ax.set_yticks([])
    with atomic_path(path) as temporary:
        drawing.savefig(temporary, dpi=100)


class ProgressBar(pl.Callback):
    """Callback that shows one progress bar for the whole training.

    Lightning's own bar starts again at each validation.

    Parameters
    ----------
    n_cutouts : int
        Number of cutouts in the whole training.
    records : `Records`
        The log, whose last row is shown.

    Examples
    --------
    >>> from pathlib import Path
    >>> from csr_astro.training.callbacks import ProgressBar, Records
    >>> bar = ProgressBar(1000, Records(Path('out'), {}))
    """

    def __init__(self, n_cutouts: int, records: Records) -> None:
        self.n_cutouts = n_cutouts
        self.records = records
        self.bar: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar, at the number of cutouts already done."""
        self.bar = tqdm(
            total=self.n_cutouts,
            initial=pl_module.step_number * pl_module.recipe.batch_size,
            unit='cutout',
            disable=not trainer.is_global_zero,
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object
    ) -> None:
        """Count a step."""
        del trainer
        self.bar.update(pl_module.recipe.batch_size)

    def on_train_epoch_end(self, *_: object) -> None:
        """Show the losses."""
        _, _, training, validation = self.records.rows[-1]
        self.bar.set_postfix(training=f'{training:.4f}', validation=f'{validation:.4f}')

    def teardown(self, *_: object, **__: object) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, *_: object) -> None:
        """Close the bar after an error, for which Lightning does not call `teardown`."""
        self.teardown()
