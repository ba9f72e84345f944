"""Reports of one map."""

import re

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable
from helpers_evaluation import check_page
from numpy.testing import assert_allclose

from csr_astro import NeuralBackgroundEstimator
from csr_astro.evaluation.baselines import get_baselines
from csr_astro.evaluation.flux_recovery import (
    recovered_fluxes,
)
from csr_astro.evaluation.report import Evaluation, write_report


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
    for kind, begin in (('png', b'\x89PNG'), ('pdf', b'%PDF')):
        paths = list(folder.glob(f'*.{kind}'))
        assert {path.stem for path in paths} == {
            'maps', 'flux_ratios', 'leave_out', 'power_spectra', 'delta_variance', 'pixel_pdf',
        }  # fmt: skip
        assert all(path.read_bytes().startswith(begin) for path in paths)
    fluxes = QTable.read(folder / 'fluxes.ecsv')
    expected = recovered_fluxes(
        result, catalog['flux'], [3.0, 5.0], methods=get_baselines(['plane'])
    )
    for name in ('network', 'fit', 'annulus', 'plane'):
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
    assert len(QTable.read(tmp_path / 'measured.ecsv')) == 3 * 4
    assert 'Fluxes by aperture and by fit' in text
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
