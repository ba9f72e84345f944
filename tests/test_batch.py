import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table
from numpy.testing import assert_array_equal
from regions import CirclePixelRegion, EllipsePixelRegion, PixCoord

import csr_astro
from csr_astro import NeuralBackgroundEstimator, background, get_instrument
from csr_astro.batch import (
    MANIFEST,
    estimate_distributed,
    open_client,
    read_jobs,
    remove_many,
    require_dask,
)
from csr_astro.cli import main
from csr_astro.images import read_image

NAMES = ['a', 'b', 'c', 'd']


@pytest.fixture(scope='module', autouse=True)
def workers_compute_like_this_process():
    """On one thread each: another number may change the last bit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OMP_NUM_THREADS', '1')
        patch.setenv('OPENBLAS_NUM_THREADS', '1')
        # The user's part of the path does not reach worker processes.
        patch.setenv('PYTHONPATH', str(Path(csr_astro.__file__).parents[1]))
        yield


@pytest.fixture(scope='module')
def threads():
    with open_client(workers=0, threads=2) as client:
        yield client


@pytest.fixture(scope='module')
def processes():
    with open_client(workers=2) as client:
        yield client


@pytest.fixture
def options(weights):
    return {'weights': weights, 'fwhm': 3.3, 'orientations': 1}


@pytest.fixture
def folder(tmp_path):
    """Four maps and a catalogue of theirs."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        fits.PrimaryHDU(rng.normal(5, 1, (110, 120)).astype('>f4')).writeto(
            tmp_path / f'{name}.fits'
        )
    write_catalog(tmp_path / 'catalog.ecsv', rng.uniform(0, 110, (3, 2)))
    return tmp_path


@pytest.fixture
def longer(folder):
    """So many sources that there is time to disturb."""
    write_catalog(folder / 'catalog.ecsv', np.random.default_rng(1).uniform(0, 110, (12, 2)))
    return folder


def write_catalog(path, xy):
    xy = np.asarray(xy)
    Table({'x': xy[:, 0], 'y': xy[:, 1]}).write(path, overwrite=True)


def jobs_in(folder, names=NAMES):
    return read_jobs([folder / f'{name}.fits' for name in names], folder / 'catalog.ecsv')


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob('*_source_free.*')}


def contents(folder):
    """What files hold, but for the time that photutils notes."""
    return {
        path.name: re.sub(rb'date: .*', b'', path.read_bytes())
        for path in folder.iterdir()
        if path.name != MANIFEST
    }


@pytest.fixture
def shell(weights, threads, capsys):
    """Run a command on the threads: its exit code, standard output and standard error."""

    def run(*arguments, scheduler=None):
        scheduler = scheduler or threads.scheduler.address
        arguments = [str(each) for each in arguments]
        arguments += ['--weights', str(weights), '--orientations', '1']
        if arguments[0] == 'batch':
            arguments += ['--scheduler', scheduler]
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


# What is written


def test_every_map_gets_what_remove_and_photometry_write(shell, folder):
    given = ['--fwhm', '3.3', '--mask-radius', '6']
    apertures = ['--apertures', '4,6', '--annulus']
    catalog = folder / 'catalog.ecsv'
    code, out, err = shell(
        'batch', folder / '[ab].fits', '--catalog', catalog, '-o', folder / 'out', *given,
        *apertures,
    )  # fmt: skip
    assert (code, out) == (0, f'2 of 2 maps done, see {folder / "out" / MANIFEST}\n')
    assert 'dashboard: http' in err
    expected = folder / 'expected'
    expected.mkdir()
    for name in NAMES[:2]:
        one = [folder / f'{name}.fits', catalog, *given]
        shell('remove', *one, '-o', expected / f'{name}_source_free.fits')
        table = expected / f'{name}_source_free_photometry.ecsv'
        shell('photometry', *one, *apertures, '-o', table)
    assert contents(folder / 'out') == contents(expected)


