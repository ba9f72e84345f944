"""
Aperture photometry
===================

This tutorial takes an aperture-photometry script of photutils and replaces its annulus by a background that is
predicted behind each source. The map is simulated, so the true fluxes are known and both methods can be judged.

The map
-------

Clumpy emission, noise, and 40 sources of 16 to 1000 mJy. The map gets a unit and a WCS, as if
:meth:`astropy.nddata.CCDData.read` had read it from a file. ``coords`` stands for your catalogue.
"""

import astropy.units as u
import matplotlib.pyplot as plt
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
# The script with an annulus
# --------------------------
#
# The script sums a circle on each source and takes the median of a ring as the background and the scatter of the ring
# as the error. The aperture correction is the fraction of a Gaussian beam inside the circle.

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
# Make an estimator from the beam. Then two lines change:
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
# ``photometry(ccd)`` does both steps at once; here ``result`` is kept, because it holds the maps shown below. The
# positions come with the apertures. You may also give radii and positions:
# ``InpaintedAperturePhotometry([5, 6, 7] * u.arcsec, ...)`` and ``photometry(ccd, coords)``. For the bands of Herschel
# PACS, write ``instrument='pacs-scanmap-blue'`` instead of ``fwhm=`` and leave out the aperture correction: both are
# known.
#
# The table begins with the columns of ``aperture_photometry``, so later steps of a script go on working. New columns
# hold the background in the circle, the flux and its error:

table['injected'] = injected
names = ['aperture_sum', 'background_sum', 'flux', 'flux_err', 'injected', 'snr']
shown = table['id', *names, 'flags']
for name in names:
    shown[name].info.format = '.0f'
print(shown[:6])

# %%
# ``flux`` is the difference of the sums, over the aperture correction. ``flux_err`` holds the error of the predicted
# background, with the correlation of neighbouring pixels, and the error of the map if it has one (``error=`` or
# ``ccd.uncertainty``). ``snr`` is the *peak contrast* that chooses the size of the mask: the peak over the scatter of
# the ring around the source. It is not flux over error.
#
# The maps
# --------
#
# ``result.background`` is the map without sources, ``result.source_image`` the difference. Outside ``result.mask`` the
# background equals the map bit for bit.

fig, axes = plt.subplots(
    1, 3, figsize=(9, 3), subplot_kw={'projection': wcs}, sharex=True, sharey=True,
    layout='constrained',
)
result.plot(axes=axes)
plt.show()

# %%
# One source from near: the map, the pixels that the network does not see, its prediction, the difference, and the
# error of each predicted pixel.

result.plot_source(2)
plt.show()

# %%
# Are the fluxes right?
# ---------------------
#
# The scatter is half the range that holds 68 % of the errors. If the stated errors are right, 68 % of the fluxes lie
# within one of them and 95 % within two.


def judge(flux, flux_err):
    error = (flux - injected).to_value(u.mJy)
    pull = abs(error / flux_err.to_value(u.mJy))
    scatter = np.diff(np.percentile(error, [16, 84]))[0] / 2
    within = f'{(pull < 1).mean():.0%} within one error, {(pull < 2).mean():.0%} within two'
    return f'scatter {scatter:.0f} mJy, {within}'


print('annulus:  ', judge(annulus_flux, annulus_err))
print('predicted:', judge(table['flux'], table['flux_err']))

# sphinx_gallery_start_ignore
error = (table['flux'] - injected).to_value(u.mJy)
ring_error = (annulus_flux - injected).to_value(u.mJy)
assert np.ptp(np.percentile(error, [16, 84])) < 0.6 * np.ptp(np.percentile(ring_error, [16, 84]))
assert 0.5 < np.mean(abs(error) < table['flux_err'].to_value(u.mJy)) < 0.85
# sphinx_gallery_end_ignore

fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharex=True, sharey=True, layout='constrained')
methods = {
    'median of an annulus': (annulus_flux, annulus_err, 's', '#d55e00'),
    'predicted background': (table['flux'], table['flux_err'], 'o', '#0072b2'),
}
for ax, (title, (flux, err, marker, color)) in zip(axes, methods.items(), strict=True):
    ax.errorbar(
        injected.value, flux / injected, err / injected, fmt=marker, color=color, markersize=4,
        linewidth=1,
    )
    ax.axhline(1, color='0.5', linewidth=0.8, zorder=0)
    ax.set(xscale='log', xlabel='injected flux [mJy]', title=title)
axes[0].set_ylabel('measured / injected flux')
plt.show()

# %%
# A ring does not know the structure inside it, and its pixels are not independent: its errors are several times too
# small here. The prediction continues the structure into the mask and states how far it can be trusted. On a map that is
# flat but for noise, the two methods differ little.
#
# Forty sources are few. In twelve such fields, ``simulated_field(1)`` to ``simulated_field(12)``, 71 % of 480 fluxes lie
# within one error and 95 % within two, and the errors scatter by 15 mJy. The annulus scatters by 37 mJy, with 16 and
# 33 % within one and two errors. The mean error of the prediction is +3 mJy: clumpy maps are skewed, and now and then a
# clump hides behind a source (:doc:`/errors`).
#
# Flags
# -----
#
# Every source has a row, in the order given. A source that could not be measured has NaN, and ``flags`` says why; other
# flags are remarks. Here are a source near the edge, one without a position and one off the map:

from csr_astro.flags import decode_flags

odd = estimator.estimate(ccd, [(2, 100), (np.nan, 80), (900, 80)])
for flags in decode_flags(odd.flags):
    print(flags)

# %%
# Where to go next
# ----------------
#
# - :doc:`psf_photometry`: the estimator as the local background of a PSF fit.
# - :doc:`crowded_field`: sources whose masks touch.
# - :doc:`/guides/flags`: all flags.
# - :doc:`/errors`: what an error is made of, and how right it is on real maps.
# - :doc:`/guides/from_an_annulus`: every line of an annulus script and its counterpart.
