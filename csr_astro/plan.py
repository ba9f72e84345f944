"""Plan of a source removal: sources, masks, flags and batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from astropy import units as u
from astropy.utils.exceptions import AstropyUserWarning
from scipy.spatial import KDTree

from csr_astro.cutouts import (
    extract,
    nearest_pixel,
    prediction_reach,
    published_center,
    window_corner,
    window_size,
)
from csr_astro.flags import BITS
from csr_astro.masking import draw_masks, flag_masks, mask_radii, measure_snr
from csr_astro.utils.rows import distinct_rows
from csr_astro.utils.warnings import ignored, one_at_a_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from csr_astro.images import Image
    from csr_astro.instruments import Instrument
    from csr_astro.masking import SourceMask
    from csr_astro.source_model import SourceModel
    from csr_astro.sources import Sources
    from csr_astro.typing import Batches, QuantityLike

__all__ = [
    'Plan', 'distinct_sources', 'plan_batches', 'plan_removal', 'refine_positions',
    'same_predictions', 'select_sources',
]  # fmt: skip

_SMALLEST = int(window_size(0))


@dataclass(frozen=True, eq=False)
class Plan:
    """Sources, masks, flags and batches of a removal, known before the prediction.

    Attributes
    ----------
    image : `~csr_astro.images.Image`
        The map; None while the plan is sent to a worker that opens the map itself.
    sources : `~csr_astro.sources.Sources`
        The N sources.
    instrument : `~csr_astro.instruments.Instrument`
        Instrument with radii in pixels of the map.
    snr : (N,) `~numpy.ndarray` of float
        Signal-to-noise ratio of each peak, see `~csr_astro.masking.measure_snr`.
    mask_names : (N,) `~numpy.ndarray` of str
        Names of the masks.
    masks : list of `~csr_astro.masking.SourceMask` or None
        Mask of each source; None for a source without one.
    flags : (N,) `~numpy.ndarray` of int
        Flags set before the prediction.
    batches : list of (index, size)
        Source indices and window width of each batch, from `plan_batches`.
    model : `~csr_astro.source_model.SourceModel` or None
        Sources whose wings reach outside their masks, which are subtracted from the map before the
        background is predicted; None if wings are not known.
    mask_radius : object
        The argument of `plan_removal`.
    first : (N,) `~numpy.ndarray` of int, or None
        For each source the one that is predicted in its place: itself, or another with the
        same pixel and the same mask. Only these are in the batches. None for all themselves.
    published : bool
        Whether windows are those of the published tool, see
        `~csr_astro.cutouts.published_center`.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.instruments import get_instrument
    >>> from csr_astro.plan import plan_removal
    >>> from csr_astro.sources import parse_sources
    >>> noise = np.random.default_rng(0).normal(size=(80, 80))
    >>> sources = parse_sources([(20, 30), (60, 50)])
    >>> plan = plan_removal(parse_image(noise), sources, get_instrument())
    >>> print(plan.mask_names[0], len(plan.batches))
    minimal 1
    """

    image: Image
    sources: Sources
    instrument: Instrument
    snr: np.ndarray
    mask_names: np.ndarray
    masks: list[SourceMask | None]
    flags: np.ndarray
    batches: Batches
    model: SourceModel | None = None
    mask_radius: object = None
    first: np.ndarray | None = None
    published: bool = False

    def __repr__(self) -> str:
        return f'<Plan: {len(self.sources)} sources in {len(self.batches)} batches>'

    @property
    def mask_radii(self) -> np.ndarray:
        """Radius of each mask in pixels, (N,); NaN for a source without one."""
        return np.array([np.nan if mask is None else mask.radius for mask in self.masks])

    def centers(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions on whose pixels the windows of some sources are centred.

        Parameters
        ----------
        index : (K,) array of int
            Indices of the sources.

        Returns
        -------
        x, y : (K,) `~numpy.ndarray` of float
        """
        x, y = self.sources.x[index], self.sources.y[index]
        return (published_center(x), published_center(y)) if self.published else (x, y)

    def restricted(self, batches: Batches) -> Plan:
        """Restrict the plan to some of its batches.

        Parameters
        ----------
        batches : list of (index, size)
            Batches of the plan.

        Returns
        -------
        plan : `Plan`
            Plan with these batches, and only the masks that reach into their windows.
        """
        present = np.array([i for i, mask in enumerate(self.masks) if mask is not None])
        largest = np.nanmax(self.mask_radii)
        positions = np.column_stack([self.sources.x, self.sources.y])
        tree = KDTree(positions[present])
        near = set()
        for index, size in batches:
            found = tree.query_ball_point(positions[index], size / 2 + largest + 2, p=np.inf)
            near.update(present[np.concatenate(found).astype(int)].tolist())
        masks = [mask if i in near else None for i, mask in enumerate(self.masks)]
        return replace(self, masks=masks, batches=batches)


