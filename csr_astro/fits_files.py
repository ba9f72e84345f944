"""Reading of FITS files: the map among the extensions, and what the others say about its pixels.

The names that archives and programs use are in ``data/file_conventions.toml``.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS, FITSFixedWarning

from csr_astro.conventions import ERRORS, MASKS, UTYPES, file_conventions, matches, meaning
from csr_astro.units import parse_unit
from csr_astro.utils.data import read_data
from csr_astro.utils.files import open_fits, split_extension
from csr_astro.utils.warnings import ignored, one_at_a_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from astropy.io import fits

    from csr_astro.typing import PathLike

__all__ = [
    'FitsParts',
    'find_image_hdu',
    'header_wcs',
    'read_error_file',
    'read_mask_file',
    'read_parts',
    'take_plane',
]

#: Extension of the pixels that an earlier removal filled.
INPAINTED = 'CSR_MASK'
_IN_WORDS = {
    'error': 'standard deviation',
    'variance': 'variance',
    'inverse_variance': 'inverse variance',
    'mask': 'not 0 is bad',
    'quality': 'quality bits',
    'weight': '0 is not observed',
    'coverage': '0 is not observed',
}


@dataclass(frozen=True, eq=False)
class FitsParts:
    """Map of a FITS file, with what the other extensions say about its pixels.

    Attributes
    ----------
    data : (ny, nx) `~numpy.ndarray`
        Pixel values.
    header : `~astropy.io.fits.Header`
        Header of the image, and entries of the primary header that it lacks.
    unit : `~astropy.units.UnitBase` or None
        Unit of the map.
    error : (ny, nx) `~numpy.ndarray` or None
        1-sigma error in the unit of the map.
    mask : (ny, nx) `~numpy.ndarray` of bool or None
        True for pixels that masks, data quality, weight or coverage call bad.
    inpainted : (ny, nx) `~numpy.ndarray` of bool or None
        True for pixels that an earlier removal filled.
    wcs : WCS or None
        Celestial world coordinate system.
    meta : dict
        The extensions that were used, in words: ``image_hdu``, ``error_hdu``, ``mask_hdu``.
    """

    data: np.ndarray
    header: fits.Header
    unit: u.UnitBase | None = None
    error: np.ndarray | None = None
    mask: np.ndarray | None = None
    inpainted: np.ndarray | None = None
    wcs: Any = None
    meta: dict = field(default_factory=dict)


def header_wcs(header: fits.Header, hdus: fits.HDUList | None = None) -> WCS | None:
    """Return the celestial WCS of a header, or None if it has none.

    Parameters
    ----------
    header : `~astropy.io.fits.Header`
        Header of an image.
    hdus : `~astropy.io.fits.HDUList`, optional
        The file, which may hold distortion lookup tables.
    """
    try:
        with one_at_a_time, ignored(FITSFixedWarning):
            wcs = WCS(header, fobj=hdus)
            return wcs.celestial if wcs.has_celestial else None
    except (ValueError, TypeError, MemoryError, KeyError, OSError, AttributeError) as error:
        lines = [line for line in str(error).split('\n') if line.strip(' .')]
        reason = lines[-1].strip().rstrip('.:') if lines else type(error).__name__
        raise ValueError(
            f'the WCS of the header is not understood ({reason}); correct it, or give the data '
            'without it.'
        ) from None


# -------------------------------------------------------------------------------------- the image


def _squeezed(array):
    """Drop leading axes of length 1."""
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    return array


def _lengths(hdu):
    """Return the lengths of the axes of an image, without leading axes of length 1."""
    lengths = list(hdu.shape)
    while len(lengths) > 2 and lengths[0] == 1:
        del lengths[0]
    return lengths


def _index(hdus, name):
    """Return the number of an extension that the user named."""
    key, _, version = str(name).partition(',')
    try:
        index = hdus.index_of((key, int(version)) if version.strip().isdigit() else name)
    except KeyError:
        # The name may be a number given as text.
        index = int(name) if str(name).removeprefix('-').isdecimal() else None
    try:
        found = hdus[index]
    except (KeyError, IndexError, TypeError):
        names = [hdu.name or str(i) for i, hdu in enumerate(hdus)]
        raise ValueError(f'there is no extension {name!r}; there are {names}.') from None
    if not found.is_image or not found.shape:
        raise ValueError(f'the extension {name!r} holds no image.')
    return index % len(hdus)


def find_image_hdu(
    hdus: fits.HDUList, name: str | int | None = None, *, plane: int | Sequence[int] | None = None
) -> int:
    """Find the image among the extensions of a FITS file.

    Parameters
    ----------
    hdus : `~astropy.io.fits.HDUList`
        An open file.
    name : str or int, optional
        Name, name and version such as ``'SCI,2'``, or number of the extension. By default the one
        that the convention of the file calls the image (``data/file_conventions.toml``), such as
        ``image`` or ``SCI``, else the first two-dimensional image that is not known to be
        something else.
    plane : int or sequence of int, optional
        Plane of a cube, see `take_plane`: the image must be a cube.

    Returns
    -------
    index : int

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> from csr_astro.images import find_image_hdu
    >>> image = fits.ImageHDU(np.zeros((9, 9)), name='signal')
    >>> coverage = fits.ImageHDU(np.ones((9, 9)), name='coverage')
    >>> find_image_hdu(fits.HDUList([fits.PrimaryHDU(), coverage, image]))
    2
    """
    if name is not None:
        return _index(hdus, name)
    conventions = file_conventions(hdus)
    filled = [i for i, hdu in enumerate(hdus) if hdu.is_image and len(hdu.shape) >= 2]
    flat = [i for i in filled if sum(n > 1 for n in hdus[i].shape) == 2]
    cubes = [i for i in filled if sum(n > 1 for n in hdus[i].shape) > 2]
    images = flat if plane is None else cubes
    if not images:
        _refuse(hdus, cubes, plane)
    roles = {i: meaning(hdus[i], conventions)[0] for i in images}
    for convention in conventions:
        for pattern in convention.get('image', ()):
            for i in images:
                if roles[i] == 'image' and matches(pattern, _own_name(hdus[i], convention)):
                    _warn_of_others(hdus, i, images, pattern, convention)
                    return i
    for wanted in ('', 'other'):
        for i in images:
            if roles[i] == wanted and hdus[i].name.lower() != INPAINTED.lower():
                return i
    if len(images) == 1:
        return images[0]
    names = [hdus[i].name for i in images]
    raise ValueError(f'none of the extensions {names} is known to be the image; name it by hdu=.')


def _warn_of_others(hdus, index, images, pattern, convention):
    """Warn that a file holds other images of the same kind, such as those of other detectors."""
    others = [i for i in images if matches(pattern, _own_name(hdus[i], convention))]
    if len(others) > 1:
        warnings.warn(
            f'the file holds {len(others)} images, the extensions {", ".join(map(str, others))}; '
            f'{index} is used: hdu= (--hdu) chooses another.',
            AstropyUserWarning,
            stacklevel=6,
        )


def _own_name(hdu, convention):
    return hdu.header.get(convention.get('keyword', 'none'), hdu.name)


def _refuse(hdus, cubes, plane):
    if plane is None and cubes:
        cube = hdus[cubes[0]]
        raise ValueError(
            f'the file holds no two-dimensional image; the extension {cube.name or cubes[0]!r} is '
            f'a cube of shape {cube.shape}: choose one of its planes by plane=.'
        )
    kind = 'two-dimensional image' if plane is None else 'cube of which a plane could be taken'
    raise ValueError(f'the file holds no {kind}.')


# ----------------------------------------------------------------------------------------- planes


def take_plane(array: np.ndarray, plane: int | Sequence[int] | None, name: str) -> np.ndarray:
    """Take one plane of a cube.

    Parameters
    ----------
    array : (..., ny, nx) `~numpy.ndarray`
        Cube. Leading axes of length 1 do not count.
    plane : int or sequence of int or None
        Number of the plane, zero-based, or one number for each leading axis; None takes the
        array as it is.
    name : str
        Name of the array, for an error.

    Returns
    -------
    plane : `~numpy.ndarray`

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.fits_files import take_plane
    >>> take_plane(np.arange(24).reshape(1, 2, 3, 4), 1, 'data')[0]
    array([12, 13, 14, 15])
    """
    if plane is None:
        return array
    array = _squeezed(array)
    try:
        numbers = tuple(int(each) for each in np.atleast_1d(plane))
    except (TypeError, ValueError):
        numbers = ()
    planes = array.shape[:-2]
    if array.ndim < 3 or len(numbers) != len(planes):
        raise ValueError(
            f'plane must be one number for each leading axis of {name}, which has shape '
            f'{array.shape}; got {plane!r}.'
        )
    for number, n in zip(numbers, planes, strict=True):
        if not -n <= number < n:
            raise ValueError(f'{name} has no plane {number}; its planes are 0 to {n - 1}.')
    return array[numbers]


# ---------------------------------------------------------------------------------------- reading


def read_parts(
    hdus: fits.HDUList,
    *,
    hdu: str | int | None = None,
    error_hdu: str | int | None = None,
    mask_hdu: str | int | None = None,
    ignore_errors: bool = False,
    plane: int | Sequence[int] | None = None,
    unit: str | u.UnitBase | None = None,
    with_wcs: bool = True,
) -> FitsParts:
    """Read the map of an open FITS file, and what the other extensions say about its pixels.

    Parameters
    ----------
    hdus : `~astropy.io.fits.HDUList`
        An open file.
    hdu, plane
        The image, see `find_image_hdu` and `take_plane`.
    error_hdu : str or int, optional
        Extension of the error; by default the one that the convention of the file tells.
    mask_hdu : str or int, optional
        Extension of the mask, data quality, weight or coverage; by default all that the
        convention of the file tells; ``'none'`` for none.
    ignore_errors : bool, optional
        Whether to leave the errors of the file unread.
    unit : str or `~astropy.units.UnitBase`, optional
        Unit of the map, instead of that of the header.
    with_wcs : bool, optional
        Whether to read the WCS.

    Returns
    -------
    parts : `FitsParts`
    """
    index = find_image_hdu(hdus, hdu, plane=plane)
    image = hdus[index]
    header = hdus[0].header.copy()
    header.update(image.header)
    if plane is not None:
        _add_beam(header, hdus, plane)
    conventions = file_conventions(hdus, index)
    unit = parse_unit(unit if unit is not None else _unit_text(image, hdus[0]))
    found = {'image_hdu': _describe(hdus, index)}
    if plane is not None:
        found['plane'] = ','.join(str(each) for each in np.atleast_1d(plane))
    error = mask = None
    if not ignore_errors:
        error = _read_error(hdus, index, error_hdu, conventions, unit, found)
    if mask_hdu is None or str(mask_hdu).lower() != 'none':
        mask = _read_masks(hdus, index, mask_hdu, conventions, found)
    if plane is not None:
        error, mask = (_plane_of(each, image, plane) for each in (error, mask))
    return FitsParts(
        take_plane(_squeezed(image.data), plane, 'the cube'),
        header,
        unit,
        error,
        mask,
        _inpainted(hdus, image),
        header_wcs(image.header, hdus) if with_wcs else None,
        found,
    )


def _plane_of(array, image, plane):
    """Return the plane of an array that has as many as the image."""
    if array is None or array.ndim < len(_lengths(image)):
        return array
    return take_plane(array, plane, 'the cube')


def _unit_text(image, primary):
    """Return the unit of an image: that of its header, HIPE's, or that of the primary header."""
    for header in (image.header, primary.header):
        for key in ('BUNIT', 'QTTY____'):
            if str(header.get(key, '')).strip():
                return header[key]
    return None


