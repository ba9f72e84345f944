"""Evaluation of predictions: errors, fluxes, structure, standard stars, reports."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        'accuracy',
        'baselines',
        'discs',
        'figures',
        'flux_recovery',
        'gaussian',
        'injected',
        'measured_fluxes',
        'pixel_pdf',
        'positions',
        'power_spectrum',
        'report',
        'report_sections',
        'simulations',
        'source_strips',
        'standard_stars',
        'statistics',
        'windows',
    ],
)
