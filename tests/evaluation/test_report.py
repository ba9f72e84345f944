"""Reports, their figures, standard stars, fluxes and strips."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import QTable, Table
from numpy.testing import assert_allclose
from photutils.aperture import CircularAperture

from csr_astro import NeuralBackgroundEstimator, get_instrument
from csr_astro.cli import main
from csr_astro.demo import simulated_field
from csr_astro.evaluation import figures
from csr_astro.evaluation.baselines import get_baselines
from csr_astro.evaluation.flux_recovery import (
    default_apertures,
    flux_levels_of,
    recovered_fluxes,
    summarize_recovery,
)
from csr_astro.evaluation.report import Evaluation, write_report
from csr_astro.evaluation.report_sections import _card
from csr_astro.evaluation.source_strips import source_residuals, source_strip
from csr_astro.evaluation.standard_stars import find_stars, measure_stars, standard_stars
from csr_astro.images import parse_image
from csr_astro.nn.weights import list_weights, read_info
from csr_astro.plotting import source_cutouts
from csr_astro.simulation.field import synthetic_map, tangent_wcs
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import gaussian_profile, instrument_profile

FWHM = 3.5


@pytest.fixture(scope='module')
def simulation():
    """A field, its map with sources and what was made of it by the bundled weights."""
    truth, data, catalog = simulated_field(3)
    result = NeuralBackgroundEstimator(fwhm=FWHM, orientations=1).estimate(data, catalog)
    return truth, result, catalog


# --------------------------------------------------------------------------------------- fluxes


def test_recovered_fluxes_are_those_of_the_photometry(simulation):
    _, result, catalog = simulation
    table = recovered_fluxes(result, catalog['flux'], [4.0, 6.0])
    assert len(table) == 2 * len(result)
    fraction = 1 - np.exp(-4 * np.log(2) * (4.0 / FWHM) ** 2)
    source = np.asarray(result.source_image)
    for i in (0, 7):
        at = result.sources['x_center'][i], result.sources['y_center'][i]
        total = CircularAperture(at, 4.0).do_photometry(source)[0][0]
        expected = total / fraction / catalog['flux'][i]
        assert_allclose(table['network'][i], expected, rtol=1e-6)
    bright = table[(table['snr'] > 50) & (table['aperture'] == 4)]
    assert_allclose(np.median(bright['network']), 1, atol=0.05)
    assert (table['network_err'][:40] > 0).all()


def test_other_methods_see_the_same_pixels(simulation):
    truth, result, catalog = simulation

    def constant(values, valid, hole, x, y, radius):
        del x, y, radius
        assert np.isnan(values[hole]).all()
        assert not (valid & hole).any()
        return np.full(hole.sum(), 12.0)

    table = recovered_fluxes(result, catalog['flux'], [4.0], methods={'constant': constant})
    i = int(np.argmax(catalog['flux']))
    data = np.asarray(result.image.data)
    aperture = CircularAperture((catalog['x'][i], catalog['y'][i]), 4.0)
    fraction = 1 - np.exp(-4 * np.log(2) * (4.0 / FWHM) ** 2)
    expected = aperture.do_photometry(data - 12.0)[0][0] / catalog['flux'][i] / fraction
    assert_allclose(table['constant'][i], expected, rtol=1e-9)
    assert np.isfinite(truth).all()


def test_flux_in_jansky_is_turned_into_the_unit_of_the_map():
    field = synthetic_map('flat', (160, 160), 1, level=5e-3, scatter=0, noise=1e-5, pixel_scale=1.6)
    band = get_instrument('pacs-scanmap-blue')
    data = inject_sources(
        np.asarray(field.data), [80], [80], [0.5], instrument_profile(band.on_pixels(1.6))
    )
    ccd = CCDData(data, unit=field.unit, wcs=field.wcs)
    result = NeuralBackgroundEstimator(instrument=band, orientations=1).estimate(ccd, [(80, 80)])
    table = recovered_fluxes(result, [500] * u.mJy)
    assert_allclose(table['flux'], 0.5, rtol=1e-9)
    assert_allclose(table['network'][2], 1, atol=0.02)
    assert_allclose(table['annulus'][2], 1, atol=0.02)
    with pytest.raises(ValueError, match='one for each of 1 sources'):
        recovered_fluxes(result, [1, 2] * u.mJy)
    with pytest.raises(ValueError, match='must be in Jy'):
        recovered_fluxes(result, [1] * u.s)


def test_default_apertures_follow_the_instrument():
    blue = get_instrument('pacs-scanmap-blue')
    assert_allclose(np.multiply(default_apertures(blue), 1.6), [4, 6, 8, 10, 12, 15, 18])
    assert default_apertures(get_instrument('generic', 4.0))[0] == 3


def test_summary_is_median_and_quartiles_by_level():
    table = QTable({'snr': np.ones(60), 'radius': np.ones(60), 'aperture': np.full(60, 4.0)})
    table['flux'] = np.repeat([1.0, 2.0, 3.0], 20)
    table['network'] = np.random.default_rng(1).normal(1, 0.1, 60)
    table['network'][:5] = np.nan
    summary = summarize_recovery(table)
    assert list(summary['n']) == [15, 20, 20]
    middle = np.asarray(table['network'][20:40])
    assert summary['ratio'][1] == np.median(middle)
    assert_allclose(summary['iqr'][1], np.subtract(*np.percentile(middle, [75, 25])))
    assert 0 < summary['ratio_err'][1] < 0.1


def test_many_fluxes_are_put_into_levels():
    flux = np.geomspace(1, 1000, 50)
    levels = flux_levels_of(flux)
    assert len(np.unique(levels)) == 8
    assert (np.diff(levels) >= 0).all()


# -------------------------------------------------------------------------------------- sources


def test_residuals_are_told_by_their_stated_errors(simulation):
    truth, result, _ = simulation
    table = source_residuals(result, truth)
    i = 4
    mask = result.source_masks[i]
    rows, columns = mask.on_map()
    wrong = (np.asarray(result.background) - truth)[rows, columns].sum()
    error = np.sqrt(np.asarray(result.covariance(i + 1).matrix).sum())
    assert_allclose(table['error'][i], wrong / error, rtol=1e-6)
    assert 0.4 < np.std(table['error']) < 2.5
    assert 'error' not in source_residuals(result).colnames
    with pytest.raises(ValueError, match='truth must be'):
        source_residuals(result, truth[1:])


def test_an_extended_source_is_surprising_at_the_rim():
    noise = np.random.default_rng(2).normal(0, 1, (160, 160))
    places = [(45, 80), (115, 80)]
    data = inject_sources(noise, [45], [80], [300.0], gaussian_profile(3.0))
    data = inject_sources(data, [115], [80], [6000.0], gaussian_profile(14.0))
    result = NeuralBackgroundEstimator(fwhm=3.0, orientations=1).estimate(data, places)
    table = source_residuals(result)
    assert abs(table['rim'][0]) < 4
    assert table['rim'][1] > 2 * abs(table['rim'][0])
    assert table['rim'][1] > 4


def test_strip_is_a_picture_of_the_map(simulation):
    from io import BytesIO

    from matplotlib.image import imread

    truth, result, _ = simulation
    png, titles, ranges = source_strip(result, 0, truth)
    assert titles == ['map', 'masked', 'prediction', 'difference', '1σ error', 'truth']
    assert len(ranges) == 6
    height, width = source_cutouts(result, 0)[1]['map'].shape
    # Six pictures and the gaps between them.
    assert imread(BytesIO(png)).shape[:2] == (height, 6 * width + 5)


def test_source_off_the_map_has_no_strip():
    result = NeuralBackgroundEstimator(fwhm=3.0, orientations=1).estimate(
        np.random.default_rng(1).normal(size=(80, 80)), [(40, 40), (500, 500), (np.nan, 3)]
    )
    assert source_strip(result, 1) == (b'', [], [])
    assert source_strip(result, 2) == (b'', [], [])
    table = source_residuals(result)
    assert np.isnan(table['rim'][1:]).all()
    assert table['flag_names'][2] == 'invalid_position'
    with pytest.raises(ValueError, match='no pixel on the map'):
        result.plot_source(2)
    with pytest.raises(ValueError, match='no source with id 9'):
        result.plot_source(9)


def test_plot_source_has_sky_axes_and_the_unit():
    import matplotlib.pyplot as plt

    wcs = tangent_wcs((90, 90), 2.0)
    ccd = CCDData(np.random.default_rng(1).normal(size=(90, 90)), unit='MJy / sr', wcs=wcs)
    result = NeuralBackgroundEstimator(fwhm=3.0, orientations=1).estimate(ccd, [(40, 50)])
    axes = result.plot_source(1)
    assert len(axes) == 5
    assert axes[0].coords[0].get_axislabel() == 'right ascension'
    # The panel shows the same part of the sky as the map.
    corner = axes[0].wcs.pixel_to_world(0, 0)
    x, y = wcs.world_to_pixel(corner)
    shown = np.asarray(axes[0].images[0].get_array())
    assert_allclose(shown[0, 0], ccd.data[round(float(y)), round(float(x))])
    labels = [each.get_ylabel() for each in axes[0].figure.axes]
    assert any('MJy' in label for label in labels)
    plt.close('all')
    plain = NeuralBackgroundEstimator(fwhm=3.0, orientations=1).estimate(ccd.data, [(40, 50)])
    _, five = plt.subplots(1, 5)
    assert plain.plot_source(1, axes=five)[0].get_xlabel() == 'x [pixel]'
    with pytest.raises(ValueError, match='axes must be five'):
        plain.plot_source(1, axes=five[:2])
    plt.close('all')


# ------------------------------------------------------------------------------- standard stars


def test_table_of_standard_stars_is_the_papers(shared_data):
    stars = standard_stars()
    reference = Table.read(shared_data / 'reference' / 'standard_stars.csv', format='ascii.csv')
    assert len(stars) == len(reference) == 19
    for band in ('70', '100', '160'):
        for column in ('ref', 'ref_err', 'paper'):
            ours = stars[f'{column}_{band}'].value
            theirs = np.ma.filled(reference[f'{column}_{band}_mjy'].astype(float), np.nan)
            assert_allclose(ours, theirs)
    assert_allclose(stars['sky_center'].ra.deg, reference['ra_deg'])


def test_stars_are_found_on_valid_pixels_only():
    wcs = tangent_wcs((60, 60), 10.0, center=(269.152, 51.489))
    data = np.zeros((60, 60))
    assert list(find_stars(parse_image(data, wcs=wcs))['name']) == ['gamma Dra']
    data[25:35, 25:35] = np.nan
    assert not len(find_stars(parse_image(data, wcs=wcs)))
    assert not len(find_stars(parse_image(data)))


def test_gamma_draconis_has_the_flux_of_the_paper(shared_data):
    """As in the paper's Table 5, whose own ratios are 1.000, 1.002 and 1.004."""
    paths = sorted((shared_data / 'data' / 'pacs_gamma_dra').glob('*.fits'))
    table = measure_stars(paths, apertures=[10, 12] * u.arcsec)
    assert len(table) == 8
    assert set(table['name']) == {'gamma Dra'}
    assert set(table['wavelength'].value) == {70, 100, 160}
    assert_allclose(table['ratio'], 1, atol=0.04)
    assert_allclose(table['annulus_ratio'], 1, atol=0.04)
    assert_allclose(table['ratio'], (table['flux'] / table['reference']).value)
    assert (table['ratio_err'] > 0.001).all()
    assert (np.abs(table['ratio'] - 1) < 4 * table['ratio_err']).all()