def _describe(hdus, index, role=''):
    name = hdus[index].name or str(index)
    words = f', {_IN_WORDS[role]}' if role in _IN_WORDS else ''
    return f'{name} ({index}{words})'


def _belongs(hdu, image, plane_shape=None):
    """Return whether an extension has the shape and the version of an image."""
    if not hdu.is_image or hdu is image or not hdu.shape:
        return False
    # Files of several exposures have an extension of each kind for each.
    versions = {each.header['EXTVER'] for each in (image, hdu) if 'EXTVER' in each.header}
    lengths = _lengths(image)
    return len(versions) < 2 and _lengths(hdu) in (lengths, plane_shape or lengths)


def _candidates(hdus, index, conventions, roles):
    """Yield the extensions of some roles that belong to an image: number, role, convention."""
    image = hdus[index]
    _, captured, _ = meaning(image, conventions)
    for i in [*range(index + 1, len(hdus)), *range(index)]:
        if not _belongs(hdus[i], image, _lengths(image)[-2:]):
            continue
        role, own, convention = meaning(hdus[i], conventions)
        if role in roles and own in ('', captured):
            yield i, role, convention


def _read_error(hdus, index, name, conventions, unit, found):
    """Return the error of an image in its unit; None if there is none."""
    if name is not None:
        chosen = _index(hdus, name)
        role = meaning(hdus[chosen], conventions)[0]
        if _lengths(hdus[chosen]) not in (_lengths(hdus[index]), _lengths(hdus[index])[-2:]):
            raise ValueError(
                f'the extension {name!r} has shape {hdus[chosen].shape}, the image has '
                f'{hdus[index].shape}.'
            )
    else:
        known = [each[:2] for each in _candidates(hdus, index, conventions, ERRORS)]
        if not known:
            return None
        # Standard deviations first, in the order of the file.
        chosen, role = min(known, key=lambda each: list(ERRORS).index(each[1]))
    hdu = hdus[chosen]
    kind = _error_kind(hdu, role)
    if kind is None:
        warnings.warn(
            f'the extension {hdu.name} holds uncertainties of the type {hdu.header["UTYPE"]!r}, '
            'which is not understood; it is left out.',
            AstropyUserWarning,
            stacklevel=5,
        )
        return None
    values, kind = _standard_deviation(hdu, kind, unit)
    found['error_hdu'] = _describe(hdus, chosen, kind)
    return values


