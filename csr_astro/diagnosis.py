"""Probable causes of removals and measurements that did nothing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.coordinates import FK4, Galactic, SkyCoord

from csr_astro.cutouts import MAX_RADIUS
from csr_astro.flags import BITS, NOT_INPAINTED, decode_flags
from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from astropy.table import QTable

    from csr_astro.images import Image

__all__ = ['probable_cause', 'require_success']


def require_success(
    image: Image, table: QTable, done: str, failed: int = NOT_INPAINTED
) -> None:
    """Raise an error that says why, if no source of a table was removed or measured.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    table : `~astropy.table.QTable`
        Table of a removal, or of the photometry.
    done : str
        Participle for the sources, such as ``'removed'``.
    failed : int, optional
        Sum of the bits of the flags of a source that failed.

    Raises
    ------
    ValueError
        If the table has sources, and all failed.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> from csr_astro.diagnosis import require_success
    >>> result = NeuralBackgroundEstimator(fwhm=3.3).estimate(np.ones((90, 150)), [(20, 140)])
    >>> require_success(result.image, result.sources, 'removed')
    Traceback (most recent call last):
        ...
    ValueError: 0 of 1 sources removed (1 off_map): x and y seem to be swapped.
    """
    flags = np.asarray(table['flags'])
    if not len(table) or not (flags & failed > 0).all():
        return
    names = Counter(name for each in decode_flags(flags & failed) for name in each)
    counts = ', '.join(f'{number} {name}' for name, number in names.most_common())
    cause = probable_cause(image, table)
    end = '' if cause.endswith('?') else '.'
    raise ValueError(f'0 of {len(table)} sources {done} ({counts}): {cause}{end}')


def probable_cause(image: Image, table: QTable) -> str:
    """Return the probable cause of a failure of all sources, in words.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    table : `~astropy.table.QTable`
        Table of a removal, or of the photometry.
    """
    flags = np.asarray(table['flags'])
    for name, cause in _CAUSES.items():
        # The cause of most failures.
        if 2 * np.count_nonzero(flags & BITS[name]) > len(flags):
            return cause(image, table)
    return 'see the flags in the documentation'


def _positions(table):
    # The names of the columns depend on the version of photutils.
    return (np.asarray(u.Quantity(table[name]).value, float) for name in table.colnames[1:3])


def _most_on_map(image, x, y):
    ny, nx = image.shape
    with np.errstate(invalid='ignore'):
        on_map = (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
    return 2 * on_map.sum() > len(x)


def _off_map(image, table):
    x, y = _positions(table)
    if _most_on_map(image, y, x):
        return 'x and y seem to be swapped'
    ny, nx = image.shape
    where = (
        f'x is {np.nanmin(x):.0f} to {np.nanmax(x):.0f}, y is {np.nanmin(y):.0f} to '
        f'{np.nanmax(y):.0f}, and the map has {nx} x {ny} pixels'
    )
    if image.wcs is None or 'sky_center' not in table.colnames:
        return f'all positions are off the map: {where}'
    sky = table['sky_center'].icrs
    for words, other in _interpretations(sky):
        with ignored(RuntimeWarning, UserWarning):
            if _most_on_map(image, *image.wcs.world_to_pixel(other)):
                return words
    center = image.wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2)
    nearest = np.nanmin(sky.separation(center).deg)
    return (
        f'all positions are off the map, the nearest {nearest:.3g} deg from its centre; is it '
        f'another field, or another frame or epoch ({where})?'
    )


def _interpretations(sky):
    """Yield other meanings of coordinates that were taken to be right ascension and declination."""
    ra, dec = sky.ra.deg, sky.dec.deg
    if (np.abs(ra) <= 90).all():
        yield 'ra and dec seem to be swapped', SkyCoord(dec % 360, ra, unit='deg')
    yield 'ra seems to be in hours', SkyCoord(15 * ra % 360, dec, unit='deg')
    yield 'the positions seem to be galactic', SkyCoord(ra, dec, unit='deg', frame=Galactic).icrs
    yield (
        'the positions seem to be of the epoch B1950',
        SkyCoord(ra, dec, unit='deg', frame=FK4(equinox='B1950')).icrs,
    )


def _nowhere(image, table):
    if 'sky_center' in table.colnames and image.wcs is not None:
        return (
            'the positions are not finite, or on the other side of the sky, outside the projection '
            'of the map: is it another field or frame?'
        )
    words = 'the positions are not finite'
    if image.wcs is None:
        return words
    return f'{words}, or outside the projection of the map: is it another field or frame?'


def _without_background(image, table):
    del table
    if image.valid((slice(None), slice(None))).any():
        return 'no pixel around the sources is valid'
    by = image.meta.get('mask_hdu')
    masked = f' by {by}; choose another by mask_hdu= (--mask-hdu)' if by else ''
    return f'no pixel of the map is valid: all are NaN or masked{masked}'


def _too_large(image, table):
    del image, table
    return (
        f'masks have radii of at most {MAX_RADIUS:g} pixels; give a smaller mask_radius '
        '(--mask-radius) or beam'
    )


def _removed_before(image, table):
    del image, table
    return 'the map is without these sources already (CSR_MASK); measure them on the original map'


_CAUSES = {
    'off_map': _off_map,
    'invalid_position': _nowhere,
    'mask_too_large': _too_large,
    'no_background': _without_background,
    'already_removed': _removed_before,
}
