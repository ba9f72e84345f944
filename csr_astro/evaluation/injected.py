"""Errors of the background sum behind sources that are injected into maps."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import vstack
from photutils.aperture import CircularAperture

from csr_astro.evaluation.baselines import annulus
from csr_astro.evaluation.discs import errors_together, row_per_aperture
from csr_astro.evaluation.positions import check_positions, separate_positions
from csr_astro.images import parse_image
from csr_astro.instruments import get_instrument
from csr_astro.masking import measure_snr
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.levels import flux_of_snr, ring_deviations
from csr_astro.utils.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from astropy.table import Table

    from csr_astro.instruments import Instrument
    from csr_astro.typing import Maps, Methods, ProfileLike

__all__ = ['injected_errors', 'snr_levels']


# Least distance between sources that are injected together, in pixels: wings reach far.
_SEPARATION_INJECTED = 70.0


def snr_levels(
    images: Sequence[np.ndarray],
    positions: Table,
    profile: ProfileLike,
    instrument: Instrument,
    levels: Sequence[float],
) -> np.ndarray:
    """Fluxes of sources whose peaks have given ratios to the typical scatter of a ring.

    Parameters
    ----------
    images : list of (ny, nx) array
        Maps.
    positions : `~astropy.table.Table`
        Columns ``map``, ``x`` and ``y``.
    profile : callable
        The PSF.
    instrument : `~csr_astro.instruments.Instrument`
        Its ``snr_radii`` give the radii of the ring.
    levels : sequence of float
        Signal-to-noise ratios.

    Returns
    -------
    flux : (L,) `~numpy.ndarray` of float
        In units of the map's sum.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.table import Table
    >>> from csr_astro.evaluation.injected import snr_levels
    >>> from csr_astro.instruments import get_instrument
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> noise = np.random.default_rng(0).normal(size=(100, 100))
    >>> places = Table({'map': [0], 'x': [50.0], 'y': [50.0]})
    >>> flux = snr_levels([noise], places, gaussian_profile(3.5), get_instrument(), [10, 20])
    >>> print(flux[1] > flux[0])
    True
    """
    deviations = []
    for m in np.unique(positions['map']):
        x, y = (np.array(positions[c][positions['map'] == m], dtype=float) for c in ('x', 'y'))
        deviations.append(ring_deviations(parse_image(images[m]), x, y, instrument))
    return flux_of_snr(levels, np.concatenate([np.zeros(0), *deviations]), profile)


def injected_errors(
    groups: Maps,
    positions: Table,
    methods: Methods,
    profile: ProfileLike,
    *,
    instrument: str | Instrument = 'generic',
    levels: Sequence[float] = (3, 8, 20, 60, 140, 300, 600, 1000),
    flux_levels: Sequence[float] | None = None,
    apertures: Sequence[float] = (4.0,),
    progress: bool | None = None,
) -> Table:
    """Errors of the background sum behind sources that are injected into maps.

    A source of every flux is injected at every position. Masks are those of the instrument for
    the measured SNR: bright sources have wings outside.

    Parameters
    ----------
    groups, methods, apertures, progress
        As in `~csr_astro.evaluation.discs.background_errors`. The method ``annulus`` is added,
        that of the instrument's classical photometry.
    positions : `~astropy.table.Table`
        As from `~csr_astro.evaluation.positions.draw_positions`; ``radius`` has no influence.
    profile : callable
        The PSF, in pixels of the maps, as from
        `~csr_astro.simulation.psf.psf_profile`.
    instrument : str or `~csr_astro.instruments.Instrument`, optional
        Its masks and annulus are used.
    levels : sequence of float, optional
        Flux levels as SNRs over the typical ring of the group, see `snr_levels`.
    flux_levels : sequence of float, optional
        Flux levels in units of the map's sum instead.

    Returns
    -------
    errors : `~astropy.table.Table`
        As from `~csr_astro.evaluation.discs.background_errors`, with columns ``flux`` (injected),
        ``flux_aperture`` (its part in the aperture) and ``snr`` (measured).

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.injected import injected_errors
    >>> from csr_astro.evaluation.baselines import get_baselines
    >>> from csr_astro.evaluation.positions import draw_positions
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> groups = {'noise': [np.random.default_rng(0).normal(size=(120, 120))]}
    >>> positions = draw_positions(groups, [5], n=2)
    >>> errors = injected_errors(
    ...     groups, positions, get_baselines(['plane']), gaussian_profile(3.5), levels=[20]
    ... )
    >>> print(len(errors), 'plane' in errors.colnames, 'flux' in errors.colnames)
    2 True True
    """
    instrument = get_instrument(instrument)
    check_positions(positions, groups)
    methods = dict(methods) | {
        'annulus': partial(annulus, inner=instrument.annulus[0], outer=instrument.annulus[1])
    }
    n_levels = len(levels if flux_levels is None else flux_levels)
    parts = []
    n_discs = len(positions) * n_levels
    with progress_bar(progress=progress, total=n_discs, unit='disc', delay=2) as bar:
        for group in dict.fromkeys(positions['group']):
            rows = positions[positions['group'] == group]
            images = groups[group]
            for flux in (
                snr_levels(images, rows, profile, instrument, levels)
                if flux_levels is None
                else flux_levels
            ):
                part = rows.copy()
                part['flux'] = float(flux)
                parts.append(
                    _inject(part, images, profile, instrument, methods, apertures, bar.update)
                )
    return vstack(parts, metadata_conflicts='silent')


def _inject(table, images, profile, instrument, methods, apertures, progress):
    """Errors for one flux level of a group."""
    parts = []
    for m in np.unique(table['map']):
        rows = table[table['map'] == m]
        x, y = np.array(rows['x'], dtype=float), np.array(rows['y'], dtype=float)
        truth = images[m]
        for members in separate_positions(x, y, _SEPARATION_INJECTED):
            part = rows[members]
            place = x[members], y[members]
            image = inject_sources(truth, *place, part['flux'], profile)
            part['snr'] = measure_snr(parse_image(image), *place, instrument)
            part['radius'] = instrument.mask(part['snr'])[1]
            sources = inject_sources(np.zeros(truth.shape), *place, part['flux'], profile)
            inside = [
                [CircularAperture(at, a).do_photometry(sources)[0][0] for a in apertures]
                for at in zip(*place, strict=True)
            ]
            errors = errors_together(
                image, truth, *place, np.array(part['radius']), methods, apertures,
                reach=instrument.annulus[1],
            )  # fmt: skip
            parts.append(row_per_aperture(part, apertures, {'flux_aperture': inside} | errors))
            progress(len(part))
    return vstack(parts, metadata_conflicts='silent')
