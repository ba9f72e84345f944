import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from helpers_commands import PIXELS, SOURCES, hdu_bytes
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro import (
    InpaintedAperturePhotometry,
    InpaintedPSFPhotometry,
    NeuralBackgroundEstimator,
)

PHOTOMETRY = ['photometry', 'map.fits', *PIXELS, '--apertures']


@pytest.mark.parametrize(
    ('apertures', 'radii'),
    [('6arcsec', 6 * u.arcsec), ('5arcsec,6arcsec', [5, 6] * u.arcsec), ('4,5.5', [4, 5.5]),
     ('4', 4.0), ('6"', 6 * u.arcsec), ('0.1 arcmin', 6 * u.arcsec)],
)  # fmt: skip
def test_photometry_agrees_with_the_class(run, map_path, tmp_path, weights, apertures, radii):
    code, out, _ = run('photometry', map_path, *PIXELS, '--apertures', apertures, '--annulus')
    assert code == 0
    path = tmp_path / 'map_photometry.ecsv'
    assert out.splitlines()[-1] == f'2 of 2 sources measured: {path}'
    assert 'annulus_flux' in out
    assert ' ... ' not in out
    estimator = NeuralBackgroundEstimator(weights, orientations=1, instrument='pacs-scanmap-blue')
    photometry = InpaintedAperturePhotometry(radii, estimator=estimator, annulus='instrument')
    with fits.open(map_path) as hdus:
        expected = photometry(hdus, SOURCES)
    table = QTable.read(path)
    assert table.colnames == expected.colnames
    for name in expected.colnames:
        if 'flux' in name:
            assert table[name].unit == u.Jy
            assert_array_equal(table[name], expected[name])


@pytest.mark.parametrize(
    ('correction', 'fraction'), [('none', 1), ('vesta', 0.704962), ('0.5', 0.5), (None, 0.64246825)]
)
def test_photometry_takes_corrections(run, map_path, tmp_path, correction, fraction):
    options = [] if correction is None else ['--aperture-correction', correction]
    path = tmp_path / 'out.csv'
    code, _, _ = run('photometry', map_path, *PIXELS, '--apertures', '6arcsec', '-o', path,
                     *options)  # fmt: skip
    assert code == 0
    table = Table.read(path)
    total, background = (table[f'{name}_sum [Jy / pix]'] for name in ('aperture', 'background'))
    assert_allclose(table['flux [Jy]'], (total - background) / fraction)
    assert not any('annulus' in name for name in table.colnames)


@pytest.mark.parametrize('method', ['psf', 'gaussian'])
@pytest.mark.parametrize('own_psf', [False, True])
def test_fits_agree_with_the_class(run, map_path, tmp_path, weights, method, own_psf):
    psf, options = None, []
    if own_psf:
        psf = tmp_path / 'psf.fits'
        axis = np.arange(-12.0, 13)
        image = fits.PrimaryHDU(np.exp(-(axis**2 + axis[:, None] ** 2) / 4))
        image.header['PIXARCS'] = 1.6
        image.writeto(psf)
        options = ['--psf', psf]
    code, out, err = run('photometry', map_path, *PIXELS, '--method', method, *options)
    assert code == 0, err
    estimator = NeuralBackgroundEstimator(weights, orientations=1, instrument='pacs-scanmap-blue')
    shape = 'point' if method == 'psf' else 'gaussian'
    phot = InpaintedPSFPhotometry(psf, estimator=estimator, shape=shape)
    with fits.open(map_path) as hdus:
        expected = phot(hdus, SOURCES)
    table = QTable.read(tmp_path / 'map_photometry.ecsv')
    assert table.colnames == expected.colnames
    assert_allclose(table['flux'], expected['flux'])
    assert table['flux'].unit == u.Jy
    assert 'over the energy that it holds (eef)' in out
    assert ('fwhm_major' in out) == (method == 'gaussian')
    assert 'flux_init' not in out


def test_table_of_a_removal_is_a_catalog(run, map_path, tmp_path):
    run('remove', map_path, *PIXELS)
    table = tmp_path / 'map_source_free.ecsv'
    code, _, err = run('photometry', map_path, table, '--apertures', 4,
                       '--aperture-correction', 'none')  # fmt: skip
    assert code == 0, err
    assert len(QTable.read(tmp_path / 'map_photometry.ecsv')) == 2


