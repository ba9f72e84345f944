"""Commands that measure how good predictions are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from csr_astro.commands import options

if TYPE_CHECKING:
    from argparse import Namespace

    from csr_astro.commands.options import Commands

__all__ = ['add_parser', 'run_accuracy', 'run_report', 'run_simulations', 'run_stars']


def add_parser(commands: Commands) -> None:
    """Add ``csr-astro evaluate``."""
    kinds = options.add_group(
        commands,
        'evaluate',
        'measure how good predictions are',
        'evaluate accuracy map.fits',
        'WHAT',
    )
    _add_accuracy(kinds)
    _add_report(kinds)
    _add_simulations(kinds)
    _add_stars(kinds)


def _add_accuracy(kinds: Commands) -> None:
    command = options.add_command(
        kinds,
        'accuracy',
        run_accuracy,
        'compare the background behind discs with that of other methods',
        [
            'evaluate accuracy maps/*.fits -o accuracy',
            'evaluate accuracy maps/*.fits --weights w.safetensors --positions positions.ecsv',
            'evaluate accuracy --gaussian --methods network,lpi',
            'evaluate accuracy map.fits --inject --instrument pacs-scanmap-blue -o accuracy',
        ],
    )
    command.add_argument(
        'maps', metavar='MAP', nargs='*',
        help='FITS files or folders; files whose names differ by _tileNN are one group',
    )
    command.add_argument('-o', '--output', metavar='FOLDER', help='folder for the tables')
    command.add_argument(
        '--weights', default='default', help='name or file of weights [%(default)s]'
    )
    command.add_argument('--orientations', type=int, choices=(1, 2, 4, 8),
                         help='flips and rotations to average over [8]')
    command.add_argument('--device', help='cpu, cuda or mps [a GPU if present]')
    command.add_argument(
        '--methods', metavar='NAME[,NAME...]',
        help='network, annulus_mean, annulus_median, plane, background_2d, biharmonic, maskfill, '
        'lpi; the first is compared with the others [all installed]',
    )
    command.add_argument(
        '--number', type=int, default=300,
        help='positions for each group and radius [%(default)s]',
    )
    command.add_argument('--radii', type=float, nargs='+', default=[5.0, 9.0, 12.0], metavar='R',
                         help='radii of the discs in pixels [5 9 12]')
    command.add_argument('--aperture', type=float, nargs='+', default=[4.0], metavar='R',
                         help='radii of the apertures in pixels [4]')
    command.add_argument('--gaussian', action='store_true',
                         help='also on Gaussian fields, with the best possible prediction')
    command.add_argument('--inject', action='store_true', help='also behind injected sources')
    command.add_argument('--instrument', help='instrument of the injected sources [generic]')
    command.add_argument('--psf', metavar='FILE', help='FITS image of the PSF [of the instrument]')
    command.add_argument('--fwhm', type=float, metavar='PIXELS',
                         help='beam (FWHM) of any other instrument')
    command.add_argument('--flux-levels', metavar='F[,F...]',
                         help='injected fluxes, as sums of the map [contrasts of 3 to 1000]')
    command.add_argument('--positions', metavar='FILE',
                         help='positions.ecsv of an earlier evaluation')
    command.add_argument('--seed', type=int, default=0, help='seed of the positions [%(default)s]')


def run_accuracy(args: Namespace) -> None:
    """Compare methods behind discs without sources and print the tables."""
    from csr_astro.evaluation.accuracy import evaluate_accuracy, get_methods
    from csr_astro.evaluation.positions import read_groups, read_positions
    from csr_astro.instruments import get_instrument

    if not args.inject and (args.psf or args.flux_levels):
        raise ValueError('--psf and --flux-levels are of injected sources, and need --inject.')
    names = None if args.methods is None else args.methods.split(',')
    methods = get_methods(
        names, args.weights, orientations=args.orientations, device=args.device
    )
    tables = evaluate_accuracy(
        read_groups(args.maps),
        methods,
        args.output,
        n=args.number,
        radii=args.radii,
        apertures=args.aperture,
        gaussian=args.gaussian,
        inject=args.inject,
        psf=args.psf,
        instrument=get_instrument(args.instrument or 'generic', args.fwhm),
        flux_levels=options.numbers(args.flux_levels, '--flux-levels'),
        positions=None if args.positions is None else read_positions(args.positions),
        seed=args.seed,
        progress=True,
    )
    for name, table in tables.items():
        if name != 'positions' and not name.endswith('_errors'):
            print(f'{name}:')
            print('\n'.join(table.pformat(max_lines=-1, max_width=-1)))
    if args.output:
        print(f'written: {", ".join(f"{name}.ecsv" for name in tables)} in {args.output}')


def _add_report(kinds: Commands) -> None:
    command = options.add_command(
        kinds,
        'report',
        run_report,
        'report on one removal: a page with pictures and numbers',
        [
            'evaluate report map.fits catalog.ecsv --instrument pacs-scanmap-blue -o report',
            'evaluate report map.fits --inject --fwhm 18.2arcsec -o report',
            'evaluate report simulated/map.fits simulated/map.ecsv --truth truth.fits -o report',
            'evaluate report --field lognormal --instrument pacs-scanmap-blue -o report',
        ],
        parents=[options.map_options(nargs='?'), options.removal_options()],
    )
    command.add_argument('-o', '--output', required=True, metavar='FOLDER',
                         help='folder for report.html, figures and tables')
    command.add_argument('--inject', type=int, nargs='?', const=2, metavar='N',
                         help='inject N sets of sources and remove them [2]')
    command.add_argument('--field', metavar='KIND',
                         help='inject into a synthetic field: power-law, lognormal, filaments, ...')
    command.add_argument('--pixel-scale', type=float, metavar='ARCSEC',
                         help='pixels of the synthetic field [of the instrument]')
    command.add_argument('--truth', metavar='FILE',
                         help='map without sources; flux of the catalogue is then in mJy')
    command.add_argument('--apertures', metavar='R[,R...]',
                         help='radii: pixels, or 6arcsec [those of the paper, or by the beam]')
    command.add_argument('--methods', metavar='NAME[,NAME...]',
                         help='methods of "evaluate accuracy" to compare with [annulus]')
    command.add_argument('--number', type=int, default=40,
                         help='number of masked discs of each radius [%(default)s]')
    command.add_argument(
        '--seed', type=int, default=0, help='seed of all random numbers [%(default)s]'
    )
    command.add_argument('--title', help='heading of the page')


def run_report(args: Namespace) -> None:
    """Write the report on one removal."""
    from csr_astro.evaluation.report import write_report

    page = Path(args.output) / 'report.html'
    if Path(args.output).is_dir():
        options.refuse_overwrite(args, page)
    evaluation = _evaluation(args)
    name = 'a simulated field' if args.map is None else Path(args.map).name
    page = write_report(
        args.output, evaluation, title=args.title or f'Sources removed from {name}',
        overwrite=args.overwrite, progress=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    print(f'written: {page}')


def _evaluation(args):
    """Evaluation of a map with a catalogue, or with injected sources."""
    from csr_astro.evaluation.report import Evaluation
    from csr_astro.evaluation.simulations import injected_flux
    from csr_astro.images import read_image

    settings = {
        'methods': args.methods.split(',') if args.methods else [],
        'number': args.number,
        'seed': args.seed,
    }
    inject = args.inject or args.field
    if inject and (args.catalog or args.position or args.pixel or args.truth or args.find):
        raise ValueError('sources are either injected (--inject, --field) or given, not both.')
    if (args.map is None) == (args.field is None):
        raise ValueError('give a MAP with a CATALOG or --inject, or a --field without a map.')
    image, header = _report_map(args)
    estimator = options.make_estimator(args, header)
    settings['apertures'] = _radii(args, image)
    if inject:
        return Evaluation.injected(
            image, estimator, simulations=args.inject or 2, **settings
        )
    sources = options.read_sources(args, image, estimator)
    result = estimator.estimate(
        image, sources, mask_radius=options.mask_radius(args), **options.catalog_options(args)
    )
    truth = flux = None
    if args.truth:
        truth = read_image(args.truth)[0].data
        flux = injected_flux(sources)
    return Evaluation(result, truth, flux, **settings)


def _report_map(args):
    if args.field is None:
        return options.read_map(args)
    from csr_astro.images import parse_image
    from csr_astro.simulation.field import synthetic_map

    field = synthetic_map(
        args.field, (512, 512), [args.seed, 4, 0], level=5e-3, scatter=1e-3, noise=0.1,
        pixel_scale=options.field_scale(args),
    )  # fmt: skip
    return parse_image(field), {}


def _radii(args, image):
    """Radii of apertures in pixels."""
    from astropy import units as u

    if args.apertures is None:
        return None
    radii = options.aperture_radii(args)
    if image.pixel_scale is None and any(isinstance(each, u.Quantity) for each in radii):
        raise ValueError('--apertures are angles, and the map has no WCS; give pixels.')
    return [
        each.to_value(u.arcsec) / image.pixel_scale if isinstance(each, u.Quantity) else each
        for each in radii
    ]


def _add_simulations(kinds: Commands) -> None:
    command = options.add_command(
        kinds,
        'simulations',
        run_simulations,
        'fluxes of the injected sources of many simulations: box plots and tables',
        [
            'evaluate simulations simulated -o report',
            'evaluate simulations simulated/*mJy.fits --preset paper -o report',
        ],
        parents=[options.removal_options()],
    )
    command.add_argument(
        'simulations', metavar='FOLDER', nargs='+',
        help='folders of "csr-astro simulate" or of the published tool, or their maps',
    )
    command.add_argument('-o', '--output', required=True, metavar='FOLDER',
                         help='for report.html, PNG and ECSV')
    command.add_argument('--apertures', metavar='R[,R...]',
                         help='radii for fluxes in pixels [of the paper for PACS]')
    command.add_argument('--methods', metavar='NAME[,NAME...]',
                         help='to compare with, see "evaluate accuracy" [the annulus]')
    command.add_argument('--title', default='Fluxes of injected sources',
                         help='heading of the page')


def run_simulations(args: Namespace) -> None:
    """Measure the sources of simulations and write the report."""
    from csr_astro.evaluation.simulations import (
        find_simulations,
        measure_simulations,
        write_simulations_report,
    )

    page = Path(args.output) / 'report.html'
    if Path(args.output).is_dir():
        options.refuse_overwrite(args, page)
    table = measure_simulations(
        find_simulations(*args.simulations),
        apertures=options.numbers(args.apertures, '--apertures'),
        methods=args.methods.split(',') if args.methods else (),
        progress=lambda line: print(line, file=sys.stderr, flush=True),
        **options.estimator_options(args),
    )
    page = write_simulations_report(
        args.output, table, title=args.title, overwrite=args.overwrite
    )
    print(f'written: {page}')


def _add_stars(kinds: Commands) -> None:
    command = options.add_command(
        kinds,
        'stars',
        run_stars,
        'measure the standard stars on maps of PACS',
        ['evaluate stars maps/*.fits', 'evaluate stars map.fits --apertures 10arcsec,12arcsec'],
    )
    command.add_argument('maps', metavar='MAP', nargs='+', help='FITS files')
    command.add_argument('-o', '--output', metavar='FILE', help='table to write')
    command.add_argument('--apertures', default='12arcsec', metavar='R[,R...]',
                         help='radii as angles [%(default)s]')
    command.add_argument('--instrument', help='name from "csr-astro instruments" [from the header]')
    options.add_psf(command)
    command.add_argument(
        '--weights', default='default', help='name or file of weights [%(default)s]'
    )
    command.add_argument('--device', help='cpu, cuda or mps [a GPU if present]')
    command.add_argument('--overwrite', action='store_true', help='replace an existing table')


def run_stars(args: Namespace) -> None:
    """Measure the standard stars and print the table."""
    from csr_astro.evaluation.standard_stars import measure_stars

    if args.output:
        from csr_astro.tables import check_table_path, write_table

        check_table_path(args.output)
        options.refuse_overwrite(args, Path(args.output))
    from astropy import units as u

    apertures = options.aperture_radii(args)
    if not all(isinstance(each, u.Quantity) for each in apertures):
        raise ValueError(f'--apertures must be angles such as 12arcsec, got {args.apertures!r}.')
    table = measure_stars(
        args.maps,
        apertures=u.Quantity(apertures),
        instrument=args.instrument,
        estimator_options={'weights': args.weights, 'device': args.device, 'psf': args.psf},
    )
    if not len(table):
        raise ValueError('there is no standard star on these maps.')
    shown = [name for name in table.colnames if name not in ('map', 'reference_source')]
    print('\n'.join(table[shown].pformat(max_lines=-1, max_width=-1)))
    if args.output:
        write_table(args.output, table)
        print(f'written: {args.output}')
