"""Sections of a report, in their order.

A section is a function of an `~csr_astro.evaluation.report.Evaluation`; a new one is added to
`SECTIONS`.
"""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.table import QTable, vstack
from astropy.wcs import WCS

from csr_astro.evaluation import figures
from csr_astro.evaluation.accuracy import background_errors
from csr_astro.evaluation.baselines import get_baselines
from csr_astro.evaluation.flux_recovery import (
    energy_fraction,
    flux_levels_of,
    recovered_fluxes,
    summarize_recovery,
)
from csr_astro.evaluation.measured_fluxes import measured_fluxes, summarize_agreement
from csr_astro.evaluation.pixel_pdf import disc_moments, pixel_histogram
from csr_astro.evaluation.positions import draw_positions
from csr_astro.evaluation.power_spectrum import (
    delta_variance,
    fit_power_law,
    power_spectra,
    spectra_difference,
)
from csr_astro.evaluation.source_strips import row_strip, source_residuals
from csr_astro.evaluation.standard_stars import find_stars, star_rows
from csr_astro.evaluation.statistics import coverage, scatter_ratios, summarize
from csr_astro.flags import FLAGS, NOT_INPAINTED
from csr_astro.plotting import require_matplotlib
from csr_astro.simulation.units import to_millijansky
from csr_astro.utils.data import read_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from astropy.table import Table
    from matplotlib.figure import Figure

__all__ = ['SECTIONS', 'Section']


# Radii of left-out discs and of their aperture, as in the cards of the weights.
_RADII, _APERTURE = (5.0, 9.0, 12.0), 4.0
# Largest number of strips on a page, so that phones can show it.
_STRIPS = 300


@dataclass
class Section:
    """A part of the report.

    Attributes
    ----------
    title : str
        Heading.
    name : str
        Name of its anchor in the page and of its files.
    body : list of str
        Parts of HTML, in their order.
    figures : dict of str to bytes
        Files of the figures (PNG and PDF) that are written beside the page, by their names.
    tables : dict of str to `~astropy.table.Table`
        Tables that are written beside the page, by name.

    Examples
    --------
    >>> from csr_astro.evaluation.report_sections import Section
    >>> section = Section('Fluxes', 'fluxes')
    >>> section.say('Measured < injected.')
    >>> section.body
    ['<p>Measured &lt; injected.</p>']
    """

    title: str
    name: str
    body: list = field(default_factory=list)
    figures: dict = field(default_factory=dict)
    tables: dict = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f'<Section {self.title!r}: {len(self.figures)} files of figures, '
            f'{len(self.tables)} tables>'
        )

    def say(self, text: str) -> None:
        """Add a paragraph of plain text.

        Parameters
        ----------
        text : str
            The text, which is escaped.
        """
        self.body.append(f'<p>{html.escape(text)}</p>')

    def show(self, name: str, figure: Figure, caption: str, *, column: bool = False) -> None:
        """Add a figure.

        Parameters
        ----------
        name : str
            Name of the file.
        figure : `~matplotlib.figure.Figure`
            The figure.
        caption : str
            Plain text, which is escaped.
        column : bool, optional
            Whether the figure is as narrow as a column of text.
        """
        for kind in ('png', 'pdf'):
            buffer = BytesIO()
            figure.savefig(buffer, format=kind, dpi=200)
            self.figures[f'{name}.{kind}'] = buffer.getvalue()
        image = base64.b64encode(self.figures[f'{name}.png']).decode()
        caption = html.escape(caption)
        kind = ' class="column"' if column else ''
        self.body.append(
            f'<figure{kind}><img alt="{caption}" src="data:image/png;base64,{image}">'
            f'<figcaption>{caption} (<a href="{name}.png">PNG</a>, '
            f'<a href="{name}.pdf">PDF</a>)</figcaption></figure>'
        )

    def tabulate(self, name: str, table: Table, columns: Sequence[str] | None = None) -> None:
        """Add a table: all columns to its file, some to the page.

        Parameters
        ----------
        name : str
            Name of the file.
        table : `~astropy.table.Table`
            The table.
        columns : sequence of str, optional
            Columns for the page.
        """
        self.tables[name] = table
        if columns is not None:
            self.body.append(_html_table(table[list(columns)]))
        self.body.append(
            f'<p class="soft">All numbers: <a href="{name}.ecsv">{name}.ecsv</a></p>'
        )


