"""Fits of sources on predicted backgrounds: the PSF, groups, shapes, generalised least squares."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        'calibration', 'gaussian', 'group_fit', 'grouping', 'outliers', 'psf_errors', 'rounds',
        'scene', 'tiles', 'window', 'wings',
    ],
    submod_attrs={
        'epsf': ['build_psf'],
        'fit': ['FitOptions', 'SourceFits', 'fit_sources'],
        'psf': ['PixelPSF', 'pixel_psf'],
    },
)
