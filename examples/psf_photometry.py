"""
PSF photometry
==============

At the end you have a PSF-photometry script of photutils that takes its local background from the network, errors of its
fluxes that contain what is not known of the background, and a reason to give the background as a number or as a map.

The script as it was
--------------------

The map is that of :doc:`aperture_photometry`: clumpy emission with noise of 0.05 mJy per pixel, and 40 sources of known
flux. Each is fitted in a box of 7 x 7 pixels, on the median of a ring:
"""

# %%
import astropy.units as u
import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from csr_astro.demo import simulated_field
from photutils.background import LocalBackground
from photutils.psf import CircularGaussianPRF, IterativePSFPhotometry, PSFPhotometry

truth, data, catalog = simulated_field(2)
noise = StdDevUncertainty(np.full(data.shape, 0.05))
ccd = CCDData(data, unit=u.mJy / u.pix, uncertainty=noise)
positions = catalog['x', 'y']
psf_model = CircularGaussianPRF(fwhm=3.5)

# sphinx_gallery_start_ignore
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
# One argument
# ------------
#
# A :class:`~csr_astro.NeuralBackgroundEstimator` is a local background of photutils. (One orientation instead of the
# average of eight takes an eighth of the time and is hardly less accurate.)

from csr_astro import NeuralBackgroundEstimator

estimator = NeuralBackgroundEstimator(fwhm=3.5, orientations=1)
with_number = PSFPhotometry(psf_model, (7, 7), aperture_radius=4, local_bkg_estimator=estimator)
number_table = with_number(ccd, init_params=positions)

# %%
# photutils before 3.0 calls the argument ``localbkg_estimator``; the rest is the same, and so it is with
# :class:`~photutils.psf.IterativePSFPhotometry`.
#
# What photutils gets is one number for each source, because that is what it asks for. It is the mean of the predicted
# background, weighted by a Gaussian of the beam: the constant that leaves the flux of a fit unbiased, if the fit weighs
# pixels like the PSF does.

numbers = estimator(ccd.data, catalog['x'], catalog['y'])
bool(np.allclose(numbers, number_table['local_bkg'].value))

# %%
# Or a map
# --------
#
# The prediction is more than a number. It can be taken off the map before, and the fit then needs no local background:

result = estimator.estimate(ccd, positions)
sources = CCDData(result.source_image, unit=ccd.unit, uncertainty=ccd.uncertainty)
on_map = PSFPhotometry(psf_model, (7, 7), aperture_radius=4)
map_table = on_map(sources, init_params=positions)

# %%
# Compared
# --------
#
# Half of the range that holds 68 % of the errors of the flux, and the median error of the position:


def judge(table):
    error = table['flux_fit'].value - catalog['flux']
    scatter = np.diff(np.percentile(error, [16, 84]))[0] / 2
    offset = np.hypot(table['x_fit'] - catalog['x'], table['y_fit'] - catalog['y'])
    return f'{scatter:4.1f} mJy, {np.median(offset):.2f} pixel'


tables = {'ring': ring_table, 'number': number_table, 'map': map_table}
for name, table in tables.items():
    print(f'{name:6}', judge(table))

# %%
# In a larger box there is more structure that is no constant:

ways = {
    'ring': (ccd, LocalBackground(10, 17.5)),
    'number': (ccd, estimator),
    'map': (sources, None),
}
for name, (image, background) in ways.items():
    fitter = PSFPhotometry(psf_model, (9, 9), aperture_radius=4, local_bkg_estimator=background)
    print(f'{name:6}', judge(fitter(image, init_params=positions)))

# %%
# The number halves the error of the ring, because it knows what is behind the source; but it is flat, and a slope under
# the source still draws the position to the brighter side. The map takes the slope off, too.
#
# What is left when the fitted sources are taken off, minus the truth, in a corner of the map. A blob is a wrong flux, a
# pair of blobs a wrong position:

import matplotlib.pyplot as plt

fig, axes = plt.subplots(1, 3, figsize=(8.5, 2.8), sharex=True, sharey=True, layout='constrained')
names = {'ring': with_ring, 'predicted number': with_number, 'predicted map': on_map}
for ax, (name, fitter) in zip(axes, names.items(), strict=True):
    model = u.Quantity(fitter.make_model_image(data.shape, psf_shape=(25, 25))).value
    left = ax.imshow(data - model - truth, origin='lower', cmap='RdBu_r', vmin=-2, vmax=2)
    ax.set(title=name, xlabel='x [pixel]', xlim=(40, 140), ylim=(0, 100))
