"""Time and memory from a FITS file to the map without its sources, or to a table of fluxes.

Peers fill the same discs of the same map in the same process: photutils' annulus, and where they
are installed maskfill, the biharmonic fill of scikit-image, and LPI. Each row is a process of its
own, so that its peak of memory is its own; part of it are pages of the memory-mapped file. The
network and the kriging that it is shown are given as shares of the time.

example: OMP_NUM_THREADS=2 python benchmarks/pipeline.py --sizes 512 2048 4096 --sources 100 2000
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits

COLUMNS = (
    f'{"size":>6s} {"sources":>7s} {"s":>7s} {"sources/s":>9s} {"network":>7s} {"kriging":>7s}'
    f' {"peak MB":>8s} {"mapped":>7s}'
    '  ms per source: all of this, then peers'
)
# Sources that peers are timed on, which take the same for each.
N_PEERS = 40


def make_map(path, size, n_sources, seed=0):
    """Write noise with sources, row by row, and return the sources' positions."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(20, size - 20, (2, n_sources))
    header = fits.Header({'SIMPLE': True, 'BITPIX': -32, 'NAXIS': 2, 'NAXIS1': size,
                          'NAXIS2': size})  # fmt: skip
    writer = fits.StreamingHDU(str(path), header)
    steps = np.arange(-9, 10)
    stamp = np.exp(-4 * np.log(2) * (steps[:, None] ** 2 + steps**2) / 3.5**2)
    for start in range(0, size, 256):
        rows = min(256, size - start)
        block = rng.standard_normal((rows + 40, size), dtype=np.float32)
        for column, row in zip(x, y, strict=True):
            if start - 10 <= row < start + rows + 10:
                i, j = int(row) - start + 20 - 9, int(column) - 9
                block[i : i + 19, j : j + 19] += 100 * stamp
        writer.write(block[20 : 20 + rows])
    writer.close()
    return np.column_stack([x, y])


def timed(function, shares, name):
    """The function, which adds the seconds that it takes to ``shares``."""

    def wrapper(*arguments, **options):
        start = time.perf_counter()
        output = function(*arguments, **options)
        shares[name] += time.perf_counter() - start
        return output

    return wrapper


def measure(args):
    """One row, in this process."""
    import torch

    from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator
    from csr_astro.nn import inpainter
    from csr_astro.nn.inpainter import Inpainter

    size, n_sources = args.one
    shares = {'network': 0.0, 'kriging': 0.0}
    Inpainter.predict_normalized = timed(Inpainter.predict_normalized, shares, 'network')
    inpainter.kriging_fills = timed(inpainter.kriging_fills, shares, 'kriging')
    estimator = NeuralBackgroundEstimator(fwhm=3.5, orientations=args.orientations)
    photometry = InpaintedAperturePhotometry(4.0, estimator=estimator)
    rng = np.random.default_rng(1)
    estimator.estimate(rng.normal(size=(96, 96)), [(48, 48)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'map.fits'
        positions = make_map(path, size, n_sources)
        shares.update(network=0.0, kriging=0.0)
        start = time.perf_counter()
        with fits.open(path, memmap=True) as hdus:
            result = estimator.estimate(hdus[0], positions)
            if args.photometry:
                photometry(result)
        took = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        mapped = mapped_megabytes()
        with fits.open(path, memmap=True) as hdus:
            peers = time_peers(hdus[0].data, positions[:N_PEERS]) if args.peers else {}
    peers = {'csr_astro': took / n_sources} | peers
    text = ', '.join(f'{name} {1e3 * each:.1f}' for name, each in peers.items())
    parts = ' '.join(f'{seconds / took:7.2f}' for seconds in shares.values())
    print(f'{size:6d} {n_sources:7d} {took:7.1f} {n_sources / took:9.1f} {parts} '
          f'{peak:8.0f} {mapped:7.0f}  {text} ({torch.get_num_threads()} threads)', flush=True)


def mapped_megabytes():
    """Pages of files in memory, which the system takes back when it needs them (Linux)."""
    status = Path('/proc/self/status')
    if not status.exists():
        return float('nan')
    line = next(each for each in status.read_text().splitlines() if each.startswith('RssFile'))
    return int(line.split()[1]) / 1024


def time_peers(data, positions):
    """Seconds per source of other methods for discs of 7 pixels."""
    from photutils.aperture import ApertureStats, CircularAnnulus

    from csr_astro.cutouts import extract
    from csr_astro.evaluation.baselines import get_baselines
    from csr_astro.images import parse_image

    start = time.perf_counter()
    _ = ApertureStats(np.asarray(data), CircularAnnulus(positions, 9, 19)).median
    found = {'annulus': (time.perf_counter() - start) / len(positions)}
    windows = extract(parse_image(data), *positions.T, 97)
    distance = np.hypot(*np.ogrid[-48:49, -48:49])
    hole = distance <= 7
    for name, fill in get_baselines().items():
        if name not in ('maskfill', 'biharmonic', 'lpi'):
            continue
        start = time.perf_counter()
        for values in windows:
            fill(np.where(hole, np.nan, values), np.isfinite(values) & ~hole, hole, 48, 48, 7)
        found[name] = (time.perf_counter() - start) / len(positions)
    return found


def main():
    """Print one row per size and number."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--sizes', type=int, nargs='+', default=[512, 2048, 4096],
                        help='pixels per side')
    parser.add_argument('--sources', type=int, nargs='+', default=[100, 500])
    parser.add_argument('--orientations', type=int, default=8)
    parser.add_argument('--photometry', action='store_true',
                        help='then a table of fluxes with their errors')
    parser.add_argument('--peers', action='store_true', help='time other methods too')
    parser.add_argument('--one', type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args)
        return
    print(COLUMNS)
    options = ['--orientations', str(args.orientations)]
    options += ['--photometry'] * args.photometry + ['--peers'] * args.peers
    for size in args.sizes:
        for n_sources in args.sources:
            one = ['--one', str(size), str(n_sources)]
            subprocess.run([sys.executable, __file__, *one, *options], check=True)  # noqa: S603


if __name__ == '__main__':
    main()
