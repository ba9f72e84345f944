"""Command that measures sources on predicted backgrounds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from csr_astro.commands import measuring, options

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
            'photometry map.fits catalog.ecsv --method psf --psf psf.fits',
            'photometry map.fits catalog.ecsv --method gaussian --fwhm 18.2arcsec',
            'photometry map.fits --find --apertures 6arcsec',
        ],
        parents=[options.map_options(), options.removal_options()],
    )
    command.add_argument('-o', '--output', help='table to write [MAP_photometry.ecsv]')
    measuring.add_photometry(command)


def run(args: Namespace) -> None:
    """Write the table of fluxes and print its main columns."""
    from csr_astro.diagnosis import require_success
    from csr_astro.flags import NOT_MEASURED, count_sources
    from csr_astro.products import describe_reading
    from csr_astro.removal import make_photometry
    from csr_astro.tables import check_table_path, write_table

    output = options.output_path(args, '_photometry.ecsv')
    check_table_path(output)
    options.refuse_overwrite(args, output)
    options.keep_inputs(output, args.map, args.catalog, args.psf)
    asked = measuring.photometry_options(args)
    if asked is None:
        raise ValueError('give --apertures, or --method psf or gaussian.')
    image, header = options.read_map(args)
    estimator = options.make_estimator(args, header)
    photometry = make_photometry(estimator, **asked)
    sources = options.read_sources(args, image, estimator)
    table = photometry(
        image, sources, mask_radius=options.mask_radius(args), **options.catalog_options(args)
    )
    require_success(image, table, 'measured', NOT_MEASURED)
    write_table(output, table)
    print('\n'.join(_summary(table)))
    print(_explanation(table.meta, image.unit))
    print(f'read: {describe_reading(table.meta)}')
    print(f'{count_sources(table, "measured", NOT_MEASURED)}: {output}')


def _explanation(meta, unit):
    """Line that says what the fluxes are."""
    correction = meta['aperture_correction']
    without = ' of a map without unit (--unit gives one)' if unit is None else ''
    if 'apertures' in meta:
        return f'fluxes: sums of pixels{without}, ' + (
            'nothing added for what lies outside the aperture' if correction == 'none'
            else f'over the enclosed energy ({correction})'
        )  # fmt: skip
    fitted = 'the PSF' if meta['shape'] == 'point' else 'Gaussians convolved with the PSF'
    return f'fluxes: fits of {fitted}{without}, ' + (
        'nothing added for what lies outside it' if correction == 'none'
        else f'over the energy that it holds ({correction})'
    )  # fmt: skip


def _summary(table):
    """Lines of the columns that are shown, with few digits: all would be too wide to print."""
    shown = table[[name for name in table.colnames if _is_shown(name)]]
    for name in shown.colnames:
        if name in ('snr', 'reduced_chi2'):
            shown[name].info.format = '.1f'
        elif 'flux' in name or 'fwhm' in name:
            shown[name].info.format = '.5g' if 'flux' in name else '.3g'
    return shown.pformat(max_lines=24, max_width=120, show_unit=True)


def _is_shown(name):
    if name in ('id', 'snr', 'mask_name', 'flags', 'reduced_chi2', 'fwhm_major', 'fwhm_minor'):
        return True
    return bool(_FLUX.fullmatch(name))
