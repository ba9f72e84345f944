"""Tests of the probable causes of removals that did nothing."""

import re

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from helpers_removal import make_wcs
from numpy.testing import assert_array_equal

from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator
from csr_astro.batch import read_jobs, remove_many
from csr_astro.cli import main
from csr_astro.diagnosis import probable_cause
from csr_astro.flags import BITS, decode_flags
from csr_astro.images import parse_image

SHAPE = (90, 160)
XY = np.array([[100.0, 20.0], [130.0, 30.0], [140.0, 50.0]])
SKY = make_wcs().pixel_to_world(*XY.T)


def write_map(path, value=1.0):
    data = value + np.random.default_rng(0).normal(size=SHAPE)
    fits.PrimaryHDU(data, make_wcs().to_header()).writeto(path)


def catalog(ra, dec):
    return Table({'ra': np.asarray(ra), 'dec': np.asarray(dec)})


FAR = {
    'swapped pixels': (Table({'x': XY[:, 1], 'y': XY[:, 0]}), '3 off_map.*x and y seem .* swapped'),
    'other pixels': (Table({'x': XY[:, 0] + 4000, 'y': XY[:, 1]}), 'x is 4100 to 4140, y is 20'),
    'other field': (catalog(SKY.ra.deg + 20, SKY.dec.deg), '3 off_map.* deg from its centre; is'),
    'hours': (catalog(SKY.ra.hour, SKY.dec.deg), 'ra seems to be in hours'),
    'galactic': (
        catalog(SKY.galactic.l.deg, SKY.galactic.b.deg),
        'outside the projection .*another field or frame',
    ),
    'B1950': (catalog(SKY.fk4.ra.deg, SKY.fk4.dec.deg), 'seem to be of the epoch B1950'),
}  # fmt: skip


@pytest.mark.filterwarnings('ignore:.*more than 90 degrees away')
@pytest.mark.parametrize('command', ['remove', 'photometry'])
@pytest.mark.parametrize('kind', FAR)
def test_catalog_off_the_map_fails_and_says_why(tmp_path, weights, capsys, command, kind):
    table, sentence = FAR[kind]
    write_map(tmp_path / 'map.fits')
    table.write(tmp_path / 'list.ecsv')
    arguments = [command, str(tmp_path / 'map.fits'), str(tmp_path / 'list.ecsv'), '--fwhm', '3.3',
                 '--weights', str(weights), '--orientations', '1']  # fmt: skip
    arguments += ['--apertures', '4'] if command == 'photometry' else []
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert '0 of 3 sources' in err
    assert re.search(sentence, err), err
    assert sorted(path.name for path in tmp_path.iterdir()) == ['list.ecsv', 'map.fits']


def test_swapped_right_ascension_and_declination_are_recognised():
    wcs = make_wcs()
    wcs.wcs.crval = 40, 10
    image = parse_image(np.zeros(SHAPE), wcs=wcs)
    sky = wcs.pixel_to_world(*XY.T)
    swapped = SkyCoord(sky.dec.deg, sky.ra.deg, unit='deg')
    x, y = wcs.world_to_pixel(swapped)
    table = Table({'id': [1, 2, 3], 'x_center': x, 'y_center': y})
    table['sky_center'] = swapped
    table['flags'] = 3 * [BITS['off_map']]
    assert probable_cause(image, table) == 'ra and dec seem to be swapped'


@pytest.mark.parametrize(
    ('value', 'options', 'sentence'),
    [
        (np.nan, [], r'3 no_background\): no pixel of the map is valid'),
        (1, ['--mask-radius', '500'], r'3 mask_too_large\): masks have radii of at most'),
    ],
)
def test_map_without_a_measurement_fails(tmp_path, weights, capsys, value, options, sentence):
    write_map(tmp_path / 'map.fits', value)
    pixels = [text for x, y in XY for text in ('--pixel', str(x), str(y))]
    arguments = ['remove', str(tmp_path / 'map.fits'), *pixels, '--fwhm', '3.3', '--weights',
                 str(weights), '--orientations', '1', *options]  # fmt: skip
    assert main(arguments) == 1
    assert re.search(sentence, capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ['map.fits']


def test_batch_counts_such_a_map_as_failed(tmp_path, weights):
    write_map(tmp_path / 'map.fits')
    catalog(SKY.ra.deg + 20, SKY.dec.deg).write(tmp_path / 'list.ecsv')
    manifest = remove_many(
        read_jobs(tmp_path / 'map.fits', tmp_path / 'list.ecsv'),
        tmp_path / 'out',
        cluster={'workers': 0},
        weights=str(weights),
        orientations=1,
        fwhm=5 * u.arcsec,
    )
    assert list(manifest['status']) == ['failed']
    assert manifest['message'][0].startswith('0 of 3 sources removed (3 off_map)')


# A map that was cleaned before


def cleaned_map(tmp_path, weights):
    write_map(tmp_path / 'map.fits')
    pixels = [text for x, y in XY[:2] for text in ('--pixel', str(x), str(y))]
    options = ['--fwhm', '3.3', '--weights', str(weights), '--orientations', '1']
    clean = tmp_path / 'clean.fits'
    assert main(['remove', str(tmp_path / 'map.fits'), *pixels, *options, '-o', str(clean)]) == 0
    return clean, pixels, options


@pytest.mark.parametrize('door', [str, fits.open])
def test_sources_that_were_removed_before_have_no_flux(tmp_path, weights, door):
    clean, _, _ = cleaned_map(tmp_path, weights)
    estimator = NeuralBackgroundEstimator(weights, fwhm=3.3, orientations=1)
    image = door(clean)
    photometry = InpaintedAperturePhotometry([3, 4], estimator=estimator, annulus=(8, 12))
    with pytest.warns(AstropyUserWarning, match='2 of 3 sources lie on pixels that an earlier'):
        table = photometry(image, XY)
    flags = [decode_flags(each) for each in table['flags']]
    assert ['already_removed' in each for each in flags] == [True, True, False]
    for name in ('flux_0', 'flux_err_1', 'annulus_flux_0'):
        assert_array_equal(np.isnan(table[name]), [True, True, False])
    assert np.isfinite(table['aperture_sum_0']).all()
    # A pixel of the first source's mask is in the aperture, and not of the sky.
    beside = photometry(image, XY[:1] + np.array([8, 0]))
    assert 'aperture_invalid' in decode_flags(beside['flags'][0])
    assert np.isfinite(beside['flux_0'][0])
    if isinstance(image, fits.HDUList):
        image.close()


def test_photometry_of_removed_sources_fails_at_the_shell(tmp_path, weights, capsys):
    clean, pixels, options = cleaned_map(tmp_path, weights)
    with pytest.warns(AstropyUserWarning, match='earlier removal'):
        assert main(['photometry', str(clean), *pixels, *options, '--apertures', '4']) == 1
    assert '0 of 2 sources measured (2 already_removed): the map is without' in (
        capsys.readouterr().err
    )


def test_removal_can_be_repeated(tmp_path, weights):
    clean, pixels, options = cleaned_map(tmp_path, weights)
    assert main(['remove', str(clean), *pixels, *options, '-o', str(tmp_path / 'b.fits')]) == 0
