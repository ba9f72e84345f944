"""The training, killed and resumed."""

import csv
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.torch import load_file

from csr_astro.nn.inpainter import Inpainter
from csr_astro.nn.unet import PartialConvUNet
from csr_astro.nn.weights import load_model
from csr_astro.simulation.dataset import write_dataset
from csr_astro.simulation.field import synthetic_map
from csr_astro.simulation.simulate import simulate_map
from csr_astro.training.data import CutoutSampler
from csr_astro.training.loop import train
from csr_astro.training.losses import (
    PAPER_WEIGHTS,
    LossWeights,
)
from csr_astro.training.module import TrainingModule
from csr_astro.training.recipe import Recipe, read_recipe
from csr_astro.training.stored import dataset_samplers

RECIPE = Recipe(
    width=0.125,
    fill='push-pull',
    n_cutouts=64,
    batch_size=8,
    warmup=16,
    average=0.9,
    validate_every=32,
    n_validation=16,
    seed=5,
)


FOLDERS = ['pictures', 'tensorboard']


FILES = ['checkpoint.pt', 'last.safetensors', 'log.csv', 'weights.safetensors']


PAPER = replace(
    read_recipe('paper'), width=0.125, n_cutouts=8, batch_size=4, validate_every=4, n_validation=4
)


SCRIPT = """
import sys
import torch
from csr_astro.cli import main
torch.set_num_threads(1)
sys.exit(main(['train', 'recipe.toml', '-o', 'run', '--device', 'cpu', *sys.argv[1:]]))
"""


class Killed(BaseException):
    """As unexpected as a signal."""


class DyingSampler:
    """A sampler that is killed when a certain batch is asked for."""

    def __init__(self, sampler, number):
        self.sampler = sampler
        self.number = number

    def batch(self, number, batch_size):
        if number == self.number:
            raise Killed
        return self.sampler.batch(number, batch_size)


@pytest.fixture(scope='module')
def sampler():
    return CutoutSampler({}, seed=3)


@pytest.fixture(scope='module')
def validation_sampler():
    return CutoutSampler({}, seed=99)


@pytest.fixture(scope='module')
def go(sampler, validation_sampler):
    """Train on the CPU without a progress bar."""

    def function(folder, recipe=RECIPE, sampler=sampler, **options):
        options = {'device': 'cpu', 'progress': False} | options
        return train(recipe, sampler, validation_sampler, folder, **options)

    return function


@pytest.fixture(scope='module')
def undisturbed(go, tmp_path_factory):
    folder = tmp_path_factory.mktemp('undisturbed')
    state = torch.get_rng_state()
    path = go(folder, card={'training_data': 'synthetic', 'licence': 'none'})
    assert torch.equal(torch.get_rng_state(), state)
    return path


@pytest.fixture(scope='module')
def killed_once(go, sampler, tmp_path_factory):
    folder = tmp_path_factory.mktemp('killed')
    with pytest.raises(Killed):
        go(folder, sampler=DyingSampler(sampler, 6))
    return folder


@pytest.fixture
def killed(killed_once, tmp_path):
    """The folder of a training that was killed after its first checkpoint, two steps later."""
    return shutil.copytree(killed_once, tmp_path / 'killed')


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def read_log(folder):
    with (folder / 'log.csv').open(newline='') as file:
        return list(csv.DictReader(file))


def assert_same_training(folder, other):
    for name in ('last.safetensors', 'weights.safetensors'):
        state, expected = load_file(folder / name), load_file(other / name)
        assert state.keys() == expected.keys()
        for key, value in state.items():
            assert torch.equal(value, expected[key]), key
    assert (folder / 'log.csv').read_bytes() == (other / 'log.csv').read_bytes()


def test_training_writes_weights_that_load(undisturbed):
    assert set(FILES) <= set(names(undisturbed.parent)) <= {*FILES, *FOLDERS}
    info = load_model(undisturbed).info
    assert (info.width, info.normalization, info.fill) == (0.125, 'local', 'push-pull')
    assert (info.training_data, info.licence) == ('synthetic', 'none')


def test_training_logs_every_validation(undisturbed):
    rows = read_log(undisturbed.parent)
    assert [int(row['cutouts']) for row in rows] == [32, 64]
    # The rate of the step before: 24 and 56 cutouts done, 16 of warm-up, 64 in all.
    for row, done in zip(rows, (8 / 48, 40 / 48), strict=True):
        rate = 2e-3 * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
        assert float(row['learning_rate']) == pytest.approx(rate, rel=1e-12)
        assert 0 < float(row['training_loss']) < 1e3
        assert 0 < float(row['validation_loss']) < 1e3


