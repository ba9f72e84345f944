"""The network: partial convolutions, the U-Net built from them, and its weights.

Nothing in this subpackage knows about FITS, WCS, units or catalogues: it maps
stacks of cutouts and their validity masks to stacks of predictions.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        'inpainter',
        'partial_conv',
        'unet',
        'weights',
    ],
)
