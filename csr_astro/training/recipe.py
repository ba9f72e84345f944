"""What exactly does a training do? A recipe says."""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

__all__ = ['Recipe', 'list_recipes', 'read_recipe']

_FOLDER = Path(__file__).parent / 'recipes'


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training learns, apart from its maps.

    Attributes
    ----------
    width : float
        Width of the network; 1 is the paper's.
    normalization : {'local', 'minmax'}
        How cutouts are normalised.
    residual : bool
        Whether the network predicts the difference from a smooth fill.
    n_cutouts : int
        Number of cutouts in the whole training.
    batch_size : int
        Cutouts per step.
    learning_rate, weight_decay : float
        Of AdamW; the rate rises linearly over ``warmup`` and falls as a cosine
        to 1 % at the end.
    warmup : int
        Cutouts over which the rate rises.
    average : float
        Decay per step of the exponential moving average of the weights, which
        is what is kept.
    real_fraction : float
        Fraction of cutouts from real maps; the others are synthetic.
    source_fraction : float
        Fraction of discs that hold a source.
    validate_every : int
        Cutouts between two validations and checkpoints.
    n_validation : int
        Cutouts per validation.
    seed : int
        Seed of everything that is random.
    """

    width: float = 0.5
    normalization: str = 'local'
    residual: bool = True
    n_cutouts: int = 200_000
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: int = 10_000
    average: float = 0.999
    real_fraction: float = 0.6
    source_fraction: float = 0.35
    validate_every: int = 6_400
    n_validation: int = 640
    seed: int = 1


def list_recipes():
    """Names of the bundled recipes."""
    return sorted(path.stem for path in _FOLDER.glob('*.toml'))


def read_recipe(name_or_path):
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
    types = {field.name: field.type for field in fields(Recipe)}
    unknown = sorted(content.keys() - types.keys())
    if unknown:
        raise ValueError(f'{str(path)!r} has unknown keys {unknown}; known are {sorted(types)}.')
    for key, value in content.items():
        kind = type(getattr(Recipe, key))
        if kind is float and type(value) is int:
            content[key] = float(value)
        elif type(value) is not kind:
            raise ValueError(f'{str(path)!r}: {key} must be a {kind.__name__}, got {value!r}.')
    recipe = Recipe(**content)
    for key in ('width', 'n_cutouts', 'learning_rate', 'validate_every', 'n_validation'):
        if not getattr(recipe, key) > 0:
            raise ValueError(f'{str(path)!r}: {key} must be positive, got {getattr(recipe, key)}.')
    if recipe.batch_size < 2:
        raise ValueError(f'{str(path)!r}: batch_size must be at least 2 for batch normalisation.')
    return recipe
