"""Scatter of the background sum behind discs without sources: network over annulus.

example: python benchmarks/background_accuracy.py maps/validation --number 200
"""

import argparse

import numpy as np

from csr_astro import NeuralBackgroundEstimator
from csr_astro.evaluation.accuracy import background_accuracy, robust_scatter
from csr_astro.training.data import read_maps


def main():
    """Print a table: a row for each kind of map, a column for each radius."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', help='FITS maps; files whose names differ by _tileNN are a kind')
    parser.add_argument('--weights', default='default', help='name or file [%(default)s]')
    parser.add_argument('--radii', type=float, nargs='+', default=[5, 9, 12], help='of the discs')
    parser.add_argument('--aperture', type=float, default=4.0, help='radius [%(default)s pixels]')
    parser.add_argument('--number', type=int, default=200, help='discs per kind [%(default)s]')
    parser.add_argument('--orientations', type=int, default=8, choices=(1, 2, 4, 8))
    parser.add_argument('--seed', type=int, default=0, help='decides the places')
    args = parser.parse_args()

    estimator = NeuralBackgroundEstimator(args.weights, orientations=args.orientations)
    print('robust scatter of the network over that of the annulus (median, mean)')
    print(f'{"":24s}' + ''.join(f'{f"r = {radius:g}":>14s}' for radius in args.radii))
    ratios = []
    for kind, images in read_maps(args.folder, block_sizes=(1,)).items():
        row = []
        for radius in args.radii:
            errors = background_accuracy(
                estimator,
                images,
                radius=radius,
                aperture=args.aperture,
                n=args.number,
                seed=args.seed,
            )
            network = robust_scatter(errors['network'])
            row.append(
                [network / robust_scatter(errors[f'annulus_{s}']) for s in ('median', 'mean')]
            )
        print(f'{kind:24s}' + ''.join(f'{a:7.3f}{b:7.3f}' for a, b in row), flush=True)
        ratios.append(row)
    average, worst = np.mean(ratios, axis=(0, 1)), np.max(ratios, axis=(0, 1))
    print(f'average {average[0]:.3f} {average[1]:.3f}, worst {worst[0]:.3f} {worst[1]:.3f}')


if __name__ == '__main__':
    main()
