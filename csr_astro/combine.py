"""The step from the predictions for all batches to the result of a removal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csr_astro.background import NeuralBackground
from csr_astro.flags import NOT_INPAINTED
from csr_astro.prediction import combine_parts
from csr_astro.source_table import source_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from photutils.background import LocalBackground

    from csr_astro.plan import Plan
    from csr_astro.prediction import Part

__all__ = ['combine']


def combine(plan: Plan, parts: Iterable[Part], estimator: LocalBackground) -> NeuralBackground:
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
    result : `~csr_astro.NeuralBackground`
    """
    prediction = combine_parts(plan, parts)
    estimator = estimator.for_image(plan.image)
    table = source_table(plan, prediction, estimator.provenance)
    bad = table['flags'] & NOT_INPAINTED > 0
    masks = [None if without else mask for without, mask in zip(bad, plan.masks, strict=True)]
    return NeuralBackground(
        plan.image, table, masks, prediction, estimator, plan.model, plan.sources, plan.first
    )
