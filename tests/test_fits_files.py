"""Tests of the meaning of extensions of FITS files."""

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.utils.exceptions import AstropyUserWarning
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro.conventions import file_conventions, meaning
from csr_astro.fits_files import read_parts
from csr_astro.images import find_image_hdu, parse_image, read_image
from csr_astro.simulation.field import tangent_wcs
from csr_astro.utils.data import read_data

DATA = np.arange(1, 31, dtype=float).reshape(5, 6)
SIGMA = DATA / 10
BAD = DATA > 27


def extension(data, name, **keywords):
    data = np.asarray(data)
    data = data.astype('u1') if data.dtype == bool else data
    return fits.ImageHDU(data, fits.Header(keywords), name=name)


def file_of(*extensions, **keywords):
    return fits.HDUList([fits.PrimaryHDU(header=fits.Header(keywords)), *extensions])


def check(hdus, error=SIGMA, mask=BAD, **options):
    """Compare what is read of a file with what is expected; errors do not count on bad pixels."""
    parts = read_parts(hdus, **options)
    assert_array_equal(parts.data, DATA)
    for found, expected in ((parts.error, error), (parts.mask, mask)):
        if expected is None:
            assert found is None
        elif expected is error:
            good = slice(None) if mask is None else ~mask
            assert_allclose(found[good], expected[good], rtol=1e-12)
        else:
            assert_array_equal(found, expected)
    return parts


# Conventions

