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
    command.add_argument(
        '-o', '--output', default='csr-astro-demo', help='folder to write to [%(default)s]'
    )
    command.add_argument('--seed', type=int, default=1, help='seed of the field [%(default)s]')
    command.add_argument(
        '--weights', default='default', help='name or file of weights [%(default)s]'
    )


def run(args: Namespace) -> None:
    """Write the demonstration and print injected and measured fluxes."""
    from csr_astro.demo import judge, run_demo

    folder = Path(args.output)
    table = run_demo(folder, weights=args.weights, seed=args.seed, progress=True)
    print('   id    injected    measured  +-  error       ratio   annulus ratio')
    for row in table:
        print(
            f'{row["id"]:5d}  {row["injected"]:10.2f}  {row["flux"]:10.2f}  +- '
            f'{row["flux_err"]:6.2f}  {row["flux"] / row["injected"]:10.3f}  '
            f'{row["annulus_flux"] / row["injected"]:14.3f}'
        )
    summary = judge(table)
    print('error of the flux   scatter  median  within 1 sigma  within 2 sigma')
    for row in summary:
        print(
            f'{row["method"]:17s}  {row["scatter"]:8.2f}  {row["bias"]:+6.2f}  '
            f'{row["within_1_sigma"]:14.0%}  {row["within_2_sigma"]:14.0%}'
        )
    network, annulus = summary
    print(
        f'verdict: errors scatter {network["scatter"] / annulus["scatter"]:.2f} times as much as '
        f'with the annulus; the stated errors {_coverage(network["within_1_sigma"], len(table))}'
    )
    print(f'written: {folder / "demo.fits"}, {folder / "demo.ecsv"}, {folder / "demo.png"}')


def _coverage(fraction, number):
    """Compare the fraction within one standard error with that of a normal distribution."""
    expected = 0.683
    sampling = (expected * (1 - expected) / number) ** 0.5
    if abs(fraction - expected) < 2 * sampling:
        return f'hold ({fraction:.0%} of the fluxes within 1 sigma, 68% expected)'
    size = 'small' if fraction < expected else 'large'
    return f'are too {size} ({fraction:.0%} of the fluxes within 1 sigma, 68% expected)'
