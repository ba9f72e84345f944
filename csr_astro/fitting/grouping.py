"""Groups of sources that are fitted together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.cluster import hierarchy
from scipy.spatial import KDTree

if TYPE_CHECKING:
    from csr_astro.masking import SourceMask

__all__ = ['SourceGroup', 'group_sources']


_TOUCHING = np.ones((3, 3))


@dataclass(frozen=True)
class SourceGroup:
    """Sources that are solved together.

    Attributes
    ----------
    number : int
        Number of the connected masks to which it belongs, from 0.
    members : (K,) `~numpy.ndarray` of int
        Sources whose results are taken from this solution.
    halo : (H,) `~numpy.ndarray` of int
        Neighbours of them from other parts of the same connected masks. They are free in the
        solution, so that errors hold their blending, but keep the results of their own group.
    """

    number: int
    members: np.ndarray
    halo: np.ndarray


def group_sources(
    x: np.ndarray,
    y: np.ndarray,
    masks: list[SourceMask | None],
    shape: tuple[int, int],
    *,
    max_size: int = 6,
    halo_distance: float = 0.0,
) -> list[SourceGroup]:
    """Group sources whose masks overlap or touch.

    Large groups are cut into compact parts by hierarchical clustering of the positions
    (average linkage). Each part takes its nearest neighbours along, as its halo.

    Parameters
    ----------
    x, y : (N,) `~numpy.ndarray` of float
        Positions in pixels.
    masks : list of `~csr_astro.masking.SourceMask` or None
        Their masks; sources without one are in no group.
    shape : (int, int)
        Shape of the map.
    max_size : int, optional
        Largest number of members of a group.
    halo_distance : float, optional
        Sources of other parts up to this far from a member are in its halo, in pixels.

    Returns
    -------
    groups : list of `SourceGroup`

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.masking import disc
    >>> from csr_astro.fitting.grouping import group_sources
    >>> x, y = np.array([20.0, 26.0, 60.0]), np.array([30.0, 30.0, 30.0])
    >>> masks = [disc(*position, 4, (80, 80)) for position in zip(x, y)]
    >>> [group.members.tolist() for group in group_sources(x, y, masks, (80, 80))]
    [[0, 1], [2]]
    """
    covered = np.zeros(shape, dtype=bool)
    for mask in masks:
        if mask is not None:
            covered[mask.window] |= mask.pixels
    labels, _ = ndimage.label(covered, _TOUCHING)
    connected: dict[int, list[int]] = {}
    for i, mask in enumerate(masks):
        if mask is not None:
            rows, columns = mask.on_map()
            connected.setdefault(int(labels[rows[0], columns[0]]), []).append(i)
    groups = []
    for number, members in enumerate(connected.values()):
        index = np.array(members)
        positions = np.column_stack([x[index], y[index]])
        for part in _compact_parts(positions, max_size):
            halo = _neighbours(positions, part, halo_distance)
            groups.append(SourceGroup(number, index[part], index[halo]))
    return groups


def _compact_parts(positions, max_size):
    """Indices of positions, in parts of at most ``max_size``."""
    everything = np.arange(len(positions))
    if len(positions) <= max_size:
        return [everything]
    tree = hierarchy.linkage(positions, method='average')
    n_parts = -(-len(positions) // max_size)
    label = hierarchy.fcluster(tree, max(n_parts, 2), criterion='maxclust')
    parts = []
    for each in np.unique(label):
        inside = everything[label == each]
        if len(inside) == len(positions):
            # Coincident positions, which no distance tells apart.
            return np.array_split(everything, n_parts)
        parts += [inside[sub] for sub in _compact_parts(positions[inside], max_size)]
    return parts


def _neighbours(positions, part, distance):
    """Indices of positions outside a part, up to a distance from one of its members."""
    if distance <= 0 or len(part) == len(positions):
        return np.zeros(0, dtype=int)
    found = KDTree(positions).query_ball_point(positions[part], distance)
    return np.setdiff1d(np.concatenate(found).astype(int), part)
