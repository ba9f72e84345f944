"""
PSF photometry
==============

This tutorial gives a PSF-photometry script of photutils a predicted local background, as one number for each source or
as a map, and states errors of the fluxes that hold the error of the background.

The script with an annulus
--------------------------

The map is that of :doc:`aperture_photometry`: clumpy emission with noise of 0.05 mJy per pixel, and 40 sources of known
flux. Each source is fitted in a box of 7 × 7 pixels on the median of a ring.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from photutils.background import LocalBackground
from photutils.psf import CircularGaussianPRF, IterativePSFPhotometry, PSFPhotometry

from csr_astro.demo import simulated_field

truth, data, catalog = simulated_field(2)
noise = StdDevUncertainty(np.full(data.shape, 0.05))
ccd = CCDData(data, unit=u.mJy / u.pix, uncertainty=noise)
positions = catalog['x', 'y']
psf_model = CircularGaussianPRF(fwhm=3.5)

# sphinx_gallery_start_ignore
# Versions of photutils before 3.0 have another name for one argument.
import photutils


def with_new_name(old):
    def make(*args, local_bkg_estimator=None, **options):
        return old(*args, localbkg_estimator=local_bkg_estimator, **options)

    return make


if photutils.__version__ < '3':
    PSFPhotometry, IterativePSFPhotometry = map(
        with_new_name, [PSFPhotometry, IterativePSFPhotometry]
    )
# sphinx_gallery_end_ignore

with_ring = PSFPhotometry(
    psf_model, (7, 7), aperture_radius=4, local_bkg_estimator=LocalBackground(10, 17.5)
)
ring_table = with_ring(ccd, init_params=positions)

# %%
# A predicted number
# ------------------
#
# A :class:`~csr_astro.NeuralBackgroundEstimator` is a local background of photutils, so one argument changes.
# (``orientations=1`` skips the average over eight flips and rotations. It takes an eighth of the time and is hardly less
# accurate.)

from csr_astro import NeuralBackgroundEstimator

estimator = NeuralBackgroundEstimator(fwhm=3.5, orientations=1)
with_number = PSFPhotometry(psf_model, (7, 7), aperture_radius=4, local_bkg_estimator=estimator)
number_table = with_number(ccd, init_params=positions)

# %%
# Versions of photutils before 3.0 call the argument ``localbkg_estimator``.
# :class:`~photutils.psf.IterativePSFPhotometry` takes it as well.
#
# photutils asks for one number for each source. The estimator gives the mean of the predicted background, weighted by a
# Gaussian of the beam: that constant leaves the flux unbiased if the fit weighs pixels like the PSF.
#
# A predicted map
# ---------------
#
# The prediction is a map. Subtract it first, and the fit needs no local background:

result = estimator.estimate(ccd, positions)
sources = CCDData(result.source_image, unit=ccd.unit, uncertainty=ccd.uncertainty)
on_map = PSFPhotometry(psf_model, (7, 7), aperture_radius=4)
map_table = on_map(sources, init_params=positions)

# %%
# Comparison
# ----------
#
# Half the range that holds 68 % of the flux errors, and the median error of the position:


def judge(table):
    error = table['flux_fit'].value - catalog['flux']
    scatter = np.diff(np.percentile(error, [16, 84]))[0] / 2
    offset = np.hypot(table['x_fit'] - catalog['x'], table['y_fit'] - catalog['y'])
    return f'{scatter:4.1f} mJy, {np.median(offset):.2f} pixel'


tables = {'ring': ring_table, 'number': number_table, 'map': map_table}
for name, table in tables.items():
    print(f'{name:6}', judge(table))

# %%
# In a larger box the structure is less like a constant:

ways = {
    'ring': (ccd, LocalBackground(10, 17.5)),
    'number': (ccd, estimator),
    'map': (sources, None),
}
for name, (image, background) in ways.items():
    fitter = PSFPhotometry(psf_model, (9, 9), aperture_radius=4, local_bkg_estimator=background)
    print(f'{name:6}', judge(fitter(image, init_params=positions)))

# %%
# The number halves the error of the ring, because it knows what is behind the source. It is flat, though, and a slope
# under the source still pulls the position to the brighter side. The map removes the slope as well.
#
# The next figure shows what is left of the map when the fitted sources and the true background are subtracted. A blob
# is a wrong flux, a pair of blobs a wrong position.

fig, axes = plt.subplots(1, 3, figsize=(9, 3), sharex=True, sharey=True, layout='constrained')
names = {'ring': with_ring, 'predicted number': with_number, 'predicted map': on_map}
for ax, (name, fitter) in zip(axes, names.items(), strict=True):
    model = u.Quantity(fitter.make_model_image(data.shape, psf_shape=(25, 25))).value
    left = ax.imshow(data - model - truth, origin='lower', cmap='RdBu_r', vmin=-2, vmax=2)
    ax.set(title=name, xlabel='x [pixel]', xlim=(40, 140), ylim=(0, 100))
axes[0].set_ylabel('y [pixel]')
fig.colorbar(left, ax=axes, label='map − sources − truth [mJy/pix]', extend='both')
plt.show()

# %%
# The error of the flux
# ---------------------
#
# ``flux_err`` of photutils follows from the errors of the pixels alone. It does not hold the error of the background,
# which dominates on a structured map:

error = map_table['flux_fit'].value - catalog['flux']
pull = abs(error) / map_table['flux_err'].value
print(f'{np.mean(pull < 1):.0%} within one error')

# %%
# A fit is a weighted sum of pixels, and :meth:`~csr_astro.NeuralBackground.covariance` gives the error of any weighted
# sum. The weights of a least-squares fit are :math:`w = P / \sum P^2` with the PSF :math:`P`, zero outside the box, and
# the variance is :math:`w^T C w`. The noise of the pixels is part of :math:`C`.


def flux_error(source):
    covariance = result.covariance(source['id'])
    x, y = source['x_center'], source['y_center']
    in_box = (abs(covariance.x - x) < 3.5) & (abs(covariance.y - y) < 3.5)
    psf = in_box * psf_model.evaluate(covariance.x, covariance.y, 1, x, y, 3.5)
    weights = psf / np.sum(psf**2)
    return np.sqrt(weights @ u.Quantity(covariance.matrix).value @ weights)


flux_err = np.array([flux_error(source) for source in result.sources])
pull = abs(error / flux_err)
print(f'{np.mean(pull < 1):.0%} within one error, {np.mean(pull < 2):.0%} within two')

# sphinx_gallery_start_ignore
assert 0.55 < np.mean(pull < 1) < 0.85
# sphinx_gallery_end_ignore

fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharex=True, sharey=True, layout='constrained')
ring_error = ring_table['flux_fit'].value - catalog['flux']
panels = (
    ('ring', ring_error, ring_table['flux_err'].value, 's', '#d55e00'),
    ('predicted map', error, flux_err, 'o', '#0072b2'),
)
for ax, (title, value, bar, marker, color) in zip(axes, panels, strict=True):
    ax.errorbar(catalog['flux'], value, bar, fmt=marker, color=color, markersize=4, linewidth=1)
    ax.axhline(0, color='0.5', linewidth=0.8, zorder=0)
    ax.set(xscale='log', title=title, xlabel='injected flux [mJy]')
axes[0].set_ylabel('measured − injected flux [mJy]')
plt.show()

# %%
# :class:`~csr_astro.InpaintedPSFPhotometry` does all of this in one call (:doc:`crowded_field`).
#
# Sources that are not in the catalogue
# -------------------------------------
#
# In this case the map is the wrong choice. A source without a mask counts as background: it is missing from
# ``result.source_image``, which is zero outside the masks. Below, eight bright sources get a companion of a third of
# their flux at five pixels, and seven other sources are left out of the catalogue.
# :class:`~photutils.psf.IterativePSFPhotometry` looks for all of them.

from photutils.detection import DAOStarFinder
from photutils.psf import SourceGrouper

from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import psf_profile

by_flux = catalog[np.argsort(catalog['flux'])[::-1]]
host, left_out = by_flux[:8], by_flux[8:22:2]
known = np.isin(catalog['flux'], left_out['flux'], invert=True)
angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
x, y = host['x'] + 5 * np.cos(angle), host['y'] + 5 * np.sin(angle)
more = ccd.copy()
more.data = inject_sources(ccd.data, x, y, host['flux'] / 3, psf_profile(psf_model))

first = estimator.estimate(more, positions[known])
source_image = CCDData(first.source_image, unit=ccd.unit, uncertainty=ccd.uncertainty)
options = {
    'finder': DAOStarFinder(3 * ccd.unit, fwhm=3.5),
    'grouper': SourceGrouper(8),
    'maxiters': 2,
    'mode': 'all',
    'aperture_radius': 4,
    'sub_shape': (15, 15),
}


def distance(table, x, y):
    """From each place to the nearest source that was fitted."""
    dx, dy = np.subtract.outer(x, table['x_fit']), np.subtract.outer(y, table['y_fit'])
    return np.hypot(np.asarray(dx), np.asarray(dy)).min(axis=1)


found = {}
for name, image, background in (('number', more, estimator), ('map', source_image, None)):
    fitter = IterativePSFPhotometry(psf_model, (7, 7), local_bkg_estimator=background, **options)
    found[name] = fitter(image, init_params=positions[known])
    near = distance(found[name], x, y) < 1
    far = distance(found[name], left_out['x'], left_out['y']) < 1
    print(f'{name:6}: {near.sum()} of 8 companions, {far.sum()} of 7 left out')

# %%

fig, axes = plt.subplots(1, 2, figsize=(8, 4.4), sharex=True, sharey=True, layout='constrained')
images = {'map': more.data - np.median(data), 'map − predicted map': first.source_image}
for ax, (title, image), table in zip(axes, images.items(), found.values(), strict=True):
    shown = ax.imshow(image, origin='lower', vmin=-4, vmax=12)
    ax.plot(
        left_out['x'], left_out['y'], 's', color='#e69f00', fillstyle='none', markersize=12,
        label='not in the catalogue',
    )
    ax.plot(x, y, '^', color='#e69f00', fillstyle='none', markersize=12, label='companion')
    ax.plot(table['x_fit'], table['y_fit'], '.', color='white', markersize=4, label='fitted')
    ax.set(title=title, xlabel='x [pixel]')
axes[0].set_ylabel('y [pixel]')
fig.colorbar(shown, ax=axes, label='mJy/pix', shrink=0.8, extend='both')
fig.legend(
    *axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=3, facecolor='0.4',
    labelcolor='white',
)
plt.show()

# %%
# A companion is found on both: it lies inside the mask of its host, where the prediction does not see it. On the map, a
# few clumps of the background are fitted as well; on the difference none.
#
# Which to use
# ------------
#
# The number
#     while sources are still being looked for, by :class:`~photutils.psf.IterativePSFPhotometry` or a finder, and in a
#     script that should stay as it is.
# The map
#     once the catalogue is complete: better fluxes and positions, boxes of any size inside the masks, and errors. Find
#     sources first, give all of them to :meth:`~csr_astro.NeuralBackgroundEstimator.estimate`, then fit
#     ``result.source_image``.
#
# Where to go next
# ----------------
#
# - :doc:`crowded_field`: sources next to each other, fitted together.
# - :doc:`aperture_photometry`: the same map with apertures.
# - :doc:`/guides/masks`: how large masks are, and why.
# - :doc:`/errors`: what an error is made of, and how right it is on real maps.
