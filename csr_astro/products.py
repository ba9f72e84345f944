"""How do results become files that other programs read?"""

import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS, FITSFixedWarning

from csr_astro.images import find_image_hdu
from csr_astro.io import atomic_path

__all__ = ['TABLE_FORMATS', 'write_source_free', 'write_table']

TABLE_FORMATS = {'.ecsv': 'ascii.ecsv', '.csv': 'ascii.csv', '.fits': 'fits', '.xml': 'votable',
                 '.vot': 'votable'}

def check_table_path(path):
    """Refuse a table whose format its name does not tell, before hours of work are lost."""
    if Path(path).suffix.lower() not in TABLE_FORMATS:
        raise ValueError(
            f'the table {str(path)!r} must end in one of {sorted(TABLE_FORMATS)}, by which its '
            'format is chosen.'
        )


def write_table(path, table):
    """Write a table in the format that its name says, replacing it in one step.

    Parameters
    ----------
    path : path-like
        Ends in ``.ecsv`` (everything is kept), ``.csv`` (numbers only;
        ``sky_center`` becomes ``ra`` and ``dec`` in degrees), ``.fits``,
        ``.xml`` or ``.vot``.
    table : `~astropy.table.QTable`
        What to write.
    """
    check_table_path(path)
    kind = TABLE_FORMATS[Path(path).suffix.lower()]
    if kind != 'ascii.ecsv':
        table = _plain(table)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        # Long keywords of the meta are cut in FITS; the ECSV keeps them.
        warnings.simplefilter('ignore', fits.verify.VerifyWarning)
        table.write(temporary, format=kind, overwrite=True)


def _plain(table):
    """Columns that every format can hold: a SkyCoord becomes two numbers."""
    plain = QTable(meta={key: value for key, value in table.meta.items() if np.isscalar(value)})
    for name in table.colnames:
        if isinstance(table[name], SkyCoord):
            plain['ra'] = table[name].icrs.ra.to(u.deg)
            plain['dec'] = table[name].icrs.dec.to(u.deg)
        else:
            plain[name] = table[name]
    return plain


@contextmanager
def _quiet():
    """Archive headers break rules that are fixed on writing; the user cannot help it."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', fits.verify.VerifyWarning)
        warnings.simplefilter('ignore', FITSFixedWarning)
        yield


def write_source_free(path, template, result, *, hdu=None, background=None, history=()):
    """Write a source-free map as a copy of the file that the map came from.

    All extensions and headers are kept; the image is replaced, and the
    extensions ``CSR_MASK`` (1 for inpainted pixels) and ``CSR_RMS`` (their
    1-sigma error) are added.

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
    """
    background = result.background if background is None else background
    background = u.Quantity(background).value
    with atomic_path(path) as temporary, _quiet(), fits.open(template) as hdus:
        image = hdus[find_image_hdu(hdus, hdu)]
        checksums = any('CHECKSUM' in each.header for each in hdus)
        # Leading axes of length 1 stay as they were.
        image.data = background.reshape(image.shape)
        for key in ('BLANK', 'DATAMIN', 'DATAMAX'):
            image.header.remove(key, ignore_missing=True)
        for line in history:
            image.header.add_history(line)
        # Pixels of the image and of what belongs to it lie at the same place of the sky.
        header = WCS(image.header).celestial.to_header()
        rms = fits.ImageHDU(u.Quantity(result.background_rms).value, header, name='CSR_RMS')
        if 'BUNIT' in image.header:
            rms.header['BUNIT'] = image.header['BUNIT']
        mask = fits.ImageHDU(result.mask.astype(np.uint8), header, name='CSR_MASK')
        for name in ('CSR_RMS', 'CSR_MASK'):
            # Of an earlier removal, whose output this input is.
            while name in hdus:
                del hdus[name]
        hdus.extend([mask, rms])
        hdus.writeto(temporary, overwrite=True, output_verify='silentfix', checksum=checksums)
