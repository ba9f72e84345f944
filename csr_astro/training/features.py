"""Feature maps of the texture of an image, for `~csr_astro.training.losses.style_loss`.

They are those of a fixed bank of oriented filters, or of VGG-16 with a file of its weights.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from csr_astro.nn.weights import read_state_dict

if TYPE_CHECKING:
    from csr_astro.typing import PathLike

__all__ = ['VGG16Features', 'gram_matrix', 'oriented_features']


# The filters at the finest scale, in pixels. A wave of 4 pixels under an envelope of
# 1.5 is 1.6 octaves and 55 degrees wide (full width at half maximum): three octaves
# and four orientations leave no gap.
_WAVELENGTH = 4.0
_SIGMA = 1.5
_RADIUS = 4

# Torchvision's list of layers up to the third pooling: channels out, or pooling.
_VGG16 = (64, 64, 'pool', 128, 128, 'pool', 256, 256, 256, 'pool')


def gram_matrix(features: torch.Tensor) -> torch.Tensor:
    """Correlations between feature maps, ``G_n = ψ_nᵀψ_n / (C_n H_n W_n)``.

    They measure how strong features are and which occur together, independent of position
    (Gatys et al. 2015; paper, Sect. 3.3.2).

    Parameters
    ----------
    features : `torch.Tensor`, (B, C, H, W)
        One set of feature maps, ``ψ_n``.

    Returns
    -------
    gram : `torch.Tensor`, (B, C, C)

    Examples
    --------
    >>> import torch
    >>> from csr_astro.training.features import gram_matrix
    >>> gram_matrix(torch.tensor([[[[3.0]], [[4.0]]]]))
    tensor([[[4.5000, 6.0000],
             [6.0000, 8.0000]]])
    """
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


@lru_cache
def _oriented_kernels(n_orientations):
    """Even then odd Morlet wavelets, (2 n, 1, K, K), by angle of the wave from +x to +y."""
    y, x = np.mgrid[-_RADIUS : _RADIUS + 1, -_RADIUS : _RADIUS + 1]
    angle = np.pi * np.arange(n_orientations)[:, None, None] / n_orientations
    phase = 2 * np.pi / _WAVELENGTH * (x * np.cos(angle) + y * np.sin(angle))
    envelope = np.exp(-(x**2 + y**2) / (2 * _SIGMA**2))
    # This constant makes the even filters insensitive to the level of the map.
    mean = (envelope * np.cos(phase)).sum(axis=(1, 2), keepdims=True) / envelope.sum()
    kernels = np.concatenate([envelope * (np.cos(phase) - mean), envelope * np.sin(phase)])
    return (kernels / np.sqrt((kernels**2).sum(axis=(1, 2), keepdims=True)))[:, None]


def _blocked(kernels):
    """Kernels of 9 x 9 pixels, (K, 1, 9, 9), for images whose 4 x 4 blocks are channels.

    Each of the 16 pixels of a block has its own copy of a kernel, shifted in 3 x 3 blocks. One
    channel in and few out are slow: the gradient takes a seventh of the time in blocks.
    """
    n = len(kernels)
    blocked = np.zeros((n, _RADIUS, _RADIUS, _RADIUS**2, 3, 3))
    for y, x in np.ndindex(_RADIUS, _RADIUS):
        shifted = np.zeros((n, 3 * _RADIUS, 3 * _RADIUS))
        shifted[:, y : y + 2 * _RADIUS + 1, x : x + 2 * _RADIUS + 1] = kernels[:, 0]
        split = shifted.reshape(n, 3, _RADIUS, 3, _RADIUS).transpose(0, 2, 4, 1, 3)
        blocked[:, y, x] = split.reshape(n, _RADIUS**2, 3, 3)
    return blocked.reshape(n * _RADIUS**2, _RADIUS**2, 3, 3)


@lru_cache
def _blocked_bank(n_orientations):
    return _blocked(_oriented_kernels(n_orientations))


def _responses(image, bank):
    """Convolve with kernels from `_blocked`, the image mirrored at its edges."""
    height, width = image.shape[-2:]
    padded = F.pad(image, [_RADIUS] * 4, mode='reflect')
    # Whole blocks; what is added has no influence on the pixels that are kept.
    padded = F.pad(padded, [0, -width % _RADIUS, 0, -height % _RADIUS])
    weight = torch.as_tensor(bank, dtype=image.dtype, device=image.device)
    maps = F.conv2d(F.pixel_unshuffle(padded, _RADIUS), weight)
    return F.pixel_shuffle(maps, _RADIUS)[..., :height, :width]


def _halve(image):
    """Smooth with a binomial filter and keep every second pixel."""
    taps = np.array([1, 4, 6, 4, 1]) / 16
    # Not cached: tensors made in inference mode cannot be used in training.
    weight = torch.as_tensor(np.outer(taps, taps), dtype=image.dtype, device=image.device)
    padded = F.pad(image, [2] * 4, mode='reflect')
    return F.conv2d(padded, weight[None, None], stride=2)


def oriented_features(
    image: torch.Tensor, *, n_scales: int = 3, n_orientations: int = 4
) -> list[torch.Tensor]:
    """Responses of a fixed bank of oriented band-pass filters.

    Morlet wavelets, ``ψ(u) = (exp(i k·u) − c) exp(−|u|² / 2σ²)`` with ``|k| = 2π / 4``
    per pixel and σ = 1.5 pixels, at ``n_orientations`` angles. The real parts are
    even, the imaginary parts odd. The constant c makes each sum to zero, so that a
    constant has no response, and each is scaled to a sum of squares of 1: the
    responses to white noise have the noise's variance. From scale to scale the image
    is smoothed with a binomial filter and every second pixel kept, as in a steerable
    pyramid: wavelengths are 4, 8, 16 ... pixels.

    Dust and instrument noise have such structures at every scale and angle, and unlike a network
    trained on photographs the bank needs no weights.

    Parameters
    ----------
    image : `torch.Tensor`, (B, 1, H, W)
        Any floating-point type, on any device.
    n_scales : int, optional
        Number of octaves.
    n_orientations : int, optional
        Number of angles, evenly spaced over half a turn.

    Returns
    -------
    features : list of `torch.Tensor`, (B, 2 n_orientations, H / 2ⁿ, W / 2ⁿ)
        One for each scale n = 0, 1 ...: the even responses by angle of the wave
        vector, from +x towards +y, then the odd ones. Odd sizes are rounded up.

    Examples
    --------
    >>> import torch
    >>> from csr_astro.training.features import oriented_features
    >>> [tuple(maps.shape) for maps in oriented_features(torch.zeros(2, 1, 96, 96))]
    [(2, 8, 96, 96), (2, 8, 48, 48), (2, 8, 24, 24)]
    """
    if n_scales < 1 or n_orientations < 1:
        raise ValueError(
            'n_scales and n_orientations must be at least 1, '
            f'got {n_scales} and {n_orientations}.'
        )
    _check_image(image, smallest=_RADIUS * 2 ** (n_scales - 1) + 1)
    bank = _blocked_bank(n_orientations)
    features = [_responses(image, bank)]
    for _ in range(n_scales - 1):
        image = _halve(image)
        features.append(_responses(image, bank))
    return features


class VGG16Features(nn.Module):
    """Feature maps of VGG-16 after each of its first three pooling layers.

    The paper's features (Sect. 3.3.2; Simonyan & Zisserman 2015). The image is repeated to three
    channels, without the normalisation for photographs. The weights are frozen.

    Parameters
    ----------
    path : path-like
        Weights with torchvision's names, ``features.0.weight`` and so on: a
        safetensors file, or a PyTorch state dict, which is loaded with
        ``weights_only=True``, so that it cannot execute code. Further tensors,
        such as those of the deeper layers, are ignored.

    Raises
    ------
    ValueError
        If the file is missing or cannot be read, or a tensor is missing, has another shape or
        holds numbers that are not finite.

    Examples
    --------
    >>> from csr_astro.training.features import VGG16Features
    >>> features = VGG16Features('vgg16.safetensors')  # doctest: +SKIP
    >>> [tuple(maps.shape) for maps in features(torch.zeros(2, 1, 96, 96))]  # doctest: +SKIP
    [(2, 64, 48, 48), (2, 128, 24, 24), (2, 256, 12, 12)]
    """

    def __init__(self, path: PathLike) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels: Any = 3
        # Without random weights, which would be replaced.
        with torch.device('meta'):
            for layer in _VGG16:
                if layer == 'pool':
                    layers.append(nn.MaxPool2d(2))
                else:
                    layers += [nn.Conv2d(channels, layer, 3, padding=1), nn.ReLU()]
                    channels = layer
        # Torchvision's name, and with it the names of the tensors.
        self.features = nn.Sequential(*layers)
        path = Path(path)
        shapes = {key: tuple(value.shape) for key, value in self.state_dict().items()}
        state = _read_tensors(path)
        if missing := sorted(shapes.keys() - state.keys()):
            raise ValueError(f'{str(path)!r} lacks tensors of VGG-16: {", ".join(missing[:5])}.')
        state = {key: state[key].float() for key in shapes}
        for key, shape in shapes.items():
            found = tuple(state[key].shape)
            if found != shape:
                raise ValueError(f'{str(path)!r}: {key} has shape {found}, expected {shape}.')
        if not all(torch.isfinite(tensor).all() for tensor in state.values()):
            raise ValueError(f'{str(path)!r} holds numbers that are not finite.')
        self.load_state_dict(state, assign=True)
        self.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of an image.

        Parameters
        ----------
        image : `torch.Tensor`, (B, 1, H, W)
            At least 8 pixels wide, of the weights' type and on their device.

        Returns
        -------
        features : list of `torch.Tensor`, (B, C, H / 2ⁿ, W / 2ⁿ)
            After the poolings n = 1, 2, 3, with C = 64, 128, 256.
        """
        _check_image(image, smallest=8)
        x = image.expand(-1, 3, -1, -1)
        features = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                features.append(x)
        return features


def _check_image(image, smallest):
    if image.ndim != 4 or image.shape[1] != 1 or min(image.shape[-2:]) < smallest:
        raise ValueError(
            f'image must have shape (B, 1, H, W) with H and W at least {smallest}, '
            f'got {tuple(image.shape)}.'
        )


def _read_tensors(path):
    """Tensors by name, from a safetensors file or a PyTorch state dict."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ValueError(f'no such file of VGG-16 weights: {str(path)!r}.')
    if path.suffix == '.safetensors':
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(
                f'{str(path)!r} is not a readable safetensors file ({error}).'
            ) from None
    return read_state_dict(path)
