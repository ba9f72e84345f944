"""Tests of what is said when an optional dependency is missing."""

import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
import torch

import csr_astro.training
from csr_astro import NeuralBackgroundEstimator, batch, demo
from csr_astro.evaluation.baselines import BASELINES, get_baselines
from csr_astro.evaluation.report import write_report
from csr_astro.training import data, loop, losses, recipe


@pytest.fixture
def block(monkeypatch):
    """Make packages impossible to import, and to find."""

    def forbid(*packages):
        loaded = [
            name
            for name in sys.modules
            if any(name == package or name.startswith(f'{package}.') for package in packages)
        ]
        for name in {*packages, *loaded}:
            monkeypatch.setitem(sys.modules, name, None)
        # Modules of ours that hold what they imported are imported anew.
        for name in ('callbacks', 'module'):
            monkeypatch.delitem(sys.modules, f'csr_astro.training.{name}', raising=False)
            monkeypatch.delitem(vars(csr_astro.training), name, raising=False)

    return forbid


@pytest.fixture(scope='module')
def result(weights):
    estimator = NeuralBackgroundEstimator(weights, fwhm=3.3, orientations=1)
    return estimator.estimate(np.random.default_rng(0).normal(size=(60, 60)), [(30, 30)])


DISC = (np.zeros((33, 33)), np.ones((33, 33), dtype=bool), np.eye(33, dtype=bool), 16, 16, 5)

USES = {
    'plot': ('matplotlib', 'plot', lambda result, _: result.plot()),
    'plot_source': ('matplotlib', 'plot', lambda result, _: result.plot_source(1)),
    'report': ('matplotlib', 'plot', lambda result, path: write_report(path / 'report', result)),
    'demo': ('matplotlib', 'plot', lambda _, path: demo.run_demo(path / 'demo')),
    'batch': ('distributed', 'dask', lambda *_: batch.require_dask()),
    'client': ('distributed', 'dask', lambda *_: batch.open_client().__enter__()),
    'train': (
        'lightning',
        'train',
        lambda _, path: loop.train(recipe.Recipe(), None, None, path / 'out'),
    ),
    'module': ('lightning', 'train', lambda *_: import_module('csr_astro.training.module')),
    'callbacks': ('lightning', 'train', lambda *_: import_module('csr_astro.training.callbacks')),
    'ssim': ('kornia', 'train', lambda *_: losses.ssim_loss(*torch.zeros(2, 1, 1, 16, 16))),
    'biharmonic': ('skimage', 'evaluate', lambda *_: BASELINES['biharmonic'](*DISC)),
    'maskfill': ('maskfill', 'evaluate', lambda *_: BASELINES['maskfill'](*DISC)),
    'baselines': ('maskfill', 'evaluate', lambda *_: get_baselines(['maskfill'])),
}
INSTALLED_AS = {'distributed': 'dask', 'skimage': 'scikit-image'}


@pytest.mark.parametrize('use', USES)
def test_missing_package_is_named_with_its_extra(use, block, result, tmp_path):
    package, extra, call = USES[use]
    block(package)
    name = INSTALLED_AS.get(package, package)
    with pytest.raises(
        ImportError, match=rf' needs? {name}; install it with: pip install "csr_astro\[{extra}\]"$'
    ):
        call(result, tmp_path)
    # Nothing is begun that cannot be finished.
    assert list(tmp_path.iterdir()) == []


def test_comparisons_leave_out_what_is_missing(block):
    block('skimage', 'maskfill')
    assert set(get_baselines()) == set(BASELINES) - {'biharmonic', 'maskfill'}


def test_training_goes_without_tensorboard(block, tmp_path):
    block('tensorboard', 'tensorboardX')
    from csr_astro.training.callbacks import tensorboard_logger

    assert tensorboard_logger(tmp_path) is None


def test_batches_go_without_the_dashboard():
    # In a process of its own: once dask has imported its dashboard, it does not go without.
    script = (
        'import sys\n'
        'sys.modules["bokeh"] = None\n'
        'from csr_astro.batch import open_client\n'
        'with open_client(workers=0) as client:\n'
        '    print(client.submit(sum, [1, 2]).result())\n'
    )
    words = [sys.executable, '-c', script]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.stdout == '3\n', done.stderr


def test_the_rest_needs_none_of_them(block, weights):
    block('dask', 'distributed', 'kornia', 'lightning', 'maskfill', 'matplotlib', 'skimage')
    estimator = NeuralBackgroundEstimator(weights, fwhm=3.3, orientations=1)
    found = estimator.estimate(np.random.default_rng(1).normal(size=(60, 60)), [(30, 30)])
    assert np.isfinite(found.background_rms).all()
    assert len(data.CutoutSampler({}, source_fraction=0, seed=3).batch(0, 1)) == 6
