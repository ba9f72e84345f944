"""Source-free maps written as copies of the original FITS files."""

from __future__ import annotations

import math
import mmap
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from csr_astro.fits_files import find_image_hdu, take_plane
from csr_astro.flags import count_sources
from csr_astro.tables import printable
from csr_astro.utils.files import atomic_path, open_fits
from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from csr_astro.background import NeuralBackground
    from csr_astro.photometry.subtraction import SourceSubtraction
    from csr_astro.typing import PathLike, QuantityLike

__all__ = ['describe_reading', 'describe_removal', 'write_source_free']

# Keywords that describe the pixel values as stored.
_OF_THE_DATA = ('BSCALE', 'BZERO', 'BLANK', 'DATAMIN', 'DATAMAX', 'CHECKSUM', 'DATASUM')


def _quiet():
    """Ignore warnings about archive headers that break rules, which are fixed on writing."""
    return ignored(fits.verify.VerifyWarning, FITSFixedWarning)


def write_source_free(
    path: PathLike,
    template: PathLike,
    result: NeuralBackground | SourceSubtraction,
    *,
    hdu: str | int | None = None,
    plane: int | Sequence[int] | None = None,
    background: QuantityLike | None = None,
    history: Sequence[str] = (),
    errors: bool = True,
) -> None:
    """Write a source-free map as a copy of the original FITS file.

    All extensions and headers are kept. The image is replaced, and the
    extensions ``CSR_MASK`` (1 for inpainted pixels) and, with ``errors``,
    ``CSR_RMS`` (their 1-sigma error) are added. Values of an earlier removal
    are kept in the pixels that are not inpainted again. Where sources are subtracted,
    ``CSR_MASK`` is 2 in their masks, and ``CSR_RMS`` holds the error of their models, wings and
    all.

    Parameters
    ----------
    path : path-like
        File to write, replaced atomically.
    template : path-like
        FITS file of the original map.
    result : `~csr_astro.NeuralBackground` or `~csr_astro.photometry.subtraction.SourceSubtraction`
        Result to write.
    hdu : str or int, optional
        Extension of the image, see `~csr_astro.images.find_image_hdu`.
    plane : int or sequence of int, optional
        Plane of a cube that is replaced, see `~csr_astro.images.read_image`.
    background : (ny, nx) array or Quantity, optional
        Map to write instead of ``result.background``, such as a realization.
    history : sequence of str, optional
        Lines for the ``HISTORY`` of the image header.
    errors : bool, optional
        Whether to write ``CSR_RMS``.
    """
    pixels, kinds, (values, *rms) = result.changed_pixels(errors=errors)
    if background is not None:
        values = getattr(background, 'value', background).reshape(-1)[pixels]
    with _quiet(), open_fits(template) as hdus:
        index = find_image_hdu(hdus, hdu, plane=plane)
        image = hdus[index]
        replaced = _replacement(image, _inserted(image, pixels, values, plane), history)
        # The added extensions share the celestial WCS of the image.
        wcs = WCS(image.header, fobj=hdus).celestial.to_header(relax=True)
        shape = image.shape[-2:]
        added = [_added(hdus, 'CSR_MASK', wcs, shape, pixels, kinds, kinds)]
        if errors:
            added.append(_added(hdus, 'CSR_RMS', wcs, shape, pixels, kinds, *rms))
            if 'BUNIT' in replaced.header:
                added[-1].header['BUNIT'] = replaced.header['BUNIT']
    # Neither scaled nor decompressed, so that the other extensions stay the same bit for bit.
    untouched = {'do_not_scale_image_data': True, 'disable_image_compression': True}
    with atomic_path(path) as temporary, _quiet(), fits.open(template, **untouched) as hdus:
        checksums = any('CHECKSUM' in each.header for each in hdus)
        hdus[index] = replaced
        for name in ('CSR_RMS', 'CSR_MASK'):
            while name in hdus:
                del hdus[name]
        hdus.extend(added)
        hdus.writeto(temporary, overwrite=True, output_verify='silentfix', checksum=checksums)


