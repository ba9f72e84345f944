"""Fits of maps of any size: large ones are fitted in tiles around their sources.

Sources of a tile are fitted together with all those near it, on a cutout that holds every pixel
that their windows need, so that groups are complete. Only pixels near sources are read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array, csgraph
from scipy.spatial import KDTree

from csr_astro.cutouts import window_size
from csr_astro.fitting.gaussian import moments
from csr_astro.fitting.rounds import fit_scene
from csr_astro.fitting.scene import Scene, add_source
from csr_astro.utils.threads import one_blas_thread

if TYPE_CHECKING:
    from typing import Any

    from csr_astro.fitting.fit import FitOptions
    from csr_astro.fitting.psf import PixelPSF
    from csr_astro.images import Image
    from csr_astro.masking import SourceMask

__all__ = ['Catalogue', 'fit_map']


# Maps with more pixels are fitted in tiles of this width.
_LARGEST_MAP = 4_000_000
_TILE = 512
# Sources up to this many windows from a tile are fitted with it, and masks may grow so much.
_CONTEXT = 1.5
_GROWTH = 2.0


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Sources to fit, as they are known before.

    Attributes
    ----------
    x, y, flux : (N,) `~numpy.ndarray` of float
        Positions in pixels and fluxes; NaN for unknown ones.
    masks : list of `~csr_astro.masking.SourceMask` or None
        Masks of N sources.
    position_error : (N,) `~numpy.ndarray` of float
        Of each coordinate, in FWHM of the PSF.
    has_masks : bool
        Whether masks are given; else the fit draws them.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    masks: list[SourceMask | None]
    position_error: np.ndarray
    has_masks: bool

    def __repr__(self) -> str:
        return f'<Catalogue: {len(self.x)} sources>'

    def distinct(self, distance: float) -> tuple[np.ndarray, np.ndarray]:
        """Find the distinct sources, in an order that does not depend on that of the catalogue.

        Parameters
        ----------
        distance : float
            Sources closer than this are one, in pixels.

        Returns
        -------
        order : (K,) `~numpy.ndarray` of int
            Numbers of the distinct sources, by position.
        copies : (N,) `~numpy.ndarray` of int
            Index of each source of the catalogue in ``order``.
        """
        n = len(self.x)
        by_position = np.lexsort((self.x, self.y))
        placed = by_position[np.isfinite(self.x + self.y)[by_position]]
        copies = np.arange(n)
        if len(placed):
            tree = KDTree(np.column_stack([self.x, self.y])[placed])
            pairs = tree.query_pairs(distance, output_type='ndarray').T
            graph = coo_array((np.ones(pairs.shape[1]), tuple(pairs)), shape=(len(placed),) * 2)
            labels = csgraph.connected_components(graph, directed=False)[1]
            first = np.unique(labels, return_index=True)[1]
            copies[placed] = placed[first[labels]]
        order = by_position[copies[by_position] == by_position]
        rank = np.empty(n, dtype=int)
        rank[order] = np.arange(len(order))
        return order, rank[copies]

    def take(self, index: np.ndarray, corner: tuple[int, int] = (0, 0)) -> Catalogue:
        """Choose sources, for a cutout of the map.

        Parameters
        ----------
        index : (K,) `~numpy.ndarray` of int
            Their numbers.
        corner : (int, int), optional
            First row and column of the cutout.
        """
        masks = [_shifted(self.masks[i], -corner[0], -corner[1]) for i in index]
        return replace(
            self, x=self.x[index] - corner[1], y=self.y[index] - corner[0], flux=self.flux[index],
            masks=masks, position_error=self.position_error[index],
        )  # fmt: skip


def _shifted(mask, rows, columns):
    if mask is None or (rows, columns) == (0, 0):
        return mask
    return replace(mask, y0=mask.y0 + rows, x0=mask.x0 + columns)


def fit_map(
    image: Image, catalogue: Catalogue, psf: PixelPSF, options: FitOptions
) -> dict[str, Any]:
    """Fit all sources of a map, at once or in tiles.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    catalogue : `Catalogue`
        The sources, at distinct positions.
    psf : `~csr_astro.fitting.psf.PixelPSF`
        The PSF.
    options : `~csr_astro.fitting.fit.FitOptions`

    Returns
    -------
    columns : dict of str
        Attributes of `~csr_astro.fitting.SourceFits` except ``group_size``.
    """
    if image.data.size <= _LARGEST_MAP:
        scene, columns = _fit(image, catalogue, psf, options)
        residual = scene.residual
        return columns | {
            'profile_error': scene.profile_error, 'make_residual': partial(np.asarray, residual),
        }  # fmt: skip
    n = len(catalogue.x)
    columns, links, errors = {}, [], []
    for own, near, window in _tiles(image.shape, catalogue, psf, options):
        corner = window[0].start, window[1].start
        scene, found = _fit(_cut(image, window), catalogue.take(near, corner), psf, options)
        errors.append(scene.profile_error)
        identity = found.pop('group_id')
        for k in np.unique(identity[identity > 0]):
            members = near[identity == k]
            links.append(np.stack([members, np.roll(members, 1)]))
        _keep(columns, _on_map(found, corner), np.searchsorted(near, own), own, n)
    if not columns:
        # No source is on the map: all results are NaN.
        nowhere = replace(catalogue, x=catalogue.x + np.nan, masks=[None] * n, has_masks=True)
        columns = _fit(_cut(image, (slice(0, 1), slice(0, 1))), nowhere, psf, options)[1]
        errors.append(options.profile_error)
    first, second = np.concatenate(links, axis=1) if links else np.zeros((2, 0), dtype=int)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(n, n))
    labels = csgraph.connected_components(graph)[1] + 1
    columns['group_id'] = np.where(np.isin(np.arange(n), first), labels, 0)
    return columns | {
        'profile_error': float(np.mean(errors)),
        'make_residual': partial(_residual, image, psf, columns),
    }


@one_blas_thread()
def _fit(image, catalogue, psf, options):
    scene = Scene(
        image, catalogue.x, catalogue.y, psf,
        catalogue.masks if catalogue.has_masks else None, catalogue.flux,
        replace(options, position_error=catalogue.position_error),
    )  # fmt: skip
    columns = fit_scene(scene)
    return scene, columns


def _tiles(shape, catalogue, psf, options):
    """Numbers of the sources of each tile and of those near it, and the pixels to look at."""
    radius = max(
        [mask.radius for mask in catalogue.masks if mask is not None],
        default=max(options.mask_radius * psf.fwhm, options.smallest_mask) + psf.fwhm,
    )
    if options.shape == 'gaussian':
        radius *= _GROWTH
    reach = int(window_size(min(radius, 100.0))) // 2 + int(psf.radius)
    position = np.stack([catalogue.y, catalogue.x])
    size = np.array(shape)[:, np.newaxis]
    on_map = (position > -reach).all(axis=0) & (position < size + reach).all(axis=0)
    last = size // _TILE
    tile = np.clip(np.where(on_map, position, 0) // _TILE, 0, last).astype(int)
    numbers = np.where(on_map, tile[0] * (last[1] + 1) + tile[1], -1)
    for number in np.unique(numbers[on_map]):
        own = np.flatnonzero(numbers == number)
        low, high = position[:, own].min(axis=1), position[:, own].max(axis=1)
        outside = np.maximum(low[:, None] - position, position - high[:, None])
        near = np.flatnonzero((outside <= _CONTEXT * reach).all(axis=0) & on_map)
        low, high = position[:, near].min(axis=1), position[:, near].max(axis=1)
        window = tuple(
            slice(max(int(a) - reach, 0), min(int(b) + reach + 2, n))
            for a, b, n in zip(low, high, shape, strict=True)
        )
        yield own, near, window


def _residual(image, psf, columns):
    """The whole map less all sources."""
    residual = np.where(image.valid((slice(None), slice(None))), image.data, 0.0).astype(float)
    for i in np.flatnonzero(np.isfinite(columns['flux'])):
        source = psf.convolved(moments(columns['shape'][i])) if columns['extended'][i] else psf
        place = columns['x'][i], columns['y'][i], np.log(columns['width'][i])
        add_source(residual, source, -columns['flux'][i], *place)
    return residual


def _cut(image, window):
    parts = {
        name: None if getattr(image, name) is None else getattr(image, name)[window]
        for name in ('data', 'mask', 'error')
    }
    return replace(image, **parts, wcs=None)


def _on_map(found, corner):
    """Positions, masks and pixels of a cutout as those of the map."""
    rows, columns = corner
    found['x'], found['y'] = found['x'] + columns, found['y'] + rows
    found['masks'] = [_shifted(mask, rows, columns) for mask in found['masks']]
    found['background'] = [
        None if each is None else (each[0] + rows, each[1] + columns, each[2])
        for each in found['background']
    ]
    return found


def _keep(columns, found, chosen, own, n):
    """Take the results of the sources of a tile into those of all."""
    for name, values in found.items():
        if isinstance(values, list):
            column = columns.setdefault(name, [None] * n)
            for i, k in zip(own, chosen, strict=True):
                column[i] = values[k]
            continue
        if name not in columns:
            empty = False if values.dtype == bool else np.nan
            columns[name] = np.full((n, *values.shape[1:]), empty, dtype=values.dtype)
        columns[name][own] = values[chosen]
