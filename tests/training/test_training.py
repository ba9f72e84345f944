import csv
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import load_file
from scipy import ndimage

from csr_astro.nn.inpainter import Inpainter
from csr_astro.nn.weights import load_model
from csr_astro.simulation.diffuse import (
    diffuse_field,
    filament_field,
    lognormal_field,
    power_law_field,
)
from csr_astro.simulation.psf import image_profile, moffat_profile, psf_stamp
from csr_astro.training.data import CutoutSampler, read_maps
from csr_astro.training.loop import train
from csr_astro.training.losses import (
    PAPER_WEIGHTS,
    LossWeights,
    hole_l1,
    relative_hole_loss,
    windowed_l1,
)
from csr_astro.training.module import TrainingModule
from csr_astro.training.recipe import Recipe, list_recipes, read_recipe

# Cutouts


@pytest.fixture(scope='module')
def sampler():
    return CutoutSampler({}, seed=3)


def make_map(shape=(260, 300), seed=0):
    """A plane with a little noise and a blank stripe."""
    y, x = np.indices(shape, dtype=np.float32)
    image = 0.3 * x + 0.1 * y + np.random.default_rng(seed).normal(0, 1e-3, shape)
    image[:, 100:110] = np.nan
    return image.astype(np.float32)


def test_batch_depends_on_seed_and_number_only(sampler):
    first = sampler.batch(2, 4)
    other = sampler.batch(3, 4)
    again = CutoutSampler({}, seed=3).batch(2, 4)
    reseeded = CutoutSampler({}, seed=4).batch(2, 4)
    for a, b, c, d in zip(first, again, other, reseeded, strict=True):
        assert_array_equal(a, b)
        assert not np.array_equal(a, c)
        assert not np.array_equal(a, d)


@pytest.mark.parametrize('real_fraction', [0, 1])
def test_batch_is_what_it_says(real_fraction):
    sampler = CutoutSampler({'map': [make_map()]}, real_fraction=real_fraction)
    image, target, valid, hole, central, radius = sampler.batch(0, 12)
    for array in (image, target, valid, hole, central):
        assert array.shape == (12, 1, 96, 96)
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    assert set(np.unique(valid)) == set(np.unique(hole)) == set(np.unique(central)) == {0, 1}
    assert not (valid * hole).any()
    assert not (valid * central).any()
    # Under the discs the image holds the sources; blank pixels hold nothing.
    assert not image[(valid == 0) & (hole == 0)].any()
    # The hole is the disc, up to blank pixels, and the radius is one that holds it.
    assert radius.dtype == np.float32
    assert ((radius >= 5) & (radius <= 14)).all()
    y, x = np.indices((96, 96)) - 48
    inside = np.hypot(y, x) <= radius[:, None, None, None] - 2
    assert (central >= inside).all()
    assert (central <= (np.hypot(y, x) <= radius[:, None, None, None] + 1)).all()
    assert not (valid * inside).any()
    assert (hole * inside).sum() > 0.6 * inside.sum()
    # Of order 1: the target has about unit scatter around its disc.
    assert 0.1 < np.median([t[h > 0].std() for t, h in zip(target, valid, strict=True)]) < 30


def test_without_sources_the_valid_image_is_the_target():
    sampler = CutoutSampler({'map': [make_map()]}, source_fraction=0, seed=1)
    image, target, valid, hole, *_ = sampler.batch(0, 16)
    assert_array_equal(image, target * (valid + hole))


def test_sources_add_flux_that_reaches_outside_the_discs():
    sampler = CutoutSampler({}, source_fraction=1, seed=1)
    image, target, valid, *_ = sampler.batch(0, 16)
    wings = (image - target) * valid
    assert wings.min() > -1e-3
    assert (wings.max(axis=(1, 2, 3)) > 1e-3).mean() > 0.9


