"""Command line of the package, ``csr-astro``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

import csr_astro
from csr_astro.commands import (
    batch,
    demo,
    evaluate,
    find,
    instruments,
    photometry,
    remove,
    simulate,
    train,
    weights,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ['main']

# In the order of the help.
_COMMANDS = (remove, photometry, find, batch, demo, weights, instruments, simulate, evaluate, train)

_FAILED, _INTERRUPTED = 1, 130


def _parser():
    parser = argparse.ArgumentParser(
        prog='csr-astro',
        description='Remove compact sources from astronomical maps, and measure them.',
        epilog='example: csr-astro demo',
    )
    parser.add_argument('--version', action='version', version=csr_astro.__version__)
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    code : int
        0 if all went well, 1 after an error (one line on standard error; the
        traceback with ``--debug``), 130 after Ctrl-C; argparse exits with 2
        after a wrong argument.
    """
    args = _parser().parse_args(argv)
    try:
        args.function(args)
    except KeyboardInterrupt:
        print('csr-astro: stopped.', file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has left ("| head"): nothing may be written on leaving either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    except Exception as error:
        if args.debug:
            raise
        text = ' '.join(str(error).split()) or type(error).__name__
        print(f'csr-astro: error: {text}', file=sys.stderr)
        return _FAILED
    return 0


if __name__ == '__main__':
    sys.exit(main())
