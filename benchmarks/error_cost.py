"""Time and memory of predictions, and of errors and realizations over those of the predictions.

Sources are placed at random on a synthetic field; all is measured in one process. Times are those
of a first run, memory (the most that Python's arrays take) of a second one.

example: OPENBLAS_NUM_THREADS=1 python benchmarks/error_cost.py --orientations 1 8
"""

import argparse
import time
import tracemalloc

import numpy as np
import torch

from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator
from csr_astro.simulation.diffuse import power_law_field

PRODUCTS = {
    'background_rms': lambda result, _: result.background_rms,
    'errors of 3 apertures': lambda result, photometry: photometry(result),
    'realization': lambda result, _: result.realization(1),
}


def measure(function, prepare):
    """Wall seconds, and peak bytes, of a function of what ``prepare`` makes anew each time."""
    given = prepare()
    start = time.perf_counter()
    function(given)
    wall = time.perf_counter() - start
    given = prepare()
    tracemalloc.start()
    function(given)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return wall, memory


def main():
    """Print one row per radius, number of orientations, and product."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--sources', type=int, default=60, help='number [%(default)s]')
    parser.add_argument('--size', type=int, default=512, help='pixels per side [%(default)s]')
    parser.add_argument('--radius', type=float, nargs='+', default=[5.0, 9.0, 12.0],
                        help='radii of the masks in pixels')
    parser.add_argument('--orientations', type=int, nargs='+', default=[8])
    parser.add_argument('--threads', type=int, default=1, help='of PyTorch [%(default)s]')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    image = power_law_field((args.size, args.size), -3, 1)
    image = image + rng.normal(0, 0.1, image.shape)
    positions = rng.uniform(20, args.size - 20, (args.sources, 2))

    print('radius orientations product                ms/source   time  memory over the prediction')
    for radius in args.radius:
        for orientations in args.orientations:
            estimator = NeuralBackgroundEstimator(fwhm=3.5, orientations=orientations)
            photometry = InpaintedAperturePhotometry([3, 4, 5], estimator=estimator)

            def predict(_=None, estimator=estimator, radius=radius):
                return estimator.estimate(image, positions, mask_radius=radius)

            estimator.estimate(image, positions[:16], mask_radius=radius)
            alone = measure(predict, lambda: None)
            rows = {'prediction': alone}
            for name, product in PRODUCTS.items():
                rows[name] = measure(
                    lambda result, p=photometry, product=product: product(result, p), predict
                )
            for name, (wall, memory) in rows.items():
                each = 1e3 * wall / args.sources
                print(f'{radius:6g} {orientations:12d} {name:22s} {each:12.1f} '
                      f'{wall / alone[0]:6.2f} {memory / alone[1]:7.2f}', flush=True)


if __name__ == '__main__':
    main()
