"""Command that lists instruments and their masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csr_astro.commands import options

if TYPE_CHECKING:
    from argparse import Namespace

    from csr_astro.commands.options import Commands

__all__ = ['add_parser', 'run']


def add_parser(commands: Commands) -> None:
    """Add ``csr-astro instruments``."""
    options.add_command(
        commands, 'instruments', run, 'list instruments and their masks', ['instruments']
    )


def run(args: Namespace) -> None:
    """Print beam, pixel scale and mask radii of every instrument."""
    del args
    from csr_astro.instruments import MASK_NAMES, get_instrument, list_instruments

    print(f'{"name":20s} {"beam":>6s} {"pixel":>6s}  mask radii [pixel] ({", ".join(MASK_NAMES)})')
    for name in list_instruments():
        band = get_instrument(name)
        scale = band.pixel_scale
        beam = f'{band.fwhm * scale:.3g}"' if scale else f'{band.fwhm:.1f} px'
        pixel = f'{scale:.3g}"' if scale else ''
        radii = ' '.join(f'{radius:.3g}' for radius in band.mask_radii)
        print(f'{name:20s} {beam:>6s} {pixel:>6s}  {radii}')
        print(f'{"":20s} {band.description}')
        if band.source:
            print(f'{"":20s} {band.source}{"" if band.checked else " (beam not checked)"}')
