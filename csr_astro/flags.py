"""Flags of sources: bits, names and descriptions.

The documentation of the ``flags`` column is generated from ``FLAGS``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from astropy.table import Table
    from numpy.typing import ArrayLike

__all__ = [
    'BITS',
    'FLAGS',
    'NOT_INPAINTED',
    'NOT_MEASURED',
    'Flag',
    'count_sources',
    'decode_flags',
]


class Flag(NamedTuple):
    """Bit of the ``flags`` column, with its name and description.

    Examples
    --------
    >>> from csr_astro.flags import FLAGS
    >>> FLAGS[4].bit, FLAGS[4].name
    (16, 'edge')
    """

    bit: int
    name: str
    description: str


FLAGS = (
    Flag(1, 'invalid_position', 'the position is not finite; not measured'),
    Flag(2, 'off_map', 'the mask lies entirely outside the map; not measured'),
    Flag(4, 'no_background', 'no valid pixel in the window around the source; not measured'),
    Flag(8, 'mask_too_large', 'the mask is larger than the largest window; not measured'),
    Flag(16, 'edge', 'the mask extends beyond the edge of the map'),
    Flag(32, 'invalid_pixels', 'pixels in the mask are not finite or were masked by the user'),
    Flag(64, 'overlap', 'the mask overlaps that of another source'),
    Flag(128, 'few_valid', 'less than half of the 5-pixel rim around the mask is valid background'),
    Flag(256, 'no_snr', 'the SNR could not be measured; the smallest mask was used'),
    Flag(512, 'centroid_failed', 'no centroid was found inside the mask; the position was kept'),
    Flag(1024, 'aperture_invalid', 'an aperture contains pixels that are off the map or invalid'),
    Flag(
        2048,
        'aperture_exceeds_mask',
        'an aperture extends beyond the mask; only flux inside the mask counts',
    ),
    Flag(4096, 'error_unknown', 'the error could not be estimated, or the given one is invalid'),
    Flag(8192, 'no_correction', 'the mask is smaller than all radii of the enclosed-energy table'),
    Flag(16384, 'touching', 'the mask touches that of another source; their errors are correlated'),
    Flag(32768, 'saturated', 'the flat top of the source was left out of the fit'),
    Flag(65536, 'poor_fit', 'the source differs from the PSF: another width, or large residuals'),
    Flag(131072, 'exceeds_mask', 'emission that is not in the fit remains at the rim of the mask'),
    Flag(262144, 'not_fitted', 'too few valid pixels, or too little background; not measured'),
    Flag(524288, 'at_bound', 'the fitted position lies on a bound given by xy_bounds'),
    Flag(
        1048576,
        'already_removed',
        'the source lies on pixels that an earlier removal filled (CSR_MASK); not measured',
    ),
    Flag(2097152, 'outliers', 'single pixels that stand out near the source were left out'),
    Flag(
        4194304,
        'blended',
        'too close to another source to tell their fluxes apart; the sum of both is known',
    ),
)

#: Bit of each flag, by name.
BITS = {flag.name: flag.bit for flag in FLAGS}

# Sources with any of these flags keep their pixels; their measurements are NaN.
NOT_INPAINTED = sum(
    BITS[name] for name in ('invalid_position', 'off_map', 'no_background', 'mask_too_large')
)

#: Sources with any of these flags have no fluxes.
NOT_MEASURED = NOT_INPAINTED | BITS['already_removed'] | BITS['not_fitted']


def decode_flags(flags: ArrayLike) -> list:
    """Return the names of the flags that are set.

    Parameters
    ----------
    flags : int or array-like of int
        Values of the ``flags`` column.

    Returns
    -------
    names : list of str, or list of list of str
        One list for each value.

    Examples
    --------
    >>> from csr_astro.flags import decode_flags
    >>> decode_flags(80)
    ['edge', 'overlap']
    """
    values = np.asarray(flags)
    if values.ndim:
        return [decode_flags(value) for value in values]
    return [flag.name for flag in FLAGS if int(values) & flag.bit]


def count_sources(table: Table, done: str = '', failed: int = NOT_INPAINTED) -> str:
    """Describe how many sources of a table were measured.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Table with a column ``flags``.
    done : str, optional
        Participle for the sources, such as ``'removed'``.
    failed : int, optional
        Sum of the bits of the flags of a source that does not count.

    Examples
    --------
    >>> from astropy.table import Table
    >>> from csr_astro.flags import count_sources
    >>> count_sources(Table({'flags': [0, 16, 2]}), 'removed')
    '2 of 3 sources removed (1 could not be, see flags)'
    """
    n_bad = int(((table['flags'] & failed) > 0).sum())
    text = f'{len(table) - n_bad} of {len(table)} sources {done}'.rstrip()
    return f'{text} ({n_bad} could not be, see flags)' if n_bad else text
