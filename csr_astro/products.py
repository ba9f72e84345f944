"""Results as FITS files: the source-free map as a copy of the file that the map came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from csr_astro.flags import count_sources
from csr_astro.images import find_image_hdu
from csr_astro.tables import printable
from csr_astro.utils.files import atomic_path
from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csr_astro.background import NeuralBackground
    from csr_astro.typing import PathLike, QuantityLike

__all__ = ['describe_removal', 'write_source_free']

# Keywords that speak of pixel values as they were stored.
_OF_THE_DATA = ('BSCALE', 'BZERO', 'BLANK', 'DATAMIN', 'DATAMAX', 'CHECKSUM', 'DATASUM')


def _quiet():
    """Archive headers break rules that are fixed on writing; the user cannot help it."""
    return ignored(fits.verify.VerifyWarning, FITSFixedWarning)


def write_source_free(
    path: PathLike,
    template: PathLike,
    result: NeuralBackground,
    *,
    hdu: str | int | None = None,
    background: QuantityLike | None = None,
    history: Sequence[str] = (),
    errors: bool = True,
) -> None:
    """Write a source-free map as a copy of the file that the map came from.

    All extensions and headers are kept; the image is replaced, and the
    extensions ``CSR_MASK`` (1 for inpainted pixels) and, with ``errors``,
    ``CSR_RMS`` (their 1-sigma error) are added; what an earlier removal wrote
    there is kept in the pixels that are not inpainted anew.

    Parameters
    ----------
    path : path-like
        File to write, replaced in one step.
    template : path-like
        The FITS file that the map came from.
    result : `~csr_astro.NeuralBackground`
        What to write.
    hdu : str or int, optional
        Extension of the image, see `~csr_astro.images.find_image_hdu`.
    background : (ny, nx) array or Quantity, optional
        Written in place of ``result.background``: a realization, say.
    history : sequence of str, optional
        Lines for the ``HISTORY`` of the image's header.
    errors : bool, optional
        Whether to write ``CSR_RMS``.
    """
    background = result.background if background is None else background
    background = u.Quantity(background).value
    with _quiet(), fits.open(template) as hdus:
        index = find_image_hdu(hdus, hdu)
        image = hdus[index]
        # Leading axes of length 1 stay as they were.
        replaced = _replacement(image, background.reshape(image.shape), history)
        # Pixels of the image and of what belongs to it lie at the same place of the sky.
        wcs = WCS(image.header, fobj=hdus).celestial.to_header(relax=True)
        # Of an earlier removal, whose output this input is.
        earlier = {
            name: np.array(hdus[name].data)
            for name in ('CSR_MASK', 'CSR_RMS')
            if name in hdus and hdus[name].shape == background.shape
        }
    added = [fits.ImageHDU(result.mask.astype(np.uint8), wcs, name='CSR_MASK')]
    if errors:
        rms = fits.ImageHDU(u.Quantity(result.background_rms).value, wcs, name='CSR_RMS')
        if 'BUNIT' in replaced.header:
            rms.header['BUNIT'] = replaced.header['BUNIT']
        added.append(rms)
    added = [_with_earlier(each, result.mask, earlier) for each in added]
    # Neither scaled nor unpacked, so that the other extensions stay as they are to the bit.
    untouched = {'do_not_scale_image_data': True, 'disable_image_compression': True}
    with atomic_path(path) as temporary, _quiet(), fits.open(template, **untouched) as hdus:
        checksums = any('CHECKSUM' in each.header for each in hdus)
        hdus[index] = replaced
        for name in ('CSR_RMS', 'CSR_MASK'):
            while name in hdus:
                del hdus[name]
        hdus.extend(added)
        hdus.writeto(temporary, overwrite=True, output_verify='silentfix', checksum=checksums)


def _with_earlier(hdu, mask, earlier):
    if hdu.name in earlier:
        hdu.data = np.where(mask, hdu.data, earlier[hdu.name]).astype(hdu.data.dtype)
    return hdu


def describe_removal(
    result: NeuralBackground, realization: int | None = None, *, errors: bool = True
) -> list[str]:
    """What was done, for the ``HISTORY`` of a header.

    Parameters
    ----------
    result : `~csr_astro.NeuralBackground`
        What was made of the map.
    realization : int, optional
        Seed of the realization that fills the masks.
    errors : bool, optional
        Whether the errors are written too.

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
        'Extensions CSR_MASK and CSR_RMS: inpainted pixels, their error.'
        if errors
        else 'Extension CSR_MASK: inpainted pixels.',
    ]
    if realization is not None:
        lines.append(f'Filled pixels carry noise and texture: realization {realization}.')
    return [printable(line) for line in lines]


def _replacement(image, data, history):
    """An HDU of the same kind and header with other data, stored without loss."""
    header = image.header.copy()
    for key in _OF_THE_DATA:
        header.remove(key, ignore_missing=True)
    for line in history:
        header.add_history(line)
    if isinstance(image, fits.CompImageHDU):
        return fits.CompImageHDU(data, header, compression_type='GZIP_2', quantize_level=0)
    return type(image)(data, header)