def test_blank_pixels_are_neither_valid_nor_judged():
    """A map of which only a stripe is measured: the rest is blank in every array."""
    image = np.full((200, 200), np.nan, dtype=np.float32)
    image[80:120] = np.random.default_rng(0).normal(size=(40, 200))
    sampler = CutoutSampler({'stripe': [image]}, real_fraction=1)
    _, target, valid, hole, *_ = sampler.batch(0, 8)
    measured = (valid + hole) > 0
    assert not target[~measured].any()
    assert (measured.mean(axis=(1, 2, 3)) <= 40 / 96 + 1e-6).all()


@pytest.mark.parametrize('real_fraction', [0, 1])
def test_real_fraction_decides_where_cutouts_come_from(real_fraction):
    """The second difference of the map is nearly zero, that of a synthetic field is not."""
    maps = {'plane': [make_map()], 'blank': [np.full((200, 200), np.nan)]}
    sampler = CutoutSampler(maps, real_fraction=real_fraction)
    _, target, valid, *_ = sampler.batch(0, 20)
    whole = (valid[..., :-2] * valid[..., 1:-1] * valid[..., 2:]) > 0
    bend = [np.median(np.abs(np.diff(t, 2)[w])) for t, w in zip(target, whole, strict=True)]
    # A part of the cutouts gets additional noise.
    assert np.mean(np.array(bend) < 2e-3) == pytest.approx(real_fraction, abs=0.4)


def test_sampler_travels_to_other_processes(sampler):
    copy = pickle.loads(pickle.dumps(sampler))
    for array, expected in zip(copy.batch(5, 2), sampler.batch(5, 2), strict=True):
        assert_array_equal(array, expected)


def test_psf_images_are_used():
    psf = psf_stamp(moffat_profile(5, 2), 41)
    with_psf = CutoutSampler({}, [psf], seed=3, source_fraction=1).batch(0, 4)
    without = CutoutSampler({}, seed=3, source_fraction=1).batch(0, 4)
    assert_array_equal(with_psf[1], without[1])
    assert not np.array_equal(with_psf[0], without[0])


def write_fits(path, *images):
    hdus = [fits.PrimaryHDU()] + [fits.ImageHDU(image) for image in images]
    fits.HDUList(hdus).writeto(path)


def test_maps_are_read_by_kind(tmp_path):
    plane = make_map((60, 50))
    write_fits(tmp_path / 'survey70_tile1.fits', plane, np.zeros(7), np.zeros((2, 9, 9)))
    write_fits(tmp_path / 'survey70_tile2.fits', 2 * plane, 3 * plane)
    write_fits(tmp_path / 'other.fits', np.arange(12, dtype='>i2').reshape(3, 4))
    maps = read_maps(tmp_path)
    assert {kind: len(images) for kind, images in maps.items()} == {'survey70': 3, 'other': 1}
    for factor, image in enumerate(maps['survey70'], start=1):
        assert image.dtype == np.float32
        assert_array_equal(image, factor * plane)
    assert_array_equal(maps['other'][0], np.arange(12).reshape(3, 4))


@pytest.mark.parametrize(('shape', 'n_images'), [((399, 500), 1), ((400, 401), 2)])
def test_large_maps_are_also_read_block_averaged(tmp_path, shape, n_images):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    image[0, 0] = np.nan
    write_fits(tmp_path / 'map.fits', image)
    images = read_maps(tmp_path)['map']
    assert len(images) == n_images
    if n_images == 2:
        expected = image[:400, :400].reshape(200, 2, 200, 2).mean(axis=(1, 3))
        assert_allclose(images[1], expected, rtol=1e-5, atol=1e-6)


def test_maps_are_not_their_coverage_or_errors(tmp_path):
    extensions = [fits.PrimaryHDU()]
    for value, name in enumerate(['image', 'coverage', 'stDev', 'CSR_MASK', ''], start=1):
        extensions.append(fits.ImageHDU(np.full((120, 120), float(value)), name=name))
    fits.HDUList(extensions).writeto(tmp_path / 'map.fits')
    assert [image[0, 0] for image in read_maps(tmp_path)['map']] == [1, 5]


