"""Command that removes and measures the sources of a simulated field."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from csr_astro.commands import options

if TYPE_CHECKING:
    from argparse import Namespace

    from csr_astro.commands.options import Commands

__all__ = ['add_parser', 'run']


def add_parser(commands: Commands) -> None:
    """Add ``csr-astro demo``."""
    command = options.add_command(
        commands,
        'demo',
        run,
        'remove and measure the sources of a simulated field',
        ['demo', 'demo --output somewhere --seed 7'],
    )
    command.add_argument('-o', '--output', default='csr-astro-demo', help='folder [%(default)s]')
    command.add_argument('--seed', type=int, default=1, help='of the field [%(default)s]')
    command.add_argument('--weights', default='default', help='name or file [%(default)s]')


def run(args: Namespace) -> None:
    """Write the demonstration and print injected and measured fluxes."""
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