def test_maps_that_cannot_be_measured_are_refused(tmp_path):
    path = tmp_path / 'map.fits'
    header = tangent_wcs((60, 60), 1.6, center=(269.152, 51.489)).to_header()
    data = np.random.default_rng(1).normal(size=(60, 60))
    fits.writeto(path, data, header)
    with pytest.raises(ValueError, match='tells no band of PACS'):
        measure_stars(path)
    with pytest.raises(ValueError, match='flux per pixel'):
        measure_stars(path, instrument='pacs-scanmap-blue')
    assert len(measure_stars([])) == 0


def test_stars_at_the_shell(shared_data, tmp_path, capsys):
    maps = sorted((shared_data / 'data' / 'pacs_gamma_dra').glob('*blue*.fits'))
    output = tmp_path / 'stars.ecsv'
    assert main(['evaluate', 'stars', *map(str, maps), '-o', str(output)]) == 0
    assert 'gamma Dra' in capsys.readouterr().out
    assert_allclose(Table.read(output)['ratio'], 1, atol=0.03)
    assert main(['evaluate', 'stars', *map(str, maps), '-o', str(output)]) == 1
    assert 'exists' in capsys.readouterr().err
    assert main(['evaluate', 'stars', *map(str, maps), '--apertures', '5']) == 1
    assert 'must be angles' in capsys.readouterr().err


