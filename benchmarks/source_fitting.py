"""Flux over truth of fits on predicted backgrounds, beside photutils' PSFPhotometry.

Sources of known flux are put onto maps. Peaks are those of the package's SNR: over the scatter of
the ring around the source. ``blurred`` fits use a PSF that is 5 % too wide and start 0.3 pixels
off. photutils fits the same PSF on the median of an annulus.

example: OPENBLAS_NUM_THREADS=1 python benchmarks/source_fitting.py maps \
         maps/validation/higal160_tile*.fits
"""

import argparse
import time
import warnings

import numpy as np
from astropy.io import fits as fits_file
from astropy.stats import mad_std
from astropy.table import QTable, Table
from photutils.background import LocalBackground
from photutils.psf import ImagePSF, PSFPhotometry, SourceGrouper
from scipy import ndimage

from csr_astro.cutouts import extract
from csr_astro.evaluation.positions import blank_positions, read_groups, separate_positions
from csr_astro.fitting.fit import FitOptions, fit_sources
from csr_astro.fitting.psf import pixel_psf
from csr_astro.images import parse_image
from csr_astro.instruments import get_instrument
from csr_astro.simulation.diffuse import power_law_field
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import gaussian_profile, moffat_profile, psf_stamp

# Beams over pixel scales, by the beginnings of the names of groups.
FWHM = {
    'higal70': 9.0 / 3.2, 'higal160': 13.0 / 4.5, 'higal250': 18.2 / 6, 'higal350': 24.9 / 8,
    'higal500': 36.3 / 11.5, 'spire250': 18.2 / 6,
}  # fmt: skip
# Radii of photutils' annulus, in FWHM.
ANNULUS = (2.5, 4.5)
WIDER = 1.05
OFFSET = 0.3


