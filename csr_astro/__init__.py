"""Remove compact sources from astronomical maps, and measure them.

The public names are loaded when they are first used, so that ``import
csr_astro`` does not wait for PyTorch.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from csr_astro.lazy import load_lazily

if TYPE_CHECKING:
    from csr_astro.background import NeuralBackground, NeuralBackgroundEstimator
    from csr_astro.instruments import get_instrument, list_instruments
    from csr_astro.nn.weights import list_weights, load_model
    from csr_astro.photometry import InpaintedAperturePhotometry

try:
    __version__ = version('csr_astro')
except PackageNotFoundError:
    __version__ = 'unknown'

__all__ = [
    'InpaintedAperturePhotometry',
    'NeuralBackground',
    'NeuralBackgroundEstimator',
    'get_instrument',
    'list_instruments',
    'list_weights',
    'load_model',
]

__getattr__, _names = load_lazily(
    __name__,
    [
        'batch',
        'errors',
        'evaluation',
        'flags',
        'images',
        'instruments',
        'kriging',
        'masking',
        'nn',
        'simulation',
        'sources',
        'training',
        'typing',
        'variogram',
    ],
    {
        'InpaintedAperturePhotometry': 'csr_astro.photometry',
        'NeuralBackground': 'csr_astro.background',
        'NeuralBackgroundEstimator': 'csr_astro.background',
        'get_instrument': 'csr_astro.instruments',
        'list_instruments': 'csr_astro.instruments',
        'list_weights': 'csr_astro.nn.weights',
        'load_model': 'csr_astro.nn.weights',
    },
)


def __dir__() -> list[str]:
    return [*_names(), '__version__']
