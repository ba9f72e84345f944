"""Figures of an evaluation."""

import matplotlib as mpl
import numpy as np
import pytest
from astropy.table import QTable
from numpy.testing import assert_allclose

from csr_astro.evaluation import figures
from csr_astro.evaluation.baselines import get_baselines
from csr_astro.evaluation.discs import background_errors
from csr_astro.evaluation.pixel_pdf import pixel_histogram
from csr_astro.evaluation.positions import draw_positions
from csr_astro.evaluation.power_spectrum import delta_variance, power_spectra

NAMES = ('original', 'injected', 'source_free', 'realization', 'mine', 'other')


@pytest.fixture(scope='module')
def maps():
    """Maps of several names."""
    rng = np.random.default_rng(3)
    return {name: rng.normal(size=(64, 64)) for name in NAMES}


@pytest.fixture(scope='module')
def fluxes():
    """Ratios of two methods for two flux levels."""
    rng = np.random.default_rng(1)
    table = QTable({'id': np.arange(200), 'aperture': np.full(200, 4.0)})
    table['flux'] = np.repeat([10.0, 20.0], 100)
    table['network'] = rng.normal(1, 0.05, 200)
    table['annulus'] = rng.normal(1, 0.1, 200)
    return table


def styles(axes):
    """Colour and marker of the labelled lines of some axes."""
    return {
        line.get_label(): (line.get_color(), line.get_marker())
        for line in axes.get_lines()
        if not line.get_label().startswith('_')
    }


def test_figures_change_no_settings_of_matplotlib(fluxes):
    before = dict(mpl.rcParams)
    figure = figures.plot_flux_ratios(fluxes)
    assert dict(mpl.rcParams) == before
    assert figure.get_figwidth() == figures.COLUMN


def test_figures_fit_a_column_and_can_be_read(maps):
    figure = figures.plot_delta_variance({'original': delta_variance(maps['original'])})
    assert figure.get_figwidth() == figures.COLUMN
    sizes = [text.get_fontsize() for text in figure.axes[0].texts]
    assert all(size >= 6 for size in sizes)
    assert figure.axes[0].xaxis.label.get_fontsize() >= 7


def test_two_apertures_take_a_page(fluxes):
    fluxes = fluxes.copy()
    fluxes['aperture'][::2] = 6.0
    assert figures.plot_flux_ratios(fluxes).get_figwidth() == figures.PAGE


def test_boxes_hold_the_quartiles(fluxes):
    ax = figures.plot_flux_ratios(fluxes).axes[0]
    boxes = [patch for patch in ax.patches if hasattr(patch, 'get_path')]
    found = boxes[0].get_path().vertices[:, 1]
    assert_allclose(
        [found.min(), found.max()], np.percentile(fluxes['network'][:100], [25, 75]), rtol=1e-9
    )


def test_few_values_are_points(fluxes):
    few = fluxes[[0, 1, 100]]
    few['network'] = [0.97, 1.02, 0.9]
    few['annulus'] = [1.01, 5.0, 1.1]  # one is far outside
    ax = figures.plot_flux_ratios(few).axes[0]
    assert not [patch for patch in ax.patches if hasattr(patch, 'get_path')]
    shown = {
        marker: np.hstack([line.get_ydata() for line in ax.lines if line.get_marker() == marker])
        for marker in 'os^'
    }
    assert_allclose(np.sort(shown['o']), [0.9, 0.97, 1.02])
    assert_allclose(np.sort(shown['s']), [1.01, 1.1])
    assert_allclose(shown['^'] - 1, 0.95 * (ax.get_ylim()[1] - 1))


def test_clipped_histograms_say_so():
    groups = {'noise': [np.random.default_rng(0).normal(size=(160, 160))]}
    errors = background_errors(groups, draw_positions(groups, [5], 9), get_baselines(['plane']))
    errors['network'], errors['network_err'] = errors['plane'], np.abs(errors['local'])
    errors['network'][0] = 100 * errors['local'][0]
    for ax in figures.plot_leave_out(errors, ['network', 'plane']).axes:
        (note,) = [text.get_text() for text in ax.texts]
        assert note.endswith('% beyond, in the outermost bins')
    assert not len(figures.plot_leave_out(errors[1:]).axes[1].texts)


def test_lines_are_told_apart_without_colour(maps):
    found = styles(figures.plot_power_spectra(power_spectra(maps)).axes[0])
    assert list(found) == [figures.label(name) for name in NAMES]
    assert len({marker for _, marker in found.values()}) == len(NAMES)


def test_boxes_are_told_apart_without_colour(fluxes):
    legend = figures.plot_flux_ratios(fluxes).legends[0]
    assert len({patch.get_hatch() for patch in legend.get_patches()}) == 2


def test_a_map_looks_alike_in_all_figures(maps):
    few = {name: maps[name] for name in ('source_free', 'realization')}
    found = [styles(figures.plot_power_spectra(power_spectra(each)).axes[0])
             for each in (maps, few)]  # fmt: skip
    for name in map(figures.label, few):
        assert found[0][name] == found[1][name]


def test_histograms_have_a_panel_each(maps):
    table = pixel_histogram({name: maps[name] for name in NAMES[:3]})
    figure = figures.plot_pixel_pdf([table, table], ['one', 'two'], log=True)
    assert [ax.get_title() for ax in figure.axes] == ['one', 'two']
    assert figure.axes[0].get_yscale() == 'log'


def test_left_out_discs_show_errors_and_pulls():
    groups = {'noise': [np.random.default_rng(0).normal(size=(160, 160))]}
    errors = background_errors(groups, draw_positions(groups, [5], 9), get_baselines(['plane']))
    errors['network'], errors['network_err'] = errors['plane'], np.abs(errors['local'])
    figure = figures.plot_leave_out(errors, ['network', 'plane'])
    assert figure.axes[0].get_legend_handles_labels()[1] == ['network', 'plane']
    assert figure.axes[1].get_legend_handles_labels()[1] == ['network', 'normal']