def test_manifest_has_a_row_for_every_map_in_the_order_given(folder, options, threads):
    jobs = jobs_in(folder, ['c', 'a', 'd'])
    manifest = remove_many(jobs, folder / 'out', cluster=threads, errors=False, **options)
    assert list(manifest['map']) == [str(folder / f'{name}.fits') for name in ('c', 'a', 'd')]
    assert set(manifest['status']) == {'done'}
    assert set(manifest['catalog']) == {str(folder / 'catalog.ecsv')}
    assert set(manifest['message']) == {'3 of 3 sources removed'}
    assert set(manifest['n_sources']) == {3}
    assert set(manifest['instrument']) == {'generic'}
    assert (manifest['seconds'] > 0).all()
    assert len(set(manifest['fingerprint'])) == 3
    assert list(manifest['output']) == [f'{name}_source_free.fits' for name in ('c', 'a', 'd')]
    assert set(manifest['photometry']) == {''}
    written = Table.read(folder / 'out' / MANIFEST)
    assert written.meta['csr_astro'] == csr_astro.__version__
    for name in manifest.colnames:
        assert list(np.ma.filled(written[name], '')) == list(manifest[name])
    for row in manifest:
        with fits.open(folder / 'out' / row['output']) as hdus:
            assert [hdu.name for hdu in hdus] == ['PRIMARY', 'CSR_MASK']
        assert len(QTable.read(folder / 'out' / row['table'])) == 3


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


def test_threads_of_a_worker_share_one_model(folder, options):
    background._model.cache_clear()
    with open_client(workers=0, threads=4) as client:
        remove_many(jobs_in(folder), folder / 'out', cluster=client, **options)
    assert background._model.cache_info().misses == 1


# Tables of maps


@pytest.mark.parametrize('suffix', ['.csv', '.ecsv'])
def test_table_names_maps_relative_to_itself(folder, options, threads, suffix, monkeypatch):
    (folder / 'lists').mkdir()
    write_catalog(folder / 'lists' / 'own.csv', [(40, 50)])
    table = Table(
        {
            'map': ['../a.fits', str(folder / 'b.fits'), '../c.fits'],
            'catalog': ['own.csv', '', 'own.csv'],
            'instrument': ['', '', 'spire-250'],
            'output': ['first.fits.gz', '', ''],
            'remark': ['x', 'y', 'z'],
        }
    )
    table.write(folder / 'lists' / f'maps{suffix}')
    monkeypatch.chdir(folder)
    jobs = read_jobs(f'lists/maps{suffix}', 'catalog.ecsv')
    manifest = remove_many(jobs, 'out', cluster=threads, **options)
    assert list(manifest['status']) == ['done'] * 3, manifest['message']
    assert list(manifest['n_sources']) == [1, 3, 1]
    assert list(manifest['instrument']) == ['generic', 'generic', 'spire-250']
    assert list(manifest['table']) == ['first.ecsv', 'b_source_free.ecsv', 'c_source_free.ecsv']
    with fits.open(folder / 'out' / 'first.fits.gz') as hdus:
        assert hdus['CSR_MASK'].data[50, 40]


def test_a_map_that_matches_twice_is_done_once(folder):
    given = [folder / '*.fits', folder / 'a.fits', f'{folder}/[ab].fits']
    jobs = read_jobs(given, folder / 'catalog.ecsv')
    assert [Path(job.map).stem for job in jobs] == NAMES


@pytest.mark.parametrize(
    ('table', 'message'),
    [
        ({'name': ['a.fits']}, 'must have a column map'),
        ({'map': ['a.fits'], 'Catalogue': ['c.csv']}, "'Catalogue' of .* must be called catalog"),
        ({'map': ['a.fits']}, 'there is no catalogue for'),
        ({'map': ['a.fits', ''], 'catalog': ['c.csv', 'c.csv']}, 'row 2 of .* has no map'),
        (
            {'map': ['a.fits'], 'catalog': ['c.csv'], 'output': ['x/y.fits']},
            "output must be the name of a FITS file, got 'x/y.fits'",
        ),
        (
            {'map': ['a.fits'], 'catalog': ['c.csv'], 'output': ['y.png']},
            "output must be the name of a FITS file, got 'y.png'",
        ),
    ],
)
def test_unusable_tables_are_refused(tmp_path, table, message):
    Table(table).write(tmp_path / 'maps.ecsv')
    with pytest.raises(ValueError, match=message):
        read_jobs(tmp_path / 'maps.ecsv')


