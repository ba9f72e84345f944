"""Simulated maps: diffuse emission, point spread functions, injected sources."""

from csr_astro.lazy import load_lazily

__all__ = [
    'dataset',
    'diffuse',
    'field',
    'inject',
    'psf',
    'simulate',
]

__getattr__, __dir__ = load_lazily(__name__, __all__)
