"""
Power spectrum
==============

This tutorial makes a map without sources whose power spectrum and pixel distribution are those of the emission, writes
it to a FITS file, and shows why the expected background is not the map to use for statistics.

A map and its sources
---------------------

Clumpy emission with a power spectrum of slope −3.2, noise, and 200 sources whose masks cover a quarter of the map. That
is more than most maps have, so that the differences are easy to see.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from astropy.nddata import CCDData

from csr_astro import NeuralBackgroundEstimator
from csr_astro.simulation.diffuse import lognormal_field
from csr_astro.simulation.field import tangent_wcs
from csr_astro.simulation.inject import inject_sources, random_positions
from csr_astro.simulation.psf import gaussian_profile

rng = np.random.default_rng(4)
shape = (320, 320)
truth = 10 + 3 * lognormal_field(shape, -3.2, 0.6, rng)
truth += rng.normal(0, 0.15, shape)
x, y = random_positions(shape, 200, rng, separation=14, margin=3)
flux = 10 ** rng.uniform(1.2, 3, 200)
wcs = tangent_wcs(shape, pixel_scale=1.6)
data = inject_sources(truth, x, y, flux, gaussian_profile(3.5))
ccd = CCDData(data, unit=u.MJy / u.sr, wcs=wcs)
coords = wcs.pixel_to_world(x, y)

# %%
# Expected background and realizations
# ------------------------------------
#
# ``result.background`` is the *expected* background: the mean of all backgrounds that agree with the pixels around the
# mask. A mean is smoother than what it averages. ``result.realization(seed)`` is one of these backgrounds: the
# prediction plus deviations drawn with the covariance of its errors. Outside the masks both equal the map.

estimator = NeuralBackgroundEstimator(fwhm=5.6 * u.arcsec, orientations=1)
result = estimator.estimate(ccd, coords)
realizations = result.realization(1, n=8)
print(f'{result.mask.mean():.0%} of the map is filled')

fig, axes = plt.subplots(2, 2, figsize=(7, 6), sharex=True, sharey=True, layout='constrained')
maps = {
    'truth': truth,
    'with sources': data,
    'expected background': result.background,
    'one realization': realizations[0],
}
for ax, (title, image) in zip(axes.flat, maps.items(), strict=True):
    shown = ax.imshow(image, origin='lower', vmin=6, vmax=16)
    ax.set(title=title, xlim=(20, 120), ylim=(150, 250))
fig.supxlabel('x [pixel]')
fig.supylabel('y [pixel]')
fig.colorbar(shown, ax=axes, label='MJy/sr', shrink=0.8, extend='both')
plt.show()

# %%
# Power spectra
# -------------
#
# :func:`~csr_astro.evaluation.power_spectrum.power_spectra` takes maps by name, or lists of maps whose spectra it
# averages. It corrects for gaps and edges.

from csr_astro.evaluation.power_spectrum import power_spectra


def with_unit(image):
    return CCDData(image, unit=ccd.unit, wcs=wcs)


spectra = power_spectra({
    'truth': with_unit(truth),
    'with sources': ccd,
    'expected': with_unit(result.background),
    'realizations': [with_unit(each) for each in realizations],
})
colors = {
    'truth': '0.3',
    'with sources': '#d55e00',
    'expected': '#009e73',
    'realizations': '#0072b2',
}
fig, axes = plt.subplots(
    2, 1, figsize=(7.5, 6.5), sharex=True, layout='constrained', height_ratios=(3, 2)
)
k = spectra['frequency'].to_value(1 / u.arcmin)
for (name, color), marker in zip(colors.items(), ('', '^', 's', 'o'), strict=True):
    power = spectra[name]
    axes[0].plot(k, power.value, color=color, marker=marker, markersize=4, label=name)
    axes[1].plot(k, power / spectra['truth'], color=color, marker=marker, markersize=4)
error = (spectra['truth_err'] / spectra['truth']).value
axes[1].fill_between(k, 1 - error, 1 + error, color='0.85', label='sample variance')
axes[0].set(xscale='log', yscale='log', ylabel=f'power [{spectra["truth"].unit:latex_inline}]')
axes[1].set(ylim=(0.6, 1.4), ylabel='power / truth', xlabel='spatial frequency [1/arcmin]')
for ax in axes:
    ax.legend()
plt.show()

# %%
# The grey band is the sample variance: how much such a field differs from one sky to the next (``truth_err``). The maps
# here share one sky, so their ratios are better known than that.

spectra['length'] = (1 / spectra['frequency']).to(u.arcsec)
spectra['expected / truth'] = spectra['expected'] / spectra['truth']
spectra['realizations / truth'] = spectra['realizations'] / spectra['truth']
spectra['length'].info.format = '.0f'
for name in ('expected / truth', 'realizations / truth'):
    spectra[name].info.format = '.2f'
print(spectra['length', 'expected / truth', 'realizations / truth'][::3])

# sphinx_gallery_start_ignore
assert spectra['expected / truth'][-1] < 0.9
assert 0.9 < spectra['realizations / truth'][-1] < 1.2
# sphinx_gallery_end_ignore

# %%
# With its sources, the map has up to thirty times the power of the emission. The expected background misses a quarter of
# the power on scales below the size of the masks (radii of 8″ to 15″ here), because it has none of it in a quarter of the
# map. Realizations have the missing power, and here up to a tenth too much: they are Gaussian while the field is
# skewed, and part of what is drawn is the uncertainty of the prediction, not the roughness of the map.
#
# Average the *spectra* of several realizations, not the maps. The mean of many realizations is the expected background
# again, and as smooth.
#
# The distribution of the pixels
# ------------------------------
#
# Inside the masks only, where the maps differ:

from csr_astro.evaluation.pixel_pdf import pixel_histogram, pixel_moments

versions = {
    'truth': truth,
    'with sources': data,
    'expected': result.background,
    'realizations': realizations,
}
for name, image in versions.items():
    moments = pixel_moments(image[..., result.mask])
    print(
        f'{name:12} mean {moments["mean"]:.2f}, standard deviation {moments["std"]:.2f}, '
        f'skewness {moments["skewness"]:.2f}'
    )

# %%
# The large structure, which all maps share, dominates the distribution. Subtract a smoothed map (right panel) to see the
# difference: the expected background is too narrow, a realization is not.

from scipy.ndimage import gaussian_filter

colors['one realization'] = colors['realizations']
small = {'truth': truth, 'expected': result.background, 'one realization': realizations[0]}
rough = {name: image - gaussian_filter(image, 3) for name, image in small.items()}
fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout='constrained')
for ax, maps, title in zip(
    axes, (small, rough), ('pixels', 'pixels minus smoothed map'), strict=True
):
    histogram = pixel_histogram(maps, where=result.mask, bins=40)
    edges = np.append(histogram['low'].value, histogram['high'].value[-1])
    for name in maps:
        ax.stairs(histogram[name].value, edges, color=colors[name], label=name, linewidth=1.3)
    ax.set(title=title, xlabel='value [MJy/sr]', yscale='log')
axes[0].set_ylabel('density inside the masks')
axes[1].legend()
plt.show()

# %%
# Write a file
# ------------
#
# :meth:`~csr_astro.NeuralBackground.to_ccddata` returns the expected background with unit, WCS and a header that
# says how it was made; ``clean.write(path)`` writes it. The block below puts a realization in its place, and adds the
# filled pixels and their errors, so that a reader can tell what was measured.

from pathlib import Path
from tempfile import TemporaryDirectory

from astropy.io import fits

folder = TemporaryDirectory()
path = Path(folder.name) / 'clean.fits'
clean = result.to_ccddata()
clean.data = realizations[0]
clean.meta['CSRSEED'] = 1, 'seed of the realization'
hdus = clean.to_hdu()
hdus.append(fits.ImageHDU(result.mask.astype(np.uint8), name='CSR_MASK'))
hdus.append(fits.ImageHDU(result.background_rms, name='CSR_RMS'))
hdus.writeto(path)

again = CCDData.read(path)
filled = fits.getdata(path, 'CSR_MASK').astype(bool)
print(again.unit, again.wcs.axis_type_names, again.meta['WEIGHTS'], again.meta['CSRSEED'])
print('unchanged outside the masks:', (again.data[~filled] == data[~filled]).all())
folder.cleanup()

# %%
# The shell does the same from file to file: ``csr-astro remove MAP.fits CATALOG --realization 1 -o OUT.fits`` keeps
# all extensions and headers of ``MAP.fits`` and adds ``CSR_MASK`` and ``CSR_RMS``.
#
# Where to go next
# ----------------
#
# - :doc:`/errors`: realizations measured on other maps, and their limits.
# - :doc:`/evaluation`: power spectra, Δ-variance and pixel statistics in one report.
# - :doc:`/guides/products`: which map answers which question.
# - :doc:`/command_line`: from file to file.
