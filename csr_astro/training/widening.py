"""Weights of a wide network that predicts what a narrower one does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from csr_astro.nn.unet import PartialConvUNet

__all__ = ['widen_network']


# Relative spread of the weights with which the copies of a channel are used.
_SPREAD = 0.5


def widen_network(narrow: PartialConvUNet, wide: PartialConvUNet, *, seed: int = 0) -> None:
    """Set the weights of a network so that it predicts what a narrower one does.

    Each channel is copied, and the next layer uses the copies with weights that sum to the
    original's. They are not equal, so that the copies learn different features (Net2Net; Chen,
    Goodfellow & Shlens 2016).

    Parameters
    ----------
    narrow : `~csr_astro.nn.unet.PartialConvUNet`
        The trained network.
    wide : `~csr_astro.nn.unet.PartialConvUNet`
        A whole number of times as wide, with as many hints; its weights are replaced.
    seed : int, optional
        Decides the differences between the copies.

    Raises
    ------
    ValueError
        If the width is not a whole multiple, or the numbers of hints differ.

    Examples
    --------
    >>> import torch
    >>> from csr_astro.nn.unet import PartialConvUNet
    >>> from csr_astro.training.widening import widen_network
    >>> narrow, wide = (PartialConvUNet(width).eval() for width in (0.0625, 0.125))
    >>> widen_network(narrow, wide)
    >>> image = torch.randn(1, 1, 96, 96)
    >>> with torch.no_grad():
    ...     both = [each(image, torch.ones_like(image)) for each in (narrow, wide)]
    >>> torch.allclose(*both, atol=1e-4)
    True
    """
    factor = round(wide.width / narrow.width)
    channels = [
        [block.conv.out_channels for block in each.encoder] for each in (narrow, wide)
    ]
    if channels[1] != [factor * n for n in channels[0]] or wide.n_hints != narrow.n_hints:
        raise ValueError(
            f'a network of width {wide.width} with {wide.n_hints} hints cannot begin as one of '
            f'width {narrow.width} with {narrow.n_hints}: it must have a whole multiple of the '
            'channels, and as many hints.'
        )
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for part in ('encoder', 'decoder'):
        for number, block in enumerate(getattr(narrow, part)):
            key = f'{part}.{number}.'
            transposed = part == 'decoder'
            weight = block.conv.weight.detach()
            weight = weight.transpose(0, 1) if transposed else weight
            last = transposed and number == len(narrow.decoder) - 1
            n_out = 1 if last else factor
            weight = weight.repeat(n_out, 1, 1, 1)
            if part == 'decoder' or number > 0:
                weight = _spread_inputs(weight, _inputs(narrow, part, number), factor, generator)
            state[key + 'conv.weight'] = weight.transpose(0, 1) if transposed else weight
            if block.conv.bias is not None:
                state[key + 'conv.bias'] = block.conv.bias.detach().repeat(n_out)
            for name, tensor in block.norm.state_dict().items():
                state[f'{key}norm.{name}'] = tensor.repeat(n_out) if tensor.ndim else tensor
    wide.load_state_dict(state)


def _inputs(network, part, number):
    """Numbers of channels of the inputs of a layer."""
    if part == 'encoder':
        return [network.encoder[number - 1].conv.out_channels]
    if number == 0:
        return [network.encoder[-1].conv.out_channels]
    skip = network.encoder[len(network.encoder) - 1 - number]
    return [network.decoder[number - 1].conv.out_channels, skip.conv.out_channels]


def _spread_inputs(weight, channels, factor, generator):
    """Weights for ``factor`` copies of each input channel, (out, factor * in, k, k)."""
    copies = []
    for part in weight.split(channels, dim=1):
        shares = torch.rand((part.shape[0], factor, part.shape[1]), generator=generator) - 0.5
        shares = (1 + 2 * _SPREAD * (shares - shares.mean(dim=1, keepdim=True))) / factor
        copies.append((part[:, None] * shares[..., None, None]).flatten(1, 2))
    return torch.cat(copies, dim=1)
