"""Size and speed of the paper's network at several widths.

Parameters, size of the file of weights (kernels in half precision), seconds of processor time per
source with the preset "paper" (one orientation), and cutouts per second of training with its
loss, in the precision that a training on this processor uses. Processor time is that of all
threads together: other programs on the machine hardly change it.

example: OMP_NUM_THREADS=1 python benchmarks/widths.py
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from csr_astro import NeuralBackgroundEstimator
from csr_astro.nn.device import best_dtype
from csr_astro.nn.inpainter import Inpainter
from csr_astro.nn.unet import PartialConvUNet, memory_format
from csr_astro.nn.weights import save_weights
from csr_astro.training.module import TrainingModule
from csr_astro.training.recipe import read_recipe

CPU = torch.device('cpu')


def seconds_of(function, rounds):
    """Least processor time of a call."""
    function()
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return min(taken)


def removal(path, n_sources):
    """A function that removes sources of a map by weights of a width."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(300, 300))
    places = rng.uniform(60, 240, (n_sources, 2))
    estimator = NeuralBackgroundEstimator(
        path, instrument='pacs-scanmap-blue', preset='paper', device='cpu'
    )
    plan = estimator.plan(image, places)
    return lambda: list(estimator.predictor.parts(plan))


def training_step(width, batch_size, dtype):
    """A function that takes one step with the paper's loss."""
    recipe = replace(read_recipe('paper'), width=width, batch_size=batch_size)
    model = Inpainter(PartialConvUNet(width), 'minmax', fill='none', dtype=dtype)
    module = TrainingModule(model.to(memory_format=memory_format(CPU)), recipe)
    optimizer = torch.optim.Adam(model.parameters())
    image = torch.randn(batch_size, 1, 96, 96).clamp(-1, 1)
    hole = torch.zeros_like(image)
    hole[..., 40:57, 40:57] = 1
    tensors = image * (1 - hole), image, 1 - hole, hole, hole

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss, _ = module.loss(model, tensors)
        loss.backward()
        optimizer.step()

    return step


def main():
    """Print a row for each width."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--widths', type=float, nargs='+', default=[1.0, 0.5, 0.25])
    parser.add_argument('--sources', type=int, default=16, help='[%(default)s]')
    parser.add_argument('--batch', type=int, default=16, help='[%(default)s]')
    parser.add_argument('--rounds', type=int, default=2, help='[%(default)s]')
    args = parser.parse_args()
    dtype = best_dtype(CPU)
    print(f'{torch.get_num_threads()} threads, torch {torch.__version__}, training in '
          f'{str(dtype).removeprefix("torch.")}')  # fmt: skip
    heads = ('width', 5), ('million parameters', 18), ('MB', 6), ('ms/source', 9), ('cutouts/s', 9)
    print(' '.join(f'{head:>{size}s}' for head, size in heads))
    for width in args.widths:
        network = PartialConvUNet(width)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'weights.safetensors'
            save_weights(path, Inpainter(network, 'minmax', fill='none'), title='untrained')
            size = path.stat().st_size / 1e6
            removed = seconds_of(removal(path, args.sources), args.rounds) / args.sources
        trained = seconds_of(training_step(width, args.batch, dtype), args.rounds) / args.batch
        print(f'{width:5g} {network.n_parameters / 1e6:18.2f} {size:6.1f} {1e3 * removed:9.1f} '
              f'{1 / trained:9.1f}', flush=True)  # fmt: skip


if __name__ == '__main__':
    main()
