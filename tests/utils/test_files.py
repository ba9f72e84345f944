"""Tests of writing files in one step, and of finding them."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import csr_astro
from csr_astro.utils import files
from csr_astro.utils.files import atomic_path, fits_files, locked, stem, sweep


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_when_it_is_finished(tmp_path):
    path = tmp_path / 'map.v2.fits.gz'
    path.write_text('older')
    with atomic_path(path) as temporary:
        temporary.write_text('newer')
        assert path.read_text() == 'older'
        assert temporary.parent.parent == tmp_path
        assert temporary.name == path.name
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


def write_private(path):
    """Write a file as many programs do: private, and under another name first."""
    other = path.with_name('.tmpX')
    other.write_text('content')
    other.chmod(0o600)
    other.rename(path)


def write_tensors(path):
    save_file({'zero': torch.zeros(1)}, path)


@pytest.mark.parametrize('write', [Path.touch, write_private, write_tensors])
@pytest.mark.parametrize('umask', [0o022, 0o077, 0o002])
def test_file_permissions_follow_the_umask(tmp_path, umask, write):
    previous = os.umask(umask)
    try:
        with atomic_path(tmp_path / 'file') as temporary:
            write(temporary)
        assert os.umask(umask) == umask
    finally:
        os.umask(previous)
    assert (tmp_path / 'file').stat().st_mode & 0o777 == 0o666 & ~umask


def test_content_is_on_the_disk_before_the_file_takes_its_name(tmp_path, monkeypatch):
    path, flushed = tmp_path / 'log.csv', []
    path.write_text('older')

    def fsync(number):
        flushed.append((os.fstat(number).st_ino, path.read_text()))

    monkeypatch.setattr(files.os, 'fsync', fsync)
    with atomic_path(path) as temporary:
        temporary.write_text('newer')
    assert flushed == [(path.stat().st_ino, 'older'), (tmp_path.stat().st_ino, 'newer')]


def test_older_file_stays_if_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / 'log.csv'
    path.write_text('older')

    def fsync(_):
        raise OSError(errno.ENOSPC, 'no space left')

    def write():
        with atomic_path(path) as temporary:
            temporary.write_text('newer')

    monkeypatch.setattr(files.os, 'fsync', fsync)
    with pytest.raises(OSError, match='no space left'):
        write()
    assert path.read_text() == 'older'
    assert names(tmp_path) == ['log.csv']


def test_missing_folder_is_named(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r'no such folder .*missing'),
        atomic_path(tmp_path / 'missing' / 'file'),
    ):
        pass


def test_folder_in_place_of_the_file_is_named(tmp_path):
    (tmp_path / 'file').mkdir()
    with (
        pytest.raises(IsADirectoryError, match=r"cannot write '.*file': it is a folder"),
        atomic_path(tmp_path / 'file'),
    ):
        pass


WRITE_SLOWLY = """
import sys
from csr_astro.utils.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text('half')
    temporary.with_name('.tmpX').write_text('of a library')
    print('half', flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """A process that has written half of clean.fits."""
    with subprocess.Popen(
        [sys.executable, '-c', WRITE_SLOWLY, str(tmp_path / 'clean.fits')],
        env=os.environ | {'PYTHONPATH': str(Path(csr_astro.__file__).parents[1])},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == 'half\n'
        yield process
        process.kill()


@pytest.mark.parametrize('by', [sweep, lambda folder: write_text(folder / 'map.fits')])
def test_what_a_killed_process_left_is_swept_away(tmp_path, writer, by):
    (tmp_path / 'map.fits').write_text('kept')
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert len(names(tmp_path)) == 2
    by(tmp_path)
    assert names(tmp_path) == ['map.fits']


def write_text(path):
    with atomic_path(path) as temporary:
        temporary.write_text('other')


def test_what_another_process_is_writing_stays(tmp_path, writer):
    sweep(tmp_path)
    write_text(tmp_path / 'other.fits')
    writer.communicate('')
    assert writer.returncode == 0
    assert (tmp_path / 'clean.fits').read_text() == 'half'
    assert names(tmp_path) == ['clean.fits', 'other.fits']


@pytest.mark.parametrize('kind', [Path.mkdir, Path.touch])
def test_strangers_with_such_a_name_stay_and_disturb_nobody(tmp_path, kind):
    kind(tmp_path / '.csr-astro-0123')
    sweep(tmp_path)
    write_text(tmp_path / 'map.fits')
    assert names(tmp_path) == ['.csr-astro-0123', 'map.fits']


def test_file_is_held_by_one_at_a_time(tmp_path):
    path = tmp_path / 'lock'

    def hold():
        with locked(path):
            return names(tmp_path)

    with locked(path), pytest.raises(BlockingIOError, match='held by another process'):
        hold()
    assert hold() == ['lock']
    assert names(tmp_path) == []
    path.touch()
    assert hold() == ['lock']


def test_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, 'no locks')

    monkeypatch.setattr(files.fcntl, 'flock', flock)
    with locked(tmp_path / 'lock'):
        write_text(tmp_path / 'map.fits')
    assert names(tmp_path) == ['map.fits']


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
