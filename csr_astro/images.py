"""Conversion of images of any kind to `Image`.

An `Image` is a two-dimensional array with mask, error, unit and WCS. The array is
not copied, so a memory-mapped map stays on disk until its pixels are read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import (
    Cutout2D,
    InverseVariance,
    NDData,
    StdDevUncertainty,
    VarianceUncertainty,
)
from astropy.utils.masked import Masked
from astropy.wcs import WCS
from astropy.wcs.wcsapi import BaseHighLevelWCS

from csr_astro.fits_files import (
    FitsParts,
    find_image_hdu,
    header_wcs,
    read_error_file,
    read_mask_file,
    read_parts,
    take_plane,
)
from csr_astro.units import parse_unit
from csr_astro.utils.files import open_fits, split_extension
from csr_astro.utils.pixels import pixel_scale, warn_of_sides
from csr_astro.utils.warnings import one_at_a_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from csr_astro.typing import ImageLike, PathLike, QuantityLike, WcsLike

__all__ = ['Image', 'find_image_hdu', 'open_fits', 'parse_image', 'read_image', 'shape_text']


_ACCEPTED = (
    'an NDData, CCDData, Cutout2D, image HDU, HDUList, Quantity, array or path of a FITS file'
)


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
    inpainted : (ny, nx) `~numpy.ndarray` of bool or None
        True for pixels that an earlier removal filled.
    header : mapping or None
        Header of the map, which may tell instrument, beam and frequency.
    meta : dict
        The extensions that were used, in words.

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
    inpainted: np.ndarray | None = None
    header: Mapping | None = None
    meta: dict = field(default_factory=dict)

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

    @cached_property
    def pixel_scale(self) -> float | None:
        """Pixel scale in arcsec (root of the area of a pixel), or None without a WCS."""
        return pixel_scale(self.wcs, self.shape)

    @property
    def pixel_area(self) -> u.Quantity | None:
        """Solid angle of a pixel, or None without a WCS."""
        return None if self.pixel_scale is None else (self.pixel_scale * u.arcsec) ** 2

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


def parse_image(
    data: ImageLike,
    *,
    mask: ArrayLike | PathLike | None = None,
    error: QuantityLike | PathLike | None = None,
    wcs: WcsLike | None = None,
    hdu: str | int | None = None,
    plane: int | Sequence[int] | None = None,
) -> Image:
    """Convert an image of any accepted kind to an `Image`.

    Parameters
    ----------
    data : path-like, NDData, CCDData, Cutout2D, image HDU, HDUList, Quantity or array
        The map. For files and HDULists see `read_image`. An HDU stands for itself: the other
        extensions of its file are not read.
    mask : (ny, nx) array-like of bool or path-like, optional
        True for invalid pixels, in addition to the mask of ``data``; or the FITS file of a
        mask, data quality, weight or coverage.
    error : (ny, nx) array-like or Quantity, scalar, or path-like, optional
        1-sigma error, or its FITS file; replaces the uncertainty of ``data``. Another unit
        than that of the data is converted.
    wcs : optional
        World coordinate system; replaces that of ``data``.
    hdu : str or int, optional
        Extension of the image in a file or HDUList.
    plane : int or sequence of int, optional
        Plane of a cube, zero-based, or one number for each leading axis.

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
    if hdu is not None and not isinstance(data, str | os.PathLike | fits.HDUList):
        raise TypeError(f'hdu is for files and HDULists, got {type(data).__name__}.')
    found = _parts(data, with_error=error is None, with_wcs=wcs is None, hdu=hdu, plane=plane)
    values = _real(found.data, 'data')
    unit = found.unit
    if isinstance(unit, u.FunctionUnitBase):
        raise TypeError(
            f'data are in {unit}, which is logarithmic, so that sums mean nothing; give them in a '
            'linear unit.'
        )
    if isinstance(mask, str | os.PathLike):
        mask = read_mask_file(mask)
    masks = [
        _like(m, values, 'mask', bool)
        for m in (mask, found.mask)
        if m is not None and m is not False
    ]
    image = replace(
        found,
        data=values,
        mask=np.logical_or.reduce(masks) if masks else None,
        error=_error(found.error if error is None else error, values, unit),
        wcs=_celestial(found.wcs if wcs is None else wcs),
    )
    if not isinstance(data, Image):
        warn_of_sides(image.wcs, image.shape)
    return image


