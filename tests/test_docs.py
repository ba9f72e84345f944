"""Tests of what the documentation tells a reader to type."""

import doctest
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_docs import DOCS, console_commands, write_example

_MARK = '\x02'
_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run(commands, folder):
    """Run commands in one shell; return what each printed, and its exit status."""
    script = ''.join(f'{command}\n(s=$?; echo "{_MARK}$s"; exit $s)\n' for command in commands)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    environment = os.environ | {
        'PATH': path, 'TQDM_DISABLE': '1', 'LC_ALL': 'C.UTF-8', 'MPLBACKEND': 'agg',
    }  # fmt: skip
    done = subprocess.run(
        ['bash'], input=script, cwd=folder, env=environment, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600,
    )  # fmt: skip
    found, output = [], ''
    for line in done.stdout.splitlines(keepends=True):
        if line.startswith(_MARK):
            found.append((output, int(line[1:])))
            output = ''
        else:
            output += line
    return found


def check(commands, folder):
    """Compare what commands print with what a page shows."""
    found = run([command for command, _ in commands], folder)
    assert len(found) == len(commands)
    for (command, shown), (output, status) in zip(commands, found, strict=True):
        if shown:
            # A line of "..." stands for any number of lines, none among them.
            wanted = shown.replace('...\n', '...')
            matches = doctest.OutputChecker().check_output(wanted, output, _OPTIONS)
            assert matches, f'$ {command}\n{output}\nshown:\n{shown}'
        assert bool(status) == ('error:' in shown), f'$ {command}\n{output}'


def test_commands_of_the_command_line_page_run(tmp_path):
    pytest.importorskip('distributed')
    commands = console_commands((DOCS / 'command_line.rst').read_text(encoding='utf-8'))
    assert len(commands) > 15
    check([each for each in commands if 'completion' not in each[0]], tmp_path)


def test_commands_of_the_front_page_run(tmp_path):
    write_example(tmp_path)
    commands = console_commands((DOCS / 'index.rst').read_text(encoding='utf-8'))
    commands = [each for each in commands if each[0].startswith('csr-astro')]
    assert len(commands) == 2
    check(commands, tmp_path)
    assert (tmp_path / 'clean.fits').exists()
    assert (tmp_path / 'fluxes.ecsv').exists()


@pytest.mark.parametrize(
    ('output', 'works'), [('one\nlast\n', True), ('last\n', True), ('one\nother\n', False)]
)
def test_wrong_output_is_noticed(tmp_path, output, works):
    (tmp_path / 'text').write_text(output)
    commands = [('cat text', '...\nlast\n')]
    if works:
        check(commands, tmp_path)
    else:
        with pytest.raises(AssertionError, match=r'\$ cat text'):
            check(commands, tmp_path)


def test_command_that_fails_is_noticed(tmp_path):
    with pytest.raises(AssertionError, match='no-such-command'):
        check([('no-such-command', '')], tmp_path)