axes[0].set_ylabel('y [pixel]')
fig.colorbar(left, ax=axes, label='map − sources − truth [mJy/pix]')
plt.show()

# %%
# The error of the flux
# ---------------------
#
# ``flux_err`` of photutils comes from the error of the map's pixels alone. It cannot know how wrong the background is,
# whatever the local background is made by, and on a structured map that is most of the error:

error = map_table['flux_fit'].value - catalog['flux']
pull = abs(error) / map_table['flux_err'].value
print(f'{np.mean(pull < 1):.0%} within one error')

# %%
# A fit is a weighted sum of pixels, and :meth:`~csr_astro.NeuralBackground.covariance` gives the error of any. The
# weights of a least-squares fit of the flux are *w* = *P* / Σ\ *P*\ ² with the PSF *P*, zero outside the box, and
# the variance is *w*\ ᵀ *C* *w*. The noise of the pixels is part of *C*:


def flux_error(source):
    covariance = result.covariance(source['id'])
    x, y = source['x_center'], source['y_center']
    in_box = (abs(covariance.x - x) < 3.5) & (abs(covariance.y - y) < 3.5)
    psf = in_box * psf_model.evaluate(covariance.x, covariance.y, 1, x, y, 3.5)
    weights = psf / np.sum(psf**2)
    return np.sqrt(weights @ u.Quantity(covariance.matrix).value @ weights)


flux_err = np.array([flux_error(source) for source in result.sources])
pull = abs(error / flux_err)
print(f'{np.mean(pull < 1):.0%} within one error,', f'{np.mean(pull < 2):.0%} within two')

# %%
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
# Sources that are not in the catalogue
# -------------------------------------
#
# Then the map is the wrong choice. What has no mask counts as background and is gone from ``result.source_image``, which
# is zero outside masks. Here, eight bright sources get a companion of a third of their flux at five pixels, and seven
# others are left out of the catalogue. :class:`~photutils.psf.IterativePSFPhotometry` is to find them:

from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import psf_profile
from photutils.detection import DAOStarFinder
from photutils.psf import SourceGrouper

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
    dx, dy = (np.subtract.outer(x, table['x_fit']), np.subtract.outer(y, table['y_fit']))
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
        left_out['x'],
        left_out['y'],
        's',
        color='#e69f00',
        fillstyle='none',
        markersize=12,
        label='not in the catalogue',
    )
    ax.plot(x, y, '^', color='#e69f00', fillstyle='none', markersize=12, label='companion')
    ax.plot(table['x_fit'], table['y_fit'], '.', color='white', markersize=4, label='fitted')
    ax.set(title=title, xlabel='x [pixel]')
axes[0].set_ylabel('y [pixel]')
fig.colorbar(shown, ax=axes, label='mJy/pix', shrink=0.8)
fig.legend(
    *axes[0].get_legend_handles_labels(),
    loc='outside lower center',
    ncols=3,
    facecolor='0.4',
    labelcolor='white',
)
plt.show()

# %%
# A companion is found on either: it is inside the mask of its host, where the prediction does not see it. On the map,
# clumps of the background are fitted as well (four with photutils 3.0, six with 2.0); on the difference none.
#
# Which to take
# -------------
#
# The number
#     while sources are being looked for, by :class:`~photutils.psf.IterativePSFPhotometry` or by a finder, and in a
#     script that is to stay as it is.
# The map
#     once the catalogue is complete: better fluxes and positions, in boxes of any size inside the masks, with errors. So
#     find sources first, then give all of them to
#     :meth:`~csr_astro.NeuralBackgroundEstimator.estimate`, and fit ``result.source_image`` at last.
#
# Where to go next
# ----------------
#
# - :doc:`crowded_field`: sources next to each other, and their errors.
# - :doc:`../errors`: what an error is made of, and how right it is on real maps.
# - :doc:`aperture_photometry`: the same map with apertures.
# - :doc:`../guides/masks`: how large masks are, and why.