def test_maps_may_be_read_block_averaged_only(tmp_path):
    write_fits(tmp_path / 'map.fits', np.ones((400, 400), dtype=np.float32))
    assert [image.shape for image in read_maps(tmp_path, block_sizes=(2,))['map']] == [(200, 200)]


def test_other_files_beside_the_maps_are_left_alone(tmp_path):
    write_fits(tmp_path / 'm31.v1_tile02.fits', np.ones((300, 300), dtype=np.float32))
    (tmp_path / 'm31.v1_tile02.fits.md5').write_text('no map')
    assert list(read_maps(tmp_path)) == ['m31.v1']


def test_folder_without_maps_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='no FITS files in'):
        read_maps(tmp_path)


# Losses


@pytest.fixture
def judged():
    """Prediction, target, hole (the last one empty) and baseline of three images."""
    rng = np.random.default_rng(0)
    prediction, target, baseline = rng.normal(size=(3, 3, 1, 20, 24))
    hole = (rng.random((3, 1, 20, 24)) < 0.3).astype(float)
    hole[2] = 0
    return prediction, target, hole, baseline


def tensors(arrays):
    return [torch.from_numpy(array) for array in arrays]


def numpy_hole_l1(prediction, target, hole):
    errors = zip(np.abs(prediction - target), hole, strict=True)
    return np.array([error[h > 0].mean() if h.any() else 0 for error, h in errors])


def numpy_windowed_l1(prediction, target, hole, window):
    """Sums over every window that is centred on a pixel, by hand."""
    losses = []
    for p, t, h in zip(prediction[:, 0], target[:, 0], hole[:, 0], strict=True):
        error, area = 0, 0
        half = window // 2
        for y, x in np.ndindex(p.shape):
            inside = (slice(max(y - half, 0), y + half + 1), slice(max(x - half, 0), x + half + 1))
            error += abs(((p - t) * h)[inside].sum())
            area += h[inside].sum()
        losses.append(error / area if area else 0)
    return np.array(losses)


def test_hole_l1_is_the_mean_error_over_the_hole(judged):
    assert_allclose(hole_l1(*tensors(judged[:3])), numpy_hole_l1(*judged[:3]), rtol=1e-12)


@pytest.mark.parametrize('window', [1, 3, 7])
def test_windowed_l1_is_the_error_of_sums_over_windows(judged, window):
    loss = windowed_l1(*tensors(judged[:3]), window)
    assert_allclose(loss, numpy_windowed_l1(*judged[:3], window), rtol=1e-12)


@pytest.mark.parametrize('windows', [(), (7,), (3, 5)])
@pytest.mark.parametrize('floor', [0.01, 1])
def test_relative_loss_compares_with_the_baseline(judged, windows, floor):
    def total(image):
        return numpy_hole_l1(image, *judged[1:3]) + sum(
            numpy_windowed_l1(image, *judged[1:3], window) for window in windows
        )

    loss = relative_hole_loss(*tensors(judged), windows=windows, floor=floor)
    # The image whose hole is empty does not count.
    expected = (total(judged[0]) / (total(judged[3]) + floor))[:2].mean()
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_relative_loss_of_perfect_predictions_and_empty_holes_is_zero(judged):
    prediction, target, hole, baseline = tensors(judged)
    assert relative_hole_loss(target, target, hole, baseline) == 0
    assert relative_hole_loss(prediction, target, 0 * hole, baseline) == 0


def test_losses_ignore_everything_outside_the_hole(judged):
    prediction, target, hole, baseline = tensors(judged)
    other = torch.where(hole > 0, prediction, 1e9)
    assert relative_hole_loss(other, target, hole, baseline) == relative_hole_loss(
        prediction, target, hole, baseline
    )


