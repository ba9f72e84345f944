"""
Power spectrum
==============

At the end you have a map without its sources whose power spectrum and distribution of pixels are those of the emission,
in a FITS file, and you know why the most likely map is not the one to take for that.

A map and its sources
---------------------

Clumpy emission with a power spectrum of slope −3.2, noise, and 200 sources whose masks cover a quarter of the map. That
is more than most maps have, so that the differences are seen.
"""

# %%
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
# Without sources, in two ways
# ----------------------------
#
# ``result.background`` is the *expected* background: at each pixel the mean of all that might be there. A mean is
# smoother than any of what it is the mean of. ``result.realization(seed)`` is one of them: the prediction, and deviations
# drawn with the covariance of its errors. Outside the masks both are the map itself.

estimator = NeuralBackgroundEstimator(fwhm=5.6 * u.arcsec, orientations=1)
result = estimator.estimate(ccd, coords)
realizations = result.realization(1, n=8)
print(f'{result.mask.mean():.0%} of the map is filled')
fig, axes = plt.subplots(2, 2, figsize=(7, 6), sharex=True, sharey=True, layout='constrained')
maps = {
    'truth': truth,
    'with sources': data,
    'expected': result.background,
    'one realization': realizations[0],
}
for ax, (title, image) in zip(axes.flat, maps.items(), strict=True):
    shown = ax.imshow(image, origin='lower', vmin=6, vmax=16)
    ax.set(title=title, xlim=(20, 120), ylim=(150, 250))
fig.supxlabel('x [pixel]'), fig.supylabel('y [pixel]')
fig.colorbar(shown, ax=axes, label='MJy/sr', shrink=0.8)
plt.show()

# %%
# Power spectra
# -------------
#
# :func:`~csr_astro.evaluation.power_spectrum.power_spectra` takes maps by name, or lists of maps whose spectra are
# averaged, and undoes what gaps and edges do to a spectrum:

from csr_astro.evaluation.power_spectrum import power_spectra


def with_unit(image):
    return CCDData(image, unit=ccd.unit, wcs=wcs)


spectra = power_spectra(
    {
        'truth': with_unit(truth),
        'with sources': ccd,
        'expected': with_unit(result.background),
        'realizations': [with_unit(each) for each in realizations],
    }
)
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
# The grey band is how much such a field varies from one sky to the next (``truth_err``; the maps here share one sky, so
# their ratios are better known than that).

spectra['length'] = (1 / spectra['frequency']).to(u.arcsec)
spectra['expected / truth'] = spectra['expected'] / spectra['truth']
spectra['realizations / truth'] = spectra['realizations'] / spectra['truth']
spectra['length'].info.format = '.0f'
for name in ('expected / truth', 'realizations / truth'):
    spectra[name].info.format = '.2f'
print(spectra['length', 'expected / truth', 'realizations / truth'][::3])

# %%
# With its sources the map has up to thirty times the power of the emission. The expected background misses a quarter at
# the scales that are smaller than the masks (a radius of 8 to 15 arcsec here), because a quarter of the map has none of
# it; the loss is as large as the masked part of the map. Realizations have what is missing, and here up to a tenth too
# much. They are Gaussian, the field is skewed, and some of what is drawn is how uncertain the prediction is and not how
# rough the map is: behind a source on a bright clump that is much.
#
# The order matters. Average the *spectra* of several realizations, not the maps: the mean of many realizations is the
# expected background again, and as smooth.
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
        f'{name:12} mean {moments["mean"]:.2f} std {moments["std"]:.2f}',
        f'skewness {moments["skewness"]:.2f}',
    )

# %%
# The whole distribution is that of the large structure, which all have in common. What differs is seen when the smoothed
# map is taken off (right): the expected background is too narrow, a realization is not.

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
# A file
# ------
#
# :meth:`~csr_astro.NeuralBackground.to_ccddata` gives the expected background with unit, WCS and a header that says how
# it was made. A realization goes into the same, and the inpainted pixels and their errors beside it, so that a reader
# knows what was measured and what was not:

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

# %%
# ``clean.write(path)`` is enough for the map alone. Read back, it is what it was; pixels outside the mask are those of
# the map that came in, bit for bit:

again = CCDData.read(path)
filled = fits.getdata(path, 'CSR_MASK').astype(bool)
print(again.unit, again.wcs.axis_type_names, again.meta['WEIGHTS'], again.meta['CSRSEED'])
print(bool((again.data[~filled] == data[~filled]).all()))
folder.cleanup()

# %%
# From a file to a file the command line does the same: ``csr-astro remove MAP.fits CATALOG --realization 1 -o OUT.fits``
# keeps all extensions and headers of ``MAP.fits`` and adds ``CSR_MASK`` and ``CSR_RMS``.
#
# Where to go next
# ----------------
#
# - :doc:`../errors`: realizations measured on other maps, and their limits.
# - :doc:`../evaluation`: power spectra, Δ-variance and pixel statistics, with a report of it all.
# - :doc:`../guides/products`: which map for which question.
# - :doc:`command_line`: from file to file.