UNIT = {'BUNIT': 'MJy/sr'}
FILES = {
    'HIPE': lambda: file_of(
        extension(np.where(BAD, 0, 7), 'coverage', BUNIT='1'),
        extension(DATA, 'signal', **UNIT),
        extension(BAD[::-1], 'HPFmask'),
        extension(SIGMA, 'stDev', **UNIT),
        extension(9 * SIGMA, 'error', **UNIT),
        CLASS___='herschel.ia.dataset.image.SimpleImage',
    ),
    'JWST': lambda: file_of(
        extension(DATA, 'SCI', **UNIT),
        extension(SIGMA, 'ERR', **UNIT),
        # Jump detected (4) is no fault of the product; do not use (1) is.
        extension(np.where(BAD, 5, 4).astype('u4'), 'DQ'),
        extension(7 * SIGMA, 'VAR_POISSON', BUNIT='MJy2 / sr2'),
        extension(np.ones((5, 6)), 'WHT'),
        TELESCOP='JWST',
    ),
    'JWST i2d': lambda: file_of(
        extension(DATA, 'SCI', **UNIT),
        extension(SIGMA, 'ERR', **UNIT),
        extension(np.ones((1, 5, 6), 'i4'), 'CON'),
        extension(np.where(BAD, 0, 2.5), 'WHT'),
        TELESCOP='JWST',
    ),
    'HST': lambda: file_of(
        extension(DATA, 'SCI', BUNIT='ELECTRONS/S'),
        extension(SIGMA, 'ERR', BUNIT='ELECTRONS/S'),
        extension(np.where(BAD, 4096, 0).astype('i2'), 'DQ'),
        TELESCOP='HST',
    ),
    'DRAGONS': lambda: file_of(
        extension(DATA, 'SCI', BUNIT='electron'),
        extension(SIGMA**2, 'VAR', BUNIT='electron2'),
        extension(np.where(BAD, 16, 32).astype('u2'), 'DQ'),
    ),
    'Rubin': lambda: file_of(
        extension(DATA, 'IMAGE', BUNIT='nJy'),
        # Detected (32) is where the sources are.
        extension(np.where(BAD, 2, 32).astype('i4'), 'MASK', MP_SAT=1,
                  **{'HIERARCH MP_DETECTED': 5}),
        extension(SIGMA**2, 'VARIANCE', BUNIT='nJy2'),
    ),
    'ccdproc': lambda: CCDData(
        DATA, unit='adu', mask=BAD, uncertainty=StdDevUncertainty(SIGMA)
    ).to_hdu(),
    'ccdproc variance': lambda: CCDData(
        DATA, unit='adu', mask=BAD, uncertainty=VarianceUncertainty(SIGMA**2)
    ).to_hdu(),
    'ccdproc inverse variance': lambda: CCDData(
        DATA, unit='adu', mask=BAD, uncertainty=InverseVariance(1 / SIGMA**2)
    ).to_hdu(),
    'NOIRLab': lambda: file_of(
        extension(DATA, 'N1', PRODTYPE='image'),
        extension(1 / SIGMA**2, 'N1', PRODTYPE='wtmap'),
        extension(np.where(BAD, 3, 0), 'N1', PRODTYPE='dqmask'),
        PROCTYPE='Stacked', PRODTYPE='image',
    ),
    'JCMT': lambda: fits.HDUList([
        fits.PrimaryHDU(DATA[None], fits.Header({'TELESCOP': 'JCMT', 'BUNIT': 'mJy/arcsec**2'})),
        extension(SIGMA[None] ** 2, 'VARIANCE', BUNIT='(mJy/arcsec**2)**2'),
        extension(np.where(BAD, 1, 2)[None].astype('u1'), 'QUALITY', BADBITS=1),
        extension(np.ones((5, 6)), 'EXP_TIME'),
    ]),
    'NIKA2': lambda: file_of(
        extension(DATA, 'Brightness_1mm', BUNIT='Jy/beam'),
        extension(9 * SIGMA, 'Stddev_2mm', BUNIT='Jy/beam'),
        extension(SIGMA, 'Stddev_1mm', BUNIT='Jy/beam'),
        extension(0 * DATA, 'Nhits_2mm'),
        extension(~BAD, 'Nhits_1mm'),
        extension(2 * DATA, 'Brightness_2mm', BUNIT='Jy/beam'),
    ),
    'SOFIA': lambda: file_of(
        extension(DATA, 'STOKES I', BUNIT='Jy/pixel'),
        extension(SIGMA, 'ERROR I', BUNIT='Jy/pixel'),
        extension(2 * DATA, 'STOKES Q', BUNIT='Jy/pixel'),
        extension(2 * SIGMA, 'ERROR Q', BUNIT='Jy/pixel'),
        extension(~BAD, 'EXPOSURE'),
        TELESCOP='SOFIA 2.5m',
    ),
    'Euclid': lambda: file_of(
        extension(DATA, 'CCDID 1-1.SCI', BUNIT='electron'),
        extension(SIGMA, 'CCDID 1-1.RMS'),
        # Bit 0 is INVALID; others tell how a pixel was treated.
        extension(np.where(BAD, 65, 64).astype('i4'), 'CCDID 1-1.FLG'),
        extension(DATA, 'CCDID 1-2.SCI', BUNIT='electron'),
        extension(9 * SIGMA, 'CCDID 1-2.RMS'),
    ),
    'Legacy Surveys': lambda: file_of(
        extension(DATA, 'image', BUNIT='nanomaggy'),
        extension(1 / SIGMA**2, 'invvar'),
        extension(BAD, 'bpm'),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings('ignore:the file holds 2 images')
@pytest.mark.parametrize('name', FILES)
def test_extensions_mean_what_their_convention_says(name, tmp_path):
    hdus = FILES[name]()
    check(hdus)
    hdus.writeto(tmp_path / 'map.fits')
    with fits.open(tmp_path / 'map.fits') as read:
        check(read)


def test_casa_images_have_blanks_for_a_mask():
    data = np.where(BAD, np.nan, DATA)[None, None]
    header = fits.Header({'ORIGIN': 'CASA 6.5', 'BUNIT': 'Jy/beam', 'BMAJ': 1e-3, 'BMIN': 5e-4})
    parts = read_parts(fits.HDUList([fits.PrimaryHDU(data, header)]))
    assert parts.error is None
    assert parts.mask is None
    assert parts.unit == u.Jy / u.beam


def test_beam_of_a_plane_is_in_the_table_of_casa():
    beams = fits.BinTableHDU.from_columns(
        [fits.Column(name, 'E', unit='arcsec', array=[3.6, 7.2]) for name in ('BMAJ', 'BMIN')],
        name='BEAMS',
    )
    image = fits.PrimaryHDU(np.stack([DATA, DATA])[None])
    parts = read_parts(fits.HDUList([image, beams]), plane=1)
    assert parts.header['BMAJ'] == pytest.approx(2e-3)


def test_every_convention_says_where_it_is_from():
    tables = read_data('file_conventions.toml')
    for name, table in tables.items():
        if name not in ('units', 'unit_parts'):
            assert table['description'], name
            assert table['source'], name
            assert name == 'generic' or table['recognise'], name


def test_file_that_matches_no_convention_has_the_generic_one():
    hdus = file_of(extension(DATA, 'anything'))
    assert meaning(hdus[1], file_conventions(hdus))[0] == ''


# The image


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (['coverage', 'signal'], 'signal'),
        (['error', 'image'], 'image'),
        (['WHT', 'SCI'], 'SCI'),
        (['coverage', 'anything'], 'anything'),
        (['model', 'anything'], 'anything'),
        (['weight', 'residual'], 'residual'),
        (['coverage'], 'coverage'),
    ],
)
def test_statements_about_pixels_are_not_taken_for_the_image(names, expected):
    hdus = file_of(*(extension(DATA, name) for name in names))
    assert hdus[find_image_hdu(hdus)].name == expected.upper()


