"""Remove compact sources from astronomical maps, and measure them.

The public names are loaded when they are first used, so that ``import
csr_astro`` does not wait for PyTorch.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version('csr_astro')
except PackageNotFoundError:
    __version__ = 'unknown'

_MODULES = {
    'InpaintedAperturePhotometry': 'csr_astro.photometry',
    'NeuralBackground': 'csr_astro.background',
    'NeuralBackgroundEstimator': 'csr_astro.background',
    'get_instrument': 'csr_astro.instruments',
    'list_instruments': 'csr_astro.instruments',
    'list_weights': 'csr_astro.nn.weights',
    'load_model': 'csr_astro.nn.weights',
}

__all__ = sorted(_MODULES)  # noqa: PLE0605


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return [*__all__, '__version__']