def _html_table(table):
    """Table of a few rows as HTML, with numbers to three digits."""
    heads = ''.join(f'<th>{html.escape(name.replace("_", " "))}{_in(table[name])}</th>'
                    for name in table.colnames)  # fmt: skip
    rows = ''.join(
        '<tr>' + ''.join(f'<td>{_cell(table[name][i])}</td>' for name in table.colnames) + '</tr>'
        for i in range(len(table))
    )
    return f'<div class="table"><table><tr>{heads}</tr>{rows}</table></div>'


def _in(column):
    unit = getattr(column, 'unit', None)
    return '' if unit in (None, u.dimensionless_unscaled) else f' [{html.escape(str(unit))}]'


def _cell(value):
    value = getattr(value, 'value', value)
    if isinstance(value, float | np.floating):
        return '' if np.isnan(value) else f'{value:.3g}' if abs(value) < 1000 else f'{value:.0f}'
    return html.escape(figures.label(value) if isinstance(value, str) else str(value))


# ---------------------------------------------------------------------- sections, in their order


def _overview(evaluation):
    result = evaluation.result
    section = Section('Summary', 'overview')
    sources, image = result.sources, result.image
    removed = (np.asarray(sources['flags']) & NOT_INPAINTED) == 0
    valid = evaluation.valid
    share = (result.mask & valid).sum() / max(valid.sum(), 1)
    section.say(
        f'{removed.sum()} of {len(sources)} sources were removed from a map of {image.shape[0]} × '
        f'{image.shape[1]} pixels; their masks cover {100 * share:.2g} % of its valid pixels. '
        + ('The background behind them is known, because the sources were injected.'
           if evaluation.truth is not None else
           'The background behind them is not known; the accuracy of the prediction is measured at '
           'places without sources.')
    )  # fmt: skip
    for flag in FLAGS:
        count = np.count_nonzero(np.asarray(sources['flags']) & flag.bit)
        if count:
            section.body.append(
                f'<p class="soft">{count} × <b>{flag.name}</b>: {html.escape(flag.description)}</p>'
            )
    with figures.style():
        Figure = require_matplotlib('matplotlib.figure').Figure
        ny, nx = image.shape
        figure = Figure(
            figsize=(figures.PAGE, np.clip(figures.PAGE / 3.4 * ny / nx, 1.8, 5.0)),
            layout='constrained',
        )
        projection = {'projection': image.wcs} if isinstance(image.wcs, WCS) else {}
        axes = figure.subplots(1, 3, sharex=True, sharey=True, subplot_kw=projection)
        result.plot(axes=axes)
    section.show(
        'maps', figure,
        f'The map, the map without its {len(sources)} sources on the same colour scale, and the '
        'difference on an asinh scale, which shows faint sources beside bright ones.',
    )  # fmt: skip
    section.tables['sources'] = sources
    section.body.append('<p class="soft">All sources: <a href="sources.ecsv">sources.ecsv</a></p>')
    return section


