"""Training of a network, which goes on from its last checkpoint after it was killed."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from csr_astro.nn.device import best_dtype, resolve_device
from csr_astro.nn.inpainter import FILLS, Inpainter
from csr_astro.nn.unet import PartialConvUNet, memory_format
from csr_astro.nn.weights import load_checkpoint, load_model
from csr_astro.training.recipe import Recipe
from csr_astro.training.widening import widen_network
from csr_astro.utils.optional import require

if TYPE_CHECKING:
    from csr_astro.training.data import CutoutSampler
    from csr_astro.training.stored import DatasetSampler
    from csr_astro.typing import PathLike

__all__ = ['train']


# Keys of a recipe that may change when a training is resumed.
_MAY_CHANGE = {'n_cutouts', 'validate_every', 'n_validation'}


def _prepare(model, sampler, batch_size, number):
    """Arrays of a batch: the normalised image, target, masks and hints."""
    batch = sampler.batch(number, batch_size)
    image, target, valid, hole, central, radius = (torch.from_numpy(array) for array in batch)
    # Pixels under the masks are measured, but not background.
    normalized, hints, location, scale, _ = model.prepare(
        image, valid, valid + hole, central, radius
    )
    divisor = torch.where(scale > 0, scale, torch.ones_like(scale))
    tensors = (normalized, (target - location) / divisor, valid, hole, central, *hints)
    return [tensor.numpy() for tensor in tensors]


# Functions with which a worker process prepares batches.
_worker: dict[str, Any] = {}


def _start_worker(functions):
    # The processes take the place of threads.
    torch.set_num_threads(1)
    _worker.update(functions)


def _work(kind, number):
    return _worker[kind](number)


@contextmanager
def _preparing(functions, workers):
    """A pool and the functions to submit to it: worker processes, or one thread without any."""
    if workers == 0:
        pool = ThreadPoolExecutor(1)
    else:
        # Spawned: a fork of a process that has threads or uses a GPU can hang.
        pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context('spawn'), _start_worker, (functions,)
        )
        # Maps are sent to each process once, not with every batch.
        functions = {kind: partial(_work, kind) for kind in functions}
    try:
        yield pool, functions
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _quiet():
    """Silence Lightning's greetings, and restore the handler of Ctrl-C afterwards."""
    logger = logging.getLogger('lightning.pytorch')
    level = logger.level
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # A deprecation of PyTorch 2.13 that Lightning 2.6 meets.
            warnings.filterwarnings('ignore', '.*LeafSpec', FutureWarning)
            yield
    finally:
        logger.setLevel(level)
        if main:
            signal.signal(signal.SIGINT, handler)


def _initial_model(recipe, device):
    # The seed decides the initial weights; the user's generator is left alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = _build(recipe, best_dtype(device))
    if recipe.start:
        _start_from(model, recipe.start)
    elif recipe.fill != 'none':
        # The untrained network then predicts the fill itself.
        torch.nn.init.zeros_(model.network.decoder[-1].conv.weight)
    return model.to(memory_format=memory_format(device))


def _build(recipe, dtype=torch.float32):
    network = PartialConvUNet(recipe.width, n_hints=FILLS[recipe.fill])
    return Inpainter(network, recipe.normalization, fill=recipe.fill, dtype=dtype)