def _parts(data, *, with_error, with_wcs, hdu=None, plane=None):
    """Return the parts of an image as they are, not yet checked."""
    as_quantity = isinstance(data, u.Quantity) or getattr(data, 'as_quantity', False)
    if isinstance(data, Image):
        return data if plane is None else _of_plane(data, plane)
    if isinstance(data, str | os.PathLike):
        data, named = split_extension(data)
        hdu = named if hdu is None else hdu
        with open_fits(data) as hdus:
            # The arrays keep the memory map alive after the file is closed.
            return _of_file(
                read_parts(
                    hdus, hdu=hdu, plane=plane, ignore_errors=not with_error, with_wcs=with_wcs
                )
            )
    if isinstance(data, fits.HDUList):
        return _of_file(
            read_parts(data, hdu=hdu, plane=plane, ignore_errors=not with_error, with_wcs=with_wcs)
        )
    if isinstance(data, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU):
        if data.data is None:
            raise ValueError('the HDU holds no image; the image may be in another extension.')
        unit = parse_unit(data.header.get('BUNIT', data.header.get('QTTY____')))
        found = Image(
            data.data,
            unit=unit,
            wcs=header_wcs(data.header) if with_wcs else None,
            header=data.header,
        )
    elif isinstance(data, NDData):
        found = Image(
            data.data,
            data.mask,
            _standard_deviation(data.uncertainty, data.unit) if with_error else None,
            data.unit,
            data.wcs,
            inpainted=_filled(data),
            header=data.meta if isinstance(data.meta, Mapping) else None,
        )
    elif isinstance(data, Cutout2D):
        return replace(
            _parts(data.data, with_error=with_error, with_wcs=with_wcs, plane=plane), wcs=data.wcs
        )
    elif isinstance(data, Masked):
        values, unit = data.unmasked, None
        if isinstance(values, u.Quantity):
            values, unit = values.value, values.unit
        found = Image(values, data.mask, unit=unit, as_quantity=as_quantity)
    elif isinstance(data, u.Quantity):
        # A projection or slice of spectral-cube has a WCS and a header.
        header = getattr(data, 'header', None)
        found = Image(
            data.value, unit=data.unit, as_quantity=True, wcs=getattr(data, 'wcs', None),
            header=header if isinstance(header, Mapping | fits.Header) else None,
        )  # fmt: skip
    elif isinstance(data, np.ma.MaskedArray):
        found = Image(data.data, np.ma.getmaskarray(data))
    elif isinstance(data, tuple) and len(data) == 2 and _is_wcs(data[1]):
        # As reproject takes it.
        header = None if isinstance(data[1], WCS | BaseHighLevelWCS) else data[1]
        found = _parts(data[0], with_error=with_error, with_wcs=False, plane=plane)
        wcs = header_wcs(header) if header is not None else data[1]
        return replace(found, wcs=wcs, header=header)
    elif isinstance(data, np.ndarray | list | tuple):
        found = Image(data)
    else:
        raise TypeError(f'data must be {_ACCEPTED}, got {type(data).__name__}.')
    return found if plane is None else _of_plane(found, plane)


def _is_wcs(value):
    return isinstance(value, WCS | BaseHighLevelWCS | fits.Header)


def _of_plane(image, plane):
    """Take one plane of all arrays of a cube."""
    axes = np.ndim(image.data)
    taken = {
        name: take_plane(np.asanyarray(array), plane, name)
        for name in ('data', 'mask', 'error')
        if (array := getattr(image, name)) is not None and np.ndim(array) == axes
    }
    return replace(image, **taken, meta=image.meta | {'plane': str(plane)})


