"""Maps and positions on which methods are compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
from astropy.table import QTable, Table, vstack
from scipy import signal

from csr_astro.conventions import file_conventions, meaning
from csr_astro.cutouts import MAX_RADIUS
from csr_astro.evaluation.baselines import GAP, WIDTH
from csr_astro.images import find_image_hdu
from csr_astro.simulation.tiles import read_tiles
from csr_astro.utils.files import fits_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csr_astro.typing import Maps, PathLike, RngLike

__all__ = [
    'blank_positions',
    'draw_positions',
    'read_groups',
    'read_positions',
    'separate_positions',
]


POSITION_COLUMNS = ('group', 'map', 'radius', 'x', 'y')


def read_groups(paths: Sequence[PathLike]) -> dict[str, list[np.ndarray]]:
    """Read maps, grouped by the names of their files.

    Parameters
    ----------
    paths : list of path-like
        FITS files, and folders of them. An extension ``image``, ``SCI`` or ``DATA`` is the map
        of its file; in other files every two-dimensional image is one.

    Returns
    -------
    groups : dict of str to list of (ny, nx) `~numpy.ndarray` of float64
        By file name without ``_tileNN``; blank pixels are NaN.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> from csr_astro.evaluation.positions import read_groups
    >>> with TemporaryDirectory() as folder:
    ...     for n in (1, 2):
    ...         fits.writeto(f'{folder}/field_tile0{n}.fits', np.zeros((20, 30)))
    ...     groups = read_groups([folder])
    >>> {name: len(maps) for name, maps in groups.items()}
    {'field': 2}
    """
    files = []
    for path in map(Path, paths):
        files += fits_files(path) if path.is_dir() else [path]
    groups: dict[str, list[np.ndarray]] = {}
    for file, group, images in read_tiles(files, _map_hdus):
        if not images:
            raise ValueError(f'{str(file)!r} holds no two-dimensional image.')
        groups.setdefault(group, []).extend(images)
    return groups


def _map_hdus(hdus):
    conventions = file_conventions(hdus)
    named = any(meaning(hdu, conventions)[0] == 'image' for hdu in hdus)
    return [hdus[find_image_hdu(hdus)]] if named else hdus


def _cover(finite, inner, outer):
    """Valid fraction of a ring (a disc, for ``inner`` 0) about every pixel."""
    reach = int(np.ceil(outer))
    distance = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1])
    ring = ((distance >= inner) & (distance <= outer)).astype(float)
    return signal.oaconvolve(finite, ring, mode='same') / ring.sum()


def blank_positions(
    images: Sequence[np.ndarray],
    n: int,
    radius: float,
    rng: RngLike,
    *,
    aperture: float = 4.0,
    min_disc: float = 0.8,
    min_ring: float = 0.25,
) -> QTable:
    """Random positions on maps at which a disc and enough of its surroundings are valid.

    Parameters
    ----------
    images : list of (ny, nx) array
        Maps, NaN where blank.
    n : int
        Number of positions, no two on one pixel.
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

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.positions import blank_positions
    >>> blank = np.zeros((80, 80))
    >>> blank[:, 40:] = np.nan
    >>> places = blank_positions([blank], 5, radius=4, rng=0)
    >>> print(len(places), places['x'].max() < 40)
    5 True
    """
    rng = np.random.default_rng(rng)
    parts = []
    for number, image in enumerate(images):
        finite = np.isfinite(image).astype(float)
        good = (
            (_cover(finite, 0, aperture + 1) > 1 - 1e-6)
            & (_cover(finite, 0, radius) >= min_disc)
            & (_cover(finite, radius + GAP, radius + GAP + WIDTH) >= min_ring)
        )
        y, x = np.nonzero(good)
        parts.append(np.column_stack([np.full(len(x), number), x, y]))
    places = np.concatenate(parts)
    if len(places) < n:
        raise ValueError(f'the maps have room for {len(places)} discs of radius {radius}, not {n}.')
    chosen = rng.choice(len(places), n, replace=False)
    return QTable(places[chosen], names=('map', 'x', 'y'))


def draw_positions(
    groups: Maps, radii: Sequence[float], n: int = 300, *, aperture: float = 4.0, seed: int = 0
) -> Table:
    """Random positions of blank discs, the same number in each group for each radius.

    Parameters
    ----------
    groups : dict of str to list of (ny, nx) array
        Maps of one kind share a name, as from `read_groups`.
    radii : sequence of float
        Radii of the discs, in pixels.
    n : int, optional
        Number of positions.
    aperture : float, optional
        Largest radius of an aperture.
    seed : int, optional
        Decides the positions.

    Returns
    -------
    positions : `~astropy.table.Table`
        Columns ``group``, ``map`` (number in the group), ``radius``, ``x``,
        ``y`` (zero-based pixels); ``meta['seed']``.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.positions import draw_positions
    >>> draw_positions({'flat': [np.zeros((60, 60))]}, [5, 9], 4).colnames
    ['group', 'map', 'radius', 'x', 'y']
    """
    if not isinstance(groups, Mapping):
        raise TypeError(
            'groups must be a dict of lists of maps, as from read_groups, got '
            f'{type(groups).__name__}.'
        )
    check_radii(radii, aperture)
    if n < 1:
        raise ValueError(f'the number of positions must be positive, got {n}.')
    parts = []
    for group, images in groups.items():
        for radius in radii:
            # Positions do not depend on the other groups.
            rng = np.random.default_rng([seed, crc32(group.encode()), round(100 * radius)])
            try:
                places = blank_positions(images, n, radius, rng, aperture=aperture)
            except ValueError as error:
                raise ValueError(f'{group}: {error}') from None
            part = Table({'group': np.full(n, group), 'map': places['map']})
            part['radius'] = float(radius)
            part['x'], part['y'] = places['x'].astype(float), places['y'].astype(float)
            parts.append(part)
    positions = vstack(parts, metadata_conflicts='silent')
    positions.meta['seed'] = seed
    return positions


def separate_positions(x: np.ndarray, y: np.ndarray, distance: float) -> list[list[int]]:
    """Groups of positions that are far enough apart to be measured at once.

    Parameters
    ----------
    x, y : (N,) `~numpy.ndarray` of float
        Positions in pixels.
    distance : float
        Least distance between the members of a group, in pixels.

    Returns
    -------
    groups : list of list of int
        Indices of the positions, each once.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.positions import separate_positions
    >>> separate_positions(np.array([0, 5, 40]), np.zeros(3), 20)
    [[0, 2], [1]]
    """
    groups: list[list[int]] = []
    for i in range(len(x)):
        for group in groups:
            if (np.hypot(x[i] - x[group], y[i] - y[group]) >= distance).all():
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


def check_radii(radii, aperture):
    """Refuse radii that are not positive, or too large for a window.

    Parameters
    ----------
    radii : sequence of float
        Radii of discs.
    aperture : float
        Radius of the aperture.
    """
    radii = np.atleast_1d(np.asarray(radii, dtype=float))
    if not (np.isfinite(radii).all() and (radii > 0).all() and (radii <= MAX_RADIUS).all()):
        raise ValueError(f'radii must be between 0 and {MAX_RADIUS} pixels, got {list(radii)}.')
    if not (np.isfinite(aperture) and aperture > 0):
        raise ValueError(f'the aperture must have a positive radius, got {aperture}.')


def read_positions(path: PathLike) -> Table:
    """Read the positions of an earlier evaluation.

    Parameters
    ----------
    path : path-like
        ECSV table with the columns of `draw_positions`.

    Returns
    -------
    positions : `~astropy.table.Table`

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from csr_astro.evaluation.positions import draw_positions, read_positions
    >>> positions = draw_positions({'flat': [np.zeros((80, 80))]}, [5], n=3)
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / 'positions.ecsv'
    ...     positions.write(path)
    ...     same = read_positions(path)
    >>> print(len(same), same.colnames == positions.colnames)
    3 True
    """
    if not Path(path).exists():
        raise FileNotFoundError(f'there is no table of positions {str(path)!r}.')
    try:
        positions = Table.read(path, format='ascii.ecsv')
    except Exception as error:  # noqa: BLE001
        raise ValueError(f'{str(path)!r} is no ECSV table: {error}') from None
    missing = [name for name in POSITION_COLUMNS if name not in positions.colnames]
    if missing:
        raise ValueError(
            f'the table of positions {str(path)!r} lacks {missing}; it must have the columns '
            f'{list(POSITION_COLUMNS)}.'
        )
    return positions


def check_positions(positions, groups):
    """Refuse positions that do not lie on the maps.

    Parameters
    ----------
    positions : `~astropy.table.Table`
        As from `draw_positions`.
    groups : dict of str to list of (ny, nx) array
        The maps.
    """
    if not isinstance(groups, Mapping):
        raise TypeError(
            'maps must be a dict of lists of maps, as from read_groups, got '
            f'{type(groups).__name__}.'
        )
    for group in np.unique(positions['group']):
        if group not in groups:
            raise ValueError(
                f'the positions are on the maps {str(group)!r}, which were not given; '
                f'given are {list(groups)}.'
            )
        rows = positions[positions['group'] == group]
        if rows['map'].min() < 0 or rows['map'].max() >= len(groups[group]):
            raise ValueError(
                f'{group}: the positions are on {rows["map"].max() + 1} maps, '
                f'{len(groups[group])} were given.'
            )
        for m in np.unique(rows['map']):
            ny, nx = groups[group][m].shape
            there = rows[rows['map'] == m]
            off = (there['x'] < 0) | (there['x'] > nx - 1) | (there['y'] < 0)
            if (off | (there['y'] > ny - 1)).any():
                raise ValueError(f'{group}: a position lies off map {m} of {ny} x {nx} pixels.')
