"""The network: partial convolutions, the U-Net built from them, and its weights.

Nothing in this subpackage knows about FITS, WCS, units or catalogues: it maps
stacks of cutouts and their validity masks to stacks of predictions.
"""

from csr_astro.lazy import load_lazily

__all__ = [
    'inpainter',
    'partial_conv',
    'unet',
    'weights',
]

__getattr__, __dir__ = load_lazily(__name__, __all__)
