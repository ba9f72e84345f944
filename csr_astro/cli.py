"""The command ``csr-astro``.

Every subcommand is a function that takes the parsed arguments; all it knows
is what to read, what to call and what to write.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ['main']

_FAILED, _INTERRUPTED = 1, 130


# ---------------------------------------------------------------------------------- subcommands


def _remove(args):
    from csr_astro.flags import count_sources
    from csr_astro.products import describe_removal, write_source_free
    from csr_astro.tables import check_table_path, write_table
    from csr_astro.utils.files import atomic_path, stem

    map_path = Path(args.map)
    output = Path(args.output or f'{stem(map_path)}_source_free.fits')
    table_path = Path(args.table or f'{stem(output)}.ecsv')
    check_table_path(table_path)
    _refuse_overwrite(args, output, table_path)
    # The map itself may be replaced, if that is asked for.
    _keep_inputs(output, args.catalog)
    _keep_inputs(table_path, args.map, args.catalog)
    image, header = _read_map(args)
    estimator = _estimator(args, header)
    result = estimator.estimate(image, _sources(args), mask_radius=_mask_radius(args))
    background = None
    if args.realization is not None:
        background = result.realization(args.realization)
    # Both are complete before either takes its name.
    with atomic_path(table_path) as new_table, atomic_path(output) as new_map:
        write_table(new_table, result.sources)
        write_source_free(
            new_map,
            map_path,
            result,
            hdu=args.hdu,
            background=background,
            history=describe_removal(result, args.realization, errors=args.errors),
            errors=args.errors,
        )
    print(f'{count_sources(result.sources, "removed")}: {output}, {table_path}')


def _photometry(args):
    from csr_astro import InpaintedAperturePhotometry
    from csr_astro.flags import count_sources
    from csr_astro.tables import check_table_path, write_table
    from csr_astro.utils.files import stem

    output = Path(args.output or f'{stem(Path(args.map))}_photometry.ecsv')
    check_table_path(output)
    _refuse_overwrite(args, output)
    _keep_inputs(output, args.map, args.catalog)
    image, header = _read_map(args)
    photometry = InpaintedAperturePhotometry(
        **_photometry_options(args), estimator=_estimator(args, header)
    )
    table = photometry(image, _sources(args), mask_radius=_mask_radius(args))
    write_table(output, table)
    shown = table[[name for name in table.colnames
                   if name in ('id', 'snr', 'mask_name', 'flags') or 'flux' in name]]
    # With all its digits a table of two apertures is too wide to be printed.
    for name in shown.colnames:
        if name == 'snr' or 'flux' in name:
            shown[name].info.format = '.1f' if name == 'snr' else '.5g'
    print('\n'.join(shown.pformat(max_lines=24, max_width=120, show_unit=True)))
    correction = table.meta['aperture_correction']
    print('fluxes: sums of pixels, ' + (
        'nothing added for what lies outside the aperture' if correction == 'none'
        else f'over the enclosed energy ({correction})'
    ))  # fmt: skip
    print(f'{count_sources(table, "measured")}: {output}')


def _batch(args):
    from csr_astro.batch import MANIFEST, read_jobs, remove_many, require_dask

    require_dask()
    if not args.apertures and (args.annulus or args.aperture_correction):
        raise ValueError('photometry needs --apertures.')
    manifest = remove_many(
        read_jobs(args.maps, args.catalog),
        args.output,
        cluster={
            'scheduler': args.scheduler, 'workers': args.workers, 'threads': args.threads,
        },
        hdu=args.hdu,
        mask_radius=_mask_radius(args),
        photometry=_photometry_options(args) if args.apertures else None,
        errors=args.errors,
        split=args.split,
        overwrite=args.overwrite,
        progress=True,
        **_estimator_options(args),
    )  # fmt: skip
    path = Path(args.output) / MANIFEST
    failed = manifest[manifest['status'] == 'failed']
    for row in failed:
        print(f'{row["map"]}: {row["message"]}', file=sys.stderr)
    if len(failed):
        raise RuntimeError(f'{len(failed)} of {len(manifest)} maps failed, see {path}')
    print(f'{len(manifest)} of {len(manifest)} maps done, see {path}')


def _demo(args):
    import numpy as np

    from csr_astro.demo import run_demo

    folder = Path(args.output)
    table = run_demo(folder, weights=args.weights, seed=args.seed, progress=True)
    print('   id    injected    measured  +-  error       ratio   annulus ratio')
    for row in table:
        print(
            f'{row["id"]:5d}  {row["injected"]:10.2f}  {row["flux"]:10.2f}  +- '
            f'{row["flux_err"]:6.2f}  {row["flux"] / row["injected"]:10.3f}  '
            f'{row["annulus_flux"] / row["injected"]:14.3f}'
        )
    for name, column in (('network', 'flux'), ('annulus', 'annulus_flux')):
        error = table[column] - table['injected']
        scatter = 1.4826 * np.median(np.abs(error - np.median(error)))
        print(f'{name}: median error {np.median(error):+.2f}, scatter {scatter:.2f}')
    print(f'written: {folder / "demo.fits"}, {folder / "demo.ecsv"}, {folder / "demo.png"}')


def _weights_list(args):
    del args
    from csr_astro.nn.weights import list_weights, read_info

    for name in list_weights():
        info = read_info(name)
        print(f'{name}: width {info.width}, {info.normalization} normalisation. {info.title}')


def _weights_info(args):
    from csr_astro.nn.weights import read_info

    info = read_info(args.weights)
    for name in info.__dataclass_fields__:
        if name != 'path':
            print(f'{name}: {getattr(info, name)}')


def _weights_convert(args):
    from csr_astro.nn.weights import convert_checkpoint, read_info

    _refuse_overwrite(args, Path(args.output))
    _keep_inputs(Path(args.output), args.checkpoint)
    convert_checkpoint(args.checkpoint, args.output, title=args.title, licence=args.licence)
    print(f'written: {args.output}, SHA-256 {read_info(args.output).sha256}')


def _instruments(args):
    del args
    from csr_astro.instruments import MASK_NAMES, get_instrument, list_instruments

    print(f'{"name":20s} {"beam":>6s} {"pixel":>6s}  mask radii [pixel] ({", ".join(MASK_NAMES)})')
    for name in list_instruments():
        band = get_instrument(name)
        scale = band.pixel_scale
        beam = f'{band.fwhm * scale:.1f}"' if scale else f'{band.fwhm:.1f} px'
        pixel = f'{scale:.1f}"' if scale else ''
        radii = ' '.join(f'{radius:.3g}' for radius in band.mask_radii)
        print(f'{name:20s} {beam:>6s} {pixel:>6s}  {radii}')
        print(f'{"":20s} {band.description}')


def _simulate(args):
    from csr_astro.simulation.simulate import write_simulations

    fields = [_real_field(args, path) for path in args.maps]
    if args.field or args.match:
        fields += _synthetic_fields(args)
    if not fields:
        raise ValueError('give a MAP with few sources, or a --field or a map to --match.')
    options = {
        'psf': _psf(args),
        'instrument': args.instrument,
        'number': args.number,
        'separation': args.separation,
        'angle': None if args.angle is None else math.radians(args.angle),
        'elongation': args.elongation,
        'fast_scan': args.fast_scan,
        'levels': _numbers(args.flux_levels, '--flux-levels'),
        'lowest': args.lowest,
        'highest': args.highest,
        'random': args.random or 0,
        'seed': args.seed,
    }
    written = write_simulations(
        args.output, fields, dataset=args.dataset, layout=args.layout, overwrite=args.overwrite,
        progress=lambda line: print(line, flush=True), **options,
    )  # fmt: skip
    print(f'written: {written.n_maps} maps with tables in {args.output}')
    for split, count in written.cutouts.items():
        print(f'{split}: {count} cutouts in {args.dataset}')


def _evaluate_accuracy(args):
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
        flux_levels=_numbers(args.flux_levels, '--flux-levels'),
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


def _evaluate_report(args):
    from csr_astro.evaluation.report import write_report

    page = Path(args.output) / 'report.html'
    if Path(args.output).is_dir():
        _refuse_overwrite(args, page)
    evaluation = _evaluation(args)
    name = 'a simulated field' if args.map is None else Path(args.map).name
    page = write_report(
        args.output, evaluation, title=args.title or f'Sources removed from {name}',
        overwrite=args.overwrite, progress=lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    print(f'written: {page}')


def _evaluate_stars(args):
    from csr_astro.evaluation.standard_stars import measure_stars

    if args.output:
        from csr_astro.tables import check_table_path, write_table

        check_table_path(args.output)
        _refuse_overwrite(args, Path(args.output))
    from astropy import units as u

    apertures = [_length(text, '--apertures') for text in args.apertures.split(',')]
    if not all(isinstance(each, u.Quantity) for each in apertures):
        raise ValueError(f'--apertures must be angles such as 12arcsec, got {args.apertures!r}.')
    table = measure_stars(
        args.maps,
        apertures=u.Quantity(apertures),
        instrument=args.instrument,
        estimator_options={'weights': args.weights, 'device': args.device},
    )
    if not len(table):
        raise ValueError('there is no standard star on these maps.')
    shown = [name for name in table.colnames if name not in ('map', 'reference_source')]
    print('\n'.join(table[shown].pformat(max_lines=-1, max_width=-1)))
    if args.output:
        write_table(args.output, table)
        print(f'written: {args.output}')


def _train(args):
    from csr_astro.images import read_image
    from csr_astro.training.data import CutoutSampler, read_maps
    from csr_astro.training.loop import train
    from csr_astro.training.recipe import read_recipe

    recipe = read_recipe(args.recipe)
    maps = read_maps(args.maps) if args.maps else {}
    validation = read_maps(args.validation, block_sizes=(1,)) if args.validation else {}
    psfs = [read_image(path)[0].data for path in args.psf]
    options = {'source_fraction': recipe.source_fraction}
    sampler = CutoutSampler(
        maps, psfs, real_fraction=recipe.real_fraction, seed=recipe.seed, **options
    )
    validation_sampler = CutoutSampler(
        validation, psfs, real_fraction=1.0, seed=recipe.seed + 1000, **options
    )
    card = {
        'title': args.title,
        'licence': args.licence,
        'training_data': args.training_data
        or f'{len(maps)} kinds of real maps ({", ".join(maps) or "none"}) and synthetic fields',
    }
    path = train(
        recipe,
        sampler,
        validation_sampler,
        args.output,
        resume=args.resume,
        device=args.device,
        card=card,
        devices=args.devices,
        workers=args.workers,
    )
    # Each device runs this command; the first one speaks.
    if os.environ.get('LOCAL_RANK', '0') == '0':
        print(f'best weights: {path}')


# --------------------------------------------------------------------- arguments into objects


def _refuse_overwrite(args, *paths):
    if len({path.absolute() for path in paths}) < len(paths):
        raise ValueError(f'{str(paths[0])!r} cannot be both the map and the table.')
    for path in paths:
        if path.exists() and not args.overwrite:
            raise ValueError(f'{str(path)!r} exists; give --overwrite to replace it.')
        if not path.parent.is_dir():
            raise ValueError(f'there is no folder {str(path.parent)!r} to write to.')
        if not os.access(path.parent, os.W_OK):
            raise ValueError(f'the folder {str(path.parent)!r} cannot be written to.')


def _keep_inputs(output, *inputs):
    for path in inputs:
        if path and output.exists() and Path(path).exists() and output.samefile(path):
            raise ValueError(f'{str(output)!r} would be replaced, and is an input.')


def _read_map(args):
    from csr_astro.images import read_image

    return read_image(args.map, args.hdu)


def _sources(args):
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    from csr_astro.sources import read_sources

    given = [bool(args.catalog), bool(args.position), bool(args.pixel)]
    if sum(given) != 1:
        raise ValueError('give the sources once: a CATALOG, or --position, or --pixel.')
    if args.catalog:
        return read_sources(args.catalog)
    if args.pixel:
        return args.pixel
    coordinates = []
    for text in args.position:
        try:
            coordinates.append(SkyCoord(text.replace(',', ' '), unit=_angle_units(text)).icrs)
        except (ValueError, u.UnitsError):
            raise ValueError(
                f'--position is not understood: {text!r}; give degrees ("269.15 51.49") or hours '
                'and degrees ("17:56:36 +51:29:20", "17h56m36s +51d29m20s").'
            ) from None
    return SkyCoord(coordinates)


def _angle_units(text):
    """Units of numbers without one: "269.1 51.4" are degrees, "17:56:36 51.4" begins with hours."""
    from astropy import units as u

    words = text.replace(',', ' ').split()
    hours = len(words) > 2 or ':' in words[0] or words[0].startswith('J') if words else False
    return (u.hourangle if hours else u.deg), u.deg


def _estimator(args, header):
    from csr_astro import NeuralBackgroundEstimator
    from csr_astro.instruments import require_instrument, warn_of_another

    options = _estimator_options(args)
    if args.instrument is None and args.fwhm is None:
        options['instrument'] = require_instrument(header)
        print(f'instrument: {options["instrument"]} (from the header)', file=sys.stderr)
    estimator = NeuralBackgroundEstimator(**options, progress=True)
    warn_of_another(args.instrument, header)
    return estimator


def _estimator_options(args):
    centroid_func = None
    if args.refine:
        from photutils.centroids import centroid_2dg as centroid_func
    return {
        'weights': args.weights,
        'instrument': args.instrument,
        'fwhm': None if args.fwhm is None else _length(args.fwhm, '--fwhm'),
        'preset': args.preset,
        'orientations': args.orientations,
        'centroid_func': centroid_func,
        'device': args.device,
        'dtype': args.dtype,
        'batch_size': args.batch_size,
    }


def _photometry_options(args):
    radii = [_length(text, '--apertures') for text in args.apertures.split(',')]
    return {
        'apertures': radii if len(radii) > 1 else radii[0],
        'aperture_correction': _correction(args.aperture_correction),
        'annulus': 'instrument' if args.annulus else None,
    }


def _length(text, option):
    """A plain number is pixels; 6arcsec, 6" or "0.1 arcmin" are angles."""
    from astropy import units as u

    try:
        length = u.Quantity(text.strip().replace('"', 'arcsec'))
    except (TypeError, ValueError):
        raise ValueError(
            f'{option}: {text.strip()!r} is neither a number of pixels nor an angle.'
        ) from None
    return float(length.value) if length.unit == u.dimensionless_unscaled else length