# Recipes


def test_bundled_recipes_are_read():
    assert list_recipes() == ['default', 'fine-tune', 'paper', 'push-pull', 'tiny']
    for name in list_recipes():
        assert isinstance(read_recipe(name), Recipe)
    assert read_recipe('tiny').n_cutouts == 512


def test_recipe_file_overrides_defaults(tmp_path):
    path = tmp_path / 'mine.toml'
    path.write_text('width = 1\nseed = 7\ncompile = true\n')
    assert read_recipe(path) == replace(Recipe(), width=1.0, seed=7, compile=True)
    assert isinstance(read_recipe(str(path)).width, float)


def test_paper_recipe_is_the_paper():
    recipe = read_recipe('paper')
    assert (recipe.width, recipe.normalization, recipe.fill) == (1, 'minmax', 'none')
    assert (recipe.loss, recipe.loss_weights) == ('paper', PAPER_WEIGHTS)
    assert (recipe.optimizer, recipe.schedule, recipe.learning_rate) == ('adam', 'plateau', 0.005)
    assert recipe.batch_size == 64


def test_terms_of_the_loss_are_switched_one_by_one(tmp_path):
    path = tmp_path / 'mine.toml'
    path.write_text('loss = "paper"\n[loss_weights]\nstyle = 0\nhole = 3\n')
    assert read_recipe(path).loss_weights == LossWeights(style=0.0, hole=3.0)


def test_recipe_that_starts_from_weights_takes_their_network(weights, tmp_path):
    path = tmp_path / 'mine.toml'
    path.write_text(f'start = "{weights}"\n')
    recipe = read_recipe(path)
    assert (recipe.width, recipe.normalization, recipe.fill) == (0.125, 'local', 'push-pull')
    path.write_text(f'start = "{weights}"\nfill = "kriging"\n')
    assert read_recipe(path).fill == 'kriging'


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        (b'widht = 0.5', r"unknown keys \['widht'\]; known are"),
        (b'[training]\nwidth = 0.5', r"unknown keys \['training'\]"),
        (b'width = "wide"', "width must be a float, got 'wide'"),
        (b'n_cutouts = 1.5', 'n_cutouts must be a int, got 1.5'),
        (b'seed = true', 'seed must be a int, got True'),
        (b'width = true', 'width must be a float, got True'),
        (b'compile = 1', 'compile must be a bool, got 1'),
        (b'normalization = 3', 'normalization must be a str, got 3'),
        (b'normalization = "robust"', r"normalization must be one of \['local', 'minmax'\]"),
        (b'fill = "zero"', r"fill must be one of \['none', 'push-pull', 'kriging'\], got 'zero'"),
        (b'loss = "l2"', r"loss must be one of \['relative', 'paper'\], got 'l2'"),
        (b'optimizer = "sgd"', r"optimizer must be one of \['adamw', 'adam'\], got 'sgd'"),
        (b'schedule = "flat"', r"schedule must be one of \['cosine', 'plateau'\], got 'flat'"),
        (b'start = "none-such"', 'weights must be one of'),
        (b'average = 1', 'average must be at least 0 and below 1, got 1.0'),
        (b'others = -1', r'others must be in \[0, inf\], got -1.0'),
        (b'real_fraction = 2', r'real_fraction must be in \[0, 1\], got 2.0'),
        (b'learning_rate = nan', 'learning_rate must be positive, got nan'),
        (b'batch_size = 1', 'batch_size must be at least 2'),
        (b'loss_weights = 3', 'loss_weights must be a table, got 3'),
        (b'loss = "paper"\n[loss_weights]\nstlye = 1', r"unknown keys \['stlye'\]; known are"),
        (b'loss = "paper"\n[loss_weights]\nssim = "on"', 'loss_weights.ssim must be a float'),
        (b'loss = "paper"\n[loss_weights]\nssim = -1', "weight 'ssim' must be finite and not neg"),
        (b'[loss_weights]\nssim = 1', "are those of loss = 'paper'"),
        (b'vgg16 = "vgg16.pth"', "are those of loss = 'paper'"),
        (b'width = ', 'is not valid TOML'),
        (b'width = 1\nwidth = 2', 'is not valid TOML'),
        (b'\xff\xfe', 'is not valid TOML'),
    ],
)
def test_wrong_recipes_are_refused(tmp_path, content, sentence):
    path = tmp_path / 'mine.toml'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read_recipe(path)


