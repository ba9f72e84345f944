"""Conventions of FITS files: what programs and archives call image, error, mask and weight.

The names are in ``data/file_conventions.toml``; a new convention is a new entry there.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from csr_astro.utils.data import read_data

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = ['ERRORS', 'MASKS', 'ROLES', 'UTYPES', 'file_conventions', 'matches', 'meaning']

#: Kinds of errors, with the power of the unit of the map in which they are.
ERRORS = {'error': 1, 'variance': 2, 'inverse_variance': -2}
#: Kinds of statements about which pixels are good.
MASKS = ('mask', 'quality', 'weight', 'coverage')
#: Meanings of extensions.
ROLES = ('image', *ERRORS, *MASKS, 'other')
#: Types of uncertainties of astropy, as CCDData writes them.
UTYPES = {
    'std': 'error',
    'stddevuncertainty': 'error',
    'var': 'variance',
    'varianceuncertainty': 'variance',
    'ivar': 'inverse_variance',
    'inversevariance': 'inverse_variance',
}


@cache
def _pattern(text):
    """Return the regular expression of a name, in which ``*`` stands for any text."""
    return re.compile('(.*)'.join(re.escape(part) for part in text.lower().split('*')))


def matches(pattern: str, value: object) -> re.Match | None:
    """Return the match of a name with a pattern of the conventions.

    Parameters
    ----------
    pattern : str
        Name, without regard to case; ``*`` stands for any text.
    value : object
        Name of an extension, or value of a keyword.
    """
    return _pattern(pattern).fullmatch(str(value).strip().lower())


def file_conventions(hdus: fits.HDUList, index: int = 0) -> list[dict[str, Any]]:
    """Return the conventions of a file: its own if it is known, and the generic one.

    Parameters
    ----------
    hdus : `~astropy.io.fits.HDUList`
        An open file.
    index : int, optional
        Number of the image, if it is known.

    Examples
    --------
    >>> from astropy.io import fits
    >>> from csr_astro.conventions import file_conventions
    >>> primary = fits.PrimaryHDU(header=fits.Header({'TELESCOP': 'JWST'}))
    >>> file_conventions(fits.HDUList([primary]))[0]['error']
    ['err']
    """
    tables = read_data('file_conventions.toml')
    names = {hdu.name.lower() for hdu in hdus}
    headers = (hdus[index].header, hdus[0].header)

    def fits_to(rule):
        extensions = rule.get('extensions')
        if extensions is not None:
            return all(any(matches(each, name) for name in names) for each in extensions)
        return all(
            any(key in header and matches(pattern, header[key]) for header in headers)
            for key, pattern in rule.items()
        )

    own = [
        table for table in tables.values() if any(map(fits_to, table.get('recognise', ())))
    ]
    return [*own[:1], tables['generic']]


def meaning(
    hdu: fits.ImageHDU, conventions: list[dict[str, Any]]
) -> tuple[str, str, dict[str, Any]]:
    """Return the role of an extension, the text that ``*`` stands for, and its convention.

    Parameters
    ----------
    hdu : image HDU
        Extension of a file.
    conventions : list of dict
        Conventions of the file, from `file_conventions`.

    Returns
    -------
    role : str
        One of `ROLES`, empty if the name is not known.
    captured : str
        Text that ``*`` stands for in the name.
    convention : dict
        Convention that knows the name, else the last one.

    Examples
    --------
    >>> from astropy.io import fits
    >>> from csr_astro.conventions import file_conventions, meaning
    >>> hdu = fits.ImageHDU(name='stDev')
    >>> meaning(hdu, file_conventions(fits.HDUList([fits.PrimaryHDU(), hdu])))[0]
    'error'
    """
    for convention in conventions:
        names = [hdu.name] if hdu.name != 'PRIMARY' else []
        if convention.get('keyword', 'none') in hdu.header:
            names.insert(0, hdu.header[convention['keyword']])
        for name in names:
            for role in ROLES:
                for pattern in convention.get(role, ()):
                    if found := matches(pattern, name):
                        return role, ''.join(found.groups()), convention
    return '', '', conventions[-1]
