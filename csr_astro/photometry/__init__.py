"""Photometry of sources on predicted backgrounds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        'apertures', 'candidates', 'common', 'finder', 'matched_filter', 'psf', 'psf_columns',
        'rows', 'subtraction',
    ],
    submod_attrs={
        'apertures': ['InpaintedAperturePhotometry'],
        'finder': ['NeuralSourceFinder'],
        'psf': ['InpaintedPSFPhotometry'],
        'subtraction': ['SourceSubtraction', 'subtract_sources'],
    },
)
