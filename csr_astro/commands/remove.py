"""Command that removes sources from a map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from csr_astro.commands import options

if TYPE_CHECKING:
    from argparse import Namespace

    from csr_astro.commands.options import Commands

__all__ = ['add_parser', 'run']

_SHAPES = {'psf': 'point', 'gaussian': 'gaussian'}


def add_parser(commands: Commands) -> None:
    """Add ``csr-astro remove``."""
    command = options.add_command(
        commands,
        'remove',
        run,
        'remove sources from a map',
        [
            'remove map.fits catalog.ecsv --instrument pacs-scanmap-blue',
            'remove map.fits regions.reg --fwhm 18.2arcsec -o clean.fits',
            'remove map.fits --position "269.1516 51.4889" --table star.csv',
            'remove map.fits --find 6',
            'remove map.fits catalog.ecsv --method psf --psf psf.fits',
        ],
        parents=[options.map_options(), options.removal_options()],
    )
    command.add_argument('-o', '--output', help='source-free map to write [MAP_source_free.fits]')
    command.add_argument(
        '--table', help='table to write: .ecsv, .csv, .fits or .vot [beside --output]'
    )
    command.add_argument(
        '--method', choices=('inpaint', 'psf', 'gaussian'), default='inpaint',
        help='inpaint the masks; or fit the PSF, or Gaussians convolved with it, and subtract the '
        'sources that are fitted well [%(default)s]',
    )
    command.add_argument(
        '--realization', type=int, metavar='SEED',
        help='fill with noise and texture as well, for statistics of the map: the prediction alone '
        'has 6 to 9%% too little standard deviation',
    )
    options.add_errors(command)


def run(args: Namespace) -> None:
    """Write the source-free map and the table of its sources."""
    from csr_astro.flags import count_sources
    from csr_astro.products import describe_reading
    from csr_astro.removal import remove_file
    from csr_astro.tables import check_table_path
    from csr_astro.utils.files import stem

    output = options.output_path(args, '_source_free.fits')
    table = Path(args.table or f'{stem(output)}.ecsv')
    check_table_path(table)
    options.refuse_overwrite(args, output, table)
    # The map itself may be replaced, if that is asked for.
    options.keep_inputs(output, args.catalog, args.psf)
    options.keep_inputs(table, args.map, args.catalog, args.psf)
    options.check_map_path(output)
    result = remove_file(
        args.map,
        options.parse_positions(args),
        output,
        table=table,
        photometry=None if args.method == 'inpaint' else {'shape': _SHAPES[args.method]},
        subtract=args.method != 'inpaint',
        hdu=args.hdu,
        reading=options.reading_options(args),
        mask_radius=options.mask_radius(args),
        find=args.find,
        realization=args.realization,
        errors=args.errors,
        announce=options.announce_instrument,
        **options.catalog_options(args),
        progress=True,
        **options.estimator_options(args),
    )
    print(f'{count_sources(result.sources, "removed")}: {output}, {table}')
    if 'subtracted' in result.sources.meta:
        number = int(result.sources['subtracted'].sum())
        print(f'{number} of them subtracted as fitted, the others inpainted')
    print(f'read: {describe_reading(result.sources.meta)}')
