import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import csr_astro

PUBLIC = {
    'InpaintedAperturePhotometry',
    'NeuralBackground',
    'NeuralBackgroundEstimator',
    'list_weights',
    'load_model',
}

SCRIPT = """
import json, sys
import csr_astro
first = sorted(m for m in sys.modules if '.' not in m)
names = dir(csr_astro)
estimator = csr_astro.NeuralBackgroundEstimator
print(json.dumps([first, names, estimator.__module__, dir(csr_astro) == names]))
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
    modules, names, module, same = json.loads(done.stdout)
    heavy = {'torch', 'photutils', 'astropy', 'scipy', 'matplotlib', 'regions', 'dask'}
    assert not (heavy | {'distributed'}) & set(modules)
    assert set(names) >= PUBLIC | {'__version__'}
    assert module == 'csr_astro.background'
    assert same


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
    with pytest.raises(AttributeError, match=f"module 'csr_astro' has no attribute '{name}'"):
        getattr(csr_astro, name)


def test_unknown_names_cannot_be_imported():
    with pytest.raises(ImportError, match='nothing'):
        exec('from csr_astro import nothing')


def test_version_is_a_string():
    assert isinstance(csr_astro.__version__, str)
    assert csr_astro.__version__


@pytest.mark.parametrize(
    'path', sorted(Path(csr_astro.__file__).parent.rglob('*.py')), ids=lambda path: path.stem
)
def test_names_of_every_module_exist(path):
    root = Path(csr_astro.__file__).parents[1]
    parts = path.relative_to(root).with_suffix('').parts
    module = importlib.import_module('.'.join(part for part in parts if part != '__init__'))
    for name in getattr(module, '__all__', []):
        assert hasattr(module, name)
