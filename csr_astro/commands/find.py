"""Command that finds the sources of a map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from csr_astro.commands import options

if TYPE_CHECKING:
    from argparse import Namespace

    from csr_astro.commands.options import Commands

__all__ = ['add_parser', 'run']


def add_parser(commands: Commands) -> None:
    """Add ``csr-astro find``."""
    command = options.add_command(
        commands,
        'find',
        run,
        'find the compact sources of a map',
        [
            'find map.fits --instrument spire-250 -o catalog.ecsv',
            'find map.fits --fwhm 18.2arcsec --threshold 4 --max-size 1.5',
            'find map.fits --psf psf.fits && csr-astro remove map.fits map_sources.ecsv',
        ],
    )
    command.add_argument('map', metavar='MAP', help='FITS file')
    command.add_argument('-o', '--output', help='table to write [MAP_sources.ecsv]')
    command.add_argument(
        '--threshold', type=float, default=5.0, help='lowest significance [%(default)s]'
    )
    command.add_argument(
        '--max-size', type=float, default=1.0, metavar='S',
        help='largest width of a source, in beams [%(default)s]',
    )
    command.add_argument('--instrument', help='name from "csr-astro instruments" [from the header]')
    command.add_argument('--fwhm', help='beam (FWHM) of any other instrument: pixels, or 18arcsec')
    options.add_psf(command)
    command.add_argument('--hdu', help='extension of the image: name or number')
    command.add_argument('--overwrite', action='store_true', help='replace existing files')


def run(args: Namespace) -> None:
    """Write the table of the sources and print its first rows."""
    from csr_astro.images import read_image
    from csr_astro.photometry.finder import NeuralSourceFinder
    from csr_astro.removal import make_estimator
    from csr_astro.tables import check_table_path, write_table
    from csr_astro.utils.files import stem

    output = Path(args.output or f'{stem(Path(args.map))}_sources.ecsv')
    check_table_path(output)
    options.refuse_overwrite(args, output)
    options.keep_inputs(output, args.map, args.psf)
    image, header = read_image(args.map, args.hdu)
    estimator = make_estimator(
        header,
        instrument=args.instrument,
        fwhm=None if args.fwhm is None else options.length(args.fwhm, '--fwhm'),
        psf=args.psf,
        announce=options.announce_instrument,
    )
    table = NeuralSourceFinder(estimator, args.threshold, max_size=args.max_size).table(image)
    write_table(output, table)
    if len(table):
        print('\n'.join(_summary(table)))
    number = '1 source' if len(table) == 1 else f'{len(table)} sources'
    print(f'{number} found: {output}')


def _summary(table):
    """Lines of the columns that are shown, with few digits."""
    formats = {'fwhm': '.2f', 'flux': '.5g', 'flux_err': '.3g', 'snr': '.1f'}
    shown = table[[
        name for name in table.colnames
        if name in formats or name in ('id', 'flags') or name.endswith('centroid')
    ]]  # fmt: skip
    for name in shown.colnames:
        if name.startswith(('x', 'y')) or name in formats:
            shown[name].info.format = formats.get(name, '.2f')
    return shown.pformat(max_lines=24, max_width=120, show_unit=True)