def plan_removal(
    image: Image,
    sources: Sources,
    instrument: Instrument,
    *,
    mask_radius: QuantityLike | Literal['snr'] | None = None,
    centroid_func: Callable | None = None,
    batch_size: int = 32,
    published: bool = False,
) -> Plan:
    """Plan the removal of sources from a map.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    sources : `~csr_astro.sources.Sources`
        The sources.
    instrument : `~csr_astro.instruments.Instrument`
        Sets the mask radii.
    mask_radius : float, Quantity, array, 'snr' or None, optional
        As in `~csr_astro.NeuralBackgroundEstimator.estimate`.
    centroid_func : callable, optional
        As in `~csr_astro.NeuralBackgroundEstimator`.
    batch_size : int, optional
        Number of sources with the smallest window in a batch.
    published : bool, optional
        As in `Plan`. The SNR is then measured around the centre of the window.

    Returns
    -------
    plan : `Plan`
    """
    instrument = instrument.on_pixels(image.pixel_scale)
    given, asked = sources, mask_radius
    kept, inverse = distinct_sources(sources, mask_radius)
    if len(kept) < len(sources):
        sources = select_sources(sources, kept)
        if mask_radius is not None and np.ndim(mask_radius):
            radii = mask_radius if isinstance(mask_radius, u.Quantity) else np.asarray(mask_radius)
            mask_radius = radii[kept]
    flags = np.zeros(len(sources), dtype=int)
    if centroid_func is not None:
        sources, flags = refine_positions(image, sources, instrument, centroid_func)
    center = published_center if published else np.asarray
    snr = measure_snr(image, center(sources.x), center(sources.y), instrument)
    names, radii = mask_radii(mask_radius, sources, snr, instrument, image.pixel_scale)
    masks, mask_flags = draw_masks(image, sources, radii)
    placed = mask_flags & BITS['invalid_position'] == 0
    unknown = placed & np.isnan(snr) & ~np.isin(names, ('fixed', 'region'))
    flags = flags | mask_flags | flag_masks(image, masks) | BITS['no_snr'] * unknown
    flags |= BITS['already_removed'] * _on_filled_pixels(image, sources)
    first = same_predictions(sources, masks, published=published)
    predicted = [each if first[i] == i else None for i, each in enumerate(masks)]
    batches = [
        (kept[index], size) for index, size in plan_batches(sources, predicted, batch_size)
    ]
    if len(kept) < len(given):
        # A source that is given twice overlaps itself.
        twice = (np.bincount(inverse) > 1) & [each is not None for each in masks]
        flags = flags & ~(BITS['touching'] * twice) | BITS['overlap'] * twice
        given = replace(given, x=sources.x[inverse], y=sources.y[inverse])
        masks = [masks[i] for i in inverse]
    return Plan(
        image, given if len(kept) < len(given) else sources, instrument, snr[inverse],
        names[inverse], masks, flags[inverse], batches, mask_radius=asked,
        first=kept[first][inverse], published=published,
    )  # fmt: skip


def _on_filled_pixels(image, sources):
    """Return True for sources on a pixel that an earlier removal filled."""
    filled = np.zeros(len(sources), dtype=bool)
    if image.inpainted is None:
        return filled
    ny, nx = image.shape
    with np.errstate(invalid='ignore'):
        inside = (np.abs(sources.x - (nx - 1) / 2) < nx / 2) & (
            np.abs(sources.y - (ny - 1) / 2) < ny / 2
        )
    row, column = (np.rint(axis[inside]).astype(int) for axis in (sources.y, sources.x))
    filled[inside] = image.inpainted[row.clip(0, ny - 1), column.clip(0, nx - 1)]
    return filled


