"""Seconds until something happens: imports, the command, the first source, each in a new process.

Rounds of all of them alternate, and the median of each counts; ratios are to `import photutils`.

example: python benchmarks/startup.py --rounds 5
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits

FIRST = """
import numpy as np
from csr_astro import NeuralBackgroundEstimator
sky = np.random.default_rng(0).normal(size=(200, 200))
NeuralBackgroundEstimator(fwhm=3.5).estimate(sky, [(100, 100)])
"""
CASES = {
    'import photutils.aperture, .background': [
        '-c', 'import photutils.aperture, photutils.background'
    ],
    'import torch': ['-c', 'import torch'],
    'import csr_astro': ['-c', 'import csr_astro'],
    'csr-astro --version': ['-m', 'csr_astro.cli', '--version'],
    'from csr_astro import NeuralBackgroundEstimator': [
        '-c', 'from csr_astro import NeuralBackgroundEstimator'
    ],
    'first source': ['-c', FIRST],
    'csr-astro remove of one source': [
        '-m', 'csr_astro', 'remove', 'map.fits', '--pixel', '100', '90', '--fwhm', '3.5',
        '--overwrite',
    ],
}  # fmt: skip


def main():
    """Print one row per case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--rounds', type=int, default=5, help='[%(default)s]')
    args = parser.parse_args()
    seconds = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as folder:
        sky = np.random.default_rng(0).normal(size=(200, 200))
        fits.writeto(Path(folder) / 'map.fits', sky.astype(np.float32))
        for _ in range(args.rounds + 1):
            for name, words in CASES.items():
                start = time.perf_counter()
                subprocess.run(  # noqa: S603
                    [sys.executable, *words], check=True, cwd=folder,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                seconds[name].append(time.perf_counter() - start)
    # The first round reads files from the disk.
    medians = {name: statistics.median(each[1:]) for name, each in seconds.items()}
    photutils = next(iter(medians.values()))
    for name, median in medians.items():
        print(f'{name:48s} {median:6.2f} s {median / photutils:6.2f}')
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f'largest peak of memory: {peak:.0f} MB')


if __name__ == '__main__':
    main()
