"""Purity and completeness of the finder, beside photutils' DAOStarFinder at equal numbers of false.

Sources of known peak, 3 to 30 scatters of the ring around them, are put onto maps. DAOStarFinder
runs on the map less its Background2D, once as it is and once over the background's scatter; the
better of the two counts. The background is subtracted with boxes of 10 FWHM. Everything that is
found where nothing was injected is false: on the maps ("map", where real sources count as false
for both) and on maps of which the sign is changed, so that they hold no source ("flip").

example: OPENBLAS_NUM_THREADS=1 python benchmarks/source_finding.py maps \
         maps/validation/higal160_tile*.fits
"""

import argparse
import time
import warnings

import numpy as np
from astropy.io import fits as fits_file
from astropy.stats import mad_std
from astropy.table import Table
from photutils.background import Background2D, MedianBackground
from photutils.detection import DAOStarFinder
from scipy.spatial import KDTree

from csr_astro import NeuralBackgroundEstimator, NeuralSourceFinder
from csr_astro.evaluation.positions import blank_positions, read_groups, separate_positions
from csr_astro.instruments import get_instrument
from csr_astro.simulation.diffuse import power_law_field
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import gaussian_profile, psf_stamp

# Beams over pixel scales, by the beginnings of the names of groups.
FWHM = {
    'higal70': 9.0 / 3.2, 'higal160': 13.0 / 4.5, 'higal250': 18.2 / 6, 'higal350': 24.9 / 8,
    'higal500': 36.3 / 11.5, 'spire250': 18.2 / 6,
}  # fmt: skip
SNR = (3, 5, 8, 12, 30)
# A source is found if it is this near, in FWHM.
MATCH = 0.6
LOWEST = 3.0


def ours(data, fwhm, lowest):
    """Positions and significances by the finder."""
    finder = NeuralSourceFinder(NeuralBackgroundEstimator(fwhm=fwhm), lowest)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        table = finder(data)
    return _rows(table, lambda table: table['snr'])


def daofind(data, fwhm, *, scaled):
    """Positions and peaks by photutils."""
    mask = ~np.isfinite(data)
    box = np.minimum(int(10 * fwhm), data.shape)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            background = Background2D(data, box, mask=mask, filter_size=3, exclude_percentile=50,
                                      bkg_estimator=MedianBackground())  # fmt: skip
            level, scatter = background.background, background.background_rms
        except ValueError:
            level, scatter = np.nanmedian(data), np.full(data.shape, mad_std(data, ignore_nan=True))
        left = np.where(mask, 0, data - level)
        left = left / np.maximum(scatter, 1e-9 * scatter.max()) if scaled else left
        threshold = 0.7 * mad_std(left[~mask])
        table = DAOStarFinder(threshold, fwhm)(left, mask=mask)
    return _rows(table, lambda table: threshold * 10 ** (-0.4 * np.array(table['daofind_mag'])))


def _rows(table, rank):
    if table is None:
        return np.zeros((0, 3))
    x, y = (next(n for n in table.colnames if n in (f'{a}_centroid', f'{a}centroid')) for a in 'xy')
    return np.column_stack([table[x], table[y], rank(table)]).astype(float)


METHODS = {
    'finder': lambda data, fwhm: ours(data, fwhm, LOWEST),
    'daofind': lambda data, fwhm: daofind(data, fwhm, scaled=False),
    'daofind/rms': lambda data, fwhm: daofind(data, fwhm, scaled=True),
}


def ring_scatter(data, x, y, instrument):
    """Standard deviation of the ring of the package's SNR."""
    _, inner, outer = instrument.snr_radii
    yy, xx = np.indices(data.shape)
    distance = (np.hypot(xx - column, yy - row) for column, row in zip(x, y, strict=True))
    return np.array([np.nanstd(data[(d >= inner) & (d <= outer)]) for d in distance])


def measure_group(images, fwhm, n, seed):
    """Significances of all false detections, by kind of map, and of all injected sources."""
    rng = np.random.default_rng(seed)
    instrument = get_instrument('generic', fwhm=fwhm)
    profile = gaussian_profile(fwhm)
    peak = psf_stamp(profile).max()
    places = blank_positions(images, n, 5.0, rng)
    false = {name: {'map': [], 'flip': []} for name in METHODS}
    found = {name: [] for name in METHODS}
    seconds, truth = dict.fromkeys(METHODS, 0.0), []
    for m, data in enumerate(images):
        for name, method in METHODS.items():
            for kind, sign in (('map', 1), ('flip', -1)):
                false[name][kind] += list(method(sign * data, fwhm)[:, 2])
        here = places[places['map'] == m]
        px, py = (np.array(here[name], dtype=float) for name in ('x', 'y'))
        if not len(px):
            continue
        contrast = ring_scatter(data, px, py, instrument)
        px, py = (p + rng.uniform(-0.5, 0.5, len(p)) for p in (px, py))
        snr = rng.choice(SNR, len(px)).astype(float)
        for members in separate_positions(px, py, 30):
            x, y = px[members], py[members]
            flux = (snr * contrast / peak)[members]
            injected = inject_sources(data, x, y, flux, profile)
            truth += list(snr[members])
            for name, method in METHODS.items():
                start = time.perf_counter()
                rows = method(injected, fwhm)
                seconds[name] += time.perf_counter() - start
                found[name] += list(_match(rows, x, y, MATCH * fwhm))
    return false, found, np.array(truth), seconds


