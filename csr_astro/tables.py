"""What does every table of ours say about how it was made?"""

from importlib.metadata import version

import csr_astro

__all__ = ['versions']


def versions():
    """Versions of what a result depends on, for the ``meta`` of tables."""
    return {
        'csr_astro': csr_astro.__version__,
        **{name: version(name) for name in ('astropy', 'photutils', 'numpy', 'torch')},
    }