def distinct_sources(
    sources: Sources, mask_radius: QuantityLike | Literal['snr'] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the sources that are given more than once.

    Parameters
    ----------
    sources : `~csr_astro.sources.Sources`
        The N sources.
    mask_radius : float, Quantity, array, 'snr' or None
        As in `plan_removal`.

    Returns
    -------
    kept : (M,) `~numpy.ndarray` of int
        Indices of the distinct sources, in their order.
    inverse : (N,) `~numpy.ndarray` of int
        Index in ``kept`` of each source. Sources with regions are all kept.
    """
    everything = np.arange(len(sources))
    facts = [sources.x, sources.y]
    if mask_radius is not None and np.ndim(mask_radius):
        radii = np.asarray(getattr(mask_radius, 'value', mask_radius))
        if radii.shape != (len(sources),) or radii.dtype.kind not in 'iuf':
            return everything, everything
        facts.append(radii)
    if sources.regions is not None or not len(sources):
        return everything, everything
    return distinct_rows(facts)


def select_sources(sources: Sources, rows: np.ndarray) -> Sources:
    """Select some of the positions of sources without regions.

    Parameters
    ----------
    sources : `~csr_astro.sources.Sources`
        The sources.
    rows : (M,) array of int
        Their indices.
    """
    return replace(sources, x=sources.x[rows], y=sources.y[rows], ids=None, table=None)


def same_predictions(
    sources: Sources, masks: list[SourceMask | None], *, published: bool = False
) -> np.ndarray:
    """Find the sources with the same pixel and the same mask, whose predictions are the same.

    Parameters
    ----------
    sources : `~csr_astro.sources.Sources`
        The sources.
    masks : list of `~csr_astro.masking.SourceMask` or None
        Mask of each source.
    published : bool, optional
        As in `Plan`.

    Returns
    -------
    first : (N,) `~numpy.ndarray` of int
        Index of the one that comes first by position, for each source.
    """
    first = np.arange(len(sources))
    known: dict[tuple, int] = {}
    drawn = np.array([i for i, mask in enumerate(masks) if mask is not None], dtype=int)
    for i in drawn[np.lexsort((sources.x[drawn], sources.y[drawn]))]:
        mask: Any = masks[i]
        position = np.array([sources.x[i], sources.y[i]])
        place = nearest_pixel(published_center(position) if published else position).tolist()
        beyond = b'' if mask.beyond is None else mask.beyond.tobytes()
        key = (*place, mask.y0, mask.x0, mask.radius, mask.clipped, mask.pixels.shape,
               mask.pixels.tobytes(), beyond)  # fmt: skip
        first[i] = known.setdefault(key, int(i))
    return first


def refine_positions(
    image: Image, sources: Sources, instrument: Instrument, centroid_func: Callable
) -> tuple[Sources, np.ndarray]:
    """Measure centroids inside the smallest mask of the instrument.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    sources : `~csr_astro.sources.Sources`
        The sources; those off the map keep their positions.
    instrument : `~csr_astro.instruments.Instrument`
        Instrument with radii in pixels of the map.
    centroid_func : callable
        Centroid function of photutils.

    Returns
    -------
    sources : `~csr_astro.sources.Sources`
        The sources at their centroids.
    flags : (N,) `~numpy.ndarray` of int
        ``centroid_failed`` where no centroid was found and the position was kept.
    """
    from photutils.centroids import centroid_sources

    radius = min(instrument.mask_radii)
    half = int(radius)
    footprint = np.hypot(*np.ogrid[-half : half + 1, -half : half + 1]) <= radius
    x, y = sources.x.copy(), sources.y.copy()
    flags = np.zeros(len(sources), dtype=int)
    inside = (x > -0.5) & (x < image.shape[1] - 0.5) & (y > -0.5) & (y < image.shape[0] - 0.5)
    for i in np.flatnonzero(inside):
        # A cutout, padded for the footprint, keeps the cost independent of the map size.
        size = 4 * half + 5
        cutout = extract(image, x[i : i + 1], y[i : i + 1], size)[0]
        x0, y0 = window_corner(x[i], y[i], size)
        try:
            # A failure sets a flag instead of a warning.
            with one_at_a_time, ignored(AstropyUserWarning):
                found = centroid_sources(
                    np.nan_to_num(cutout),
                    x[i] - x0,
                    y[i] - y0,
                    footprint=footprint,
                    mask=~np.isfinite(cutout),
                    centroid_func=centroid_func,
                )
            column, row = found[0][0] + x0, found[1][0] + y0
        except ValueError:
            column = row = np.nan
        if np.hypot(column - x[i], row - y[i]) <= radius:
            x[i], y[i] = column, row
        else:
            flags[i] = BITS['centroid_failed']
    return replace(sources, x=x, y=y), flags


def plan_batches(sources: Sources, masks: list[SourceMask | None], batch_size: int) -> Batches:
    """Group the sources into batches for the network.

    They are sorted by position, so that the result does not depend on the order of
    the sources, to the last bit.

    Parameters
    ----------
    sources : `~csr_astro.sources.Sources`
        The sources.
    masks : list of `~csr_astro.masking.SourceMask` or None
        Mask of each source.
    batch_size : int
        Number of sources with the smallest window in a batch.

    Returns
    -------
    batches : list of (index, size)
        Indices of sources whose windows have the same size, and that size in pixels;
        their predictions have the same reach.
    """
    index = np.array([i for i, m in enumerate(masks) if m is not None], dtype=int)
    radii = np.array([masks[i].radius for i in index])
    sizes = window_size(radii)
    groups = np.column_stack([sizes, prediction_reach(radii)])
    order = np.lexsort((radii, sources.x[index], sources.y[index]))
    index, groups = index[order], groups[order]
    batches = []
    for group in np.unique(groups, axis=0):
        same = index[(groups == group).all(axis=1)]
        size = group[0]
        # Batches of larger windows have fewer sources, so that all need about the same memory.
        count = max(1, batch_size * _SMALLEST**2 // int(size) ** 2)
        batches += [
            (same[start : start + count], int(size) + 1) for start in range(0, len(same), count)
        ]
    return batches