@pytest.mark.parametrize('name', ['no-such-recipe', '', 'Default'])
def test_unknown_recipe_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"recipe must be one of \[.*'default'.*\] or the path"):
        read_recipe(name)


# The loop

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


SCRIPT = """
import sys
import torch
from csr_astro.cli import main
torch.set_num_threads(1)
sys.exit(main(['train', 'recipe.toml', '-o', 'run', '--device', 'cpu', *sys.argv[1:]]))
"""


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


PAPER = replace(
    read_recipe('paper'), width=0.125, n_cutouts=8, batch_size=4, validate_every=4, n_validation=4
)


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


# Simulation


def radial_spectrum(field):
    """Wavenumbers (cycles per pixel) and mean power in rings, away from the corners."""
    power = np.abs(np.fft.fft2(field)) ** 2
    k = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in field.shape), indexing='ij'))
    edges = np.geomspace(0.03, 0.48, 20)
    ring = np.digitize(k, edges)
    rings = range(1, len(edges))
    return (
        np.array([np.exp(np.log(k[ring == i]).mean()) for i in rings]),
        np.array([power[ring == i].mean() for i in rings]),
    )


@pytest.mark.parametrize('slope', [-4, -3, -2, -1, 0, 1])
@pytest.mark.parametrize('shape', [(256, 256), (256, 181)])
def test_power_law_field_has_its_slope(slope, shape):
    fields = [power_law_field(shape, slope, seed) for seed in range(4)]
    spectra = [radial_spectrum(field) for field in fields]
    power = np.mean([power for _, power in spectra], axis=0)
    fitted = np.polyfit(np.log(spectra[0][0]), np.log(power), 1)[0]
    assert fitted == pytest.approx(slope, abs=0.1)


FIELDS = {
    'power law': lambda rng: power_law_field((64, 80), -3, rng),
    'lognormal': lambda rng: lognormal_field((64, 80), -3, 1.0, rng),
    'filaments': lambda rng: filament_field((64, 80), -3, 2, rng),
}


@pytest.mark.parametrize('kind', FIELDS)
def test_fields_have_mean_zero_and_unit_scatter(kind):
    field = FIELDS[kind](1)
    assert field.shape == (64, 80)
    assert_allclose([field.mean(), field.std()], [0, 1], atol=1e-12)


@pytest.mark.parametrize('make', [*FIELDS.values(), lambda rng: diffuse_field((64, 80), rng)])
def test_fields_depend_on_the_seed_only(make):
    assert_array_equal(make(1), make(np.random.default_rng(1)))
    assert not np.array_equal(make(1), make(2))


def test_lognormal_field_is_skewed_as_its_contrast_says():
    def skewness(contrast):
        fields = [lognormal_field((128, 128), -1, contrast, seed) for seed in range(8)]
        return np.mean([(field**3).mean() for field in fields])

    for contrast in (0.3, 0.6):
        variance = np.exp(contrast**2)
        expected = (variance + 2) * np.sqrt(variance - 1)
        assert skewness(contrast) == pytest.approx(expected, rel=0.1)


def test_diffuse_fields_are_finite():
    for seed in range(20):
        field = diffuse_field((64, 64), seed)
        assert field.dtype == np.float32
        assert np.isfinite(field).all()
        assert field.std() > 0


