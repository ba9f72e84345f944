"""Tests of how objects show themselves."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from astropy import units as u

from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator, get_instrument
from csr_astro.error_window import PredictedSource
from csr_astro.evaluation.report import Evaluation
from csr_astro.evaluation.report_sections import Section
from csr_astro.images import parse_image
from csr_astro.kriging.ordinary import Kriging
from csr_astro.nn.weights import read_info
from csr_astro.simulation.dataset import CutoutDataset, write_dataset
from csr_astro.simulation.field import tangent_wcs
from csr_astro.simulation.psf import Profile, gaussian_profile
from csr_astro.simulation.simulate import simulate_map
from csr_astro.sources import parse_sources
from csr_astro.training.data import CutoutSampler
from csr_astro.utils.representation import html_table


@pytest.fixture(scope='module')
def shown(weights, tmp_path_factory):
    """One object of each public class that has something to show."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(90, 100)) * u.Jy / u.pix
    wcs = tangent_wcs(data.shape, 1.6)
    estimator = NeuralBackgroundEstimator(weights, instrument='pacs-scanmap-blue', orientations=1)
    result = estimator.estimate(data, [(50, 40), (1, 60), (300, 5)], wcs=wcs)
    simulation = simulate_map(data.value, 300, instrument='generic', number=2)
    folder = tmp_path_factory.mktemp('dataset')
    write_dataset(folder, [simulation], size=48)
    errors = result.errors
    kriging = Kriging(data.value[:65, :65], np.ones((65, 65), dtype=bool), 5.0)
    return {
        'NeuralBackground': result,
        'NeuralBackgroundEstimator': estimator,
        'InpaintedAperturePhotometry': InpaintedAperturePhotometry(
            [5, 6] * u.arcsec, estimator=estimator, annulus=(10, 15)
        ),
        'WeightsInfo': read_info(weights),
        'Instrument': result.instrument,
        'Image': result.image,
        'Sources': parse_sources([(50, 40)]),
        'SourceMask': result.source_masks[1],
        'BackgroundErrors': errors,
        'BackgroundCovariance': result.covariance(1),
        'PredictedSource': errors.sources[0],
        'Kriging': kriging,
        'Variogram': kriging.variogram,
        'Evaluation': Evaluation(result, truth=data),
        'Section': Section('Fluxes', 'fluxes'),
        'Profile': Profile(gaussian_profile(3.5), radius=9),
        'Simulation': simulation,
        'CutoutDataset': CutoutDataset(folder),
        'CutoutSampler': CutoutSampler({'map': [data.value]}, seed=3),
    }


@pytest.mark.parametrize(
    ('name', 'told'),
    [
        ('NeuralBackground', '90 x 100 map in Jy / pix, 3 sources, [0-9]+ pixels'),
        ('NeuralBackgroundEstimator', "instrument='pacs-scanmap-blue'"),
        ('InpaintedAperturePhotometry', 'apertures=.*5.*6'),
        ('WeightsInfo', 'width 0.125, sha256 [0-9a-f]{12}>'),
        ('Instrument', "'pacs-scanmap-blue': beam of 3.5 pixels of 1.6 arcsec"),
        ('Image', 'with wcs'),
        ('Sources', 'Sources: 1>'),
        ('SourceMask', 'from x=0, .*clipped'),
        ('BackgroundErrors', '2 sources'),
        ('BackgroundCovariance', 'pixels in Jy2 / pix2'),
        ('PredictedSource', 'x=50, y=40'),
        ('Kriging', 'Variogram: noise'),
        ('Variogram', 'between neighbours'),
        ('Evaluation', '3 sources.*truth known'),
        ('Section', "'Fluxes': 0 files of figures"),
        ('Profile', 'up to 9 pixels'),
        ('Simulation', '2 sources, generic'),
        ('CutoutDataset', '2 cutouts'),
        ('CutoutSampler', '1 maps of 1 kinds'),
    ],
)
def test_representations_are_short_and_telling(shown, name, told):
    text = repr(shown[name])
    assert text.startswith(f'<{name}')
    assert re.search(told, text)
    assert '\n' not in text
    assert len(text) < 400


class Table(HTMLParser):
    """Cells of a table whose tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag in ('table', 'thead', 'tbody', 'tr', 'th', 'td')
        assert {name for name, _ in attrs} <= {'colspan', 'style'}
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.cells += [data] if data.strip() else []


@pytest.mark.parametrize(
    ('name', 'cells'),
    [
        (
            'NeuralBackground',
            ['1.6 arcsec', 'pacs-scanmap-blue', '2 of 3 sources (1 could not be, see flags)'],
        ),
        ('NeuralBackgroundEstimator', ['3.5 pixels', 'default', 'float32']),
        ('InpaintedAperturePhotometry', ['exact', '5.0 arcsec, 6.0 arcsec']),
        ('WeightsInfo', ['0.125', 'local']),
        ('Instrument', ['scanmap,blue', '1.6 arcsec']),
        ('Simulation', ['2', 'generic']),
    ],
)
def test_notebooks_get_a_table(shown, name, cells):
    found = Table(shown[name]._repr_html_()).cells
    assert set(cells) <= set(found)


def test_flags_and_masks_are_counted(shown):
    found = ' '.join(Table(shown['NeuralBackground']._repr_html_()).cells)
    assert '1 edge' in found
    assert '1 off_map' in found
    assert '2 minimal' in found


def test_names_of_users_are_no_markup():
    evil = '<script>alert("x")</script>'
    assert Table(html_table(evil, {evil: evil, 'none': None, 'empty': ''})).cells == [evil] * 3
    instrument = replace(get_instrument('pacs-scanmap-blue'), name=evil, description=evil)
    assert '<script' not in instrument._repr_html_()
    result = NeuralBackgroundEstimator(instrument=instrument).estimate(np.ones((40, 40)), [])
    assert '<script' not in result._repr_html_()


def test_nothing_to_show_is_shown():
    assert repr(parse_image(np.zeros((3, 4)))) == '<Image: 3 x 4 map>'
    flat = Kriging(np.zeros((33, 33)), np.ones((33, 33), dtype=bool), 5.0)
    assert repr(flat) == '<Kriging: a window that does not vary>'
    result = NeuralBackgroundEstimator(fwhm=3.3).estimate(np.zeros((40, 40)), [])
    assert '0 of 0 sources' in result._repr_html_()
    source = PredictedSource(1.5, 2.0, None, 0.0, np.zeros(4))
    assert repr(source) == '<PredictedSource: x=1.5, y=2, 4 pixels>'
