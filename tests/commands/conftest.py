import re
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from helpers_commands import SHAPE, SOURCES, files

from csr_astro.cli import main


@pytest.fixture(scope='module')
def wcs():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval = 269.15, 51.49
    wcs.wcs.crpix = 60, 50
    wcs.wcs.cdelt = -1.6 / 3600, 1.6 / 3600
    return wcs


@pytest.fixture(scope='module')
def sky():
    yy, xx = np.indices(SHAPE)
    sky = 20 + 0.05 * xx - 0.02 * yy + np.random.default_rng(0).normal(0, 1, SHAPE)
    for x, y in SOURCES:
        sky += 300 * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 4)
    sky[20:23, 60:66] = np.nan
    return sky


@pytest.fixture
def map_path(tmp_path, sky, wcs):
    """A file like those of archives: several extensions, the image in one of them."""
    primary = fits.PrimaryHDU()
    primary.header['OBJECT'] = 'nothing'
    primary.header['INSTRUME'] = 'PACS'
    primary.header['OBS_MODE'] = 'Scan map'
    primary.header['WAVELNTH'] = 70.0
    image = fits.ImageHDU(sky.astype('>f8'), wcs.to_header(), name='image')
    image.header['BUNIT'] = 'Jy/pixel', 'Unit of the data'
    image.header['HIERARCH long.keyword'] = 'kept'
    image.header.add_comment('a comment')
    image.header.add_history('made by hand')
    coverage = fits.ImageHDU(np.arange(SHAPE[0] * SHAPE[1], dtype='>i2').reshape(SHAPE),
                             wcs.to_header(), name='coverage')  # fmt: skip
    columns = [
        fits.Column('counts', 'J', bzero=2**31, array=np.array([1, 2, 3], np.uint32)),
        fits.Column('text', '8A', array=['a', 'b', 'c']),
        fits.Column('ragged', 'PE()', array=np.array([[1.0], [1, 2], [3]], object)),
    ]
    table = fits.BinTableHDU.from_columns(columns, name='history')
    path = tmp_path / 'map.fits'
    fits.HDUList([primary, coverage, image, table, fits.ImageHDU(name='empty')]).writeto(path)
    return path


@pytest.fixture
def run(weights, capsys):
    """Run a command: its exit code, standard output and standard error."""

    def run_command(*arguments, options=True):
        arguments = [str(argument) for argument in arguments]
        if options and arguments[0] in ('remove', 'photometry'):
            arguments += ['--weights', str(weights), '--orientations', '1']
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_command


@pytest.fixture
def fails(run, map_path, sky, monkeypatch):
    """Check that a command, run beside some files, prints one sentence and writes nothing."""

    def check(arguments, sentence):
        fits.PrimaryHDU(sky).writeto('plain.fits')
        fits.PrimaryHDU().writeto('blank.fits')
        Path('text.csv').write_text('a,b\n1,2\n')
        before = files(map_path.parent)
        code, out, err = run(*arguments, options='--weights' not in arguments)
        assert (code, out) == (1, '')
        *lines, last = err.splitlines()
        assert last.startswith('csr-astro: error: ')
        assert [line for line in lines if not line.startswith('instrument: ')] == []
        assert re.search(sentence, last)
        assert files(map_path.parent) == before
        assert not Path('new').exists()

    monkeypatch.chdir(map_path.parent)
    return check
