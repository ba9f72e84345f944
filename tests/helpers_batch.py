"""Four maps with a catalogue, and the files that a batch writes, for tests of batches."""

import os
import re
import signal
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from photutils.centroids import centroid_com

from csr_astro.batch import MANIFEST, read_jobs

NAMES = ['a', 'b', 'c', 'd']
#: Level of a map that kills the process which finds centroids on it.
DEADLY = 1e4


def write_maps(folder):
    """Four maps and a catalogue of theirs."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        data = rng.normal(5, 1, (110, 120)).astype('>f4')
        fits.PrimaryHDU(data).writeto(folder / f'{name}.fits')
    write_catalog(folder / 'catalog.ecsv', rng.uniform(0, 110, (3, 2)))


def write_large_map(path):
    """A map with gaps; returns sources whose masks overlap, leave the map and have no place."""
    rng = np.random.default_rng(2)
    image = rng.normal(5, 1, (160, 150)).astype('>f4')
    image[60:70, 50:90] = np.nan
    fits.HDUList(
        [fits.PrimaryHDU(), fits.ImageHDU(image, name='image'),
         fits.ImageHDU(np.ones_like(image), name='stDev')]
    ).writeto(path)  # fmt: skip
    xy = rng.uniform(-5, 165, (24, 2))
    xy[:3] = (np.nan, 5), (1000, 1000), (70, 65)
    return xy


def write_catalog(path, xy):
    xy = np.asarray(xy)
    Table({'x': xy[:, 0], 'y': xy[:, 1]}).write(path, overwrite=True)


def jobs_in(folder, names=NAMES):
    return read_jobs([folder / f'{name}.fits' for name in names], folder / 'catalog.ecsv')


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob('*_source_free.*')}


def contents(folder):
    """What files hold, but for the time that photutils notes."""
    return {
        path.name: re.sub(rb'date: .*', b'', path.read_bytes())
        for path in folder.iterdir()
        if path.name != MANIFEST
    }


def centroid_or_die(data, mask=None):
    """Centre of mass; the process dies at a deadly map, or once if there is a fuse."""
    if burn(Path(os.environ['CSR_ASTRO_TEST_FUSE'])) or np.nanmax(data) > DEADLY / 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return centroid_com(data, mask=mask)


def burn(fuse):
    try:
        fuse.unlink()
    except FileNotFoundError:
        return False
    return True
