"""Partial-convolution U-Net for fast predictions, with BatchNorm and rescaling in the weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

from csr_astro.nn.partial_conv import PartialConvTranspose2d
from csr_astro.nn.unet import PartialConvUNet

__all__ = ['fold']


def fold(network: PartialConvUNet, dtype: torch.dtype = torch.float32) -> PartialConvUNet:
    """Merge BatchNorm and the usual rescaling of each layer into its weights.

    Most pixels of a layer see the same number of valid inputs. Their rescaling and BatchNorm
    become part of the weights. Pixels at borders and holes are corrected one by one. The number
    of these depends on the input, so this form suits processors, and no training.

    Parameters
    ----------
    network : `~csr_astro.nn.unet.PartialConvUNet`
        Network in evaluation mode. It stays as it is.
    dtype : `torch.dtype`, optional
        Precision of the convolutions.

    Returns
    -------
    network : `~csr_astro.nn.unet.PartialConvUNet`
        Network with the same predictions but for rounding.

    Examples
    --------
    >>> import torch
    >>> from csr_astro.nn.folded import fold
    >>> from csr_astro.nn.unet import PartialConvUNet
    >>> _ = torch.manual_seed(0)
    >>> network = PartialConvUNet(width=0.125).eval()
    >>> image, mask = torch.randn(2, 1, 96, 96), (torch.rand(2, 1, 96, 96) > 0.1).float()
    >>> with torch.inference_mode():
    ...     print(torch.allclose(fold(network)(image, mask), network(image, mask), atol=1e-4))
    True
    """
    with torch.device('meta'):
        folded = PartialConvUNet(network.width, n_hints=network.n_hints)
    folded.encoder = nn.ModuleList(
        _FoldedBlock(block, dtype, first=not number) for number, block in enumerate(network.encoder)
    )
    folded.decoder = nn.ModuleList(_FoldedBlock(block, dtype) for block in network.decoder)
    # Each pixel of the image has one value, from the map or a hint; and the bottom of the smallest
    # window is a single pixel.
    folded.encoder[0].expect(network.encoder[0].conv.kernel_size ** 2)
    folded.decoder[0].expect(network.decoder[0].conv.in_channels)
    return folded.eval()


class _FoldedBlock(nn.Module):
    """Partial convolution and ReLU. Tensors that it gets and returns are 0 where invalid.

    Masks are (B, 1, H, W), or (1, 1, H, W) if all pixels of all images are valid.
    """

    def __init__(self, block, dtype, *, first=False):
        super().__init__()
        self.first = first
        conv = copy.deepcopy(block.conv)
        weight = conv.weight.detach().double()
        shift = torch.zeros(conv.out_channels, dtype=torch.float64, device=weight.device)
        if conv.bias is not None:
            shift = conv.bias.detach().double()
        self.has_relu = isinstance(block.norm, nn.BatchNorm2d)
        if self.has_relu:
            norm = block.norm
            factor = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
            shift = norm.bias.double() + (shift - norm.running_mean.double()) * factor
            channel = (1, -1) if isinstance(conv, PartialConvTranspose2d) else (-1, 1)
            weight = weight * factor.reshape(*channel, 1, 1)
        self.usual = conv.n_window
        weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        conv.weight = nn.Parameter(weight, requires_grad=False)
        conv.bias = nn.Parameter(shift.to(dtype), requires_grad=False)
        self.conv = conv

    def expect(self, usual):
        """Set the number of valid inputs of most pixels."""
        self.conv.weight.mul_(self.usual / usual)
        self.usual = usual

    def forward(self, tensors, masks):
        conv = self.conv
        with torch.autocast(masks[0].device.type, enabled=False):
            if self.first:
                tensors = [t * mask for t, mask in zip(tensors, masks, strict=True)]
            tensors = [t.to(conv.weight.dtype) for t in tensors]
            x = torch.cat(tensors, dim=1) if len(tensors) > 1 else tensors[0]
            valid = sum(t.shape[1] * m for t, m in zip(tensors, masks, strict=True))
            n_valid = conv.convolve(valid, conv.window)
            x = x.contiguous(memory_format=torch.channels_last)
            output = conv.convolve(x, conv.weight, conv.bias)
            output = output.contiguous(memory_format=torch.channels_last)
            self._correct(output, n_valid)
            if self.has_relu:
                output.relu_()
        mask = (n_valid > 0).to(n_valid.dtype)
        return output, mask[:1] if mask.all() else mask

    def _correct(self, output, n_valid):
        """Rescale the pixels that see another number of valid inputs, in place."""
        number = n_valid.view(-1)
        (unusual,) = (number != self.usual).nonzero(as_tuple=True)
        if not len(unusual):
            return
        # Pixels are rows of a matrix in this layout of the memory.
        rows = output.permute(0, 2, 3, 1).view(-1, output.shape[1])
        count = len(output) // len(n_valid)
        number = number[unusual].repeat(count)[:, None]
        if count > 1:
            first = len(n_valid.view(-1)) * torch.arange(count, device=unusual.device)
            unusual = (first[:, None] + unusual).view(-1)
        valid = (number > 0).float()
        ratio = self.usual * valid / number.clamp(min=1)
        offset = (valid - ratio) * self.conv.bias.float()
        there = rows.index_select(0, unusual).float()
        rows.index_copy_(0, unusual, torch.addcmul(offset, there, ratio).to(rows.dtype))
