"""
Your own instrument, from PSF to weights
========================================

At the end you will have used the package with an instrument that it does not know, with the aperture corrections of
its own PSF, trained a network on its maps, and compared that network with the bundled one on a field that neither has
seen.


The instrument of this page is invented: a camera at 350 µm with pixels of 3″ and a beam of 11″, whose PSF has
wings. Lines for a shell are run by the page itself, through this function:
"""

# %%
import shlex, shutil, tempfile
from contextlib import chdir
from pathlib import Path
import numpy as np
import matplotlib.pyplot as plt
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table
from csr_astro.cli import main

work = tempfile.TemporaryDirectory()
folder = Path(work.name)


def shell(line):
    with chdir(folder):
        return main(shlex.split(line)[1:])


# %%
# The PSF
# -------
#
# Here it is an image of a planet, a FITS file on pixels of 1″; it could as well be an array, a model of astropy or a
# PSF model of photutils. :func:`~csr_astro.simulation.psf.psf_profile` takes all of these. The header of an image tells
# its pixel scale (``PIXSCALE``, ``PIXARCS`` or a WCS).

from astropy.modeling.models import Moffat2D
from csr_astro.simulation.psf import encircled_energy, gaussian_profile, psf_profile

fwhm, alpha, scale = 11.0, 2.2, 3.0
gamma = fwhm / 2 / np.sqrt(2 ** (1 / alpha) - 1)
moffat = Moffat2D(gamma=gamma, alpha=alpha)
y, x = np.indices((121, 121)) - 60
header = fits.Header({'PIXSCALE': 1.0})
fits.writeto(folder / 'psf.fits', moffat(x, y), header)
profile = psf_profile(folder / 'psf.fits', pixel_scale=scale)
gaussian = gaussian_profile(fwhm / scale)
radius = np.array([5.5, 11, 16.5, 22])  # arcsec
for name, each in (('PSF', profile), ('Gaussian', gaussian)):
    print(name, encircled_energy(each, radius / scale).round(2))

# %%
# The PSF, and the Gaussian of the same width: a sixth of the energy lies beyond 16.5″, where the
# Gaussian has nothing.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout='constrained')
r = np.linspace(0, 40, 81)
for name, each, style in (('PSF', profile, '-'), ('Gaussian', gaussian, '--')):
    color = '#0072B2' if name == 'PSF' else '#D55E00'
    left.semilogy(r, each(r / scale, 0 * r) / each(0.0, 0.0), style, color=color, label=name)
    right.plot(r[2:], encircled_energy(each, r[2:] / scale), style, color=color)
left.set(xlabel='radius [arcsec]', ylabel='brightness over peak', ylim=(1e-4, 1.5))
right.set(xlabel='radius [arcsec]', ylabel='enclosed energy', ylim=(0, 1.02))
left.legend()
plt.show()

# %%
# Fields with sources of known flux
# ---------------------------------
#
# To train and to test one needs maps in which it is known what is behind a source. With maps of your own that hold few
# sources, ``csr-astro simulate MAPS --psf psf.fits`` puts sources onto them; this page has none and draws fields of
# filaments (:doc:`/simulation` has more kinds, stripes and gaps among them).

shell("""csr-astro simulate --field filaments --fields 4
    --shape 240 240 --pixel-scale 3 --psf psf.fits
    --flux-levels 1000 --number 10 --seed 7 -o simulated""")

# %%
# What the width of the beam alone gives
# --------------------------------------
#
# An instrument is anything with a beam. From ``fwhm=`` follow the sizes of the masks, the ring in which the SNR is
# measured, and an annulus, as they are for PACS in units of its beam:

from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator

estimator = NeuralBackgroundEstimator(fwhm=fwhm * u.arcsec)
name = folder / 'simulated' / 'filaments003_01000mJy'
field = fits.open(name.with_suffix('.fits'), memmap=False)
sources = QTable.read(name.with_suffix('.ecsv'))
result = estimator.estimate(field, sources)
band = result.instrument  # on the pixels of this map
print(np.round(band.mask_radii, 1), 'pixels')
masks = result.sources['mask_name'].tolist()
print({name: masks.count(name) for name in sorted(set(masks))})

# %%
# What does not follow is the shape of the PSF. There is no table of enclosed energy for this instrument, so no aperture
# correction is made unless one is given, and that of a Gaussian beam would leave the wings out:

