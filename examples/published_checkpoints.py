"""
The checkpoints that the authors published
==========================================

At the end you will have turned a checkpoint of the paper's authors into a file of weights of this package, checked
that nothing was lost on the way, and removed sources with it.

The configuration of `the authors' code <https://github.com/xMediMadix/compact-source-removal>`_ names two
checkpoints, ``scanmap.pth`` and ``parallel.pth``, one for each observing mode of PACS. This page may not download
anything: it makes a checkpoint of the same layout with **random numbers** in it. All that the page shows of files and
commands is as it will be with the real ones; the backgrounds that this network predicts mean nothing. If you have a
real checkpoint, skip the next block.

A file of the same layout
-------------------------

A checkpoint is a state dict of PyTorch, alone or below ``'state_dict'`` or ``'model_state_dict'``: the layers ``e1``
to ``e11`` of the encoder and ``d1`` to ``d11`` of the decoder (paper, Table 4), each with the kernel
``conv.input_conv.weight``, a kernel of ones for the mask, ``conv.mask_conv.weight``, and a batch normalisation
``bn``; the last layer has a bias instead.
"""

# %%
import shlex, tempfile
from contextlib import chdir
from pathlib import Path
import numpy as np
import matplotlib.pyplot as plt
import torch
from csr_astro.nn.unet import DECODER, ENCODER

work = tempfile.TemporaryDirectory()
folder = Path(work.name)
generator = torch.Generator().manual_seed(1)
state, sizes = {}, {}
for part, layers in (('e', ENCODER), ('d', DECODER)):
    for number, layer in enumerate(layers, 1):
        n_in, n_out, kernel, stride, _ = layer
        shape = [n_out, n_in] if part == 'e' else [n_in, n_out]
        shape += [kernel, kernel]
        weight = torch.randn(*shape, generator=generator)
        # Neither growing nor fading from layer to layer.
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
print(f'{total:.1f} million numbers in {len(sizes)} kernels')

# %%
# Where the parameters of the paper's network are.

figure, ax = plt.subplots(figsize=(8, 3.4), layout='constrained')
colors = ['#0072B2' if name[0] == 'e' else '#E69F00' for name in sizes]
ax.bar(list(sizes), [size / 1e6 for size in sizes.values()], color=colors)
ax.set(xlabel='layer (e: encoder, d: decoder)', ylabel='million parameters')
plt.show()

# %%
# Convert it
# ----------

from csr_astro.cli import main


def shell(line):
    with chdir(folder):
        return main(shlex.split(line)[1:])


shell('''csr-astro weights convert scanmap.pth scanmap.safetensors
    --title "Random numbers, scan maps" --licence "none"''')
shell('csr-astro weights info scanmap.safetensors')

# %%
# In Python it is ``csr_astro.nn.weights.convert_checkpoint``. A real checkpoint has terms of use of its own: read
# them where you got it, and write them into ``--licence``, so that they go with the file. The header of the new file
# says that the network is of full width, that its images are normalised by minimum and maximum, and that it predicts
# the background itself, not a difference from an interpolation.
#
# What changes on the way
# -----------------------
#
# One thing. A partial convolution of Liu et al. (2018) is ``W·(X⊙M)·Σ1/ΣM + b``; that of the authors' code leaves out
# the number ``Σ1`` of pixels in the window. This is the same network with other kernels: each is divided by the ``Σ1``
# of its layer, in single precision, and the kernels of ones are not needed. The first layer, on some pixels with a hole
# in them, by the formula of the authors and by the converted file:

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
bool((theirs - ours).abs().max() < 1e-5 * theirs.abs().max())

# %%
# The tests of the package compare whole networks in this way. A tensor too many, too few or of another shape, or a mask
# kernel that is not all ones, is an error: a file of another network is not taken for one of this.
#
# No code is run
# --------------
#
# A ``.pth`` file is a pickle, which can hold any code that is run when it is opened. Here is one that would print a
# line:


class Payload:
    def __reduce__(self):
        return print, ('code of the file is run',)


torch.save({'model_state_dict': Payload()}, folder / 'bad.pth')
torch.load(folder / 'bad.pth', weights_only=False)

# %%
# The converter opens files with ``weights_only=True``, which knows tensors and containers and nothing else, and it
# refuses to do so with a PyTorch before 2.6, where that could be got round:

from csr_astro.nn.weights import convert_checkpoint

try:
    convert_checkpoint(folder / 'bad.pth', folder / 'bad.safetensors')
except ValueError as error:
    print(error)
(folder / 'bad.safetensors').exists()

# %%
# Everything else in the package reads ``.safetensors`` only, a format of numbers and names without code. The estimator,
# too, says so when it is given a checkpoint:

from csr_astro import NeuralBackgroundEstimator

try:
    NeuralBackgroundEstimator(folder / 'scanmap.pth')
except ValueError as error:
    print('because they can execute code' in str(error))

# %%
# What this cannot tell is whether the numbers are those that the authors published. Compare the SHA-256 of the
# checkpoint with one that you trust, if there is one; that of the converted file is in the ``meta`` of every table that
# is made with it.
#
# Use it
# ------
#
# ``preset='paper'`` does what the paper does with its network: images are normalised by minimum and maximum, the map is
# predicted once, and prediction and map are blended at the rim of the mask.

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
estimator = NeuralBackgroundEstimator(instrument=band)
bundled = estimator.estimate(image, sources)
print(result.sources.meta['preset'], result.sources.meta['orientations'])
untouched = ~result.mask
bool((result.background == simulation.data)[untouched].all())

# %%
# The map, and the source-free map by the converted random numbers and by the bundled weights; all
# share their colours. With a real checkpoint the panel in the middle looks like a map.

panels = {
    'map': simulation.data,
    'converted, random': result.background,
    'bundled weights': bundled.background,
}
low, high = 1000 * np.percentile(simulation.truth.value, [0.5, 99.5])
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.4), layout='constrained', sharey=True)
for ax, (title, values) in zip(axes, panels.items()):
    shown = ax.imshow(1000 * values.value, origin='lower', vmin=low, vmax=high, cmap='viridis')
    ax.set(title=title, xlabel='x [pixel]', ylabel='y [pixel]' if title == 'map' else '')
bar = figure.colorbar(shown, ax=axes, label='mJy / pixel', shrink=0.9)
work.cleanup()
plt.show()

# %%
# With the default preset the converted network is used in the manner of this package: only the mask is replaced, and
# the answer is the mean over eight flips and rotations, in eight times the time; the normalisation stays what the
# header says. At the shell:
#
# .. code-block:: console
#
#     $ csr-astro remove MAP.fits CATALOG --weights scanmap.safetensors --preset paper
#     $ csr-astro evaluate accuracy MAPS --weights scanmap.safetensors
#
# The second line says how good it is on your maps, beside an annulus and the other methods: ask it before you decide
# between a published network and the bundled one.
#
# Where to go next
# ----------------
#
# - :doc:`/weights`: what the bundled weights learned from, and how well they do.
# - :doc:`/method`: the network, and where this package departs from the paper.
# - :doc:`own_instrument`: weights of your own.
# - :doc:`standard_star`: Table 5 of the paper.