def photutils_fluxes(data, x, y, psf, *, grouper=None, fwhm=None, shape=None):
    """Fluxes of photutils, NaN where it has none."""
    fwhm = psf.fwhm if fwhm is None else fwhm
    oversampling = psf.oversampling
    model = ImagePSF(psf.table, oversampling=oversampling)
    size = 2 * int(np.ceil(1.25 * fwhm)) + 1 if shape is None else shape
    photometry = PSFPhotometry(
        model, size, grouper=grouper, aperture_radius=fwhm,
        local_bkg_estimator=LocalBackground(*(fwhm * radius for radius in ANNULUS)),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        table = photometry(
            data, mask=~np.isfinite(data), init_params=QTable({'x': np.array(x), 'y': np.array(y)})
        )
    return np.array(table['flux_fit'], dtype=float)


def summary(ratio, pull):
    """Median, robust scatter, and how often the truth is within 1 and 2 standard errors."""
    ratio, pull = ratio[np.isfinite(ratio)], pull[np.isfinite(pull)]
    within = [100 * np.mean(np.abs(pull) < k) for k in (1, 2)] if len(pull) else [np.nan] * 2
    return np.median(ratio), mad_std(ratio), *within


def measure_group(images, fwhm, snr, n, seed):
    """Ratios of fit, blurred fit, photutils and blurred photutils; pulls of the fits."""
    rng = np.random.default_rng(seed)
    places = blank_positions(images, n, 5.0, rng)
    profile, wide = gaussian_profile(fwhm), gaussian_profile(WIDER * fwhm)
    exact, blurred = pixel_psf(profile), pixel_psf(wide)
    peak = psf_stamp(profile).max()
    instrument = get_instrument('generic', fwhm=fwhm)
    rows, seconds = [], 0.0
    for m in np.unique(places['map']):
        here = places[places['map'] == m]
        px, py = (np.array(here[name], dtype=float) for name in ('x', 'y'))
        data = images[m]
        contrast = _ring_scatter(data, px, py, instrument)
        px, py = (p + rng.uniform(-0.5, 0.5, len(p)) for p in (px, py))
        flux = snr * contrast / peak
        for members in separate_positions(px, py, 30):
            x, y, truth = px[members], py[members], flux[members]
            injected = inject_sources(data, x, y, truth, profile)
            angle = rng.uniform(0, 2 * np.pi, len(x))
            sx, sy = x + OFFSET * np.cos(angle), y + OFFSET * np.sin(angle)
            image = parse_image(injected)
            start = time.perf_counter()
            fits = [fit_sources(image, x, y, exact), fit_sources(image, sx, sy, blurred)]
            seconds += time.perf_counter() - start
            peers = [photutils_fluxes(injected, x, y, exact, fwhm=fwhm),
                     photutils_fluxes(injected, sx, sy, blurred, fwhm=fwhm)]
            rows.append(np.column_stack([
                *(fit.flux / truth for fit in fits), *(peer / truth for peer in peers),
                *((fit.flux - truth) / fit.flux_err for fit in fits),
                *(fit.chi2 / fit.dof for fit in fits),
            ]))
    return np.concatenate(rows), seconds / (2 * n)


def _ring_scatter(data, x, y, instrument):
    """Standard deviation of the ring of the package's SNR."""
    _, inner, outer = instrument.snr_radii
    yy, xx = np.indices(data.shape)
    scatter = []
    for column, row in zip(x, y, strict=True):
        distance = np.hypot(xx - column, yy - row)
        scatter.append(np.nanstd(data[(distance >= inner) & (distance <= outer)]))
    return np.array(scatter)


def run_maps(args):
    """Structured maps."""
    print('group        SNR  method     fit: median scatter  1s  2s | photutils: median scatter '
          '  fit/peer  ms/source')
    for group, images in read_groups(args.files).items():
        fwhm = FWHM.get(group.split('_')[0], 3.0)
        for snr in args.snr:
            rows, seconds = measure_group(images, fwhm, snr, args.number, args.seed)
            for k, name in enumerate(('exact', 'blurred')):
                fit = summary(rows[:, k], rows[:, 4 + k])
                peer = summary(rows[:, 2 + k], np.zeros(0))
                print(f'{group:12s} {snr:4g} {name:8s}  {fit[0]:8.3f} {fit[1]:8.4f} {fit[2]:4.0f} '
                      f'{fit[3]:4.0f} | {peer[0]:8.3f} {peer[1]:8.4f}  {fit[1] / peer[1]:6.2f} '
                      f'{1e3 * seconds:6.0f}  chi2 {np.nanmedian(rows[:, 6 + k]):.2f}', flush=True)


def run_crowd(args):
    """A crowded field: fluxes over four decades, FWHM 3.4; quarters by flux."""
    rng = np.random.default_rng(args.seed)
    size, n = 368, 1000
    profile = moffat_profile(3.4, 3.0) if args.moffat else gaussian_profile(3.4)
    psf = pixel_psf(profile)
    x, y = rng.uniform(2, size - 2, (2, n))
    flux = 10 ** rng.uniform(1.5, 5.5, n)
    hills = ndimage.zoom(rng.normal(size=(8, 8)), size / 8, order=3)
    noise = rng.normal(0, 3, (size, size))
    data = inject_sources(50 + 20 * hills + noise, x, y, flux, profile)
    start_x, start_y = (p + rng.normal(0, 0.15, n) for p in (x, y))
    quarter = np.argsort(np.argsort(flux)) * 4 // n
    begin = time.process_time()
    fits = fit_sources(parse_image(data), start_x, start_y, psf)
    seconds = [time.process_time() - begin]
    begin = time.process_time()
    peer = photutils_fluxes(
        data, start_x, start_y, psf, grouper=SourceGrouper(1.5 * 3.4), fwhm=3.4, shape=9
    )
    seconds.append(time.process_time() - begin)
    print(f'CPU time {seconds[0]:.1f} s; photutils {seconds[1]:.1f} s')
    for k in range(4):
        here = quarter == k
        pull = (fits.flux - flux)[here] / fits.flux_err[here]
        fit = summary((fits.flux / flux)[here], pull)
        other = summary((peer / flux)[here], np.zeros(0))
        print(f'quarter {k + 1}: {fit[0]:.3f} {fit[1]:.4f} {fit[2]:4.0f} {fit[3]:4.0f} | '
              f'{other[0]:.3f} {other[1]:.4f}')


def _grid(rng, size, step, jitter=4.0):
    """Positions on a shaken grid."""
    axis = np.arange(step * 0.75, size - step / 2, step)
    return [a.ravel() + rng.uniform(-jitter, jitter, a.size) for a in np.meshgrid(axis, axis)]


def run_blends(args):
    """Pairs on structure and noise, by their separation in FWHM."""
    rng = np.random.default_rng(args.seed)
    fwhm = 3.4
    profile = gaussian_profile(fwhm)
    psf = pixel_psf(profile)
    print('separation ratio   first: median scatter   second: median scatter    1s  2s')
    for separation in (0.6, 0.8, 1.0, 1.5, 2.0):
        for contrast in (1.0, 0.3):
            x, y = _grid(rng, 400, 62)
            angle = rng.uniform(0, 2 * np.pi, len(x))
            x = np.append(x, x + separation * fwhm * np.cos(angle))
            y = np.append(y, y + separation * fwhm * np.sin(angle))
            flux = np.repeat([600.0, 600.0 * contrast], len(angle))
            data = rng.normal(0, 1, (400, 400)) + 3 * power_law_field((400, 400), -3, rng)
            data = inject_sources(data, x, y, flux, profile)
            start = (p + rng.normal(0, 0.15, len(p)) for p in (x, y))
            fits = fit_sources(parse_image(data), *start, psf)
            ratio, pull = fits.flux / flux, (fits.flux - flux) / fits.flux_err
            first, second = (summary(part, pull) for part in np.split(ratio, 2))
            print(f'{separation:10g} {contrast:5g}   {first[0]:13.3f} {first[1]:7.3f}   '
                  f'{second[0]:14.3f} {second[1]:7.3f}   {first[2]:4.0f} {first[3]:4.0f}',
                  flush=True)


def run_resolved(args):
    """Elliptical Gaussians convolved with the PSF, by their major axes in beams."""
    rng = np.random.default_rng(args.seed)
    fwhm = 3.0
    psf = pixel_psf(gaussian_profile(fwhm))
    axis = np.arange(400.0)
    print('beams ratio  flux: median scatter  pull  resolved  major minor  ms/source')
    for beams in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0):
        for flattening in (1.0, 0.6):
            x, y = _grid(rng, 400, 75)
            flux = 2000.0 * (1 + beams)
            data = 3 * power_law_field((400, 400), -3, rng) + rng.normal(0, 0.1, (400, 400))
            for column, row in zip(x, y, strict=True):
                angle = rng.uniform(0, np.pi)
                turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
                axes = np.diag([(beams * fwhm / 2.3548) ** 2 * q**2 for q in (1, flattening)])
                image = psf.convolved(turn @ axes @ turn.T)
                data += flux * image.evaluate(axis - column, axis - row)
            start = (p + rng.normal(0, 0.2, len(p)) for p in (x, y))
            begin = time.perf_counter()
            fits = fit_sources(parse_image(data), *start, psf, options=FitOptions(shape='gaussian'))
            seconds = (time.perf_counter() - begin) / len(x)
            pull = (fits.flux - flux) / fits.flux_err
            fit = summary(fits.flux / flux, pull)
            print(f'{beams:5g} {flattening:5g}  {fit[0]:12.3f} {fit[1]:7.3f}  {pull.mean():5.2f} '
                  f'{fits.extended.mean():8.2f} {np.median(fits.major) / fwhm:7.2f} '
                  f'{np.median(fits.minor) / fwhm:5.2f} {1e3 * seconds:8.0f}', flush=True)


