"""Kriging: the best linear prediction of a random field from the pixels around."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=['ordinary', 'stationary', 'variogram'],
    submod_attrs={'ordinary': ['Kriging', 'block_window', 'kriging_fill', 'kriging_fills']},
)