def _error_kind(hdu, role):
    """Return the kind of an error by its UTYPE, else by its role."""
    kind = str(hdu.header.get('UTYPE', '')).strip().lower()
    if kind and kind != 'none':
        return UTYPES.get(kind)
    return role if role in ERRORS else 'error'


def _standard_deviation(hdu, kind, unit):
    """Return the 1-sigma errors that an extension holds, in the unit of the map, and their kind."""
    own, factor = parse_unit(hdu.header.get('BUNIT', hdu.header.get('QTTY____'))), 1.0
    if own is not None and unit is not None and own != unit:
        kinds = [kind, *(each for each in ERRORS if each != kind)]
        kinds = [each for each in kinds if own.is_equivalent(unit ** ERRORS[each])]
        if not kinds:
            raise ValueError(
                f'the errors of the extension {hdu.name or "PRIMARY"} are in {own}, which does '
                f'not fit the unit of the map ({unit}); choose another extension, or give '
                'ignore_errors=True (--ignore-errors).'
            )
        kind = kinds[0]
        factor = own.to(unit ** ERRORS[kind])
    values = _squeezed(hdu.data)
    if kind != 'error':
        with np.errstate(divide='ignore', invalid='ignore'):
            values = np.sqrt(values) if kind == 'variance' else 1 / np.sqrt(values)
        factor = factor ** (1 / ERRORS[kind])
    return values if factor == 1 else values * factor, kind