# -------------------------------------------------------------------------------------- reports


class Page(HTMLParser):
    """What a browser would ask the network for, and whether tags are closed."""

    void = frozenset({'meta', 'img', 'br', 'link', 'input'})

    def __init__(self, text):
        super().__init__()
        self.sources, self.links, self.open, self.ids = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.sources += [attrs[name] for name in ('src', 'srcset') if name in attrs]
        self.links += [attrs['href']] if 'href' in attrs else []
        self.ids += [attrs['id']] if 'id' in attrs else []
        if tag == 'img':
            assert attrs['alt']
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_page(folder):
    text = (folder / 'report.html').read_text(encoding='utf-8')
    page = Page(text)
    assert not page.open
    assert all(source.startswith('data:image/png;base64,') for source in page.sources)
    assert not re.search(r'https?://|url\(|@import', text)
    for link in page.links:
        if link.startswith('#'):
            assert link[1:] in page.ids
        else:
            assert (folder / link).is_file(), link
    return text


@pytest.fixture(scope='module')
def folder(simulation, tmp_path_factory):
    truth, result, catalog = simulation
    folder = tmp_path_factory.mktemp('report')
    evaluation = Evaluation(
        result, truth, flux=catalog['flux'], methods=['plane'], number=4, apertures=[3.0, 5.0]
    )
    assert write_report(folder, evaluation, title='A <b>field</b>') == folder / 'report.html'
    return folder


