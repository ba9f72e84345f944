"""
The checkpoints that the authors published
==========================================

This tutorial converts a checkpoint of the paper's authors to a weights file of this package, checks that the conversion
changes nothing, and removes sources with it.

The configuration of the authors' code names two checkpoints, ``scanmap.pth`` and ``parallel.pth``, one for each observing
mode of PACS. This page must not download anything: it makes a checkpoint of the same layout with **random numbers**.
Files and commands look as they do with a real checkpoint; the backgrounds that this network predicts mean nothing. If you
have a real checkpoint, skip the next block.

A file of the same layout
-------------------------

A checkpoint is a state dict of PyTorch, alone or below ``'state_dict'`` or ``'model_state_dict'``. It holds the layers
``e1`` to ``e11`` of the encoder and ``d1`` to ``d11`` of the decoder (paper, Table 4). Each layer has the kernel
``conv.input_conv.weight``, a kernel of ones for the mask, ``conv.mask_conv.weight``, and a batch normalisation ``bn``;
the last layer has a bias instead.
"""

import shlex
import tempfile
from contextlib import chdir
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from csr_astro.cli import main
from csr_astro.nn.unet import DECODER, ENCODER

work = tempfile.TemporaryDirectory()
folder = Path(work.name)


def csr_astro(arguments):
    """Run ``csr-astro`` with the arguments."""
    with chdir(folder):
        assert main(shlex.split(arguments)) == 0


generator = torch.Generator().manual_seed(1)
state, sizes = {}, {}
for part, layers in (('e', ENCODER), ('d', DECODER)):
    for number, layer in enumerate(layers, 1):
        n_in, n_out, kernel, stride, _ = layer
        shape = [n_out, n_in] if part == 'e' else [n_in, n_out]
        shape += [kernel, kernel]
        weight = torch.randn(*shape, generator=generator)
        # Values neither grow nor fade from layer to layer.
        window = n_in * kernel**2
        window /= 1 if part == 'e' else stride**2
        weight *= (2 * window) ** 0.5
        name = f'{part}{number}'
        state[f'{name}.conv.input_conv.weight'] = weight
        ones = torch.ones(1).expand(shape)
        state[f'{name}.conv.mask_conv.weight'] = ones
        if name == 'd11':
            state[f'{name}.conv.input_conv.bias'] = torch.zeros(1)
        else:
            for key in ('weight', 'running_var'):
                state[f'{name}.bn.{key}'] = torch.ones(n_out)
            for key in ('bias', 'running_mean'):
                state[f'{name}.bn.{key}'] = torch.zeros(n_out)
        sizes[name] = weight.numel()
torch.save({'model_state_dict': state}, folder / 'scanmap.pth')
total = sum(sizes.values()) / 1e6
print(f'{total:.1f} million parameters in {len(sizes)} kernels')

figure, ax = plt.subplots(figsize=(8, 3.4), layout='constrained')
colors = ['#0072b2' if name[0] == 'e' else '#e69f00' for name in sizes]
ax.bar(list(sizes), [size / 1e6 for size in sizes.values()], color=colors)
ax.set(xlabel='layer (e: encoder, d: decoder)', ylabel='million parameters')
plt.show()

# %%
# Convert it
# ----------

csr_astro(
    'weights convert scanmap.pth scanmap.safetensors --title "Random numbers, scan maps" '
    '--licence "none"'
)
csr_astro('weights info scanmap.safetensors')

# %%
# In Python, use ``csr_astro.nn.weights.convert_checkpoint``. A real checkpoint has terms of use: read them where you got
# it, and write them into ``--licence``, so that they stay with the file. The header of the new file says that the network
# has full width, that its images are normalised by minimum and maximum, and that it predicts the background itself, not a
# difference from an interpolation.
#
# What the conversion changes
# ---------------------------
#
# One thing. A partial convolution of Liu et al. (2018) is ``W·(X⊙M)·Σ1/ΣM + b``; that of the authors' code leaves out
# the number ``Σ1`` of pixels in the window. The converted network is the same with other kernels: each is divided by the
# ``Σ1`` of its layer, in single precision, and the kernels of ones are not needed. Compare the first layer, on pixels with
# a hole in them:

from torch.nn.functional import conv2d

from csr_astro import load_model

model = load_model(folder / 'scanmap.safetensors')
image = torch.randn(1, 1, 96, 96, generator=generator)
mask = torch.ones(1, 1, 96, 96)
mask[..., 40:56, 40:56] = 0
with torch.no_grad():
    weight = state['e1.conv.input_conv.weight']
    n_valid = conv2d(mask, torch.ones(1, 1, 3, 3), padding=1)
    theirs = conv2d(image * mask, weight, padding=1)
    theirs /= n_valid.clamp(min=1)
    ours, _ = model.network.encoder[0].conv([image], [mask])