def _match(rows, x, y, distance):
    """Significance of the detection nearest to each position; -inf for none."""
    if not len(rows):
        return np.full(len(x), -np.inf)
    near, index = KDTree(rows[:, :2]).query(np.column_stack([x, y]))
    return np.where(near <= distance, rows[index, 2], -np.inf)


def completeness(found, truth, false, number):
    """Part of the sources that are found, by SNR, with so many false ones."""
    false = np.sort(false)[::-1]
    limit = false[number] if number < len(false) else -np.inf
    seen = np.array(found) > limit
    return [100 * seen[truth == snr].mean() if (truth == snr).any() else np.nan for snr in SNR] + [
        100 * seen.mean()
    ]


def run_maps(args):
    """Structured maps."""
    print('group        kind false  method      ' + ' '.join(f'SNR{snr:3d}' for snr in SNR)
          + '    all  seconds')
    for group, every in read_groups(args.files).items():
        images = every[: args.images]
        fwhm = FWHM.get(group.split('_')[0], 3.0)
        false, found, truth, seconds = measure_group(images, fwhm, args.number, args.seed)
        for kind in ('map', 'flip'):
            at_threshold = int((np.array(false['finder'][kind]) >= args.threshold).sum())
            for number in sorted({at_threshold, args.number // 20, args.number // 4}):
                for name in METHODS:
                    rates = completeness(found[name], truth, false[name][kind], number)
                    marked = '*' if number == at_threshold else ' '
                    print(f'{group:12s} {kind:4s} {number:5d}{marked} {name:11s} '
                          + ' '.join(f'{rate:6.0f}' for rate in rates)
                          + f' {seconds[name]:8.1f}', flush=True)


def run_noise(args):
    """False sources in white noise, power laws and simple fields, by threshold."""
    rng = np.random.default_rng(args.seed)
    size = args.size
    y, x = np.indices((size, size))
    fields = {
        'white': lambda: rng.normal(0, 1, (size, size)),
        'red -2': lambda: power_law_field((size, size), -2, rng),
        'red -3': lambda: power_law_field((size, size), -3, rng),
        'red -3 + white': lambda: (
            3 * power_law_field((size, size), -3, rng) + rng.normal(0, 0.3, (size, size))
        ),
        'hills': lambda: 20 * np.sin(x / 25) * np.cos(y / 31) + rng.normal(0, 0.3, (size, size)),
        'stripes': lambda: rng.normal(0, 1, (size, 1)) + rng.normal(0, 0.3, (size, size)),
    }
    print('field            found at 3   4   5 sigma, in pixels of so many, seconds')
    for name, field in fields.items():
        start, levels = time.perf_counter(), []
        for _ in range(args.number):
            levels += list(ours(field(), 3.0, 3.0)[:, 2])
        counts = [int((np.array(levels) >= k).sum()) for k in (3, 4, 5)]
        seconds = (time.perf_counter() - start) / args.number
        print(f'{name:16s} {counts[0]:10d} {counts[1]:3d} {counts[2]:3d}  '
              f'{args.number * size**2:9d} {seconds:6.1f}', flush=True)


def run_gaussians(args):
    """The public test of 500 elliptical Gaussians."""
    data = fits_file.getdata(args.map).astype(float)
    truth = Table.read(args.truth, format='ascii.ipac')
    finder = NeuralSourceFinder(
        NeuralBackgroundEstimator(fwhm=args.fwhm), args.threshold, max_size=args.max_size
    )
    start = time.perf_counter()
    rows = _rows(finder(data), lambda table: table['snr'])
    seconds = time.perf_counter() - start
    position = np.column_stack([truth['X'], truth['Y']])
    distance, _ = KDTree(rows[:, :2]).query(position)
    away, _ = KDTree(position).query(rows[:, :2])
    print(f'{seconds:.0f} s: {len(rows)} found, {(distance < args.near).sum()} of {len(truth)} '
          f'sources, {(away >= args.near).sum()} false')


def main():
    """Print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    maps = commands.add_parser('maps', help=run_maps.__doc__)
    maps.add_argument('files', nargs='+')
    maps.add_argument('--number', type=int, default=100, help='sources per group [%(default)s]')
    maps.add_argument('--images', type=int, help='maps per group, at most [all]')
    maps.add_argument('--threshold', type=float, default=5.0)
    maps.set_defaults(run=run_maps)
    noise = commands.add_parser('noise', help=run_noise.__doc__)
    noise.add_argument('--number', type=int, default=4, help='maps per field [%(default)s]')
    noise.add_argument('--size', type=int, default=512)
    noise.set_defaults(run=run_noise)
    for command in (maps, noise):
        command.add_argument('--seed', type=int, default=0)
    gaussians = commands.add_parser('gaussians', help=run_gaussians.__doc__)
    gaussians.add_argument('map')
    gaussians.add_argument('truth')
    gaussians.add_argument('--fwhm', type=float, default=3.0, help='beam in pixels [%(default)s]')
    gaussians.add_argument('--max-size', type=float, default=2.0)
    gaussians.add_argument('--threshold', type=float, default=4.0)
    gaussians.add_argument('--near', type=float, default=2.0, help='match, pixels [%(default)s]')
    gaussians.set_defaults(run=run_gaussians)
    args = parser.parse_args()
    args.run(args)


if __name__ == '__main__':
    main()
