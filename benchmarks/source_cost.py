"""Processor time of each step for one source, beside another revision and other methods.

A field of 1,024 x 1,024 pixels with 300 sources, and one of 368 x 368 pixels with 1,000, are
removed and measured on one thread. Times are those of the processor (`time.process_time`), in ms
for each source; other programs change them less than the clock. Rounds of both revisions
alternate, and the least time of each step counts. "textbook" is the network as Liu et al. (2018)
write it, masks convolved in every channel, one cutout at a time. Peers predict behind the same
discs (photutils' annulus, and maskfill, biharmonic fill and LPI where they are installed).

example: python benchmarks/source_cost.py df44d24 --orientations 2 8
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
FIELDS = {'isolated': (1024, 300), 'crowded': (368, 1000)}


class Clock:
    """Processor time of functions, in ms for each source, by name."""

    def __init__(self):
        self.spent = defaultdict(float)

    def call(self, name, function, *arguments, **options):
        """Call a function, and add the time that it takes."""
        start = time.process_time()
        output = function(*arguments, **options)
        self.spent[name] += 1e3 * (time.process_time() - start)
        return output

    def watch(self, owner, name, label):
        """Add the time of every call of an attribute from now on."""
        function = getattr(owner, name)
        setattr(owner, name, lambda *a, **o: self.call(label, function, *a, **o))


def make_field(size, n_sources, seed=0):
    """Power-law field with noise and Gaussian sources of many fluxes, and their positions."""
    from csr_astro.simulation.diffuse import power_law_field

    rng = np.random.default_rng(seed)
    data = power_law_field((size, size), -3, 1) + rng.normal(0, 0.3, (size, size))
    positions = rng.uniform(20, size - 20, (n_sources, 2))
    steps = np.arange(-15, 16)
    for (x, y), peak in zip(positions, 10 ** rng.uniform(0.7, 2.5, n_sources), strict=True):
        rows, columns = int(y) + steps, int(x) + steps
        rows, columns = (each[(each >= 0) & (each < size)] for each in (rows, columns))
        distance2 = (rows[:, None] - y) ** 2 + (columns - x) ** 2
        data[np.ix_(rows, columns)] += peak * np.exp(-4 * np.log(2) * distance2 / 3.5**2)
    return data, positions


def measure(name, orientations, dtype):
    """Times of one field with the package that is imported."""
    import torch

    from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator
    from csr_astro.nn import inpainter

    torch.set_num_threads(1)
    data, positions = make_field(*FIELDS[name])
    options = {} if dtype is None else {'dtype': dtype}
    estimator = NeuralBackgroundEstimator(fwhm=3.5, orientations=orientations, **options)
    photometry = InpaintedAperturePhotometry(4.0, estimator=estimator)
    start = estimator.estimate(data[:200, :200], [(60, 60), (120, 90)])
    photometry(start), start.background_rms
    clock = Clock()
    clock.watch(inpainter, 'kriging_fills', 'kriging')
    clock.watch(inpainter.Inpainter, 'predict_normalized', 'network')
    result = clock.call('prediction', estimator.estimate, data, positions)
    clock.call('fluxes', photometry, result)
    again = estimator.estimate(data, positions)
    clock.call('errors', lambda: again.background_rms)
    clock.call('fluxes after errors', photometry, again)
    spent = {step: each / len(positions) for step, each in clock.spent.items()}
    # The second prediction was watched too.
    spent['network'], spent['kriging'] = spent['network'] / 2, spent['kriging'] / 2
    spent['map to fluxes'] = spent['prediction'] + spent['fluxes']
    spent['all'] = spent['prediction'] + spent['errors'] + spent['fluxes after errors']
    return spent


def measure_others(orientations, n=16):
    """Times of the textbook network, and of peers, for each source."""
    from types import SimpleNamespace

    import pipeline
    import torch
    from inference import Textbook, cutouts

    from csr_astro.nn.unet import PartialConvUNet

    torch.set_num_threads(1)
    clock = Clock()
    textbook, one = Textbook(PartialConvUNet(0.25).eval()), cutouts(1)
    with torch.inference_mode():
        textbook(*one)
        clock.call('textbook network', lambda: [textbook(*one) for _ in range(n)])
    # Of the processor, as for all steps.
    pipeline.time = SimpleNamespace(perf_counter=time.process_time)
    found = {'textbook network': orientations * clock.spent['textbook network'] / n}
    data, positions = make_field(512, n)
    return found | {name: 1e3 * each for name, each in pipeline.time_peers(data, positions).items()}


def run(tree, what):
    """Measure with the package of a tree, in a process of its own."""
    threads = dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1')
    path = os.pathsep.join([str(tree), str(ROOT / 'benchmarks')])
    done = subprocess.run(  # noqa: S603
        [sys.executable, __file__, '--measure', json.dumps(what)],
        check=True, cwd=tree, env=os.environ | threads | {'PYTHONPATH': path},
        stdout=subprocess.PIPE,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Print one row for each step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('revision', nargs='?', help='commit to compare with')
    parser.add_argument('--orientations', type=int, nargs='+', default=[8])
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'), help='[by the package]')
    parser.add_argument('--fields', nargs='+', default=list(FIELDS), choices=list(FIELDS))
    parser.add_argument('--rounds', type=int, default=2, help='[%(default)s]')
    parser.add_argument('--peers', action='store_true', help='time other methods too')
    parser.add_argument('--measure', type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        kind, *rest = args.measure
        print(json.dumps({'cost': measure, 'others': measure_others}[kind](*rest)))
        return
    with tempfile.TemporaryDirectory() as folder:
        trees = {'this': ROOT}
        git = ['git', '-C', str(ROOT), 'worktree']
        if args.revision:
            trees = {args.revision: Path(folder) / 'tree', 'this': ROOT}
            command = [*git, 'add', '-q', '--detach', str(trees[args.revision]), args.revision]
            subprocess.run(command, check=True)  # noqa: S603
        try:
            report(trees, args)
        finally:
            if args.revision:
                command = [*git, 'remove', '--force', str(trees[args.revision])]
                subprocess.run(command, check=True)  # noqa: S603


def report(trees, args):
    """Measure all revisions, and print their times and ratios."""
    for orientations in args.orientations:
        totals = {}
        for name in args.fields:
            least = {tree: defaultdict(lambda: np.inf) for tree in trees}
            for _ in range(args.rounds):
                for tree, folder in trees.items():
                    found = run(folder, ['cost', name, orientations, args.dtype])
                    for step, each in found.items():
                        least[tree][step] = min(each, least[tree][step])
            totals[name] = least['this']['map to fluxes']
            size, number = FIELDS[name]
            print(f'\n{orientations} orientations, {name}: {number} sources, {size} pixels a side')
            print(f'{"ms a source":20s}' + ''.join(f'{tree:>10s}' for tree in trees) + '     ratio')
            for step in least['this']:
                row = [least[tree][step] for tree in trees]
                print(f'{step:20s}' + ''.join(f'{each:10.2f}' for each in row)
                      + f'{row[0] / row[-1]:10.2f}', flush=True)
        if len(totals) == 2:
            print(f'crowded over isolated: {totals["crowded"] / totals["isolated"]:.2f}')
        if args.peers:
            mine = totals.get('isolated') or next(iter(totals.values()))
            for name, each in run(ROOT, ['others', orientations]).items():
                print(f'{name:20s}{each:10.2f} ms a source, {each / mine:.2f} of map to fluxes')


if __name__ == '__main__':
    main()
