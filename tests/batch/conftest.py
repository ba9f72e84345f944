import os
from pathlib import Path

import numpy as np
import pytest
from helpers_batch import write_catalog, write_maps

import csr_astro
from csr_astro.batch import open_client


@pytest.fixture(scope='module', autouse=True)
def workers_compute_like_this_process(tmp_path_factory):
    """On one thread each: another number may change the last bit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('OMP_NUM_THREADS', '1')
        patch.setenv('OPENBLAS_NUM_THREADS', '1')
        patch.setenv('CSR_ASTRO_TEST_FUSE', str(tmp_path_factory.mktemp('fuse') / 'fuse'))
        # The path of this process does not reach worker processes.
        folders = Path(csr_astro.__file__).parents[1], Path(__file__).parents[1]
        patch.setenv('PYTHONPATH', os.pathsep.join(map(str, folders)))
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
    write_maps(tmp_path)
    return tmp_path


@pytest.fixture
def longer(folder):
    """So many sources that there is time to disturb."""
    write_catalog(folder / 'catalog.ecsv', np.random.default_rng(1).uniform(0, 110, (12, 2)))
    return folder