def train(
    recipe: Recipe,
    sampler: CutoutSampler | DatasetSampler,
    validation_sampler: CutoutSampler | DatasetSampler,
    folder: PathLike,
    *,
    resume: bool = False,
    device: str | None = None,
    card: dict[str, str] | None = None,
    progress: bool = True,
    devices: int = 1,
    workers: int = 0,
) -> Path:
    """Train a network.

    After every ``recipe.validate_every`` cutouts these files are written, each replaced in one
    step: ``checkpoint.pt`` to resume from, ``last.safetensors`` with the averaged weights,
    ``weights.safetensors`` with the best ones so far, and ``log.csv``. With matplotlib installed,
    pictures of some cutouts are drawn in ``pictures``; with tensorboard, its logs are written in
    ``tensorboard``.

    Parameters
    ----------
    recipe : `~csr_astro.training.recipe.Recipe`
        The recipe.
    sampler, validation_sampler : `~csr_astro.training.data.CutoutSampler` or \
            `~csr_astro.training.stored.DatasetSampler`
        Give the cutouts to train on, and those to validate with.
    folder : path-like
        Output folder, made if missing.
    resume : bool, optional
        Whether to go on from the checkpoint in ``folder``. Without it, a folder with a
        checkpoint is refused.
    device : str, optional
        Device to train on; a GPU if there is one.
    card : dict of str, optional
        Entries of the model card for the weights.
    progress : bool, optional
        Whether to show a progress bar.
    devices : int, optional
        Number of GPUs, or of processes on the CPU, that share each batch. More than one need a
        script or the command line, which each of them runs again.
    workers : int, optional
        Number of processes that prepare batches, for each device; 0 is one thread. A GPU needs
        several. The script that calls this must then be importable:
        ``if __name__ == '__main__':``.

    Returns
    -------
    path : `pathlib.Path`
        The file of the best weights.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from csr_astro.training.data import CutoutSampler, read_maps
    >>> from csr_astro.training.loop import train
    >>> from csr_astro.training.recipe import read_recipe
    >>> recipe = replace(read_recipe('fine-tune'), n_cutouts=20_000)
    >>> samplers = [CutoutSampler(read_maps(each)) for each in ('a', 'b')]  # doctest: +SKIP
    >>> train(recipe, *samplers, 'trained')  # doctest: +SKIP
    """
    require('lightning', 'training needs', 'train')
    from csr_astro.training import callbacks
    from csr_astro.training.module import CutoutData, TrainingModule

    folder = Path(folder)
    recipe = _validated_per_pass(recipe, sampler, validation_sampler)
    state = _checkpoint_state(folder / callbacks.CHECKPOINT, recipe, resume=resume)
    device = resolve_device(device)
    if recipe.batch_size % devices or recipe.batch_size < 2 * devices:
        raise ValueError(
            f'batch_size must be a multiple of the number of devices, {devices}, and give each at '
            f'least 2 cutouts; got {recipe.batch_size}.'
        )
    folder.mkdir(parents=True, exist_ok=True)
    module = TrainingModule(_initial_model(recipe, device), recipe)
    if state is not None:
        try:
            module.load_training_state(state)
        except (KeyError, TypeError, RuntimeError) as error:
            reason = str(error).strip().partition('\n')[0]
            raise ValueError(
                f'{str(folder / callbacks.CHECKPOINT)!r} is no checkpoint of this training '
                f'({reason}); train again in another folder.'
            ) from None
    # Batches are prepared without the weights of the network.
    with torch.device('meta'):
        model = _build(recipe)
    functions = {
        kind: partial(_prepare, model, source, recipe.batch_size // devices)
        for kind, source in (('training', sampler), ('validation', validation_sampler))
    }
    with _preparing(functions, workers) as (pool, prepare):
        data = CutoutData(
            recipe, pool, prepare['training'], prepare['validation'], depth=max(1, 2 * workers)
        )
        n_epochs = data.n_epochs(module.step_number)
        if n_epochs:
            records = callbacks.Records(folder, card or {}, state)
            _fit(module, data, n_epochs, records, device, devices, progress=progress)
    return folder / callbacks.WEIGHTS


def _validated_per_pass(recipe, sampler, validation_sampler):
    """Recipe with the cutouts of a pass over the data between two validations, if it says 0."""
    if recipe.validate_every:
        return recipe
    if not hasattr(sampler, 'dataset'):
        raise ValueError('validate_every = 0 needs a dataset, which has an end to validate after.')
    n_validation = recipe.n_validation
    if hasattr(validation_sampler, 'dataset'):
        n_validation = min(n_validation, len(validation_sampler))
    return replace(recipe, validate_every=len(sampler), n_validation=n_validation)


def _fit(module, data, n_epochs, records, device, devices, *, progress):
    """Run Lightning's loop; an epoch ends with each validation."""
    from lightning import pytorch as pl

    from csr_astro.training import callbacks

    listeners = [records]
    if find_spec('matplotlib') is not None:
        listeners.append(callbacks.Pictures(records.folder / callbacks.PICTURES))
    if progress:
        listeners.append(
            callbacks.ProgressBar(data.n_steps * data.recipe.batch_size, records)
        )
    with _quiet():
        trainer = pl.Trainer(
            accelerator=device.type,
            devices=devices if device.index is None else [device.index],
            strategy='ddp' if devices > 1 else 'auto',
            sync_batchnorm=devices > 1 and device.type == 'cuda',
            max_epochs=n_epochs,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            gradient_clip_val=data.recipe.gradient_clip or None,
            callbacks=listeners,
            logger=callbacks.tensorboard_logger(records.folder) or False,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=records.folder,
        )
        try:
            trainer.fit(module, datamodule=data)
        except SystemExit:
            # Lightning turns Ctrl-C into this.
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise


def _checkpoint_state(checkpoint, recipe, *, resume):
    """Content of a checkpoint that may be resumed by this recipe; None for a new training."""
    if not resume:
        if checkpoint.exists():
            raise FileExistsError(
                f'{str(checkpoint)!r} exists; resume it (--resume) or choose another folder.'
            )
        return None
    if not checkpoint.exists():
        raise FileNotFoundError(f'there is no {str(checkpoint)!r} to resume.')
    state = load_checkpoint(checkpoint)
    try:
        # Keys that the checkpoint lacks had their defaults.
        saved = asdict(Recipe()) | state['recipe']
    except (KeyError, TypeError):
        raise ValueError(f'{str(checkpoint)!r} is no checkpoint of a training.') from None
    for key, value in asdict(recipe).items():
        if key not in _MAY_CHANGE and saved[key] != value:
            raise ValueError(
                f'the checkpoint was made with {key} = {saved[key]}, the recipe says {value}; '
                'resume with the same recipe, or choose another folder.'
            )
    return state


def _start_from(model, weights):
    """Copy weights into a model, which may be wider and have hints in addition."""
    start = load_model(weights)
    network = start.network
    if network.width != model.network.width:
        network = PartialConvUNet(model.network.width, n_hints=network.n_hints)
        widen_network(start.network, network)
    state = network.state_dict()
    missing = model.network.n_hints - network.n_hints
    if missing:
        # The layer multiplies by its number of inputs, so the weights are divided by it. New hints
        # get zeros, but the first one, the kriging, gets the weights of the map.
        kernel = state['encoder.0.conv.weight'] * (1 + network.n_hints) / (
            1 + model.network.n_hints
        )
        added = torch.zeros_like(kernel[:, :1]).repeat(1, missing, 1, 1)
        if not network.n_hints:
            added[:, :1] = kernel
        state['encoder.0.conv.weight'] = torch.cat([kernel, added], dim=1)
    model.network.load_state_dict(state)
    if start.fill != model.fill:
        # The output is the difference from the fill, which is another one.
        torch.nn.init.zeros_(model.network.decoder[-1].conv.weight)
        torch.nn.init.zeros_(model.network.decoder[-1].conv.bias)
