"""How does a map with few sources become maps with many sources of known flux?

The procedure of the paper (Sect. 2.3.1): sources of unit PSF times a flux level
at random positions that do not cluster, one simulation for each level, and
beside each map a table of what was put in. Its numbers are data, in
``data/simulation.toml``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable
from scipy import ndimage

from csr_astro.cutouts import extract
from csr_astro.images import Image, parse_image, shape_text
from csr_astro.instruments import Instrument, get_instrument, identify_instrument
from csr_astro.simulation.inject import inject_sources, random_positions
from csr_astro.simulation.psf import instrument_profile, psf_profile, psf_stamp
from csr_astro.utils.data import read_data
from csr_astro.utils.files import atomic_path
from csr_astro.utils.representation import html_table
from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import ArrayLike

    from csr_astro.typing import ImageLike, PathLike, PsfLike, QuantityLike, SourcesLike, WcsLike

__all__ = [
    'Simulation',
    'Written',
    'flux_levels',
    'flux_range',
    'paper_facts',
    'simulate_levels',
    'simulate_map',
    'write_simulations',
]


# Sources whose rings tell how much a map scatters.
_N_RINGS = 200
# Keywords that speak of the file that the map came from, not of the map.
_OF_THE_FILE = {'SIMPLE', 'XTENSION', 'BITPIX', 'EXTEND', 'PCOUNT', 'GCOUNT', 'GROUPS', 'EXTNAME',
                'BSCALE', 'BZERO', 'BLANK', 'DATAMIN', 'DATAMAX', 'CHECKSUM', 'DATASUM', 'COMMENT',
                'HISTORY', 'BUNIT', ''}  # fmt: skip


@cache
def paper_facts() -> dict:
    """Numbers of the paper's procedure.

    Returns
    -------
    facts : dict
        What ``data/simulation.toml`` says.

    Examples
    --------
    >>> from csr_astro.simulation.simulate import paper_facts
    >>> paper_facts()['cutout_size'], len(paper_facts()['flux_levels'])
    (96, 51)
    """
    return read_data('simulation.toml')


def flux_levels(
    lowest: float | u.Quantity | None = None, highest: float | u.Quantity | None = None
) -> np.ndarray:
    """Flux levels of the paper (Table 1), in mJy.

    Parameters
    ----------
    lowest, highest : float or Quantity, optional
        Only those between these two (inclusive), in mJy.

    Returns
    -------
    levels : (N,) `~numpy.ndarray` of float

    Examples
    --------
    >>> from csr_astro.simulation.simulate import flux_levels
    >>> print(flux_levels(40, 125))
    [ 40.  60.  80. 100. 125.]
    """
    levels = np.array(paper_facts()['flux_levels'], dtype=float)
    lowest = -np.inf if lowest is None else _millijansky(lowest)
    highest = np.inf if highest is None else _millijansky(highest)
    return levels[(levels >= lowest) & (levels <= highest)]


def _millijansky(flux):
    """Fluxes as floats in mJy; plain numbers are that already."""
    try:
        flux = u.Quantity(flux)
        if flux.unit != u.dimensionless_unscaled:
            flux = flux.to(u.mJy)
        values = np.asarray(flux.value, dtype=float)
    except (TypeError, ValueError, u.UnitConversionError):
        raise ValueError(f'fluxes must be numbers of mJy or spectral fluxes, got {flux}.') from None
    if not np.isfinite(values).all():
        raise ValueError('fluxes must be finite.')
    return float(values) if values.ndim == 0 else values


def map_units_per_millijansky(image, fwhm=None):
    """What the pixels of a source of 1 mJy add up to, in the unit of the map.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map: in flux per pixel, per solid angle or per beam. A map without
        a unit is taken to be in mJy per pixel.
    fwhm : float, optional
        Full width at half maximum of the beam in pixels, for maps per beam.

    Returns
    -------
    factor : float
    """
    unit = image.unit
    if unit is None:
        return 1.0
    flux = 1 * u.mJy
    if unit.is_equivalent(u.Jy / u.pix):
        return float((flux / u.pix).to_value(unit))
    if unit.is_equivalent(u.Jy):
        return float(flux.to_value(unit))
    if unit.is_equivalent(u.Jy / u.sr):
        if image.pixel_scale is None:
            raise ValueError(f'a map in {unit} needs a WCS, which tells the area of its pixels.')
        return float((flux / (image.pixel_scale * u.arcsec) ** 2).to_value(unit))
    if unit.is_equivalent(u.Jy / u.beam) and fwhm is not None:
        pixels_per_beam = np.pi / (4 * np.log(2)) * fwhm**2
        return float((flux / u.beam).to_value(unit) * pixels_per_beam)
    raise ValueError(
        f'a map in {unit} cannot take sources in mJy; it must be in flux per pixel, per solid '
        'angle or per beam, or have no unit (mJy/pixel).'
    )


@dataclass(frozen=True, eq=False)
class Simulation:
    """A map with sources of known flux, and the same map without them.

    Attributes
    ----------
    name : str
        Of its files: the field and the flux level.
    field : str
        Of the map into which the sources were put.
    injected, original : `~csr_astro.images.Image`
        The map with the sources and without.
    sources : `~astropy.table.QTable`
        Columns ``id``, ``x``, ``y`` (pixels, zero-based), ``sky_center`` if the
        map has a WCS, ``flux`` in mJy, and ``angle`` by which the PSF is turned.
    instrument : `~csr_astro.instruments.Instrument`
        On the pixels of the map.
    header : `~astropy.io.fits.Header`
        Of the map.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.simulation.simulate import simulate_map
    >>> noise = np.random.default_rng(0).normal(size=(120, 120))
    >>> simulation = simulate_map(noise, 300, instrument='generic', number=2)
    >>> print(len(simulation.sources), (simulation.image - simulation.truth).max() > 1)
    2 True
    """

    name: str
    field: str
    injected: Image
    original: Image
    sources: QTable
    instrument: Instrument
    header: fits.Header = dataclasses.field(default_factory=fits.Header)

    def __repr__(self) -> str:
        return (
            f'<Simulation {self.name!r}: {shape_text(self.injected)}, '
            f'{len(self.sources)} sources, {self.instrument.name}>'
        )

    def _repr_html_(self) -> str:
        flux = self.sources['flux']
        return html_table(
            f'Simulation {self.name!r}',
            {
                'field': self.field,
                'map': shape_text(self.injected),
                'instrument': self.instrument.name,
                'sources': len(self.sources),
                'fluxes': f'{flux.min():.4g} to {flux.max():.4g}' if len(flux) else None,
            },
        )

    @property
    def image(self) -> np.ndarray:
        """The map with sources: an array, or a Quantity if the map was one."""
        return self.injected.like_input(self.injected.data)

    @property
    def truth(self) -> np.ndarray:
        """The map without sources, as `image`."""
        return self.original.like_input(self.original.data)

    def write(self, folder: PathLike, *, overwrite: bool = False) -> list[Path]:
        """Write the map with sources, the one without, and the tables.

        Parameters
        ----------
        folder : path-like
            Made if missing. ``NAME.fits`` is the map, ``NAME.ecsv`` everything
            that is known of the sources, ``NAME.csv`` the paper's table (``ra``,
            ``dec`` in degrees, J2000; ``flux`` in mJy; ``x`` and ``y`` for the
            former of a map without a WCS), ``FIELD_truth.fits`` the map
            without sources.
        overwrite : bool, optional
            Whether existing files are replaced, each in one step.

        Returns
        -------
        paths : list of `pathlib.Path`
            The four files.

        Raises
        ------
        ValueError
            If a file exists and is not to be overwritten, but for the very map without
            sources, which several simulations of a field share.
        """
        from csr_astro.tables import write_table

        folder = Path(folder)
        truth = folder / f'{self.field}_truth.fits'
        image, table, paper = (folder / f'{self.name}{end}' for end in ('.fits', '.ecsv', '.csv'))
        for path in (image, table, paper):
            if path.exists() and not overwrite:
                raise ValueError(f'{str(path)!r} exists; overwrite it (--overwrite) or choose '
                                 'another folder.')  # fmt: skip
        # All levels of a field share it.
        known = truth.exists() and self._is_truth(truth)
        if truth.exists() and not known and not overwrite:
            raise ValueError(f'{str(truth)!r} is of another simulation; overwrite it (--overwrite) '
                             'or choose another folder.')  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        if not known:
            self._write_map(truth, self.original, 'The map without injected sources.')
        # The map comes last: where there is one, its tables are complete.
        write_table(table, self.sources)
        write_table(paper, self._paper_table())
        self._write_map(image, self.injected, f'{len(self.sources)} injected sources: {table.name}')
        return [image, table, paper, truth]

    def _paper_table(self):
        table = QTable()
        if 'sky_center' in self.sources.colnames:
            sky = self.sources['sky_center']
            table['ra'], table['dec'] = sky.icrs.ra.deg, sky.icrs.dec.deg
        else:
            table['x'], table['y'] = self.sources['x'], self.sources['y']
        table['flux'] = self.sources['flux'].to_value(u.mJy)
        return table

    def _is_truth(self, path):
        """Whether a file holds the map without sources of this simulation."""
        with fits.open(path) as hdus:
            return 'image' in hdus and np.array_equal(
                hdus['image'].data, _with_blanks(self.original), equal_nan=True
            )

    def _write_map(self, path, image, comment):
        header = self.header.copy()
        for key in list(header):
            if key in _OF_THE_FILE or key.startswith('NAXIS'):
                header.remove(key, ignore_missing=True)
        if image.wcs is not None and hasattr(image.wcs, 'to_header'):
            header.update(image.wcs.to_header(relax=True))
        if image.unit is not None:
            with ignored(Warning):
                header['BUNIT'] = image.unit.to_string('fits') if image.unit else ''
        header['CSRFIELD'] = self.field, 'map without sources'
        header['CSRSEED'] = self.sources.meta['seed'], 'seed of the simulation'
        header.add_history(f'csr_astro {self.sources.meta["csr_astro"]} simulate: {comment}')
        hdus = fits.HDUList([fits.PrimaryHDU(header=_observation(header)),
                             fits.ImageHDU(_with_blanks(image), header, name='image')])  # fmt: skip
        if image.error is not None:
            hdus.append(fits.ImageHDU(np.array(image.error, dtype=image.dtype), name='stDev'))
        with atomic_path(path) as temporary, ignored(fits.verify.VerifyWarning):
            hdus.writeto(temporary, overwrite=True, output_verify='silentfix')


def _with_blanks(image):
    """The numbers of a map as they are written: invalid pixels are blank."""
    everywhere = (slice(None), slice(None))
    return np.where(image.valid(everywhere), image.data, np.nan).astype(image.dtype)


def _observation(header):
    """What a primary header must say for the instrument to be recognised."""
    keys = ('OBJECT', 'TELESCOP', 'INSTRUME', 'OBS_MODE', 'WAVELNTH', 'OBS_ID')
    return fits.Header([(key, header[key]) for key in keys if key in header])


@dataclass(frozen=True)
class _Setup:
    """A map made ready: what does not change from one flux level to the next."""

    image: Image
    instrument: Instrument
    profile: object
    factor: float
    # Where sources may lie, and which pixels are measured.
    allowed: np.ndarray
    observed: np.ndarray
    number: int
    separation: float
    name: str


def observed_pixels(image, instrument):
    """Pixels of a map that were measured.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    instrument : `~csr_astro.instruments.Instrument`
        The archive's maps of PACS are 0 where nothing was observed.

    Returns
    -------
    observed : (ny, nx) `~numpy.ndarray` of bool
    """
    observed = image.valid((slice(None), slice(None)))
    if instrument.name.startswith('pacs-'):
        # Single zeros are measurements.
        blank = ndimage.binary_opening(image.data == 0, np.ones((3, 3)))
        if not blank.all():
            observed &= ~blank
    return observed


def _prepare(data, psf, instrument, number, separation, avoid, fast_scan, name, **parts):
    image = parse_image(data, **parts)
    profile = None if psf is None else psf_profile(psf, image.pixel_scale)
    if instrument is None:
        instrument = get_instrument('generic', fwhm=None if psf is None else _width(profile))
    instrument = get_instrument(instrument).on_pixels(image.pixel_scale)
    if psf is None:
        profile = instrument_profile(instrument, fast_scan=fast_scan)
    elif fast_scan:
        raise ValueError('fast_scan is for the PSF of a PACS instrument; psf has its own shape.')
    observed = observed_pixels(image, instrument)
    if not observed.any():
        raise ValueError('the map has no valid pixels.')
    largest = max(instrument.mask_radii)
    facts = paper_facts()
    if separation is None:
        separation = facts['separation'] * largest
    if not (np.isfinite(separation) and separation >= 0):
        raise ValueError(f'separation must not be negative, got {separation}.')
    # Off the map counts as not observed: discs lie on the map.
    distance = ndimage.distance_transform_edt(np.pad(observed, 1))[1:-1, 1:-1]
    allowed = distance > largest
    if avoid is not None:
        from csr_astro.sources import parse_sources

        sources = parse_sources(avoid, image.wcs)
        y, x = np.ogrid[: image.shape[0], : image.shape[1]]
        for column, row in zip(sources.x, sources.y, strict=True):
            if np.isfinite(column) and np.isfinite(row):
                allowed &= (x - column) ** 2 + (y - row) ** 2 > separation**2
    if number is None:
        lowest, highest = facts['number_of_sources']
        side = facts['side_per_source'] * largest
        number = int(np.clip(allowed.sum() / side**2, lowest, highest))
    if int(number) != number or number < 0:
        raise ValueError(f'number must be a whole number of sources, got {number}.')
    factor = map_units_per_millijansky(image, instrument.fwhm)
    return _Setup(
        image, instrument, profile, factor, allowed, observed, int(number), separation, name
    )


def _width(profile):
    """Full width at half maximum, in pixels: of the circle as large as what is above half."""
    half = len(psf_stamp(profile)) / 2
    steps = np.linspace(-half, half, 401)
    values = profile(*np.meshgrid(steps, steps))
    area = (values > values.max() / 2).sum() * (steps[1] - steps[0]) ** 2
    return float(np.sqrt(4 * area / np.pi))


def flux_range(
    data: ImageLike,
    psf: PsfLike | None = None,
    *,
    instrument: str | Instrument | None = None,
    fast_scan: bool = False,
    seed: int = 0,
    **parts: Any,
) -> tuple[float, float]:
    """Fluxes between which sources are visible and realistic on a map.

    By the SNR of their peak over the typical scatter in rings around them, at
    places without regard to sources; an SNR of 3 to 1000.

    Parameters
    ----------
    data, psf, instrument, fast_scan, seed, **parts
        As in `simulate_map`.

    Returns
    -------
    lowest, highest : float
        In mJy.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.simulation.simulate import flux_range
    >>> noise = np.random.default_rng(1).normal(0, 1, (200, 200))
    >>> lowest, highest = flux_range(noise)  # mJy/pixel, a Gaussian beam of 3.5 pixels
    >>> print(round(lowest), round(highest / lowest))
    43 333
    """
    return _flux_range(_prepare(data, psf, instrument, 1, None, None, fast_scan, '', **parts), seed)


def _flux_range(setup, seed):
    rng = np.random.default_rng([seed, 0])
    _, inner, outer = setup.instrument.snr_radii
    candidates = np.flatnonzero(setup.allowed)
    if not len(candidates):
        raise ValueError('no part of the map is large enough for a source and its surroundings.')
    y, x = np.unravel_index(rng.choice(candidates, _N_RINGS), setup.image.shape)
    size = 2 * int(np.ceil(outer)) + 1
    steps = np.arange(size) - size // 2
    r2 = steps[:, None] ** 2 + steps**2
    ring = (r2 >= inner**2) & (r2 <= outer**2)
    values = extract(setup.image, x, y, size)[:, ring]
    measured = np.isfinite(values).sum(axis=1) > 1
    scatter = np.median(np.nanstd(values[measured], axis=1)) if measured.any() else 0.0
    if not scatter > 0:
        raise ValueError('the map does not scatter, so no flux is too faint on it; give the '
                         'fluxes.')  # fmt: skip
    peak = psf_stamp(setup.profile).max() * setup.factor
    lowest, highest = paper_facts()['snr_range']
    return float(lowest * scatter / peak), float(highest * scatter / peak)


def simulate_map(
    data: ImageLike,
    flux: QuantityLike,
    psf: PsfLike | None = None,
    *,
    instrument: str | Instrument | None = None,
    number: int | None = None,
    separation: float | None = None,
    avoid: SourcesLike | None = None,
    angle: float | None = None,
    elongation: float = 1.0,
    fast_scan: bool = False,
    seed: int = 0,
    name: str = 'field',
    header: fits.Header | None = None,
    mask: ArrayLike | None = None,
    error: QuantityLike | None = None,
    wcs: WcsLike | None = None,
) -> Simulation:
    """Put sources of known flux onto a map.

    Parameters
    ----------
    data : NDData, CCDData, image HDU, HDUList, Quantity or array
        A map with few sources of its own: in flux per pixel, per solid angle or
        per beam; without a unit it is taken to be in mJy/pixel.
    flux : float, Quantity or array-like
        Of every source, or one for each; plain numbers are mJy.
    psf : optional
        Anything that `~csr_astro.simulation.psf.psf_profile` takes; by default
        that of the instrument.
    instrument : str or `~csr_astro.instruments.Instrument`, optional
        Decides the PSF and the masks, hence how near sources may be; by
        default ``'generic'`` with the width of ``psf``, or of 3.5 pixels.
    number : int, optional
        Number of sources; 25 to 210 by default, by the area of the map.
    separation : float, optional
        Smallest distance between two, in pixels; twice the radius of the
        largest mask by default.
    avoid : SkyCoord, table, regions or (N, 2) array, optional
        Sources of the map, to which the same distance is kept.
    angle : float, optional
        Rotation of the PSF in radians, counter-clockwise; random for each
        source by default.
    elongation : float, optional
        Stretch of the PSF along its x axis, before rotation.
    fast_scan : bool, optional
        Whether PACS' PSF is elongated by the fast scans of parallel mode.
    seed : int, optional
        Decides positions and angles; the same seed gives the same simulation.
    name : str, optional
        Of the field.
    header : `~astropy.io.fits.Header`, optional
        For the files; that of an HDU by default.
    mask, error, wcs : optional
        As in `~csr_astro.NeuralBackgroundEstimator.estimate`.

    Returns
    -------
    simulation : `Simulation`

    Raises
    ------
    ValueError
        If so many sources do not fit, or the map's unit is no flux.

    Examples
    --------
    >>> from csr_astro.simulation.field import synthetic_map
    >>> from csr_astro.simulation.simulate import simulate_map
    >>> field = synthetic_map('lognormal', (200, 200), 1)
    >>> simulation = simulate_map(field, 500, instrument='pacs-scanmap-blue', number=5, seed=2)
    >>> print(((simulation.image - simulation.truth).sum() / 5).round(2))
    0.5 Jy / pix
    """
    setup = _prepare(data, psf, instrument, number, separation, avoid, fast_scan, name,
                     mask=mask, error=error, wcs=wcs)  # fmt: skip
    header = getattr(data, 'header', None) if header is None else header
    rng = np.random.default_rng([seed, 1])
    flux = _millijansky(flux)
    return _simulate(setup, flux, name, rng, seed, angle, elongation, header)


def simulate_levels(
    data: ImageLike,
    psf: PsfLike | None = None,
    *,
    levels: QuantityLike | None = None,
    lowest: float | u.Quantity | None = None,
    highest: float | u.Quantity | None = None,
    random: int = 0,
    instrument: str | Instrument | None = None,
    number: int | None = None,
    separation: float | None = None,
    avoid: SourcesLike | None = None,
    angle: float | None = None,
    elongation: float = 1.0,
    fast_scan: bool = False,
    seed: int = 0,
    name: str = 'field',
    header: fits.Header | None = None,
    mask: ArrayLike | None = None,
    error: QuantityLike | None = None,
    wcs: WcsLike | None = None,
) -> Iterator[Simulation]:
    """Simulate a field as the paper does: once for each flux level.

    Positions are new in each simulation, and depend on the seed and the level
    only.

    Parameters
    ----------
    data, psf, instrument, number, separation, avoid, angle, elongation, fast_scan
        As in `simulate_map`.
    levels : array-like of float or Quantity, optional
        Flux levels, in mJy; by default those of the paper's Table 1.
    lowest, highest : float or Quantity, optional
        Only levels between these two (inclusive). For the paper's levels they
        are those of `flux_range` by default.
    random : int, optional
        So many simulations in which every source has a level of its own,
        drawn at random, instead of one for each level.
    seed, name, header, mask, error, wcs
        As in `simulate_map`.

    Yields
    ------
    simulation : `Simulation`
        One at a time, because a survey's do not fit into memory.

    Examples
    --------
    >>> from csr_astro.simulation.field import synthetic_map
    >>> from csr_astro.simulation.simulate import simulate_levels
    >>> field = synthetic_map('power-law', (200, 200), 1)
    >>> for simulation in simulate_levels(field, lowest=40, highest=80, number=4, name='dust'):
    ...     print(simulation.name, simulation.sources['flux'][0])
    dust_00040mJy 40.0 mJy
    dust_00060mJy 60.0 mJy
    dust_00080mJy 80.0 mJy
    """
    setup = _prepare(data, psf, instrument, number, separation, avoid, fast_scan, name,
                     mask=mask, error=error, wcs=wcs)  # fmt: skip
    header = getattr(data, 'header', None) if header is None else header
    levels = _levels(setup, levels, lowest, highest, seed)
    if random < 0:
        raise ValueError(f'random must be a number of simulations, got {random}.')
    for number_of_field in range(random):
        rng = np.random.default_rng([seed, 2, number_of_field])
        flux = rng.choice(levels, setup.number)
        title = f'{name}_random{number_of_field:03d}'
        yield _simulate(setup, flux, title, rng, seed, angle, elongation, header)
    if random:
        return
    for level in levels:
        # Micro-Jansky: the same level gives the same simulation whatever others there are.
        rng = np.random.default_rng([seed, 3, round(level * 1000)])
        text = f'{level:05.0f}' if level == round(level) else f'{level:g}'
        yield _simulate(setup, level, f'{name}_{text}mJy', rng, seed, angle, elongation, header)


def _levels(setup, levels, lowest, highest, seed):
    if levels is None:
        if lowest is None or highest is None:
            visible, bright = _flux_range(setup, seed)
            lowest = visible if lowest is None else lowest
            highest = bright if highest is None else highest
        levels = flux_levels()
    levels = np.unique(np.atleast_1d(_millijansky(levels)))
    if (levels <= 0).any():
        raise ValueError('flux levels must be positive.')
    lowest = -np.inf if lowest is None else _millijansky(lowest)
    highest = np.inf if highest is None else _millijansky(highest)
    inside = levels[(levels >= lowest) & (levels <= highest)]
    if not len(inside):
        raise ValueError(
            f'no flux level of {levels[0]:g} to {levels[-1]:g} mJy lies between {lowest:.3g} and '
            f'{highest:.3g} mJy; give others.'
        )
    return inside


def _simulate(setup, flux, title, rng, seed, angle, elongation, header):
    from csr_astro.tables import versions

    image, n = setup.image, setup.number
    flux = np.broadcast_to(flux, n) if np.ndim(flux) == 0 else np.asarray(flux)
    if flux.shape != (n,):
        raise ValueError(f'flux must be one number or one for each of {n} sources, got '
                         f'shape {flux.shape}.')  # fmt: skip
    try:
        x, y = random_positions(
            image.shape, n, rng, separation=setup.separation, valid=setup.allowed
        )
    except ValueError as error:
        raise ValueError(f'{str(error)[:-1]}: give a smaller number or separation.') from None
    angles = rng.uniform(0, 2 * np.pi, n) if angle is None else np.full(n, float(angle))
    injected = inject_sources(
        np.zeros(image.shape), x, y, flux * setup.factor, setup.profile,
        angle=angles, elongation=elongation,
    )  # fmt: skip
    values = np.array(image.data, dtype=image.dtype)
    values[setup.observed] += injected[setup.observed].astype(image.dtype)
    sources = QTable({'id': np.arange(1, n + 1), 'x': x, 'y': y})
    if image.wcs is not None:
        sources['sky_center'] = image.wcs.pixel_to_world(x, y).icrs
    sources['flux'] = flux * u.mJy
    sources['angle'] = np.degrees(angles) * u.deg
    sources.meta = {
        **versions(), 'field': setup.name, 'seed': int(seed),
        'instrument': setup.instrument.name, 'separation': float(setup.separation),
        'elongation': float(elongation),
    }  # fmt: skip
    return Simulation(
        title,
        setup.name,
        replace(image, data=values),
        image,
        sources,
        setup.instrument,
        fits.Header() if header is None else header,
    )


@dataclass(frozen=True)
class Written:
    """What `write_simulations` wrote.

    Attributes
    ----------
    n_maps : int
        Maps with sources.
    cutouts : dict of str to int
        Cutouts of each split, empty without a dataset.

    Examples
    --------
    >>> from csr_astro.simulation.simulate import Written
    >>> Written(2, {'train': 40}).n_maps
    2
    """

    n_maps: int
    cutouts: dict


def write_simulations(
    folder: PathLike,
    fields: Sequence[dict],
    *,
    dataset: PathLike | None = None,
    layout: Literal['array', 'paper'] = 'array',
    instrument: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable | None = None,
    **options: Any,
) -> Written:
    """Simulate fields and write maps, truths, tables and, if wanted, cutouts.

    Parameters
    ----------
    folder : path-like
        For maps and tables, see `Simulation.write`; made if missing.
    fields : list of dict
        For each field its ``name`` and ``data``, and if there are any its
        ``header`` and the ``avoid`` of `simulate_levels`.
    dataset : path-like, optional
        Folder for cutouts, split by field; see
        `~csr_astro.simulation.dataset.write_dataset`. A single field is for
        training.
    layout : {'array', 'paper'}, optional
        Of the dataset.
    instrument : str, optional
        By default it is read from each header.
    seed : int, optional
        Decides everything.
    overwrite : bool, optional
        Whether existing files are replaced.
    progress : callable, optional
        Is given a line of text for each map written.
    **options
        Of `simulate_levels`; ``psf`` may be the width of a Gaussian beam too,
        in pixels or as an angle, which then is the instrument.

    Returns
    -------
    written : `Written`

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from csr_astro.simulation.simulate import write_simulations
    >>> noise = np.random.default_rng(0).normal(size=(120, 120))
    >>> with TemporaryDirectory() as folder:
    ...     written = write_simulations(
    ...         folder, [{'name': 'noise', 'data': noise}], levels=[300], number=2, psf=3.5
    ...     )
    >>> written.n_maps
    1
    """
    from csr_astro.simulation.dataset import split_fields, write_dataset

    names = [each['name'] for each in fields]
    if len(set(names)) < len(names):
        raise ValueError(f'fields must have different names, got {names}.')
    n_maps = 0

    def simulations():
        nonlocal n_maps
        for each in fields:
            chosen = dict(options)
            chosen['instrument'] = _instrument(each, chosen, instrument)
            for simulation in simulate_levels(**each, **chosen, seed=seed):
                paths = simulation.write(folder, overwrite=overwrite)
                n_maps += 1
                if progress is not None:
                    progress(f'{len(simulation.sources)} sources: {paths[0]}')
                yield simulation

    if dataset is None:
        for _ in simulations():
            pass
        return Written(n_maps, {})
    counts = write_dataset(
        dataset, simulations(), split_fields(names, seed=seed), layout=layout, overwrite=overwrite
    )
    return Written(n_maps, counts)


def _instrument(field, options, instrument):
    """The instrument of a field: as asked, by its beam, or by its header."""
    psf = options.get('psf')
    if isinstance(psf, float | u.Quantity):
        if instrument is not None:
            raise ValueError('a beam is an instrument of its own; give one or the other.')
        options['psf'] = None
        return get_instrument('generic', fwhm=psf)
    if instrument is None and field.get('header') is not None:
        instrument = identify_instrument(field['header'])
    if instrument is None and psf is None:
        raise ValueError(
            f'the header of {field["name"]!r} does not tell the instrument; give the instrument, '
            'a PSF or the width of the beam (--instrument, --psf, --fwhm).'
        )
    return instrument
