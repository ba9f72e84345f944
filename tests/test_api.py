"""Tests that hold for every public name."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import csr_astro

PACKAGES = ('evaluation', 'kriging', 'nn', 'photometry', 'simulation', 'training')
#: Modules in the reference of the documentation, and others that users import.
MODULES = [
    'csr_astro.batch',
    'csr_astro.columns',
    'csr_astro.flags',
    'csr_astro.images',
    'csr_astro.instruments',
    'csr_astro.masking',
    'csr_astro.realization',
    'csr_astro.sources',
    'csr_astro.typing',
    'csr_astro.uncertainty',
    *(
        f'csr_astro.{package}.{module.name}'
        for package in PACKAGES
        for module in pkgutil.iter_modules(importlib.import_module(f'csr_astro.{package}').__path__)
        if module.name != 'device' and f'{package}.{module.name}' != 'nn.fill'
    ),
]


def members(module):
    """Classes and functions of a module that are public."""
    module = importlib.import_module(module)
    found = {name: getattr(module, name) for name in module.__all__}
    return {
        name: value
        for name, value in found.items()
        if inspect.isclass(value) or inspect.isroutine(value) or hasattr(value, '__wrapped__')
    }


def callables():
    names = [('csr_astro', name) for name in csr_astro.__all__]
    names += [
        (module, name)
        for module in MODULES
        if module != 'csr_astro.typing'
        for name in members(module)
    ]
    return [pytest.param(*each, id='.'.join(each)) for each in names]


@pytest.mark.parametrize(('module', 'name'), callables())
def test_public_names_are_explained_by_an_example(module, name):
    text = inspect.getdoc(getattr(importlib.import_module(module), name))
    assert '\nExamples\n--------\n' in text
    assert '>>> ' in text.partition('\nExamples\n')[2]


def signatures(value):
    """Functions that a user calls: itself, or the methods and properties that a class defines."""
    if not inspect.isclass(value):
        return [value]
    found = []
    for name, member in vars(value).items():
        if name.startswith('_') and name not in ('__init__', '__call__', '__len__'):
            continue
        for function in (
            getattr(member, 'fget', None),
            getattr(member, 'func', None),
            getattr(member, '__func__', None),
            member,
        ):
            if getattr(function, '__module__', None) == value.__module__:
                found += [function] if inspect.isfunction(function) else []
    return found


@pytest.mark.parametrize(('module', 'name'), callables())
def test_public_signatures_have_types(module, name):
    for function in signatures(getattr(importlib.import_module(module), name)):
        bare = [
            parameter.name
            for i, parameter in enumerate(inspect.signature(function).parameters.values())
            if parameter.annotation is parameter.empty
            and not (i == 0 and parameter.name in ('self', 'cls'))
        ]
        assert not bare, function.__qualname__
        returns = inspect.signature(function).return_annotation
        assert returns is not inspect.Signature.empty, function.__qualname__


@pytest.mark.parametrize('name', PACKAGES)
def test_packages_show_their_modules(name):
    """A notebook completes the names, though none is loaded."""
    package = importlib.import_module(f'csr_astro.{name}')
    shown = {each for each in dir(package) if not each.startswith('_')}
    assert shown >= set(package.__all__)
    assert all(hasattr(package, each) for each in shown)


def test_package_shows_its_submodules_before_they_are_loaded():
    # In a fresh interpreter, because here all of them are loaded.
    script = (
        'import sys, csr_astro\n'
        'print(*dir(csr_astro))\n'
        'print(*dir(csr_astro.simulation), *dir(csr_astro.training))\n'
        'assert "astropy" not in sys.modules\n'
        'print(csr_astro.flags.decode_flags(16), csr_astro.simulation.psf.__name__)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, check=False
    )
    assert done.stderr == ''
    names, parts, found = done.stdout.splitlines()
    assert set(names.split()) > {*csr_astro.__all__, 'batch', 'instruments', 'simulation'}
    assert not {'annotations', 'TYPE_CHECKING', 'import_module'} & set(names.split())
    assert {'psf', 'losses', 'recipe'} <= set(parts.split())
    assert found == "['edge'] csr_astro.simulation.psf"


WANTED = {
    'NeuralBackground': (
        'background', 'background_in', 'background_rms', 'covariance', 'cutouts', 'errors', 'flags',
        'instrument', 'mask', 'plot', 'plot_source', 'realization', 'require_unchanged',
        'source_image', 'to_ccddata', 'unit',
    ),
    'NeuralBackgroundEstimator': ('estimate', 'plan', 'predictor', 'provenance', 'replace'),
    'InpaintedAperturePhotometry': (),
    'InpaintedPSFPhotometry': ('make_model_image', 'make_residual_image'),
}  # fmt: skip


@pytest.mark.parametrize('name', WANTED)
def test_classes_show_what_a_user_needs(name):
    assert set(WANTED[name]) <= set(dir(getattr(csr_astro, name)))


@pytest.mark.parametrize('name', WANTED)
def test_what_classes_show_is_explained(name):
    cls = getattr(csr_astro, name)
    for member in vars(cls):
        if not member.startswith('_'):
            assert inspect.getdoc(getattr(cls, member)), member
