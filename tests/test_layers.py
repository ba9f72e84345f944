"""Test that no module imports one of a higher layer: the contract is in pyproject.toml."""

import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

import csr_astro

ROOT = Path(csr_astro.__file__).parents[1]
PYPROJECT = ROOT / 'pyproject.toml'


def lint(cwd=ROOT):
    """Run import-linter with the contract of a folder; its exit status and what it says."""
    code = 'import sys; from importlinter.cli import lint_imports_command; lint_imports_command()'
    done = subprocess.run(
        [sys.executable, '-c', code, '--no-cache'],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope='module')
def contract():
    if find_spec('importlinter') is None:
        pytest.skip('import-linter is not installed')
    if not PYPROJECT.is_file():
        pytest.skip(f'the package is not tested from its repository: no {PYPROJECT}')
    content = tomllib.loads(PYPROJECT.read_text('utf-8'))
    if 'importlinter' not in content.get('tool', {}):
        pytest.skip('pyproject.toml holds no contract')
    return content['tool']['importlinter']


@pytest.mark.usefixtures('contract')
def test_imports_run_one_way():
    code, told = lint()
    assert code == 0, told


@pytest.mark.usefixtures('contract')
def test_import_of_a_higher_layer_is_found(tmp_path):
    """A package with the same contract, and one import that runs upwards."""
    package = tmp_path / 'layered'
    package.mkdir()
    for name, text in {'__init__': '', 'low': 'from layered import high\n', 'high': ''}.items():
        (package / f'{name}.py').write_text(text)
    (tmp_path / 'pyproject.toml').write_text(
        '[tool.importlinter]\n'
        "root_package = 'layered'\n"
        '[[tool.importlinter.contracts]]\n'
        "name = 'one way'\n"
        "type = 'layers'\n"
        "containers = ['layered']\n"
        "layers = ['high', 'low']\n"
    )
    code, told = lint(cwd=tmp_path)
    assert code != 0
    assert 'layered.low is not allowed to import layered.high' in told
