"""Simulated maps: diffuse emission, point spread functions, injected sources."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        'dataset',
        'diffuse',
        'field',
        'inject',
        'joined',
        'levels',
        'pacs',
        'paper',
        'patterns',
        'profiles',
        'psf',
        'published',
        'result',
        'simulate',
        'tiles',
        'units',
        'write',
    ],
)