def test_best_weights_are_those_of_the_lowest_validation_loss(undisturbed):
    losses = [float(row['validation_loss']) for row in read_log(undisturbed.parent)]
    best, last = (load_file(undisturbed.parent / name) for name in FILES[::-2])
    same = all(torch.equal(best[key], last[key]) for key in best)
    assert same == (losses[-1] == min(losses))


class OneBatch:
    """A sampler that has only one batch, which any network can learn by heart."""

    def __init__(self, sampler):
        self.only = sampler.batch(0, 8)

    def batch(self, *_):
        return self.only


def test_training_learns(go, sampler, tmp_path):
    recipe = replace(
        RECIPE, n_cutouts=320, warmup=32, validate_every=80, n_validation=8, average=0.5
    )
    go(tmp_path, recipe, OneBatch(sampler))
    losses = [float(row['training_loss']) for row in read_log(tmp_path)]
    assert losses[-1] < 0.9 * losses[0]


def test_killed_training_has_its_last_checkpoint(killed):
    assert set(FILES) <= set(names(killed)) <= {*FILES, *FOLDERS}
    assert [row['cutouts'] for row in read_log(killed)] == ['32']
    load_model(killed / 'weights.safetensors')


def test_resumed_training_equals_an_undisturbed_one(go, killed, undisturbed, capsys):
    assert go(killed, resume=True, progress=True) == killed / 'weights.safetensors'
    assert_same_training(killed, undisturbed.parent)
    assert '64/64' in capsys.readouterr().err


def test_training_killed_before_its_checkpoint_can_start_again(go, sampler, undisturbed, tmp_path):
    with pytest.raises(Killed):
        go(tmp_path, sampler=DyingSampler(sampler, 3))
    assert not set(FILES) & set(names(tmp_path))
    go(tmp_path)
    assert_same_training(tmp_path, undisturbed.parent)


def test_resuming_a_finished_training_changes_nothing(go, undisturbed):
    folder = undisturbed.parent
    before = {name: (folder / name).read_bytes() for name in FILES}
    go(folder, resume=True)
    assert {name: (folder / name).read_bytes() for name in FILES} == before


def test_finished_training_can_be_prolonged(go, killed):
    go(killed, replace(RECIPE, n_cutouts=96), resume=True)
    assert [row['cutouts'] for row in read_log(killed)] == ['32', '64', '96']


def test_existing_checkpoint_is_not_overwritten(go, undisturbed):
    before = undisturbed.read_bytes()
    with pytest.raises(FileExistsError, match=r'checkpoint.pt. exists; resume it .--resume.'):
        go(undisturbed.parent)
    assert undisturbed.read_bytes() == before


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('learning_rate', 1e-3),
        ('batch_size', 4),
        ('seed', 6),
        ('fill', 'none'),
        ('width', 0.25),
        ('schedule', 'plateau'),
    ],
)
def test_resuming_with_another_recipe_is_refused(go, undisturbed, key, value):
    sentence = f'made with {key} = {getattr(RECIPE, key)}, the recipe says {value}'
    with pytest.raises(ValueError, match=sentence):
        go(undisturbed.parent, replace(RECIPE, **{key: value}), resume=True)


def test_nothing_to_resume_is_refused(go, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'there is no .*checkpoint.pt. to resume'):
        go(tmp_path, resume=True)


def without(key):
    """Damage that takes something out of a checkpoint."""

    def damage(path):
        state = torch.load(path, weights_only=True)
        del state[key]
        torch.save(state, path)

    return damage


@pytest.mark.parametrize(
    'damage',
    [
        lambda path: path.write_bytes(b''),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: path.write_bytes(b'noise' * 1000),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save(Path('code'), path),
        without('recipe'),
        without('model'),
    ],
    ids=['empty', 'half', 'noise', 'list', 'code', 'no recipe', 'no model'],
)
def test_damaged_checkpoint_is_named(go, killed, damage):
    path = killed / 'checkpoint.pt'
    damage(path)
    with pytest.raises(ValueError, match=r'checkpoint\.pt. is ') as info:
        go(killed, resume=True)
    assert '\n' not in str(info.value)
    # PyTorch's advice.
    assert 'weights_only' not in str(info.value)


