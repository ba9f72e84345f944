"""Report of the removal from one map, as a page with figures and tables.

`write_report` writes ``report.html``, which needs no other file, and beside it every figure as
PNG and every table as ECSV.
"""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from astropy import units as u

from csr_astro.evaluation.report_sections import SECTIONS
from csr_astro.images import parse_image
from csr_astro.plotting import require_matplotlib
from csr_astro.simulation.psf import instrument_profile, psf_profile
from csr_astro.simulation.simulate import observed_pixels, simulate_levels
from csr_astro.tables import write_table
from csr_astro.utils.data import DATA
from csr_astro.utils.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from csr_astro.background import NeuralBackground
    from csr_astro.estimator import NeuralBackgroundEstimator
    from csr_astro.evaluation.report_sections import Section
    from csr_astro.typing import ImageLike, PathLike, ProfileLike, PsfLike, QuantityLike

__all__ = ['Evaluation', 'write_page', 'write_report']


_REALIZATIONS = 4


@dataclass
class Evaluation:
    """A removal, and what is known of the map, for a report.

    Attributes
    ----------
    result : `~csr_astro.NeuralBackground`
        The removal from the map with the sources.
    truth : (ny, nx) array, Quantity or None
        The map without the sources, if they were injected.
    flux : (N,) `~astropy.units.Quantity` or array, or None
        Injected fluxes.
    more : list of (NeuralBackground, flux)
        Further simulations, which are used for the fluxes.
    psf : callable or None
        PSF of the injected sources; its enclosed energy corrects the fluxes.
    apertures : list of float or None
        Radii of apertures for fluxes, in pixels.
    methods : list of str
        Other methods to compare with, keys of
        `~csr_astro.evaluation.baselines.BASELINES`.
    number : int
        Number of left-out discs for each radius.
    seed : int
        Seed of everything random.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> from csr_astro.evaluation.report import Evaluation
    >>> noise = np.random.default_rng(0).normal(size=(100, 100))
    >>> result = NeuralBackgroundEstimator(fwhm=3.3).estimate(noise, [(60, 50)])
    >>> list(Evaluation(result, truth=noise).maps())
    ['original', 'injected', 'source_free']
    """

    result: NeuralBackground
    truth: QuantityLike | None = None
    flux: QuantityLike | None = None
    more: list = field(default_factory=list)
    psf: ProfileLike | None = None
    apertures: list | None = None
    methods: list = field(default_factory=list)
    number: int = 40
    seed: int = 0

    def __repr__(self) -> str:
        known = [name for name in ('truth', 'flux', 'psf') if getattr(self, name) is not None]
        given = f', {", ".join(known)} known' if known else ''
        return f'<Evaluation of {self.result!r}{given}>'

    @classmethod
    def injected(
        cls,
        data: ImageLike,
        estimator: NeuralBackgroundEstimator,
        *,
        psf: PsfLike | None = None,
        simulations: int = 2,
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """Inject sources into a map, and remove them.

        Parameters
        ----------
        data : NDData, CCDData, image HDU, Quantity or array
            A map with few sources of its own.
        estimator : `~csr_astro.NeuralBackgroundEstimator`
            Removes the sources, which have its PSF.
        psf : optional
            PSF of the sources and of the estimator instead, see
            `~csr_astro.simulation.psf.psf_profile`.
        simulations : int, optional
            Number of maps; the first is shown, all count for the fluxes.
        seed : int, optional
            Seed of everything random.
        **options
            Attributes ``apertures``, ``methods`` and ``number``.

        Returns
        -------
        evaluation : `Evaluation`
        """
        if simulations < 1:
            raise ValueError(f'simulations must be a positive number, got {simulations}.')
        if psf is None:
            psf = estimator.psf
        else:
            estimator = estimator.replace(psf=psf)
        done = []
        for each in simulate_levels(
            data, psf, instrument=estimator.instrument, random=simulations, seed=seed
        ):
            positions = np.column_stack([each.sources['x'], each.sources['y']])
            done.append((estimator.estimate(each.injected, positions), each.sources['flux']))
            truth = each.truth
        (result, flux), *more = done
        scale = result.image.pixel_scale
        profile = instrument_profile(result.instrument) if psf is None else psf_profile(psf, scale)
        return cls(result, truth, flux, more, profile, seed=seed, **options)

    @property
    def pixel(self) -> u.Quantity:
        """Side of a pixel: an angle with a WCS."""
        scale = self.result.image.pixel_scale
        return 1 * u.pix if scale is None else (scale * u.arcsec).to(u.arcmin)

    @cached_property
    def valid(self) -> np.ndarray:
        """Pixels of the map that were observed."""
        return observed_pixels(self.result.image, self.result.instrument)

    @property
    def marks(self) -> dict[str, u.Quantity]:
        """Scales at which a removal may change a map: beam and median diameter of the masks."""
        radius = np.nanmedian(self.result.sources['mask_radius']) if len(self.result) else np.nan
        marks = {'beam': self.result.instrument.fwhm * self.pixel}
        if np.isfinite(radius):
            marks['mask'] = 2 * radius * self.pixel
        return marks

    def maps(self) -> dict[str, np.ndarray]:
        """Versions of the map by name; the reference is the first."""
        result = self.result
        maps = {}
        if self.truth is not None:
            maps['original'] = u.Quantity(self.truth).value
        maps['injected' if maps else 'original'] = np.asarray(result.image.data, dtype=float)
        maps['source_free'] = u.Quantity(result.background).value
        return {name: self._in_unit(values) for name, values in maps.items()}

    @cached_property
    def realizations(self) -> list[np.ndarray]:
        """Source-free maps with noise and texture behind the sources."""
        drawn = u.Quantity(self.result.realization(self.seed, _REALIZATIONS)).value
        return [self._in_unit(each) for each in drawn]

    def _in_unit(self, values):
        values = np.where(self.valid, values, np.nan)
        unit = self.result.image.unit
        return values if unit is None else values * unit


def write_report(
    folder: PathLike,
    evaluation: Evaluation | NeuralBackground,
    *,
    title: str = 'Report of a source removal',
    overwrite: bool = False,
    progress: Callable[[str], object] | None = None,
) -> Path:
    """Write a report of one map.

    Parameters
    ----------
    folder : path-like
        Made if missing. ``report.html`` holds everything that is seen; figures (PNG and PDF) and
        tables (ECSV) are written beside it.
    evaluation : `Evaluation` or `~csr_astro.NeuralBackground`
        The removal to report.
    title : str, optional
        Heading.
    overwrite : bool, optional
        Whether an existing report is replaced.
    progress : callable, optional
        Called with the title of each section when it is ready.

    Returns
    -------
    path : `pathlib.Path`
        ``report.html``, which is written last.

    Raises
    ------
    ValueError
        If there is a report and ``overwrite`` is not set, or the truth is of another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> from csr_astro.evaluation.report import Evaluation, write_report
    >>> noise = np.random.default_rng(0).normal(size=(100, 100))
    >>> result = NeuralBackgroundEstimator(fwhm=3.3).estimate(noise, [(60, 50)])
    >>> write_report('report', Evaluation(result, truth=noise))  # doctest: +SKIP
    """
    if not isinstance(evaluation, Evaluation):
        evaluation = Evaluation(evaluation)
    _check(evaluation)

    def sections():
        for make in SECTIONS:
            section = make(evaluation)
            if section is None:
                continue
            if progress is not None:
                progress(section.title)
            yield section

    return write_page(folder, title, sections(), overwrite=overwrite)


def write_page(
    folder: PathLike, title: str, sections: Iterable[Section], *, overwrite: bool = False
) -> Path:
    """Write sections as a page, with their figures and tables beside it.

    Parameters
    ----------
    folder : path-like
        Made if missing.
    title : str
        Heading.
    sections : iterable of `~csr_astro.evaluation.report_sections.Section`
        The sections in their order; files of each are written before the next is made.
    overwrite : bool, optional
        Whether an existing page is replaced.

    Returns
    -------
    path : `pathlib.Path`
        ``report.html``, which is written last.

    Raises
    ------
    ValueError
        If there is a page and ``overwrite`` is not set.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from csr_astro.evaluation.report import write_page
    >>> from csr_astro.evaluation.report_sections import Section
    >>> section = Section('Fluxes', 'fluxes')
    >>> section.say('All are right.')
    >>> with TemporaryDirectory() as folder:
    ...     page = write_page(folder, 'A page', [section])
    ...     'All are right.' in page.read_text()
    True
    """
    folder = Path(folder)
    page = folder / 'report.html'
    if page.exists() and not overwrite:
        raise ValueError(
            f'{str(page)!r} exists; overwrite it (--overwrite) or choose another folder.'
        )
    require_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    done = []
    for section in sections:
        done.append(section)
        for name, table in section.tables.items():
            write_table(folder / f'{name}.ecsv', table)
        for name, content in section.figures.items():
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes(content)
    with atomic_path(page) as temporary:
        temporary.write_text(_page(title, done), encoding='utf-8')
    return page


def _check(evaluation):
    shape = evaluation.result.image.shape
    if evaluation.truth is not None:
        truth = parse_image(evaluation.truth)
        if truth.shape != shape:
            raise ValueError(f'truth must have {shape} pixels as the map has, got {truth.shape}.')
    if evaluation.number < 2:
        raise ValueError(f'number must be at least 2, got {evaluation.number}.')


def _page(title, sections):
    title = html.escape(title)
    links = ''.join(
        f'<li><a href="#{each.name}">{html.escape(each.title)}</a></li>' for each in sections
    )
    parts = ''.join(
        f'<section id="{each.name}"><h2>{html.escape(each.title)}</h2>{"".join(each.body)}'
        '</section>'
        for each in sections
    )
    css, script = (
        (DATA / 'report' / name).read_text(encoding='utf-8') for name in ('report.css', 'report.js')
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><style>{css}</style></head>'
        f'<body><h1>{title}</h1><nav><ul>{links}</ul></nav>{parts}'
        f'<script>{script}</script></body></html>\n'
    )
