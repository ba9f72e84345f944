"""What is done stays done only while its files are whole, and one batch writes to a folder."""

import hashlib
import os
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from helpers_batch import jobs_in, times

from csr_astro.batch import MANIFEST, many, remove_many
from csr_astro.utils.files import locked


@pytest.fixture
def run(folder, options, threads):
    def run(names='ab', **arguments):
        options.update(photometry={'apertures': 3.0}, errors=False)
        return remove_many(
            jobs_in(folder, list(names)), folder / 'out', cluster=threads, **(options | arguments)
        )

    return run


def change_a_byte(path):
    """Change the content of a file, and neither its size nor its time."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    place = -3000 if path.suffix == '.fits' else content.rindex(b'100.25')
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def redone(folder, before):
    return {name[0] for name, time in times(folder / 'out').items() if time != before[name]}


def test_manifest_tells_size_and_hash_of_every_file(folder, run):
    for row in run():
        for kind in ('output', 'table', 'photometry'):
            content = (folder / 'out' / row[kind]).read_bytes()
            assert row[f'{kind}_size'] == len(content)
            assert row[f'{kind}_sha256'] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize('kind', ['output', 'table', 'photometry'])
@pytest.mark.parametrize('size', [0, 100])
def test_truncated_result_is_done_again(folder, run, kind, size):
    row = run()[1]
    before, path = times(folder / 'out'), folder / 'out' / row[kind]
    whole = path.read_bytes()
    os.truncate(path, size)
    with pytest.warns(AstropyUserWarning, match=f"{path.name}' is not as it was written: done ag"):
        run()
    assert redone(folder, before) == {'b'}
    assert len(path.read_bytes()) == len(whole)


def test_missing_result_is_done_again_without_a_warning(folder, run):
    run()
    before = times(folder / 'out')
    (folder / 'out' / 'a_source_free_photometry.ecsv').unlink()
    run()
    assert redone(folder, before) == {'a'}


@pytest.mark.parametrize(
    ('name', 'expected'),
    [('a.fits', 'a'), ('catalog.ecsv', 'ab'), ('mask.fits', 'ab'), ('out/b_source_free.fits', 'b')],
)
def test_change_that_size_and_time_hide_is_found_on_request(folder, run, name, expected):
    path = folder / name
    fits.PrimaryHDU(np.zeros((110, 120), dtype=np.uint8)).writeto(folder / 'mask.fits')
    with (folder / 'catalog.ecsv').open('a') as file:
        # Room for a change.
        file.writelines(['0.5 100.25\n'] * 300)
    reading = {'mask': str(folder / 'mask.fits')}
    run(reading=reading)
    before = times(folder / 'out')
    change_a_byte(path)
    run(reading=reading)
    assert redone(folder, before) == set()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', AstropyUserWarning)
        run(reading=reading, verify=True)
    assert redone(folder, before) == set(expected)
    before = times(folder / 'out')
    run(reading=reading, verify=True)
    assert redone(folder, before) == set()


def test_change_of_any_input_is_found_by_its_time(folder, run):
    mask = folder / 'mask.fits'
    fits.PrimaryHDU(np.zeros((110, 120), dtype=np.uint8)).writeto(mask)
    run(reading={'mask': str(mask)})
    before = times(folder / 'out')
    os.utime(mask)
    run(reading={'mask': str(mask)})
    assert redone(folder, before) == {'a', 'b'}


def test_second_batch_in_a_folder_is_refused_and_disturbs_nobody(folder, run, monkeypatch):
    refused = []

    def remove_sources(job, *arguments):
        # The first batch is writing.
        if not refused:
            with pytest.raises(ValueError, match=r'another batch is writing to .*out') as info:
                run('cd')
            refused.append(info.value)
        return original(job, *arguments)

    original = many._remove_sources
    with monkeypatch.context() as patch:
        patch.setattr(many, '_remove_sources', remove_sources)
        # Split, so that maps are done in this process, where the second batch begins.
        manifest = run(split=1)
    assert refused
    assert set(manifest['status']) == {'done'}
    names = {path.name for path in (folder / 'out').iterdir()}
    assert names == {MANIFEST} | {
        f'{name}_source_free{end}' for name in 'ab'
        for end in ('.fits', '.ecsv', '_photometry.ecsv')
    }  # fmt: skip
    assert set(run('cd')['status']) == {'done'}


def test_lock_of_a_batch_that_was_killed_holds_nobody_up(folder, run):
    (folder / 'out').mkdir()
    (folder / 'out' / many._LOCK).touch()
    assert set(run('a')['status']) == {'done'}
    with locked(folder / 'out' / many._LOCK):
        pass


DAMAGES = {
    'emptied': lambda content: content[:0],
    'cut in the header': lambda content: content[:300],
    'cut in a row': lambda content: content[:-90],
    'noise': lambda content: np.random.default_rng(0).bytes(len(content)),
    'another format': lambda content: b'PK\x03\x04' + content,
    'letters in place of numbers': lambda content: content.replace(b' 3 ', b' x '),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_manifest_is_named_and_can_be_replaced(folder, run, damage):
    run('a')
    path = folder / 'out' / MANIFEST
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(ValueError, match=r"(?s)manifest\.ecsv' is .*--overwrite") as info:
        run('a')
    assert '\n' not in str(info.value)
    assert set(run('a', overwrite=True)['status']) == {'done'}
    assert set(Table.read(path)['status']) == {'done'}


@pytest.mark.parametrize('name', [MANIFEST, 'a_source_free.fits'])
def test_folder_in_place_of_a_file_is_named(folder, run, name):
    (folder / 'out' / name).mkdir(parents=True)
    if name == MANIFEST:
        with pytest.raises(ValueError, match=r"manifest\.ecsv' is a folder"):
            run('a', overwrite=True)
        return
    with pytest.raises(ValueError, match=r"a_source_free\.fits' exists"):
        run('a')
    manifest = run('ab', overwrite=True)
    assert list(manifest['status']) == ['failed', 'done']
    assert "a_source_free.fits': it is a folder" in manifest['message'][0]