def test_minmax_training_normalises_as_in_use(go, tmp_path, monkeypatch):
    seen = []
    prepare = Inpainter.prepare

    def spy(self, image, valid, finite, central, radius):
        seen.append(bool((finite > valid).any()))
        return prepare(self, image, valid, finite, central, radius)

    monkeypatch.setattr(Inpainter, 'prepare', spy)
    go(tmp_path, replace(RECIPE, n_cutouts=8, n_validation=8, normalization='minmax'))
    assert seen
    assert all(seen)


def test_pictures_are_drawn_at_every_validation(undisturbed):
    pytest.importorskip('matplotlib')
    folder = undisturbed.parent / 'pictures'
    assert names(folder) == ['000000032.png', '000000064.png']
    assert all(path.read_bytes().startswith(b'\x89PNG') for path in folder.iterdir())


def test_tensorboard_gets_the_log(undisturbed):
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    events = accumulator.EventAccumulator(str(undisturbed.parent / 'tensorboard')).Reload()
    for name in ('learning_rate', 'training_loss', 'validation_loss'):
        rows = [(row['cutouts'], row[name]) for row in read_log(undisturbed.parent)]
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        assert_allclose(logged, np.array(rows, dtype=float), rtol=1e-6)


@pytest.fixture
def command(tmp_path):
    """``csr-astro train`` in a folder of its own, as the arguments of a process."""
    (tmp_path / 'recipe.toml').write_text(
        'width = 0.125\nfill = "push-pull"\nn_cutouts = 24\nbatch_size = 4\nwarmup = 8\n'
        'validate_every = 8\nn_validation = 4\n'
    )
    (tmp_path / 'script.py').write_text(SCRIPT)
    return {
        'args': [sys.executable, 'script.py'],
        'cwd': tmp_path,
        'env': os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
        'stdout': subprocess.DEVNULL,
        'stderr': subprocess.DEVNULL,
    }


def test_process_killed_at_any_moment_is_resumed_to_the_same_curve(command, tmp_path):
    process = subprocess.Popen(**command)
    while not (tmp_path / 'run' / 'log.csv').exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(read_log(tmp_path / 'run')) < 3
    options = {'device': 'cpu', 'progress': False}
    recipe = read_recipe(tmp_path / 'recipe.toml')
    samplers = [
        CutoutSampler({}, seed=seed, source_fraction=recipe.source_fraction) for seed in (1, 1001)
    ]
    train(recipe, *samplers, tmp_path / 'run', resume=True, **options)
    train(recipe, *samplers, tmp_path / 'undisturbed', **options)
    assert_same_training(tmp_path / 'run', tmp_path / 'undisturbed')


def test_several_devices_share_each_batch(command, tmp_path):
    command['args'] += ['--devices', '2']
    subprocess.run(**command, check=True)
    assert [row['cutouts'] for row in read_log(tmp_path / 'run')] == ['8', '16', '24']
    load_model(tmp_path / 'run' / 'weights.safetensors')


def test_worker_processes_prepare_the_same_batches(go, undisturbed, tmp_path):
    go(tmp_path, workers=1)
    assert_same_training(tmp_path, undisturbed.parent)


@pytest.mark.parametrize('devices', [3, 8])
def test_batch_that_devices_cannot_share_is_refused(go, tmp_path, devices):
    with pytest.raises(ValueError, match=f'multiple of the number of devices, {devices}'):
        go(tmp_path, devices=devices)
    assert names(tmp_path) == []


@pytest.mark.parametrize('weights', [PAPER_WEIGHTS, LossWeights(style=0.0, ssim=0.0)])
def test_paper_recipe_trains(go, tmp_path, weights):
    if weights.ssim:
        pytest.importorskip('kornia')
    go(tmp_path, replace(PAPER, loss_weights=weights))
    rows = read_log(tmp_path)
    assert all(0 < float(row['validation_loss']) < 1e3 for row in rows)
    # Without an average, the weights of the last step are kept.
    state = torch.load(tmp_path / 'checkpoint.pt', weights_only=True)
    for key, value in state['model'].items():
        assert torch.equal(value, state['average'][f'module.{key}'])


def test_gradients_are_clipped_only_if_the_recipe_says_so(go, tmp_path):
    """Adam hardly moves weights whose gradients are far below its epsilon."""
    recipe = replace(PAPER, n_cutouts=4, loss_weights=LossWeights(style=0.0, ssim=0.0))
    moved = []
    for clip in (0.0, 1e-10):
        go(tmp_path / str(clip), replace(recipe, gradient_clip=clip))
        state = torch.load(tmp_path / str(clip) / 'checkpoint.pt', weights_only=True)
        moved.append(state['model']['network.encoder.4.conv.weight'])
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        start = PartialConvUNet(recipe.width).encoder[4].conv.weight
    far, near = ((each - start).abs().mean().item() for each in moved)
    assert far > 0.5 * recipe.learning_rate > 100 * near


