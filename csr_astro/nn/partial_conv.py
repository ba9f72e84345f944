"""Partial convolution (Liu et al. 2018) and its transpose.

The validity mask of a tensor is the same for all its channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ['PartialConv2d', 'PartialConvTranspose2d']


class _PartialConv(nn.Module):
    """Base class with the weight, the bias and the rescaling of both directions.

    Layers take one or more tensors that are concatenated along the channel axis.
    The mask of a tensor is the same for all its channels, so its window sum is a
    one-channel convolution weighted by the number of channels. This halves the
    arithmetic of the textbook layer, which convolves the mask in every channel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.weight = nn.Parameter(torch.empty(self._weight_shape()))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        # A buffer, so that it follows the module to its device. It is not a weight: networks on the
        # meta device, which have no weights yet, need its numbers too.
        window = torch.ones(1, 1, kernel_size, kernel_size, dtype=torch.float32, device='cpu')
        self.register_buffer('window', window, persistent=False)
        if not self.weight.is_meta:
            nn.init.kaiming_normal_(self.weight, mode=self._fan_mode, nonlinearity='relu')

    def forward(
        self, tensors: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Apply the layer.

        Parameters
        ----------
        tensors : list of `torch.Tensor`, each (B, C_i, H, W)
            Inputs, concatenated along the channel axis; the ``C_i`` sum to
            ``in_channels``.
        masks : list of `torch.Tensor`, each (B, 1, H, W)
            1 where the tensor of the same index is valid, else 0.

        Returns
        -------
        output : `torch.Tensor`, (B, out_channels, H', W')
            ``W·(X⊙M)·Σ1/ΣM + b`` where the window holds a valid pixel, else 0.
        mask : `torch.Tensor`, (B, 1, H', W')
            1 where the window holds a valid pixel, else 0.
        """
        with torch.no_grad(), torch.autocast(masks[0].device.type, enabled=False):
            valid = sum(
                tensor.shape[1] * mask.float() for tensor, mask in zip(tensors, masks, strict=True)
            )
            n_valid = self.convolve(valid, self.window)
            mask = (n_valid > 0).to(n_valid.dtype)
            ratio = self.n_window * mask / n_valid.clamp(min=1)
        tensors = [x * m.to(x.dtype) for x, m in zip(tensors, masks, strict=True)]
        output = self.convolve(
            torch.cat(tensors, dim=1) if len(tensors) > 1 else tensors[0], self.weight
        )
        output *= ratio.to(output.dtype)
        if self.bias is not None:
            output = output + self.bias.to(output.dtype)[:, None, None] * mask.to(output.dtype)
        return output, mask

    def extra_repr(self):
        return (
            f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, '
            f'stride={self.stride}, padding={self.padding}, bias={self.bias is not None}'
        )


class PartialConv2d(_PartialConv):
    """Partial convolution (Liu et al. 2018, Eqs. 1 and 2).

    Parameters
    ----------
    in_channels, out_channels : int
        Number of channels, summed over the concatenated inputs.
    kernel_size, stride, padding : int
        As in `torch.nn.Conv2d`; padding counts as invalid.
    bias : bool, optional
        Whether to add a bias where the output is valid.

    Examples
    --------
    >>> import torch
    >>> from csr_astro.nn.partial_conv import PartialConv2d
    >>> layer = PartialConv2d(1, 4, kernel_size=3, padding=1)
    >>> output, mask = layer([torch.ones(1, 1, 8, 8)], [torch.zeros(1, 1, 8, 8)])
    >>> float(output.detach().abs().max()), float(mask.max())
    (0.0, 0.0)
    """

    _fan_mode = 'fan_in'

    def _weight_shape(self):
        return (self.out_channels, self.in_channels, self.kernel_size, self.kernel_size)

    @property
    def n_window(self) -> int:
        """Number of inputs under the kernel, all channels (``Σ1``)."""
        return self.in_channels * self.kernel_size**2

    def convolve(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Convolve without masks, with the stride and padding of the layer.

        Parameters
        ----------
        x : `torch.Tensor`, (B, C, H, W)
            Input.
        weight, bias : `torch.Tensor`
            As in `torch.nn.functional.conv2d`.

        Returns
        -------
        output : `torch.Tensor`, (B, C', H', W')
        """
        return F.conv2d(x, weight, bias, stride=self.stride, padding=self.padding)


class PartialConvTranspose2d(_PartialConv):
    """Transposed partial convolution (paper, Sect. 3.1).

    Parameters
    ----------
    in_channels, out_channels : int
        Number of channels, summed over the concatenated inputs.
    kernel_size, stride, padding : int
        As in `torch.nn.ConvTranspose2d`.
    bias : bool, optional
        Whether to add a bias where the output is valid.

    Examples
    --------
    >>> import torch
    >>> from csr_astro.nn.partial_conv import PartialConvTranspose2d
    >>> layer = PartialConvTranspose2d(2, 1, kernel_size=4, stride=2, padding=1)
    >>> output, mask = layer([torch.ones(1, 2, 8, 8)], [torch.ones(1, 1, 8, 8)])
    >>> tuple(output.shape), tuple(mask.shape)
    ((1, 1, 16, 16), (1, 1, 16, 16))
    """

    # The weight of a transposed convolution is (in, out, k, k): torch's fan_out is the fan-in
    # here, and each output pixel sees 1 / stride² of it.
    _fan_mode = 'fan_out'

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        bias: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        with torch.no_grad():
            self.weight.mul_(stride)

    def _weight_shape(self):
        return (self.in_channels, self.out_channels, self.kernel_size, self.kernel_size)

    @property
    def n_window(self) -> float:
        """Number of inputs that reach one output pixel, all channels (``Σ1``)."""
        return self.in_channels * self.kernel_size**2 / self.stride**2

    def seen_by(self, span: tuple[int, int], size: int) -> tuple[int, int]:
        """Return the rows of the input that influence some rows of the output.

        Parameters
        ----------
        span : (int, int)
            First row of the output, and the one after the last; or columns.
        size : int
            Number of rows of the input.

        Returns
        -------
        span : (int, int)
            First row of the input, and the one after the last.
        """
        # Row i of the input adds to rows stride·i − padding + (0 ... kernel_size − 1).
        first, last = span[0] + self.padding, span[1] - 1 + self.padding
        start = -((self.kernel_size - 1 - first) // self.stride)
        return max(start, 0), min(last // self.stride + 1, size)

    def convolve(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Convolve without masks, with the stride and padding of the layer.

        Parameters
        ----------
        x : `torch.Tensor`, (B, C, H, W)
            Input.
        weight, bias : `torch.Tensor`
            As in `torch.nn.functional.conv_transpose2d`.

        Returns
        -------
        output : `torch.Tensor`, (B, C', H', W')
        """
        return F.conv_transpose2d(x, weight, bias, stride=self.stride, padding=self.padding)