def _real_field(args, path):
    from csr_astro.images import read_image
    from csr_astro.sources import read_sources
    from csr_astro.utils.files import stem

    image, header = read_image(path, args.hdu)
    avoid = read_sources(args.avoid) if args.avoid else None
    name = stem(Path(path)).name
    return {'name': name, 'data': image, 'header': header, 'avoid': avoid}


def _evaluation(args):
    """What a report is about: a map with a catalogue, or with sources that are injected."""
    from csr_astro.evaluation.report import Evaluation
    from csr_astro.images import read_image

    options = {
        'methods': args.methods.split(',') if args.methods else [],
        'number': args.number,
        'seed': args.seed,
    }
    inject = args.inject or args.field
    if args.psf and not inject:
        raise ValueError('--psf is of injected sources, and needs --inject or --field.')
    if inject and (args.catalog or args.position or args.pixel or args.truth):
        raise ValueError('sources are either injected (--inject, --field) or given, not both.')
    if (args.map is None) == (args.field is None):
        raise ValueError('give a MAP with a CATALOG or --inject, or a --field without a map.')
    image, header = _report_map(args)
    estimator = _estimator(args, header)
    options['apertures'] = _radii(args, image)
    if inject:
        return Evaluation.injected(
            image, estimator, psf=args.psf, simulations=args.inject or 2, **options
        )
    sources = _sources(args)
    result = estimator.estimate(image, sources, mask_radius=_mask_radius(args))
    truth = flux = None
    if args.truth:
        truth = read_image(args.truth)[0].data
        flux = _injected_flux(sources)
    return Evaluation(result, truth, flux, **options)