aperture = 11 * u.arcsec
pixels = aperture.value / scale
corrections = {
    'none': 'none',
    'Gaussian': float(band.enclosed_energy(pixels)),
    'PSF': float(encircled_energy(profile, pixels)),
}
for name, correction in corrections.items():
    photometry = InpaintedAperturePhotometry(
        aperture, estimator=estimator, aperture_correction=correction
    )
    flux = photometry(result)['flux']
    ratio = np.median((flux / sources['flux']).to_value(''))
    print(f'{name}: measured over injected {ratio:.2f}')

# %%
# At the shell that is ``csr-astro photometry ... --fwhm 11arcsec --apertures 11arcsec --aperture-correction FRACTION``.
# For most instruments this is all. The bundled weights learned from maps of many instruments, and work with beams of
# two to six pixels. The rest of this page is about finding out whether other weights would do better.
#
# A tiny training
# ---------------
#
# This one takes seconds, for a network of 138,000 parameters that sees 320 cutouts. It shows how a training goes; it is
# far too small to be good at anything that an interpolation cannot do.
#
# The training covers maps *without* sources with discs, and puts sources there itself, some of them with the PSF that
# it is given as an image on the pixels of the map (or shrunk, to 0.4 of its size at most). Of what ``simulate`` wrote,
# these maps are the ``truth`` files: do not give the whole folder, because whatever lies behind a disc is taken for
# background. Fields are divided, not cutouts: some to learn from, one on which the best weights are chosen, and one
# that nobody looks at before the end.

from csr_astro.simulation.psf import psf_stamp

fits.writeto(folder / 'psf_on_map.fits', psf_stamp(profile, 41))
for split in ('train', 'validation', 'test'):
    (folder / split).mkdir()
maps = sorted((folder / 'simulated').glob('*_truth.fits'))
for path, split in zip(maps, ('train', 'train', 'validation', 'test')):
    shutil.copy(path, folder / split)
recipe = """
width = 0.0625        # bundled weights: 0.25, the paper: 1
fill = "push-pull"    # what the network adds to
n_cutouts = 320
batch_size = 16
learning_rate = 4e-3
warmup = 64
average = 0.9
real_fraction = 0.8   # the rest is synthetic
validate_every = 64
n_validation = 32
"""
(folder / 'tiny.toml').write_text(recipe)
shell("""csr-astro train tiny.toml --maps train
    --validation validation --psf psf_on_map.fits -o run""")

# %%
log = Table.read(folder / 'run' / 'log.csv')
print(log.colnames)
bool(log['validation_loss'].min() < log['validation_loss'][0])

# %%
# ``log.csv`` of the training. The loss is the error behind the discs, over that of a smooth
# interpolation. The training loss is that of a few batches, of other cutouts each time; the
# validation loss is always that of the same cutouts, by the running mean of the weights.

figure, ax = plt.subplots(figsize=(6.4, 3.6), layout='constrained')
ax.plot(log['cutouts'], log['training_loss'], 's--', color='#D55E00', label='training')
ax.plot(log['cutouts'], log['validation_loss'], 'o-', color='#0072B2', label='validation')
ax.set(xlabel='cutouts', ylabel='loss')
ax.legend()
plt.show()

# %%
# Use it
# ------
#
# The file of weights is all that is needed. It says itself how the network is built, and takes the place of the name of
# bundled weights, in Python and after ``--weights``:

weights = folder / 'run' / 'weights.safetensors'
estimator = NeuralBackgroundEstimator(weights, fwhm=fwhm * u.arcsec)
tiny = estimator.estimate(field, sources)
truth = fits.getdata(maps[-1], memmap=False)
number = 0
row = result.sources[number]
x, y = round(row['x_center']), round(row['y_center'])

# %%
# One source of the held-out field; all panels share their colours.

