"""The step from the predictions for all batches to the result of a removal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from csr_astro.background import NeuralBackground
from csr_astro.flags import NOT_INPAINTED
from csr_astro.prediction import combine_parts
from csr_astro.tables import add_columns, versions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from photutils.background import LocalBackground

    from csr_astro.plan import Plan
    from csr_astro.prediction import Part

__all__ = ['combine']


def combine(
    plan: Plan, parts: Iterable[Part], estimator: LocalBackground
) -> NeuralBackground:
    """Combine the predictions of all batches into the result.

    Parameters
    ----------
    plan : `~csr_astro.plan.Plan`
        The plan.
    parts : iterable of `~csr_astro.prediction.Part`
        Prediction for each batch, in the order of the plan.
    estimator : `~csr_astro.NeuralBackgroundEstimator`
        Estimator that made the plan.

    Returns
    -------
    result : `NeuralBackground`
    """
    prediction = combine_parts(plan, parts)
    estimator = estimator.for_image(plan.image)
    flags = plan.flags | prediction.flags
    bad = flags & NOT_INPAINTED > 0
    # Sources that were not measured keep only the flags that say why.
    flags = np.where(bad, flags & NOT_INPAINTED, flags)
    masks = [None if without else mask for without, mask in zip(bad, plan.masks, strict=True)]
    image, sources = plan.image, plan.sources
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
    table['flags'] = flags
    asked = 'as drawn, else by SNR' if plan.mask_radius is None else str(plan.mask_radius)
    used = {'mask_radius': asked} | sources.provenance | image.meta
    table.meta.update(versions() | estimator.provenance | used)
    add_columns(table, sources.table)
    return NeuralBackground(image, table, masks, prediction, estimator, plan.model, sources)
