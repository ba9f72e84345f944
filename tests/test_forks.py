"""Processes that are forked after PyTorch has computed in threads, and while locks are held."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import csr_astro
from csr_astro.utils.forks import fork_safe
from csr_astro.utils.warnings import ignored, one_at_a_time

pytestmark = pytest.mark.skipif(
    'fork' not in multiprocessing.get_all_start_methods(), reason='this system does not fork'
)

MEASURE_TWICE = """
import json, multiprocessing, signal
import numpy as np
import torch
from csr_astro import (
    InpaintedAperturePhotometry, InpaintedPSFPhotometry, NeuralBackgroundEstimator, load_model
)

torch.set_num_threads(2)
sky = np.random.default_rng(0).normal(size=(150, 150))
sky[60, 70] += 100
estimator = NeuralBackgroundEstimator(fwhm=3.5, orientations=1)
kinds = {
    'apertures': InpaintedAperturePhotometry(4.0, estimator=estimator),
    'fits': InpaintedPSFPhotometry(estimator=estimator),
}

def measure(kind):
    if kind == 'weights':
        model = load_model('default')
        with torch.no_grad():
            ones = torch.ones(1, 1, 96, 96)
            return [float(model(ones, ones, ones, 0 * ones, torch.tensor([5.0])).sum())]
    table = kinds[kind](sky, [(70, 60), (30, 110)])
    return [float(each) for name in ('flux', 'flux_err') for each in table[name]]

names = [*kinds, 'weights']
here = [measure(name) for name in names]
# A process that waits for ever does not outlive the test.
with multiprocessing.get_context('fork').Pool(2, signal.alarm, (170,)) as pool:
    there = pool.map(measure, names)
    threads = pool.apply(torch.get_num_threads)
print(json.dumps([here, there, torch.get_num_threads(), threads]))
"""


def test_measurement_in_a_forked_process_is_that_of_its_parent():
    done = subprocess.run(
        [sys.executable, '-W', 'ignore::DeprecationWarning', '-c', MEASURE_TWICE],
        env=os.environ | {'PYTHONPATH': str(Path(csr_astro.__file__).parents[1])},
        capture_output=True, text=True, check=True, timeout=180,
    )  # fmt: skip
    here, there, threads, threads_there = json.loads(done.stdout)
    for one, other in zip(here, there, strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    assert (threads, threads_there) == (2, 1)


def in_a_fork(function):
    """Exit code of a forked process that calls a function; -14 if it waits for ever."""
    child = os.fork()
    if child == 0:
        import signal

        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(2)
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def use_locks():
    with one_at_a_time, ignored(UserWarning):
        pass


@pytest.mark.filterwarnings('ignore:.*multi-threaded:DeprecationWarning')
@pytest.mark.parametrize('kind', [threading.Lock, threading.RLock])
def test_lock_that_a_thread_holds_is_free_in_a_forked_process(kind):
    ours, plain, held, free = fork_safe(kind()), kind(), threading.Event(), threading.Event()

    def hold():
        with ours, plain, one_at_a_time:
            held.set()
            free.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert in_a_fork(use_locks) == 0
        assert in_a_fork(ours.acquire) == 0
        assert in_a_fork(plain.acquire) == -14
    finally:
        free.set()
        thread.join()
