"""Tests that attacks, kills, full disks and threads harm neither files nor results."""

import copy
import errno
import gzip
import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from numpy.testing import assert_array_equal
from photutils.centroids import centroid_com

from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator
from csr_astro.cli import main
from csr_astro.images import read_image
from csr_astro.nn.inpainter import Inpainter
from csr_astro.nn.unet import PartialConvUNet
from csr_astro.nn.weights import convert_checkpoint, load_model, read_info, save_weights
from csr_astro.sources import read_sources
from csr_astro.tables import write_table
from csr_astro.utils.files import atomic_path

SHAPE = (90, 100)
SOURCES = [(40.3, 60.2), (47.8, 62.6), (90.0, 33.4), (60.2, 1.0), (20.5, 20.5)]


@pytest.fixture(scope='module')
def sky():
    sky = np.random.default_rng(0).normal(20, 1, SHAPE)
    sky.flags.writeable = False
    return sky


@pytest.fixture
def map_path(tmp_path, sky):
    path = tmp_path / 'map.fits'
    fits.PrimaryHDU(sky).writeto(path)
    return path


def remove(path, weights, *words):
    return main(['remove', str(path), '--pixel', '40', '50', '--fwhm', '3', '--orientations', '1',
                 '--weights', str(weights), *map(str, words)])  # fmt: skip


