"""How are sources of known flux put onto a map?"""

import numpy as np

from csr_astro.simulation.psf import psf_stamp

__all__ = ['inject_sources', 'random_positions']


def random_positions(shape, n, rng, *, separation, margin=0):
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

    Returns
    -------
    x, y : (n,) `~numpy.ndarray` of float

    Raises
    ------
    ValueError
        If so many do not fit.
    """
    rng = np.random.default_rng(rng)
    ny, nx = shape
    if min(ny, nx) - 1 < 2 * margin:
        raise ValueError(f'a map of {ny} x {nx} pixels has no room inside a margin of {margin}.')
    chosen = np.empty((0, 2))
    # Most maps need a few tries per position; a hundred in vain means there is no room.
    for _ in range(100 * n):
        if len(chosen) == n:
            break
        candidate = rng.uniform(margin, (nx - 1 - margin, ny - 1 - margin))
        if (np.hypot(*(chosen - candidate).T) >= separation).all():
            chosen = np.vstack([chosen, candidate])
    if len(chosen) < n:
        raise ValueError(
            f'{n} positions {separation} pixels apart do not fit on {ny} x {nx} pixels; '
            f'{len(chosen)} do.'
        )
    return chosen[:, 0], chosen[:, 1]


def inject_sources(image, x, y, flux, profile, *, size=65):
    """Add point sources to a copy of a map.

    Parameters
    ----------
    image : (ny, nx) array
        The map.
    x, y, flux : (N,) array of float
        Positions in pixels and fluxes in units of the map's sum.
    profile : callable
        The PSF, as from `~csr_astro.simulation.psf.moffat_profile`.
    size : int, optional
        Pixels per side of the stamp that holds the whole flux, odd.

    Returns
    -------
    injected : (ny, nx) `~numpy.ndarray` of float64

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.simulation.inject import inject_sources
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> image = inject_sources(np.zeros((99, 99)), [50.2], [40.7], [8.0], gaussian_profile(3.5))
    >>> print(round(image.sum(), 6))
    8.0
    """
    injected = np.array(image, dtype=float)
    half = size // 2
    for column, row, brightness in zip(x, y, flux, strict=True):
        x0, y0 = int(np.rint(column)), int(np.rint(row))
        stamp = brightness * psf_stamp(profile, size, offset=(column - x0, row - y0))
        ya, yb = max(y0 - half, 0), min(y0 + half + 1, injected.shape[0])
        xa, xb = max(x0 - half, 0), min(x0 + half + 1, injected.shape[1])
        if ya < yb and xa < xb:
            injected[ya:yb, xa:xb] += stamp[
                ya - y0 + half : yb - y0 + half, xa - x0 + half : xb - x0 + half
            ]
    return injected