@pytest.mark.parametrize(
    ('maps', 'message'),
    [
        ([], 'there are no maps'),
        (['nothing/*.fits'], r"no file matches 'nothing/\*.fits'"),
        (['nothing.csv'], "no such file: 'nothing.csv'"),
        (['a.fits', 'maps.csv'], 'give maps or one table of maps, not both'),
    ],
)
def test_lists_without_maps_are_refused(maps, message):
    with pytest.raises(ValueError, match=message):
        read_jobs(maps, 'catalog.ecsv')


# What goes wrong before the start


def test_maps_with_the_same_output_are_refused_before_anything_starts(folder, options, threads):
    (folder / 'other').mkdir()
    os.link(folder / 'a.fits', folder / 'other' / 'a.fits')
    jobs = read_jobs([folder / 'a.fits', folder / 'other' / 'a.fits'], folder / 'catalog.ecsv')
    with pytest.raises(ValueError, match=r"would both be written to 'a_source_free\.fits'"):
        remove_many(jobs, folder / 'out', cluster=threads, **options)
    assert not (folder / 'out').exists()


@pytest.mark.parametrize('name', ['manifest.fits', 'x_photometry.fits'])
def test_tables_must_not_have_the_same_name_either(folder, options, threads, name):
    Table({'map': ['a.fits', 'b.fits'], 'output': ['x.fits', name]}).write(folder / 'maps.csv')
    jobs = read_jobs(folder / 'maps.csv', folder / 'catalog.ecsv')
    with pytest.raises(ValueError, match=r"would both be written to '.*\.ecsv'"):
        remove_many(jobs, folder / 'out', cluster=threads, photometry={'apertures': 3}, **options)


def test_inputs_are_not_replaced(folder, options, threads):
    Table({'map': ['a.fits'], 'output': ['a.fits']}).write(folder / 'maps.csv')
    jobs = read_jobs(folder / 'maps.csv', folder / 'catalog.ecsv')
    before = (folder / 'a.fits').read_bytes()
    with pytest.raises(ValueError, match='would be replaced, and is an input'):
        remove_many(jobs, folder, cluster=threads, overwrite=True, **options)
    assert (folder / 'a.fits').read_bytes() == before


def test_files_of_others_are_replaced_on_request_only(folder, options, threads):
    (folder / 'out').mkdir()
    foreign = folder / 'out' / 'a_source_free.fits'
    foreign.write_text('precious')
    jobs = jobs_in(folder, ['a'])
    with pytest.raises(ValueError, match='exists and is of another batch; give --overwrite'):
        remove_many(jobs, folder / 'out', cluster=threads, **options)
    assert foreign.read_text() == 'precious'
    remove_many(jobs, folder / 'out', cluster=threads, overwrite=True, **options)
    assert fits.getdata(foreign).shape == (110, 120)
    (folder / 'other').mkdir()
    os.link(folder / 'b.fits', folder / 'other' / 'a.fits')
    jobs = read_jobs(folder / 'other' / 'a.fits', folder / 'catalog.ecsv')
    with pytest.raises(ValueError, match=r"is that of '.*a\.fits'; give --overwrite"):
        remove_many(jobs, folder / 'out', cluster=threads, **options)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'weights': 'nothing'}, 'weights must be one of'),
        ({'preset': 'nothing'}, 'preset must be one of'),
        ({'photometry': {'apertures': -1}}, 'radi'),
        ({'split': 0}, 'split must be a number from 1 up, got 0'),
        ({'instrument': 'nothing', 'fwhm': None}, 'nothing'),
    ],
)
def test_wrong_arguments_are_one_error(folder, options, threads, arguments, message):
    with pytest.raises(ValueError, match=message):
        remove_many(jobs_in(folder), folder / 'out', cluster=threads, **(options | arguments))
    assert not (folder / 'out').exists()


@pytest.mark.parametrize('arguments', [{'workers': -1}, {'threads': 0}])
def test_numbers_of_workers_make_sense(arguments):
    with pytest.raises(ValueError, match='must be a number from'), open_client(**arguments):
        pass


def test_foreign_manifest_is_refused(folder, options, threads):
    (folder / 'out').mkdir()
    Table({'x': [1]}).write(folder / 'out' / MANIFEST)
    with pytest.raises(ValueError, match='is not the manifest of a batch; give another folder'):
        remove_many(jobs_in(folder), folder / 'out', cluster=threads, **options)


