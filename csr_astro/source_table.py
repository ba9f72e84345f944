"""Table of the sources of a removal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from csr_astro.flags import NOT_INPAINTED
from csr_astro.tables import add_columns, versions

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from csr_astro.plan import Plan
    from csr_astro.prediction import Prediction

__all__ = ['find_row', 'source_table']


_DESCRIPTIONS = {
    'snr': 'peak contrast: peak minus mean of the ring, over the standard deviation of the ring',
    'mask_name': 'category of the mask (Madarasz et al. 2025), by snr; "region" if drawn, "fixed" '
    'if mask_radius was given',
    'mask_radius': 'radius of the mask in pixels',
    'background': 'mean of the prediction under the mask',
    'background_scatter': 'standard deviation of the ring around the mask',
}


def source_table(
    plan: Plan, prediction: Prediction, provenance: dict[str, object]
) -> QTable:
    """Make the table of the sources, see `~csr_astro.NeuralBackground`.

    Parameters
    ----------
    plan : `~csr_astro.plan.Plan`
        The plan.
    prediction : `~csr_astro.prediction.Prediction`
        Prediction for all sources.
    provenance : dict
        Weights, instrument and arguments, for ``meta``.

    Returns
    -------
    table : `~astropy.table.QTable`
        One row per source; those that were not measured keep only the flags that say why.
    """
    image, sources = plan.image, plan.sources
    flags = plan.flags | prediction.flags
    bad = flags & NOT_INPAINTED > 0
    table = QTable()
    table['id'] = np.arange(len(sources)) + 1 if sources.ids is None else sources.ids
    table['x_center'] = sources.x
    table['y_center'] = sources.y
    if image.wcs is not None:
        table['sky_center'] = (
            image.wcs.pixel_to_world(sources.x, sources.y)
            if len(sources)
            else SkyCoord([], [], unit='deg')
        )
    table['snr'] = plan.snr
    table['mask_name'] = np.where(bad, '', plan.mask_names)
    table['mask_radius'] = np.where(bad, np.nan, plan.mask_radii)
    table['background'] = image.with_unit(prediction.mean)
    table['background_scatter'] = image.with_unit(prediction.scatter)
    table['flags'] = np.where(bad, flags & NOT_INPAINTED, flags)
    for name, description in _DESCRIPTIONS.items():
        table[name].info.description = description
    asked = 'as drawn, else by SNR' if plan.mask_radius is None else str(plan.mask_radius)
    used = {'mask_radius': asked} | sources.provenance | image.meta
    table.meta.update(versions() | provenance | used)
    add_columns(table, sources.table)
    return table


def find_row(ids: ArrayLike, source_id: int | str) -> int:
    """Find the row of a source by its id.

    Parameters
    ----------
    ids : (N,) array-like of int or str
        The ids of all sources.
    source_id : int or str
        The id that is asked for.

    Returns
    -------
    row : int

    Raises
    ------
    ValueError
        If no source has the id, or more than one.
    """
    if np.ndim(source_id):
        raise TypeError(f'the id of one source is taken, got {source_id!r}.')
    known = np.asarray(ids).tolist()
    found = [i for i, each in enumerate(known) if each == source_id]
    if not found:
        raise ValueError(f'there is no source with id {source_id!r}; {_list_ids(known)}.')
    if len(found) > 1:
        raise ValueError(
            f'{len(found)} sources have the id {source_id!r}, rows '
            f'{", ".join(str(i) for i in found[:5])}: give each an id of its own.'
        )
    return found[0]


def _list_ids(ids):
    """Say which ids there are."""
    if ids == list(range(1, len(ids) + 1)):
        return f'ids are 1 to {len(ids)}'
    return f'ids are {", ".join(map(repr, ids[:5]))}{", ..." if len(ids) > 5 else ""}'
