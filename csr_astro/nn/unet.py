"""Partial-convolution U-Net of the paper (Table 4), at any width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from csr_astro.nn.partial_conv import PartialConv2d, PartialConvTranspose2d

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ['DECODER', 'ENCODER', 'PartialConvUNet', 'central_pixels']


# (in channels, out channels, kernel, stride, padding), paper Table 4, at width 1.
ENCODER = (
    (1, 32, 3, 1, 1),
    (32, 64, 4, 2, 1),
    (64, 64, 3, 1, 1),
    (64, 128, 4, 2, 1),
    (128, 128, 3, 1, 1),
    (128, 256, 4, 2, 1),
    (256, 256, 3, 1, 1),
    (256, 512, 4, 2, 1),
    (512, 512, 3, 1, 1),
    (512, 512, 4, 2, 1),
    (512, 512, 3, 1, 0),
)
DECODER = (
    (512, 512, 3, 1, 0),
    (1024, 512, 4, 2, 1),
    (1024, 512, 3, 1, 1),
    (1024, 256, 4, 2, 1),
    (512, 256, 3, 1, 1),
    (512, 128, 4, 2, 1),
    (256, 128, 3, 1, 1),
    (256, 64, 4, 2, 1),
    (128, 64, 3, 1, 1),
    (128, 32, 4, 2, 1),
    (64, 1, 3, 1, 1),
)

# Sizes of images: five layers of stride 2, and a 3 x 3 layer without padding at the bottom.
_SIZE_STEP = 32
_SIZE_MIN = 96


def _scaled(channels, width):
    return channels if channels == 1 else max(1, round(channels * width))


class _Block(nn.Module):
    """Partial convolution, with BatchNorm and ReLU unless it is the last layer."""

    def __init__(self, conv, *, last=False):
        super().__init__()
        self.conv = conv
        self.norm = nn.Identity() if last else nn.BatchNorm2d(conv.out_channels)
        self.activation = nn.Identity() if last else nn.ReLU(inplace=True)
        # Whether the layer computes in single precision also where others do not.
        self.single_precision = False

    def forward(self, tensors, masks):
        if self.single_precision:
            device = tensors[0].device.type
            tensors = [tensor.float() for tensor in tensors]
            with torch.autocast(device, enabled=False):
                return self._forward(tensors, masks)
        return self._forward(tensors, masks)

    def _forward(self, tensors, masks):
        x, mask = self.conv(tensors, masks)
        return self.activation(self.norm(x)), mask


class PartialConvUNet(nn.Module):
    """Partial-convolution U-Net (paper, Sect. 3.2, Table 4).

    Parameters
    ----------
    width : float, optional
        Factor on every number of channels. 1 is the paper's network, with
        35.07 million trainable parameters; 0.5 has 8.8 million.
    n_hints : int, optional
        Number of additional input images, each with its own validity mask.

    Examples
    --------
    >>> import torch
    >>> from csr_astro.nn.unet import PartialConvUNet
    >>> network = PartialConvUNet(width=0.125).eval()
    >>> image, mask = torch.randn(2, 1, 96, 96), torch.ones(2, 1, 96, 96)
    >>> with torch.no_grad():
    ...     tuple(network(image, mask).shape)
    (2, 1, 96, 96)
    """

    def __init__(self, width: float = 1.0, *, n_hints: int = 0) -> None:
        super().__init__()
        if not 0 < width <= 4:
            raise ValueError(f'width must be above 0 and at most 4, got {width}.')
        self.width = float(width)
        self.n_hints = n_hints
        self.encoder = nn.ModuleList(
            _Block(PartialConv2d(_scaled(i, width), _scaled(o, width), k, s, p))
            for i, o, k, s, p in ENCODER
        )
        if n_hints:
            _, out, *shape = ENCODER[0]
            self.encoder[0] = _Block(PartialConv2d(1 + n_hints, _scaled(out, width), *shape))
        widths = [block.conv.out_channels for block in self.encoder]
        self.decoder = nn.ModuleList()
        channels = widths.pop()
        for number, (_, out, kernel, stride, padding) in enumerate(DECODER):
            last = number == len(DECODER) - 1
            conv = PartialConvTranspose2d(
                channels, _scaled(out, width), kernel, stride, padding, bias=last
            )
            self.decoder.append(_Block(conv, last=last))
            channels = conv.out_channels + (widths.pop() if widths else 0)

    def forward(
        self,
        image: torch.Tensor,
        mask: torch.Tensor,
        hints: Sequence[torch.Tensor] = (),
        hint_masks: Sequence[torch.Tensor] = (),
        *,
        reach: int | None = None,
    ) -> torch.Tensor:
        """Predict the image, including its invalid pixels.

        Parameters
        ----------
        image : `torch.Tensor`, (B, 1, H, W)
            Normalised image. Values of invalid pixels have no influence, but must be
            finite. H and W are multiples of 32 from 96 up.
        mask : `torch.Tensor`, (B, 1, H, W)
            1 for valid background, 0 for pixels to predict.
        hints, hint_masks : sequence of ``n_hints`` `torch.Tensor`, (B, 1, H, W)
            Additional images, and 1 where they are valid.
        reach : int, optional
            Largest distance of a predicted pixel from the central one, (H // 2, W // 2),
            along each axis; by default the whole image. Decoder pixels without influence
            on the prediction are not computed, so BatchNorm must be in evaluation mode.

        Returns
        -------
        prediction : `torch.Tensor`, (B, 1, H, W) or (B, 1, 2 reach + 1, 2 reach + 1)
        """
        if any(size < _SIZE_MIN or size % _SIZE_STEP for size in image.shape[-2:]):
            raise ValueError(
                f'image height and width must be multiples of {_SIZE_STEP} '
                f'from {_SIZE_MIN} up, got {tuple(image.shape[-2:])}.'
            )
        if reach is not None and not 0 <= reach < min(image.shape[-2:]) // 2:
            raise ValueError(
                f'reach must be from 0 to less than half the image of {tuple(image.shape[-2:])}, '
                f'got {reach}.'
            )
        if len(hints) != self.n_hints or len(hint_masks) != self.n_hints:
            raise ValueError(f'this network takes {self.n_hints} hints, got {len(hints)}.')
        skips = []
        tensors, masks = [image, *hints], [mask, *hint_masks]
        for block in self.encoder:
            x, mask = block(tensors, masks)
            skips.append((x, mask))
            tensors, masks = [x], [mask]
        spans = self._decoder_spans(image.shape[-2:], [each.shape[-2:] for each, _ in skips], reach)
        skips.pop()
        for number, block in enumerate(self.decoder):
            if number:
                skip, skip_mask = (_crop(each, spans[number]) for each in skips.pop())
                tensors, masks = [*tensors, skip], [*masks, skip_mask]
            found = block(tensors, masks)
            # The first row of the layer's output comes from the first row of its input.
            origin = [block.conv.stride * start for start, _ in spans[number]]
            tensors, masks = ([_crop(each, spans[number + 1], origin)] for each in found)
        return tensors[0]

    def _decoder_spans(self, shape, sizes, reach):
        """Return the rows and columns of the input of each decoder layer, and of the output.

        Parameters
        ----------
        shape : (int, int)
            Shape of the image.
        sizes : list of (int, int)
            Shapes of the outputs of the encoder layers.
        reach : int or None
            As in `forward`.

        Returns
        -------
        spans : list of two (start, stop)
        """
        spans = [_central_spans(shape, reach)]
        for block, size in zip(reversed(self.decoder), sizes, strict=True):
            spans.insert(0, list(map(block.conv.seen_by, spans[0], size)))
        return spans

    def use_single_precision(self) -> None:
        """Let the layers next to the images compute in single precision in any case.

        An image that is normalised by its minimum and maximum varies by less than bfloat16
        resolves where it holds a bright source.
        """
        for block in (self.encoder[0], self.decoder[-1]):
            block.single_precision = True

    @property
    def n_parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def _central_spans(shape, reach):
    """Return the rows and columns within reach of the central pixel, or all of them."""
    return [(0, n) if reach is None else (n // 2 - reach, n // 2 + reach + 1) for n in shape]


def central_pixels(tensor: torch.Tensor, reach: int | None) -> torch.Tensor:
    """Crop a tensor to the pixels that `PartialConvUNet.forward` predicts with ``reach``.

    Parameters
    ----------
    tensor : `torch.Tensor`, (..., H, W)
        Tensor with the height and width of an image.
    reach : int or None
        Largest distance from the central pixel along each axis; None for all pixels.

    Returns
    -------
    tensor : `torch.Tensor`, (..., 2 reach + 1, 2 reach + 1)

    Examples
    --------
    >>> import torch
    >>> from csr_astro.nn.unet import central_pixels
    >>> central_pixels(torch.arange(36.0).reshape(6, 6), 1)[1]
    tensor([20., 21., 22.])
    """
    return _crop(tensor, _central_spans(tensor.shape[-2:], reach))


def _crop(tensor, spans, origin=(0, 0)):
    """Crop a tensor whose first row and column are those of ``origin``."""
    rows, columns = (
        slice(start - first, stop - first)
        for (start, stop), first in zip(spans, origin, strict=True)
    )
    return tensor[..., rows, columns]


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the memory layout in which convolutions run fastest.

    Parameters
    ----------
    device : `torch.device`
        Device of the convolutions.
    """
    return torch.channels_last if device.type in ('cpu', 'cuda') else torch.contiguous_format
