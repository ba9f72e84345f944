"""Kriging: best linear prediction of a random field from the surrounding pixels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=['stationary', 'variogram'],
    submod_attrs={
        'blocks': ['block_window'],
        'fill': [
            'kriging_errors', 'kriging_fill', 'kriging_fills', 'spline_fill', 'spline_fills',
        ],
        'ordinary': ['Kriging'],
    },
)