def test_file_without_an_image_is_refused():
    hdus = file_of(extension(DATA, 'coverage'), extension(DATA, 'error'))
    with pytest.raises(ValueError, match=r'none of the extensions .* the image; name it by hdu='):
        find_image_hdu(hdus)


# Choices


def test_extensions_can_be_chosen(tmp_path):
    hdus = file_of(
        extension(DATA, 'image', BUNIT='Jy/pixel'),
        extension(9 * SIGMA, 'error', BUNIT='Jy/pixel'),
        extension(1e6 * SIGMA**2, 'mine', BUNIT='mJy2/pixel2'),
        extension(BAD[::-1], 'mask'),
        extension(BAD, 'theirs'),
    )
    parts = check(hdus, error_hdu='mine', mask_hdu='theirs')
    assert parts.meta == {
        'image_hdu': 'IMAGE (1)',
        'error_hdu': 'MINE (3, variance)',
        'mask_hdu': 'THEIRS (5, not 0 is bad)',
    }
    check(hdus, error=None, mask=None, ignore_errors=True, mask_hdu='none')
    check(hdus, error=9 * SIGMA, mask=BAD[::-1])
    hdus.writeto(tmp_path / 'map.fits')
    fits.writeto(tmp_path / 'error.fits', 1e3 * SIGMA, fits.Header({'BUNIT': 'mJy/pixel'}))
    fits.writeto(tmp_path / 'mask.fits', BAD.astype('u1'))
    files = {'error': tmp_path / 'error.fits', 'mask': tmp_path / 'mask.fits'}
    image, _ = read_image(tmp_path / 'map.fits', mask_hdu='none', **files)
    assert_allclose(image.error, SIGMA, rtol=1e-12)
    assert_array_equal(image.mask, BAD)
    assert image.meta['error_hdu'] == str(tmp_path / 'error.fits')
    image = parse_image(DATA * u.Jy / u.pix, **files)
    assert_allclose(image.error, SIGMA, rtol=1e-12)


def test_weight_file_of_noirlab_is_an_inverse_variance(tmp_path):
    keywords = {'PROCTYPE': 'Stacked', 'PRODTYPE': 'wtmap'}
    fits.writeto(tmp_path / 'oow.fits', 1 / SIGMA**2, fits.Header(keywords))
    fits.writeto(
        tmp_path / 'ood.fits', BAD.astype('i2'), fits.Header(keywords | {'PRODTYPE': 'dqmask'})
    )
    image = parse_image(DATA, error=tmp_path / 'oow.fits', mask=tmp_path / 'ood.fits')
    assert_allclose(image.error, SIGMA, rtol=1e-12)
    assert_array_equal(image.mask, BAD)


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'error_hdu': 'none such'}, "there is no extension 'none such'"),
        ({'error_hdu': 'small'}, r"'small' has shape \(3, 6\), the image has \(5, 6\)"),
        ({'plane': 1}, 'no cube of which a plane could be taken'),
        ({'hdu': 'image', 'plane': 1}, r'plane must be one number .* \(5, 6\); got 1'),
    ],
)
def test_wrong_choice_gets_one_sentence(options, sentence):
    hdus = file_of(extension(DATA, 'image'), extension(DATA[:3], 'small'))
    with pytest.raises(ValueError, match=sentence):
        read_parts(hdus, **options)