def _report_map(args):
    if args.field is None:
        return _read_map(args)
    from csr_astro.images import parse_image
    from csr_astro.simulation.field import synthetic_map

    field = synthetic_map(
        args.field, (512, 512), [args.seed, 4, 0], level=5e-3, scatter=1e-3, noise=0.1,
        pixel_scale=_field_scale(args),
    )  # fmt: skip
    return parse_image(field), {}


def _radii(args, image):
    """Radii of apertures in pixels."""
    from astropy import units as u

    if args.apertures is None:
        return None
    radii = [_length(text, '--apertures') for text in args.apertures.split(',')]
    if image.pixel_scale is None and any(isinstance(each, u.Quantity) for each in radii):
        raise ValueError('--apertures are angles, and the map has no WCS; give pixels.')
    return [
        each.to_value(u.arcsec) / image.pixel_scale if isinstance(each, u.Quantity) else each
        for each in radii
    ]


def _injected_flux(sources):
    """Fluxes of a simulation's catalogue, which are in mJy."""
    from astropy import units as u

    if 'flux' not in getattr(sources, 'colnames', ()):
        return None
    flux = u.Quantity(sources['flux'])
    return flux.value * u.mJy if flux.unit == u.dimensionless_unscaled else flux


def _synthetic_fields(args):
    """Fields without a map; each has a seed of its own."""
    from csr_astro.images import read_image
    from csr_astro.simulation.field import synthetic_map
    from csr_astro.utils.files import stem

    options = {
        name: getattr(args, name)
        for name in ('slope', 'contrast', 'width')
        if getattr(args, name) is not None
    }
    kind, name = args.field, args.field
    shape = args.shape
    if args.match:
        if args.field:
            raise ValueError('give --field or --match, not both.')
        kind, _ = read_image(args.match, args.hdu)
        name = f'{stem(Path(args.match)).name}_like'
        shape = shape or kind.shape
    fields = []
    for i in range(args.fields):
        image = synthetic_map(
            kind, shape or (512, 512), [args.seed, 4, i], level=args.level, scatter=args.scatter,
            gradient=args.gradient, faint=args.faint, noise=args.noise, noise_kind=args.noise_kind,
            gaps=args.gaps, pixel_scale=_field_scale(args), **options,
        )  # fmt: skip
        fields.append({'name': f'{name}{i:03d}' if args.fields > 1 else name, 'data': image})
    return fields


