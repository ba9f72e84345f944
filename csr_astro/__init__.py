"""Remove compact sources from astronomical maps, and measure them."""

from importlib.metadata import PackageNotFoundError, version

import lazy_loader

try:
    __version__ = version('csr_astro')
except PackageNotFoundError:
    __version__ = 'unknown'

# The paper of the method and this software; CITATION.cff says the same.
__citation__ = __bibtex__ = rf"""@article{{Madarasz2025,
    author = {{Madar{{\'a}}sz, M. and others}},
    title = {{A deep neural network approach to compact source removal}},
    journal = {{Astronomy \& Astrophysics}},
    year = {{2025}},
    volume = {{696}},
    eid = {{A37}},
    doi = {{10.1051/0004-6361/202453262}},
}}

@software{{csr_astro,
    author = {{{{csr_astro developers}}}},
    title = {{csr_astro}},
    version = {{{__version__}}},
    license = {{BSD-3-Clause}},
}}
"""

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
    return [*_lazy_names(), '__bibtex__', '__citation__', '__version__']