def test_errors_in_a_unit_that_does_not_fit_are_refused_unless_ignored():
    hdus = file_of(extension(DATA, 'image', BUNIT='Jy'), extension(SIGMA, 'error', BUNIT='K'))
    with pytest.raises(ValueError, match=r'errors of .* in K, .* map \(Jy\).*--ignore-errors'):
        read_parts(hdus)
    assert read_parts(hdus, ignore_errors=True).error is None
    assert parse_image(hdus, error=0.1 * u.Jy).error[0, 0] == 0.1


def test_uncertainty_of_unknown_type_is_left_out_with_a_warning():
    hdus = file_of(extension(DATA, 'image'), extension(SIGMA, 'UNCERT', UTYPE='unknown'))
    with pytest.warns(AstropyUserWarning, match="of the type 'unknown', .* left out"):
        assert read_parts(hdus).error is None


# Units


@pytest.mark.parametrize(
    ('primary', 'image', 'unit'),
    [
        ({'BUNIT': 'MJy/sr'}, {}, u.MJy / u.sr),
        ({'BUNIT': 'MJy/sr'}, {'BUNIT': 'Jy/pixel'}, u.Jy / u.pix),
        ({}, {'QTTY____': 'Jy/beam'}, u.Jy / u.beam),
        ({}, {'BUNIT': 'JY/BEAM'}, u.Jy / u.beam),
        ({}, {'BUNIT': 'ELECTRONS/S'}, u.electron / u.s),
        ({}, {'BUNIT': 'COUNTS'}, u.ct),
    ],
)
def test_unit_is_found(primary, image, unit):
    assert read_parts(file_of(extension(DATA, 'image', **image), **primary)).unit == unit


def test_unit_can_be_given():
    hdus = file_of(extension(DATA, 'image', BUNIT='Jy/pixel'))
    assert read_parts(hdus, unit='mJy/beam').unit == u.mJy / u.beam


# Cubes

CUBE = np.stack([0 * DATA, DATA, 2 * DATA])


@pytest.mark.parametrize(
    'hdus',
    [
        fits.HDUList([fits.PrimaryHDU(CUBE)]),
        fits.HDUList([fits.PrimaryHDU(CUBE[None])]),
        file_of(extension(CUBE, 'image')),
    ],
    ids=['primary', 'four axes', 'extension'],
)
@pytest.mark.parametrize('plane', [1, [1], -2])
def test_plane_of_a_cube_is_read(hdus, plane):
    check(hdus, error=None, mask=None, plane=plane)
    assert_array_equal(parse_image(hdus, plane=plane).data, DATA)


def test_errors_and_masks_of_a_plane_are_read():
    hdus = file_of(
        extension(CUBE, 'SCI'),
        extension(CUBE / 10, 'ERR'),
        extension(BAD, 'mask'),
    )
    check(hdus, plane=1)


def test_cube_without_a_plane_is_named():
    with pytest.raises(ValueError, match=r"'SCI' is a cube of shape \(3, 5, 6\).*by plane="):
        read_parts(file_of(extension(CUBE, 'SCI')))
    with pytest.raises(ValueError, match='has no plane 3; its planes are 0 to 2'):
        read_parts(file_of(extension(CUBE, 'SCI')), plane=3)


def test_plane_of_arrays_is_taken():
    ccd = CCDData(CUBE, unit='Jy', mask=CUBE > 27, uncertainty=StdDevUncertainty(CUBE / 10))
    image = parse_image(ccd, plane=1)
    assert_array_equal(image.data, DATA)
    assert_array_equal(image.mask, BAD)
    assert_allclose(image.error, SIGMA, rtol=1e-12)


# Files of strangers


