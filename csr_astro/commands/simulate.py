"""Command that puts sources of known flux onto maps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from csr_astro.commands import options

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from csr_astro.commands.options import Commands

__all__ = ['add_parser', 'run']


_TABLES = {'.csv': 'ascii.csv', '.ecsv': 'ascii.ecsv'}
# Columns of a table of fields, beside ``map``.
_COLUMNS = {
    'number': int, 'lowest': float, 'highest': float, 'instrument': str, 'avoid': str, 'split': str,
}  # fmt: skip


def add_parser(commands: Commands) -> None:
    """Add ``csr-astro simulate``."""
    command = options.add_command(
        commands,
        'simulate',
        run,
        'put sources of known flux onto maps',
        [
            'simulate map.fits --instrument pacs-scanmap-blue -o simulated',
            'simulate map.fits --psf psf.fits --flux-levels 100,500 --number 50 -o simulated',
            'simulate map.fits --fwhm 18.2arcsec --random 10 --seed 7 -o simulated',
            'simulate --field power-law --slope -3 --shape 512 512 --random 1 -o simulated',
            'simulate maps/*.fits --instrument pacs-scanmap-red -o simulated --dataset cutouts',
            'simulate fields.csv --instrument pacs-scanmap-blue -o simulated --dataset cutouts',
        ],
    )
    command.add_argument(
        'maps', metavar='MAP', nargs='*',
        help='FITS files with few sources; or one table (.csv, .ecsv) of them with the column map '
        'and, optionally, number, lowest, highest, instrument, avoid and split: train, validation '
        'or test',
    )
    command.add_argument(
        '-o', '--output', required=True, metavar='FOLDER', help='folder for the results'
    )
    command.add_argument('--overwrite', action='store_true', help='replace existing files')
    command.add_argument(
        '--seed', type=int, default=0, help='seed of all random numbers [%(default)s]'
    )
    command.add_argument('--hdu', help='extension of the image: name or number')
    command.add_argument(
        '--dataset', metavar='FOLDER', help='also write cutouts for training, split by field'
    )
    command.add_argument(
        '--layout', default='array', choices=('array', 'paper'),
        help='one array per split, or one file per cutout as in the paper [%(default)s]',
    )
    _add_sources(command)
    _add_field(command)


def _add_sources(command: ArgumentParser) -> None:
    sources = command.add_argument_group('sources')
    sources.add_argument('--instrument', help='name from "csr-astro instruments" [from the header]')
    sources.add_argument('--psf', metavar='FILE', help='FITS image of the PSF')
    sources.add_argument('--fwhm', help='Gaussian beam instead: pixels, or 18arcsec')
    sources.add_argument('--fast-scan', action='store_true',
                         help='PSF elongated as by parallel mode at 60 arcsec/s (PACS)')
    sources.add_argument(
        '--elongation', type=float, default=1.0, help='elongation of the PSF [%(default)s]'
    )
    sources.add_argument(
        '--angle', type=float, metavar='DEG', help='position angle of the PSFs [random]'
    )
    sources.add_argument(
        '--flux-levels', metavar='F[,F...]', help='flux levels in mJy [those of the paper]'
    )
    sources.add_argument('--lowest', type=float, metavar='F', help='lowest level [just visible]')
    sources.add_argument('--highest', type=float, metavar='F', help='highest level [contrast 1000]')
    sources.add_argument('--random', type=int, nargs='?', const=1, metavar='N',
                         help='N maps with a random level per source, not one map per level')
    sources.add_argument('--number', type=int, help='number of sources [25 to 210, by the area]')
    sources.add_argument('--separation', type=float, metavar='PIXELS',
                         help='smallest distance of two sources [no masks overlap]')
    sources.add_argument('--avoid', metavar='CATALOG', help='sources of the map to keep clear of')


def _add_field(command: ArgumentParser) -> None:
    field = command.add_argument_group('synthetic fields')
    field.add_argument('--field', metavar='KIND',
                       help='power-law, lognormal, filaments, gradient, mixed or flat')
    field.add_argument(
        '--match', metavar='MAP', help='field with the power spectrum and histogram of this map'
    )
    field.add_argument('--fields', type=int, default=1, help='number of fields [%(default)s]')
    field.add_argument('--shape', type=int, nargs=2, metavar=('NY', 'NX'),
                       help='pixels [512 512, or those of the matched map]')
    field.add_argument(
        '--pixel-scale', type=float, metavar='ARCSEC', help='pixel scale [of the instrument]'
    )
    field.add_argument('--slope', type=float, help='slope of the power spectrum [-3]')
    field.add_argument('--contrast', type=float, help='contrast of a lognormal field [0.6]')
    field.add_argument('--width', type=float, help='width of filaments in pixels [3]')
    field.add_argument('--level', type=float, default=5e-3, help='mean in Jy/pixel [%(default)s]')
    field.add_argument('--scatter', type=float, default=1e-3,
                       help='scatter of the emission in Jy/pixel [%(default)s]')
    field.add_argument('--gradient', type=float, default=0.0,
                       help='gradient over the scatter [%(default)s]')
    field.add_argument('--faint', type=float, default=0.0,
                       help='unresolved sources, over the scatter [%(default)s]')
    field.add_argument('--noise', type=float, default=0.1,
                       help='noise over the scatter [%(default)s]')
    field.add_argument('--noise-kind', default='white', help='white, correlated or striped [white]')
    field.add_argument('--gaps', action='store_true', help='an irregular edge and gaps')


def run(args: Namespace) -> None:
    """Write simulated maps, their tables and, if asked for, a dataset."""
    from csr_astro.simulation.write import FIELDS, write_simulations

    if any(Path(path).suffix.lower() in _TABLES for path in args.maps):
        fields = _table_fields(args)
    else:
        fields = [_real_field(args, path) for path in args.maps]
    if args.field or args.match:
        fields += _synthetic_fields(args)
    if not fields:
        raise ValueError('give a MAP with few sources, or a --field or a map to --match.')
    settings = {
        'psf': _psf(args),
        'instrument': args.instrument,
        'number': args.number,
        'separation': args.separation,
        'angle': None if args.angle is None else math.radians(args.angle),
        'elongation': args.elongation,
        'fast_scan': args.fast_scan,
        'levels': options.numbers(args.flux_levels, '--flux-levels'),
        'lowest': args.lowest,
        'highest': args.highest,
        'random': args.random or 0,
        'seed': args.seed,
    }
    written = write_simulations(
        args.output, fields, dataset=args.dataset, layout=args.layout, overwrite=args.overwrite,
        progress=lambda line: print(line, flush=True), **settings,
    )  # fmt: skip
    print(f'written: {written.n_maps} maps with tables and {FIELDS} in {args.output}')
    for split, count in written.cutouts.items():
        print(f'{split}: {count} cutouts in {args.dataset}')


def _table_fields(args):
    """Fields of a table, with the settings of each."""
    from astropy.table import Table
    from numpy import ma

    if len(args.maps) > 1:
        raise ValueError('give maps or one table of maps, not both.')
    path = Path(args.maps[0])
    if not path.is_file():
        raise ValueError(f'no such file: {str(path)!r}.')
    table = Table.read(path, format=_TABLES[path.suffix.lower()])
    if 'map' not in table.colnames:
        raise ValueError(
            f'the table {str(path)!r} must have a column map, and may have '
            f'{", ".join(_COLUMNS)}; it has {", ".join(table.colnames)}.'
        )
    fields = []
    for row in table:
        field = _real_field(args, path.parent / str(row['map']))
        for name, kind in _COLUMNS.items():
            value = row[name] if name in table.colnames else ma.masked
            if value is not ma.masked and str(value):
                field[name] = kind(value)
        if isinstance(field['avoid'], str):
            field['avoid'] = _avoided(path.parent / field['avoid'])
        fields.append(field)
    return fields


def _real_field(args, path):
    from csr_astro.images import read_image
    from csr_astro.utils.files import stem

    image, header = read_image(path, args.hdu)
    avoid = _avoided(args.avoid) if args.avoid else None
    name = stem(Path(path)).name
    return {'name': name, 'data': image, 'header': header, 'avoid': avoid}


def _avoided(path):
    from csr_astro.sources import read_sources

    return read_sources(path)


def _synthetic_fields(args):
    """Synthetic fields, each with a seed of its own."""
    from csr_astro.images import read_image
    from csr_astro.simulation.field import synthetic_map
    from csr_astro.utils.files import stem

    details = {
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
            gaps=args.gaps, pixel_scale=options.field_scale(args), **details,
        )  # fmt: skip
        fields.append({'name': f'{name}{i:03d}' if args.fields > 1 else name, 'data': image})
    return fields


def _psf(args):
    """PSF as a file or as a Gaussian beam; None for that of the instrument."""
    if args.psf and args.fwhm:
        raise ValueError('give --psf or --fwhm, not both.')
    if args.psf:
        return args.psf
    return None if args.fwhm is None else options.length(args.fwhm, '--fwhm')
