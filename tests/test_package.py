"""Tests of the package as a whole: what it imports, its names and its documentation."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import csr_astro
from csr_astro.flags import FLAGS

PUBLIC = {
    'InpaintedAperturePhotometry',
    'NeuralBackground',
    'NeuralBackgroundEstimator',
    'list_weights',
    'load_model',
}

MAIN = Path(csr_astro.__file__).with_name('__main__.py')

SCRIPT = """
import json, sys
import csr_astro
from csr_astro.flags import FLAGS
first = sorted(m for m in sys.modules if '.' not in m)
names = dir(csr_astro)
estimator = csr_astro.NeuralBackgroundEstimator
print(json.dumps([first, names, estimator.__name__, dir(csr_astro) == names]))
"""


def python(*arguments):
    """Run a new interpreter that finds the package that is tested."""
    root = Path(csr_astro.__file__).parents[1]
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {'PYTHONPATH': str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_does_not_wait_for_the_heavy_ones():
    done = python('-W', 'error', '-c', SCRIPT)
    assert done.stderr == ''
    modules, names, name, same = json.loads(done.stdout)
    heavy = {'torch', 'photutils', 'astropy', 'scipy', 'matplotlib', 'regions', 'dask'}
    assert not (heavy | {'distributed'}) & set(modules)
    assert set(names) >= PUBLIC
    assert name == 'NeuralBackgroundEstimator'
    assert same


def test_package_runs_as_the_command():
    done = python('-m', 'csr_astro', '--version')
    assert (done.returncode, done.stdout) == (0, f'{csr_astro.__version__}\n')


def test_star_import_gives_the_public_names():
    namespace = {}
    exec('from csr_astro import *', namespace)
    assert set(namespace) - {'__builtins__'} == set(csr_astro.__all__)


@pytest.mark.parametrize('name', csr_astro.__all__)
def test_public_names_are_documented_objects(name):
    assert name in dir(csr_astro)
    value = getattr(csr_astro, name)
    assert callable(value)
    assert value.__doc__
    assert value is getattr(importlib.import_module(value.__module__), name)


def test_stable_names_are_public():
    assert set(csr_astro.__all__) >= PUBLIC


@pytest.mark.parametrize('name', ['nothing', 'neuralbackground', '__path', 'torch'])
def test_unknown_attributes_are_refused(name):
    with pytest.raises(AttributeError, match=f'csr_astro.* attribute .*{name}'):
        getattr(csr_astro, name)


def test_unknown_names_cannot_be_imported():
    with pytest.raises(ImportError, match='nothing'):
        exec('from csr_astro import nothing')


def test_version_is_a_string():
    assert isinstance(csr_astro.__version__, str)
    assert csr_astro.__version__


PACKAGES = ['evaluation', 'simulation', 'training']


@pytest.mark.parametrize('name', PACKAGES)
def test_packages_name_all_of_their_modules(name):
    package = importlib.import_module(f'csr_astro.{name}')
    assert package.__all__ == sorted(each.name for each in pkgutil.iter_modules(package.__path__))


def test_modules_load_when_they_are_first_used():
    script = 'import csr_astro\n' + '\n'.join(
        f'for name in csr_astro.{package}.__all__: getattr(csr_astro.{package}, name)'
        for package in PACKAGES
    )
    done = python('-c', script)
    assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize(
    'path',
    # That one runs the command.
    sorted(set(Path(csr_astro.__file__).parent.rglob('*.py')) - {MAIN}),
    ids=lambda path: path.stem,
)
def test_names_of_every_module_exist(path):
    root = Path(csr_astro.__file__).parents[1]
    parts = path.relative_to(root).with_suffix('').parts
    module = importlib.import_module('.'.join(part for part in parts if part != '__init__'))
    for name in getattr(module, '__all__', []):
        assert hasattr(module, name)


@pytest.mark.parametrize('flag', FLAGS, ids=lambda flag: flag.name)
def test_the_guide_says_what_to_do_about_every_flag(flag):
    guide = Path(__file__).parents[1] / 'docs' / 'guides' / 'flags.rst'
    terms = [line for line in guide.read_text('utf-8').splitlines() if line.startswith('``')]
    assert any(f'``{flag.name}``' in line for line in terms)