def test_report_needs_no_other_file(folder):
    text = check_page(folder)
    assert 'A &lt;b&gt;field&lt;/b&gt;' in text
    assert '40 of 40 sources' in text
    assert text.count('<article') == 40


def test_report_has_tables_beside_its_pictures(folder, simulation):
    truth, result, catalog = simulation
    names = {path.stem for path in folder.glob('*.ecsv')}
    assert names >= {
        'sources', 'fluxes', 'flux_ratios', 'leave_out', 'leave_out_errors', 'leave_out_ratios',
        'power_spectra', 'delta_variance', 'pixel_moments', 'histogram_masks', 'histogram_map',
        'residuals',
    }  # fmt: skip
    assert {path.stem for path in folder.glob('*.png')} == {
        'maps', 'flux_ratios', 'leave_out', 'power_spectra', 'delta_variance', 'pixel_pdf',
    }  # fmt: skip
    fluxes = QTable.read(folder / 'fluxes.ecsv')
    expected = recovered_fluxes(
        result, catalog['flux'], [3.0, 5.0], methods=get_baselines(['plane'])
    )
    for name in ('network', 'annulus', 'plane'):
        assert_allclose(fluxes[name], expected[name])
    spectra = QTable.read(folder / 'power_spectra.ecsv')
    assert {'original', 'injected', 'source_free', 'realization'} <= set(spectra.colnames)
    # Sources have more power than what is behind them; what replaced them has not.
    middle = len(spectra) // 2
    assert spectra['injected_relative'][middle] > 1
    assert np.abs(spectra['source_free_relative'][middle]) < 0.3
    assert truth.shape == result.image.shape


