"""Commands that list, describe and convert weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from csr_astro.commands import options

if TYPE_CHECKING:
    from argparse import Namespace

    from csr_astro.commands.options import Commands

__all__ = ['add_parser', 'run_convert', 'run_info', 'run_list']


def add_parser(commands: Commands) -> None:
    """Add ``csr-astro weights``."""
    actions = options.add_group(
        commands, 'weights', 'list, describe or convert weights', 'weights info default', 'ACTION'
    )
    options.add_command(
        actions, 'list', run_list, 'list the bundled weights', ['weights list']
    )
    info = options.add_command(
        actions, 'info', run_info, 'describe weights', ['weights info default']
    )
    info.add_argument('weights', help='name or .safetensors file')
    convert = options.add_command(
        actions,
        'convert',
        run_convert,
        "convert a checkpoint of the paper's authors",
        ['weights convert checkpoint.pth published.safetensors'],
    )
    convert.add_argument('checkpoint', help='PyTorch state dict')
    convert.add_argument('output', help='.safetensors file to write')
    convert.add_argument('--title', default='', help='title in the header of the weights')
    convert.add_argument('--licence', default='', help='licence in the header of the weights')
    convert.add_argument('--overwrite', action='store_true', help='replace an existing file')


def run_list(args: Namespace) -> None:
    """Print the names of the bundled weights."""
    del args
    from csr_astro.nn.weights import list_weights, read_info

    for name in list_weights():
        info = read_info(name)
        print(f'{name}: width {info.width}, {info.normalization} normalisation. {info.title}')


def run_info(args: Namespace) -> None:
    """Print the card of weights."""
    from csr_astro.nn.weights import read_info

    info = read_info(args.weights)
    for name in info.__dataclass_fields__:
        if name != 'path' and getattr(info, name) is not None:
            print(f'{name}: {getattr(info, name)}')


def run_convert(args: Namespace) -> None:
    """Write a checkpoint as weights."""
    from csr_astro.nn.weights import convert_checkpoint, read_info

    options.refuse_overwrite(args, Path(args.output))
    options.keep_inputs(Path(args.output), args.checkpoint)
    convert_checkpoint(args.checkpoint, args.output, title=args.title, licence=args.licence)
    print(f'written: {args.output}, SHA-256 {read_info(args.output).sha256}')
