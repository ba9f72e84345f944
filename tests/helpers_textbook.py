"""The paper's layers as a textbook writes them: every mask has every channel.

Written from METHOD.md alone; nothing here knows the package.
"""

import torch
from torch import nn
from torch.nn import functional as F

# in-out-kernel-stride-padding, as METHOD.md lists them.
_ENCODER = (
    '1-32-3-1-1 32-64-4-2-1 64-64-3-1-1 64-128-4-2-1 128-128-3-1-1 128-256-4-2-1 256-256-3-1-1 '
    '256-512-4-2-1 512-512-3-1-1 512-512-4-2-1 512-512-3-1-0'
)
_DECODER = (
    '512-512-3-1-0 1024-512-4-2-1 1024-512-3-1-1 1024-256-4-2-1 512-256-3-1-1 512-128-4-2-1 '
    '256-128-3-1-1 256-64-4-2-1 128-64-3-1-1 128-32-4-2-1 64-1-3-1-1'
)
ENCODER = [tuple(map(int, layer.split('-'))) for layer in _ENCODER.split()]
DECODER = [tuple(map(int, layer.split('-'))) for layer in _DECODER.split()]


def textbook_layer(x, mask, weight, bias=None, *, stride, padding, transposed, rescale=True):
    """Output and mask of ``W·(X⊙M)·Σ1/ΣM + b`` where ``ΣM > 0``, else 0; all (B, C, H, W).

    Without ``rescale`` the factor ``Σ1`` is left out, as in the authors' code.
    """
    convolve = F.conv_transpose2d if transposed else F.conv2d
    ones = torch.ones_like(weight)
    n_valid = convolve(mask, ones, stride=stride, padding=padding)
    n_window = 1.0
    if rescale:
        # What an output pixel far from every edge gets from an input that is valid everywhere.
        unbounded = torch.ones(1, x.shape[1], 16, 16, dtype=x.dtype)
        n_window = convolve(unbounded, ones, stride=stride, padding=padding)[0, 0, 6, 6]
    output = convolve(x * mask, weight, stride=stride, padding=padding)
    output = output * n_window / n_valid.clamp(min=1)
    if bias is not None:
        output = output + bias[:, None, None]
    new_mask = (n_valid > 0).to(x.dtype)
    return output * new_mask, new_mask


class _TextbookConv(nn.Module):
    def __init__(self, layer, transposed, bias):
        super().__init__()
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        n_in, n_out, kernel, stride, padding = layer
        self.input_conv = kind(n_in, n_out, kernel, stride, padding, bias=bias)
        self.mask_conv = kind(n_in, n_out, kernel, stride, padding, bias=False)
        nn.init.ones_(self.mask_conv.weight)
        # Without Σ1, kernels that keep the variance are that much larger.
        n_window = n_in * kernel**2 / (stride**2 if transposed else 1)
        nn.init.normal_(self.input_conv.weight, std=(2 * n_window) ** 0.5)
        self.options = {'stride': stride, 'padding': padding, 'transposed': transposed}

    def forward(self, x, mask):
        weight, bias = self.input_conv.weight, self.input_conv.bias
        return textbook_layer(x, mask, weight, bias, **self.options, rescale=False)


class _TextbookBlock(nn.Module):
    def __init__(self, layer, *, transposed, last=False):
        super().__init__()
        self.conv = _TextbookConv(layer, transposed, bias=last)
        self.bn = None if last else nn.BatchNorm2d(layer[1])

    def forward(self, x, mask):
        x, mask = self.conv(x, mask)
        return (x if self.bn is None else torch.relu(self.bn(x))), mask


class TextbookNetwork(nn.Module):
    """The authors' network: their names of tensors and their form of the layer."""

    def __init__(self):
        super().__init__()
        for number, layer in enumerate(ENCODER, start=1):
            self.add_module(f'e{number}', _TextbookBlock(layer, transposed=False))
        for number, layer in enumerate(DECODER, start=1):
            block = _TextbookBlock(layer, transposed=True, last=number == 11)
            self.add_module(f'd{number}', block)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
                nn.init.normal_(module.running_mean, std=0.3)
                nn.init.uniform_(module.running_var, 0.5, 2)

    def forward(self, x, mask):
        encoded = {}
        for number in range(1, 12):
            x, mask = encoded[number] = getattr(self, f'e{number}')(x, mask)
        x, mask = self.d1(x, mask)
        for number in range(1, 11):
            skip, skip_mask = encoded[11 - number]
            block = getattr(self, f'd{number + 1}')
            x, mask = block(torch.cat([x, skip], 1), torch.cat([mask, skip_mask], 1))
        return x


def textbook_state(*, batches_tracked=True):
    """A state dict of the authors' names and shapes that takes no space on disk.

    Every tensor repeats one number, which differs between tensors; mask kernels are 1.
    """
    state = {}
    for letter, layers, transposed in (('e', ENCODER, False), ('d', DECODER, True)):
        for number, (n_in, n_out, kernel, _, _) in enumerate(layers, start=1):
            name = f'{letter}{number}'
            first = (n_in, n_out) if transposed else (n_out, n_in)
            state[f'{name}.conv.input_conv.weight'] = (*first, kernel, kernel)
            state[f'{name}.conv.mask_conv.weight'] = (*first, kernel, kernel)
            if name == 'd11':
                state['d11.conv.input_conv.bias'] = (n_out,)
                continue
            for key in ('weight', 'bias', 'running_mean', 'running_var'):
                state[f'{name}.bn.{key}'] = (n_out,)
    state = {
        key: torch.tensor(1.0 if 'mask_conv' in key else 1.0 + number).expand(shape)
        for number, (key, shape) in enumerate(state.items())
    }
    if batches_tracked:
        for key in [key for key in state if key.endswith('running_var')]:
            state[key.replace('running_var', 'num_batches_tracked')] = torch.tensor(7)
    return state


def random_discs(n_images, shape, *, n_discs=4, seed=0):
    """(B, 1, H, W) masks: 1, but 0 in discs of 4 to 13 pixels at random places."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*map(torch.arange, shape), indexing='ij')
    masks = torch.ones(n_images, 1, *shape)
    for mask in masks:
        for cy, cx, r in torch.rand(n_discs, 3, generator=generator).tolist():
            disc = (y - cy * shape[0]) ** 2 + (x - cx * shape[1]) ** 2 <= (4 + 9 * r) ** 2
            mask[0][disc] = 0
    return masks
