"""Cutouts per second of a training, beside a step of textbook partial convolutions.

Both take steps on batches that are ready: forward, loss, backward, optimiser; the textbook in
float32 with the masks of all channels. `whole` is `csr_astro.training.loop.train` on synthetic
fields: drawing cutouts, kriging, the steps, averaging of weights. The peak of memory is that of
the process so far.

example: OMP_NUM_THREADS=2 python benchmarks/training.py --widths 1 0.5 0.25
"""

import argparse
import resource
import tempfile
import time
from dataclasses import replace

import torch
from inference import Textbook
from torch import nn

from csr_astro.nn.device import best_dtype
from csr_astro.nn.inpainter import Inpainter
from csr_astro.nn.unet import PartialConvUNet, memory_format
from csr_astro.training.data import CutoutSampler
from csr_astro.training.loop import train
from csr_astro.training.losses import hole_l1
from csr_astro.training.module import TrainingModule
from csr_astro.training.recipe import Recipe

CPU = torch.device('cpu')


def our_step(recipe, dtype, batch):
    """A function that takes one step as a training does."""
    network = PartialConvUNet(recipe.width, n_hints=2)
    model = Inpainter(network, fill='kriging', dtype=dtype).to(memory_format=memory_format(CPU))
    module = TrainingModule(model, recipe)
    optimizer = module.configure_optimizers()
    image, target, valid, hole, central, radius = map(torch.from_numpy, batch)
    normalized, hints, location, scale, _ = model.prepare(
        image, valid, valid + hole, central, radius
    )
    tensors = normalized, (target - location) / scale, valid, hole, central, *hints

    def step():
        optimizer.zero_grad(set_to_none=True)
        module.loss(model, tensors)[0].backward()
        optimizer.step()
        module.average.update_parameters(model)

    return step


def textbook_step(recipe, batch):
    """A function that takes one step of the network as Liu et al. (2018) write its layers."""
    network = Textbook(PartialConvUNet(recipe.width))
    optimizer = torch.optim.Adam(network.parameters())
    image, target, valid, hole, *_ = (torch.from_numpy(array).float() for array in batch)
    image, target = ((each - target.mean()) / target.std() for each in (image, target))

    def step():
        optimizer.zero_grad(set_to_none=True)
        prediction = network(image * valid, valid)
        # The textbook's own loss; one of ours costs about the same.
        loss = nn.functional.l1_loss(prediction, target) + hole_l1(prediction, target, hole).mean()
        loss.backward()
        optimizer.step()

    return step


def fastest(steps, rounds):
    """Least seconds of each function, in alternating rounds."""
    for step in steps:
        step()
    least = [float('inf')] * len(steps)
    for _ in range(rounds):
        for number, step in enumerate(steps):
            start = time.perf_counter()
            step()
            least[number] = min(least[number], time.perf_counter() - start)
    return least


def whole(recipe, n_steps):
    """Cutouts per second of a whole training, without its start and its end."""
    seconds = []
    for steps in (2, 2 + n_steps):
        count = steps * recipe.batch_size
        run = replace(recipe, n_cutouts=count, validate_every=count, n_validation=2)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            train(run, CutoutSampler({}), CutoutSampler({}, seed=1), folder, device='cpu',
                  progress=False)  # fmt: skip
            seconds.append(time.perf_counter() - start)
    return n_steps * recipe.batch_size / (seconds[1] - seconds[0])


def main():
    """Print one row per width."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--widths', type=float, nargs='+', default=[1.0, 0.5, 0.25])
    parser.add_argument('--batch', type=int, default=32, help='[%(default)s]')
    parser.add_argument('--rounds', type=int, default=3, help='[%(default)s]')
    parser.add_argument('--steps', type=int, default=8, help='of the whole training [%(default)s]')
    args = parser.parse_args()
    best = best_dtype(CPU)
    print(f'{torch.get_num_threads()} threads, torch {torch.__version__}, a training on this CPU '
          f'uses {str(best).removeprefix("torch.")}; cutouts/s')
    dtypes = torch.float32, torch.bfloat16
    print(f'{"width":>5s} {"textbook":>8s} {"float32":>8s} {"bfloat16":>8s} {"ratios":>11s} '
          f'{"whole":>6s} {"peak MB":>8s}')
    batch = CutoutSampler({}).batch(0, args.batch)
    for width in args.widths:
        recipe = Recipe(width=width, batch_size=args.batch)
        steps = [textbook_step(recipe, batch)]
        steps += [our_step(recipe, dtype, batch) for dtype in dtypes]
        rates = [args.batch / seconds for seconds in fastest(steps, args.rounds)]
        ratios = '  '.join(f'{rate / rates[0]:.2f}' for rate in rates[1:])
        rate = whole(recipe, args.steps)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f'{width:5g} {rates[0]:8.1f} {rates[1]:8.1f} {rates[2]:8.1f} {ratios:>11s} '
              f'{rate:6.1f} {peak:8.0f}', flush=True)


if __name__ == '__main__':
    main()