def _fluxes(evaluation):
    if evaluation.flux is None:
        return None
    section = Section('Flux recovery', 'fluxes')
    methods = get_baselines(evaluation.methods)
    fraction = None if evaluation.psf is None else partial(energy_fraction, evaluation.psf)

    parts = []
    simulations = [(evaluation.result, evaluation.flux), *evaluation.more]
    for number, (result, flux) in enumerate(simulations):
        part = recovered_fluxes(
            result, flux, evaluation.apertures, fraction=fraction, methods=methods,
            psf=evaluation.psf,
        )  # fmt: skip
        part['level'] = np.tile(to_millijansky(flux), len(part) // max(len(result), 1))
        part['map'] = number
        parts.append(part)
    table = vstack(parts, metadata_conflicts='silent')
    table['level'] = flux_levels_of(table['level'])
    summary = summarize_recovery(table, seed=evaluation.seed)
    section.say(
        'Measured over injected flux: in apertures on the predicted background (network), by fits '
        'of the PSF (fit; the same in all apertures), and in apertures by the classical annulus of '
        'the instrument. A ratio of 1 is right.'
    )
    bright = summary[summary['snr'] >= 10]
    for name in ('network', 'fit', 'annulus'):
        rows = bright[bright['method'] == name]
        if len(rows):
            section.say(
                f'{name.capitalize()}: at peak contrasts (snr) above 10, the median ratios of the '
                f'flux levels and apertures are between {min(rows["ratio"]):.3f} and '
                f'{max(rows["ratio"]):.3f}.'
            )
    figure = figures.plot_flux_ratios(table, pixel_scale=evaluation.result.image.pixel_scale)
    n_sources = len(table) // len(np.unique(table['aperture']))
    section.show(
        'flux_ratios', figure,
        f'Measured over injected flux of {n_sources} sources, a panel for each aperture. Boxes: '
        'quartiles, with the median and whiskers from the 5th to the 95th percentile. Points: '
        'single sources, for levels with fewer than ten. Filled triangles: values outside the '
        'panel. The axis is linear between 0.98 and 1.02 and logarithmic beyond.',
    )  # fmt: skip
    section.tables['fluxes'] = table
    section.tabulate('flux_ratios', summary)
    return section


def _measured(evaluation):
    if evaluation.flux is not None:
        return None
    section = Section('Fluxes by aperture and by fit', 'measured')
    table = measured_fluxes(evaluation.result, evaluation.apertures)
    summary = summarize_agreement(table)
    if not np.isfinite(table['ratio']).any():
        section.say('No source was measured in both ways.')
        return section
    section.say(
        'The flux by a fit of the PSF over that in an aperture on the predicted background, which '
        'is divided by the enclosed energy. The table is of sources with more than 10 times the '
        'error in both. Sources that are larger than the PSF, or have companions, lie below 1.'
    )
    figure = figures.plot_flux_agreement(table, evaluation.result.image.pixel_scale)
    section.show('measured', figure, 'Flux by fit over flux in an aperture.')
    section.tables['measured'] = table
    section.tabulate('agreement', summary, summary.colnames)
    link = '<a href="measured.ecsv">measured.ecsv</a>'
    section.body.append(f'<p class="soft">All sources: {link}</p>')
    return section


def _leave_out(evaluation):
    result = evaluation.result
    section = Section('Accuracy of the background on this map', 'leave-out')
    data = np.asarray(result.image.data, dtype=float)
    values = np.where(evaluation.valid & ~result.mask, data, np.nan)
    group = {'map': [values]}
    parts = []
    for radius in _RADII:
        try:
            parts.append(draw_positions(
                group, [radius], evaluation.number, aperture=_APERTURE, seed=evaluation.seed
            ))
        except ValueError as error:
            section.say(f'No discs of radius {radius:g} pixels: {error}')
    if not parts:
        return section
    positions = vstack(parts, metadata_conflicts='silent')
    methods = {'network': _on_pixels(result)} | get_baselines(
        ['annulus_median', *(name for name in evaluation.methods if name != 'annulus_median')]
    )
    errors = background_errors(group, positions, methods, apertures=(_APERTURE,))
    section.say(
        f'{len(positions)} discs without sources were masked and predicted, and the sum in an '
        f'aperture of {_APERTURE:g} pixels was compared with the map. scatter_ratio is the robust '
        'scatter of the errors over that of the reference: below 1, the network is better. If the '
        'stated errors hold, 68 % of the errors are within one and 95 % within two stated errors.'
    )
    ratios = scatter_ratios(errors, 'network', [name for name in methods if name != 'network'])
    ratios.remove_columns(['group', 'aperture', 'method'])
    card = read_data('report/cards.toml').get(result.sources.meta.get('weights_sha256'))
    if card:
        section.say(
            'Column card: the same ratio on the maps that the weights were tested on, from their '
            'model card.'
        )
        ratios['card'] = [
            card['scatter_over_annulus'].get(f'{row["radius"]:g}', np.nan)
            if row['reference'] == 'annulus_median' else np.nan for row in ratios
        ]  # fmt: skip
    section.tabulate(
        'leave_out_ratios', ratios,
        [name for name in ('radius', 'reference', 'n', 'scatter_ratio', 'scatter_ratio_err', 'card')
         if name in ratios.colnames],
    )  # fmt: skip
    covered = coverage(errors)
    if len(covered):
        row = covered[0]
        text = (
            f'Here {row["within_1_sigma"]:.0%} of the errors are within one stated error '
            f'(± {row["within_1_sigma_err"]:.0%}) and {row["within_2_sigma"]:.0%} within two.'
        )
        if card:
            text += (
                ' On the maps that the weights were tested on: '
                f'{card["within_1_sigma"]:.0%} and {card["within_2_sigma"]:.0%}.'
            )
        section.say(text)
    figure = figures.plot_leave_out(errors)
    section.show(
        'leave_out', figure,
        f'Errors of the background sum behind {len(positions)} discs without sources. Left: over '
        'the scatter of the surrounding ring times the area of the aperture. Right: over the '
        'stated errors; the dashed curve is the normal distribution.',
    )  # fmt: skip
    section.tables |= {'leave_out': summarize(errors), 'leave_out_errors': errors}
    return section


def _on_pixels(result):
    """The estimator for the bare array of the map."""
    return result.estimator.replace(
        instrument=result.instrument, centroid_func=None, progress=False
    )


def _stars(evaluation):
    result = evaluation.result
    if result.instrument.colour_correction_star is None or evaluation.truth is not None:
        return None
    stars = find_stars(result.image)
    if not len(stars):
        return None
    section = Section('Standard stars', 'stars')
    table = star_rows(result.image, stars, result.estimator, 'this map')
    section.say('Measured flux over the reference flux, corrected for aperture and colour. Errors '
                'are those of the measurement alone.')  # fmt: skip
    section.tabulate('standard_stars', table,
                     ['name', 'wavelength', 'aperture', 'reference', 'flux', 'flux_err', 'ratio',
                      'ratio_err', 'annulus_ratio', 'paper_ratio'])  # fmt: skip
    return section


def _spectra(evaluation):
    section = Section('Structure of the map', 'power-spectrum')
    image = evaluation.result.image
    maps = evaluation.maps()
    maps['realization'] = evaluation.realizations
    try:
        spectra = power_spectra(maps, wcs=image.wcs)
    except ValueError as error:
        section.say(f'No power spectrum: {error}')
        return section
    figure = figures.plot_power_spectra(spectra, marks=evaluation.marks)
    section.say(
        'Power spectra, corrected for gaps and edges. The prediction is the expected background, '
        'which is too smooth on small scales. A realization has the missing power: use '
        'realizations for statistics of the map.'
    )
    if evaluation.truth is not None:
        for name in ('injected', 'source_free', 'realization'):
            largest = np.abs(spectra_difference(spectra, name)['relative']).max()
            section.say(
                f'{figures.label(name).capitalize()}: '
                + (f'power up to {_cell(1 + largest)} times that of the original.'
                   if largest > 1 else
                   f'power within {100 * largest:.2g} % of the original on all scales.')
            )  # fmt: skip
    section.show(
        'power_spectra', figure,
        'Left: power spectra; grey is the 1σ sample variance. Right: each power spectrum over that '
        f'of the {figures.label(next(iter(maps)))} map, minus one, linear within 0.01. Dashed '
        'lines mark the beam and the median diameter of the masks.',
    )  # fmt: skip
    for name in list(maps)[1:]:
        difference = spectra_difference(spectra, name)
        spectra[f'{name}_relative'] = difference['relative']
        spectra[f'{name}_normalized'] = difference['normalized']
    section.tabulate('power_spectra', spectra)
    _add_delta_variance(section, evaluation, maps)
    return section


def _add_delta_variance(section, evaluation, maps):
    wcs = evaluation.result.image.wcs
    maps['realization'] = maps['realization'][0]
    tables = {name: delta_variance(data, wcs=wcs) for name, data in maps.items()}
    slopes = {
        name: fit_power_law(t['lag'], t['delta_variance'], t['delta_variance_err'])
        for name, t in tables.items() if (u.Quantity(t['delta_variance']) > 0).sum() > 2
    }  # fmt: skip
    slopes = '; '.join(
        f'{figures.label(name)} {slope:.3f} ± {error:.3f}'
        for name, (slope, error) in slopes.items()
    )
    section.say(f'The Δ-variance is the variance of structure of one size. Slopes: {slopes}.')
    figure = figures.plot_delta_variance(tables, marks=evaluation.marks)
    section.show(
        'delta_variance', figure,
        'Δ-variance against lag, with 1σ errors of the first map. Dashed lines mark the beam and '
        'the median diameter of the masks.', column=True,
    )  # fmt: skip
    first = next(iter(tables.values()))
    together = QTable({'lag': first['lag']})
    for name, table in tables.items():
        together[name] = table['delta_variance']
        together[f'{name}_err'] = table['delta_variance_err']
    section.tabulate('delta_variance', together)


def _pixels(evaluation):
    result = evaluation.result
    section = Section('Pixel values', 'pixels')
    maps = evaluation.maps()
    maps['realization'] = evaluation.realizations[0]
    if not result.mask.any():
        section.say('No pixel was changed.')
        return section
    known = evaluation.truth is not None
    inside = {name: data for name, data in maps.items() if name != 'injected'}
    try:
        moments = disc_moments(inside, result.source_masks, seed=evaluation.seed)
        histograms = [pixel_histogram(inside, where=result.mask, bins=40),
                      pixel_histogram(maps, normalized=_positive(maps))]  # fmt: skip
    except ValueError as error:
        section.say(f'No distribution: {error}')
        return section
    section.say(
        'Pixels inside the masks, of the map '
        + ('without sources' if known else 'with its sources')
        + ' and of the maps that replace them. Column ks: the largest difference of the two '
        'cumulative distributions (Kolmogorov–Smirnov). p_value: how often a difference as large '
        'as this occurs if the two maps are swapped at random in each mask.'
    )
    section.tabulate('pixel_moments', moments, [
        'map', 'n', 'mean', 'median', 'std', 'skewness', 'iqr', 'ks', 'p_value'])  # fmt: skip
    figure = figures.plot_pixel_pdf(histograms, ['inside the masks', 'whole map'], log=True)
    section.show(
        'pixel_pdf', figure,
        'Distribution of the pixels inside the masks (left) and of the whole map (right).',
    )  # fmt: skip
    section.tables['histogram_masks'], section.tables['histogram_map'] = histograms
    return section


def _positive(maps):
    """Whether most pixels are positive, so that their logarithms exist."""
    return all(np.nanpercentile(u.Quantity(each).value, 1) > 0 for each in maps.values())


def _sources(evaluation):
    result = evaluation.result
    section = Section('Source by source', 'sources')
    if not len(result):
        section.say('There are no sources.')
        return section
    table = source_residuals(result, evaluation.truth)
    surprise = 'error' if evaluation.truth is not None else 'rim'
    meaning = (
        'the error of the sum under the mask over its stated error' if surprise == 'error' else
        'the mean residual at the rim of the mask over its error, which is large if a source is '
        'extended, has bright wings, or the prediction is wrong'
    )  # fmt: skip
    size = np.abs(np.asarray(table[surprise]))
    shown = np.arange(len(table))
    if len(table) > _STRIPS:
        shown = np.sort(np.argsort(-np.nan_to_num(size), kind='stable')[:_STRIPS])
        section.say(f'The {_STRIPS} of {len(table)} sources with the largest residuals are shown.')
    section.say(f'The residual of a source is {meaning}. Contrast is the peak contrast (snr).')
    section.tabulate('residuals', table)
    section.body.append(
        '<div class="sort" id="sort" hidden>Sort by '
        '<button data-key="order" aria-pressed="true">catalogue</button>'
        '<button data-key="snr" aria-pressed="false">contrast</button>'
        '<button data-key="surprise" aria-pressed="false">residual</button></div>'
    )
    strips = [_strip(evaluation, table, i, surprise, size[i]) for i in shown]
    section.body.append(f'<div id="strips">{"".join(strips)}</div>')
    return section


def _strip(evaluation, table, i, surprise, size):
    row = table[i]
    identifier = html.escape(str(row['id']))
    png, titles, ranges = row_strip(evaluation.result, i, evaluation.truth)
    text = (
        f'<b>{identifier}</b> · contrast {_cell(row["snr"])} · mask {row["mask_radius"]:.3g} px · '
        f'residual {row[surprise]:+.1f}'
    )
    if row['flag_names']:
        text += f' · {html.escape(row["flag_names"])}'
    attributes = f'data-order="{i}" data-snr="{row["snr"]:.6g}" data-surprise="{size:.6g}"'
    if not png:
        return f'<article class="strip" {attributes}><p>{text} · off the map</p></article>'
    image = base64.b64encode(png).decode()
    captions = ''.join(
        f'<li>{html.escape(title)}<br>{low:.2g} … {high:.2g}</li>'
        for title, (low, high) in zip(titles, ranges, strict=True)
    )
    return (
        f'<article class="strip" {attributes}><p>{text}</p>'
        f'<img loading="lazy" alt="source {identifier}: {", ".join(titles)}" '
        f'src="data:image/png;base64,{image}"><ol>{captions}</ol></article>'
    )


def _provenance(evaluation):
    section = Section('Provenance', 'provenance')
    rows = ''.join(
        f'<tr><td>{html.escape(str(key))}</td><td>{html.escape(str(value))}</td></tr>'
        for key, value in evaluation.result.sources.meta.items()
    )
    section.body.append(f'<div class="table"><table>{rows}</table></div>')
    section.say(f'Seed {evaluation.seed}. Colour map: viridis, from dark (low) to bright (high).')
    return section


#: The sections in their order: functions of an `Evaluation` that return a `Section`, or None if
#: they do not apply.
SECTIONS = (
    _overview, _fluxes, _measured, _leave_out, _stars, _spectra, _pixels, _sources, _provenance,
)  # fmt: skip
