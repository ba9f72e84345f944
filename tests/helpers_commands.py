"""A map with sources, and files of a folder, for tests of the shell's commands."""


import numpy as np
from astropy.io import fits

SHAPE = (100, 110)
SOURCES = np.array([(40.3, 60.2), (80.6, 33.4)])
#: Arguments that give the sources.
PIXELS = [text for x, y in SOURCES for text in ('--pixel', str(x), str(y))]


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*.*')}


def hdu_bytes(path, name):
    """Header and data of an extension as they stand in the file."""
    with fits.open(path) as hdus:
        info = hdus[name].fileinfo()
    content = path.read_bytes()
    return content[info['hdrLoc'] : info['datLoc'] + info['datSpan']]


def discs(radii):
    yy, xx = np.indices(SHAPE)
    return np.any(
        [np.hypot(xx - x, yy - y) <= r for (x, y), r in zip(SOURCES, radii, strict=True)], axis=0
    )