difference = (theirs - ours).abs().max() / theirs.abs().max()
print('the same within 1e-5:', bool(difference < 1e-5))

# %%
# The tests of the package compare whole networks in this way. A missing tensor, an additional one, one of another shape, or
# a mask kernel that is not all ones is an error: the file of another network is not mistaken for one of these.
#
# The file cannot run code
# ------------------------
#
# A ``.pth`` file is a pickle, which may hold code that runs when the file is opened. This one would print a line:


class Payload:
    """Run code when it is unpickled."""

    def __reduce__(self):
        return print, ('code of the file is run',)


torch.save({'model_state_dict': Payload()}, folder / 'bad.pth')
loaded = torch.load(folder / 'bad.pth', weights_only=False)

# %%
# The converter opens files with ``weights_only=True``, which accepts tensors and containers and nothing else. It refuses
# versions of PyTorch before 2.6, in which that could be circumvented.

from csr_astro.nn.weights import convert_checkpoint

try:
    convert_checkpoint(folder / 'bad.pth', folder / 'bad.safetensors')
except ValueError as error:
    print(str(error).replace(str(folder), '...'))
print('written:', (folder / 'bad.safetensors').exists())

# %%
# Everything else in the package reads ``.safetensors`` only, a format of numbers and names without code. The estimator
# refuses a checkpoint:

from csr_astro import NeuralBackgroundEstimator

try:
    NeuralBackgroundEstimator(folder / 'scanmap.pth')
except ValueError as error:
    print(str(error).replace(str(folder), '...'))

# %%
# Whether the numbers are those that the authors published, no file can tell. Compare the SHA-256 of the checkpoint with
# one that you trust. That of the converted file is in the ``meta`` of every table made with it.
#
# Use it
# ------
#
# ``preset='paper'`` works as the published tool does: images are normalised by minimum and maximum, the map is predicted
# once, in the same windows, and prediction and map are blended at the rim of the mask. The tests compare the pixels of a
# whole map with a pipeline written from the paper (:doc:`/guides/published_tool`). Without ``weights=`` the preset uses the
# bundled weights of this network, at half width and trained for this package.

from csr_astro.simulation.field import synthetic_map
from csr_astro.simulation.simulate import simulate_map

band = 'pacs-scanmap-blue'
cloud = synthetic_map('lognormal', (160, 160), 2, scatter=2e-3, noise=0.05)
simulation = simulate_map(cloud, 3000, instrument=band, number=6, seed=2)
image, sources = simulation.injected, simulation.sources
published = NeuralBackgroundEstimator(
    folder / 'scanmap.safetensors', instrument=band, preset='paper'
)
result = published.estimate(image, sources)
bundled = NeuralBackgroundEstimator(instrument=band).estimate(image, sources)
print(result.sources.meta['preset'], result.sources.meta['orientations'])
untouched = ~result.mask
print('unchanged outside:', (result.background == simulation.data)[untouched].all())

# %%
# The map, and the map without sources by the converted random numbers and by the bundled weights. With a real checkpoint
# the panel in the middle looks like a map.

panels = {
    'map': simulation.data,
    'converted, random': result.background,
    'bundled weights': bundled.background,
}
low, high = 1000 * np.percentile(simulation.truth.value, [0.5, 99.5])
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.4), layout='constrained', sharey=True)
for ax, (title, values) in zip(axes, panels.items(), strict=True):
    shown = ax.imshow(1000 * values.value, origin='lower', vmin=low, vmax=high)
    ax.set(title=title, xlabel='x [pixel]')
axes[0].set_ylabel('y [pixel]')
figure.colorbar(shown, ax=axes, label='mJy / pixel', shrink=0.9, extend='both')
plt.show()
work.cleanup()

# %%
# With the default preset the converted network is used in the manner of this package: only the mask is replaced, and
# the result is the mean over eight flips and rotations, in eight times the time. The normalisation stays that of the
# header. In the shell:
#
# .. code-block:: console
#
#     $ csr-astro remove MAP.fits CATALOG --weights scanmap.safetensors --preset paper
#     $ csr-astro evaluate accuracy MAPS --weights scanmap.safetensors
#
# The second command measures how good the weights are on your maps, beside an annulus and other methods. Use it before you
# decide between a published network and the bundled one.
#
# Where to go next
# ----------------
#
# - :doc:`/weights`: what the bundled weights learned from, and how well they do.
# - :doc:`/method`: the network, and where this package departs from the paper.
# - :doc:`own_instrument`: weights of your own.
# - :doc:`standard_star`: Table 5 of the paper.
