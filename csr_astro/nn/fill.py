"""Smooth fill of invalid pixels."""

import torch
from torch.nn import functional as F

__all__ = ['push_pull_fill']


def push_pull_fill(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Fill invalid pixels by masked averages down a pyramid and interpolation up.

    Parameters
    ----------
    image : `torch.Tensor`, (B, 1, H, W)
        Finite values; invalid pixels have no influence.
    mask : `torch.Tensor`, (B, 1, H, W)
        1 where the image is valid, else 0.

    Returns
    -------
    filled : `torch.Tensor`, (B, 1, H, W)
        The image with its invalid pixels replaced; 0 for an image without valid
        pixels.

    Examples
    --------
    >>> import torch
    >>> from csr_astro.nn.fill import push_pull_fill
    >>> mask = torch.ones(1, 1, 8, 8)
    >>> mask[..., 3:5, 3:5] = 0
    >>> push_pull_fill(7.0 * mask, mask)[0, 0, 3, 3]
    tensor(7.)
    """
    height, width = image.shape[-2:]
    if height % 2 or width % 2:
        total = mask.sum(dim=(-2, -1), keepdim=True)
        coarse = (image * mask).sum(dim=(-2, -1), keepdim=True) / total.clamp(min=1)
        coarse = coarse.expand_as(image)
    else:
        weight = F.avg_pool2d(mask, 2)
        coarse = F.avg_pool2d(image * mask, 2) / weight.clamp(min=0.25)
        coarse = push_pull_fill(coarse, (weight > 0).to(mask.dtype))
        coarse = F.interpolate(coarse, scale_factor=2, mode='bilinear', align_corners=False)
    return torch.where(mask > 0, image, coarse)