def _read_masks(hdus, index, name, conventions, found):
    """Return True for the pixels that masks, quality, weight or coverage call bad."""
    if name is not None:
        chosen = _index(hdus, name)
        role, _, convention = meaning(hdus[chosen], conventions)
        planes = [(chosen, role if role in MASKS else 'mask', convention)]
    else:
        planes = list(_candidates(hdus, index, conventions, MASKS))
    bad, used = None, []
    for i, role, convention in planes:
        each = _bad_pixels(hdus[i], role, convention)
        if bad is not None and bad.ndim != each.ndim:
            each, bad = np.broadcast_arrays(each, bad)
        bad = each if bad is None else bad | each
        used.append(_describe(hdus, i, role))
    if used:
        found['mask_hdu'] = '; '.join(used)
    return None if bad is None or not bad.any() else bad


def _bad_pixels(hdu, role, convention):
    """Return the bad pixels by one extension."""
    values = _squeezed(hdu.data)
    if role in ('weight', 'coverage'):
        with np.errstate(invalid='ignore'):
            return ~(values > 0)
    if role == 'quality':
        bits = _bad_bits(hdu.header, convention)
        if bits is not None and values.dtype.kind in 'iub':
            return (values.astype(np.int64, copy=False) & bits) != 0
    return values != 0


