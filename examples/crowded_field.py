"""
Crowded field
=============

This tutorial measures 120 blended sources on a structured map by PSF fits whose errors hold both the blending and the
background, and shows which sources to distrust.

The field
---------

Clumpy emission with noise of 0.05 mJy per pixel, a beam of 3.5 pixels, and sources of 30 to 1000 mJy, the closest of
them three pixels apart. The positions of the catalogue are off by 0.2 pixel.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.nddata import CCDData
from astropy.table import QTable
from photutils.psf import CircularGaussianPRF

from csr_astro import (
    InpaintedAperturePhotometry,
    InpaintedPSFPhotometry,
    NeuralBackgroundEstimator,
)
from csr_astro.simulation.diffuse import lognormal_field
from csr_astro.simulation.inject import inject_sources, random_positions
from csr_astro.simulation.psf import psf_profile

rng = np.random.default_rng(1)
shape = (224, 224)
truth = 10 + 3 * lognormal_field(shape, -3.2, 0.6, rng)
truth += rng.normal(0, 0.05, shape)
x, y = random_positions(shape, 120, rng, separation=3, margin=10)
flux = 10 ** rng.uniform(1.5, 3, 120)
psf_model = CircularGaussianPRF(fwhm=3.5)
data = inject_sources(truth, x, y, flux, psf_profile(psf_model))
ccd = CCDData(data, unit=u.mJy / u.pix)
catalog = QTable({'x': x + rng.normal(0, 0.2, 120), 'y': y + rng.normal(0, 0.2, 120)})

# %%
# Fits and apertures
# ------------------
#
# Call :class:`~csr_astro.InpaintedPSFPhotometry` like :class:`~csr_astro.InpaintedAperturePhotometry`. Sources whose
# masks touch are fitted together on one background; ``group_size`` counts them.

estimator = NeuralBackgroundEstimator(fwhm=3.5, orientations=1)
photometry = InpaintedPSFPhotometry(psf_model, estimator=estimator)
table = photometry(ccd, catalog)
apertures = InpaintedAperturePhotometry(4, estimator=estimator, aperture_correction='eef')
sums = apertures(ccd, catalog)
sizes, number = np.unique(table['group_size'], return_counts=True)
for size, count in zip(sizes, number, strict=True):
    print(f'{count} sources in groups of {size}')

# %%
# The next figure shows the errors of the fluxes against the distance of the nearest source. The printed value is the
# error that 68 % of the sources do not exceed.

separation = np.hypot(np.subtract.outer(x, x), np.subtract.outer(y, y))
nearest = (separation + np.diag(np.full(120, np.inf))).min(axis=0)

fig, axes = plt.subplots(1, 2, figsize=(8, 3.3), sharex=True, sharey=True, layout='constrained')
panels = (
    ('aperture of 4 pixels', sums, 's', '#d55e00'),
    ('fit of the PSF', table, 'o', '#0072b2'),
)
for ax, (title, each, marker, color) in zip(axes, panels, strict=True):
    error = each['flux'].value - flux
    ax.errorbar(
        nearest, error, each['flux_err'].value, fmt=marker, color=color, markersize=3.5,
        linewidth=0.8,
    )
    ax.axhline(0, color='0.5', linewidth=0.8, zorder=0)
    ax.set(title=title, ylim=(-150, 260), xlabel='distance of the nearest source [pixel]')
    for low, high in ((3, 7), (7, 99)):
        near = (nearest >= low) & (nearest < high)
        typical = np.percentile(abs(error[near]), 68)
        print(f'{title}, nearest source at {low} to {high} pixels: {typical:.0f} mJy')
axes[0].set_ylabel('measured − injected flux [mJy]')
plt.show()

# %%
# The aperture also sums the light of the neighbour. The fit shares the light between the sources, and it gives little
# weight to pixels where the background is uncertain. Its errors are right:

pull = abs(table['flux'].value - flux) / table['flux_err'].value
print(f'{np.mean(pull < 1):.0%} within one error, {np.mean(pull < 2):.0%} within two')

# sphinx_gallery_start_ignore
assert 0.55 < np.mean(pull < 1) < 0.85
# sphinx_gallery_end_ignore

# %%
# The residual
# ------------
#
# ``make_residual_image`` subtracts the fitted sources from the map, as in photutils.

residual = photometry.make_residual_image(ccd)
fig, axes = plt.subplots(1, 3, figsize=(9, 3), sharex=True, sharey=True, layout='constrained')
images = {'map': data, 'map − fits': residual.data, 'truth': truth}
for ax, (title, image) in zip(axes, images.items(), strict=True):
    shown = ax.imshow(image, origin='lower', vmin=truth.min(), vmax=truth.max())
    ax.set(title=title, xlabel='x [pixel]')
axes[0].set_ylabel('y [pixel]')
fig.colorbar(shown, ax=axes, label='mJy/pix', extend='max')
plt.show()

# %%
# Sources that are not in the catalogue
# -------------------------------------
#
# Now a random third of the catalogue is left out. Sources next to a missing one suffer:

known = rng.random(120) > 1 / 3
incomplete = photometry(ccd, catalog[known])
beside = (separation[:, ~known].min(axis=1) < 6)[known]
error = incomplete['flux'].value - flux[known]
for name, group in (('beside a missing source', beside), ('others', ~beside)):
    flagged = (incomplete['flags'][group] > 0).sum()
    typical = np.percentile(abs(error[group]), 68)
    print(f'{name}: {typical:.0f} mJy, {flagged} of {group.sum()} have a flag')

# %%
# About half of them have a flag, ``poor_fit`` or ``exceeds_mask``. Find the sources first: :doc:`/guides/finding` shows
# how.
#
# Where to go next
# ----------------
#
# - :doc:`/guides/aperture_psf_or_gaussian`: which method for which source.
# - :doc:`resolved_cores`: sources larger than the beam.
# - :doc:`/fitting`: the equations.