def test_plateau_halves_the_rate_when_the_loss_stops_falling(go, sampler, tmp_path, monkeypatch):
    """Resumed in between: what it remembers of earlier losses is not lost."""
    loss = TrainingModule.loss

    def constant(self, model, tensors):
        value, prediction = loss(self, model, tensors)
        return 0 * value + 1, prediction

    monkeypatch.setattr(TrainingModule, 'loss', constant)
    recipe = replace(PAPER, batch_size=2, n_cutouts=16, validate_every=2, n_validation=2,
                     loss_weights=LossWeights(style=0.0, ssim=0.0))
    with pytest.raises(Killed):
        go(tmp_path, recipe, DyingSampler(sampler, 4))
    go(tmp_path, recipe, resume=True)
    rates = [float(row['learning_rate']) for row in read_log(tmp_path)]
    assert rates == [0.005] * 7 + [0.0025]


def test_fine_tuning_the_bundled_weights_helps_on_ones_own_map(tmp_path):
    """A map of ripples, which the bundled weights have never seen."""
    y, x = np.indices((200, 200))
    ripples = (np.sin(0.9 * x + 0.3 * y) * np.sin(0.07 * x)).astype(np.float32)
    recipe = replace(
        read_recipe('fine-tune'), n_cutouts=128, batch_size=8, warmup=8, average=0.5,
        learning_rate=1e-3, real_fraction=1.0, validate_every=128, n_validation=16,
    )
    samplers = [CutoutSampler({'mine': [ripples]}, real_fraction=1.0, seed=n) for n in range(2)]
    no_steps = replace(recipe, learning_rate=1e-12, n_cutouts=8)
    losses = []
    for name, each in (('before', no_steps), ('after', recipe)):
        train(each, *samplers, tmp_path / name, device='cpu', progress=False)
        losses.append(float(read_log(tmp_path / name)[-1]['validation_loss']))
    assert losses[1] < losses[0]


def test_loss_that_is_not_finite_ends_the_training(go, killed):
    class Broken:
        def batch(self, *_):
            batch = CutoutSampler({}, seed=3).batch(0, 8)
            batch[1][:] = np.nan
            return batch

    before = {name: (killed / name).read_bytes() for name in FILES}
    with pytest.raises(FloatingPointError, match='not finite after 64 cutouts; lower learning'):
        go(killed, sampler=Broken(), resume=True)
    assert {name: (killed / name).read_bytes() for name in FILES} == before


def test_interrupted_training_says_so_and_leaves_the_signal_alone(go, sampler, tmp_path):
    class Interrupted(DyingSampler):
        def batch(self, number, batch_size):
            if number == self.number:
                raise KeyboardInterrupt
            return self.sampler.batch(number, batch_size)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, sampler=Interrupted(sampler, 1))
    assert signal.getsignal(signal.SIGINT) is handler


def test_lightning_is_imported_by_training_only():
    code = (
        'import sys, csr_astro.cli, csr_astro.training.loop, csr_astro.training.recipe;'
        "assert 'lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_dataset_is_trained_on(tmp_path):
    fields = {'one': 'train', 'two': 'validation'}
    simulations = [
        simulate_map(
            synthetic_map('lognormal', (200, 200), number), 700, number=4, name=name,
            instrument='pacs-scanmap-blue',
        )
        for number, name in enumerate(fields)
    ]  # fmt: skip
    losses = []
    for layout in ('array', 'paper'):
        write_dataset(tmp_path / layout, simulations, fields, layout=layout)
        samplers = dataset_samplers(tmp_path / layout, seed=RECIPE.seed)
        train(RECIPE, *samplers, tmp_path / f'run {layout}', device='cpu', progress=False)
        losses.append([row['validation_loss'] for row in read_log(tmp_path / f'run {layout}')])
    assert losses[0] == losses[1]
    assert all(0 < float(loss) < 1e3 for loss in losses[0])


def test_pytorch_that_loads_files_unsafely_is_refused(go, killed, monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.5.1')
    with pytest.raises(RuntimeError, match=r'needs PyTorch 2\.6 or later'):
        go(killed, resume=True)