def test_gamma_draconis_is_removed_and_measured(run, shared_data, tmp_path):
    (path,) = (shared_data / 'data' / 'pacs_gamma_dra').glob('*blue*')
    position = ['--position', '269.152 51.489', '--refine', '--orientations', '2']
    clean = tmp_path / 'clean.fits'
    code, out, err = run('remove', path, *position, '-o', clean, options=False)
    assert (code, err) == (0, 'instrument: pacs-scanmap-blue (from the header)\n')
    assert out.startswith('1 of 1 sources removed')
    for name in ('coverage', 'stDev', 'HistoryScript', 'HistoryTasks', 'HistoryParameters'):
        assert hdu_bytes(clean, name) == hdu_bytes(path, name)
    row = QTable.read(tmp_path / 'clean.ecsv')[0]
    with fits.open(clean) as hdus, fits.open(path) as before:
        cleaned, original = hdus['image'].data, before['image'].data
        assert hdus[0].header['WAVELNTH'] == 70
        assert WCS(hdus['image'].header).wcs.compare(WCS(before['image'].header).wcs)
        outside = hdus['CSR_MASK'].data == 0
        assert cleaned[outside].tobytes() == original[outside].tobytes()
        yy, xx = np.indices(original.shape)
        near = np.hypot(xx - row['x_center'], yy - row['y_center']) < 15
        assert original[near].max() > 100 * cleaned[near].max()
    table_path = tmp_path / 'star.ecsv'
    code, _, _ = run('photometry', path, *position, '--apertures', '6arcsec,8arcsec', '-o',
                     table_path, options=False)  # fmt: skip
    assert code == 0
    table = QTable.read(table_path)
    for name in ('flux_0', 'flux_1'):
        assert_allclose(table[name][0].to_value('Jy') / 1.016 / 3.283, 1, atol=0.03)


def test_another_instrument_than_that_of_the_header_is_told(run, map_path):
    with pytest.warns(AstropyUserWarning, match='is that of pacs-scanmap-blue; .* as spire-250'):
        run('photometry', map_path, *PIXELS, '--apertures', '4', '--instrument', 'spire-250')


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ([*PHOTOMETRY, '4,big'], "--apertures: 'big' is neither"),
        ([*PHOTOMETRY, '0'], 'radii must be positive and finite'),
        ([*PHOTOMETRY, '1arcsec'], 'covers radii of'),
        ([*PHOTOMETRY, '4', '--aperture-correction', 'all'], '--aperture-correction must be eef'),
        ([*PHOTOMETRY, '4', '--aperture-correction', '.5,.6'], 'one for each of the 1 apertures'),
        (PHOTOMETRY[:-1], 'give --apertures, or --method psf or gaussian'),
        ([*PHOTOMETRY, '4', '--method', 'psf'], '--apertures and --annulus are for --method aper'),
        ([*PHOTOMETRY, '4', '--psf', 'none.fits'], 'no such file'),
        ([*PHOTOMETRY[:-1], '--method', 'psf', '--psf', 'none.fits'], 'no such file'),
        ([*PHOTOMETRY[:-1], '--method', 'aperture'], 'photometry needs --apertures, or --method'),
        ([*PHOTOMETRY, '4', '-o', 'list.doc'], "the table 'list.doc' must end in one of"),
        ([*PHOTOMETRY, '4', '-o', 'text.csv'], "'text.csv' exists; give --overwrite"),
    ],
)
def test_wrong_input_gets_one_sentence(fails, arguments, sentence):
    fails(arguments, sentence)


def test_extension_may_be_in_brackets_after_the_map(run, map_path, tmp_path):
    with fits.open(map_path) as hdus:
        number = hdus.index_of('image')
    given = [*PIXELS, '--apertures', '4']
    run('photometry', map_path, *given, '--hdu', number, '-o', tmp_path / 'a.csv')
    code, out, _ = run('photometry', f'{map_path}[{number}]', *given)
    assert code == 0
    assert f'sources measured: {tmp_path / "map_photometry.ecsv"}' in out
    one, other = Table.read(tmp_path / 'a.csv'), Table.read(tmp_path / 'map_photometry.ecsv')
    assert_allclose(np.array(other['flux']), np.array(one['flux [Jy]']), rtol=1e-6)


def test_flux_of_a_beam_can_be_left_without_correction(run, map_path, tmp_path):
    fluxes = []
    for kind in ('eef', 'gaussian', 'none'):
        path = tmp_path / f'{kind}.ecsv'
        code, out, _ = run(
            'photometry', map_path, *PIXELS, '--apertures', '6arcsec', '-o', path,
            '--aperture-correction', kind,
        )  # fmt: skip
        assert code == 0
        assert ('nothing added' if kind == 'none' else f'over the enclosed energy ({kind})') in out
        fluxes.append(np.array(Table.read(path)['flux']))
    # 70 um: 0.642 of the energy, and 0.959 of that of a Gaussian of 5.6 arcsec.
    assert_allclose(fluxes[2] / fluxes[0], 0.64246825, rtol=1e-6)
    assert_allclose(fluxes[2] / fluxes[1], 1 - 0.5 ** ((12 / 5.6) ** 2), rtol=1e-6)
