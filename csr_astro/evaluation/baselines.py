"""Other methods that predict the background behind a source.

Each is a function ``fill(values, valid, hole, x, y, radius)`` of one window of the map that
returns the pixels of the hole, see `BASELINES`.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from astropy.utils.exceptions import AstropyUserWarning
from photutils.background import Background2D

from csr_astro.kriging.stationary import estimate_covariance, kriging_mean
from csr_astro.utils.optional import require
from csr_astro.utils.plane import fit_plane
from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    'BASELINES',
    'annulus',
    'background_2d',
    'biharmonic',
    'get_baselines',
    'kriging_limit',
    'lpi',
    'maskfill',
    'plane',
]


# Distance of the annulus from the disc, and its width, in pixels.
GAP, WIDTH = 2.0, 10.0
# Fills that grow from the rim inward are given this many pixels around the disc.
_RIM = 8


def _distance(shape, x, y):
    return np.hypot(*np.ix_(np.arange(shape[0]) - y, np.arange(shape[1]) - x))


def annulus(
    values: np.ndarray,
    valid: np.ndarray,
    hole: np.ndarray,
    x: float,
    y: float,
    radius: float,
    *,
    inner: float | None = None,
    outer: float | None = None,
    statistic: Callable[[np.ndarray], float] = np.median,
) -> np.ndarray:
    """One value for the whole disc, from a ring around it.

    Parameters
    ----------
    values, valid, hole, x, y, radius
        See `BASELINES`.
    inner, outer : float, optional
        Radii of the ring in pixels; by default 2 and 12 more than that of the
        disc.
    statistic : callable, optional
        Function of the pixels whose centres lie in the ring.

    Returns
    -------
    prediction : (H,) `~numpy.ndarray` of float

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.baselines import annulus
    >>> y, x = np.mgrid[:65, :65]
    >>> hole = np.hypot(x - 32, y - 32) <= 5
    >>> values = 0.1 * x
    >>> prediction = annulus(values, ~hole, hole, 32, 32, 5)
    >>> print(prediction.shape, abs(prediction.mean() - 3.2) < 0.1)
    (81,) True
    """
    inner = radius + GAP if inner is None else inner
    outer = radius + GAP + WIDTH if outer is None else outer
    distance = _distance(values.shape, x, y)
    ring = values[valid & (distance >= inner) & (distance <= outer)]
    return np.full(hole.sum(), statistic(ring) if ring.size else np.nan)


def plane(
    values: np.ndarray, valid: np.ndarray, hole: np.ndarray, x: float, y: float, radius: float
) -> np.ndarray:
    """Plane through the pixels up to 12 pixels outside the disc, by least squares.

    Parameters
    ----------
    values, valid, hole, x, y, radius
        See `BASELINES`.

    Returns
    -------
    prediction : (H,) `~numpy.ndarray` of float

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.baselines import plane
    >>> y, x = np.mgrid[:65, :65]
    >>> hole = np.hypot(x - 32, y - 32) <= 5
    >>> values = 0.1 * x
    >>> prediction = plane(values, ~hole, hole, 32, 32, 5)
    >>> print(prediction.shape, abs(prediction.mean() - 3.2) < 0.1)
    (81,) True
    """
    near = valid & (_distance(values.shape, x, y) <= radius + GAP + WIDTH)
    if near.sum() < 3:
        return np.full(hole.sum(), np.nan)
    level = values[near].mean()
    return level + fit_plane(values[np.newaxis] - level, near[np.newaxis])[0][hole]


def background_2d(
    values: np.ndarray, valid: np.ndarray, hole: np.ndarray, x: float, y: float, radius: float
) -> np.ndarray:
    """Background of `photutils.background.Background2D` in boxes of the disc's diameter.

    Parameters
    ----------
    values, valid, hole, x, y, radius
        See `BASELINES`.

    Returns
    -------
    prediction : (H,) `~numpy.ndarray` of float

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.baselines import background_2d
    >>> y, x = np.mgrid[:65, :65]
    >>> hole = np.hypot(x - 32, y - 32) <= 5
    >>> values = 0.1 * x
    >>> prediction = background_2d(values, ~hole, hole, 32, 32, 5)
    >>> print(prediction.shape, abs(prediction.mean() - 3.2) < 0.1)
    (81,) True
    """
    del x, y
    box = int(np.clip(2 * np.ceil(radius), 12, min(values.shape)))
    with ignored(AstropyUserWarning):
        try:
            background = Background2D(
                np.where(valid, values, 0.0),
                box,
                mask=~valid,
                filter_size=3,
                exclude_percentile=75,
            ).background
        except ValueError:
            # No box has enough valid pixels.
            return np.full(hole.sum(), np.nan)
    return np.asarray(background)[hole]


def _crop(hole):
    """Rows and columns around the hole that a fill from its rim is given."""
    return tuple(
        slice(max(index.min() - _RIM, 0), index.max() + _RIM + 1) for index in np.nonzero(hole)
    )


def _fill_crop(fill, values, valid, hole):
    window = _crop(hole)
    known = valid[window]
    if not known.any():
        return np.full(hole.sum(), np.nan)
    level = values[window][known].mean()
    centred = np.where(known, values[window] - level, 0.0)
    return level + fill(centred, ~known)[hole[window]]


def biharmonic(
    values: np.ndarray, valid: np.ndarray, hole: np.ndarray, x: float, y: float, radius: float
) -> np.ndarray:
    """Biharmonic inpainting by `skimage.restoration.inpaint_biharmonic`.

    Parameters
    ----------
    values, valid, hole, x, y, radius
        See `BASELINES`.

    Returns
    -------
    prediction : (H,) `~numpy.ndarray` of float

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.baselines import biharmonic
    >>> y, x = np.mgrid[:65, :65]
    >>> hole = np.hypot(x - 32, y - 32) <= 5
    >>> values = 0.1 * x
    >>> prediction = biharmonic(values, ~hole, hole, 32, 32, 5)
    >>> print(prediction.shape, abs(prediction.mean() - 3.2) < 0.1)
    (81,) True
    """
    del x, y, radius
    inpaint = _require(*_NEEDED['biharmonic']).inpaint_biharmonic
    return _fill_crop(inpaint, values, valid, hole)


def maskfill(
    values: np.ndarray, valid: np.ndarray, hole: np.ndarray, x: float, y: float, radius: float
) -> np.ndarray:
    """Fill by the package maskfill (van Dokkum & Pasha 2024).

    Parameters
    ----------
    values, valid, hole, x, y, radius
        See `BASELINES`.

    Returns
    -------
    prediction : (H,) `~numpy.ndarray` of float

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.baselines import maskfill
    >>> y, x = np.mgrid[:65, :65]
    >>> hole = np.hypot(x - 32, y - 32) <= 5
    >>> values = 0.1 * x
    >>> prediction = maskfill(values, ~hole, hole, 32, 32, 5)
    >>> print(prediction.shape, abs(prediction.mean() - 3.2) < 0.1)
    (81,) True
    """
    del x, y, radius
    fill = _require(*_NEEDED['maskfill']).maskfill
    return _fill_crop(lambda image, mask: fill(image, mask)[0], values, valid, hole)


def lpi(
    values: np.ndarray, valid: np.ndarray, hole: np.ndarray, x: float, y: float, radius: float
) -> np.ndarray:
    """Local pixelwise infilling (Saydjari & Finkbeiner 2022).

    Kriging with the covariance estimated from the valid pixels of the window.

    Parameters
    ----------
    values, valid, hole, x, y, radius
        See `BASELINES`.

    Returns
    -------
    prediction : (H,) `~numpy.ndarray` of float

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.baselines import lpi
    >>> y, x = np.mgrid[:65, :65]
    >>> hole = np.hypot(x - 32, y - 32) <= 5
    >>> values = 0.1 * x
    >>> prediction = lpi(values, ~hole, hole, 32, 32, 5)
    >>> print(prediction.shape, abs(prediction.mean() - 3.2) < 0.1)
    (81,) True
    """
    del x, y, radius
    if not valid.any():
        return np.full(hole.sum(), np.nan)
    # The transforms take most of the time: the window is as small as possible.
    window = tuple(slice(i.min(), i.max() + 1) for i in np.nonzero(valid | hole))
    values, valid, hole = values[window], valid[window], hole[window]
    covariance = estimate_covariance(values, valid)
    level = values[valid].mean()
    # The covariance is known to a few per cent, so the solution need not be more accurate.
    return kriging_mean(values, valid, covariance, mean=level, tolerance=1e-3)[hole]


def kriging_limit(
    values: np.ndarray,
    valid: np.ndarray,
    hole: np.ndarray,
    x: float,
    y: float,
    radius: float,
    *,
    covariance: np.ndarray,
) -> np.ndarray:
    """The best linear prediction for a Gaussian field of known covariance and mean 0.

    Parameters
    ----------
    values, valid, hole, x, y, radius
        See `BASELINES`.
    covariance : (my, mx) array of float
        As in `~csr_astro.kriging.stationary.kriging_mean`.

    Returns
    -------
    prediction : (H,) `~numpy.ndarray` of float

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.baselines import kriging_limit
    >>> from csr_astro.kriging.stationary import power_law_covariance
    >>> y, x = np.mgrid[:33, :33]
    >>> hole = np.hypot(x - 16, y - 16) <= 3
    >>> covariance = power_law_covariance((64, 64), -3.0)
    >>> print(kriging_limit(0.0 * x, ~hole, hole, 16, 16, 3, covariance=covariance).max())
    0.0
    """
    del x, y, radius
    return kriging_mean(values, valid, covariance, tolerance=1e-4)[hole]


def _require(module, package=None):
    return require(module, 'this comparison needs', 'evaluate', package)


#: Methods by name: functions ``fill(values, valid, hole, x, y, radius)`` that return the pixels
#: of the hole in the order of ``values[hole]``, NaN if too few pixels are valid. ``values`` is a
#: window of the map (S, S); ``valid`` is True for its measured pixels outside all discs, and no
#: other pixels of ``values`` may be used; ``hole`` is True for the pixels to predict; ``x``,
#: ``y`` are the source's position in the window and ``radius`` that of its disc, in pixels.
BASELINES: dict[str, Callable] = {
    'annulus_mean': partial(annulus, statistic=np.mean),
    'annulus_median': partial(annulus, statistic=np.median),
    'plane': plane,
    'background_2d': background_2d,
    'biharmonic': biharmonic,
    'maskfill': maskfill,
    'lpi': lpi,
}
# Modules that are no dependencies of the package, and the packages that hold them.
_NEEDED = {'biharmonic': ('skimage.restoration', 'scikit-image'), 'maskfill': ('maskfill', None)}


def get_baselines(names: Sequence[str] | None = None) -> dict[str, Callable]:
    """Methods by their names.

    Parameters
    ----------
    names : sequence of str, optional
        Keys of `BASELINES`; by default all whose packages are installed.

    Returns
    -------
    baselines : dict of str to callable

    Raises
    ------
    ImportError
        If a package that one of ``names`` needs is missing.

    Examples
    --------
    >>> from csr_astro.evaluation.baselines import get_baselines
    >>> list(get_baselines(['lpi', 'plane']))
    ['lpi', 'plane']
    """
    if names is None:
        return {name: fill for name, fill in BASELINES.items() if _usable(name)}
    names = [names] if isinstance(names, str) else names
    for name in names:
        if name not in BASELINES:
            raise ValueError(f'a method must be one of {list(BASELINES)}, got {name!r}.')
        if name in _NEEDED:
            _require(*_NEEDED[name])
    return {name: BASELINES[name] for name in names}


def _usable(name):
    return name not in _NEEDED or find_spec(_NEEDED[name][0].split('.')[0]) is not None
