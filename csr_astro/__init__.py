"""Remove compact sources from astronomical maps, and measure them."""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

try:
    __version__ = version('csr_astro')
except PackageNotFoundError:
    __version__ = 'unknown'

__all__ = [
    'InpaintedAperturePhotometry',
    'InpaintedPSFPhotometry',
    'NeuralBackground',
    'NeuralBackgroundEstimator',
    'NeuralSourceFinder',
    'get_instrument',
    'list_instruments',
    'list_weights',
    'load_model',
]

# Names and modules are listed in __init__.pyi and loaded at first use, so that `import csr_astro`
# does not load PyTorch.
__getattr__, _lazy_names, _ = lazy_loader.attach_stub(__name__, __file__)


def __dir__() -> list[str]:
    return [*_lazy_names(), '__version__']
