"""Wings of sources outside their masks, from fits of the PSF."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import KDTree

from csr_astro.cutouts import extract, extract_mask
from csr_astro.fitting.fit import fit_sources
from csr_astro.masking import combined_mask, disc
from csr_astro.source_model import SourceModel
from csr_astro.utils.scatter import ring_scatter

if TYPE_CHECKING:
    from csr_astro.fitting.psf import PixelPSF
    from csr_astro.plan import Plan

__all__ = ['fit_wings']

# Wings fainter than this at the rim of the mask, over the scatter of the map around the source,
# change the prediction by less than its error.
_FAINT = 0.1
# A fit with a reduced χ² above this, or with a width that differs from that of the PSF by more than
# this part of it, is not that of a point source; its mask is left out then.
_POOR_FIT = 5.0
_POOR_WIDTH = 0.15
# Fluxes that are smaller multiples of their errors are not subtracted.
_SIGNIFICANT = 5.0
# Sources this near to one with bright wings are fitted with it, in FWHM beyond its mask.
_NEAR = 3.0


def fit_wings(plan: Plan, psf: PixelPSF) -> SourceModel:
    """Fit the sources whose wings reach visibly outside their masks.

    Parameters
    ----------
    plan : `~csr_astro.plan.Plan`
        The plan of the removal.
    psf : `~csr_astro.fitting.PixelPSF`
        The PSF.

    Returns
    -------
    model : `~csr_astro.source_model.SourceModel`
        The sources with bright wings, and those beside them; often none.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> from csr_astro.fitting.wings import fit_wings
    >>> from csr_astro.simulation.inject import inject_sources
    >>> from csr_astro.simulation.psf import moffat_profile
    >>> moffat = moffat_profile(3.3, 2.5)
    >>> data = np.random.default_rng(0).normal(size=(120, 120))
    >>> data = inject_sources(data, [60.0], [50.0], [1e5], moffat)
    >>> estimator = NeuralBackgroundEstimator(fwhm=3.3, psf=moffat)
    >>> model = fit_wings(estimator.plan(data, [(60, 50)]), estimator.pixel_psf())
    >>> print(model.flux.round(-3))
    [100000.]
    """
    wings = _over_peak(psf, plan.mask_radii)
    if not plan.batches:
        return _model(psf, np.zeros((5, 0)))
    bright = np.flatnonzero((wings > 0) & (_contrast(plan) > _FAINT / np.maximum(wings, 1e-300)))
    if not len(bright):
        return _model(psf, np.zeros((5, 0)))
    positions = np.column_stack([plan.sources.x, plan.sources.y])
    placed = np.sort(np.concatenate([index for index, _ in plan.batches]))
    reach = plan.mask_radii[bright] + _NEAR * psf.fwhm
    near = KDTree(positions[placed]).query_ball_point(positions[bright], reach)
    index = placed[np.unique(np.concatenate(near).astype(int))]
    # Sorted by position: the sums of a fit do not depend on the order of the catalogue.
    index = index[np.lexsort(positions[index].T)]
    masks = [plan.masks[i] for i in index]
    fits = _fit(plan.image, positions[index], masks, psf)
    return _model(psf, fits[:, _significant(fits)])


def _model(psf, fits):
    return SourceModel(psf, *fits[:4])


def _fit(image, positions, masks, psf):
    """Positions, fluxes, widths and errors of fluxes, (5, N); from wings alone for odd cores."""
    fits = fit_sources(image, *positions.T, psf, masks=masks)
    found = np.array([fits.x, fits.y, fits.flux, fits.width, fits.flux_err])
    with np.errstate(invalid='ignore'):
        odd = (fits.chi2 > _POOR_FIT * fits.dof) | (np.abs(np.log(fits.width)) > _POOR_WIDTH)
    if odd.any():
        # A core unlike the PSF tells nothing of its wings; fits leave invalid pixels out.
        cores = [mask for mask, without in zip(masks, odd, strict=True) if without]
        hidden = combined_mask(cores, image.shape)
        hidden = hidden if image.mask is None else image.mask | hidden
        wider = [
            disc(*position, mask.radius + psf.fwhm, image.shape) if without else mask
            for position, mask, without in zip(positions, masks, odd, strict=True)
        ]
        fits = fit_sources(replace(image, mask=hidden), *positions.T, psf, masks=wider)
        outside = np.array([fits.x, fits.y, fits.flux, fits.width, fits.flux_err])
        found[:, odd] = outside[:, odd]
    return found


def _significant(fits):
    """Sources whose flux is known well enough to be subtracted."""
    with np.errstate(invalid='ignore'):
        return fits[2] > _SIGNIFICANT * fits[4]


def _contrast(plan):
    """Height of each peak over the scatter of the ring around its mask; 0 without a mask."""
    contrast = np.zeros(len(plan.sources))
    hole = combined_mask(plan.masks, plan.image.shape)
    for index, size in plan.batches:
        x, y = plan.sources.x[index], plan.sources.y[index]
        values = extract(plan.image, x, y, size)
        covered = extract_mask(hole, x, y, size)
        valid = np.isfinite(values) & ~covered
        radius = plan.mask_radii[index]
        scatter = ring_scatter(values, valid, radius)
        for k, i in enumerate(index):
            under = values[k][plan.masks[i].in_window(x[k], y[k], size)]
            if not (valid[k].any() and np.isfinite(under).any()):
                continue
            peak = np.nanmax(under) - np.median(values[k][valid[k]])
            if peak > 0:
                contrast[i] = peak / scatter[k] if scatter[k] > 0 else np.inf
    return contrast


def _over_peak(psf, radius):
    """Largest value of the PSF at some radii over its peak; 0 where a radius is NaN."""
    steps = np.arange(np.ceil(psf.radius) + 1)
    offsets = np.concatenate([-steps[:0:-1], steps])
    values = psf.evaluate(offsets, offsets)
    distance = np.hypot(offsets[:, np.newaxis], offsets)
    ring = np.array([values[np.abs(distance - each) <= 0.5].max(initial=0) for each in steps])
    # The largest farther out: wings may have lobes.
    outer = np.maximum.accumulate(ring[::-1])[::-1] / values.max()
    return np.interp(np.nan_to_num(radius, nan=np.inf), steps, outer, right=0.0)
