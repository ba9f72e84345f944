"""Conversion of images of any kind to `Image`.

An `Image` is a two-dimensional array with mask, error, unit and WCS. The array is
not copied, so a memory-mapped map stays on disk until its pixels are read.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import (
    InverseVariance,
    NDData,
    StdDevUncertainty,
    VarianceUncertainty,
)
from astropy.utils.exceptions import AstropyUserWarning
from astropy.utils.masked import Masked
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import proj_plane_pixel_scales
from astropy.wcs.wcsapi import BaseHighLevelWCS

from csr_astro.utils.warnings import ignored, one_at_a_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

    from csr_astro.typing import ImageLike, PathLike, QuantityLike, WcsLike

__all__ = ['Image', 'find_image_hdu', 'open_fits', 'parse_image', 'read_image', 'shape_text']


_ACCEPTED = 'an NDData, CCDData, image HDU, HDUList, Quantity or array'
_ERROR_EXTENSIONS = ('error', 'stdev', 'err', 'uncert')


@dataclass(frozen=True, eq=False)
class Image:
    """Map with mask, error, unit and WCS.

    Attributes
    ----------
    data : (ny, nx) `~numpy.ndarray`
        Pixel values, as given: any real dtype and byte order, possibly read-only.
    mask : (ny, nx) `~numpy.ndarray` of bool or None
        True for pixels that the user declared invalid.
    error : (ny, nx) `~numpy.ndarray` or None
        1-sigma error in the unit of the data.
    unit : `~astropy.units.UnitBase` or None
        Unit of the data.
    wcs : WCS or None
        Celestial world coordinate system.
    as_quantity : bool
        Whether the input was a `~astropy.units.Quantity`, and output maps are too;
        they are plain arrays for NDData and HDUs.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from csr_astro.images import parse_image
    >>> image = parse_image(np.ones((20, 30), dtype='>f4') * u.Jy)
    >>> print(image.shape, image.unit, image.dtype)
    (20, 30) Jy float32
    """

    data: np.ndarray
    mask: np.ndarray | None = None
    error: np.ndarray | None = None
    unit: u.UnitBase | None = None
    wcs: Any = None
    as_quantity: bool = False

    def __repr__(self) -> str:
        parts = [name for name in ('mask', 'error', 'wcs') if getattr(self, name) is not None]
        having = f', with {", ".join(parts)}' if parts else ''
        return f'<Image: {shape_text(self)}{having}>'

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the map, (ny, nx)."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        """Floating-point type of results: that of the data, float64 for integers."""
        kind = self.data.dtype
        return kind.newbyteorder('=') if kind.kind == 'f' else np.dtype(float)

    @property
    def pixel_scale(self) -> float | None:
        """Pixel scale in arcsec (geometric mean of the axes), or None without a WCS."""
        if self.wcs is None:
            return None
        if isinstance(self.wcs, WCS):
            # A degenerate WCS gives a scale that is not finite, which is checked when it is used.
            with np.errstate(over='ignore', invalid='ignore'):
                scales = proj_plane_pixel_scales(self.wcs) * u.deg
                return float(np.sqrt(np.prod(scales.to_value(u.arcsec))))
        # Other implementations of the shared WCS interface: measure the central pixel.
        y, x = ((n - 1) / 2 for n in self.shape)
        corner = self.wcs.pixel_to_world([x, x + 1, x], [y, y, y + 1])
        steps = corner[0].separation(corner[1:]).to_value(u.arcsec)
        return float(np.sqrt(np.prod(steps)))

    def valid(self, window: tuple[slice, ...]) -> np.ndarray:
        """Find the pixels of a window that are finite and not masked.

        Parameters
        ----------
        window : tuple of slice, or of array of int
            Rows and columns.
        """
        valid = np.isfinite(self.data[window])
        if self.data.dtype.itemsize > np.dtype(float).itemsize:
            # Computations are in double precision, which has a smaller range.
            valid &= np.abs(self.data[window]) <= np.finfo(float).max
        if self.mask is not None:
            valid &= ~self.mask[window]
        return valid

    def with_unit(self, values: np.ndarray) -> np.ndarray:
        """Convert values to a `~astropy.units.Quantity` if the map has a unit.

        Parameters
        ----------
        values : `~numpy.ndarray`
            Numbers in the unit of the map.
        """
        return values if self.unit is None else u.Quantity(values, self.unit, copy=False)

    def like_input(self, values: np.ndarray) -> np.ndarray:
        """Convert values to a `~astropy.units.Quantity` if the map was one.

        Parameters
        ----------
        values : `~numpy.ndarray`
            Numbers in the unit of the map.
        """
        return self.with_unit(values) if self.as_quantity else values


def _two_dimensional(array, name):
    """Drop leading axes of length 1, which radio maps have; refuse other shapes."""
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2:
        raise ValueError(
            f'{name} must be two-dimensional (leading axes of length 1 are dropped), '
            f'got shape {array.shape}.'
        )
    if 0 in array.shape:
        raise ValueError(f'{name} is empty: its shape is {array.shape}.')
    return array


def _array(values, name):
    try:
        return np.asanyarray(values)
    except (TypeError, ValueError, OverflowError):
        # Rows differ in length or kind.
        raise ValueError(f'{name} must be a rectangle of numbers.') from None


def _real(array, name):
    array = _array(array, name)
    if array.dtype.kind not in 'iuf':
        raise TypeError(f'{name} must hold real numbers, got dtype {array.dtype}.')
    return _two_dimensional(array, name)


def _parse_unit(text):
    if not text or not str(text).strip():
        return None
    with one_at_a_time, ignored(u.UnitsWarning):
        unit = u.Unit(str(text).strip(), parse_strict='silent')
    if not isinstance(unit, u.UnitBase) or isinstance(unit, u.UnrecognizedUnit):
        warnings.warn(
            f'the unit {text!r} is not understood; the results carry no unit.',
            AstropyUserWarning,
            stacklevel=4,
        )
        return None
    return unit


def _header_wcs(header, hdus=None):
    """Return the celestial WCS of a header; ``hdus`` may hold distortion lookup tables."""
    try:
        with one_at_a_time, ignored(FITSFixedWarning):
            wcs = WCS(header, fobj=hdus)
    except (ValueError, TypeError, MemoryError, KeyError, OSError) as error:
        lines = [line for line in str(error).split('\n') if line.strip(' .')]
        reason = lines[-1].strip().rstrip('.:') if lines else type(error).__name__
        raise ValueError(
            f'the WCS of the header is not understood ({reason}); correct it, or give the data '
            'without it.'
        ) from None
    return _celestial(wcs)


def _celestial(wcs):
    """Return the celestial part of a WCS, or None if it has none."""
    if isinstance(wcs, WCS):
        with one_at_a_time:
            return wcs.celestial if wcs.has_celestial else None
    if wcs is not None and not isinstance(wcs, BaseHighLevelWCS):
        raise TypeError(f'wcs must be a world coordinate system, got {type(wcs).__name__}.')
    if wcs is not None and not _is_celestial(wcs.low_level_wcs):
        return None
    return wcs


def _is_celestial(wcs):
    """Return whether both axes of an image are on the sky; those of a slit are not."""
    physical = [str(axis) for axis in wcs.world_axis_physical_types]
    return len(physical) == 2 and all(axis.startswith('pos.') for axis in physical)


def _standard_deviation(uncertainty, unit):
    """Convert an NDData uncertainty to a 1-sigma error."""
    if uncertainty is None:
        return None
    known = (StdDevUncertainty, VarianceUncertainty, InverseVariance)
    if not isinstance(uncertainty, known):
        raise TypeError(
            'uncertainty must be a StdDevUncertainty, VarianceUncertainty or InverseVariance, '
            f'got {type(uncertainty).__name__}; for others give error= explicitly.'
        )
    with np.errstate(divide='ignore', invalid='ignore'):
        sigma = uncertainty.represent_as(StdDevUncertainty)
    values = sigma.array
    if sigma.unit is not None and unit is not None:
        values = u.Quantity(values, sigma.unit, copy=False).to_value(unit)
    return np.asarray(values)


#: Names of the extension of the map, in order of preference.
IMAGE_NAMES = ('image', 'sci', 'data')


def find_image_hdu(hdus: fits.HDUList, name: str | int | None = None) -> int:
    """Find the image among the extensions of a FITS file.

    Parameters
    ----------
    hdus : `~astropy.io.fits.HDUList`
        An open file.
    name : str or int, optional
        Name or number of the extension. By default the one called ``image``
        (Herschel archive files), ``SCI`` or ``DATA``, else the first
        two-dimensional image.

    Returns
    -------
    index : int

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> from csr_astro.images import find_image_hdu
    >>> image = fits.ImageHDU(np.zeros((9, 9)), name='image')
    >>> find_image_hdu(fits.HDUList([fits.PrimaryHDU(), image]))
    1
    """
    if name is not None:
        try:
            index = hdus.index_of(name)
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
    images = [
        i
        for i, hdu in enumerate(hdus)
        if hdu.is_image and sum(n > 1 for n in hdu.shape) == 2 and len(hdu.shape) >= 2
    ]
    for wanted in IMAGE_NAMES:
        for i in images:
            if hdus[i].name.lower() == wanted:
                return i
    if not images:
        raise ValueError('the file holds no two-dimensional image.')
    return images[0]


def parse_image(
    data: ImageLike,
    *,
    mask: ArrayLike | None = None,
    error: QuantityLike | None = None,
    wcs: WcsLike | None = None,
) -> Image:
    """Convert an image of any accepted kind to an `Image`.

    Parameters
    ----------
    data : NDData, CCDData, image HDU, HDUList, Quantity, masked array or array
        The map. In an HDUList, `find_image_hdu` finds the image, and an extension
        ``error``, ``stDev``, ``err`` or ``uncert`` (same ``EXTVER``) is its error.
    mask : (ny, nx) array-like of bool, optional
        True for invalid pixels, in addition to the mask of ``data``.
    error : (ny, nx) array-like or Quantity, or scalar, optional
        1-sigma error; replaces the uncertainty of ``data``.
    wcs : optional
        World coordinate system; replaces that of ``data``.

    Returns
    -------
    image : `Image`

    Raises
    ------
    TypeError
        If ``data`` is not of an accepted kind, does not hold real numbers, or has a
        logarithmic unit.
    ValueError
        If shapes or units do not match.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from csr_astro.images import parse_image
    >>> image = parse_image(CCDData(np.ones((20, 30)), unit='Jy/pix'))
    >>> print(image.unit, image.mask, image.pixel_scale)
    Jy / pix None None
    """
    values: Any
    unit = own_mask = own_error = own_wcs = None
    as_quantity = isinstance(data, u.Quantity) or getattr(data, 'as_quantity', False)
    if isinstance(data, Image):
        values, unit, own_mask = data.data, data.unit, data.mask
        own_error, own_wcs = data.error, data.wcs
    elif isinstance(data, fits.HDUList):
        index = find_image_hdu(data)
        hdu = data[index]
        values, unit = hdu.data, _parse_unit(hdu.header.get('BUNIT'))
        own_wcs = _header_wcs(hdu.header, data) if wcs is None else None
        own_error = _error_extension(data, index)
    elif isinstance(data, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU):
        if data.data is None:
            raise ValueError('the HDU holds no image; the image may be in another extension.')
        values, unit = data.data, _parse_unit(data.header.get('BUNIT'))
        own_wcs = _header_wcs(data.header) if wcs is None else None
    elif isinstance(data, NDData):
        values, unit, own_mask, own_wcs = data.data, data.unit, data.mask, data.wcs
        own_error = _standard_deviation(data.uncertainty, unit) if error is None else None
    elif isinstance(data, Masked):
        values, own_mask = data.unmasked, data.mask
        if isinstance(values, u.Quantity):
            values, unit = values.value, values.unit
    elif isinstance(data, u.Quantity):
        values, unit = data.value, data.unit
    elif isinstance(data, np.ma.MaskedArray):
        values, own_mask = data.data, np.ma.getmaskarray(data)
    elif isinstance(data, np.ndarray | list | tuple):
        values = data
    else:
        raise TypeError(f'data must be {_ACCEPTED}, got {type(data).__name__}.')

    values = _real(values, 'data')
    if isinstance(unit, u.FunctionUnitBase):
        raise TypeError(
            f'data are in {unit}, which is logarithmic, so that sums mean nothing; give them in a '
            'linear unit.'
        )
    masks = [
        _like(m, values, 'mask', bool) for m in (mask, own_mask) if m is not None and m is not False
    ]
    combined = np.logical_or.reduce(masks) if masks else None
    if error is None:
        error = own_error
    elif isinstance(error, NDData) or hasattr(error, 'uncertainty_type'):
        error = _standard_deviation(getattr(error, 'uncertainty', error), unit)
    if error is not None:
        if isinstance(error, u.Quantity):
            try:
                error = error.to_value(u.dimensionless_unscaled if unit is None else unit)
            except u.UnitConversionError:
                raise ValueError(
                    f'error has unit {error.unit}, which does not fit the unit of data ({unit}).'
                ) from None
        error = _like(error, values, 'error')
    wcs = _celestial(own_wcs if wcs is None else wcs)
    return Image(values, combined, error, unit, wcs, as_quantity)


def _like(array, data, name, dtype=None):
    """Check ``array`` against the shape of ``data``, and broadcast a scalar."""
    array = np.asarray(_array(array, name))
    kinds, content = ('biu', 'booleans') if dtype is bool else ('iuf', 'real numbers')
    if array.dtype.kind not in kinds:
        raise TypeError(f'{name} must hold {content}, got dtype {array.dtype}.')
    array = array if dtype is None else array.astype(dtype, copy=False)
    if array.ndim == 0:
        return np.broadcast_to(array, data.shape)
    array = _two_dimensional(array, name)
    if array.shape != data.shape:
        raise ValueError(f'{name} has shape {array.shape}, data has {data.shape}.')
    return array


def _error_extension(hdus, index):
    """Return the error extension of an image, with its unit; None if there is none."""
    image = hdus[index]
    after = [*hdus[index + 1 :], *hdus[:index]]
    for hdu in after:
        if not hdu.is_image or hdu.name.lower() not in _ERROR_EXTENSIONS:
            continue
        # Files of several exposures have an error extension for each.
        versions = {each.header['EXTVER'] for each in (image, hdu) if 'EXTVER' in each.header}
        if len(versions) < 2 and _lengths(hdu) == _lengths(image):
            return _in_unit_of(image, hdu)
    return None


def _lengths(hdu):
    """Return the lengths of the axes of an image, without leading axes of length 1."""
    lengths = list(hdu.shape)
    while len(lengths) > 2 and lengths[0] == 1:
        del lengths[0]
    return lengths


def _in_unit_of(image, hdu):
    """Return the data of an extension, with their unit if it differs from the image's."""
    texts = [each.header.get('BUNIT') for each in (image, hdu)]
    if None in texts or texts[0] == texts[1]:
        return hdu.data
    unit, own = map(_parse_unit, texts)
    # A unit that is not understood is None; a warning was issued.
    return hdu.data if unit is None or own is None else u.Quantity(hdu.data, own, copy=False)


