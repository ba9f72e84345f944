"""How good are the predictions, by numbers anybody can repeat?"""

from csr_astro.lazy import load_lazily

__all__ = [
    'accuracy',
    'baselines',
    'figures',
    'flux_recovery',
    'kriging',
    'pixel_pdf',
    'positions',
    'power_spectrum',
    'report',
    'report_sections',
    'source_strips',
    'standard_stars',
    'statistics',
]

__getattr__, __dir__ = load_lazily(__name__, __all__)
