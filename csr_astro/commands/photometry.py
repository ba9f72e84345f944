"""Command that measures sources on predicted backgrounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csr_astro.commands import options

if TYPE_CHECKING:
    from argparse import Namespace

    from csr_astro.commands.options import Commands

__all__ = ['add_parser', 'run']


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
    from csr_astro.diagnosis import require_success
    from csr_astro.flags import NOT_MEASURED, count_sources
    from csr_astro.products import describe_reading
    from csr_astro.tables import check_table_path, write_table

    output = options.output_path(args, '_photometry.ecsv')
    check_table_path(output)
    options.refuse_overwrite(args, output)
    options.keep_inputs(output, args.map, args.catalog)
    image, header = options.read_map(args)
    photometry = InpaintedAperturePhotometry(
        **options.photometry_options(args), estimator=options.make_estimator(args, header)
    )
    table = photometry(
        image, options.read_sources(args), mask_radius=options.mask_radius(args)
    )
    require_success(image, table, 'measured', NOT_MEASURED)
    write_table(output, table)
    print('\n'.join(_summary(table)))
    correction = table.meta['aperture_correction']
    without = ' of a map without unit (--unit gives one)' if image.unit is None else ''
    print(f'fluxes: sums of pixels{without}, ' + (
        'nothing added for what lies outside the aperture' if correction == 'none'
        else f'over the enclosed energy ({correction})'
    ))  # fmt: skip
    print(f'read: {describe_reading(table.meta)}')
    print(f'{count_sources(table, "measured", NOT_MEASURED)}: {output}')


def _summary(table):
    """Lines of the columns that are shown, with few digits: all would be too wide to print."""
    shown = table[[name for name in table.colnames
                   if name in ('id', 'snr', 'mask_name', 'flags') or 'flux' in name]]
    for name in shown.colnames:
        if name == 'snr' or 'flux' in name:
            shown[name].info.format = '.1f' if name == 'snr' else '.5g'
    return shown.pformat(max_lines=24, max_width=120, show_unit=True)
