"""Pages of the documentation as tests run them."""

import re
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from csr_astro.demo import simulated_field
from csr_astro.simulation.field import tangent_wcs

DOCS = Path(__file__).parents[1] / 'docs'


def write_example(folder):
    """Write ``map.fits`` and ``catalog.csv``, of which the pages speak."""
    _, data, catalog = simulated_field()
    wcs = tangent_wcs(data.shape, 6.0, (269.15, 51.49))
    header = wcs.to_header()
    header['BUNIT'] = 'MJy/sr'
    fits.writeto(folder / 'map.fits', data.astype(np.float32), header)
    sky = wcs.pixel_to_world(catalog['x'], catalog['y'])
    names = [f'S{k}' for k in range(len(sky))]
    Table({'name': names, 'ra': sky.ra.deg, 'dec': sky.dec.deg}).write(folder / 'catalog.csv')


def console_commands(page):
    """Commands of the console blocks of a page, with the output that is shown below each."""
    found = []
    blocks = re.findall(r'^\.\. code-block:: console\n\n((?:    .*\n|\n)+)', page, re.MULTILINE)
    for block in blocks:
        lines = [line[4:] for line in block.rstrip().splitlines()]
        goes_on = False
        for line in lines:
            if line.startswith('$ '):
                found.append([line[2:], ''])
            elif goes_on:
                found[-1][0] += '\n' + line
            else:
                found[-1][1] += line + '\n'
            goes_on = line.endswith('\\')
    return [tuple(each) for each in found]
