"""Sources of known flux on maps with few sources of their own.

The procedure of the paper (Sect. 2.3.1): sources of unit PSF times a flux level at random
positions that do not cluster, one simulation for each level.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable
from scipy import ndimage

from csr_astro.images import Image, parse_image
from csr_astro.instruments import Instrument, get_instrument
from csr_astro.simulation.inject import inject_sources, random_positions
from csr_astro.simulation.levels import flux_of_snr, ring_deviations
from csr_astro.simulation.paper import flux_levels, paper_facts
from csr_astro.simulation.psf import instrument_profile, psf_profile, psf_stamp
from csr_astro.simulation.result import Simulation
from csr_astro.simulation.units import map_units_per_millijansky, to_millijansky
from csr_astro.sources import parse_sources
from csr_astro.tables import versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

    from csr_astro.typing import ImageLike, PsfLike, QuantityLike, SourcesLike, WcsLike

__all__ = ['Simulation', 'flux_range', 'simulate_levels', 'simulate_map']


# Number of rings that the typical scatter of a map is measured in.
_N_RINGS = 200


@dataclass(frozen=True)
class _Setup:
    """The parts of a simulation that are the same for all flux levels."""

    image: Image
    instrument: Instrument
    profile: object
    factor: float
    # Pixels on which sources may lie, and pixels that were observed.
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
        Its ``zero_is_blank`` tells whether areas of zeros were not observed.

    Returns
    -------
    observed : (ny, nx) `~numpy.ndarray` of bool
    """
    observed = image.valid((slice(None), slice(None)))
    if instrument.zero_is_blank:
        # Single zeros are measurements; areas of 3 x 3 pixels and more are not.
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
    # Pixels off the map count as not observed, so that discs lie on the map.
    distance = ndimage.distance_transform_edt(np.pad(observed, 1))[1:-1, 1:-1]
    allowed = distance > largest
    if avoid is not None:
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
    factor = map_units_per_millijansky(image, instrument)
    return _Setup(
        image, instrument, profile, factor, allowed, observed, int(number), separation, name
    )


def _width(profile):
    """Diameter of the circle with the area above half the maximum, in pixels."""
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

    The range is that of SNRs from 3 to 1000: of the peak over the typical scatter of the map in
    rings around random places.

    Parameters
    ----------
    data, psf, instrument, fast_scan, seed, **parts
        As in `simulate_map`.

    Returns
    -------
    lowest, highest : float
        Fluxes in mJy.

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
    candidates = np.flatnonzero(setup.allowed)
    if not len(candidates):
        raise ValueError('no part of the map is large enough for a source and its surroundings.')
    y, x = np.unravel_index(rng.choice(candidates, _N_RINGS), setup.image.shape)
    deviations = ring_deviations(setup.image, x, y, setup.instrument)
    lowest, highest = flux_of_snr(paper_facts()['snr_range'], deviations, setup.profile)
    return float(lowest / setup.factor), float(highest / setup.factor)


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
        A map with few sources of its own, in flux per pixel, per solid angle or per beam.
        Without a unit it is taken to be in mJy/pixel.
    flux : float, Quantity or array-like
        Flux of every source, or one for each; plain numbers are in mJy.
    psf : optional
        The PSF, in any form that `~csr_astro.simulation.psf.psf_profile` takes; by default that
        of the instrument.
    instrument : str or `~csr_astro.instruments.Instrument`, optional
        Decides the PSF and the masks, hence how close sources may be. By default
        ``'generic'`` with the width of ``psf``, or of 3.5 pixels.
    number : int, optional
        Number of sources; 25 to 210 by default, by the area of the map.
    separation : float, optional
        Smallest distance between two, in pixels; twice the radius of the
        largest mask by default.
    avoid : SkyCoord, table, regions or (N, 2) array, optional
        Sources that the map has itself; the same distance is kept to them.
    angle : float, optional
        Rotation of the PSF in radians, counter-clockwise; random for each
        source by default.
    elongation : float, optional
        Stretch of the PSF along its x axis, before rotation.
    fast_scan : bool, optional
        Whether the PSF of PACS is elongated by the fast scans of parallel mode.
    seed : int, optional
        Decides positions and angles; the same seed gives the same simulation.
    name : str, optional
        Name of the field.
    header : `~astropy.io.fits.Header`, optional
        Header for the files; that of an HDU by default.
    mask, error, wcs : optional
        As in `~csr_astro.NeuralBackgroundEstimator.estimate`.

    Returns
    -------
    simulation : `Simulation`

    Raises
    ------
    ValueError
        If that many sources do not fit, or the map's unit is no flux.

    Examples
    --------
    >>> from csr_astro.simulation.field import synthetic_map
    >>> from csr_astro.simulation.simulate import simulate_map
    >>> field = synthetic_map('lognormal', (200, 200), 1)
    >>> simulation = simulate_map(field, 500, instrument='pacs-scanmap-blue', number=5, seed=2)
    >>> print(((simulation.data - simulation.truth).sum() / 5).round(2))
    0.5 Jy / pix
    """
    setup = _prepare(data, psf, instrument, number, separation, avoid, fast_scan, name,
                     mask=mask, error=error, wcs=wcs)  # fmt: skip
    header = getattr(data, 'header', None) if header is None else header
    rng = np.random.default_rng([seed, 1])
    flux = to_millijansky(flux)
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
        Only levels between these two (inclusive) are used. For the paper's levels the
        default is `flux_range`.
    random : int, optional
        Number of simulations in which every source has a random level of its own, instead of
        one simulation for each level.
    seed, name, header, mask, error, wcs
        As in `simulate_map`.

    Yields
    ------
    simulation : `Simulation`
        One at a time, because those of a survey do not fit into memory.

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
        # A level gives the same simulation whatever other levels there are.
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
    levels = np.unique(np.atleast_1d(to_millijansky(levels)))
    if (levels <= 0).any():
        raise ValueError('flux levels must be positive.')
    lowest = -np.inf if lowest is None else to_millijansky(lowest)
    highest = np.inf if highest is None else to_millijansky(highest)
    inside = levels[(levels >= lowest) & (levels <= highest)]
    if not len(inside):
        raise ValueError(
            f'no flux level of {levels[0]:g} to {levels[-1]:g} mJy lies between {lowest:.3g} and '
            f'{highest:.3g} mJy; give others.'
        )
    return inside


def _simulate(setup, flux, title, rng, seed, angle, elongation, header):
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