def chips():
    """Two detectors in one file, as of HST; the second has what the first has not."""
    hdus = [fits.PrimaryHDU(header=fits.Header({'TELESCOP': 'HST'}))]
    for i in (1, 2):
        hdus += [
            fits.ImageHDU(DATA * i, name='SCI', ver=i),
            fits.ImageHDU(np.full(DATA.shape, 0.5 * i), name='ERR', ver=i),
        ]
    return fits.HDUList(hdus)


def test_one_of_several_detectors_is_named_by_its_version(tmp_path):
    with pytest.warns(AstropyUserWarning, match='holds 2 images, the extensions 1, 3; 1 is used'):
        assert read_parts(chips()).error[0, 0] == 0.5
    parts = read_parts(chips(), hdu='SCI,2')
    assert_array_equal(parts.data, 2 * DATA)
    assert parts.error[0, 0] == 1
    chips().writeto(tmp_path / 'm.fits')
    for name in ('m.fits[SCI,2]', 'm.fits[3]'):
        assert_array_equal(read_image(tmp_path / name)[0].data, 2 * DATA)
        assert_array_equal(parse_image(str(tmp_path / name)).error, parts.error)
    with pytest.raises(ValueError, match="there is no extension 'SCI,3'"):
        read_parts(chips(), hdu='SCI,3')


@pytest.mark.parametrize(
    ('name', 'value', 'expected'),
    [('m.rms.fits', 2, 2), ('m.var.fits', 4, 2), ('m_ivar.fits', 0.25, 2), ('errors.fits', 2, 2)],
)
def test_name_of_a_file_tells_the_kind_of_its_errors(tmp_path, name, value, expected):
    fits.PrimaryHDU(np.full(DATA.shape, float(value))).writeto(tmp_path / name)
    found = parse_image(DATA, error=tmp_path / name).error
    assert_array_equal(found, np.full(DATA.shape, expected))


@pytest.mark.parametrize('name', ['m.weight.fits', 'm_wht.fits'])
def test_file_of_weights_is_not_taken_for_errors(tmp_path, name):
    fits.PrimaryHDU(np.ones(DATA.shape)).writeto(tmp_path / name)
    with pytest.raises(ValueError, match='holds weights, by its name, and not errors'):
        parse_image(DATA, error=tmp_path / name)


@pytest.mark.parametrize('value', [0, -1])
def test_errors_that_are_not_positive_are_unknown(value):
    error = np.ones(DATA.shape)
    error[2, 3] = value
    found = parse_image(DATA, error=error).error
    assert np.isnan(found[2, 3])
    assert np.isfinite(found).sum() == DATA.size - 1
    assert error[2, 3] == value


def test_detected_pixels_of_rubin_are_good_without_the_names_of_the_planes():
    mask = np.zeros(DATA.shape, 'i4')
    mask[1, 1], mask[2, 2] = 32, 1
    hdus = [fits.PrimaryHDU(), extension(DATA, 'IMAGE'), extension(mask, 'MASK')]
    hdus.append(extension(np.ones(DATA.shape), 'VARIANCE'))
    found = read_parts(fits.HDUList(hdus)).mask
    assert (found[1, 1], found[2, 2]) == (False, True)


def test_map_may_be_a_pair_of_an_array_and_a_header():
    wcs = tangent_wcs(DATA.shape, 3.0)
    for other in (wcs, wcs.to_header()):
        assert parse_image((DATA, other)).pixel_scale == pytest.approx(3)


def test_quantity_with_a_wcs_keeps_it():
    """As the projections of spectral-cube."""

    class Projection(u.Quantity):
        pass

    data = (DATA * u.K).view(Projection)
    data.wcs, data.header = tangent_wcs(DATA.shape, 3.0), fits.Header({'RESTFRQ': 1e11})
    image = parse_image(data)
    assert image.pixel_scale == pytest.approx(3)
    assert image.header['RESTFRQ'] == 1e11


def test_remote_file_is_not_downloaded():
    with pytest.raises(ValueError, match=r'no such file: .*; nothing is downloaded'):
        parse_image('https://example.org/map.fits')
