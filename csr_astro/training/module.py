"""Lightning module and data module of the training."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

from csr_astro.nn.fill import push_pull_fill
from csr_astro.nn.inpainter import expected_error
from csr_astro.training.features import VGG16Features, oriented_features
from csr_astro.training.losses import paper_loss, relative_hole_loss, scaled_hole_loss
from csr_astro.utils.optional import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Executor

    import numpy as np
    from lightning import pytorch as pl

    from csr_astro.nn.inpainter import Inpainter
    from csr_astro.training.recipe import Recipe
else:
    pl = require('lightning.pytorch', 'training needs', 'train')

__all__ = ['CutoutData', 'TrainingModule']


_OPTIMIZERS = {'adamw': torch.optim.AdamW, 'adam': torch.optim.Adam}
# Options of the paper's schedule.
_PLATEAU = {'factor': 0.5, 'patience': 5}


def _learning_rate(recipe, cutouts):
    """Learning rate of the cosine schedule after a number of cutouts."""
    if cutouts < recipe.warmup:
        return recipe.learning_rate * (cutouts + recipe.batch_size) / (
            recipe.warmup + recipe.batch_size
        )
    done = (cutouts - recipe.warmup) / max(1, recipe.n_cutouts - recipe.warmup)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1))))


def _moving_average(decay):
    """Exponential moving average that forgets the random start sooner than ``decay`` would."""

    def update(averaged, current, n_averaged):
        keep = torch.clamp((1 + n_averaged) / (10 + n_averaged), max=decay)
        return averaged * keep + current * (1 - keep)

    return update


class TrainingModule(pl.LightningModule):
    """A model, its loss, its optimiser, and the moving average of its weights.

    Parameters
    ----------
    model : `~csr_astro.nn.inpainter.Inpainter`
        The model to train.
    recipe : `~csr_astro.training.recipe.Recipe`
        The recipe of the training.

    Attributes
    ----------
    average : `torch.optim.swa_utils.AveragedModel`
        The averaged weights, which are validated and written.
    step_number : int
        Number of steps done. Lightning's own count restarts when a training is resumed.
    training_losses, validation_losses : list
        Losses of the steps since the last validation, and of the validation.
    shown : tuple of `torch.Tensor`, or None
        Input, hole, target and prediction of the first batch of the validation.

    Examples
    --------
    >>> from csr_astro.nn.inpainter import Inpainter
    >>> from csr_astro.nn.unet import PartialConvUNet
    >>> from csr_astro.training.module import TrainingModule
    >>> from csr_astro.training.recipe import Recipe
    >>> model = Inpainter(PartialConvUNet(0.125, n_hints=2), fill='kriging')
    >>> TrainingModule(model, Recipe(width=0.125)).step_number
    0
    """

    def __init__(self, model: Inpainter, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = model
        self.average = AveragedModel(
            model, avg_fn=_moving_average(recipe.average), use_buffers=True
        ).requires_grad_(False)
        if recipe.compile:
            # Compiled in place, which keeps the names of the tensors. The average is a copy.
            model.network.compile()
        self.features = VGG16Features(recipe.vgg16) if recipe.vgg16 else oriented_features
        self.step_number = 0
        self.training_losses: list[torch.Tensor] = []
        self.validation_losses: list[float] = []
        self.shown: tuple[torch.Tensor, ...] | None = None
        self.plateau = None
        self._optimizer_states: tuple[dict, dict | None] | None = None

    def loss(
        self, model: Inpainter, tensors: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of a batch, and its prediction in normalised units.

        Parameters
        ----------
        model : `~csr_astro.nn.inpainter.Inpainter`
            The network or its average.
        tensors : sequence of `torch.Tensor`
            A prepared batch.
        """
        normalized, target, valid, hole, central, *hints = tensors
        prediction = model.predict_normalized(normalized, valid, hints)
        if self.recipe.loss == 'paper':
            terms = paper_loss(
                prediction, target, normalized, valid, hole,
                weights=self.recipe.loss_weights, features=self.features,
            )
            return terms.mean(), prediction
        if self.recipe.loss == 'scaled':
            error = expected_error(hints)
            return scaled_hole_loss(prediction, target, hole * central, error).mean(), prediction
        # The fill of the map without sources is the baseline of a disc without a source.
        baseline = push_pull_fill(target * valid, valid)
        inner, outer = (
            relative_hole_loss(prediction, target, hole * part, baseline)
            for part in (central, 1 - central)
        )
        # The central disc is the one to predict; the others add to the training.
        return inner + self.recipe.others * outer, prediction

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The recipe's optimiser, in the state of a resumed training."""
        optimizer = _OPTIMIZERS[self.recipe.optimizer](
            self.model.parameters(),
            lr=self.recipe.learning_rate,
            weight_decay=self.recipe.weight_decay,
        )
        if self.recipe.schedule == 'plateau':
            # Stepped by `finish_validation`. Lightning would step it after the checkpoint, so
            # that a resumed training would differ.
            self.plateau = ReduceLROnPlateau(optimizer, **_PLATEAU)
        if self._optimizer_states is not None:
            state, plateau = self._optimizer_states
            optimizer.load_state_dict(state)
            if self.plateau is not None:
                self.plateau.load_state_dict(plateau)
        return optimizer

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step."""
        return self.trainer.optimizers[0].param_groups[0]['lr']

    def on_train_batch_start(self, *_: object) -> None:
        """Set the learning rate, which depends on the number of cutouts done only."""
        if self.recipe.schedule == 'cosine':
            rate = _learning_rate(self.recipe, self.step_number * self.recipe.batch_size)
            for group in self.trainer.optimizers[0].param_groups:
                group['lr'] = rate

    def training_step(self, tensors: Sequence[torch.Tensor], _: int) -> torch.Tensor:
        """Loss of a batch."""
        loss, _ = self.loss(self.model, tensors)
        self.training_losses.append(loss.detach())
        return loss

    def on_train_batch_end(self, *_: object) -> None:
        """Average the weights."""
        self.average.update_parameters(self.model)
        self.step_number += 1

    def on_validation_start(self) -> None:
        """Forget the last validation."""
        self.validation_losses.clear()

    def validation_step(self, tensors: Sequence[torch.Tensor], number: int) -> None:
        """Loss of a batch, by the averaged weights."""
        loss, prediction = self.loss(self.average.module, tensors)
        self.validation_losses.append(loss.item())
        if number == 0:
            normalized, target, _, hole, *_ = tensors
            self.shown = tuple(
                tensor[:, 0].float().cpu() for tensor in (normalized, hole, target, prediction)
            )

    def finish_validation(self) -> tuple[float, float]:
        """Mean losses of the steps since the last validation and of this one, on all devices.

        Returns
        -------
        training, validation : float
        """
        means = torch.stack([
            torch.stack(self.training_losses).double().mean().cpu(),
            torch.tensor(self.validation_losses, dtype=torch.float64).mean(),
        ])
        self.training_losses.clear()
        if self.trainer.world_size > 1:
            # Some devices have no double precision.
            means = self.all_gather(means.float().to(self.device)).mean(dim=0).cpu()
        training, validation = means.tolist()
        if self.plateau is not None:
            self.plateau.step(validation)
        return training, validation

    def training_state(self) -> dict:
        """State of the training, as `load_training_state` takes it."""
        return {
            'recipe': asdict(self.recipe),
            'model': self.model.state_dict(),
            'average': self.average.state_dict(),
            'optimizer': self.trainer.optimizers[0].state_dict(),
            'plateau': None if self.plateau is None else self.plateau.state_dict(),
            'step': self.step_number,
        }

    def load_training_state(self, state: dict) -> None:
        """Continue from the state of a training; called before Lightning's ``fit``.

        Parameters
        ----------
        state : dict
            From `training_state`.
        """
        self.model.load_state_dict(state['model'])
        self.average.load_state_dict(state['average'])
        self._optimizer_states = state['optimizer'], state.get('plateau')
        self.step_number = state['step']


class _Numbered:
    """Iterable of known length over the results of a function of numbers."""

    def __init__(self, function, numbers):
        self.function = function
        self.numbers = numbers

    def __len__(self):
        return len(self.numbers)

    def __iter__(self):
        return map(self.function, self.numbers)


class _Ahead:
    """Results of a function of consecutive numbers, computed ahead in a pool."""

    def __init__(self, pool, function, depth):
        self.pool = pool
        self.function = function
        self.depth = depth
        self.waiting = deque()

    def __call__(self, number, step, stop):
        """Result for ``number``; those for ``number + step`` and so on are started."""
        while len(self.waiting) <= self.depth:
            following = self.waiting[-1][0] + step if self.waiting else number
            if following >= stop:
                break
            self.waiting.append((following, self.pool.submit(self.function, following)))
        return self.waiting.popleft()[1].result()


class CutoutData(pl.LightningDataModule):
    """Batches for each part of a training between two validations.

    A batch depends on its number only, which is that of the step. Of several devices each takes
    the batches of its rank.

    Parameters
    ----------
    recipe : `~csr_astro.training.recipe.Recipe`
        The recipe of the training.
    pool : `concurrent.futures.Executor`
        Prepares batches while the network is trained.
    prepare, prepare_validation : callable
        Functions that return the arrays of a batch by its number.
    depth : int, optional
        Number of batches that are prepared ahead.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from csr_astro.training.module import CutoutData
    >>> from csr_astro.training.recipe import Recipe
    >>> recipe = Recipe(n_cutouts=6400, batch_size=32, validate_every=3200)
    >>> with ThreadPoolExecutor(1) as pool:
    ...     print(CutoutData(recipe, pool, list, list).n_epochs(0))
    2
    """

    def __init__(
        self,
        recipe: Recipe,
        pool: Executor,
        prepare: Callable,
        prepare_validation: Callable,
        depth: int = 1,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.n_steps = math.ceil(recipe.n_cutouts / recipe.batch_size)
        self.steps_between = max(1, recipe.validate_every // recipe.batch_size)
        self._training = _Ahead(pool, prepare, depth)
        self._validation = _Ahead(pool, prepare_validation, depth)

    def n_epochs(self, step: int) -> int:
        """Number of validations that follow a number of steps.

        Parameters
        ----------
        step : int
            Steps done.
        """
        if step >= self.n_steps:
            return 0
        return math.ceil(self.n_steps / self.steps_between) - step // self.steps_between

    def _batches(self, ahead, first, last, stop):
        rank, world = self.trainer.global_rank, self.trainer.world_size
        return _Numbered(
            lambda number: ahead(number, world, stop * world),
            range(first * world + rank, last * world + rank, world),
        )

    def on_before_batch_transfer(self, batch: Sequence[np.ndarray], _: int) -> list[torch.Tensor]:
        """Convert arrays, which are sent between processes, to tensors."""
        return [torch.from_numpy(array) for array in batch]

    def train_dataloader(self) -> Iterable[list[np.ndarray]]:
        """Batches until the next validation; Lightning calls this again after each."""
        first = self.trainer.lightning_module.step_number
        last = min((first // self.steps_between + 1) * self.steps_between, self.n_steps)
        return self._batches(self._training, first, last, self.n_steps)

    def val_dataloader(self) -> Iterable[list[np.ndarray]]:
        """Batches of the validation, always the same ones."""
        n_batches = max(1, self.recipe.n_validation // self.recipe.batch_size)
        return self._batches(self._validation, 0, n_batches, n_batches)
