"""How good are the predictions, by numbers anybody can repeat?"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        'accuracy',
        'baselines',
        'figures',
        'flux_recovery',
        'pixel_pdf',
        'positions',
        'power_spectrum',
        'report',
        'report_sections',
        'source_strips',
        'standard_stars',
        'statistics',
    ],
)