def test_photometry_options_need_apertures(shell, folder):
    given = ['batch', folder / 'a.fits', '--catalog', folder / 'catalog.ecsv', '-o', folder / 'out']
    code, _, err = shell(*given, '--annulus')
    assert (code, err) == (1, 'csr-astro: error: photometry needs --apertures.\n')


def test_missing_dask_is_said_with_the_way_to_get_it(shell, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'distributed', None)
    code, _, err = shell('batch', folder / 'a.fits', '--catalog', 'c.ecsv', '-o', folder / 'out')
    assert code == 1
    assert err == (
        'csr-astro: error: batches need dask; install it with: pip install "csr_astro[dask]"\n'
    )


def test_scheduler_that_does_not_answer_is_named():
    # From then on its options are known, and what is set here takes none of them away.
    require_dask()
    with (
        dask.config.set({'distributed.comm.timeouts.connect': '0.2s'}),
        pytest.raises(ValueError, match=r"no dask scheduler answers at 'tcp://127\.0\.0\.1:9'"),
        open_client('tcp://127.0.0.1:9'),
    ):
        pass


# What goes wrong on the way


def test_bad_maps_stop_no_other(shell, folder):
    good = (folder / 'b.fits').read_bytes()
    (folder / 'b.fits').write_text('no FITS file')
    fits.PrimaryHDU(np.zeros((3, 4, 5))).writeto(folder / 'c.fits', overwrite=True)
    (folder / 'd.fits').unlink()
    given = ['batch', *(folder / f'{name}.fits' for name in NAMES), '--fwhm', '3.3']
    given += ['--catalog', folder / 'catalog.ecsv', '-o', folder / 'out']
    code, out, err = shell(*given)
    assert (code, out) == (1, '')
    path = folder / 'out' / MANIFEST
    assert err.endswith(f'csr-astro: error: 3 of 4 maps failed, see {path}\n')
    assert f'{folder / "d.fits"}: no such file' in err
    manifest = Table.read(path)
    assert list(manifest['status']) == ['done', 'failed', 'failed', 'failed']
    for row, message in zip(
        manifest[1:], ['not a readable FITS file', 'no two-dimensional image', 'no such file'],
        strict=True,
    ):  # fmt: skip
        assert message in row['message']
    assert set(contents(folder / 'out')) == {'a_source_free.fits', 'a_source_free.ecsv'}
    (folder / 'b.fits').write_bytes(good)
    assert shell(*given)[0] == 1
    assert list(Table.read(path)['status']) == ['done', 'done', 'failed', 'failed']


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


# Going on


def test_restart_does_only_what_is_missing(folder, options, threads):
    out = folder / 'out'
    remove_many(jobs_in(folder, ['a', 'b']), out, cluster=threads, **options)
    before = times(out)
    (out / 'b_source_free.ecsv').unlink()
    (out / '.csr-astro-0123456789abcdef.fits').write_text('of a process that was killed')
    manifest = remove_many(jobs_in(folder, ['a', 'b', 'c']), out, cluster=threads, **options)
    assert list(manifest['status']) == ['done'] * 3
    after = times(out)
    assert {name for name in after if before.get(name) != after[name]} == {
        f'{name}_source_free.{kind}' for name in 'bc' for kind in ('fits', 'ecsv')
    }
    assert not list(out.glob('.*'))


def test_nothing_left_to_do_needs_no_cluster(folder, options, threads, monkeypatch):
    remove_many(jobs_in(folder), folder / 'out', cluster=threads, **options)
    monkeypatch.setitem(sys.modules, 'distributed', None)
    manifest = remove_many(jobs_in(folder), folder / 'out', **options)
    assert set(manifest['status']) == {'done'}


@pytest.mark.parametrize(
    ('change', 'redone'),
    [
        ({'orientations': 2}, 'abcd'),
        ({'mask_radius': 6.0}, 'abcd'),
        ({'mask_radius': 6 * u.pix}, 'abcd'),
        ({'errors': False}, 'abcd'),
        ({'photometry': {'apertures': 4}}, 'abcd'),
        ({'overwrite': True}, 'abcd'),
        ({'batch_size': 2, 'device': 'cpu', 'progress': False}, ''),
        ('catalog', 'abcd'),
        ('map', 'b'),
        ('weights', 'abcd'),
    ],
)
def test_restart_redoes_what_changed(folder, options, threads, change, redone, tmp_path):
    out = folder / 'out'
    arguments = {**options, 'cluster': threads}
    remove_many(jobs_in(folder), out, **arguments)
    before = times(out)
    if change == 'catalog':
        write_catalog(folder / 'catalog.ecsv', [(40, 50)])
    elif change == 'map':
        fits.setval(folder / 'b.fits', 'OBJECT', value='another')
    elif change == 'weights':
        arguments['weights'] = other_weights(tmp_path)
    else:
        arguments |= change
    manifest = remove_many(jobs_in(folder), out, **arguments)
    assert set(manifest['status']) == {'done'}
    after = times(out)
    assert {name[0] for name in after if after[name] != before.get(name)} == set(redone)


