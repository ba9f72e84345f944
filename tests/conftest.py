"""Fixtures that several test modules share."""

import os
from pathlib import Path

# Threads cost more than they give for matrices this small, also in processes that tests start.
for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'):
    os.environ.setdefault(name, '1')

import pytest
import torch

from csr_astro import NeuralBackgroundEstimator
from csr_astro.nn.inpainter import Inpainter
from csr_astro.nn.unet import PartialConvUNet
from csr_astro.nn.weights import save_weights


@pytest.fixture(scope='session')
def small_data():
    """The folder of small real maps and point-spread functions that comes with the tests."""
    return Path(__file__).parent / 'data'


@pytest.fixture(scope='session')
def real_data():
    """The folder of large real maps: $CSR_ASTRO_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get('CSR_ASTRO_DATA') or Path(__file__).parents[2] / 'shared' / 'data')
    if not folder.is_dir():
        pytest.skip(f'no folder of real maps: {folder}; name one by CSR_ASTRO_DATA')
    return folder


@pytest.fixture(scope='session')
def shared_data(real_data):
    """The folder that holds `real_data`, as ``data``, and the reference tables beside it."""
    folder = real_data.parent
    if real_data.name != 'data' or not (folder / 'reference').is_dir():
        pytest.skip(f'no reference tables beside {real_data}')
    return folder


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    """Run PyTorch in one thread: networks this small gain nothing from more."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope='session', autouse=True)
def same_precision():
    """Compute in float32 by default, on any processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('csr_astro.nn.device.best_dtype', lambda _: torch.float32)
        yield


@pytest.fixture(scope='session')
def weights(tmp_path_factory):
    """A network that has learnt nothing, for what must hold with any weights."""
    path = tmp_path_factory.mktemp('weights') / 'untrained.safetensors'
    with torch.random.fork_rng():
        torch.manual_seed(1)
        save_weights(path, Inpainter(PartialConvUNet(0.125)))
    return path


@pytest.fixture(scope='session')
def networks(tmp_path_factory):
    """Networks that have learnt nothing, by how they normalise.

    'blank' predicts the middle between the minimum and the maximum everywhere.
    """
    folder = tmp_path_factory.mktemp('networks')
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        network = PartialConvUNet(0.125)
        for parameter in network.parameters():
            if parameter.ndim == 4:
                torch.nn.init.kaiming_normal_(parameter)
        last = network.decoder[-1].conv
        # Answers of the size of the normalised image.
        answer = network.eval()(torch.randn(1, 1, 96, 96), torch.ones(1, 1, 96, 96))
        last.weight /= 3 * answer.std()
        save_weights(folder / 'local.safetensors', Inpainter(network, 'local'))
        save_weights(folder / 'minmax.safetensors', Inpainter(network, 'minmax', fill='none'))
        last.weight[:], last.bias[:] = 0, 0
        save_weights(folder / 'blank.safetensors', Inpainter(network, 'minmax', fill='none'))
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(scope='session')
def make_estimator(networks):
    """Make an estimator with one of `networks`, or with bundled weights, by name."""

    def make(name=None, *, orientations=1, **options):
        if name is None:
            # The preset of the paper takes no others.
            name = 'minmax' if options.get('preset') == 'paper' else 'local'
        if not {'instrument', 'fwhm'} & set(options):
            options['fwhm'] = 3.5
        return NeuralBackgroundEstimator(
            networks.get(name, name), orientations=orientations, **options
        )

    return make
