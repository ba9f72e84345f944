"""Random positions, and point sources of known flux at positions of a map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from csr_astro.simulation.psf import psf_stamp

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from csr_astro.typing import ProfileLike, RngLike

__all__ = ['inject_sources', 'random_positions']


# Number of tries without a new position after which no more are expected.
_IN_VAIN = 5000


def random_positions(
    shape: tuple[int, int],
    n: int,
    rng: RngLike,
    *,
    separation: float,
    margin: float = 0,
    valid: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Random positions that do not cluster.

    Parameters
    ----------
    shape : (int, int)
        (ny, nx) of the map.
    n : int
        Number of positions.
    rng : `numpy.random.Generator` or int
        Source of randomness, or a seed.
    separation : float
        Smallest distance between two of them, in pixels.
    margin : float, optional
        Smallest distance from the edges of the map, in pixels.
    valid : (ny, nx) array of bool, optional
        True for pixels on which positions may lie.

    Returns
    -------
    x, y : (n,) `~numpy.ndarray` of float

    Raises
    ------
    ValueError
        If that many do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.simulation.inject import random_positions
    >>> x, y = random_positions((100, 120), 5, 1, separation=20, margin=10)
    >>> print(len(x), x.min() >= 10, y.max() <= 90)
    5 True True
    """
    rng = np.random.default_rng(rng)
    ny, nx = shape
    if min(ny, nx) - 1 < 2 * margin:
        raise ValueError(f'a map of {ny} x {nx} pixels has no room inside a margin of {margin}.')
    if n < 0:
        raise ValueError(f'the number of positions must not be negative, got {n}.')
    low, high = np.full(2, margin), np.array([nx - 1 - margin, ny - 1 - margin])
    pixels = None if valid is None else np.argwhere(valid)[:, ::-1]
    chosen = np.empty((0, 2))
    # Most maps need a few tries per position.
    vain = 0
    for _ in range(100 * n):
        if len(chosen) == n or vain == _IN_VAIN or (pixels is not None and not len(pixels)):
            break
        if pixels is None:
            candidate = rng.uniform(low, high)
        else:
            # Drawn from the valid pixels, which may be few.
            candidate = pixels[rng.integers(len(pixels))] + rng.uniform(-0.5, 0.5, 2)
        vain += 1
        if not ((candidate >= low) & (candidate <= high)).all():
            continue
        if (np.hypot(*(chosen - candidate).T) >= separation).all():
            chosen = np.vstack([chosen, candidate])
            vain = 0
    if len(chosen) < n:
        raise ValueError(
            f'{n} positions {separation} pixels apart do not fit on {ny} x {nx} pixels; '
            f'{len(chosen)} do.'
        )
    return chosen[:, 0], chosen[:, 1]


def inject_sources(
    image: ArrayLike,
    x: ArrayLike,
    y: ArrayLike,
    flux: ArrayLike,
    profile: ProfileLike,
    *,
    size: int | None = None,
    angle: float | np.ndarray = 0.0,
    elongation: float | np.ndarray = 1.0,
) -> np.ndarray:
    """Add point sources to a copy of a map.

    Parameters
    ----------
    image : (ny, nx) array
        The map.
    x, y, flux : (N,) array of float
        Positions in pixels and fluxes in units of the map's sum.
    profile : callable
        The PSF, as from `~csr_astro.simulation.psf.psf_profile`.
    size : int, optional
        Pixels per side of the stamp that holds the whole flux, odd. By default it follows from
        the profile, or is 65 for a profile without end.
    angle : float or (N,) array of float, optional
        Rotation of the PSF in radians, counter-clockwise.
    elongation : float or (N,) array of float, optional
        Stretch along the x axis, before rotation.

    Returns
    -------
    injected : (ny, nx) `~numpy.ndarray` of float64

    Raises
    ------
    TypeError
        If the map or an argument has a unit; `~csr_astro.simulation.simulate.simulate_map`
        accepts units.
    ValueError
        If positions and fluxes are not equally many, or a position is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.simulation.inject import inject_sources
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> image = inject_sources(np.zeros((99, 99)), [50.2], [40.7], [8.0], gaussian_profile(3.5))
    >>> print(round(image.sum(), 6))
    8.0
    """
    if any(getattr(each, 'unit', None) is not None for each in (image, x, y, flux)):
        raise TypeError(
            'image, x, y and flux must be plain numbers, fluxes in units of the sum of the map; '
            'simulate_map takes maps with units.'
        )
    injected = np.array(image, dtype=float)
    x, y, flux = (np.atleast_1d(np.asarray(each, dtype=float)) for each in (x, y, flux))
    if not x.shape == y.shape == flux.shape:
        raise ValueError(
            f'x, y and flux must be equally many, got {x.size}, {y.size} and {flux.size}.'
        )
    if not (np.isfinite(x) & np.isfinite(y)).all():
        raise ValueError('x and y must be finite.')
    angle, elongation = (np.broadcast_to(each, len(x)) for each in (angle, elongation))
    for column, row, brightness, turn, stretch in zip(x, y, flux, angle, elongation, strict=True):
        x0, y0 = int(np.rint(column)), int(np.rint(row))
        stamp = brightness * psf_stamp(
            profile, size, offset=(column - x0, row - y0), angle=turn, elongation=stretch
        )
        half = len(stamp) // 2
        ya, yb = max(y0 - half, 0), min(y0 + half + 1, injected.shape[0])
        xa, xb = max(x0 - half, 0), min(x0 + half + 1, injected.shape[1])
        if ya < yb and xa < xb:
            injected[ya:yb, xa:xb] += stamp[
                ya - y0 + half : yb - y0 + half, xa - x0 + half : xb - x0 + half
            ]
    return injected