def _bad_bits(header, convention):
    """Return the sum of the bits that mean bad, None if all do."""
    bits = [
        1 << int(header[f'MP_{plane}'])
        for plane in convention.get('bad_planes', ())
        if f'MP_{plane}' in header
    ]
    if bits:
        return sum(bits)
    bad = convention.get('bad', 'any')
    if isinstance(bad, str):
        bad = header.get(bad)
    return None if bad is None else int(bad)


def _inpainted(hdus, image):
    """Return the pixels that an earlier removal filled, None if there are none."""
    if INPAINTED not in hdus:
        return None
    earlier = hdus[INPAINTED]
    if not earlier.is_image or list(earlier.shape) != _lengths(image)[-2:]:
        return None
    filled = earlier.data != 0
    return filled if filled.any() else None


def _add_beam(header, hdus, plane):
    """Take the beam of a plane from the table that CASA writes for cubes."""
    if 'BEAMS' not in hdus:
        return
    row = min(int(np.atleast_1d(plane)[-1]), len(hdus['BEAMS'].data) - 1)
    for key in ('BMAJ', 'BMIN'):
        column = hdus['BEAMS'].columns[key]
        angle = u.Quantity(hdus['BEAMS'].data[key][row], column.unit or 'arcsec')
        header[key] = angle.to_value(u.deg)


# ------------------------------------------------------------------------------------ other files


def _first_of(hdus, roles, name=None):
    """Return the image that was named, else the first with one of some roles, else the first."""
    conventions = file_conventions(hdus)
    images = [i for i, hdu in enumerate(hdus) if hdu.is_image and len(hdu.shape) >= 2]
    if not images:
        raise ValueError('the file holds no image.')
    images = images if name is None else [_index(hdus, name)]
    meanings = [(i, *meaning(hdus[i], conventions)) for i in images]
    for i, role, _, convention in meanings:
        if role in roles:
            return i, role, convention
    return images[0], '', meanings[0][3]


def _role_by_name(path):
    """Return the kind of error that the name of a file tells, such as ``map.var.fits``."""
    words = set(re.split(r'[^a-z]+', path.name.lower()))
    generic = read_data('file_conventions.toml')['generic']
    for role in ERRORS:
        if words & set(generic[role]):
            return role
    if words & {*generic['weight'], *generic['coverage']}:
        raise ValueError(
            f'{path.name!r} holds weights, by its name, and not errors; errors are standard '
            'deviations, variances or inverse variances: name its extension ERR, VAR or IVAR.'
        )
    return ''


def read_error_file(path: PathLike, unit: u.UnitBase | None) -> np.ndarray:
    """Read the error of a map from a file of its own.

    Parameters
    ----------
    path : path-like
        FITS file: standard deviations, unless an extension name, ``UTYPE``, ``PRODTYPE``, a word of
        the file's name or the unit says variance or inverse variance.
    unit : `~astropy.units.UnitBase` or None
        Unit of the map, to which the errors are converted.

    Returns
    -------
    error : `~numpy.ndarray`
    """
    path, name = split_extension(path)
    with open_fits(path) as hdus:
        index, role, _ = _first_of(hdus, ERRORS, name)
        role = role or _role_by_name(path)
        return _standard_deviation(hdus[index], _error_kind(hdus[index], role) or 'error', unit)[0]


def read_mask_file(path: PathLike) -> np.ndarray:
    """Read the mask of a map from a file of its own.

    Parameters
    ----------
    path : path-like
        FITS file: not 0 where a pixel is bad, unless an extension name or ``PRODTYPE`` says
        data quality, weight or coverage.

    Returns
    -------
    mask : `~numpy.ndarray` of bool
        True for bad pixels.
    """
    path, name = split_extension(path)
    with open_fits(path) as hdus:
        index, role, convention = _first_of(hdus, MASKS, name)
        return _bad_pixels(hdus[index], role or 'mask', convention)
