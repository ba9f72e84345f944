import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable
from astropy.utils.exceptions import AstropyUserWarning
from numpy.testing import assert_array_equal

from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator
from csr_astro.removal import make_estimator, remove_file
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import gaussian_profile

SPIRE = fits.Header({'INSTRUME': 'SPIRE', 'WAVELNTH': 250.0})
SOURCES = [(40.0, 30.0), (70.0, 60.0)]


@pytest.fixture
def path(tmp_path):
    data = np.random.default_rng(0).normal(5, 1, (90, 100))
    fits.PrimaryHDU(data, SPIRE).writeto(tmp_path / 'map.fits')
    return tmp_path / 'map.fits'


@pytest.fixture
def options(weights):
    return {'weights': weights, 'orientations': 1}


def test_header_tells_the_instrument_if_nothing_else_does(weights):
    told = []
    estimator = make_estimator(SPIRE, announce=told.append, weights=weights)
    assert estimator.instrument.name == 'spire-250'
    assert told == ['spire-250']
    estimator = make_estimator(SPIRE, announce=told.append, weights=weights, fwhm=3 * u.pix)
    assert estimator.instrument.name == 'generic'
    assert told == ['spire-250']
    with pytest.raises(ValueError, match='the header does not tell the instrument'):
        make_estimator(fits.Header(), weights=weights)


def test_another_instrument_than_that_of_the_header_is_warned_of(weights):
    with pytest.warns(AstropyUserWarning, match='is that of spire-250; it is treated as spire-350'):
        make_estimator(SPIRE, instrument='spire-350', weights=weights)


@pytest.mark.parametrize('as_file', [False, True])
def test_files_hold_what_the_estimator_and_the_photometry_return(path, tmp_path, options, as_file):
    output, table, fluxes = (tmp_path / name for name in ('a.fits', 'a.csv', 'fluxes.ecsv'))
    sources = SOURCES
    if as_file:
        sources = tmp_path / 'catalog.ecsv'
        QTable(np.array(SOURCES), names=('x', 'y')).write(sources)
    result = remove_file(
        path, sources, output, table=table, photometry={'apertures': 4.0},
        photometry_table=fluxes, mask_radius=6, **options,
    )  # fmt: skip
    estimator = NeuralBackgroundEstimator(**options, instrument='spire-250')
    expected = estimator.estimate(fits.getdata(path), SOURCES, mask_radius=6)
    assert_array_equal(result.background, expected.background)
    assert_array_equal(fits.getdata(output), expected.background)
    assert_array_equal(QTable.read(table)['snr'], expected.sources['snr'])
    photometry = InpaintedAperturePhotometry(4.0, estimator=estimator)
    assert_array_equal(QTable.read(fluxes)['flux'], photometry(expected)['flux'])


def test_another_function_can_estimate(path, tmp_path, options):
    seen = {}

    def estimate(path, sources, *, estimator, **arguments):
        seen.update(arguments, path=path)
        return estimator.estimate(np.zeros((90, 100)), sources)

    remove_file(
        path, SOURCES, tmp_path / 'a.fits', table=tmp_path / 'a.ecsv', errors=False,
        estimate=estimate, **options,
    )  # fmt: skip
    assert seen == {'path': path, 'hdu': None, 'mask_radius': None, 'errors': False}
    with fits.open(tmp_path / 'a.fits') as hdus:
        assert (hdus[0].data[hdus['CSR_MASK'].data > 0] == 0).all()


def test_nothing_takes_its_name_if_one_file_fails(path, tmp_path, options):
    with pytest.raises(ValueError, match='must end in one of'):
        remove_file(
            path, SOURCES, tmp_path / 'a.fits', table=tmp_path / 'a.ecsv',
            photometry={'apertures': 4.0}, photometry_table=tmp_path / 'fluxes.doc', **options,
        )  # fmt: skip
    assert [each.name for each in tmp_path.iterdir()] == ['map.fits']


@pytest.mark.parametrize('realization', [None, 3])
def test_fitted_sources_are_subtracted(path, tmp_path, options, realization):
    data = fits.getdata(path).astype(float)
    profile = gaussian_profile(18.2 / 6)
    data = inject_sources(data, *np.transpose(SOURCES), [900.0, 500.0], profile)
    fits.PrimaryHDU(data, SPIRE).writeto(path, overwrite=True)
    output, table, fluxes = (tmp_path / name for name in ('a.fits', 'a.ecsv', 'fluxes.ecsv'))
    positions = [*SOURCES, (-40.0, 3.0)]
    found = remove_file(
        path, positions, output, table=table, photometry={'shape': 'point'}, subtract=True,
        photometry_table=fluxes, realization=realization, psf=profile, **options,
    )  # fmt: skip
    with fits.open(output) as hdus:
        assert_array_equal(hdus[0].data, found.background)
        assert_array_equal(np.unique(hdus['CSR_MASK'].data), [0, 2])
        assert_array_equal(hdus['CSR_MASK'].data == 2, found.mask)
        assert_array_equal(hdus['CSR_RMS'].data, found.background_rms)
        history = ' '.join(hdus[0].header['HISTORY'])
    assert 'Fits subtracted, not inpainted: 2 sources (CSR_MASK is 2)' in history
    assert_array_equal(QTable.read(table)['subtracted'], [True, True, False])
    assert_array_equal(QTable.read(table)['flux'], QTable.read(fluxes)['flux'])
    # A second removal says that the sources are gone.
    with pytest.warns(AstropyUserWarning, match='an earlier removal filled'):
        again = remove_file(
            output, SOURCES, tmp_path / 'b.fits', table=tmp_path / 'b.ecsv',
            photometry={'shape': 'point'}, subtract=True, **options,
        )  # fmt: skip
    assert not again.subtracted.any()


@pytest.mark.parametrize('photometry', [None, {'apertures': 4.0}])
def test_subtraction_needs_fits(path, tmp_path, options, photometry):
    with pytest.raises(ValueError, match='subtract needs photometry by fit'):
        remove_file(
            path, SOURCES, tmp_path / 'a.fits', table=tmp_path / 'a.ecsv', subtract=True,
            photometry=photometry, **options,
        )  # fmt: skip