window = slice(max(y - 24, 0), y + 25), slice(max(x - 24, 0), x + 25)
panels = {
    'map': field['image'].data,
    'truth': truth,
    'tiny network': tiny.background,
    'bundled weights': result.background,
}
low, high = 1000 * np.percentile(truth[window], [0.5, 99.5])
figure, axes = plt.subplots(1, 4, figsize=(10, 3), layout='constrained', sharey=True)
for ax, (title, values) in zip(axes, panels.items()):
    shown = ax.imshow(
        1000 * values[window],
        origin='lower',
        vmin=low,
        vmax=high,
        cmap='viridis',
        extent=(
            window[1].start - 0.5,
            window[1].stop - 0.5,
            window[0].start - 0.5,
            window[0].stop - 0.5,
        ),
    )
    ax.set(title=title, xlabel='x [pixel]', ylabel='y [pixel]' if title == 'map' else '')
    radius = result.sources['mask_radius'][number]
    ax.add_patch(plt.Circle((x, y), radius, fill=False, color='white', ls='--'))
bar = figure.colorbar(shown, ax=axes, label='mJy / pixel', shrink=0.8)
plt.show()

# %%
# How good is it?
# ---------------
#
# ``csr-astro evaluate accuracy`` leaves out discs where no source is, and compares the sum that each method predicts
# for an aperture with the truth. The second line measures at the same positions as the first.

shell("""csr-astro evaluate accuracy test
    --weights run/weights.safetensors --number 50 --radii 8
    --methods network,annulus_median -o accuracy_tiny""")
shell("""csr-astro evaluate accuracy test
    --positions accuracy_tiny/positions.ecsv
    --methods network,annulus_median -o accuracy_bundled""")

# %%
# ``blank.ecsv`` holds the scatter of the errors, ``blank_errors.ecsv`` each of them.

# %%
# Errors of the background's sum in an aperture of 4 pixels behind 50 discs of 8 pixels' radius on
# the held-out field: the fraction of the discs whose error is smaller than the value on the axis.

figure, ax = plt.subplots(figsize=(6.4, 3.8), layout='constrained')
methods = {
    'bundled weights': ('bundled', 'network', '-', '#0072B2'),
    'tiny network': ('tiny', 'network', '--', '#E69F00'),
    'annulus': ('tiny', 'annulus_median', ':', '#000000'),
}
for label, (run, method, style, color) in methods.items():
    table = Table.read(folder / f'accuracy_{run}' / 'blank_errors.ecsv')
    error = 1000 * np.sort(np.abs(table[method]))
    ax.step(error, (np.arange(len(error)) + 1) / len(error), style, color=color, lw=2, label=label)
ax.set(xscale='log', xlabel='error of the sum [mJy]', ylabel='fraction of discs', ylim=(0, 1))
ax.legend()
field.close()
work.cleanup()
plt.show()

# %%
# With fifty discs the two networks can hardly be told apart, because most of either is an interpolation. For numbers to
# decide by, take hundreds of discs (``--number`` is 300 by default) and several fields.
#
# The real training
# -----------------
#
# For an instrument of one's own there are two ways, both with the package's recipes instead of the tiny one. The first
# starts from the bundled weights and makes them familiar with your maps:
#
# .. code-block:: console
#
#     $ csr-astro train fine-tune --maps train --validation validation --psf psf_on_map.fits -o fine
#
# With the maps of this page that took four minutes of processor time on one core. At 150 discs of each 5 and 9 pixels'
# radius on the held-out field, the scatter of the errors over that of the annulus was then 0.53 ± 0.06, as it was
# before (and 0.65 ± 0.07 with the tiny network): the bundled weights had learned from filaments like these, and nothing
# was left to learn. A gain can be expected where maps have a texture or a noise that the bundled weights do not know;
# ask ``evaluate accuracy`` before you spend a night.
#
# The second trains from the beginning, for hours on two cores (the last part alone of the bundled weights took 73
# minutes), or on a GPU:
#
# .. code-block:: console
#
#     $ csr-astro train default --maps train --validation validation --psf psf_on_map.fits -o run
#     $ csr-astro train paper --maps train --validation validation -o run --workers 8 --devices 2
#
# A training that was stopped goes on with ``--resume``. Keep with the weights what they learned from: ``--title``,
# ``--training-data`` and ``--licence`` go into the file, and ``csr-astro weights info run/weights.safetensors`` shows
# them.
#
# Where to go next
# ----------------
#
# - :doc:`/training`: every recipe, what is written, and recipes of your own.
# - :doc:`/simulation`: fields, PSFs, and sets of cutouts.
# - :doc:`/evaluation`: the methods that ``evaluate accuracy`` compares, and the limit that no method can pass.
# - :doc:`/weights`: how the bundled weights were made, and where they fail.
