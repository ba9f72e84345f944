"""The paper's network and ours, kriging, LPI, maskfill and an annulus, on the same places.

Behind discs without sources: robust scatter and rms of the error of the background's sum in an
aperture of 4 pixels over those of the annulus' median, and the mean error (bias) over the local
scatter. Behind injected PACS sources: median of measured over injected flux and its interquartile
range. All methods get the same discs, valid pixels and masks; only the network of the preset
"paper" normalises with the pixels under the masks, as published. The tables of the page "The
paper's method and ours" are the output.

example: OMP_NUM_THREADS=1 python benchmarks/paper_and_ours.py MAPS --number 20 -o tables
With other weights: the same with --again ours,paper, which keeps the numbers of the other methods.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from astropy.table import Table, vstack

from csr_astro import NeuralBackgroundEstimator
from csr_astro.evaluation.baselines import get_baselines
from csr_astro.evaluation.discs import background_errors
from csr_astro.evaluation.injected import injected_errors
from csr_astro.evaluation.positions import draw_positions, read_groups
from csr_astro.instruments import get_instrument
from csr_astro.kriging import kriging_fill
from csr_astro.simulation.psf import instrument_profile
from csr_astro.tables import write_table

BAND = 'pacs-scanmap-blue'
APERTURE = 4.0
LEVELS = (8, 60, 300, 1000)
NAMES = {
    'ours': 'ours', 'paper': "the paper's", 'kriging': 'kriging', 'lpi': 'LPI',
    'maskfill': 'maskfill', 'annulus_median': 'annulus',
}  # fmt: skip


def kriging(values, valid, hole, x, y, radius):
    """Kriging alone, as the network of the default weights is shown it."""
    del x, y
    return kriging_fill(np.where(valid, values, 0.0), valid, hole, float(radius))


def make_methods(device):
    """Methods by name; those of packages that are not installed are left out."""
    estimators = {
        'ours': NeuralBackgroundEstimator(instrument=BAND, device=device),
        'paper': NeuralBackgroundEstimator(instrument=BAND, preset='paper', device=device),
    }
    peers = get_baselines()
    wanted = {'kriging': kriging} | {
        name: peers[name] for name in ('lpi', 'maskfill', 'annulus_median') if name in peers
    }
    return estimators | wanted


def draw(groups, radii, n, seed):
    """Places for discs, of each group and radius; small maps have no room for large ones."""
    parts = []
    for group, images in groups.items():
        for radius in radii:
            try:
                parts.append(
                    draw_positions({group: images}, [radius], n, aperture=APERTURE, seed=seed)
                )
            except ValueError as error:
                print(f'left out: {error}', file=sys.stderr)
    return vstack(parts, metadata_conflicts='silent')


def update(path, errors, methods):
    """Put the errors of methods into the table of an earlier run, if there is one."""
    if path.exists():
        known = Table.read(path)
        if len(known) != len(errors) or not np.allclose(known['x'], errors['x']):
            raise ValueError(f'{str(path)!r} is of other places; choose another folder.')
        for name in [*methods, *(f'{name}_err' for name in methods)]:
            if name in errors.colnames:
                known[name] = errors[name]
        errors = known
    write_table(path, errors)
    return errors


def over_annulus(errors, names):
    """Scatter and rms over those of the annulus, and bias over the local scatter, by group."""
    rows = []
    for group in [*dict.fromkeys(errors['group']), 'mean']:
        for name in names:
            row = {'group': group, 'method': name}
            parts = [
                errors[(errors['group'] == each) & (errors['radius'] == radius)]
                for each in (dict.fromkeys(errors['group']) if group == 'mean' else [group])
                for radius in np.unique(errors['radius'])
            ]
            numbers = [_numbers(part, name) for part in parts if len(part) > 2]
            if not numbers:
                continue
            row['scatter'], row['rms'], row['bias'] = np.mean(numbers, axis=0)
            rows.append(row)
    return Table(rows)


def _numbers(part, name):
    error, annulus, local = (
        np.array(part[column], dtype=float) for column in (name, 'annulus_median', 'local')
    )
    good = np.isfinite(error) & np.isfinite(annulus) & (local > 0)
    # In units of the local scatter, so that places of one map count alike.
    error, annulus = error[good] / local[good], annulus[good] / local[good]
    half = [np.diff(np.percentile(each, [15.87, 84.13]))[0] / 2 for each in (error, annulus)]
    rms = [np.sqrt(np.mean(each**2)) for each in (error, annulus)]
    return half[0] / half[1], rms[0] / rms[1], np.mean(error)


def as_rst(table, value, names, first):
    """Lines of a simple reST table: a row for each ``first``, a column for each method."""
    keys = list(dict.fromkeys(table[first]))
    width = max(len(str(key)) for key in [*keys, first]) + 1
    heads = [NAMES.get(name, name) for name in names]
    bar = '=' * width + ' ' + ' '.join('=' * max(len(head), 15) for head in heads)
    lines = [bar, ' '.join([f'{first:{width}s}', *(f'{head:15s}' for head in heads)]), bar]
    for key in keys:
        cells = []
        for name in names:
            row = table[(table[first] == key) & (table['method'] == name)]
            cells.append(value(row[0]) if len(row) else '')
        lines.append(' '.join([f'{key!s:{width}s}', *(f'{cell:15s}' for cell in cells)]))
    return '\n'.join([*lines, bar])


def main():
    """Measure, write the tables and print them for the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('maps', nargs='+', help='FITS files or folders')
    parser.add_argument('--number', type=int, default=20, help='discs per map and radius [20]')
    parser.add_argument('--injected', type=int, default=10, help='sources per map and level [10]')
    parser.add_argument('--radii', type=float, nargs='+', default=[5.0, 9.0, 12.0])
    parser.add_argument('--again', metavar='NAME[,NAME]', help='only these methods anew')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('-o', '--output', required=True, help='folder for the tables')
    args = parser.parse_args()
    groups = read_groups(args.maps)
    methods = make_methods(args.device)
    names = list(methods)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    measured = {name: methods[name] for name in args.again.split(',')} if args.again else methods
    places = draw(groups, args.radii, args.number, args.seed)
    blank = background_errors(groups, places, measured, apertures=(APERTURE,), progress=True)
    blank = update(folder / 'blank_errors.ecsv', blank, measured)
    table = over_annulus(blank, names)
    write_table(folder / 'blank.ecsv', table)
    print(f'\n{len(blank)} discs: scatter / rms over those of the annulus, bias\n')
    print(as_rst(
        table, lambda row: f'{row["scatter"]:.2f} {row["rms"]:.2f} {row["bias"]:+.2f}', names,
        'group',
    ))  # fmt: skip
    # Large enough for the instrument's annulus around a source.
    large = {
        name: images for name, images in groups.items() if max(min(i.shape) for i in images) > 100
    }
    places = draw(large, [max(args.radii)], args.injected, args.seed)
    # Positions of sources are not tied to pixels.
    rng = np.random.default_rng([args.seed, 11])
    for name in ('x', 'y'):
        places[name] += rng.uniform(-0.5, 0.5, len(places))
    errors = injected_errors(
        large, places, measured, instrument_profile(get_instrument(BAND)), instrument=BAND,
        levels=LEVELS, apertures=(APERTURE,), progress=True,
    )  # fmt: skip
    errors = update(folder / 'injected_errors.ecsv', errors, measured)
    errors['SNR'] = np.array(LEVELS)[_level(errors)]
    rows = []
    for level in LEVELS:
        part = errors[errors['SNR'] == level]
        for name in names:
            ratio = 1 - np.array(part[name]) / np.array(part['flux_aperture'])
            low, middle, high = np.nanpercentile(ratio, [25, 50, 75])
            rows.append({'SNR': level, 'method': name, 'ratio': middle, 'iqr': high - low})
    injected = Table(rows)
    write_table(folder / 'injected.ecsv', injected)
    print(f'\n{len(errors)} injected sources: median ratio of fluxes, interquartile range\n')
    print(as_rst(injected, lambda row: f'{row["ratio"]:.3f} {row["iqr"]:.3f}', names, 'SNR'))


def _level(errors):
    """Number of the flux level of each row, within its group."""
    number = np.zeros(len(errors), dtype=int)
    for group in np.unique(errors['group']):
        here = np.flatnonzero(errors['group'] == group)
        number[here] = np.unique(np.array(errors['flux'][here]), return_inverse=True)[1].ravel()
    return number


if __name__ == '__main__':
    main()
