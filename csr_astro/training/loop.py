"""How is a network trained so that a kill at any moment costs only minutes?"""

import csv
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel

from csr_astro.io import atomic_path
from csr_astro.nn.device import best_dtype, resolve_device
from csr_astro.nn.fill import push_pull_fill
from csr_astro.nn.inpainter import Inpainter
from csr_astro.nn.unet import PartialConvUNet, memory_format
from csr_astro.nn.weights import save_weights
from csr_astro.training.losses import relative_hole_loss

__all__ = ['train']

CHECKPOINT = 'checkpoint.pt'
LOG = 'log.csv'
WEIGHTS = 'weights.safetensors'
LAST_WEIGHTS = 'last.safetensors'
_COLUMNS = ('cutouts', 'learning_rate', 'training_loss', 'validation_loss')
# What may change when a training goes on: its length, and how often it looks.
_MAY_CHANGE = {'n_cutouts', 'validate_every', 'n_validation'}


def _learning_rate(recipe, cutouts):
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


def _loss(model, batch):
    image, target, valid, hole, radius = batch
    # Under the masks the image holds the sources: measured, but no background.
    normalized, location, scale = model.normalize(image, valid, valid + hole, radius)
    prediction = model.predict_normalized(normalized, valid)
    divisor = torch.where(scale > 0, scale, torch.ones_like(scale))
    target = (target - location) / divisor
    # The fill of the map without sources: what a disc costs that hides nothing.
    baseline = push_pull_fill(target * valid, valid)
    return relative_hole_loss(prediction, target, hole, baseline)


def _tensors(batch, device):
    return [torch.from_numpy(array).to(device) for array in batch]


@torch.no_grad()
def _validate(model, sampler, recipe, device):
    model.eval()
    n_batches = max(1, recipe.n_validation // recipe.batch_size)
    losses = [
        _loss(model, _tensors(sampler.batch(number, recipe.batch_size), device)).item()
        for number in range(n_batches)
    ]
    return sum(losses) / len(losses)


def train(
    recipe, sampler, validation_sampler, folder, *, resume=False, device=None, card=None,
    progress=True,
):
    """Train a network.

    After every ``recipe.validate_every`` cutouts the folder holds
    ``checkpoint.pt`` (to go on from), ``last.safetensors`` (the averaged
    weights), ``weights.safetensors`` (those with the lowest validation loss so
    far) and ``log.csv``, each replaced in one step.

    Parameters
    ----------
    recipe : `~csr_astro.training.recipe.Recipe`
        What to do.
    sampler, validation_sampler : `~csr_astro.training.data.CutoutSampler`
        Where cutouts come from. The validation never trains.
    folder : path-like
        Output folder, made if missing.
    resume : bool, optional
        Whether to go on from the checkpoint in ``folder``. Without it, a folder
        that holds one is refused.
    device : str, optional
        Where to train; a GPU if there is one.
    card : dict of str, optional
        Entries of the model card for the weights.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    path : `pathlib.Path`
        The best weights.
    """
    from tqdm import tqdm

    folder = Path(folder)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise FileExistsError(
            f'{str(checkpoint)!r} exists; resume it (--resume) or choose another folder.'
        )
    if resume and not checkpoint.exists():
        raise FileNotFoundError(f'there is no {str(checkpoint)!r} to resume.')
    folder.mkdir(parents=True, exist_ok=True)

    device = resolve_device(device)
    # The seed decides the initial weights, without touching the user's generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = Inpainter(
            PartialConvUNet(recipe.width),
            recipe.normalization,
            residual=recipe.residual,
            dtype=best_dtype(device),
        )
    if recipe.residual:
        # The untrained network is then the smooth fill itself.
        torch.nn.init.zeros_(model.network.decoder[-1].conv.weight)
    model = model.to(device).to(memory_format=memory_format(device))
    average = AveragedModel(model, avg_fn=_moving_average(recipe.average), use_buffers=True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    step, rows, best = 0, [], math.inf
    if resume:
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        _check_same(saved['recipe'], asdict(recipe))
        model.load_state_dict(saved['model'])
        average.load_state_dict(saved['average'])
        optimizer.load_state_dict(saved['optimizer'])
        step, rows, best = saved['step'], saved['rows'], saved['best']

    def save():
        with atomic_path(checkpoint) as temporary:
            torch.save(
                {
                    'recipe': asdict(recipe),
                    'model': model.state_dict(),
                    'average': average.state_dict(),
                    'optimizer': optimizer.state_dict(),
                    'step': step,
                    'rows': rows,
                    'best': best,
                },
                temporary,
            )
        with atomic_path(folder / LOG) as temporary, temporary.open('w', newline='') as file:
            csv.writer(file).writerows([_COLUMNS, *rows])

    n_steps = math.ceil(recipe.n_cutouts / recipe.batch_size)
    steps_between = max(1, recipe.validate_every // recipe.batch_size)
    losses = []
    with (
        ThreadPoolExecutor(1) as pool,
        tqdm(total=n_steps * recipe.batch_size, initial=step * recipe.batch_size, unit='cutout',
             disable=not progress) as bar,
    ):
        ahead = pool.submit(sampler.batch, step, recipe.batch_size)
        while step < n_steps:
            batch = _tensors(ahead.result(), device)
            ahead = pool.submit(sampler.batch, step + 1, recipe.batch_size)
            rate = _learning_rate(recipe, step * recipe.batch_size)
            for group in optimizer.param_groups:
                group['lr'] = rate
            model.train()
            loss = _loss(model, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(model)
            losses.append(loss.detach())
            step += 1
            bar.update(recipe.batch_size)
            if step % steps_between and step < n_steps:
                continue
            validation = _validate(average.module, validation_sampler, recipe, device)
            training = torch.stack(losses).mean().item()
            if not math.isfinite(training + validation):
                raise FloatingPointError(
                    f'the loss is not finite after {step * recipe.batch_size} cutouts; lower '
                    'learning_rate. The last checkpoint is as it was.'
                )
            losses.clear()
            bar.set_postfix(training=f'{training:.4f}', validation=f'{validation:.4f}')
            rows.append([step * recipe.batch_size, rate, training, validation])
            save_weights(folder / LAST_WEIGHTS, average.module, **(card or {}))
            if validation < best:
                best = validation
                save_weights(folder / WEIGHTS, average.module, **(card or {}))
            save()
    return folder / WEIGHTS


def _check_same(saved, asked):
    for key, value in asked.items():
        if key not in _MAY_CHANGE and saved[key] != value:
            raise ValueError(
                f'the checkpoint was made with {key} = {saved[key]}, the recipe says {value}; '
                'resume with the same recipe, or choose another folder.'
            )