def _of_file(parts: FitsParts) -> Image:
    return Image(
        parts.data,
        parts.mask,
        parts.error,
        parts.unit,
        parts.wcs,
        inpainted=parts.inpainted,
        header=parts.header,
        meta=parts.meta,
    )


def _filled(data):
    """Return the pixels that a removal filled, of the CCDData of its result."""
    flags = getattr(data, 'flags', None)
    if 'csrastro' not in data.meta or np.shape(flags) != data.data.shape:
        return None
    return np.asarray(flags) != 0


def _error(error, data, unit):
    """Return the 1-sigma error in the unit of the data."""
    if isinstance(error, str | os.PathLike):
        error = read_error_file(error, unit)
    elif isinstance(error, NDData) and error.uncertainty is None:
        error = error.data if error.unit is None else u.Quantity(error.data, error.unit)
    elif isinstance(error, NDData) or hasattr(error, 'uncertainty_type'):
        error = _standard_deviation(getattr(error, 'uncertainty', error), unit)
    if error is None:
        return None
    if isinstance(error, u.Quantity):
        try:
            error = error.to_value(u.dimensionless_unscaled if unit is None else unit)
        except u.UnitConversionError:
            raise ValueError(
                f'error has unit {error.unit}, which does not fit the unit of data ({unit}).'
            ) from None
    error = _like(error, data, 'error')
    # An error that is not positive is not known; most programs write 0 where there is no pixel.
    if error.size and not np.fmin.reduce(error[0] if error.strides == (0, 0) else error, None) > 0:
        return np.where(error > 0, error, np.nan)
    return error


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


def read_image(
    path: PathLike,
    hdu: str | int | None = None,
    *,
    error_hdu: str | int | None = None,
    mask_hdu: str | int | None = None,
    error: PathLike | None = None,
    mask: PathLike | None = None,
    ignore_errors: bool = False,
    plane: int | Sequence[int] | None = None,
    unit: str | u.UnitBase | None = None,
) -> tuple[Image, fits.Header]:
    """Read the image of a FITS file, and what its other extensions say about the pixels.

    The names of extensions have the meaning of ``data/file_conventions.toml``. The ``meta`` of
    the image says which were used.

    Parameters
    ----------
    path : path-like
        FITS file; memory-mapped where its format allows it.
    hdu : str or int, optional
        Extension of the image, see `find_image_hdu`.
    error_hdu : str or int, optional
        Extension of the error: standard deviation, variance or inverse variance by ``UTYPE``,
        its name or its unit. By default the one that the convention of the file tells.
    mask_hdu : str or int, optional
        Extension of the mask, data quality, weight or coverage; by default all that the
        convention of the file tells; ``'none'`` for none.
    error, mask : path-like, optional
        Files of the error and of the mask, if they are not in the same file.
    ignore_errors : bool, optional
        Whether to leave the errors of the file unread.
    plane : int or sequence of int, optional
        Plane of a cube, zero-based, or one number for each leading axis.
    unit : str or `~astropy.units.UnitBase`, optional
        Unit of the map, instead of that of the header.

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
    path, extension = split_extension(path)
    with open_fits(path) as hdus:
        parts = read_parts(
            hdus,
            hdu=extension if hdu is None else hdu,
            error_hdu=error_hdu,
            mask_hdu=mask_hdu,
            ignore_errors=ignore_errors or error is not None,
            plane=plane,
            unit=unit,
        )
        # The arrays keep the memory map alive after the file is closed.
        found = _of_file(parts)
        image = parse_image(found, error=error, mask=mask)
    named = {'error_hdu': error, 'mask_hdu': mask}
    added = {name: str(file) for name, file in named.items() if file is not None}
    return replace(image, meta=image.meta | added), parts.header


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
