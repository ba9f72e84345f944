"""
Resolved cores
==============

At the end you have fluxes, sizes and position angles of dense cores, some of them larger than the beam, and you know
from which flags to see that a point source is none.

The map
-------

Four cores of 600 mJy on clumpy emission, with pixels of 6 arcsec and a beam of 18 arcsec. Their major axes are 0, 1, 2
and 3 beams long, the minor ones 0.6 times as long.
"""

# %%
import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from csr_astro import InpaintedAperturePhotometry, InpaintedPSFPhotometry, NeuralBackgroundEstimator
from csr_astro.fitting import pixel_psf
from csr_astro.flags import decode_flags
from csr_astro.simulation.diffuse import power_law_field
from csr_astro.simulation.field import tangent_wcs
from photutils.psf import CircularGaussianPRF

rng = np.random.default_rng(2)
shape = (120, 200)
data = 5 + 0.4 * power_law_field(shape, -3, rng)
data += rng.normal(0, 0.02, shape)
psf_model = CircularGaussianPRF(fwhm=3)
psf = pixel_psf(psf_model)
columns, rows = np.arange(200.0), np.arange(120.0)
x, y = np.array([25.0, 70.0, 120.0, 170.0]), np.full(4, 60.0)
c, s = np.cos(np.radians(30)), np.sin(np.radians(30))
turn = np.array([[c, -s], [s, c]])
for beams, x0, y0 in zip((0, 1, 2, 3), x, y):
    axes = np.diag([1, 0.6**2]) * (3 * beams) ** 2 / (8 * np.log(2))
    core = psf.convolved(turn @ axes @ turn.T)
    data += 600 * core.evaluate(columns - x0, rows - y0)
wcs = tangent_wcs(shape, 6, (10, 40))
positions = np.column_stack([x, y])

# %%
# Three ways to measure
# ---------------------

estimator = NeuralBackgroundEstimator(fwhm=3, orientations=1)
ways = {
    'aperture': InpaintedAperturePhotometry(5, estimator=estimator),
    'psf': InpaintedPSFPhotometry(psf_model, estimator=estimator),
    'gaussian': InpaintedPSFPhotometry(psf_model, estimator=estimator, shape='gaussian'),
}
tables = {name: way(data * u.mJy / u.pix, positions, wcs=wcs) for name, way in ways.items()}
for name, table in tables.items():
    for row in table:
        print(f'{name:8} {row["id"]} {row["flux"]:4.0f}', ', '.join(decode_flags(row['flags'])))

# %%
# The PSF fits the first only, and the flags of the others say so. An aperture misses what is outside. The Gaussian is
# convolved with the PSF, so that its size is that of the core before the telescope saw it, and its flux is integrated.
#
# Sizes and angles
# ----------------

for row in tables['gaussian']:
    print(
        row['id'],
        f'{row["fwhm_major"]:.1f},',
        f'{row["fwhm_minor"]:.1f}, {row["position_angle"]:.0f}',
    )

# %%
# Where the data ask for no size, a point source is fitted, and the sizes are 0. With a WCS they are angles, and
# ``position_angle`` runs from north through east: north is up and east to the left, so that 30 degrees from the x axis are
# 120 degrees.

gaussian = ways['gaussian']
model = gaussian.make_model_image(shape)
fig, axes = plt.subplots(3, 1, figsize=(6, 8), sharex=True, layout='constrained')
images = {'map': data, 'fits': model + 5, 'map − fits': data - model}
for ax, (title, image) in zip(axes, images.items()):
    shown = ax.imshow(image, origin='lower', vmin=4, vmax=12)
    ax.set(title=title, ylabel='y [pixel]')
for row in tables['gaussian']:
    for ax in axes:
        ax.add_patch(
            plt.Circle(
                (row['x_fit'], row['y_fit']), row['mask_radius'], fill=False, color='w', ls='--'
            )
        )
axes[-1].set_xlabel('x [pixel]')
fig.colorbar(shown, ax=axes, label='mJy/pix')
plt.show()

# %%
# The circles show how far the masks have grown: until the residual at their rim, ``rim``, is less than three times its
# error.
#
# Where it fails
# --------------
#
# A core that is both large and no brighter than the emission around it is not told from it: of a sixth of the flux, the
# core of three beams is taken for background. Give such a core a region or ``mask_radius=`` that holds it. Cores that are
# no Gaussians, with cusps or tails, have the flag ``poor_fit`` or ``exceeds_mask``.
#
# Where to go next
# ----------------
#
# - :doc:`../guides/aperture_psf_or_gaussian`: which way of measuring for which source.
# - :doc:`crowded_field`: blends.
# - :doc:`../fitting`: the equations.
