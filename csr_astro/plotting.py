"""What did a removal do, at a glance?"""

from contextlib import contextmanager
from importlib import import_module

import numpy as np
from astropy import units as u
from astropy.wcs import WCS

from csr_astro.io import atomic_path

__all__ = ['figure', 'plot_removal', 'require_matplotlib']

_AXIS_LABELS = {
    'pos.eq.ra': 'right ascension',
    'pos.eq.dec': 'declination',
    'pos.galactic.lon': 'galactic longitude',
    'pos.galactic.lat': 'galactic latitude',
}


def plot_removal(result, *, axes=None, percentile=99.0):
    """Show the map, the map without its sources, and the sources.

    Parameters
    ----------
    result : `~csr_astro.NeuralBackground`
        What to show.
    axes : sequence of three `~matplotlib.axes.Axes`, optional
        Where to draw; a new figure by default.
    percentile : float, optional
        Percentile of the source-free map at which the colours end; 100 minus
        it where they begin. The first two panels share them.

    Returns
    -------
    axes : `~numpy.ndarray` of `~matplotlib.axes.Axes`
    """
    plt = require_matplotlib('matplotlib.pyplot')
    image = result.image
    background = u.Quantity(result.background).value
    if axes is None:
        projection = {'projection': image.wcs} if isinstance(image.wcs, WCS) else {}
        ny, nx = image.shape
        width = min(max(4.2 * nx / ny, 3.0), 6.0)
        _, axes = plt.subplots(
            1, 3, figsize=(3 * width, 4.4), subplot_kw=projection, layout='constrained',
            sharex=True, sharey=True,
        )
    axes = np.asarray(axes, dtype=object).ravel()
    if len(axes) != 3:
        raise ValueError(f'axes must be three, got {len(axes)}.')
    low, high = _range(background, percentile)
    sources = u.Quantity(result.source_image).value
    panels = (
        ('map', np.asarray(image.data, dtype=float), low, high),
        ('without sources', background, low, high),
        ('sources', sources, *_range(np.append(sources[result.mask], 0), 99.5)),
    )
    for ax, (title, values, bottom, top) in zip(axes, panels, strict=True):
        shown = ax.imshow(values, origin='lower', cmap='viridis', vmin=bottom, vmax=top,
                          interpolation='nearest')
        ax.set_title(title)
        bar = ax.figure.colorbar(shown, ax=ax, shrink=0.85, pad=0.02)
        if image.unit is not None:
            bar.set_label(image.unit.to_string('latex_inline'))
    _label(axes)
    return axes


def _range(values, percentile):
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    return tuple(np.percentile(values, [100 - percentile, percentile]))


def _label(axes):
    """Coordinate labels: the left panel has all of them, the others none on y."""
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
        if number:
            latitude.set_ticklabel_visible(False)
            latitude.set_axislabel('')


@contextmanager
def figure(n_panels, path):
    """A row of panels that is saved when the block ends, without a display.

    Parameters
    ----------
    n_panels : int
        Number of panels.
    path : path-like
        Picture to write, replaced in one step.

    Yields
    ------
    axes : `~numpy.ndarray` of `~matplotlib.axes.Axes`
    """
    Figure = require_matplotlib('matplotlib.figure').Figure
    drawing = Figure(figsize=(4.6 * n_panels, 4.2), layout='constrained')
    yield drawing.subplots(1, n_panels, squeeze=False)[0]
    with atomic_path(path) as temporary:
        drawing.savefig(temporary, dpi=150)


def require_matplotlib(module='matplotlib'):
    """A module of matplotlib, or an error that says how to get it."""
    try:
        return import_module(module)
    except ImportError:
        raise ImportError(
            'plots need matplotlib; install it with: pip install "csr_astro[plot]"'
        ) from None
