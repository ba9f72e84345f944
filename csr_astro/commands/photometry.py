"""Command that measures sources on predicted backgrounds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from csr_astro.commands import options

if TYPE_CHECKING:
    from argparse import Namespace

    from csr_astro.commands.options import Commands

__all__ = ['add_parser', 'run']

# Columns of fluxes, and not those of the catalogue.
_FLUX = re.compile(r'(annulus_)?flux(_err)?(_\d+)?')


def add_parser(commands: Commands) -> None:
    """Add ``csr-astro photometry``."""
    command = options.add_command(
        commands,
        'photometry',
        run,
        'measure sources on predicted backgrounds',
        [
            'photometry map.fits catalog.ecsv --apertures 5arcsec,6arcsec',
            'photometry map.fits --pixel 90 160 --apertures 4 --fwhm 3.5 --annulus',
        ],
        parents=[options.map_options(), options.removal_options()],
    )
    command.add_argument('-o', '--output', help='table to write [MAP_photometry.ecsv]')
    options.add_apertures(command, required=True)


def run(args: Namespace) -> None:
    """Write the table of fluxes and print its main columns."""
    from csr_astro import InpaintedAperturePhotometry
    from csr_astro.flags import count_sources
    from csr_astro.tables import check_table_path, write_table
    from csr_astro.utils.files import stem

    output = Path(args.output or f'{stem(Path(args.map))}_photometry.ecsv')
    check_table_path(output)
    options.refuse_overwrite(args, output)
    options.keep_inputs(output, args.map, args.catalog)
    image, header = options.read_map(args)
    photometry = InpaintedAperturePhotometry(
        **options.photometry_options(args), estimator=options.make_estimator(args, header)
    )
    table = photometry(
        image,
        options.read_sources(args),
        mask_radius=options.mask_radius(args),
        **options.catalog_options(args),
    )
    write_table(output, table)
    print('\n'.join(_summary(table)))
    correction = table.meta['aperture_correction']
    print('fluxes: sums of pixels, ' + (
        'nothing added for what lies outside the aperture' if correction == 'none'
        else f'over the enclosed energy ({correction})'
    ))  # fmt: skip
    print(f'{count_sources(table, "measured")}: {output}')


def _summary(table):
    """Lines of the columns that are shown, with few digits: all would be too wide to print."""
    shown = table[[name for name in table.colnames
                   if name in ('id', 'snr', 'mask_name', 'flags') or _FLUX.fullmatch(name)]]
    for name in shown.colnames:
        if name == 'snr' or _FLUX.fullmatch(name):
            shown[name].info.format = '.1f' if name == 'snr' else '.5g'
    return shown.pformat(max_lines=24, max_width=120, show_unit=True)