def test_report_of_a_real_map_has_no_truth(tmp_path):
    data = np.random.default_rng(1).normal(size=(150, 150)) * u.Jy
    sources = [(40, 50), (100, 90), (900, 1)]
    result = NeuralBackgroundEstimator(fwhm=3.0, orientations=1).estimate(data, sources)
    write_report(tmp_path, Evaluation(result, number=3))
    text = check_page(tmp_path)
    assert '2 of 3 sources' in text
    assert 'off the map' in text
    assert not (tmp_path / 'fluxes.ecsv').exists()
    assert (tmp_path / 'leave_out.ecsv').exists()
    with pytest.raises(ValueError, match='exists; overwrite it'):
        write_report(tmp_path, result)
    write_report(tmp_path, Evaluation(result, number=3), overwrite=True)


def test_report_counts_the_flags(tmp_path):
    sky = np.random.default_rng(0).normal(size=(120, 130))
    estimator = NeuralBackgroundEstimator(fwhm=3.5, orientations=1)
    result = estimator.estimate(sky, [(60, 60), (1, 50), (128, 50), (500, 500)], mask_radius=5)
    page = write_report(tmp_path / 'out', Evaluation(result, number=2)).read_text()
    counts = dict(reversed(each) for each in re.findall(r'(\d+) × <b>(\w+)</b>', page))
    assert counts == {'off_map': '1', 'edge': '2'}


def test_report_of_a_small_map_says_what_cannot_be_told(tmp_path):
    data = np.random.default_rng(1).normal(size=(12, 12))
    result = NeuralBackgroundEstimator(fwhm=2.0, orientations=1).estimate(data, [(6, 6)])
    write_report(tmp_path, result)
    text = check_page(tmp_path)
    assert 'No discs of radius' in text
    assert 'No power spectrum: a map must have at least 16 x 16 pixels' in text


def test_report_without_sources(tmp_path):
    data = np.random.default_rng(1).normal(size=(90, 90))
    result = NeuralBackgroundEstimator(fwhm=2.0, orientations=1).estimate(
        data, np.zeros((0, 2))
    )
    write_report(tmp_path, Evaluation(result, number=2))
    assert 'There are no sources' in check_page(tmp_path)


def test_bad_evaluations_are_refused(simulation, tmp_path):
    truth, result, _ = simulation
    with pytest.raises(ValueError, match='truth must have'):
        write_report(tmp_path, Evaluation(result, truth[:50]))
    with pytest.raises(ValueError, match='number must be at least 2'):
        write_report(tmp_path, Evaluation(result, number=1))
    with pytest.raises(ValueError, match='simulations must be'):
        Evaluation.injected(truth, result.estimator, simulations=0)
    assert not list(tmp_path.iterdir())


def test_report_at_the_shell(weights, tmp_path, capsys):
    field = synthetic_map('lognormal', (200, 200), 1, noise=0.1, pixel_scale=3.0)
    path = tmp_path / 'map.fits'
    header = field.wcs.to_header()
    header['BUNIT'] = 'Jy/pixel'
    fits.writeto(path, np.asarray(field.data), header)
    command = ['evaluate', 'report', str(path), '--inject', '1', '--fwhm', '10arcsec',
               '--weights', str(weights), '--orientations', '1', '--number', '2',
               '--apertures', '12arcsec,6', '-o', str(tmp_path / 'report')]  # fmt: skip
    assert main(command) == 0
    check_page(tmp_path / 'report')
    fluxes = QTable.read(tmp_path / 'report' / 'fluxes.ecsv')
    assert_allclose(np.unique(fluxes['aperture']), [4, 6])
    assert main(command) == 1
    assert 'exists' in capsys.readouterr().err
    assert main([*command, '--pixel', '3', '4', '--overwrite']) == 1
    assert 'not both' in capsys.readouterr().err
    assert main(['evaluate', 'report', '-o', str(tmp_path / 'other')]) == 1
    assert 'a MAP with a CATALOG' in capsys.readouterr().err
    assert not (tmp_path / 'other').exists()


