"""
Resolved cores
==============

This tutorial measures fluxes, sizes and position angles of dense cores, some of them larger than the beam, and shows
which flags tell a core from a point source.

The map
-------

Four cores of 600 mJy on clumpy emission, with pixels of 6″ and a beam of 18″. Their major axes are 0, 1, 2 and 3 beams
long, their minor axes 0.6 times as long.
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from photutils.psf import CircularGaussianPRF

from csr_astro import (
    InpaintedAperturePhotometry,
    InpaintedPSFPhotometry,
    NeuralBackgroundEstimator,
)
from csr_astro.fitting import pixel_psf
from csr_astro.flags import decode_flags
from csr_astro.simulation.diffuse import power_law_field
from csr_astro.simulation.field import tangent_wcs

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
for beams, x0, y0 in zip((0, 1, 2, 3), x, y, strict=True):
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
        flags = ', '.join(decode_flags(row['flags']))
        print(f'{name:8} core {row["id"]}: {row["flux"]:4.0f} {flags}')

# sphinx_gallery_start_ignore
assert np.allclose(tables['gaussian']['flux'].value, 600, rtol=0.05)
assert (tables['psf']['flags'][1:] > 0).all()
# sphinx_gallery_end_ignore

# %%
# The PSF fits only the first core, and flags say so for the others. An aperture misses the light outside it. The Gaussian
# is convolved with the PSF: its size is that of the core before the telescope smeared it, and its flux is the integral.
#
# Sizes and angles
# ----------------

for row in tables['gaussian']:
    print(
        f'core {row["id"]}: {row["fwhm_major"]:.1f} × {row["fwhm_minor"]:.1f}, '
        f'position angle {row["position_angle"]:.0f}'
    )

# %%
# If the data ask for no size, a point source is fitted and the sizes are 0. With a WCS, sizes are angles and
# ``position_angle`` runs from North through East. North is up here and East to the left, so 30° from the x axis is a
# position angle of 120°.

gaussian = ways['gaussian']
model = gaussian.make_model_image(shape)
fig, axes = plt.subplots(3, 1, figsize=(6, 8), sharex=True, layout='constrained')
images = {'map': data, 'fits + 5 mJy/pix': model + 5, 'map − fits': data - model}
for ax, (title, image) in zip(axes, images.items(), strict=True):
    shown = ax.imshow(image, origin='lower', vmin=4, vmax=12)
    ax.set(title=title, ylabel='y [pixel]')
    for row in tables['gaussian']:
        ax.add_patch(
            plt.Circle(
                (row['x_fit'], row['y_fit']), row['mask_radius'], fill=False, color='w', ls='--'
            )
        )
axes[-1].set_xlabel('x [pixel]')
fig.colorbar(shown, ax=axes, label='mJy/pix', extend='both')
plt.show()

# %%
# The dashed circles are the masks. They grow until the residual at their rim (column ``rim``) is less than three times
# its error.
#
# Limits
# ------
#
# A core that is large and not brighter than the emission around it cannot be told from that emission. With a sixth of the
# flux, the core of three beams is taken for background. Give such a core a region, or a ``mask_radius=`` that holds
# it. Cores with cusps or tails, which no Gaussian describes, get the flag ``poor_fit`` or ``exceeds_mask``, or a
# larger error.
#
# Where to go next
# ----------------
#
# - :doc:`/guides/aperture_psf_or_gaussian`: which method for which source.
# - :doc:`crowded_field`: blends.
# - :doc:`/fitting`: the equations.
