"""Compare the numbers of two revisions of the package, to the last bit.

Removes and measures the sources of a simulated field, and of maps that are named, with the
package of a revision of this repository and with the package of the working tree: source-free
map, errors, realization, table of photometry.

example: python benchmarks/compare_revisions.py 1439d4e spire250.fits
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


def measure(maps, output):
    """Measure with the package that is imported, and save all numbers."""
    from astropy.io import fits
    from photutils.detection import DAOStarFinder

    from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator
    from csr_astro.demo import simulated_field

    _, data, catalog = simulated_field()
    fields = {'simulated': (data, catalog, 3.5)}
    for path in maps:
        values = np.squeeze(fits.getdata(path)).astype(float)
        scatter = 1.4826 * np.nanmedian(np.abs(values - np.nanmedian(values)))
        finder = DAOStarFinder(3 * scatter, 3.0)
        found = finder(np.where(np.isfinite(values), values, np.nanmedian(values)))[:60]
        x, y = (found[n if n in found.colnames else n.replace('_', '')]
                for n in ('x_centroid', 'y_centroid'))
        fields[Path(path).stem] = values, np.column_stack([x, y]), 3.0
    numbers = {}
    for name, (values, sources, fwhm) in fields.items():
        estimator = NeuralBackgroundEstimator(fwhm=fwhm)
        result = estimator.estimate(values, sources)
        photometry = InpaintedAperturePhotometry([3, 5, 8], estimator=estimator, annulus=(10, 15))
        table = photometry(result)
        numbers |= {
            f'{name} background': np.asarray(result.background),
            f'{name} background_rms': np.asarray(result.background_rms),
            f'{name} realization': np.asarray(result.realization(3)),
        }
        for each in (result.sources, table):
            for column in each.colnames:
                if each[column].dtype is not None and each[column].dtype.kind in 'fi':
                    numbers[f'{name} {column}'] = np.asarray(each[column])
    np.savez(output, **numbers)


def run(tree, maps, output):
    """Measure with the package of a tree, on one thread."""
    threads = dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1')
    command = [sys.executable, __file__, '--measure', str(output), *map(str, maps)]
    subprocess.run(  # noqa: S603
        command, check=True, cwd=tree, env=os.environ | threads | {'PYTHONPATH': str(tree)}
    )
    return np.load(output)


def main():
    """Compare, and say what differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('revision', nargs='?', help='commit to compare with')
    parser.add_argument('maps', nargs='*', type=Path, help='FITS files of maps')
    parser.add_argument('--measure', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(filter(None, [args.revision, *args.maps]), args.measure)
        return 0
    if not args.revision:
        parser.error('name a revision')
    maps = [path.absolute() for path in args.maps]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / 'tree'
        git = ['git', '-C', str(ROOT), 'worktree']
        subprocess.run([*git, 'add', '-q', '--detach', tree, args.revision], check=True)  # noqa: S603
        try:
            old = run(tree, maps, Path(folder) / 'old.npz')
            new = run(ROOT, maps, Path(folder) / 'new.npz')
        finally:
            subprocess.run([*git, 'remove', '--force', tree], check=True)  # noqa: S603
    differ = sorted(set(old) ^ set(new))
    for name in sorted(set(old) & set(new)):
        if not np.array_equal(old[name], new[name], equal_nan=True):
            largest = np.nanmax(np.abs(old[name] - new[name])) / np.nanstd(old[name])
            differ.append(f'{name}: up to {largest:.1e} of its scatter')
    print(f'{len(set(old) & set(new))} arrays compared, {len(differ)} differ')
    print('\n'.join(differ))
    return int(bool(differ))


if __name__ == '__main__':
    sys.exit(main())
