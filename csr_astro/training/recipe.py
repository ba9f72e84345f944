"""Recipes: the settings of a training, read from TOML files."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from csr_astro.nn.inpainter import FILLS, NORMALIZATIONS
from csr_astro.nn.weights import read_info
from csr_astro.training.losses import PAPER_WEIGHTS, LossWeights

if TYPE_CHECKING:
    from csr_astro.typing import PathLike

__all__ = ['Recipe', 'list_recipes', 'read_recipe']


_FOLDER = Path(__file__).parent / 'recipes'
_CHOICES = {
    'normalization': sorted(NORMALIZATIONS),
    'fill': list(FILLS),
    'loss': ['scaled', 'relative', 'paper'],
    'optimizer': ['adamw', 'adam'],
    'schedule': ['cosine', 'plateau'],
    'data': ['discs', 'simulations'],
}
# Smallest and largest values.
_RANGES = {
    'weight_decay': (0, 1),
    'warmup': (0, float('inf')),
    'others': (0, float('inf')),
    'real_fraction': (0, 1),
    'source_fraction': (0, 1),
    'gradient_clip': (0, float('inf')),
    'validate_every': (0, float('inf')),
    'seed': (0, float('inf')),
}
_POSITIVE = ('width', 'n_cutouts', 'learning_rate', 'n_validation', 'n_simulated')
# Keys whose defaults are those of the weights to start from.
_OF_WEIGHTS = ('width', 'normalization', 'fill')


@dataclass(frozen=True)
class Recipe:
    """Settings of a training.

    Attributes
    ----------
    width : float
        Width of the network; 1 is the paper's.
    normalization : {'local', 'minmax'}
        Normalisation of the cutouts.
    fill : {'none', 'push-pull', 'kriging', 'kriging+spline'}
        Fill that the network's output is added to.
    start : str
        Weights to start from: a bundled name or a file; random ones if empty. They decide the
        defaults of ``width``, ``normalization`` and ``fill`` in a recipe file. A ``width`` that
        is a whole multiple of theirs widens the network
        (`~csr_astro.training.widening.widen_network`).
    n_cutouts : int
        Number of cutouts in the whole training.
    batch_size : int
        Cutouts per step, on all devices together.
    loss : {'scaled', 'relative', 'paper'}
        `~csr_astro.training.losses.scaled_hole_loss` in units of the kriging's error, which needs
        ``fill='kriging+spline'``, `~csr_astro.training.losses.relative_hole_loss` or
        `~csr_astro.training.losses.paper_loss`.
    loss_weights : `~csr_astro.training.losses.LossWeights`
        Weights of the terms of the loss 'paper': a table in a recipe file. Terms left out keep
        the paper's weights, and 0 switches a term off.
    others : float
        Weight of the discs other than the central one, in the loss 'relative'.
    vgg16 : str
        File of weights for the style term's features, as for
        `~csr_astro.training.features.VGG16Features`; oriented filters if empty.
    optimizer : {'adamw', 'adam'}
        Adam with decoupled weight decay, or with weight decay in the gradient.
    learning_rate, weight_decay : float
        Learning rate and weight decay of the optimiser.
    schedule : {'cosine', 'plateau'}
        With 'cosine' the rate rises linearly over ``warmup`` and falls as a cosine to 1 % at
        the end. With 'plateau' it is halved when the validation loss has not fallen for more
        than five validations, without warm-up.
    warmup : int
        Cutouts over which the rate rises.
    gradient_clip : float
        Largest norm of the gradient; larger ones are scaled down to it. 0 leaves them as they are.
    average : float
        Decay per step of the exponential moving average of the weights, which is written; 0
        writes the weights themselves.
    data : {'discs', 'simulations'}
        Cutouts that the network learns from: with 'discs' they are drawn during the training
        (`~csr_astro.training.data.CutoutSampler`), with 'simulations' they are those of a dataset
        of simulated sources (`~csr_astro.training.simulated.simulate_cutouts`).
    n_simulated : int
        Number of cutouts that are simulated, with 'simulations' and no dataset given.
    real_fraction : float
        Fraction of cutouts from real maps; the others are synthetic. Cutouts of a dataset are
        taken as they are.
    source_fraction : float
        Fraction of discs that hold a source, except in a dataset.
    validate_every : int
        Number of cutouts between two validations and checkpoints. 0 validates after each pass
        over a dataset.
    n_validation : int
        Number of cutouts per validation.
    compile : bool
        Whether `torch.compile` compiles the network first, which needs a C++ compiler. On one
        CPU core at width 0.125 a step then took 0.095 instead of 0.155 s, after 100 s of
        compilation.
    seed : int
        Seed of everything random.

    Examples
    --------
    >>> from csr_astro.training.recipe import Recipe
    >>> Recipe(width=0.125, n_cutouts=20_000).batch_size
    32
    """

    width: float = 0.5
    normalization: str = 'local'
    fill: str = 'kriging'
    start: str = ''
    n_cutouts: int = 200_000
    batch_size: int = 32
    loss: str = 'relative'
    loss_weights: LossWeights = PAPER_WEIGHTS
    others: float = 0.25
    vgg16: str = ''
    optimizer: str = 'adamw'
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    schedule: str = 'cosine'
    warmup: int = 10_000
    gradient_clip: float = 1.0
    average: float = 0.999
    data: str = 'discs'
    n_simulated: int = 209_305
    real_fraction: float = 0.6
    source_fraction: float = 0.2
    validate_every: int = 6_400
    n_validation: int = 640
    compile: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        for key, known in _CHOICES.items():
            if getattr(self, key) not in known:
                raise ValueError(f'{key} must be one of {known}, got {getattr(self, key)!r}.')
        for key in _POSITIVE:
            if not getattr(self, key) > 0:
                raise ValueError(f'{key} must be positive, got {getattr(self, key)}.')
        for key, (low, high) in _RANGES.items():
            if not low <= getattr(self, key) <= high:
                raise ValueError(f'{key} must be in [{low}, {high}], got {getattr(self, key)}.')
        if not 0 <= self.average < 1:
            raise ValueError(f'average must be at least 0 and below 1, got {self.average}.')
        if self.batch_size < 2:
            raise ValueError('batch_size must be at least 2 for batch normalisation.')
        if not any(getattr(self.loss_weights, field.name) for field in fields(LossWeights)):
            raise ValueError('loss_weights must leave at least one term above 0.')
        if self.loss == 'scaled' and self.fill != 'kriging+spline':
            raise ValueError(f"loss = 'scaled' needs fill = 'kriging+spline', got {self.fill!r}.")
        if self.loss != 'paper' and (self.loss_weights != PAPER_WEIGHTS or self.vgg16):
            raise ValueError("loss_weights and vgg16 are those of loss = 'paper'.")


def list_recipes() -> list[str]:
    """Names of the bundled recipes.

    Examples
    --------
    >>> from csr_astro.training.recipe import list_recipes
    >>> 'fine-tune' in list_recipes()
    True
    """
    return sorted(path.stem for path in _FOLDER.glob('*.toml'))


def read_recipe(name_or_path: PathLike) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    name_or_path : str or path-like
        Name of a bundled recipe, or the path of a TOML file whose keys are
        attributes of `Recipe`; those left out keep their defaults.

    Returns
    -------
    recipe : `Recipe`

    Examples
    --------
    >>> from csr_astro.training.recipe import read_recipe
    >>> read_recipe('default').width
    0.25
    """
    path = Path(name_or_path)
    if str(name_or_path) in list_recipes():
        path = _FOLDER / f'{name_or_path}.toml'
    if not path.is_file():
        raise ValueError(
            f'recipe must be one of {list_recipes()} or the path of a TOML file, '
            f'got {str(name_or_path)!r}.'
        )
    try:
        with path.open('rb') as file:
            content = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'{str(path)!r} is not valid TOML: {error}.') from None
    try:
        return Recipe(**_checked(content))
    except ValueError as error:
        raise ValueError(f'{str(path)!r}: {error}') from None


def _checked(content):
    """Arguments of `Recipe` from the content of a file, their types checked."""
    _check_types(content, Recipe)
    if 'loss_weights' in content:
        weights = content['loss_weights']
        _check_types(weights, LossWeights, 'loss_weights.')
        content['loss_weights'] = LossWeights(**weights)
    if content.get('start'):
        info = read_info(content['start'])
        for key in _OF_WEIGHTS:
            content.setdefault(key, getattr(info, key))
    return content


def _check_types(content, cls, prefix=''):
    """Refuse unknown keys and values of another type, and convert whole numbers to floats."""
    known = [field.name for field in fields(cls)]
    if unknown := sorted(content.keys() - set(known)):
        raise ValueError(f'unknown keys {unknown}; known are {sorted(known)}.')
    for key, value in content.items():
        kind = type(getattr(cls, key))
        if kind is float and type(value) is int:
            content[key] = float(value)
        elif kind is LossWeights:
            if type(value) is not dict:
                raise ValueError(f'{prefix}{key} must be a table, got {value!r}.')
        elif type(value) is not kind:
            raise ValueError(f'{prefix}{key} must be a {kind.__name__}, got {value!r}.')
