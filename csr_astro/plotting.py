"""Plots of source removals."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from astropy.wcs import WCS

from csr_astro.utils.files import atomic_path
from csr_astro.utils.optional import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import ModuleType

    from astropy.units import UnitBase
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

    from csr_astro.typing import PathLike, WcsLike

__all__ = [
    'color_map',
    'figure',
    'plot_removal',
    'plot_source',
    'require_matplotlib',
    'value_range',
]

_AXIS_LABELS = {
    'pos.eq.ra': 'right ascension',
    'pos.eq.dec': 'declination',
    'pos.galactic.lon': 'galactic longitude',
    'pos.galactic.lat': 'galactic latitude',
}


def plot_removal(
    data: np.ndarray,
    background: np.ndarray,
    source_image: np.ndarray,
    mask: np.ndarray,
    *,
    wcs: WcsLike | None = None,
    unit: UnitBase | None = None,
    axes: Sequence[Axes] | np.ndarray | None = None,
    percentile: float = 99.0,
) -> np.ndarray:
    """Plot the map, the source-free map and the sources.

    Parameters
    ----------
    data, background, source_image : (ny, nx) `~numpy.ndarray`
        The map, the source-free map, and their difference.
    mask : (ny, nx) `~numpy.ndarray` of bool
        True for the inpainted pixels.
    wcs : optional
        World coordinate system; a FITS WCS gives axes on the sky.
    unit : `~astropy.units.UnitBase`, optional
        Unit for the colour bars.
    axes : sequence of three `~matplotlib.axes.Axes`, optional
        Axes to draw on; a new figure by default.
    percentile : float, optional
        Percentile of the source-free map at the upper end of the colour range of the
        first two panels; 100 minus it is the lower end.

    Returns
    -------
    axes : `~numpy.ndarray` of `~matplotlib.axes.Axes`
    """
    plt = require_matplotlib('matplotlib.pyplot')
    if axes is None:
        projection = {'projection': wcs} if isinstance(wcs, WCS) else {}
        ny, nx = data.shape
        width = min(max(4.2 * nx / ny, 3.0), 6.0)
        _, axes = plt.subplots(
            1, 3, figsize=(3 * width, 4.4), subplot_kw=projection, layout='constrained',
            sharex=True, sharey=True,
        )
    axes = np.asarray(axes, dtype=object).ravel()
    if len(axes) != 3:
        raise ValueError(f'axes must be three, got {len(axes)}.')
    shared = value_range(background, percentile)
    panels = (
        ('map', np.asarray(data, dtype=float), shared),
        ('without sources', background, shared),
        ('sources', source_image, value_range(np.append(source_image[mask], 0), 99.5)),
    )
    for ax, (title, values, limits) in zip(axes, panels, strict=True):
        _show(ax, title, values, limits, unit)
    _label(axes)
    return axes


#: Titles of the cutouts of a source.
CUTOUTS = {
    'map': 'map',
    'masked': 'masked',
    'background': 'prediction',
    'source': 'difference',
    'rms': '1σ error',
}


def plot_source(
    cutouts: Mapping[str, np.ndarray],
    window: tuple[slice, slice],
    *,
    wcs: WcsLike | None = None,
    unit: UnitBase | None = None,
    axes: Sequence[Axes] | np.ndarray | None = None,
) -> np.ndarray:
    """Plot one source: map, mask, prediction, difference and error.

    Parameters
    ----------
    cutouts : dict of str to (h, w) `~numpy.ndarray`
        Cutouts from `csr_astro.NeuralBackground.cutouts`, not empty.
    window : (slice, slice)
        Rows and columns of the cutouts on the map.
    wcs : optional
        World coordinate system of the map; a FITS WCS gives axes on the sky.
    unit : `~astropy.units.UnitBase`, optional
        Unit for the colour bars.
    axes : sequence of five `~matplotlib.axes.Axes`, optional
        Axes to draw on; a new figure by default.

    Returns
    -------
    axes : `~numpy.ndarray` of `~matplotlib.axes.Axes`
        The first three share the colour range of the background.
    """
    plt = require_matplotlib('matplotlib.pyplot')
    if axes is None:
        projection = {'projection': wcs[window]} if isinstance(wcs, WCS) else {}
        _, axes = plt.subplots(
            1, 5, figsize=(15, 3.4), subplot_kw=projection, layout='constrained', sharex=True,
            sharey=True,
        )
    axes = np.asarray(axes, dtype=object).ravel()
    if len(axes) != len(CUTOUTS):
        raise ValueError(f'axes must be five, got {len(axes)}.')
    shared = value_range(cutouts['background'], 99.5)
    extent = (window[1].start - 0.5, window[1].stop - 0.5, window[0].start - 0.5,
              window[0].stop - 0.5)  # fmt: skip
    for ax, (name, title) in zip(axes, CUTOUTS.items(), strict=True):
        limits = value_range(cutouts[name], 100) if name in ('source', 'rms') else shared
        place = None if hasattr(ax, 'coords') else extent
        _show(ax, title, cutouts[name], limits, unit, extent=place)
    _label(axes)
    return axes


def color_map() -> Colormap:
    """Return the colour map of all plots, with grey for NaN."""
    return require_matplotlib().colormaps['viridis'].with_extremes(bad='0.8')


def value_range(values: np.ndarray, percentile: float) -> tuple[float, float]:
    """Compute the colour range of a map.

    Parameters
    ----------
    values : `~numpy.ndarray`
        The map; values that are not finite are ignored.
    percentile : float
        Percentile at the upper end; 100 minus it is the lower end.

    Returns
    -------
    low, high : float
        Ends of the range, which differ even for a constant map.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.plotting import value_range
    >>> low, high = value_range(np.arange(101.0), 99)
    >>> print(f'{low:.0f} {high:.0f}')
    1 99
    """
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, [100 - percentile, percentile])
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _show(ax, title, values, limits, unit, extent=None):
    """Draw one map with its colour bar."""
    shown = ax.imshow(values, origin='lower', cmap=color_map(), vmin=limits[0], vmax=limits[1],
                      interpolation='nearest', extent=extent)  # fmt: skip
    ax.set_title(title)
    bar = ax.figure.colorbar(shown, ax=ax, shrink=0.85, pad=0.02)
    if unit is not None:
        bar.set_label(unit.to_string('latex_inline'))


def _label(axes):
    """Label the coordinates: both axes of the left panel, only x of the others."""
    for number, ax in enumerate(axes):
        coordinates = getattr(ax, 'coords', None)
        if coordinates is None:
            ax.set_xlabel('x [pixel]')
            if number == 0:
                ax.set_ylabel('y [pixel]')
            continue
        longitude, latitude = coordinates
        for each, kind in zip(coordinates, ax.wcs.world_axis_physical_types, strict=True):
            each.set_axislabel(_AXIS_LABELS.get(kind, kind))
        longitude.set_ticks(number=3)
        longitude.set_ticklabel(exclude_overlapping=True)
        if number:
            latitude.set_ticklabel_visible(False)
            latitude.set_axislabel('')


@contextmanager
def figure(n_panels: int, path: PathLike) -> Iterator[np.ndarray]:
    """Make a row of panels that is saved when the block ends, without a display.

    Parameters
    ----------
    n_panels : int
        Number of panels.
    path : path-like
        Image file to write, replaced atomically.

    Yields
    ------
    axes : `~numpy.ndarray` of `~matplotlib.axes.Axes`
    """
    Figure = require_matplotlib('matplotlib.figure').Figure
    drawing = Figure(figsize=(4.6 * n_panels, 4.2), layout='constrained')
    yield drawing.subplots(1, n_panels, squeeze=False)[0]
    with atomic_path(path) as temporary:
        drawing.savefig(temporary, dpi=150)


def require_matplotlib(module: str = 'matplotlib') -> ModuleType:
    """Import a module of matplotlib, or raise an error that says how to install it.

    Parameters
    ----------
    module : str, optional
        Name of the module.
    """
    return require(module, 'plots need', 'plot')
