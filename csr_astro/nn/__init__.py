"""Neural network: partial convolutions, U-Net and weights.

The subpackage maps stacks of cutouts and their validity masks to stacks of
predictions. It does not use FITS, WCS, units or catalogues.
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
