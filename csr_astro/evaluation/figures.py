"""Figures of an evaluation, for the column of a paper.

Every function takes tables of this package and returns a `~matplotlib.figure.Figure`. Colours can
be told apart by colour-blind readers, and lines, markers and hatches in grey.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u

from csr_astro.evaluation.flux_recovery import flux_levels_of, ratio_columns
from csr_astro.plotting import require_matplotlib

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from astropy.table import QTable, Table
    from matplotlib.figure import Figure

__all__ = [
    'COLUMN',
    'PAGE',
    'label',
    'plot_delta_variance',
    'plot_flux_agreement',
    'plot_flux_ratios',
    'plot_leave_out',
    'plot_pixel_pdf',
    'plot_power_spectra',
    'style',
]


#: Widths of a column and of a page of a journal, in inches.
COLUMN, PAGE = 3.46, 7.09
# Colours of Okabe & Ito, each with a dash, a marker and a hatch.
_STYLES = (
    ('#0072b2', '-', 'o', ''),
    ('#d55e00', '--', 's', '////'),
    ('#000000', ':', '^', 'xxxx'),
    ('#009e73', '-.', 'v', '....'),
    ('#cc79a7', (0, (5, 1, 1, 1, 1, 1)), 'D', '\\\\\\\\'),
    ('#e69f00', (0, (1, 1)), 'P', 'oo'),
)
_LABELS = {
    'original': 'original',
    'injected': 'with sources',
    'source_free': 'sources removed',
    'realization': 'realization',
    'annulus_median': 'annulus',
    'lpi': 'LPI',
}
# Number of the style of each name.
_PLACES = {
    'original': 0,
    'network': 0,
    'injected': 1,
    'annulus': 1,
    'annulus_median': 1,
    'source_free': 2,
    'realization': 3,
}
# The axis of ratios is linear within this distance of 1 and logarithmic beyond: faint sources
# scatter a hundred times more than bright ones. Ticks on either side of 1, and the largest range.
_LINEAR, _TICKS, _FARTHEST = 0.02, (0.02, 0.1, 0.5), 1.0
# Fewest values that are drawn as a box; fewer are drawn as points.
_FEWEST = 10


@contextmanager
def style() -> Iterator[None]:
    """Fonts and lines for print, inside a ``with`` block only.

    Examples
    --------
    >>> from csr_astro.evaluation.figures import style
    >>> with style():
    ...     pass  # figures that are made here look like those of the report
    """
    matplotlib = require_matplotlib()
    settings = {
        'font.size': 8,
        'axes.titlesize': 8,
        'axes.labelsize': 8,
        'xtick.labelsize': 7,
        'ytick.labelsize': 7,
        'legend.fontsize': 7,
        'legend.frameon': False,
        'lines.linewidth': 1.1,
        'lines.markersize': 3.5,
        'axes.linewidth': 0.7,
        'hatch.linewidth': 0.5,
        'savefig.dpi': 200,
    }
    with matplotlib.rc_context(settings):
        yield


def _figure(width, height, rows=1, columns=1, **options):
    Figure = require_matplotlib('matplotlib.figure').Figure
    figure = Figure(figsize=(width, height), layout='constrained')
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def label(name: str) -> str:
    """Name of a map or method in figures and text.

    Parameters
    ----------
    name : str
        Name of a column or a map.

    Examples
    --------
    >>> from csr_astro.evaluation.figures import label
    >>> label('source_free')
    'sources removed'
    """
    return _LABELS.get(name, name.replace('_', ' '))


def _unit(unit):
    if unit in (None, u.dimensionless_unscaled):
        return ''
    # A prime is easily missed.
    return ' [arcmin]' if unit == u.arcmin else f' [{unit.to_string("latex_inline")}]'


def _styled(names):
    """Yield names with their styles; a known name has the same style in all figures."""
    free = [k for k in range(len(_STYLES)) if k not in map(_PLACES.get, names)] or [0]
    for name in names:
        place = _PLACES.get(name)
        if place is None:
            place = free[0]
            free = [*free[1:], place]
        yield name, _STYLES[place]


# --------------------------------------------------------------------------------- photometry


def plot_flux_ratios(
    table: QTable, *, pixel_scale: float | None = None, methods: Sequence[str] | None = None
) -> Figure:
    """Plot measured over injected flux per flux level, a panel per aperture.

    As the paper's Figs. 11 and 12. Boxes are quartiles, whiskers the 5th and 95th
    percentiles; fewer than ten values are drawn as points. Triangles are values outside the
    panel. The axis of ratios is linear within 0.02 of 1, and logarithmic beyond.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        As from `~csr_astro.evaluation.flux_recovery.recovered_fluxes`; its column ``level``,
        if there is one, names the levels, in mJy.
    pixel_scale : float, optional
        Arcsec per pixel, for the titles.
    methods : sequence of str, optional
        Columns to show; all by default.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`

    Examples
    --------
    >>> from astropy.table import QTable
    >>> from csr_astro.evaluation.figures import plot_flux_ratios
    >>> table = QTable({'flux': [2.0, 2.0, 9.0], 'level': [2.0, 2.0, 9.0], 'aperture': [4.0] * 3,
    ...                 'network': [0.98, 1.03, 1.0]})
    >>> figure = plot_flux_ratios(table)
    >>> len(figure.axes)
    1
    """
    methods = ratio_columns(table) if methods is None else list(methods)
    known = 'level' in table.colnames
    levels = np.asarray(table['level'] if known else flux_levels_of(table['flux']))
    chosen = np.unique(levels)
    apertures = np.unique(table['aperture'])
    columns = min(2, len(apertures))
    rows = -(-len(apertures) // columns)
    with style():
        figure, axes = _figure(
            PAGE if columns == 2 else COLUMN, 0.4 + 1.7 * rows, rows, columns, sharex=True
        )
        for ax, aperture in zip(axes.flat, apertures, strict=False):
            here = np.asarray(table['aperture']) == aperture
            _boxes(ax, table[here], levels[here], chosen, methods)
            size = f'{aperture:.3g} pixels'
            if pixel_scale is not None:
                size = f'{aperture * pixel_scale:.3g}″'
            ax.set_title(f'aperture of {size}', pad=3)
        for ax in axes.flat[len(apertures) :]:
            ax.set_axis_off()
            # The panel above has none below it that carries the labels of the axis.
            above = axes[-2, axes.shape[1] - 1]
            above.tick_params(labelbottom=True)
        figure.supylabel('measured / injected flux', fontsize=8)
        figure.supxlabel('injected flux' + (' [mJy]' if known else ' [sum of the map]'), fontsize=8)
        drawn = [patch for ax in axes.flat for patch in ax.patches]
        boxes = any(isinstance(each, _patches().PathPatch) for each in drawn)
        make = _patch if boxes else _point
        handles = [make(name, each) for name, each in _styled(methods)]
        figure.legend(handles=handles, loc='outside upper center', ncols=len(handles))
    return figure


def plot_flux_agreement(table: QTable, pixel_scale: float | None = None) -> Figure:
    """Flux by fit over flux by aperture against SNR, a colour per aperture.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        As from `~csr_astro.evaluation.measured_fluxes.measured_fluxes`.
    pixel_scale : float, optional
        Arcsec per pixel, for the legend.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`

    Examples
    --------
    >>> from astropy.table import QTable
    >>> from csr_astro.evaluation.figures import plot_flux_agreement
    >>> table = QTable({'aperture': [4.0] * 2, 'snr': [9.0, 90.0], 'ratio': [0.98, 1.03],
    ...                 'ratio_err': [0.1, 0.01]})
    >>> len(plot_flux_agreement(table).axes)
    1
    """
    with style():
        figure, axes = _figure(PAGE, 2.4)
        ax = axes[0, 0]
        for k, aperture in enumerate(np.unique(table['aperture'])):
            rows = table[table['aperture'] == aperture]
            size = f'{aperture:.3g} pixels'
            if pixel_scale is not None:
                size = f'{aperture * pixel_scale:.3g}″'
            color, _, marker, _ = _STYLES[k % len(_STYLES)]
            ax.errorbar(rows['snr'], rows['ratio'], rows['ratio_err'], linestyle='none',
                        color=color, marker=marker, elinewidth=0.6, label=size)  # fmt: skip
        ax.axhline(1, color='0.55', linewidth=0.8, zorder=0)
        near = np.asarray(table['ratio'])
        low, high = np.nanpercentile(near[np.isfinite(near)], [5, 95])
        ax.set(xscale='log', xlabel='SNR of the peak', ylabel='fit / aperture',
               ylim=(min(low, 0.9) - 0.1, max(high, 1.1) + 0.1))  # fmt: skip
        figure.legend(loc='outside upper center', ncols=7, title='aperture')
    return figure
def _patches():
    return require_matplotlib('matplotlib.patches')


def _patch(name, each):
    color, _, _, hatch = each
    return _patches().Patch(facecolor=color if not hatch else 'white', edgecolor=color,
                            hatch=hatch, label=label(name))  # fmt: skip


def _point(name, each):
    Line2D = require_matplotlib('matplotlib.lines').Line2D
    color, _, marker, _ = each
    return Line2D([], [], color=color, marker=marker, linestyle='', markerfacecolor='none',
                  label=label(name))  # fmt: skip


def _boxes(ax, table, levels, chosen, methods):
    width = 0.8 / len(methods)
    ends, points = [], []
    for k, (name, (color, _, marker, hatch)) in enumerate(_styled(methods)):
        ratio = np.array(table[name], dtype=float)
        samples = [ratio[(levels == level) & np.isfinite(ratio)] for level in chosen]
        places = np.arange(len(chosen)) + (k - (len(methods) - 1) / 2) * width
        many = np.array([len(s) >= _FEWEST for s in samples])
        ends += [np.percentile(s, [10, 90]) for s in samples if len(s)]
        for place, sample in zip(places[~many], (s for s in samples if len(s) < _FEWEST),
                                 strict=True):  # fmt: skip
            # Side by side, so that equal values are seen.
            across = place + np.linspace(-0.3, 0.3, len(sample)) * width * (len(sample) > 1)
            points.append((across, sample, color, marker))
        if not many.any():
            continue
        boxes = ax.boxplot(
            [s for s in samples if len(s) >= _FEWEST], positions=places[many],
            widths=0.85 * width, whis=(5, 95), showfliers=False, patch_artist=True,
            manage_ticks=False,
            medianprops={'color': 'black' if hatch else 'white', 'linewidth': 1.2},
            whiskerprops={'color': color, 'linewidth': 0.8},
            capprops={'color': color, 'linewidth': 0.8},
        )  # fmt: skip
        for box in boxes['boxes']:
            box.set(facecolor='white' if hatch else color, edgecolor=color, hatch=hatch,
                    linewidth=0.8)  # fmt: skip
    ax.axhline(1, color='0.4', linewidth=0.7, zorder=0)
    every = slice(None, None, -(-len(chosen) // 12))  # labels that do not overlap
    ax.set_xticks(np.arange(len(chosen))[every], [_plain(level) for level in chosen[every]])
    ax.set_yscale('function', functions=(_to_axis, _from_axis))
    ax.set_yticks(
        [1 - tick for tick in _TICKS[::-1]] + [1] + [1 + tick for tick in _TICKS],
        [f'{1 - tick:g}' for tick in _TICKS[::-1]] + ['1'] + [f'{1 + tick:g}' for tick in _TICKS],
    )
    reach = np.max(np.abs(np.array(ends) - 1)) if ends else 0.0
    reach = np.clip(1.3 * reach, 2 * _LINEAR, _FARTHEST)
    ax.set_ylim(1 - reach, 1 + reach)
    for across, sample, color, marker in points:
        inside = np.abs(sample - 1) <= reach
        ax.plot(across[inside], sample[inside], marker, color=color, markerfacecolor='none')
        for sign, beyond, end in (
            ('^', sample > 1 + reach, 1 + 0.95 * reach), ('v', sample < 1 - reach, 1 - 0.95 * reach)
        ):  # fmt: skip
            ax.plot(across[beyond], np.full(beyond.sum(), end), sign, color=color)


def _to_axis(ratio):
    return np.arcsinh((np.asarray(ratio) - 1) / _LINEAR)


def _from_axis(value):
    return 1 + _LINEAR * np.sinh(value)


def _plain(value):
    """Text of a number with three digits, without an exponent."""
    return f'{value:.0f}' if value >= 100 else f'{value:.3g}'


def plot_leave_out(errors: Table, methods: Sequence[str] | None = None) -> Figure:
    """Plot errors of the background behind discs where the map is known.

    Parameters
    ----------
    errors : `~astropy.table.Table`
        As from `~csr_astro.evaluation.accuracy.background_errors`.
    methods : sequence of str, optional
        Columns to show; ``network`` and the annulus by default.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        Left: distribution of the errors over the scatter of the ring × area. Right: errors of
        the network over its stated errors, and the normal distribution. Notes say how many
        errors are beyond the axes.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.accuracy import background_errors
    >>> from csr_astro.evaluation.baselines import get_baselines
    >>> from csr_astro.evaluation.figures import plot_leave_out
    >>> from csr_astro.evaluation.positions import draw_positions
    >>> groups = {'noise': [np.random.default_rng(0).normal(size=(160, 160))]}
    >>> positions = draw_positions(groups, [5], n=9)
    >>> errors = background_errors(groups, positions, get_baselines(['plane']))
    >>> figure = plot_leave_out(errors, ['plane'])
    >>> len(figure.axes)
    2
    """
    if methods is None:
        methods = [name for name in ('network', 'annulus_median') if name in errors.colnames]
    with style():
        figure, axes = _figure(PAGE, 2.2, 1, 2)
        local = np.where(np.array(errors['local']) > 0, errors['local'], np.nan)
        scaled = {name: np.array(errors[name]) / local for name in methods}
        everything = np.concatenate([s[np.isfinite(s)] for s in scaled.values()])
        reach = np.percentile(np.abs(everything), 97) if len(everything) else 1.0
        edges = np.linspace(-reach, reach, 32)
        for name, (color, dash, _, hatch) in _styled(methods):
            axes[0, 0].hist(
                np.clip(scaled[name], -reach, reach), edges, density=True, histtype='stepfilled',
                facecolor=(*_rgb(color), 0.25), edgecolor=color, linestyle=dash, hatch=hatch,
                label=label(name), linewidth=1.1,
            )  # fmt: skip
        axes[0, 0].axvline(0, color='0.4', linewidth=0.7)
        axes[0, 0].set(xlabel='error of the sum / (ring scatter × area)',
                       ylabel='probability density', title='discs without sources')  # fmt: skip
        _say_clipped(axes[0, 0], everything, reach)
        _legend(axes[0, 0])
        _plot_pulls(axes[0, 1], errors)
    return figure


def _say_clipped(ax, values, reach):
    """Say how many values are beyond the axis, and counted in the outermost bins."""
    beyond = np.mean(np.abs(values) > reach) if len(values) else 0
    if beyond:
        ax.annotate(f'{beyond:.1%} beyond, in the outermost bins', (0.02, 0.98), va='top',
                    xycoords='axes fraction', fontsize=6, color='0.3',
                    bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 1})  # fmt: skip
        # Room for the note above the curves.
        ax.set_ylim(top=1.25 * ax.get_ylim()[1])


def _legend(ax, **options):
    """Draw a legend on a white ground, which curves do not cross."""
    legend = ax.legend(frameon=True, framealpha=0.85, edgecolor='none', **options)
    legend.set_zorder(5)


def _rgb(color):
    return require_matplotlib('matplotlib.colors').to_rgb(color)


def _plot_pulls(ax, errors):
    if 'network_err' not in errors.colnames:
        ax.set_axis_off()
        return
    with np.errstate(divide='ignore', invalid='ignore'):
        pull = np.array(errors['network']) / np.array(errors['network_err'])
    pull = pull[np.isfinite(pull)]
    edges = np.linspace(-4, 4, 33)
    ax.hist(np.clip(pull, -4, 4), edges, density=True, histtype='stepfilled',
            facecolor=(*_rgb(_STYLES[0][0]), 0.25), edgecolor=_STYLES[0][0], label='network')
    x = np.linspace(-4, 4, 200)
    ax.plot(x, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), color='black', linestyle='--',
            label='normal')  # fmt: skip
    ax.set(xlabel='error of the sum / stated error', ylabel='probability density',
           title='errors over stated errors')  # fmt: skip
    _say_clipped(ax, pull, 4)
    _legend(ax)


# ----------------------------------------------------------------------------------- structure


def plot_power_spectra(
    spectra: QTable, *, marks: Mapping[str, u.Quantity] | None = None, reference: str = 'original'
) -> Figure:
    """Plot power spectra of several versions of a map, and their differences.

    Parameters
    ----------
    spectra : `~astropy.table.QTable`
        As from `~csr_astro.evaluation.power_spectrum.power_spectra`; ``meta['maps']`` names
        the columns.
    marks : dict of str to Quantity, optional
        Lengths to mark, such as the beam; in the unit of the inverse frequency.
    reference : str, optional
        The map that others are compared with; the first if there is none of that name.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.figures import plot_power_spectra
    >>> from csr_astro.evaluation.power_spectrum import power_spectra
    >>> noise = np.random.default_rng(0).normal(size=(64, 64))
    >>> figure = plot_power_spectra(power_spectra({'original': noise, 'source_free': 0.9 * noise}))
    >>> len(figure.axes)
    2
    """
    from csr_astro.evaluation.power_spectrum import spectra_difference

    names = list(spectra.meta['maps'])
    reference = reference if reference in names else names[0]
    k = u.Quantity(spectra['frequency'])
    with style():
        figure, axes = _figure(PAGE, 2.7, 1, 2)
        spectrum, ratio = axes[0]
        for name, (color, dash, marker, _) in _styled(names):
            power, error = (u.Quantity(spectra[column]).value for column in (name, f'{name}_err'))
            positive = power > 0
            if name == reference:
                low, high = np.maximum(power - error, 0.1 * power), power + error
                spectrum.fill_between(
                    k.value[positive], low[positive], high[positive], color='0.85', zorder=0
                )
            spectrum.plot(
                k.value[positive], power[positive], color=color, linestyle=dash, marker=marker,
                markerfacecolor='none', label=label(name), markevery=2,
            )  # fmt: skip
            if name != reference:
                difference = spectra_difference(spectra, name, reference)['relative']
                ratio.plot(k.value, difference, color=color, linestyle=dash, marker=marker,
                           markerfacecolor='none', label=label(name))  # fmt: skip
        unit = u.Quantity(spectra[names[0]]).unit
        spectrum.set(xscale='log', yscale='log', ylabel='power' + _unit(unit))
        ratio.set(xscale='log', ylabel=f'power / {label(reference)} − 1')
        ratio.set_yscale('symlog', linthresh=0.01, linscale=1.0)
        ratio.axhline(0, color='0.4', linewidth=0.7)
        for ax in (spectrum, ratio):
            ax.set_xlabel('spatial frequency' + _unit(k.unit))
            _round_ticks(ax.xaxis)
            _mark(ax, marks, k.unit)
            _scale_axis(ax, k.unit)
        handles, _ = spectrum.get_legend_handles_labels()
        figure.legend(handles=handles, loc='outside lower center', ncols=len(handles))
    return figure


def _round_ticks(axis):
    """Labels at 1, 2 and 5 of each decade, without exponents."""
    ticker = require_matplotlib('matplotlib.ticker')
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f'{value:g}'))
    axis.set_minor_formatter(ticker.NullFormatter())


def _mark(ax, marks, unit):
    """Mark the frequencies of lengths by lines."""
    low, high = ax.get_xlim()
    for name, length in (marks or {}).items():
        place = (1 / u.Quantity(length)).to_value(unit)
        if low < place < high:
            _mark_place(ax, place, name, top=True)


def _mark_place(ax, place, name, *, top):
    """Mark a place on the x axis by a line with a name, on a ground that covers curves."""
    ax.axvline(place, color='0.55', linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    ax.text(
        place, 0.98 if top else 0.02, name, transform=ax.get_xaxis_transform(), rotation=90,
        va='top' if top else 'bottom', ha='center', fontsize=6, color='0.3', zorder=4,
        bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 1},
    )  # fmt: skip


def _scale_axis(ax, unit):
    """Add an axis of lengths, the inverse of frequencies, on top."""

    def invert(values):
        with np.errstate(divide='ignore'):
            return 1 / np.asarray(values, dtype=float)

    top = ax.secondary_xaxis('top', functions=(invert, invert))
    top.set_xlabel('scale' + _unit(unit**-1))
    _round_ticks(top.xaxis)


def plot_delta_variance(
    tables: Mapping[str, QTable], *, marks: Mapping[str, u.Quantity] | None = None
) -> Figure:
    """Plot the Δ-variance of several versions of a map.

    Parameters
    ----------
    tables : dict of str to `~astropy.table.QTable`
        As from `~csr_astro.evaluation.power_spectrum.delta_variance`, by the map's name.
    marks : dict of str to Quantity, optional
        Lengths to mark.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.figures import plot_delta_variance
    >>> from csr_astro.evaluation.power_spectrum import delta_variance
    >>> noise = np.random.default_rng(0).normal(size=(64, 64))
    >>> figure = plot_delta_variance({'original': delta_variance(noise)})
    >>> len(figure.axes)
    1
    """
    with style():
        figure, axes = _figure(COLUMN, 2.7)
        ax = axes[0, 0]
        for name, (color, dash, marker, _) in _styled(list(tables)):
            table = tables[name]
            lag, value, error = (
                u.Quantity(table[column])
                for column in ('lag', 'delta_variance', 'delta_variance_err')
            )
            ax.errorbar(
                lag.value, value.value, error.value if name == next(iter(tables)) else None,
                color=color, linestyle=dash, marker=marker, markerfacecolor='none', capsize=1.5,
                elinewidth=0.7, label=label(name),
            )  # fmt: skip
        ax.set(xscale='log', yscale='log', xlabel='lag' + _unit(lag.unit),
               ylabel='Δ-variance' + _unit(value.unit))  # fmt: skip
        low, high = ax.get_xlim()
        for name, length in (marks or {}).items():
            place = u.Quantity(length).to_value(lag.unit)
            if low < place < high:
                _mark_place(ax, place, name, top=False)
        _round_ticks(ax.xaxis)
        _legend(ax)
    return figure


def plot_pixel_pdf(
    histograms: Sequence[QTable], titles: Sequence[str] | None = None, *, log: bool = False
) -> Figure:
    """Plot histograms of pixels, a panel per table.

    Parameters
    ----------
    histograms : list of `~astropy.table.QTable`
        As from `~csr_astro.evaluation.pixel_pdf.pixel_histogram`.
    titles : list of str, optional
        Titles of the panels.
    log : bool, optional
        Whether densities are on a logarithmic axis.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.figures import plot_pixel_pdf
    >>> from csr_astro.evaluation.pixel_pdf import pixel_histogram
    >>> noise = np.random.default_rng(0).normal(size=(64, 64))
    >>> figure = plot_pixel_pdf([pixel_histogram({'original': noise})])
    >>> len(figure.axes)
    1
    """
    with style():
        wide = len(histograms) > 1
        figure, axes = _figure(PAGE if wide else COLUMN, 2.4, 1, len(histograms))
        for k, (ax, table) in enumerate(zip(axes[0], histograms, strict=True)):
            names = [name for name in table.colnames[2:] if not name.endswith('_err')]
            edges = u.Quantity([*table['low'], table['high'][-1]])
            for name, (color, dash, _, _) in _styled(names):
                density = u.Quantity(table[name])
                ax.stairs(density.value, edges.value, color=color, linestyle=dash,
                          label=label(name), linewidth=1.1)  # fmt: skip
            normalized = edges.unit == u.dimensionless_unscaled
            ax.set(
                xlabel='η = ln(I / ⟨I⟩)' if normalized and k else 'pixel value' + _unit(edges.unit),
                ylabel='probability density',
            )
            if log:
                ax.set_yscale('log')
            if titles is not None:
                ax.set_title(titles[k])
            _legend(ax)
    return figure
