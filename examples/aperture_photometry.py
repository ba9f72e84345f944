"""
Aperture photometry
===================

At the end you have an aperture-photometry script of photutils whose local background is predicted behind each source,
with errors and flags, and you have seen on a map of known fluxes what that changes.

The map
-------

So that the true fluxes are known, the map is a simulated one: clumpy emission, noise, and 40 sources of 16 to
1000 mJy. It gets a unit and a WCS, so that from here on it is what :meth:`astropy.nddata.CCDData.read` would return,
and ``coords`` is a catalogue as anybody has it.
"""

# %%
import astropy.units as u
import numpy as np
from astropy.nddata import CCDData
from csr_astro.demo import simulated_field
from csr_astro.simulation.field import tangent_wcs

truth, data, catalog = simulated_field(2)
wcs = tangent_wcs(data.shape, pixel_scale=1.6, center=(269.15, 51.49))
ccd = CCDData(data, unit=u.mJy / u.pix, wcs=wcs)
coords = wcs.pixel_to_world(catalog['x'], catalog['y'])
injected = catalog['flux'] * u.mJy
beam = 5.6 * u.arcsec  # full width at half maximum
print(f'{len(coords)} sources of {injected.min():.0f} to {injected.max():.0f}')

# %%
# The script as it was
# --------------------
#
# A circle on each source, the median of a ring around it as the background, the ring's scatter as the error, and the
# fraction of a Gaussian beam that is inside the circle as the aperture correction:

from photutils.aperture import (
    ApertureStats,
    SkyCircularAnnulus,
    SkyCircularAperture,
    aperture_photometry,
)

radius = 6.4 * u.arcsec
fraction = 1 - 0.5 ** (2 * radius / beam).value ** 2
aperture = SkyCircularAperture(coords, radius)
annulus = SkyCircularAnnulus(coords, 16 * u.arcsec, 28 * u.arcsec)
area = aperture.to_pixel(wcs).area
ring = ApertureStats(ccd, annulus)
table = aperture_photometry(ccd, aperture)
annulus_flux = (table['aperture_sum'] - ring.median * area) * u.pix / fraction
annulus_err = ring.std * np.sqrt(area) * u.pix / fraction

# %%
# The script with a predicted background
# --------------------------------------
#
# An estimator is made once, from the beam. Then two lines change: those of the ring and of ``aperture_photometry`` become
# those of :class:`~csr_astro.InpaintedAperturePhotometry`; what followed them is in the table.
#
# .. code-block:: diff
#
#     -ring = ApertureStats(ccd, annulus)
#     -table = aperture_photometry(ccd, aperture)
#     +photometry = InpaintedAperturePhotometry(
#     +    aperture, estimator=estimator, aperture_correction=fraction)
#     +table = photometry(ccd)

from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator

estimator = NeuralBackgroundEstimator(fwhm=beam)
photometry = InpaintedAperturePhotometry(
    aperture, estimator=estimator, aperture_correction=fraction
)
result = estimator.estimate(ccd, coords)
table = photometry(result)

# %%
# ``photometry(ccd)`` does both steps at once; ``result`` is kept here because it holds the maps that are looked at below.
# The positions are those of the apertures. Radii do as well: ``InpaintedAperturePhotometry([5, 6, 7] * u.arcsec, ...)``
# and ``photometry(ccd, coords)``. For the bands of Herschel say ``instrument='pacs-scanmap-blue'`` instead of ``fwhm=``
# and leave the aperture correction out: both are known then.
#
# The table begins with the columns that ``aperture_photometry`` of the installed photutils returns, so what is done with
# them later goes on working. After them come the background inside the circle, the flux (their difference, corrected for
# the aperture, in mJy where the sum of a map in mJy/pix is called mJy/pix) and its error:

table['injected'] = injected
names = ('aperture_sum', 'background_sum', 'flux', 'flux_err', 'injected', 'snr', 'flags')
shown = table['id', *names]
for name in names[:-1]:
    shown[name].info.format = '.0f'
print(shown[:6])

