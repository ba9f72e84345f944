"""Training: cutouts drawn on the fly, losses, and a loop that can be killed and resumed."""

from csr_astro.lazy import load_lazily

__all__ = [
    'callbacks',
    'data',
    'features',
    'loop',
    'losses',
    'module',
    'recipe',
    'widening',
]

__getattr__, __dir__ = load_lazily(__name__, __all__)
