"""Time and memory of errors and realizations, over those of the predictions alone.

Sources are placed at random on a synthetic field; all is measured in one process.

example: OPENBLAS_NUM_THREADS=1 python benchmarks/error_cost.py --sources 60 --threads 1
"""

import argparse
import time
import tracemalloc

import numpy as np
import torch

from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator
from csr_astro.simulation.diffuse import power_law_field


def measure(function):
    """CPU and wall seconds, and the most memory that Python's arrays took on top."""
    tracemalloc.start()
    cpu, wall = time.process_time(), time.perf_counter()
    value = function()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return value, cpu, wall, memory


def main():
    """Print one row per product."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--sources', type=int, default=60, help='number [%(default)s]')
    parser.add_argument('--size', type=int, default=512, help='pixels per side [%(default)s]')
    parser.add_argument('--radius', type=float, nargs='+', default=[5.0, 9.0, 13.0],
                        help='radii of the masks in pixels')
    parser.add_argument('--threads', type=int, default=1, help='of PyTorch [%(default)s]')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    image = power_law_field((args.size, args.size), -3, 1)
    image = image + rng.normal(0, 0.1, image.shape)
    positions = rng.uniform(20, args.size - 20, (args.sources, 2))
    estimator = NeuralBackgroundEstimator()
    photometry = InpaintedAperturePhotometry([3, 4, 5], estimator=estimator)

    print(f'{"radius":>6s} {"product":24s} {"CPU":>6s} {"wall":>6s} {"memory":>7s}'
          '  over the prediction')
    estimator.estimate(image, positions[:2], mask_radius=args.radius[0])
    for radius in args.radius:
        def predict(radius=radius):
            return estimator.estimate(image, positions, mask_radius=radius)

        result, *alone = measure(predict)
        products = {
            'prediction': None,
            'background_rms': lambda result=result: result.background_rms,
            'errors of 3 apertures': lambda result=result: photometry(result),
            'realization': lambda result=result: result.realization(1),
        }
        for name, product in products.items():
            cost = alone if product is None else measure(product)[1:]
            cpu, wall = (c / a for c, a in zip(cost[:2], alone[:2], strict=True))
            memory = cost[2] / alone[2]
            print(f'{radius:6g} {name:24s} {cpu:6.2f} {wall:6.2f} {memory:7.2f}')


if __name__ == '__main__':
    main()