# %%
# ``flux_err`` contains what is not known of the background, with the correlation of neighbouring pixels, and the map's
# own error if it has one (``error=``, or ``ccd.uncertainty``). ``snr`` is not flux over error: it is the peak over the
# scatter of the ring around the source, and chooses the size of the mask.
#
# What was removed
# ----------------

import matplotlib.pyplot as plt

fig, axes = plt.subplots(
    1,
    3,
    figsize=(8.5, 2.9),
    subplot_kw={'projection': wcs},
    sharex=True,
    sharey=True,
    layout='constrained',
)
result.plot(axes=axes)
plt.show()

# %%
# ``result.plot()`` makes a figure of its own. ``result.background`` is the map without sources,
# ``result.source_image`` the difference; outside ``result.mask`` the former is the map, bit for bit. One source from
# near: the map, its mask, what was predicted from the rest, the difference, and how sure each pixel of the prediction is:

fig, axes = plt.subplots(2, 3, figsize=(8, 5), layout='constrained')
axes[1, 2].set_axis_off()
result.plot_source(2, axes=axes.flat[:5])
plt.show()

# %%
# Are the fluxes right?
# ---------------------
#
# Half of the range that holds 68 % of the errors is one standard deviation of a Gaussian; and within their stated errors
# should be 68 % of the sources, within twice those 95 %:


def judge(flux, flux_err):
    error = (flux - injected).to_value(u.mJy)
    pull = abs(error / flux_err.to_value(u.mJy))
    scatter = np.diff(np.percentile(error, [16, 84]))[0] / 2
    within = f'{(pull < 1).mean():.0%}, two {(pull < 2).mean():.0%}'
    return f'{scatter:.0f} mJy, within one error {within}'


print('annulus:  ', judge(annulus_flux, annulus_err))
print('predicted:', judge(table['flux'], table['flux_err']))

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharex=True, sharey=True, layout='constrained')
methods = {
    'median of an annulus': (annulus_flux, annulus_err, 's', '#d55e00'),
    'predicted background': (table['flux'], table['flux_err'], 'o', '#0072b2'),
}
for ax, (title, (flux, err, marker, color)) in zip(axes, methods.items(), strict=True):
    ax.errorbar(
        injected.value,
        flux / injected,
        err / injected,
        fmt=marker,
        color=color,
        markersize=4,
        linewidth=1,
    )
    ax.axhline(1, color='0.5', linewidth=0.8, zorder=0)
    ax.set(xscale='log', xlabel='injected flux [mJy]', title=title)
axes[0].set_ylabel('measured / injected flux')
plt.show()

# %%
# Where the map has structure of the size of a source, a ring does not know what is inside it, and its pixels are not
# independent: its errors are too small by a factor of five here. The prediction continues the structure inwards and
# says how far that can be trusted. Where a map is flat but for noise the two differ little.
#
# Forty sources tell a coverage of 65 % hardly from 68 %. Of twelve such fields, ``simulated_field(1)`` to
# ``simulated_field(12)``, 71 % of 480 fluxes are within one error and 95 % within two; their errors scatter by 15 mJy.
# The ring's scatter by 37 mJy, and 16 and 33 % are within one and two. The mean error is +3 mJy: a map of clumps is
# skewed, and now and then a clump is hidden behind a source (:doc:`../errors` says more).
#
# Flags
# -----
#
# Every source has a row, in the order given. One that could not be measured holds NaN, and ``flags`` says why; other
# flags are remarks. A source near the edge, one without a position and one far off the map:

from csr_astro.flags import decode_flags

odd = estimator.estimate(ccd, [(2, 100), (np.nan, 80), (900, 80)])
for flags in decode_flags(odd.flags):
    print(flags)

# %%
# Where to go next
# ----------------
#
# - :doc:`psf_photometry`: an estimator as the local background of a PSF fit, with ``fwhm`` in pixels.
# - :doc:`crowded_field`: sources whose masks touch.
# - :doc:`../guides/flags`: all flags.
# - :doc:`../errors`: what an error is made of, and how right it is on real maps.
# - :doc:`../guides/from_an_annulus`: what else changes for somebody who comes from an annulus.
