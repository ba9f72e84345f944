"""Tests of writing files in one step, and of finding them."""

import os

import pytest

from csr_astro.utils.files import atomic_path, fits_files, stem, sweep


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_when_it_is_finished(tmp_path):
    path = tmp_path / 'map.v2.fits.gz'
    path.write_text('older')
    with atomic_path(path) as temporary:
        temporary.write_text('newer')
        assert path.read_text() == 'older'
        assert temporary.parent == tmp_path
        assert temporary.name.endswith('.fits.gz')
    assert path.read_text() == 'newer'
    assert names(tmp_path) == [path.name]


def test_reader_of_the_older_file_is_not_disturbed(tmp_path):
    path = tmp_path / 'log.csv'
    path.write_text('older')
    with path.open() as reader:
        with atomic_path(path) as temporary:
            temporary.write_text('newer')
        assert reader.read() == 'older'


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize('existing', [True, False])
def test_nothing_is_left_behind_on_error(tmp_path, error, existing):
    path = tmp_path / 'log.csv'
    if existing:
        path.write_text('older')

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text('half')
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == [path.name] * existing
    assert not existing or path.read_text() == 'older'


@pytest.mark.parametrize('umask', [0o022, 0o077])
def test_file_permissions_follow_the_umask(tmp_path, umask):
    previous = os.umask(umask)
    try:
        with atomic_path(tmp_path / 'file') as temporary:
            temporary.write_text('content')
        assert os.umask(umask) == umask
    finally:
        os.umask(previous)
    assert (tmp_path / 'file').stat().st_mode & 0o777 == 0o666 & ~umask


def test_missing_folder_is_named(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r'no such folder .*missing'),
        atomic_path(tmp_path / 'missing' / 'file'),
    ):
        pass


def test_what_a_killed_process_left_is_swept_away(tmp_path):
    (tmp_path / 'map.fits').write_text('kept')
    with atomic_path(tmp_path / 'clean.fits') as temporary:
        temporary.write_text('half')
        content = temporary.read_bytes()
        name = temporary.name
    (tmp_path / name).write_bytes(content)
    sweep(tmp_path)
    assert names(tmp_path) == ['clean.fits', 'map.fits']


def test_fits_files_are_found_by_name(tmp_path):
    for name in ('b.fits', 'a.FITS', 'c.fits.gz', 'd.fit', 'e.fits.fz', 'a.fits.md5', 'f.csv'):
        (tmp_path / name).touch()
    found = [path.name for path in fits_files(tmp_path)]
    assert found == ['a.FITS', 'b.fits', 'c.fits.gz', 'd.fit', 'e.fits.fz']
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match=r'no FITS files in .*empty'):
        fits_files(tmp_path / 'empty')


@pytest.mark.parametrize('name', ['m31.fits', 'm31.fits.gz', 'm31.fit', 'm31.fits.fz', 'm31'])
def test_stem_is_the_name_without_its_kind(tmp_path, name):
    assert stem(tmp_path / name) == tmp_path / 'm31'
