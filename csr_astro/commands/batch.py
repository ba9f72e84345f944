"""Command that removes and measures the sources of many maps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from csr_astro.commands import measuring, options

if TYPE_CHECKING:
    from argparse import Namespace

    from csr_astro.commands.options import Commands

__all__ = ['add_parser', 'run']


def add_parser(commands: Commands) -> None:
    """Add ``csr-astro batch``."""
    command = options.add_command(
        commands,
        'batch',
        run,
        'remove and measure the sources of many maps; the same command goes on after a stop',
        [
            'batch maps/*.fits --catalog catalog.ecsv -o clean',
            'batch maps --apertures 5arcsec,6arcsec -o clean',
            'batch maps.csv --apertures 5arcsec,6arcsec -o clean --workers 8',
            'batch maps.csv --method psf -o clean',
            'batch maps.csv -o clean --scheduler tcp://192.0.2.1:8786',
            'batch large.fits --catalog catalog.ecsv -o clean --split 32',
            'batch maps/*.fits --find -o clean',
            "batch maps/*_sci.fits --find --error _sci=_rms --mask '{}_mask.fits' -o clean",
        ],
        parents=[options.removal_options()],
    )
    command.add_argument(
        'maps', metavar='MAP', nargs='+',
        help='FITS files, folders or patterns; or one table (.csv, .ecsv) with the column map and, '
        'optionally, catalog, instrument, output, error and mask',
    )
    command.add_argument(
        '--catalog', help='sources of all maps: table (ECSV, CSV, FITS, VOTable) or regions (.reg) '
        '[MAP.ecsv, MAP.csv or MAP.reg beside each MAP.fits]'
    )
    command.add_argument(
        '-o', '--output', required=True, metavar='FOLDER',
        help='folder for source-free maps, tables and manifest.ecsv',
    )
    for name in ('error', 'mask'):
        command.add_argument(
            f'--{name}', metavar='RULE',
            help=f'file of the {name} of each map: OLD=NEW replaces a text in the name of the map, '
            'in a name with {} these stand for that of the map without .fits; or one file for all',
        )
    options.add_find(command)
    options.add_errors(command)
    measuring.add_photometry(command)
    command.add_argument(
        '--subtract', action='store_true',
        help='subtract sources that are fitted well, not inpaint them; see "remove --method"',
    )
    command.add_argument(
        '--workers', type=int, metavar='N',
        help='number of processes; 0 for threads of this one [one per processor]',
    )
    command.add_argument(
        '--threads', type=int, default=1, metavar='N',
        help='maps at a time in each process [%(default)s]',
    )
    command.add_argument(
        '--scheduler', metavar='ADDRESS', help='address of a dask cluster [this machine]'
    )
    command.add_argument(
        '--verify', action='store_true',
        help='read all inputs and results of maps that are done, beyond sizes and times',
    )
    command.add_argument(
        '--split', type=int, metavar='N',
        help='spread each map over the workers in N parts, one map after the other',
    )


def run(args: Namespace) -> None:
    """Write the files of every map and the manifest."""
    from csr_astro.batch import MANIFEST, read_jobs, remove_many, require_dask

    require_dask()
    if args.find is not None and args.catalog:
        raise ValueError('give --catalog or --find, not both.')
    reading = options.reading_options(args)
    files = {name: reading.pop(name, None) for name in ('error', 'mask')}
    manifest = remove_many(
        read_jobs(args.maps, args.catalog, find=args.find is not None, **files),
        args.output,
        cluster={
            'scheduler': args.scheduler, 'workers': args.workers, 'threads': args.threads,
        },
        hdu=args.hdu,
        reading=reading,
        mask_radius=options.mask_radius(args),
        photometry=_photometry(args),
        subtract=args.subtract,
        errors=args.errors,
        find=args.find,
        split=args.split,
        overwrite=args.overwrite,
        verify=args.verify,
        **options.catalog_options(args),
        progress=True,
        **options.estimator_options(args),
    )  # fmt: skip
    path = Path(args.output) / MANIFEST
    failed = manifest[manifest['status'] == 'failed']
    for row in failed:
        print(f'{row["map"]}: {row["message"]}', file=sys.stderr)
    if len(failed):
        raise RuntimeError(f'{len(failed)} of {len(manifest)} maps failed, see {path}')
    print(f'{len(manifest)} of {len(manifest)} maps done, see {path}')


def _photometry(args):
    if args.subtract and args.method not in ('psf', 'gaussian'):
        raise ValueError('--subtract needs --method psf or gaussian.')
    return measuring.photometry_options(args)
