"""What does every table of ours say about how it was made?"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ['fits_meta', 'versions']

# A keyword of more than eight letters leaves no room for a hash.
_FITS_NAMES = {
    'csr_astro': 'csrastro',
    'photutils': 'photutil',
    'weights_sha256': 'sha256',
    'instrument': 'instrume',
    'orientations': 'orient',
    'centroid_func': 'centroid',
    'mask_radius': 'maskrad',
}


def versions() -> dict[str, str]:
    """Versions of what a result depends on, for the ``meta`` of tables."""
    return {
        name: version(name) for name in ('csr_astro', 'astropy', 'photutils', 'numpy', 'torch')
    }


def fits_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a FITS header can hold of the ``meta`` of a table: names of eight letters, plain text.

    Parameters
    ----------
    meta : dict
        Of a table of ours; what is not one value is left out.

    Returns
    -------
    meta : dict

    Examples
    --------
    >>> from csr_astro.tables import fits_meta
    >>> fits_meta({'weights_sha256': '0f', 'weights': 'größer', 'mask_radius': 'by SNR'})
    {'sha256': '0f', 'weights': 'gr??er', 'maskrad': 'by SNR'}
    """
    return {
        _FITS_NAMES.get(name, name): printable(value)
        for name, value in meta.items()
        if np.isscalar(value)
    }


def printable(value: Any) -> Any:
    """What a FITS header can hold of a text; other values as they are.

    Parameters
    ----------
    value : object
        Paths may have letters, and printed arrays ends of lines, that it cannot hold.
    """
    if not isinstance(value, str):
        return value
    return ' '.join(value.encode('ascii', 'replace').decode().split())
