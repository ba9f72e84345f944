"""Tests of reading the tables and models that come with the package."""

import pytest

from csr_astro.utils.data import DATA, read_data


@pytest.mark.parametrize('path', sorted(DATA.rglob('*.toml')), ids=lambda path: path.stem)
def test_every_file_is_read_once(path):
    name = path.relative_to(DATA).as_posix()
    content = read_data(name)
    assert content
    assert read_data(name) is content


def test_missing_file_is_an_error():
    with pytest.raises(FileNotFoundError, match='nothing'):
        read_data('nothing.toml')