@contextmanager
def open_fits(path: PathLike) -> Iterator[fits.HDUList]:
    """Open a FITS file, with one-sentence errors that name the file.

    Parameters
    ----------
    path : path-like
        FITS file; memory-mapped where its format allows it.

    Yields
    ------
    hdus : `~astropy.io.fits.HDUList`

    Raises
    ------
    ValueError
        If the file does not exist, is not a FITS file or is truncated, or the block
        raises a ValueError.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from csr_astro.images import open_fits
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / 'map.fits'
    ...     _ = path.write_text('no map')
    ...     try:
    ...         with open_fits(path) as hdus:
    ...             print(len(hdus))
    ...     except ValueError as error:
    ...         print('is not a readable FITS file' in str(error))
    True
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f'no such file: {str(path)!r}.')
    try:
        with fits.open(path) as hdus:
            yield hdus
    except ValueError as error:
        raise ValueError(f'{str(path)!r}: {error}') from None
    except (OSError, BufferError) as error:
        reason = str(error).split(',')[0].rstrip('.')
        raise ValueError(f'{str(path)!r} is not a readable FITS file: {reason}.') from None
    except TypeError as error:
        # numpy's error for a memory map that extends beyond the end of a file.
        if 'buffer' not in str(error):
            raise
        raise ValueError(f'{str(path)!r} is not a readable FITS file: it is truncated.') from None


def read_image(path: PathLike, hdu: str | int | None = None) -> tuple[Image, fits.Header]:
    """Read the image of a FITS file, with its error extension if any.

    Parameters
    ----------
    path : path-like
        FITS file; memory-mapped where its format allows it.
    hdu : str or int, optional
        Extension, see `find_image_hdu`.

    Returns
    -------
    image : `Image`
    header : `~astropy.io.fits.Header`
        Header of the image, and entries of the primary header that it lacks.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> from csr_astro.images import read_image
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / 'map.fits'
    ...     fits.writeto(path, np.zeros((20, 30)), fits.Header({'BUNIT': 'MJy/sr'}))
    ...     image, header = read_image(path)
    >>> print(image.shape, image.unit, header['BUNIT'])
    (20, 30) MJy / sr MJy/sr
    """
    with open_fits(path) as hdus:
        index = find_image_hdu(hdus, hdu)
        found = hdus[index]
        image = parse_image(
            found,
            error=_error_extension(hdus, index),
            wcs=_header_wcs(found.header, hdus),
        )
        header = hdus[0].header.copy()
        header.update(found.header)
        # The arrays keep the memory map alive after the file is closed.
        return image, header


def shape_text(image: Image) -> str:
    """Describe the shape and unit of a map, for ``__repr__``.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.

    Returns
    -------
    text : str
        Shape in pixels, and unit.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from csr_astro.images import parse_image, shape_text
    >>> shape_text(parse_image(np.zeros((20, 30)) * u.Jy))
    '20 x 30 map in Jy'
    """
    ny, nx = image.shape
    return f'{ny} x {nx} map' + ('' if image.unit is None else f' in {image.unit}')