@pytest.mark.parametrize('fwhm', [2.0, 5.5])
@pytest.mark.parametrize('beta', [1.5, 4])
def test_moffat_profile_has_its_width(fwhm, beta):
    profile = moffat_profile(fwhm, beta)
    angles = np.linspace(0, 2 * np.pi, 9)
    half = profile(fwhm / 2 * np.cos(angles), fwhm / 2 * np.sin(angles))
    assert_allclose(half, 0.5 * profile(0, 0), rtol=1e-12)
    # Far out it falls as r^(-2 beta).
    assert profile(2e6, 0) / profile(1e6, 0) == pytest.approx(4**-beta, rel=1e-6)


@pytest.mark.parametrize('offset', [(0, 0), (0.4, -0.3), (-3.25, 1.5)])
@pytest.mark.parametrize('angle', [0, 1.0])
def test_stamp_has_unit_sum_and_its_centroid(offset, angle):
    stamp = psf_stamp(moffat_profile(4, 4.5), 61, offset=offset, angle=angle, elongation=1.2)
    assert stamp.shape == (61, 61)
    assert stamp.sum() == pytest.approx(1, abs=1e-12)
    y, x = np.array(ndimage.center_of_mass(stamp)) - 30
    assert_allclose([x, y], offset, atol=1e-2)


@pytest.mark.parametrize('angle', [0, 0.6, -1.2])
def test_stamp_is_stretched_along_its_angle(angle):
    def gaussian(dx, dy):
        return np.exp(-(dx**2 + dy**2) / (2 * 3**2))

    stamp = psf_stamp(gaussian, 61, angle=angle, elongation=1.5)
    y, x = np.indices(stamp.shape) - 30
    xx, xy, yy = ((stamp * a * b).sum() for a, b in ((x, x), (x, y), (y, y)))
    assert 0.5 * np.arctan2(2 * xy, xx - yy) == pytest.approx(angle, abs=1e-3)
    small, large = np.sqrt(np.linalg.eigvalsh([[xx, xy], [xy, yy]]))
    assert large / small == pytest.approx(1.5, rel=0.01)


@pytest.fixture(scope='module')
def psf_image():
    """A PSF without symmetry."""
    y, x = np.indices((41, 41)) - 20
    return np.exp(-((x - 0.7 * y) ** 2 + y**2) / 60) + 0.3 * np.exp(-((x - 3) ** 2 + y**2) / 8)


def test_image_profile_reproduces_its_image(psf_image):
    y, x = np.indices(psf_image.shape) - 20
    core = np.hypot(x, y) <= 16
    profile = image_profile(psf_image)
    assert_allclose(profile(x[core], y[core]), psf_image[core], atol=1e-12)


def test_image_profile_scales_offsets(psf_image):
    """An image of 1.2" pixels on a map of 3.2" pixels: its pixel 8 is the map's pixel 3."""
    profile = image_profile(psf_image, scale=1.2 / 3.2)
    dx, dy = np.array([3, 0]), np.array([0, -1.5])
    assert_allclose(profile(dx, dy), [psf_image[20, 28], psf_image[16, 20]], atol=1e-12)


@pytest.mark.parametrize('wing', [2.5, 3.5])
def test_image_profile_continues_as_a_power_law(psf_image, wing):
    profile = image_profile(psf_image, wing=wing)
    y, x = np.indices(psf_image.shape) - 20
    mean = psf_image[np.abs(np.hypot(x, y) - 19) < 1].mean()
    dx, dy = np.array([19, 0, 38]), np.array([0, -38, 0])
    assert_allclose(profile(dx, dy), mean * np.array([1, 2**-wing, 2**-wing]), rtol=1e-12)


def test_image_profile_renders_like_its_image():
    """A PSF that was rendered, read as an image and rendered again, is only a little wider."""
    image = psf_stamp(moffat_profile(6, 2.5), 61)
    again = psf_stamp(image_profile(image), 61)
    assert abs(again - image).max() < 0.03 * image.max()
