"""Compare the numbers of two revisions of the package, in units of their errors.

Removes and measures the sources of a simulated field, and of maps that are named, with the
package of a revision of this repository and with the package of the working tree: source-free
map, errors, realization, table of photometry. Values are compared in units of their errors,
errors relative to themselves. Another order of the same sums changes less than 1e-6.

example: python benchmarks/compare_revisions.py 1439d4e spire250.fits --float32
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


def measure(maps, output, options):
    """Measure with the package that is imported, and save all numbers."""
    import torch
    from astropy.io import fits
    from photutils.detection import DAOStarFinder

    from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator
    from csr_astro.demo import simulated_field

    torch.set_num_threads(1)
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
        estimator = NeuralBackgroundEstimator(fwhm=fwhm, **options)
        result = estimator.estimate(values, sources)
        photometry = InpaintedAperturePhotometry([3, 5, 8], estimator=estimator, annulus=(10, 15))
        table = photometry(result)
        numbers |= {
            f'{name} map of the background': np.asarray(result.background),
            f'{name} map of the errors': np.asarray(result.background_rms),
            f'{name} map of a realization': np.asarray(result.realization(3)),
        }
        for each in (result.sources, table):
            for column in each.colnames:
                if each[column].dtype is not None and each[column].dtype.kind in 'fi':
                    numbers[f'{name} {column}'] = np.asarray(each[column])
    np.savez(output, **numbers)


def unit_of(name, numbers):
    """The errors of some numbers: their own column, the map of errors, or the numbers."""
    field, _, column = name.partition(' ')
    for value, error in (('flux', 'flux_err'), ('aperture_sum', 'aperture_sum_err')):
        if column.startswith(value) and not column.startswith(error):
            return numbers[f'{field} {column.replace(value, error)}']
    if column.startswith('map of'):
        rms = numbers[f'{field} map of the errors']
        return np.where(rms > 0, rms, 1)
    if column in ('background', 'background_scatter'):
        return numbers[f'{field} background_scatter']
    if column.startswith('background_sum'):
        return numbers[f'{field} {column.replace("background_sum", "aperture_sum_err")}']
    return np.abs(numbers[name])


def run(tree, maps, output, options):
    """Measure with the package of a tree, on one thread."""
    threads = dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1')
    command = [sys.executable, __file__, '--measure', str(output), *map(str, maps), *options]
    subprocess.run(  # noqa: S603
        command, check=True, cwd=tree, env=os.environ | threads | {'PYTHONPATH': str(tree)}
    )
    return np.load(output)


def main():
    """Compare, and say what differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('revision', nargs='?', help='commit to compare with')
    parser.add_argument('maps', nargs='*', type=Path, help='FITS files of maps')
    parser.add_argument('--tolerance', type=float, default=0.0,
                        help='largest difference that counts as none, in errors [%(default)g]')
    parser.add_argument('--float32', action='store_true',
                        help='compute so in both, else as each does by default')
    parser.add_argument('--measure', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        options = {'dtype': 'float32'} if args.float32 else {}
        measure(filter(None, [args.revision, *args.maps]), args.measure, options)
        return 0
    if not args.revision:
        parser.error('name a revision')
    maps = [path.absolute() for path in args.maps]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / 'tree'
        git = ['git', '-C', str(ROOT), 'worktree']
        subprocess.run([*git, 'add', '-q', '--detach', tree, args.revision], check=True)  # noqa: S603
        try:
            options = ['--float32'] * args.float32
            old = run(tree, maps, Path(folder) / 'old.npz', options)
            new = run(ROOT, maps, Path(folder) / 'new.npz', options)
        finally:
            subprocess.run([*git, 'remove', '--force', tree], check=True)  # noqa: S603
    differ = sorted(set(old) ^ set(new))
    for name in sorted(set(old) & set(new)):
        if not np.array_equal(np.isnan(old[name]), np.isnan(new[name])):
            differ.append(f'{name}: other values are NaN')
        elif not np.array_equal(old[name], new[name], equal_nan=True):
            with np.errstate(divide='ignore', invalid='ignore'):
                distance = np.abs(new[name] - old[name]) / unit_of(name, old)
            # Where the error is 0 or unknown, only equal numbers agree.
            distance = np.where(old[name] == new[name], 0, np.nan_to_num(distance, nan=np.inf))
            distance[np.isnan(old[name])] = 0
            if distance.max() > args.tolerance:
                changed = np.sqrt(np.mean(distance[distance > 0] ** 2))
                differ.append(f'{name}: up to {distance.max():.1e} of its error, rms {changed:.1e}')
    print(f'{len(set(old) & set(new))} arrays compared, {len(differ)} differ')
    print('\n'.join(differ))
    return int(bool(differ))


if __name__ == '__main__':
    sys.exit(main())
