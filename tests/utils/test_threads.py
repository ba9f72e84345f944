"""Tests of work in threads and of the limits of numerical libraries."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from csr_astro.utils.threads import one_blas_thread, spread


def blas():
    return {each['num_threads'] for each in threadpool_info() if each['user_api'] == 'blas'}


@pytest.fixture
def two():
    """Two threads of every library, as a user may have set them."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2, 'blas'):
        yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures('two')
def test_blas_has_one_thread_within_the_block_only():
    with one_blas_thread():
        assert blas() == {1}
    assert blas() == {2}


@pytest.mark.usefixtures('two')
def test_blocks_that_overlap_leave_the_setting_of_the_user():
    """The first that begins ends before the second."""
    entered, left = threading.Event(), threading.Event()

    def second():
        with one_blas_thread():
            entered.set()
            left.wait(10)

    with ThreadPoolExecutor(1) as pool:
        with one_blas_thread():
            future = pool.submit(second)
            entered.wait(10)
        left.set()
        future.result()
    assert blas() == {2}


@pytest.mark.usefixtures('two')
def test_an_error_leaves_the_setting_of_the_user():
    with pytest.raises(ZeroDivisionError):
        list(spread(lambda x: 1 / x, [1, 0], 2))
    assert blas() == {2}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize('threads', [1, 2, 3])
def test_results_come_in_order(threads):
    def late(x):
        time.sleep(0.002 * (x % 3))
        return x * x

    assert list(spread(late, range(12), threads)) == [x * x for x in range(12)]


@pytest.mark.usefixtures('two')
def test_each_thread_computes_alone():
    def threads(_):
        return torch.get_num_threads(), blas(), threading.get_ident()

    found = list(spread(threads, range(8), 2))
    assert {each[0] for each in found} == {1}
    assert all(each[1] == {1} for each in found)
    assert threading.get_ident() not in {each[2] for each in found}
    # A new thread of the user has as many as before.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2


def test_only_a_few_results_wait():
    done = []
    results = spread(lambda x: done.append(x) or x, range(100), 2)
    next(results)
    time.sleep(0.05)
    assert len(done) < 12
    results.close()
    assert len(done) < 20


def test_blocks_nest():
    with one_blas_thread(), one_blas_thread():
        assert blas() == {1}
        np.linalg.cholesky(np.eye(3))