def test_any_change_of_an_instrument_is_one(folder, weights, threads):
    def run(instrument):
        arguments = {'weights': weights, 'orientations': 1, 'cluster': threads}
        remove_many(jobs_in(folder, ['a']), folder / 'out', instrument=instrument, **arguments)
        return times(folder / 'out')

    blue = get_instrument('pacs-scanmap-blue')
    before = run(blue)
    assert run(blue) == before
    wider = replace(blue, mask_radii=tuple(1.5 * radius for radius in blue.mask_radii))
    assert run(wider) != before


def other_weights(folder):
    from csr_astro.nn.inpainter import Inpainter
    from csr_astro.nn.unet import PartialConvUNet
    from csr_astro.nn.weights import save_weights

    path = folder / 'other.safetensors'
    save_weights(path, Inpainter(PartialConvUNet(0.125)))
    return path


def test_rows_of_earlier_batches_stay(folder, options, threads):
    remove_many(jobs_in(folder, ['a', 'b']), folder / 'out', cluster=threads, **options)
    manifest = remove_many(
        jobs_in(folder, ['d', 'b']), folder / 'out', cluster=threads, **options
    )
    assert list(manifest['output']) == ['d_source_free.fits', 'b_source_free.fits']
    written = Table.read(folder / 'out' / MANIFEST)
    assert [name[0] for name in written['output']] == ['d', 'b', 'a']
    assert set(written['status']) == {'done'}


def test_default_that_is_named_changes_nothing(folder, options, threads):
    remove_many(jobs_in(folder), folder / 'out', cluster=threads, **options)
    before = times(folder / 'out')
    named = options | {'preset': 'default', 'instrument': None, 'centroid_func': None}
    remove_many(jobs_in(folder), folder / 'out', cluster=threads, **named)
    assert times(folder / 'out') == before


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


@pytest.mark.usefixtures('ctrl_c_is_heard')
def test_interrupted_cluster_complains_no_more(caplog):
    heard, disabled = signal.getsignal(signal.SIGINT), logging.root.manager.disable

    def interrupt():
        with open_client(workers=0):
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                logging.getLogger('tornado.application').critical('it was cut off')

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert 'it was cut off' not in caplog.text
    assert signal.getsignal(signal.SIGINT) is heard
    assert logging.root.manager.disable == disabled


# Workers


def kill_workers(client, out, stop, name, number):
    """Wait for the first map, then kill workers that are at another; returns how many."""
    killed = set()
    while len(killed) < number and not stop.wait(0.01):
        busy = {a for a, keys in client.processing().items() for key in keys if name in str(key)}
        if busy - killed and list(out.glob('*_source_free.fits')):
            pids = client.run(os.getpid, workers=list(busy - killed))
            address, pid = pids.popitem()
            os.kill(pid, signal.SIGKILL)
            killed.add(address)
    return len(killed)


@contextmanager
def killing(client, out, name, number):
    client.wait_for_workers(2)
    stop = threading.Event()
    with ThreadPoolExecutor() as pool:
        killed = pool.submit(kill_workers, client, out, stop, name, number)
        try:
            yield
        finally:
            stop.set()
    assert killed.result() == number


def test_killed_worker_changes_no_result(longer, options, processes, threads):
    with killing(processes, longer / 'out', 'remove_sources', 1):
        manifest = remove_many(jobs_in(longer), longer / 'out', cluster=processes, **options)
    assert set(manifest['status']) == {'done'}
    remove_many(jobs_in(longer), longer / 'undisturbed', cluster=threads, **options)
    assert contents(longer / 'out') == contents(longer / 'undisturbed')