def _field_scale(args):
    """Pixel scale of a synthetic field: as asked, or that of the instrument."""
    if args.pixel_scale is not None or args.instrument is None:
        return args.pixel_scale or 1.6
    from csr_astro.instruments import get_instrument

    return get_instrument(args.instrument).pixel_scale or 1.6


def _psf(args):
    """A file, or a Gaussian beam on the pixels of whatever map; None for the instrument's own."""
    if args.psf and args.fwhm:
        raise ValueError('give --psf or --fwhm, not both.')
    if args.psf:
        return args.psf
    return None if args.fwhm is None else _length(args.fwhm, '--fwhm')


def _numbers(text, option):
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(',')]
    except ValueError:
        raise ValueError(f'{option} must be numbers and commas, got {text!r}.') from None


def _mask_radius(args):
    if args.mask_radius in (None, 'snr'):
        return args.mask_radius
    return _length(args.mask_radius, '--mask-radius')


def _correction(text):
    if text is None or text in ('eef', 'vesta', 'none'):
        return text
    try:
        fractions = [float(part) for part in text.split(',')]
    except ValueError:
        raise ValueError(
            f'--aperture-correction must be eef, vesta, none or fractions, got {text!r}.'
        ) from None
    return fractions if len(fractions) > 1 else fractions[0]


