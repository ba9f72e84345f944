import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from helpers_batch import (
    DEADLY,
    NAMES,
    centroid_or_die,
    contents,
    jobs_in,
    times,
    write_catalog,
)

from csr_astro.batch import MANIFEST, open_client, read_jobs, remove_many
from csr_astro.nn import weights as nn_weights


def test_progress_is_shown_with_what_was_done_before(folder, options, threads, capsys):
    remove_many(jobs_in(folder, ['a']), folder / 'out', cluster=threads, **options)
    assert capsys.readouterr().err == ''
    (folder / 'b.fits').write_text('nothing')
    remove_many(
        jobs_in(folder, ['a', 'b', 'c']), folder / 'out', cluster=threads, progress=True, **options
    )
    err = capsys.readouterr().err
    assert '1/3' in err
    assert '3/3' in err
    assert 'failed=1' in err


def test_threads_of_a_worker_share_one_model(folder, options, monkeypatch, tmp_path):
    loaded = []

    def load_model(path, *arguments):
        loaded.append(path)
        return original(path, *arguments)

    original = nn_weights.load_model
    monkeypatch.setattr(nn_weights, 'load_model', load_model)
    # Under a name of its own, because a model that is known is not loaded again.
    options['weights'] = shutil.copy(options['weights'], tmp_path / 'own.safetensors')
    with open_client(workers=0, threads=4) as client:
        remove_many(jobs_in(folder), folder / 'out', cluster=client, **options)
    assert loaded == [str(options['weights'])]


def test_missing_catalogue_fails_its_map_only(folder, options, threads):
    Table({'map': ['a.fits', 'b.fits'], 'catalog': ['none.ecsv', 'catalog.ecsv']}).write(
        folder / 'maps.csv'
    )
    manifest = remove_many(
        read_jobs(folder / 'maps.csv'), folder / 'out', cluster=threads, **options
    )
    assert list(manifest['status']) == ['failed', 'done']
    assert 'none.ecsv' in manifest['message'][0]


def test_header_without_instrument_fails_its_map_only(folder, weights, threads):
    with fits.open(folder / 'a.fits', mode='update') as hdus:
        hdus[0].header.update({'INSTRUME': 'SPIRE', 'WAVELNTH': 250.0})
    manifest = remove_many(
        jobs_in(folder, ['a', 'b']), folder / 'out', cluster=threads, weights=weights,
        orientations=1,
    )  # fmt: skip
    assert list(manifest['status']) == ['done', 'failed']
    assert manifest['instrument'][0] == 'spire-250'
    assert 'the header does not tell the instrument' in manifest['message'][1]


@pytest.fixture
def ctrl_c_is_heard():
    """Shells start what runs in the background deaf to it, and its children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures('ctrl_c_is_heard')
def test_ctrl_c_leaves_a_state_to_go_on_from(longer, options, threads):
    # The maps that are left must take longer than it takes to press the keys.
    write_catalog(longer / 'catalog.ecsv', np.random.default_rng(1).uniform(0, 110, (150, 2)))
    out = longer / 'out'
    arguments = [sys.executable, '-m', 'csr_astro.cli', 'batch', str(longer / '*.fits')]
    arguments += ['--catalog', str(longer / 'catalog.ecsv'), '-o', str(out), '--workers', '1']
    arguments += ['--weights', str(options['weights']), '--fwhm', '3.3', '--orientations', '1']
    arguments += ['--no-errors']
    with subprocess.Popen(
        arguments, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while process.poll() is None and not list(out.glob('*_source_free.fits')):
            time.sleep(0.01)
        # As a terminal does: all processes of the group get it.
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130, err
    assert err.endswith('csr-astro: stopped.\n')
    assert 'Traceback' not in err
    assert not list(out.glob('.*'))
    status = list(Table.read(out / MANIFEST)['status'])
    assert set(status) <= {'done', 'pending'}
    assert 'pending' in status
    before = times(out)
    manifest = remove_many(jobs_in(longer), out, cluster=threads, errors=False, **options)
    assert set(manifest['status']) == {'done'}
    for name, was in zip(NAMES, status, strict=True):
        if was == 'done':
            file = f'{name}_source_free.fits'
            assert times(out)[file] == before[file]


def test_killed_worker_changes_no_result(folder, options, processes, threads):
    fuse = Path(os.environ['CSR_ASTRO_TEST_FUSE'])
    fuse.touch()
    # Workers in other processes do not know the precision of the tests.
    options |= {'centroid_func': centroid_or_die, 'dtype': 'float32'}
    manifest = remove_many(jobs_in(folder), folder / 'out', cluster=processes, **options)
    assert not fuse.exists()
    assert set(manifest['status']) == {'done'}
    remove_many(jobs_in(folder), folder / 'undisturbed', cluster=threads, **options)
    assert contents(folder / 'out') == contents(folder / 'undisturbed')


def test_map_that_kills_its_workers_fails_alone(folder, options, processes, monkeypatch):
    monkeypatch.setattr(processes.cluster.scheduler, 'allowed_failures', 0)
    with fits.open(folder / 'd.fits', mode='update') as hdus:
        hdus[0].data += DEADLY
    options['centroid_func'] = centroid_or_die
    manifest = remove_many(jobs_in(folder), folder / 'out', cluster=processes, **options)
    assert list(manifest['status']) == ['done', 'done', 'done', 'failed']
    assert manifest['message'][3] == 'every worker that tried died; was there too little memory?'