def test_report_of_a_simulation_that_was_written(weights, tmp_path):
    simulated = tmp_path / 'simulated'
    assert main(['simulate', '--field', 'lognormal', '--shape', '200', '200', '--instrument',
                 'pacs-parallel-blue', '--random', '1', '--number', '6', '-o',
                 str(simulated)]) == 0  # fmt: skip
    (catalog,) = simulated.glob('*random*.ecsv')
    truth, = simulated.glob('*_truth.fits')
    assert main(['evaluate', 'report', str(catalog.with_suffix('.fits')), str(catalog),
                 '--truth', str(truth), '--instrument', 'pacs-parallel-blue', '--weights',
                 str(weights), '--orientations', '1', '--number', '2', '-o',
                 str(tmp_path / 'report')]) == 0  # fmt: skip
    check_page(tmp_path / 'report')
    fluxes = QTable.read(tmp_path / 'report' / 'fluxes.ecsv')
    assert len(np.unique(fluxes['id'])) == 6


def test_card_is_that_of_the_bundled_weights():
    for name in list_weights():
        card = _card(read_info(name).sha256)
        assert set(card['scatter_over_annulus']) == {'5', '9', '12'}
        assert 0 < card['within_1_sigma'] < card['within_2_sigma'] < 1


# -------------------------------------------------------------------------------------- figures


def test_figures_change_no_settings_of_matplotlib(folder):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    table = QTable.read(folder / 'fluxes.ecsv')
    figure = figures.plot_flux_ratios(table)
    assert dict(mpl.rcParams) == before
    assert figure.get_figwidth() == figures.PAGE


def test_figures_fit_a_column_and_can_be_read(folder):
    figure = figures.plot_delta_variance({'original': _delta(folder)})
    assert figure.get_figwidth() == figures.COLUMN
    sizes = [text.get_fontsize() for text in figure.axes[0].texts]
    assert all(size >= 6 for size in sizes)
    assert figure.axes[0].xaxis.label.get_fontsize() >= 7


def _delta(folder):
    table = QTable.read(folder / 'delta_variance.ecsv')
    delta = QTable({'lag': table['lag']})
    delta['delta_variance'] = table['original']
    delta['delta_variance_err'] = table['original_err']
    return delta


def test_boxes_hold_the_quartiles():
    rng = np.random.default_rng(1)
    table = QTable({'id': np.arange(200), 'aperture': np.full(200, 4.0)})
    table['flux'] = np.repeat([10.0, 20.0], 100)
    table['network'] = rng.normal(1, 0.05, 200)
    table['annulus'] = rng.normal(1, 0.1, 200)
    ax = figures.plot_flux_ratios(table).axes[0]
    boxes = [patch for patch in ax.patches if hasattr(patch, 'get_path')]
    found = boxes[0].get_path().vertices[:, 1]
    assert_allclose(
        [found.min(), found.max()], np.percentile(table['network'][:100], [25, 75]), rtol=1e-9
    )


def test_colours_are_told_apart_without_colour():
    """Lines, markers and hatches differ between any two."""
    for k in (1, 2, 3):
        values = [str(each[k]) for each in figures._STYLES]
        assert len(set(values)) == len(values)


def test_a_map_looks_alike_in_all_figures():
    names = ['original', 'source_free', 'realization', 'mine', 'other']
    few, many = dict(figures._styled(names[1:3])), dict(figures._styled(names))
    assert few['source_free'] == many['source_free']
    assert len({style[0] for style in many.values()}) == len(names)


def test_coordinates_of_the_table_are_on_the_sky():
    assert isinstance(standard_stars()['sky_center'], SkyCoord)