def _fields(rng, size):
    y, x = np.indices((size, size))
    return {
        'white': rng.normal(0, 1, (size, size)),
        'plane': 0.05 * x + 0.02 * y + rng.normal(0, 0.05, (size, size)),
        'hills': 20 * np.sin(x / 25) * np.cos(y / 31) + rng.normal(0, 0.3, (size, size)),
        'gradient': (x / 40) ** 2 + rng.normal(0, 0.5, (size, size)),
        'stripes': rng.normal(0, 1, (size, 1)) + rng.normal(0, 0.3, (size, size)),
        'power law': 10 * power_law_field((size, size), -3, rng) + rng.normal(0, 0.1, (size, size)),
    }


def run_noise(args):
    """Pulls on simple fields, by SNR."""
    rng = np.random.default_rng(args.seed)
    profiles = {'Gaussian': gaussian_profile(3.5), 'Moffat': moffat_profile(3.5, 2.5)}
    print('field      PSF       SNR   mean pull +- error   scatter of pulls   ratio')
    for name in args.fields:
        for kind, profile in profiles.items():
            psf, peak = pixel_psf(profile), psf_stamp(profile).max()
            for snr in args.snr:
                pulls, ratios = [], []
                for _ in range(args.number):
                    data = _fields(rng, 400)[name]
                    x, y = _grid(rng, 400, 80, jitter=15)
                    around = extract(parse_image(data), x, y, 37)
                    flux = snr * np.median(np.nanstd(around, axis=(1, 2))) / peak
                    data = inject_sources(data, x, y, np.full(len(x), flux), profile)
                    fits = fit_sources(parse_image(data), x, y, psf)
                    pulls.append((fits.flux - flux) / fits.flux_err)
                    ratios.append(fits.flux / flux)
                mean, scatter = np.mean(pulls), np.std(pulls)
                print(f'{name:10s} {kind:9s} {snr:4g} {mean:8.2f} '
                      f'{scatter / np.sqrt(np.size(pulls)):8.2f} {scatter:14.2f} '
                      f'{np.median(ratios):14.4f}', flush=True)