def test_map_that_kills_its_workers_fails_alone(longer, options, processes, monkeypatch):
    monkeypatch.setattr(processes.cluster.scheduler, 'allowed_failures', 0)
    with killing(processes, longer / 'out', 'd_source_free', 2):
        manifest = remove_many(jobs_in(longer), longer / 'out', cluster=processes, **options)
    assert list(manifest['status']) == ['done', 'done', 'done', 'failed']
    assert manifest['message'][3] == 'every worker that tried died; was there too little memory?'


# One large map


@pytest.fixture
def large(tmp_path):
    """A map with gaps, and sources whose masks overlap, leave the map and have no place."""
    rng = np.random.default_rng(2)
    image = rng.normal(5, 1, (160, 150)).astype('>f4')
    image[60:70, 50:90] = np.nan
    fits.HDUList(
        [fits.PrimaryHDU(), fits.ImageHDU(image, name='image'),
         fits.ImageHDU(np.ones_like(image), name='stDev')]
    ).writeto(tmp_path / 'large.fits')  # fmt: skip
    xy = rng.uniform(-5, 165, (24, 2))
    xy[:3] = (np.nan, 5), (1000, 1000), (70, 65)
    return tmp_path / 'large.fits', xy


def assert_same(result, expected):
    assert_array_equal(result.background, expected.background)
    assert_array_equal(result.background_rms, expected.background_rms)
    assert_array_equal(result.mask, expected.mask)
    assert result.sources.colnames == expected.sources.colnames
    for name in result.sources.colnames:
        assert_array_equal(result.sources[name], expected.sources[name])
    assert result.sources.meta == expected.sources.meta


@pytest.mark.parametrize('parts', [3, 1000, None])
def test_spread_map_is_that_in_one_piece(large, options, threads, parts):
    path, xy = large
    estimator = NeuralBackgroundEstimator(**options, batch_size=3)
    radii = np.random.default_rng(3).uniform(2, 25, len(xy))
    expected = estimator.estimate(read_image(path)[0], xy, mask_radius=radii)
    result = estimate_distributed(
        path, xy, estimator=estimator, client=threads, parts=parts, mask_radius=radii
    )
    # Worked out by the workers, and not again.
    assert set(result.errors._rms) == set(expected.errors.sources)
    assert {'overlap', 'edge', 'off_map', 'invalid_position'} <= flags_of(expected)
    assert_same(result, expected)


def flags_of(result):
    from csr_astro.flags import decode_flags

    return {name for flags in result.flags for name in decode_flags(flags)}


@pytest.mark.filterwarnings('ignore:the preset')
def test_spread_map_keeps_regions_and_blending(large, weights, threads):
    path, _ = large
    regions = [
        EllipsePixelRegion(PixCoord(100, 80), 30, 12, 30 * u.deg),
        CirclePixelRegion(PixCoord(112, 83), 8),
        CirclePixelRegion(PixCoord(60, 60), 9),
        CirclePixelRegion(PixCoord(3, 150), 9),
    ]
    estimator = NeuralBackgroundEstimator(weights, fwhm=3.3, preset='paper')
    expected = estimator.estimate(read_image(path)[0], regions)
    result = estimate_distributed(path, regions, estimator=estimator, client=threads, parts=4)
    assert_same(result, expected)


def test_map_without_sources_can_be_spread(large, options, threads):
    estimator = NeuralBackgroundEstimator(**options)
    result = estimate_distributed(large[0], np.zeros((0, 2)), estimator=estimator, client=threads)
    assert not result.mask.any()


def test_split_at_the_shell_writes_what_remove_writes(shell, large, processes, tmp_path):
    path, xy = large
    write_catalog(tmp_path / 'catalog.ecsv', xy)
    code, _, err = shell(
        'batch', path, '--catalog', tmp_path / 'catalog.ecsv', '-o', tmp_path / 'out',
        '--split', 4, '--fwhm', 3.3, scheduler=processes.scheduler.address,
    )  # fmt: skip
    assert code == 0, err
    (tmp_path / 'plain').mkdir()
    shell(
        'remove', path, tmp_path / 'catalog.ecsv', '--fwhm', 3.3,
        '-o', tmp_path / 'plain' / 'large_source_free.fits',
    )  # fmt: skip
    assert contents(tmp_path / 'out') == contents(tmp_path / 'plain')
