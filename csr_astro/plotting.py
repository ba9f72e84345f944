"""Plots of source removals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.wcs import WCS

from csr_astro.utils.optional import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from astropy.units import UnitBase
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize

    from csr_astro.typing import WcsLike

__all__ = [
    'color_map',
    'plot_removal',
    'plot_source',
    'require_matplotlib',
    'source_norm',
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
        The first two share their colour range and its bar. The sources are on an asinh
        scale, so that faint ones show beside bright ones.
    """
    plt = require_matplotlib('matplotlib.pyplot')
    if axes is None:
        projection = {'projection': wcs} if isinstance(wcs, WCS) else {}
        ny, nx = data.shape
        width = min(max(3.6 * nx / ny, 2.6), 5.0)
        _, axes = plt.subplots(
            1, 3, figsize=(3 * width, 3.8), subplot_kw=projection, layout='constrained',
            sharex=True, sharey=True,
        )
    axes = np.asarray(axes, dtype=object).ravel()
    if len(axes) != 3:
        raise ValueError(f'axes must be three, got {len(axes)}.')
    low, high = value_range(background, percentile)
    shown = [
        _show(ax, title, values, _linear(low, high))
        for ax, title, values in zip(
            axes, ('map', 'without sources'), (np.asarray(data, dtype=float), background),
            strict=False,
        )
    ]  # fmt: skip
    removed = _show(axes[2], 'sources', source_image, source_norm(source_image[mask], high - low))
    _add_bar(axes[:2], shown[0], unit, extend='both')
    _add_bar(axes[2:], removed, unit, ', asinh scale')
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
        The first three share the colour range of the background, and its colour bar.
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
    low, high = value_range(cutouts['background'], 99.5)
    extent = (window[1].start - 0.5, window[1].stop - 0.5, window[0].start - 0.5,
              window[0].stop - 0.5)  # fmt: skip
    norms = dict.fromkeys(CUTOUTS, _linear(low, high)) | {
        'source': source_norm(cutouts['source'], high - low),
        'rms': _linear(*value_range(cutouts['rms'], 100)),
    }
    shown = {
        name: _show(
            ax, title, cutouts[name], norms[name], None if hasattr(ax, 'coords') else extent
        )
        for ax, (name, title) in zip(axes, CUTOUTS.items(), strict=True)
    }
    _add_bar(axes[:3], shown['map'], unit, extend='both')
    _add_bar(axes[3:4], shown['source'], unit, ', asinh scale')
    _add_bar(axes[4:], shown['rms'], unit)
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


def _linear(low, high):
    return require_matplotlib('matplotlib.colors').Normalize(low, high)


def source_norm(values: np.ndarray, contrast: float) -> Normalize:
    """Make the asinh stretch of an image of sources, which shows faint beside bright ones.

    Parameters
    ----------
    values : `~numpy.ndarray`
        Pixels under the masks; values that are not finite are ignored.
    contrast : float
        Range of the background; the stretch is linear up to a tenth of it and logarithmic
        beyond.

    Returns
    -------
    norm : `~matplotlib.colors.AsinhNorm`

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.plotting import source_norm
    >>> norm = source_norm(np.array([0.0, 100.0]), 10)
    >>> print(f'{norm(0.0):.1f} {norm(5.0):.2f} {norm(100.0):.1f}')
    0.0 0.44 1.0
    """
    AsinhNorm = require_matplotlib('matplotlib.colors').AsinhNorm
    values = values[np.isfinite(values)]
    low = np.percentile(values, 1) if values.size else 0.0
    high = values.max() if values.size else 1.0
    width = contrast / 10
    return AsinhNorm(width, min(low, 0.0), high if high > 0 else width)


def _show(ax, title, values, norm, extent=None):
    """Draw one map."""
    shown = ax.imshow(
        values, origin='lower', cmap=color_map(), norm=norm, interpolation='nearest', extent=extent
    )
    ax.set_title(title)
    return shown


def _add_bar(axes, shown, unit, scale='', extend='neither'):
    """Draw the colour bar that panels share, with the unit of the map."""
    bar = axes[0].figure.colorbar(shown, ax=list(axes), shrink=0.85, pad=0.02, extend=extend)
    text = 'map value' if unit in (None, u.dimensionless_unscaled) else f'{unit:latex_inline}'
    bar.set_label(text + scale)
    if scale:
        ticks = _ticks(shown.norm.vmin, shown.norm.vmax, shown.norm.linear_width)
        bar.set_ticks(ticks, labels=[f'{tick:g}' for tick in ticks])
        bar.ax.minorticks_off()


def _ticks(low, high, width):
    """Zero, the powers of ten, and three times these if they are few, of a stretched bar."""
    first, last = np.floor(np.log10(width)), np.ceil(np.log10(max(high, width)))
    powers = 10 ** np.arange(first, last + 1)
    for steps in ((1,), (1, 3)):
        ticks = np.outer(powers, steps).ravel()
        ticks = ticks[(ticks >= 2 * width) & (ticks <= high)]
        if len(ticks) > 2:
            break
    return np.array([*([0.0] if low <= 0 else []), *ticks])


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


def require_matplotlib(module: str = 'matplotlib') -> ModuleType:
    """Import a module of matplotlib, or raise an error that says how to install it.

    Parameters
    ----------
    module : str, optional
        Name of the module.
    """
    return require(module, 'plots need', 'plot')