def run_gaussians(args):
    """The public test of 500 Gaussians: map and truth.

    The Gaussians of that map have a cross term of half the sine of twice their position angle,
    ``exp(-(x² - x y sin 2 PA + y²) / 2 s²)``, while the table's flux is that of a round one.
    Their integral is larger by ``1 / sqrt(1 - sin²(2 PA) / 4)``: 7 % in the median.
    """
    data = fits_file.getdata(args.map).astype(float)
    truth = Table.read(args.truth, format='ascii.ipac')
    flux = np.array(truth['Flux_Integrated'])
    cross = np.sin(2 * np.radians(np.array(truth['PA']))) / 2
    begin = time.process_time()
    fits = fit_sources(
        parse_image(data), np.array(truth['X']), np.array(truth['Y']),
        pixel_psf(gaussian_profile(args.fwhm)), options=FitOptions(shape='gaussian'),
    )  # fmt: skip
    print(f'{time.process_time() - begin:.0f} s of CPU time')
    for name, values in {'table': flux, 'integral': flux / np.sqrt(1 - cross**2)}.items():
        fit = summary(fits.flux / values, (fits.flux - values) / fits.flux_err)
        print(f'flux over that of the {name}: median {fit[0]:.3f}, scatter {fit[1]:.3f}, '
              f'coverage {fit[2]:.0f} {fit[3]:.0f} %')


def main():
    """Print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    maps = commands.add_parser('maps', help=run_maps.__doc__)
    maps.add_argument('files', nargs='+')
    maps.add_argument('--snr', type=float, nargs='+', default=[4.0, 10.0, 40.0, 200.0])
    maps.add_argument('--number', type=int, default=60, help='sources per group [%(default)s]')
    maps.add_argument('--seed', type=int, default=0)
    maps.set_defaults(run=run_maps)
    crowd = commands.add_parser('crowd', help=run_crowd.__doc__)
    crowd.add_argument('--moffat', action='store_true', help='stars with wings')
    crowd.set_defaults(run=run_crowd)
    noise = commands.add_parser('noise', help=run_noise.__doc__)
    noise.add_argument('--number', type=int, default=4, help='maps of 25 stars [%(default)s]')
    noise.add_argument('--snr', type=float, nargs='+', default=[3.0, 30.0, 300.0])
    noise.add_argument('--fields', nargs='+', default=list(_fields(np.random.default_rng(), 32)))
    noise.set_defaults(run=run_noise)
    for name, run in {'blends': run_blends, 'resolved': run_resolved}.items():
        commands.add_parser(name, help=run.__doc__).set_defaults(run=run)
    gaussians = commands.add_parser('gaussians', help=run_gaussians.__doc__)
    gaussians.add_argument('map')
    gaussians.add_argument('truth')
    gaussians.add_argument('--fwhm', type=float, default=2.0, help='beam in pixels [%(default)s]')
    gaussians.set_defaults(run=run_gaussians)
    for command in set(commands.choices.values()) - {maps}:
        command.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    args.run(args)


if __name__ == '__main__':
    main()
