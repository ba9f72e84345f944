"""Kinds of images and units that are tested, and of which the documentation has a table."""

from contextlib import contextmanager, nullcontext

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, Cutout2D

from csr_astro.images import parse_image, read_image

# Solid angles in square arcsec: a pixel of 1.6 arcsec, and a beam of 5 x 4 arcsec.
_PIXEL, _BEAM = 1.6**2, np.pi / (4 * np.log(2)) * 20
_STERADIAN = (1 * u.sr).to_value(u.arcsec**2)
_BMAJ = {'BMAJ': 5 / 3600, 'BMIN': 4 / 3600}
_KELVIN = (1 * u.K).to_value(u.Jy / u.sr, u.brightness_temperature(230 * u.GHz))

#: Unit of the map; its pixel for 1 Jy/pixel; what else the header needs.
UNITS = {
    'Jy/pixel': ('Jy/pixel', 1, {}),
    'Jy': ('Jy', 1, {}),
    'mJy/pixel': ('mJy/pixel', 1e3, {}),
    'MJy/sr': ('MJy/sr', 1e-6 * _STERADIAN / _PIXEL, {}),
    'mJy/arcsec2': ('mJy/arcsec**2', 1e3 / _PIXEL, {}),
    'Jy/beam': ('Jy/beam', _BEAM / _PIXEL, _BMAJ),
    'mJy/beam': ('mJy/beam', 1e3 * _BEAM / _PIXEL, _BMAJ),
    'JY/BEAM': ('JY/BEAM', _BEAM / _PIXEL, _BMAJ),
    'K': ('K', _STERADIAN / _PIXEL / _KELVIN, {'RESTFRQ': 230e9}),
    'nanomaggy': ('nanomaggy', 1e9 / 3631, {}),
    'erg/s/cm2/Hz/sr': ('erg s-1 cm-2 Hz-1 sr-1', 1e-23 * _STERADIAN / _PIXEL, {}),
}


@contextmanager
def _cutout(path):
    ccd = CCDData.read(path)
    cutout = Cutout2D(ccd.data * ccd.unit, (54.5, 49.5), ccd.data.shape, wcs=ccd.wcs)
    # A Cutout2D has no mask and no error.
    yield parse_image(cutout, mask=ccd.mask, error=ccd.uncertainty)


#: Ways to give the map of a file.
DOORS = {
    'path': nullcontext,
    'path as text': lambda path: nullcontext(str(path)),
    'HDUList': fits.open,
    'CCDData': lambda path: nullcontext(CCDData.read(path)),
    'Cutout2D': _cutout,
    'Image of read_image': lambda path: nullcontext(read_image(path)[0]),
}

_CCD, _CUTOUT = ('CCDData', 'Cutout2D'), ('Cutout2D',)
#: What does not work, and why: (unit, door).
EXCEPTIONS = (
    {('JY/BEAM', door): 'no: astropy does not read the unit' for door in _CCD}
    | {(unit, door): 'with ``beam=``' for unit in ('Jy/beam', 'mJy/beam') for door in _CUTOUT}
)
