"""Recipes."""

from dataclasses import replace

import pytest

from csr_astro.training.losses import (
    PAPER_WEIGHTS,
    LossWeights,
)
from csr_astro.training.recipe import Recipe, list_recipes, read_recipe


def test_bundled_recipes_are_read():
    assert list_recipes() == ['default', 'fine-tune', 'paper', 'paper-half', 'push-pull', 'tiny']
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
    assert (recipe.data, recipe.gradient_clip, recipe.average) == ('simulations', 0, 0)
    # Table 2, training and validation: all bands of the scan maps.
    assert recipe.n_simulated == 72_570 + 72_345 + 64_390
    assert recipe.n_validation == 14_755 + 17_095 + 14_430
    # After each pass over the data.
    assert recipe.validate_every == 0


def test_half_of_the_paper_differs_in_width_time_and_schedule_only():
    paper, half = read_recipe('paper'), read_recipe('paper-half')
    same = {'normalization', 'fill', 'data', 'loss', 'loss_weights', 'optimizer', 'gradient_clip',
            'weight_decay', 'average'}  # fmt: skip
    assert {name: getattr(half, name) for name in same} == {
        name: getattr(paper, name) for name in same
    }
    assert half.width == 0.5


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
        (b'fill = "zero"', r"'kriging', 'kriging\+spline'\], got 'zero'"),
        (b'loss = "scaled"', r"loss = 'scaled' needs fill = 'kriging\+spline', got 'kriging'"),
        (b'loss = "l2"', r"loss must be one of \['scaled', 'relative', 'paper'\], got 'l2'"),
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
