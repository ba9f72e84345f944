"""Training: cutouts drawn on the fly, losses, and a loop that can be killed and resumed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        'callbacks',
        'data',
        'features',
        'loop',
        'losses',
        'module',
        'recipe',
        'simulated',
        'stored',
        'widening',
    ],
)
