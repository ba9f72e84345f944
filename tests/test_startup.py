"""Commands import only what they use: the rest would make them start late."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import csr_astro

RUN = """
import json, sys
from csr_astro.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(json.dumps([code, sorted(sys.modules)]))
"""
# No command that measures one map needs these.
NEVER = {
    'IPython', 'bokeh', 'dask', 'distributed', 'kornia', 'lightning', 'maskfill', 'matplotlib',
    'pandas', 'regions', 'skimage', 'tensorboard', 'csr_astro.batch', 'csr_astro.evaluation',
    'csr_astro.training',
}  # fmt: skip
# A removal measures and finds nothing; without a model of the PSF it fits no wings.
TO_MEASURE = {
    'astropy.modeling', 'photutils.centroids', 'photutils.detection', 'photutils.psf',
    'scipy.cluster', 'scipy.signal', 'scipy.stats', 'csr_astro.fitting', 'csr_astro.photometry',
    'csr_astro.simulation',
}  # fmt: skip
# photutils imports these itself.
PHOTUTILS = {'matplotlib', 'regions', 'skimage'}
HEAVY = {'astropy', 'numpy', 'photutils', 'safetensors', 'scipy', 'torch', 'tqdm'}


@pytest.mark.parametrize(
    ('words', 'forbidden'),
    [
        (['--help'], NEVER | TO_MEASURE | HEAVY),
        (['remove', '--help'], NEVER | TO_MEASURE | HEAVY),
        (['remove', 'map.fits', '--pixel', '40', '50', '--fwhm', '3.5'], NEVER | TO_MEASURE),
        (['photometry', 'map.fits', '--pixel', '40', '50', '--fwhm', '3.5', '--apertures', '4'],
         NEVER - PHOTUTILS | {'photutils.detection', 'csr_astro.photometry.finder'}),
        (['photometry', 'map.fits', '--pixel', '40', '50', '--fwhm', '3.5', '--method', 'psf'],
         NEVER - PHOTUTILS),
    ],
    ids=['help', 'help of a command', 'remove', 'apertures', 'fits'],
)  # fmt: skip
def test_command_imports_only_what_it_uses(tmp_path, words, forbidden):
    sky = np.random.default_rng(0).normal(size=(90, 100)).astype('f4')
    sky[50, 40] += 100
    fits.PrimaryHDU(sky).writeto(tmp_path / 'map.fits')
    done = subprocess.run(
        [sys.executable, '-c', RUN, *words],
        env=os.environ | {'PYTHONPATH': str(Path(csr_astro.__file__).parents[1])},
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    assert forbidden & set(modules) == set()
