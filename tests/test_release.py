"""Tests that the files of a release agree with each other."""

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import csr_astro

ROOT = Path(__file__).parents[1]


def read(name):
    path = ROOT / name
    if not path.is_file():
        pytest.skip(f'{name} is not beside the tests')
    return path.read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def pyproject():
    return tomllib.loads(read('pyproject.toml'))


@pytest.fixture(scope='module')
def project(pyproject):
    return pyproject['project']


@pytest.fixture(scope='module')
def tox():
    parser = ConfigParser(interpolation=None)
    parser.read_string(read('tox.ini'))
    return parser


def floors(requirements):
    found = {}
    for text in requirements:
        requirement = Requirement(text)
        if requirement.name == 'csr_astro':
            continue
        (floor,) = [each for each in requirement.specifier if each.operator == '>=']
        found[requirement.name] = Version(floor.version)
    return found


def test_oldest_versions_are_those_that_are_tested(project, tox):
    extras = project['optional-dependencies']
    wanted = floors(project['dependencies'])
    for name in set(extras) - {'all', 'docs'}:
        wanted |= floors(extras[name])
    deps = tox['testenv']['deps']
    pins = re.findall(r'oldestdeps: ([\w-]+)==([\d.]+?)(?:\.\*)?$', deps, re.MULTILINE)
    pinned = {name: Version(version) for name, version in pins}
    # A factor of its own: that PyTorch is gigabytes with CUDA.
    (version,) = re.findall(r'torch\d+: torch==([\d.]+)\.\*$', deps, re.MULTILINE)
    pinned['torch'] = Version(version)
    assert set(pinned) == set(wanted)
    for name, floor in wanted.items():
        # A floor without a patch number is tested by any, or by the last, of its patches.
        assert pinned[name].release[: len(floor.release)] == floor.release, name


def test_every_python_that_is_offered_is_tested(project, tox):
    offered = {
        text.rpartition(' ')[2]
        for text in project['classifiers']
        if re.fullmatch(r'Programming Language :: Python :: 3\.\d+', text)
    }
    pythons = re.search(r'py\{([\d,]+)\}-test', tox['tox']['envlist'])[1].split(',')
    assert offered == {f'3.{each[1:]}' for each in pythons}
    assert project['requires-python'] == f'>={min(offered, key=Version)}'


def test_all_holds_every_extra_of_users(project):
    (everything,) = project['optional-dependencies']['all']
    extras = set(project['optional-dependencies']) - {'all', 'test', 'docs'}
    assert Requirement(everything).extras == extras


def test_oldest_torch_has_an_environment(tox):
    deps = tox['testenv']['deps']
    factors = re.findall(r'(torch\d+): torch==', deps)
    assert factors
    for factor in factors:
        assert factor in tox['tox']['envlist']
        # The constraints name another PyTorch.
        assert f'!{factor}: python -I -m pip install -c' in tox['testenv']['install_command']


def test_linters_have_one_version():
    pins = dict(re.findall(r'^([\w-]+)==([\d.]+)\.\*$', read('tools/linters.txt'), re.MULTILINE))
    hooks = re.findall(r'repo: .*/([\w-]+)\n +rev: v([\d.]+)', read('.pre-commit-config.yaml'))
    names = {'ruff-pre-commit': 'ruff', 'mirrors-mypy': 'mypy'}
    versions = {names.get(name, name): version for name, version in hooks}
    del versions['pre-commit-hooks']
    assert set(versions) == set(pins)
    for name, pin in pins.items():
        assert f'{versions[name]}.'.startswith(f'{pin}.'), name


def test_version_is_that_of_the_citation_and_the_changes(pyproject):
    version = pyproject['tool']['setuptools_scm']['fallback_version']
    assert f'\nversion: {version}\n' in read('CITATION.cff')
    assert read('CHANGES.rst').split()[0] == Version(version).base_version


def test_repository_is_the_same_in_the_citation(project):
    repository = re.search(r'^repository-code: (.*)$', read('CITATION.cff'), re.MULTILINE)
    assert project['urls'].get('Repository') == (repository and repository[1])


def test_changes_have_the_sections_of_astropy():
    sections = re.findall(r'^(.+)\n-+$', read('CHANGES.rst'), re.MULTILINE)
    allowed = ['New Features', 'API Changes', 'Bug Fixes', 'Other Changes and Additions']
    assert set(sections) <= set(allowed)


def test_readme_has_one_line_that_installs_and_runs_the_tests():
    lines = [line.strip() for line in read('README.rst').splitlines()]
    command = 'python -m pip install -c constraints.txt ".[test]" && python -m pytest '
    assert sum(line.startswith(command) for line in lines) == 1


def test_bibtex_is_that_of_the_citation_file():
    assert csr_astro.__bibtex__ is csr_astro.__citation__
    paper_entry = csr_astro.__bibtex__.partition('@software')[0]
    fields = dict(re.findall(r'^    (\w+) = \{(.+)\},$', paper_entry, re.MULTILINE))
    paper = read('CITATION.cff').partition('\nreferences:')[2]
    for name, key in (('title', 'title'), ('year', 'year'), ('volume', 'volume'), ('eid', 'start'),
                      ('doi', 'doi')):  # fmt: skip
        assert f'{key}: "{fields[name]}"' in paper or f'{key}: {fields[name]}\n' in paper, name
    assert f'version = {{{csr_astro.__version__}}}' in csr_astro.__bibtex__
