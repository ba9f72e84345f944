"""Fluxes of sources of given signal-to-noise ratios, from the scatter in rings of a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from csr_astro.cutouts import extract
from csr_astro.simulation.psf import psf_stamp

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from csr_astro.images import Image
    from csr_astro.instruments import Instrument
    from csr_astro.typing import ProfileLike

__all__ = ['flux_of_snr', 'ring_deviations']


def ring_deviations(
    image: Image, x: np.ndarray, y: np.ndarray, instrument: Instrument
) -> np.ndarray:
    """Standard deviations of a map in the rings around positions.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    x, y : (N,) `~numpy.ndarray` of float
        Positions in pixels.
    instrument : `~csr_astro.instruments.Instrument`
        Its ``snr_radii`` give the radii of the ring.

    Returns
    -------
    deviations : (M,) `~numpy.ndarray` of float
        One for each ring that has at least two valid pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.instruments import get_instrument
    >>> from csr_astro.simulation.levels import ring_deviations
    >>> noise = parse_image(np.random.default_rng(0).normal(0, 2, (100, 100)))
    >>> places = np.array([40.0, 60.0])
    >>> print(ring_deviations(noise, places, places, get_instrument()).round())
    [2. 2.]
    """
    _, inner, outer = instrument.snr_radii
    size = 2 * int(np.ceil(outer)) + 1
    steps = np.arange(size) - size // 2
    r2 = steps[:, None] ** 2 + steps**2
    values = extract(image, x, y, size)[:, (r2 >= inner**2) & (r2 <= outer**2)]
    return np.nanstd(values[np.isfinite(values).sum(axis=1) > 1], axis=1)


def flux_of_snr(
    snr: ArrayLike, deviations: np.ndarray, profile: ProfileLike
) -> np.ndarray:
    """Fluxes of sources whose peaks have given ratios to the typical scatter of a ring.

    Parameters
    ----------
    snr : float or array-like of float
        Signal-to-noise ratios.
    deviations : (M,) `~numpy.ndarray` of float
        As from `ring_deviations`; their median is the typical scatter.
    profile : callable
        The PSF.

    Returns
    -------
    flux : `~numpy.ndarray` of float
        In units of the map's sum.

    Raises
    ------
    ValueError
        If the map does not scatter.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.simulation.levels import flux_of_snr
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> flux = flux_of_snr([10, 20], np.array([0.9, 1.0, 1.3]), gaussian_profile(3.5))
    >>> print(flux[1] / flux[0])
    2.0
    """
    typical = np.median(deviations) if len(deviations) else 0.0
    if not typical > 0:
        raise ValueError(
            'the map does not scatter, so no flux is too faint on it; give the fluxes.'
        )
    return np.asarray(snr, dtype=float) * typical / psf_stamp(profile).max()