def in_threads(n, work):
    """Run ``work(i)`` in n threads that start together; what they returned."""
    found, barrier = [None] * n, threading.Barrier(n)

    def run(i):
        barrier.wait()
        found[i] = work(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


# Weights


def safetensors_file(path, header, size=0):
    """A file with any header and a body of zeros that takes no room on the disk."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with path.open('wb') as file:
        file.write(struct.pack('<Q', len(text)) + text)
        file.truncate(8 + len(text) + size)
    return path


CARD = {'format': 'csr_astro', 'format_version': '1', 'architecture': 'partial-conv-unet',
        'width': '0.125', 'normalization': 'local', 'fill': 'push-pull'}  # fmt: skip
HUGE = 2**40


@pytest.mark.parametrize(
    ('header', 'size'),
    [
        (b'', 0),
        (b'{', 0),
        (b'{}', 0),
        (b'[' * 10_000, 0),
        (b'{"a":' * 10_000, 0),
        (b'\xff\xfe\x00', 0),
        ({'__metadata__': CARD}, 0),
        ({'__metadata__': CARD, 'x': {'dtype': 'F32', 'shape': [2**62, 4],
                                      'data_offsets': [0, 16]}}, 16),
        ({'__metadata__': CARD, 'x': {'dtype': 'F32', 'shape': [HUGE // 4],
                                      'data_offsets': [0, HUGE]}}, HUGE),
        ({'__metadata__': CARD, '../../x': {'dtype': 'F32', 'shape': [1],
                                            'data_offsets': [0, 4]}}, 4),
        ({'__metadata__': {**CARD, 'width': '1e400'}}, 0),
        ({'__metadata__': {**CARD, 'width': '4'}}, 0),
        ({'__metadata__': {**CARD, 'fill': '__import__("os")'}}, 0),
    ],
    ids=lambda value: None if isinstance(value, int) else str(value)[:40],
)  # fmt: skip
def test_malformed_and_inflated_weights_are_refused_without_allocating(tmp_path, header, size):
    path = safetensors_file(tmp_path / 'bad.safetensors', header)
    with path.open('rb+') as file:
        file.truncate(path.stat().st_size + min(size, 64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r'bad\.safetensors') as caught:
        load_model(path)
    assert '\n' not in str(caught.value)
    # A gigabyte would be noticed.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20


@pytest.mark.parametrize('length', [2**63, 2**40, 10**8 + 1])
def test_header_longer_than_the_file_is_refused(tmp_path, length):
    path = tmp_path / 'bad.safetensors'
    path.write_bytes(struct.pack('<Q', length) + b'{}')
    with pytest.raises(ValueError, match='not a readable safetensors file'):
        load_model(path)


def test_flipped_bits_are_refused_or_only_change_numbers(tmp_path, weights):
    content = weights.read_bytes()
    rng = np.random.default_rng(0)
    (length,) = struct.unpack('<Q', content[:8])
    for place in [*range(8), *rng.integers(8, 8 + length, 60)]:
        altered = bytearray(content)
        altered[place] ^= 1 << int(rng.integers(8))
        path = tmp_path / 'altered.safetensors'
        path.write_bytes(altered)
        try:
            model = load_model(path)
        except ValueError as error:
            assert '\n' not in str(error)  # noqa: PT017
        else:
            assert all(torch.isfinite(p).all() for p in model.parameters())


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize('suffix', ['.safetensors', '.pt', '.pkl', '.npy', '.fits', '.ecsv'])
def test_no_reader_runs_a_payload(tmp_path, suffix):
    marker = tmp_path / 'payload-ran'
    path = tmp_path / f'payload{suffix}'
    if suffix == '.npy':
        np.save(path, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(Payload(marker)))
    for read in (load_model, read_info, read_sources, read_image,
                 lambda each: convert_checkpoint(each, tmp_path / 'out.safetensors')):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            read(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()


# Headers and catalogues


@pytest.mark.parametrize(
    ('keyword', 'value'),
    [
        ('BUNIT', '__import__("os").mkdir("ran")'),
        ('EXTNAME', '../../ran'),
        ('OBJECT', '$(touch ran)'),
        ('INSTRUME', '`touch ran`'),
        ('CTYPE1', '../../../ran'),
        ('FILENAME', '/ran'),
    ],
)
@pytest.mark.filterwarnings('ignore:the unit')
def test_headers_neither_run_nor_name_files(tmp_path, monkeypatch, weights, sky, keyword, value):
    (tmp_path / 'inner').mkdir()
    monkeypatch.chdir(tmp_path / 'inner')
    hdu = fits.PrimaryHDU(sky)
    hdu.header[keyword] = value
    hdu.writeto('map.fits')
    assert remove('map.fits', weights, '-o', 'clean.fits') == 0
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*') if path.is_file()}
    assert names == {'inner/map.fits', 'inner/clean.fits', 'inner/clean.ecsv'}
    assert fits.getheader('clean.fits')[keyword] == value


@pytest.mark.parametrize(
    'content',
    [
        '# %ECSV 1.0\n# ---\n# datatype: !!python/object/apply:os.mkdir ["ran"]\nx y\n1 2\n',
        '# %ECSV 1.0\n# ---\n# meta: !!python/object/apply:os.mkdir ["ran"]\nx y\n1 2\n',
        '# %ECSV 1.0\n# ---\n# datatype:\n# - {name: x, datatype: object}\nx y\n1 2 3\n',
    ],
)
def test_catalogues_do_not_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    Path('catalog.ecsv').write_text(content)
    with pytest.raises(ValueError, match='cannot be read as a catalogue'):
        read_sources('catalog.ecsv')
    assert [path.name for path in tmp_path.iterdir()] == ['catalog.ecsv']


@pytest.mark.parametrize('suffix', ['.fits', '.xml'])
def test_truncated_catalogues_are_refused(tmp_path, suffix):
    path = tmp_path / f'catalog{suffix}'
    write_table(path, Table({'x': np.arange(3000.0), 'y': np.arange(3000.0)}))
    content = path.read_bytes()
    for fraction in (0.1, 0.5, 0.9):
        path.write_bytes(content[: int(fraction * len(content))])
        with pytest.raises(ValueError, match='cannot be read as a catalogue'):
            read_sources(path)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('suffix', ['.fits', '.fits.gz'])
@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('BITPIX', 7), ('BITPIX', 'x'), ('NAXIS', -1), ('NAXIS', 'x'), ('NAXIS1', -3),
        ('NAXIS1', 'x'), ('NAXIS1', 10**15), ('BSCALE', 'x'), ('BLANK', 'x'), ('CRPIX1', 'x'),
        ('CTYPE1', 5), ('PCOUNT', 'x'), ('BUNIT', 5),
    ],
)  # fmt: skip
def test_damaged_headers_are_one_sentence_that_names_the_file(tmp_path, key, value, suffix):
    header = fits.Header({'BUNIT': 'Jy', 'CTYPE1': 'RA---TAN', 'CTYPE2': 'DEC--TAN', 'CRPIX1': 1})
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((9, 9), 'i2'), header)])
    buffer = io.BytesIO()
    hdus.writeto(buffer)
    content = buffer.getvalue()
    place = content.index(b'XTENSION') if key not in ('BSCALE', 'BLANK') else -1
    card = f'{key:8s}= {value!r:>20}'.ljust(80).encode()
    if place < 0:
        # A card of its own.
        content = content.replace(b"BUNIT   = 'Jy      '".ljust(80), card)
    else:
        place = content.index(f'{key:8s}='.encode(), place)
        content = content[:place] + card + content[place + 80 :]
    path = tmp_path / f'map{suffix}'
    path.write_bytes(gzip.compress(content) if suffix == '.fits.gz' else content)
    try:
        read_image(path)
    except ValueError as error:
        assert repr(str(path)) in str(error)  # noqa: PT017
        assert '\n' not in str(error)  # noqa: PT017
    else:
        # What does not matter to the map.
        assert key in ('PCOUNT', 'BUNIT', 'CRPIX1', 'BLANK')


@pytest.mark.filterwarnings('ignore:File may have been truncated')
def test_truncated_maps_are_refused(map_path):
    content = map_path.read_bytes()
    for fraction in (0.06, 0.5, 0.95):
        map_path.write_bytes(content[: int(fraction * len(content))])
        with pytest.raises(ValueError, match='not a readable FITS file'):
            read_image(map_path)


# Kills, full disks and folders that cannot be written to


@pytest.mark.skipif(sys.platform == 'win32', reason='no fork')
def test_killed_removals_leave_no_half_and_complete_when_run_again(weights):
    script = Path(__file__).parents[1] / 'benchmarks' / 'kill_test.py'
    words = [sys.executable, script, '--kills', '4', '--commands', 'remove', '--weights', weights]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert '4 kills, 0 with problems' in ended.stdout


def limited(function, n_bytes):
    """Run with so small a limit on the size of files that no map fits; Linux sends a signal."""
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        return function()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize('existing', [False, True])
def test_full_disk_is_one_error_and_loses_nothing(tmp_path, map_path, weights, capsys, existing):
    if existing:
        for name in ('clean.fits', 'clean.ecsv'):
            (tmp_path / name).write_text('precious')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    words = '-o', tmp_path / 'clean.fits', '--overwrite'
    code = limited(lambda: remove(map_path, weights, *words), 20_000)
    assert code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith('csr-astro: error: ')
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert remove(map_path, weights, *words) == 0


def test_full_disk_keeps_the_weights_that_were_there(tmp_path):
    path = tmp_path / 'mine.safetensors'
    path.write_text('precious')
    with torch.random.fork_rng():
        model = Inpainter(PartialConvUNet(0.125))
    with pytest.raises(Exception, match=r'[Ff]ile|[Nn]o space|I/O'):
        limited(lambda: save_weights(path, model), 10_000)
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {path.name: 'precious'}


def test_folder_that_cannot_be_written_to_is_one_error(
    tmp_path, map_path, weights, capsys, monkeypatch
):
    """Permissions do not bind the superuser, as which tests may run."""
    def refuse(path, *_):
        raise PermissionError(errno.EACCES, 'Permission denied', str(path))

    monkeypatch.setattr(os, 'mkdir', refuse)
    assert remove(map_path, weights, '-o', tmp_path / 'clean.fits') == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('csr-astro: error: ')
    assert 'Permission denied' in error
    assert [path.name for path in tmp_path.iterdir()] == ['map.fits']


def test_failed_block_leaves_the_old_file(tmp_path):
    path = tmp_path / 'table.csv'
    path.write_text('precious')

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text('half')
            raise RuntimeError('in the middle')

    with pytest.raises(RuntimeError, match='in the middle'):
        fail()
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {path.name: 'precious'}


# Threads and the state of the process


def global_state():
    return (
        repr(np.random.get_state()),  # noqa: NPY002
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        np.geterr(),
        list(warnings.filters),
    )


def everything(estimator, hdu):
    """All numbers that come of a map."""
    result = estimator.estimate(hdu, SOURCES)
    table = InpaintedAperturePhotometry([2.0, 4.0], estimator=estimator)(result)
    return [
        result.background, result.background_rms, result.realization(2),
        result.covariance(1, 2), *(np.asarray(table[name]) for name in ('flux_0', 'flux_err_1')),
    ]  # fmt: skip


def tangent_header():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.cdelt = -1e-3, 1e-3
    return wcs.to_header()


def test_eight_threads_give_the_numbers_of_one_and_leave_no_trace(weights, sky):
    hdu = fits.ImageHDU(np.array(sky), tangent_header())
    hdu.header['BUNIT'] = 'W/m2/sr'
    options = {'orientations': 1, 'fwhm': 3.5, 'batch_size': 2, 'centroid_func': centroid_com}
    expected = everything(NeuralBackgroundEstimator(weights, **options), hdu)
    shared = NeuralBackgroundEstimator(weights, **options)
    before = global_state()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        found = in_threads(8, lambda _: everything(shared, hdu))
    finally:
        sys.setswitchinterval(interval)
    assert global_state() == before
    for each in found:
        for numbers, same in zip(each, expected, strict=True):
            assert_array_equal(numbers, same)


def test_threads_share_a_result(weights, sky):
    estimator = NeuralBackgroundEstimator(weights, orientations=1, fwhm=3.5)
    result = estimator.estimate(sky, SOURCES)
    expected = [result.covariance(i + 1).matrix for i in range(len(SOURCES))]
    shared = estimator.estimate(sky, SOURCES)

    def work(i):
        order = np.random.default_rng(i).permutation(len(SOURCES))
        return {k: shared.covariance(k + 1).matrix for k in order}

    for found in in_threads(8, work):
        for k, matrix in found.items():
            assert_array_equal(matrix, expected[k])


def test_loading_draws_no_random_numbers_and_needs_no_default_dtype(weights, sky):
    torch.set_default_dtype(torch.float64)
    try:
        before = global_state()
        load_model(weights)
        estimator = NeuralBackgroundEstimator(weights, orientations=1, fwhm=3.5, batch_size=13)
        background = estimator.estimate(sky, SOURCES).background
        assert global_state() == before
    finally:
        torch.set_default_dtype(torch.float32)
    other = NeuralBackgroundEstimator(weights, orientations=1, fwhm=3.5, batch_size=13)
    assert_array_equal(other.estimate(sky, SOURCES).background, background)


@pytest.mark.parametrize(
    'duplicate', [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))]
)
def test_copies_of_photometry_measure_the_same(weights, sky, duplicate):
    estimator = NeuralBackgroundEstimator(weights, orientations=1, fwhm=3.5)
    photometry = InpaintedAperturePhotometry([2.0, 4.0], estimator=estimator)
    table, other = photometry(sky, SOURCES), duplicate(photometry)(sky, SOURCES)
    for name in table.colnames:
        assert_array_equal(other[name], table[name])
    for meta in (table.meta, other.meta):
        del meta['date']
    assert other.meta == table.meta


# Precision and numbers of masks


def test_single_precision_is_the_default_and_the_choice_is_recorded(weights, sky):
    for options, dtype in (({}, 'float32'), ({'dtype': 'bfloat16'}, 'bfloat16')):
        estimator = NeuralBackgroundEstimator(weights, orientations=1, fwhm=3.5, **options)
        assert estimator.dtype == dtype
        result = estimator.estimate(sky, SOURCES)
        assert result.sources.meta['dtype'] == dtype
        table = InpaintedAperturePhotometry(3.0, estimator=estimator)(result)
        assert table.meta['dtype'] == dtype


def test_a_thousand_sources_on_one_place_are_all_measured(weights):
    sky = np.random.default_rng(5).normal(size=(30, 30))
    estimator = NeuralBackgroundEstimator(weights, orientations=1, fwhm=3.5)
    positions = np.random.default_rng(6).uniform(10, 14, (1000, 2))
    result = estimator.estimate(sky, positions, mask_radius=3)
    assert len(result) == 1000
    assert np.isfinite(result.sources['background']).all()
    assert_array_equal(result.background[~result.mask], sky[~result.mask])
