"""Command line of the package, ``csr-astro``."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from difflib import get_close_matches
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
from csr_astro.utils.optional import require

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ['main', 'make_parser']

# In the order of the help.
_COMMANDS = (remove, photometry, find, batch, demo, weights, instruments, simulate, evaluate, train)

_FAILED, _INTERRUPTED = 1, 130


# Arguments of Python that errors name, and that are options of the commands.
_OPTIONS = (
    'aperture_correction', 'apertures', 'beam', 'error', 'error_hdu', 'flux_unit', 'fwhm', 'hdu',
    'ignore_errors', 'instrument', 'mask', 'mask_hdu', 'mask_radius', 'plane', 'unit', 'weights',
)  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """Parser that suggests what a misspelt option or command may mean."""

    def error(self, message):
        known = sorted(_words(self))
        meant = [
            found
            for word in re.findall(r"--[\w-]+|'[\w-]+'", message)
            for found in get_close_matches(word.strip("'"), known, n=1, cutoff=0.7)
            if found != word.strip("'")
        ]
        super().error(f'{message}; did you mean {meant[0]}?' if meant else message)


def _actions(parser):
    """Yield the arguments of a parser and of those below it."""
    for action in parser._actions:  # noqa: SLF001
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for below in action.choices.values():
                yield from _actions(below)


def _words(parser):
    """Return the options and commands of a parser and of those below it."""
    words = set()
    for action in _actions(parser):
        words |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            words |= set(action.choices)
    return words


def _for_the_shell(text):
    """Name options in place of the arguments of Python functions."""
    text = text.replace('give wcs= or pixels', 'give pixels')
    for name in _OPTIONS:
        option = '--' + name.replace('_', '-')
        text = re.sub(rf'\b{name}=(True\b)?( \({option}\))?', option, text)
    return text


def _sentence(error):
    """Say what went wrong in one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f'{str(error.filename)!r}: {error.strerror}.'
    return _for_the_shell(' '.join(str(error).split()) or type(error).__name__)


class _PrintCompletion(argparse.Action):
    """Print the completion script of a shell, and leave."""

    def __call__(self, parser, _namespace, values, _option_string=None):
        from csr_astro.instruments import list_instruments

        shtab = require('shtab', 'shell completion needs', 'completion')
        for action in _actions(parser):
            if '--instrument' in action.option_strings:
                action.choices = list_instruments()
            elif action.nargs != 0 and action.choices is None:
                action.complete = shtab.FILE
        print(shtab.complete(parser, shell=values))
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands.

    Returns
    -------
    parser : `argparse.ArgumentParser`

    Examples
    --------
    >>> from csr_astro.cli import make_parser
    >>> make_parser().parse_args(['demo', '--seed', '7']).seed
    7
    """
    parser = _Parser(
        prog='csr-astro',
        description='Remove compact sources from astronomical maps, and measure them.',
        epilog='example: csr-astro demo',
    )
    parser.add_argument('--version', action='version', version=csr_astro.__version__)
    parser.add_argument(
        '--print-completion', action=_PrintCompletion, choices=('bash', 'zsh', 'tcsh'),
        help='print the completion script of a shell',
    )
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def _split_map(args):
    """Take the extension in brackets from the name of a map: ``map.fits[SCI]`` is --hdu SCI."""
    if isinstance(getattr(args, 'map', None), str) and hasattr(args, 'hdu'):
        from csr_astro.utils.files import split_extension

        path, named = split_extension(args.map)
        if named is not None:
            args.map, args.hdu = str(path), named if args.hdu is None else args.hdu


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
    args = argparse.Namespace(debug=False)
    try:
        args = make_parser().parse_args(argv)
        if args.verbose:
            logging.basicConfig(format='%(asctime)s %(name)s: %(message)s')
            logging.getLogger('csr_astro').setLevel(logging.INFO)
        _split_map(args)
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
        print(f'csr-astro: error: {_sentence(error)}', file=sys.stderr)
        return _FAILED
    return 0


if __name__ == '__main__':
    sys.exit(main())
