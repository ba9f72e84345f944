"""Models of the PSFs of PACS."""

import numpy as np
import pytest
from astropy.io import fits
from numpy.testing import assert_allclose
from photutils.aperture import CircularAperture

from csr_astro.instruments import get_instrument
from csr_astro.simulation.psf import (
    encircled_energy,
    instrument_profile,
    moffat_profile,
    pacs_profile,
    psf_stamp,
    smeared_profile,
)


@pytest.mark.parametrize('mode', ['scanmap', 'parallel'])
@pytest.mark.parametrize('color', ['blue', 'green', 'red'])
def test_pacs_profile_encloses_the_tabulated_energy(mode, color):
    """Photutils' sums on the pixels of a map."""
    band = get_instrument(f'pacs-{mode}-{color}')
    # A circle must be larger than a pixel or so to be a circle.
    radii = np.array([9, 12, 15, 18, 22] if color == 'red' else [5, 6, 8, 10, 12, 13, 18])
    radii = radii / band.pixel_scale
    found = encircled_energy(instrument_profile(band), radii)
    if (mode, color) == ('scanmap', 'green'):
        # Published as a copy of the table of real sources, 10 % of whose energy is farther out.
        expected = band.enclosed_energy(radii, 'eef') / 0.9051
    else:
        expected = band.enclosed_energy(radii, 'vesta')
    assert_allclose(found, expected, rtol=0.02)
    assert_allclose(found[2:], expected[2:], rtol=0.018)


@pytest.mark.parametrize('color', ['blue', 'green', 'red'])
def test_pacs_profile_is_like_the_image_of_vesta(shared_data, color):
    number, blur = {'blue': (70, 2.03), 'green': (100, 1.9), 'red': (160, 4.97)}[color]
    image, header = fits.getdata(
        shared_data / 'data' / 'psf' / f'pacs{number}_vesta.fits', header=True
    )
    pixel = header['PIXARCS']
    from scipy.ndimage import gaussian_filter

    stamp = psf_stamp(pacs_profile(color, pixel / 3), 3 * len(image))
    stamp = gaussian_filter(stamp, blur / 2.3548 / pixel * 3)
    stamp = stamp.reshape(len(image), 3, len(image), 3).sum(axis=(1, 3))
    stamp *= image.sum() / stamp.sum()
    assert np.std(stamp - image) < 0.01 * image.max()
    center = [(len(image) - 1) / 2] * 2
    for radius in np.array([4, 6, 8, 10, 13, 18]) / pixel:
        sums = [
            CircularAperture(center, radius).do_photometry(each)[0][0]
            for each in (stamp, image.astype(float))
        ]
        assert sums[0] == pytest.approx(sums[1], rel=0.015)


def test_pacs_profile_has_three_lobes_and_wings():
    profile = pacs_profile('blue', 1.0)
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    waves = np.abs(np.fft.rfft(profile(8 * np.cos(angle), 8 * np.sin(angle))))
    assert waves[1:10].argmax() + 1 == 3
    assert waves[3] > 0.2 * waves[0]
    # Brightness falls as r**-3 far out, and ends at 60 arcsec.
    assert profile(25.0, 0.0) / profile(50.0, 0.0) == pytest.approx(8, rel=0.15)
    assert profile(59.9, 0.0) > 0
    assert profile(60.1, 0.0) == 0
    assert pacs_profile('blue', 1.0, radius=100)(99.0, 0.0) > 0


@pytest.mark.parametrize('color', ['blue', 'green', 'red'])
def test_pacs_profile_turns_and_places_without_loss(color):
    profile = pacs_profile(color, 3.2)
    rng = np.random.default_rng(0)
    for offset in rng.uniform(-0.5, 0.5, (5, 2)):
        stamp = psf_stamp(profile, offset=offset, angle=rng.uniform(0, 6))
        center = (len(stamp) - 1) / 2 + offset
        assert stamp.sum() == pytest.approx(1, rel=1e-12)
        # All of it lies on the stamp, so that no border has been normalised away.
        assert stamp[0].max() == stamp[-1].max() == stamp[:, 0].max() == stamp[:, -1].max() == 0
        wide = CircularAperture(center, 12).do_photometry(stamp)[0][0]
        assert wide == pytest.approx(encircled_energy(profile, 12.0), rel=1e-4)


def test_fast_scan_smears_along_one_axis():
    profile, slow = (pacs_profile('blue', 1.6, smear=smear) for smear in (12, 0))
    widths = []
    for each in (profile, slow):
        stamp = psf_stamp(each, 79)
        steps = np.arange(79) - 39
        disc = stamp * (np.hypot(*np.meshgrid(steps, steps)) < 15)
        widths.append([(disc.sum(axis=axis) * steps**2).sum() / disc.sum() for axis in (0, 1)])
    # A stretch of length L adds L²/12 along the scan.
    assert widths[0][0] - widths[1][0] == pytest.approx((12 / 1.6) ** 2 / 12, rel=0.25)
    assert widths[0][1] == pytest.approx(widths[1][1], rel=0.1)
    band = get_instrument('pacs-parallel-red')
    assert instrument_profile(band, fast_scan=True)(1.0, 2.0) != instrument_profile(band)(1.0, 2.0)
    assert smeared_profile(moffat_profile(3, 3), 4).radius == np.inf


@pytest.mark.parametrize(
    ('arguments', 'options', 'sentence'),
    [
        (('pink', 1.6), {}, 'band must be one of'),
        (('blue', 0), {}, 'pixel_scale must be positive, got 0'),
        (('blue', 'wide'), {}, "pixel_scale must be a number, got 'wide'"),
        (('blue', 1.6), {'radius': -1}, 'radius must be positive'),
        (('blue', 1.6), {'smear': np.nan}, 'smear must be positive'),
    ],
)
def test_impossible_pacs_profiles_are_refused(arguments, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        pacs_profile(*arguments, **options)


def test_only_pacs_has_fast_scans():
    with pytest.raises(ValueError, match='only PACS has fast scans'):
        instrument_profile(get_instrument('spire-250'), fast_scan=True)