# --------------------------------------------------------------------------------------- parser


def _parser():
    import csr_astro

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument('--debug', action='store_true', help='show the traceback of an error')

    parser = argparse.ArgumentParser(
        prog='csr-astro',
        description='Remove compact sources from astronomical maps, and measure them.',
        epilog='example: csr-astro demo',
    )
    parser.add_argument('--version', action='version', version=csr_astro.__version__)
    commands = parser.add_subparsers(metavar='COMMAND', required=True)

    def add(name, function, help_text, examples, to=commands, parents=()):
        command = to.add_parser(
            name,
            help=help_text,
            description=help_text[0].upper() + help_text[1:] + '.',
            epilog='examples:\n' + '\n'.join(f'  csr-astro {line}' for line in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[common, *parents],
        )
        command.set_defaults(function=function)
        return command

    one_map, removal = _map_options(), _removal_options()
    remove = add(
        'remove',
        _remove,
        'remove sources from a map',
        [
            'remove map.fits catalog.ecsv --instrument pacs-scanmap-blue',
            'remove map.fits regions.reg --fwhm 18.2arcsec -o clean.fits',
            'remove map.fits --position "269.1516 51.4889" --table star.csv',
        ],
        parents=[one_map, removal],
    )
    remove.add_argument('-o', '--output', help='source-free map [MAP_source_free.fits]')
    remove.add_argument('--table', help='table of sources: .ecsv, .csv, .fits, .vot [by --output]')
    remove.add_argument(
        '--realization', type=int, metavar='SEED',
        help="fill with the map's noise and texture too, for statistics of the map",
    )
    _add_errors(remove)

    photometry = add(
        'photometry',
        _photometry,
        'measure sources on predicted backgrounds',
        [
            'photometry map.fits catalog.ecsv --apertures 5arcsec,6arcsec',
            'photometry map.fits --pixel 90 160 --apertures 4 --fwhm 3.5 --annulus',
        ],
        parents=[one_map, removal],
    )
    photometry.add_argument('-o', '--output', help='table to write [MAP_photometry.ecsv]')
    _add_apertures(photometry, required=True)

    _add_batch(add, removal)

    demo = add('demo', _demo, 'remove and measure the sources of a simulated field',
               ['demo', 'demo --output somewhere --seed 7'])
    demo.add_argument('-o', '--output', default='csr-astro-demo', help='folder [%(default)s]')
    demo.add_argument('--seed', type=int, default=1, help='of the field [%(default)s]')
    demo.add_argument('--weights', default='default', help='name or file [%(default)s]')

    weights = commands.add_parser(
        'weights',
        help='list, describe or convert weights',
        description='List, describe or convert weights.',
        epilog='example: csr-astro weights info default',
    )
    kinds = weights.add_subparsers(metavar='ACTION', required=True)
    add('list', _weights_list, 'list the bundled weights', ['weights list'], to=kinds)
    info = add('info', _weights_info, 'describe weights', ['weights info default'], to=kinds)
    info.add_argument('weights', help='name or .safetensors file')
    convert = add(
        'convert', _weights_convert, "convert a checkpoint of the paper's authors",
        ['weights convert checkpoint.pth published.safetensors'], to=kinds,
    )
    convert.add_argument('checkpoint', help='PyTorch state dict')
    convert.add_argument('output', help='.safetensors file to write')
    convert.add_argument('--title', default='', help='for the model card')
    convert.add_argument('--licence', default='', help='for the model card')
    convert.add_argument('--overwrite', action='store_true', help='replace an existing file')

    add('instruments', _instruments, 'list instruments and their masks', ['instruments'])

    _add_simulate(add)
    _add_evaluate(add, commands)

    train = add(
        'train', _train, 'train a network',
        [
            'train tiny -o run',
            'train default --maps maps/train --validation maps/validation --psf psf.fits -o run',
            'train default --maps maps/train --validation maps/validation -o run --resume',
            'train fine-tune --maps mine/train --validation mine/validation -o run',
        ],
    )
    train.add_argument(
        'recipe', help='default, fine-tune, paper, push-pull, tiny, or a TOML file'
    )
    train.add_argument('--maps', metavar='FOLDER', help='FITS maps to learn from')
    train.add_argument('--validation', metavar='FOLDER', help='FITS maps of other fields')
    train.add_argument(
        '--psf', nargs='+', default=[], metavar='FILE', help='FITS images of the PSF'
    )
    train.add_argument('-o', '--output', required=True, metavar='FOLDER', help='for the results')
    train.add_argument('--resume', action='store_true', help='go on from the last checkpoint')
    train.add_argument('--device', help='cpu, cuda, ... [a GPU if there is one]')
    train.add_argument(
        '--devices', type=int, default=1, metavar='N', help='GPUs that share each batch [1]'
    )
    train.add_argument(
        '--workers', type=int, default=0, metavar='N',
        help='processes per device that prepare batches: several for a GPU [a thread]',
    )
    train.add_argument('--title', default='', help='for the model card')
    train.add_argument('--licence', default='', help='for the model card')
    train.add_argument('--training-data', help='for the model card [kinds of maps]')
    return parser


def _add_errors(command):
    command.add_argument(
        '--errors', action=argparse.BooleanOptionalAction, default=True,
        help='write the 1-sigma errors of the filled pixels, extension CSR_RMS',
    )


def _add_apertures(command, *, required):
    command.add_argument(
        '--apertures', required=required, metavar='R[,R...]',
        help='radii: pixels, or an angle such as 6arcsec',
    )
    command.add_argument(
        '--aperture-correction', metavar='KIND',
        help='eef (real sources), vesta (injected PSFs), none, or fractions [eef if known]',
    )
    command.add_argument(
        '--annulus', action='store_true', help='give the fluxes by an annulus too'
    )


def _add_batch(add, removal):
    batch = add(
        'batch',
        _batch,
        'remove and measure the sources of many maps; the same command goes on after a stop',
        [
            'batch maps/*.fits --catalog catalog.ecsv -o clean',
            'batch maps.csv --apertures 5arcsec,6arcsec -o clean --workers 8',
            'batch maps.csv -o clean --scheduler tcp://192.0.2.1:8786',
            'batch large.fits --catalog catalog.ecsv -o clean --split 32',
        ],
        parents=[removal],
    )
    batch.add_argument(
        'maps', metavar='MAP', nargs='+',
        help='FITS files or patterns; or one table (.csv, .ecsv) with columns map and, if wanted, '
        'catalog, instrument and output',
    )
    batch.add_argument(
        '--catalog', help='sources of the maps: table (ECSV, CSV, FITS, VOTable) or regions (.reg)'
    )
    batch.add_argument(
        '-o', '--output', required=True, metavar='FOLDER',
        help='for source-free maps, tables and manifest.ecsv',
    )
    _add_errors(batch)
    _add_apertures(batch, required=False)
    batch.add_argument(
        '--workers', type=int, metavar='N',
        help='processes; 0 for threads of this one [as many as processors]',
    )
    batch.add_argument(
        '--threads', type=int, default=1, metavar='N',
        help='maps at a time in each process, which share one model [%(default)s]',
    )
    batch.add_argument(
        '--scheduler', metavar='ADDRESS', help='dask cluster that does the work [this machine]'
    )
    batch.add_argument(
        '--split', type=int, metavar='N',
        help='one map after the other, each spread over the workers in N parts',
    )


def _add_simulate(add):
    simulate = add(
        'simulate',
        _simulate,
        'put sources of known flux onto maps',
        [
            'simulate map.fits --instrument pacs-scanmap-blue -o simulated',
            'simulate map.fits --psf psf.fits --flux-levels 100,500 --number 50 -o simulated',
            'simulate map.fits --fwhm 18.2arcsec --random 10 --seed 7 -o simulated',
            'simulate --field power-law --slope -3 --shape 512 512 --random 1 -o simulated',
            'simulate maps/*.fits --instrument pacs-scanmap-red -o simulated --dataset cutouts',
        ],
    )
    simulate.add_argument('maps', metavar='MAP', nargs='*', help='FITS files with few sources')
    simulate.add_argument('-o', '--output', required=True, metavar='FOLDER', help='for the results')
    simulate.add_argument('--overwrite', action='store_true', help='replace existing files')
    simulate.add_argument('--seed', type=int, default=0, help='decides everything [%(default)s]')
    simulate.add_argument('--hdu', help='extension of the image: name or number')
    simulate.add_argument(
        '--dataset', metavar='FOLDER', help='write cutouts too, split by field, for training'
    )
    simulate.add_argument(
        '--layout', default='array', choices=('array', 'paper'),
        help="one array for each split, or the paper's file for each cutout [%(default)s]",
    )

    sources = simulate.add_argument_group('sources')
    sources.add_argument('--instrument', help='see "csr-astro instruments" [by the header]')
    sources.add_argument('--psf', metavar='FILE', help='FITS image of the PSF')
    sources.add_argument('--fwhm', help='Gaussian beam instead: pixels, or 18arcsec')
    sources.add_argument('--fast-scan', action='store_true',
                         help='PSF elongated as by parallel mode at 60 arcsec/s (PACS)')
    sources.add_argument('--elongation', type=float, default=1.0, help='of any PSF [%(default)s]')
    sources.add_argument('--angle', type=float, metavar='DEG', help='of every PSF [random]')
    sources.add_argument('--flux-levels', metavar='F[,F...]', help="in mJy [the paper's]")
    sources.add_argument('--lowest', type=float, metavar='F', help='lowest level [just visible]')
    sources.add_argument('--highest', type=float, metavar='F', help='highest level [SNR 1000]')
    sources.add_argument('--random', type=int, nargs='?', const=1, metavar='N',
                         help='N maps with a random level for each source, not a map per level')
    sources.add_argument('--number', type=int, help='of sources [25 to 210, by the area]')
    sources.add_argument('--separation', type=float, metavar='PIXELS',
                         help='smallest distance between two [no masks overlap]')
    sources.add_argument('--avoid', metavar='CATALOG', help='sources of the map to stay away from')

    field = simulate.add_argument_group('synthetic fields')
    field.add_argument('--field', metavar='KIND',
                       help='power-law, lognormal, filaments, gradient, mixed or flat')
    field.add_argument('--match', metavar='MAP', help='power spectrum and histogram of this map')
    field.add_argument('--fields', type=int, default=1, help='how many [%(default)s]')
    field.add_argument('--shape', type=int, nargs=2, metavar=('NY', 'NX'),
                       help='pixels [512 512, or those of the matched map]')
    field.add_argument('--pixel-scale', type=float, metavar='ARCSEC', help="[the instrument's]")
    field.add_argument('--slope', type=float, help='of the power spectrum [-3]')
    field.add_argument('--contrast', type=float, help='of a lognormal field [0.6]')
    field.add_argument('--width', type=float, help='of filaments, in pixels [3]')
    field.add_argument('--level', type=float, default=5e-3, help='mean, Jy/pixel [%(default)s]')
    field.add_argument('--scatter', type=float, default=1e-3,
                       help='of the emission, Jy/pixel [%(default)s]')
    field.add_argument('--gradient', type=float, default=0.0, help='over the scatter [%(default)s]')
    field.add_argument('--faint', type=float, default=0.0,
                       help='unresolved sources, over the scatter [%(default)s]')
    field.add_argument('--noise', type=float, default=0.1, help='over the scatter [%(default)s]')
    field.add_argument('--noise-kind', default='white', help='white, correlated or striped')
    field.add_argument('--gaps', action='store_true', help='an irregular edge, and gaps')


def _add_evaluate(add, commands):
    evaluate = commands.add_parser(
        'evaluate',
        help='measure how good predictions are',
        description='Measure how good predictions are.',
        epilog='example: csr-astro evaluate accuracy map.fits',
    )
    kinds = evaluate.add_subparsers(metavar='WHAT', required=True)
    accuracy = add(
        'accuracy',
        _evaluate_accuracy,
        'compare the background behind discs with that of other methods',
        [
            'evaluate accuracy maps/*.fits -o accuracy',
            'evaluate accuracy maps/*.fits --weights w.safetensors --positions positions.ecsv',
            'evaluate accuracy --gaussian --methods network,lpi',
            'evaluate accuracy map.fits --inject --instrument pacs-scanmap-blue -o accuracy',
        ],
        to=kinds,
    )
    accuracy.add_argument(
        'maps', metavar='MAP', nargs='*',
        help='FITS files or folders; files whose names differ by _tileNN are one group',
    )
    accuracy.add_argument('-o', '--output', metavar='FOLDER', help='for the tables')
    accuracy.add_argument('--weights', default='default', help='name or file [%(default)s]')
    accuracy.add_argument('--orientations', type=int, choices=(1, 2, 4, 8),
                          help='flips and rotations to average over [8]')
    accuracy.add_argument('--device', help='cpu, cuda, ... [a GPU if there is one]')
    accuracy.add_argument(
        '--methods', metavar='NAME[,NAME...]',
        help='network, annulus_mean, annulus_median, plane, background_2d, biharmonic, maskfill, '
        'lpi; the first is compared with the others [all that are installed]',
    )
    accuracy.add_argument(
        '--number', type=int, default=300,
        help='positions for each group and radius [%(default)s]',
    )
    accuracy.add_argument('--radii', type=float, nargs='+', default=[5.0, 9.0, 12.0], metavar='R',
                          help='of the discs in pixels [5 9 12]')
    accuracy.add_argument('--aperture', type=float, nargs='+', default=[4.0], metavar='R',
                          help='radii in pixels [4]')
    accuracy.add_argument('--gaussian', action='store_true',
                          help='Gaussian fields too, against the best possible prediction')
    accuracy.add_argument('--inject', action='store_true', help='behind injected sources too')
    accuracy.add_argument('--instrument', help='whose PSF and masks the sources have [generic]')
    accuracy.add_argument('--psf', metavar='FILE', help="FITS image of the PSF [the instrument's]")
    accuracy.add_argument('--fwhm', type=float, metavar='PIXELS',
                          help='beam of any other instrument')
    accuracy.add_argument('--flux-levels', metavar='F[,F...]',
                          help="in units of the map's sum [SNR 3 to 1000]")
    accuracy.add_argument('--positions', metavar='FILE',
                          help='positions.ecsv of an earlier evaluation')
    accuracy.add_argument('--seed', type=int, default=0, help='decides positions [%(default)s]')

    report = add(
        'report',
        _evaluate_report,
        'report on one removal: a page with pictures and numbers',
        [
            'evaluate report map.fits catalog.ecsv --instrument pacs-scanmap-blue -o report',
            'evaluate report map.fits --inject --fwhm 18.2arcsec -o report',
            'evaluate report simulated/map.fits simulated/map.ecsv --truth truth.fits -o report',
            'evaluate report --field lognormal --instrument pacs-scanmap-blue -o report',
        ],
        to=kinds,
        parents=[_map_options(nargs='?'), _removal_options()],
    )
    report.add_argument('-o', '--output', required=True, metavar='FOLDER',
                        help='for report.html, PNG and ECSV')
    report.add_argument('--inject', type=int, nargs='?', const=2, metavar='N',
                        help='put sources onto the map, N times, and remove them [2]')
    report.add_argument('--psf', metavar='FILE', help="of injected sources [the instrument's]")
    report.add_argument('--field', metavar='KIND',
                        help='inject into a synthetic field: power-law, lognormal, filaments ...')
    report.add_argument('--pixel-scale', type=float, metavar='ARCSEC',
                        help="of the synthetic field [the instrument's]")
    report.add_argument('--truth', metavar='FILE',
                        help='the map without sources; "flux" of the catalog is then in mJy')
    report.add_argument('--apertures', metavar='R[,R...]',
                        help='radii for fluxes: pixels, or 6arcsec [of the paper for PACS]')
    report.add_argument('--methods', metavar='NAME[,NAME...]',
                        help='to compare with, see "evaluate accuracy" [the annulus]')
    report.add_argument('--number', type=int, default=40,
                        help='discs to leave out, for each radius [%(default)s]')
    report.add_argument('--seed', type=int, default=0, help='of all that is random [%(default)s]')
    report.add_argument('--title', help='heading of the page')

    stars = add(
        'stars',
        _evaluate_stars,
        'measure the standard stars on maps of PACS',
        ['evaluate stars maps/*.fits', 'evaluate stars map.fits --apertures 10arcsec,12arcsec'],
        to=kinds,
    )
    stars.add_argument('maps', metavar='MAP', nargs='+', help='FITS files')
    stars.add_argument('-o', '--output', metavar='FILE', help='table to write')
    stars.add_argument('--apertures', default='12arcsec', metavar='R[,R...]',
                       help='radii, as angles [%(default)s]')
    stars.add_argument('--instrument', help='see "csr-astro instruments" [by the header]')
    stars.add_argument('--weights', default='default', help='name or file [%(default)s]')
    stars.add_argument('--device', help='cpu, cuda, ... [a GPU if there is one]')
    stars.add_argument('--overwrite', action='store_true', help='replace an existing table')


def _map_options(**of_the_map):
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument('map', metavar='MAP', help='FITS file', **of_the_map)
    options.add_argument(
        'catalog', metavar='CATALOG', nargs='?',
        help='table (ECSV, CSV, FITS, VOTable) or regions (.reg)',
    )
    options.add_argument(
        '--position', action='append', metavar='"RA DEC"', help='a source on the sky; repeatable'
    )
    options.add_argument(
        '--pixel', action='append', nargs=2, type=float, metavar=('X', 'Y'),
        help='a source in pixels, zero-based; repeatable',
    )
    return options


def _removal_options():
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument('--instrument', help='see "csr-astro instruments" [by the header]')
    options.add_argument('--fwhm', help='beam of any other instrument: pixels, or 18arcsec')
    options.add_argument(
        '--mask-radius', metavar='R', help='pixels, an angle, or snr [by SNR; regions as drawn]'
    )
    options.add_argument('--refine', action='store_true', help='refine centres before')
    options.add_argument('--hdu', help='extension of the image: name or number')
    options.add_argument('--weights', default='default', help='name or file [%(default)s]')
    options.add_argument('--preset', default='default', choices=('default', 'paper'))
    options.add_argument('--orientations', type=int, choices=(1, 2, 4, 8),
                         help='flips and rotations to average over [8]')
    options.add_argument('--device', help='cpu, cuda, ... [a GPU if there is one]')
    options.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
    options.add_argument('--batch-size', type=int, help='cutouts at a time')
    options.add_argument('--overwrite', action='store_true', help='replace existing files')
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    code : int
        0 if all went well, 1 after an error (one line on standard error; the
        traceback with ``--debug``), 130 after Ctrl-C; argparse exits with 2
        after a wrong argument.
    """
    args = _parser().parse_args(argv)
    try:
        args.function(args)
    except KeyboardInterrupt:
        print('csr-astro: stopped.', file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Who read the output has left ("| head"): nothing may be written to it on leaving either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except Exception as error:
        if args.debug:
            raise
        text = ' '.join(str(error).split()) or type(error).__name__
        print(f'csr-astro: error: {text}', file=sys.stderr)
        return _FAILED
    return 0


if __name__ == '__main__':
    sys.exit(main())
