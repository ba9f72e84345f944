import os
from pathlib import Path

# For matrices this small, threads cost more than they give; also in processes that are started.
for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'):
    os.environ.setdefault(name, '1')

import pytest
import torch

from csr_astro.nn.inpainter import Inpainter
from csr_astro.nn.unet import PartialConvUNet
from csr_astro.nn.weights import save_weights


@pytest.fixture(scope='session')
def shared_data():
    """The folder of data and reference tables beside the repository."""
    folder = Path(__file__).parents[2] / 'shared'
    if not folder.is_dir():
        pytest.skip(f'the folder of shared data is missing: {folder}')
    return folder


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    """For networks this small, more threads cost more than they give."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope='session')
def weights(tmp_path_factory):
    """A network that has learnt nothing: what must hold for any weights holds for it."""
    path = tmp_path_factory.mktemp('weights') / 'untrained.safetensors'
    with torch.random.fork_rng():
        torch.manual_seed(1)
        save_weights(path, Inpainter(PartialConvUNet(0.125)))
    return path
