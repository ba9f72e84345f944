"""How well is the background known behind a source?

Discs are laid on places of a real map whose background is known because no
source is there; what each method says of the sum in an aperture at the centre
is compared with what the map holds.
"""

import numpy as np
from astropy.table import QTable
from photutils.aperture import ApertureStats, CircularAnnulus, CircularAperture, aperture_photometry
from scipy import signal

from csr_astro.images import parse_image

__all__ = ['annulus_sums', 'background_accuracy', 'blank_positions', 'robust_scatter']

# Annulus of the comparison: this far outside the disc, and this wide, in pixels.
_GAP, _WIDTH = 2.0, 10.0
# Least distance between discs that are predicted together, beyond their radii, in pixels.
_SEPARATION = 30.0


def robust_scatter(errors):
    """1.4826 × median absolute deviation.

    Parameters
    ----------
    errors : (N,) array-like of float

    Returns
    -------
    scatter : float
    """
    errors = np.asarray(errors, dtype=float)
    return float(1.4826 * np.median(np.abs(errors - np.median(errors))))


def _cover(finite, inner, outer):
    """Valid fraction of a ring (a disc, for ``inner`` 0) about every pixel."""
    reach = int(np.ceil(outer))
    distance = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1])
    ring = ((distance >= inner) & (distance <= outer)).astype(float)
    return signal.oaconvolve(finite, ring, mode='same') / ring.sum()


def blank_positions(images, n, radius, rng, *, aperture=4.0, min_disc=0.8, min_ring=0.25):
    """Random places of maps where a disc and enough of its surroundings are valid.

    Parameters
    ----------
    images : list of (ny, nx) array
        Maps, NaN where blank.
    n : int
        Number of places, no two on one pixel.
    radius : float
        Radius of the disc in pixels.
    rng : `numpy.random.Generator` or int
        Source of randomness, or a seed.
    aperture : float, optional
        Radius within which all pixels must be valid.
    min_disc, min_ring : float, optional
        Smallest valid fraction of the disc, and of the annulus around it.

    Returns
    -------
    places : `~astropy.table.QTable`
        Columns ``map`` (index), ``x`` and ``y``.
    """
    rng = np.random.default_rng(rng)
    places = []
    for number, image in enumerate(images):
        finite = np.isfinite(image).astype(float)
        good = (
            (_cover(finite, 0, aperture + 1) > 1 - 1e-6)
            & (_cover(finite, 0, radius) >= min_disc)
            & (_cover(finite, radius + _GAP, radius + _GAP + _WIDTH) >= min_ring)
        )
        y, x = np.nonzero(good)
        places.append(np.column_stack([np.full(len(x), number), x, y]))
    places = np.concatenate(places)
    if len(places) < n:
        raise ValueError(f'the maps have room for {len(places)} discs of radius {radius}, not {n}.')
    chosen = rng.choice(len(places), n, replace=False)
    return QTable(places[chosen], names=('map', 'x', 'y'))


def annulus_sums(image, x, y, radius, aperture, statistic='median'):
    """Background sum in an aperture as an annulus around the disc has it.

    Parameters
    ----------
    image : (ny, nx) array
        The map, NaN where blank.
    x, y : (N,) array of float
        Positions in pixels.
    radius : float
        Radius of the disc; the annulus begins 2 pixels outside and is 10 wide.
    aperture : float
        Radius of the aperture in pixels.
    statistic : {'median', 'mean'}, optional
        What is taken of the annulus.

    Returns
    -------
    sums : (N,) `~numpy.ndarray` of float
    """
    ring = CircularAnnulus(np.column_stack([x, y]), radius + _GAP, radius + _GAP + _WIDTH)
    stats = ApertureStats(np.asarray(image, dtype=float), ring, mask=~np.isfinite(image))
    return np.atleast_1d(getattr(stats, statistic)) * np.pi * aperture**2


def _groups(x, y, separation):
    """Indices in groups whose members are at least ``separation`` apart."""
    groups = []
    for i in range(len(x)):
        for group in groups:
            if all(np.hypot(x[i] - x[j], y[i] - y[j]) >= separation for j in group):
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


def background_accuracy(estimator, images, *, radius, aperture=4.0, n=200, seed=0):
    """Errors of the background sum behind discs where no source is.

    Parameters
    ----------
    estimator : `~csr_astro.NeuralBackgroundEstimator`
        What is tested.
    images : list of (ny, nx) array
        Maps of one kind, NaN where blank.
    radius : float
        Radius of the discs in pixels.
    aperture : float, optional
        Radius of the aperture in pixels.
    n : int, optional
        Number of discs.
    seed : int, optional
        Decides where they are.

    Returns
    -------
    table : `~astropy.table.QTable`
        Columns ``map``, ``x``, ``y``, ``true`` (sum of the map), and the errors
        ``network``, ``annulus_median`` and ``annulus_mean`` (sum predicted minus
        true).
    """
    images = [np.where(i.valid(...), i.data, np.nan) for i in map(parse_image, images)]
    table = blank_positions(images, n, radius, seed, aperture=aperture)
    columns = {
        name: np.zeros(n) for name in ('true', 'network', 'annulus_median', 'annulus_mean')
    }
    for m in np.unique(table['map']):
        rows = np.flatnonzero(table['map'] == m)
        x, y = np.array(table['x'][rows], float), np.array(table['y'][rows], float)
        image = images[m].astype(float)
        shape = CircularAperture(np.column_stack([x, y]), aperture)
        columns['true'][rows] = aperture_photometry(image, shape)['aperture_sum']
        for statistic in ('median', 'mean'):
            columns[f'annulus_{statistic}'][rows] = annulus_sums(
                image, x, y, radius, aperture, statistic
            )
        for group in _groups(x, y, 2 * radius + _SEPARATION):
            places = np.column_stack([x[group], y[group]])
            result = estimator.estimate(image, places, mask_radius=radius)
            found = aperture_photometry(result.background, CircularAperture(places, aperture))
            columns['network'][rows[group]] = found['aperture_sum']
    for name, column in columns.items():
        table[name] = column if name == 'true' else column - columns['true']
    return table
