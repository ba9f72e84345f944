"""What is published fits together."""

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def project():
    path = ROOT / 'pyproject.toml'
    if not path.is_file():
        pytest.skip('the tests lie alone')
    return tomllib.loads(path.read_text(encoding='utf-8'))['project']


@pytest.fixture(scope='module')
def tox():
    parser = ConfigParser(interpolation=None)
    parser.read(ROOT / 'tox.ini', encoding='utf-8')
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
    for name in ('plot', 'dask', 'train', 'evaluate', 'test'):
        wanted |= floors(extras[name])
    deps = tox['testenv']['deps']
    pins = re.findall(r'oldestdeps: ([\w-]+)==([\d.]+?)(?:\.\*)?$', deps, re.MULTILINE)
    pinned = {name: Version(version) for name, version in pins}
    # The oldest torch needs what PyTorch no longer offers for every processor.
    wanted.pop('torch')
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