def _added(hdus, name, wcs, shape, pixels, kinds, values):
    """Return an extension that is 0 in all but some pixels, or there as an earlier removal left it.

    It has the byte order of FITS, and takes memory only in those pages that are not 0.
    """
    dtype = values.dtype.newbyteorder('>')
    if name in hdus and hdus[name].shape == shape:
        data = hdus[name].data.astype(dtype)
        # Wings of subtracted sources change neither.
        pixels, values = pixels[kinds > 0], values[kinds > 0]
    else:
        # numpy would ask the system for pages of 2 MB; shared ones take memory when they are read.
        kind = {'flags': mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if os.name == 'posix' else {}
        pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, **kind)
        data = np.frombuffer(pages, dtype).reshape(shape)
    data.reshape(-1)[pixels] = values
    return fits.ImageHDU(data, wcs, name=name)


def describe_removal(
    result: NeuralBackground | SourceSubtraction,
    realization: int | None = None,
    *,
    errors: bool = True,
) -> list[str]:
    """Describe a removal, for the ``HISTORY`` of a header.

    Parameters
    ----------
    result : `~csr_astro.NeuralBackground` or `~csr_astro.photometry.subtraction.SourceSubtraction`
        Result of the removal.
    realization : int, optional
        Seed of the realization that fills the masks.
    errors : bool, optional
        Whether ``CSR_RMS`` is written too.

    Returns
    -------
    lines : list of str
    """
    meta = result.sources.meta
    lines = [
        f'csr_astro {meta["csr_astro"]}: {count_sources(result.sources, "removed")}.',
        f'Weights {meta["weights"]}, SHA-256',
        meta['weights_sha256'],
        f'Instrument {meta["instrument"]}, preset {meta["preset"]}.',
        *([f'Read {describe_reading(meta)}.'] if 'image_hdu' in meta else []),
        'Extensions CSR_MASK and CSR_RMS: inpainted pixels, their error.'
        if errors
        else 'Extension CSR_MASK: inpainted pixels.',
    ]
    if 'subtracted' in meta:
        number = int(np.sum(result.sources['subtracted']))
        lines.append(f'Fits subtracted, not inpainted: {number} sources (CSR_MASK is 2).')
    if realization is not None:
        lines.append(f'Filled pixels carry noise and texture: realization {realization}.')
    return [printable(line) for line in lines]


def _inserted(image, pixels, values, plane):
    """Return the data of an image with other values in some pixels of it or of a plane.

    Of a memory-mapped file only what is changed is in memory.
    """
    data = image.data
    dtype = np.result_type(data.dtype.newbyteorder('='), values.dtype)
    if data.dtype.newbyteorder('=') != dtype or not data.flags.writeable:
        data = data.astype(dtype)
    take_plane(data, plane, 'the cube').reshape(-1)[pixels] = values
    return data


def describe_reading(meta: Mapping[str, Any]) -> str:
    """Describe which extensions of a file were used.

    Parameters
    ----------
    meta : mapping
        Metadata of a table of sources.

    Returns
    -------
    text : str
        Empty if the map is from no file.

    Examples
    --------
    >>> from csr_astro.products import describe_reading
    >>> describe_reading({'image_hdu': 'SCI (1)', 'error_hdu': 'ERR (2, standard deviation)'})
    'image SCI (1), error ERR (2, standard deviation)'
    """
    words = {'image_hdu': 'image', 'plane': 'plane', 'error_hdu': 'error', 'mask_hdu': 'mask'}
    return ', '.join(f'{word} {meta[name]}' for name, word in words.items() if name in meta)


def _replacement(image, data, history):
    """Return an HDU of the same kind and header with other data, stored losslessly."""
    header = image.header.copy()
    for key in _OF_THE_DATA:
        header.remove(key, ignore_missing=True)
    for line in history:
        header.add_history(line)
    if isinstance(image, fits.CompImageHDU):
        return fits.CompImageHDU(data, header, compression_type='GZIP_2', quantize_level=0)
    return type(image)(data, header)
