"""Tests of leaving warnings out."""

import threading
import warnings

import pytest

from csr_astro.utils.warnings import ignored


def seen(function):
    """Texts of the warnings that a function raises."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        function()
    return [str(each.message) for each in caught]


def test_only_warnings_of_the_kinds_that_are_named_are_left_out():
    def warn():
        with ignored(UserWarning):
            warnings.warn('left out', UserWarning, stacklevel=1)
            warnings.warn('seen', RuntimeWarning, stacklevel=1)

    assert seen(warn) == ['seen']


def test_warnings_are_seen_again_after_the_block():
    def warn():
        with ignored(UserWarning):
            warnings.warn('inside', stacklevel=1)
        warnings.warn('after', stacklevel=1)

    assert seen(warn) == ['after']


def test_filters_are_put_back_after_an_error():
    before = list(warnings.filters)
    with pytest.raises(ValueError, match='inside'), ignored(UserWarning):
        raise ValueError('inside')
    assert list(warnings.filters) == before


def test_filters_of_warnings_are_the_same_list_after_threads():
    before, same = list(warnings.filters), warnings.filters
    barrier = threading.Barrier(8)

    def work():
        barrier.wait()
        for _ in range(300):
            with ignored(UserWarning, RuntimeWarning):
                warnings.warn('never seen', stacklevel=1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters is same
    assert list(warnings.filters) == before
