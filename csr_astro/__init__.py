"""Remove compact sources from astronomical maps, and measure them."""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

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

# Names and modules are those of __init__.pyi, loaded at first use: `import csr_astro` does not wait
# for PyTorch.
__getattr__, __dir__, _ = lazy_loader.attach_stub(__name__, __file__)
