import logging
import signal

import dask
import pytest

from csr_astro.batch import open_client, require_dask


@pytest.mark.parametrize('arguments', [{'workers': -1}, {'threads': 0}])
def test_numbers_of_workers_make_sense(arguments):
    with pytest.raises(ValueError, match='must be a number from'), open_client(**arguments):
        pass


def test_scheduler_that_does_not_answer_is_named():
    # From then on its options are known, and what is set here takes none of them away.
    require_dask()
    with (
        dask.config.set({'distributed.comm.timeouts.connect': '0.2s'}),
        pytest.raises(ValueError, match=r"no dask scheduler answers at 'tcp://127\.0\.0\.1:9'"),
        open_client('tcp://127.0.0.1:9'),
    ):
        pass


@pytest.fixture
def ctrl_c_is_heard():
    """Shells start what runs in the background deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
