"""Which network predicts the background behind a source?

The partial-convolution U-Net of the paper's Table 4, at any width.
"""

import torch
from torch import nn

from csr_astro.nn.partial_conv import PartialConv2d, PartialConvTranspose2d

__all__ = ['DECODER', 'ENCODER', 'PartialConvUNet']

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

# Five strided layers, and a 3 x 3 layer without padding at the bottom.
_SIZE_STEP = 32
_SIZE_MIN = 96


def _scaled(channels, width):
    return channels if channels == 1 else max(1, round(channels * width))


class _Block(nn.Module):
    """Partial convolution, then BatchNorm and ReLU unless it is the last layer."""

    def __init__(self, conv, *, last=False):
        super().__init__()
        self.conv = conv
        self.norm = nn.Identity() if last else nn.BatchNorm2d(conv.out_channels)
        self.activation = nn.Identity() if last else nn.ReLU(inplace=True)

    def forward(self, tensors, masks):
        x, mask = self.conv(tensors, masks)
        return self.activation(self.norm(x)), mask


class PartialConvUNet(nn.Module):
    """The paper's network (Sect. 3.2, Table 4).

    Parameters
    ----------
    width : float, optional
        Factor on every number of channels. 1 is the paper's network, with
        35.07 million trainable parameters; 0.5 has 8.8 million.
    n_hints : int, optional
        Number of images besides that the network is shown, each with a
        validity mask of its own.

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

    def __init__(self, width=1.0, *, n_hints=0):
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

    def forward(self, image, mask, hints=(), hint_masks=()):
        """Predict the image, invalid pixels included.

        Parameters
        ----------
        image : `torch.Tensor`, (B, 1, H, W)
            Normalised image; what stands in its invalid pixels has no influence,
            as long as it is finite. H and W are multiples of 32 from 96 up.
        mask : `torch.Tensor`, (B, 1, H, W)
            1 where the image is valid background, 0 where it is to be predicted.
        hints, hint_masks : sequence of ``n_hints`` `torch.Tensor`, (B, 1, H, W)
            Images besides, and 1 where they are valid.

        Returns
        -------
        prediction : `torch.Tensor`, (B, 1, H, W)
        """
        if any(size < _SIZE_MIN or size % _SIZE_STEP for size in image.shape[-2:]):
            raise ValueError(
                f'image height and width must be multiples of {_SIZE_STEP} '
                f'from {_SIZE_MIN} up, got {tuple(image.shape[-2:])}.'
            )
        if len(hints) != self.n_hints or len(hint_masks) != self.n_hints:
            raise ValueError(f'this network takes {self.n_hints} hints, got {len(hints)}.')
        skips = []
        tensors, masks = [image, *hints], [mask, *hint_masks]
        for block in self.encoder:
            x, mask = block(tensors, masks)
            skips.append((x, mask))
            tensors, masks = [x], [mask]
        skips.pop()
        x, mask = self.decoder[0]([x], [mask])
        for block in self.decoder[1:]:
            skip, skip_mask = skips.pop()
            x, mask = block([x, skip], [mask, skip_mask])
        return x

    @property
    def n_parameters(self):
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def memory_format(device):
    """The memory layout in which convolutions run fastest on ``device``."""
    return torch.channels_last if device.type in ('cpu', 'cuda') else torch.contiguous_format
