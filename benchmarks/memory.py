"""Memory of `csr-astro remove` as a multiple of the map, from a FITS file to a FITS file.

Each row is a process of its own. Its peak, pages of memory-mapped files included, is compared with
that of the same command on a map of 200 x 200 pixels, which is the memory of the libraries and of
one batch. Exits with 1 if a ratio is above its limit.

example: OMP_NUM_THREADS=1 python benchmarks/memory.py --size 8192 --sources 10 1000
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

# Largest ratios that are accepted: of a file that is mapped, and of one that is read.
LIMITS = {'mapped': 1.5, 'scaled': 3.0}


def write_map(path, kind, size):
    """Write noise, row by row: 32 bits, or 16 bits that are scaled when they are read."""
    header = fits.Header({'SIMPLE': True, 'BITPIX': -32, 'NAXIS': 2, 'NAXIS1': size,
                          'NAXIS2': size})  # fmt: skip
    if kind == 'scaled':
        header.update({'BITPIX': 16, 'BSCALE': 0.01, 'BZERO': 0.0})
    writer = fits.StreamingHDU(str(path), header)
    rng = np.random.default_rng(0)
    for start in range(0, size, 128):
        rows = rng.standard_normal((min(128, size - start), size), dtype=np.float32)
        writer.write((100 * rows).astype('i2') if kind == 'scaled' else rows)
    writer.close()


def peak_megabytes(path, catalog, output, options):
    """Peak of memory of a removal."""
    words = ['remove', path, catalog, '-o', output, '--overwrite', '--fwhm', '3.5', *options]
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, '-m', 'csr_astro', *map(str, words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError('the removal failed.')
    return usage.ru_maxrss / 1024


def main():
    """Print one row per kind of file and number of sources."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--size', type=int, default=8192, help='pixels per side [%(default)s]')
    parser.add_argument('--sources', type=int, nargs='+', default=[10])
    parser.add_argument('--orientations', default='1', help='[%(default)s]')
    args = parser.parse_args()
    failed = 0
    print('file     sources  map MB  peak MB libraries ratio limit')
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        small, large = folder / 'small.fits', folder / 'large.fits'
        output, catalog = folder / 'clean.fits', folder / 'sources.csv'
        for kind, limit in LIMITS.items():
            write_map(small, kind, 200)
            write_map(large, kind, args.size)
            megabytes = args.size**2 * 4 / 2**20
            for n in args.sources:
                peaks = []
                for path, size, number in ((small, 200, min(n, 32)), (large, args.size, n)):
                    xy = np.random.default_rng(1).uniform(20, size - 20, (number, 2))
                    Table(xy, names=('x', 'y')).write(catalog, overwrite=True)
                    options = ['--orientations', args.orientations]
                    peaks.append(peak_megabytes(path, catalog, output, options))
                ratio = (peaks[1] - peaks[0]) / megabytes
                failed += ratio > limit
                print(f'{kind:8s} {n:7d} {megabytes:7.0f} {peaks[1]:8.0f} {peaks[0]:9.0f} '
                      f'{ratio:5.2f} {limit:5.1f}', flush=True)  # fmt: skip
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
