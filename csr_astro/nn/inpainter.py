"""Inpainting of cutouts: normalisation, smooth fill and network in one module.

The module takes and returns cutouts in the unit of the map. Training and inference
both use it, so that they cannot differ.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from csr_astro.kriging import kriging_errors, kriging_fills, spline_fills
from csr_astro.nn.fill import push_pull_fill
from csr_astro.nn.folded import fold
from csr_astro.nn.unet import central_pixels, memory_format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csr_astro.kriging import Kriging
    from csr_astro.nn.unet import PartialConvUNet

__all__ = ['FILLS', 'NORMALIZATIONS', 'Inpainter', 'local_normalization', 'minmax_normalization']


# Fills to which the network's output is added, and the number of hints that they need.
FILLS = {'none': 0, 'push-pull': 0, 'kriging': 2, 'kriging+spline': 4}

# Normalised pixels are clipped at this many scales, so that the bright core of an unmasked
# neighbour does not dominate.
_CLIP = 30.0
# Range in scales of masked pixels whose logarithm the network is shown, so that it can expect wings
# of bright sources. It must not see fainter pixels, which may be background.
_BRIGHT, _BRIGHTEST = 10.0, 1e6
# Peaks in scatters at which the share of the network begins and at which it is 1, if it is asked
# for wings only: the kriging takes fainter wings off, those of Gaussians without a bias.
_ASKED = 100.0, 400.0
# Smallest error of the kriging, in scatters of the window.
_LEAST_ERROR = 1e-4
# Added to the mask radius for the width of the local normalisation, in pixels.
_LOCAL_MARGIN = 10.0


def _radial_weight(image, radius):
    height, width = image.shape[-2:]
    y = torch.arange(height, dtype=image.dtype, device=image.device) - height // 2
    x = torch.arange(width, dtype=image.dtype, device=image.device) - width // 2
    distance2 = y[:, None] ** 2 + x[None, :] ** 2
    sigma = radius.to(image.dtype).reshape(-1, 1, 1, 1) + _LOCAL_MARGIN
    return torch.exp(-0.5 * distance2 / sigma**2)


def local_normalization(
    image: torch.Tensor, valid: torch.Tensor, finite: torch.Tensor, radius: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the weighted mean and standard deviation of the valid pixels.

    The weight is a Gaussian about the central pixel with a standard deviation of
    ``radius`` + 10 pixels. Pixels under the mask have no influence.

    Parameters
    ----------
    image, valid, finite : `torch.Tensor`, (B, 1, H, W)
        Finite numbers; 1 for valid background; 1 for measured pixels, sources
        included.
    radius : `torch.Tensor`, (B,)
        Radius of the central disc in pixels.

    Returns
    -------
    location, scale : `torch.Tensor`, (B, 1, 1, 1)

    Examples
    --------
    >>> import torch
    >>> from csr_astro.nn.inpainter import local_normalization
    >>> image, ones = torch.full((1, 1, 32, 32), 3.0), torch.ones(1, 1, 32, 32)
    >>> location, scale = local_normalization(image, ones, ones, torch.tensor([5.0]))
    >>> location.item()
    3.0
    """
    del finite
    weight = valid * _radial_weight(image, radius)
    total = weight.sum(dim=(-2, -1), keepdim=True).clamp(min=torch.finfo(image.dtype).tiny)
    # Relative to a valid pixel, so that the scatter of a constant image is exactly 0.
    flat_image, flat_valid = image.flatten(-2), valid.flatten(-2)
    first = flat_image.gather(-1, flat_valid.argmax(dim=-1, keepdim=True))[..., None]
    difference = (image - first) * valid
    offset = (weight * difference).sum(dim=(-2, -1), keepdim=True) / total
    location = first + offset
    residual = difference - offset * valid
    # Scaled by the largest residual, so that squares neither overflow nor underflow.
    unit = residual.abs().amax(dim=(-2, -1), keepdim=True)
    unit = torch.where(unit > 0, unit, torch.ones_like(unit))
    variance = (weight * (residual / unit) ** 2).sum(dim=(-2, -1), keepdim=True) / total
    return location, variance.sqrt() * unit


def minmax_normalization(
    image: torch.Tensor, valid: torch.Tensor, finite: torch.Tensor, radius: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the middle and half range of all measured pixels, sources included.

    This is the published normalisation to [−1, 1] (paper, Sect. 2.4.2).

    Parameters
    ----------
    image, valid, finite, radius
        As in `local_normalization`.

    Returns
    -------
    location, scale : `torch.Tensor`, (B, 1, 1, 1)

    Examples
    --------
    >>> import torch
    >>> from csr_astro.nn.inpainter import minmax_normalization
    >>> image, ones = torch.linspace(0, 4, 64).reshape(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    >>> location, scale = minmax_normalization(image, ones, ones, torch.tensor([2.0]))
    >>> location.item(), scale.item()
    (2.0, 2.0)
    """
    del valid, radius
    infinity = torch.full_like(image, torch.inf)
    low = torch.where(finite > 0, image, infinity).amin(dim=(-2, -1), keepdim=True)
    high = torch.where(finite > 0, image, -infinity).amax(dim=(-2, -1), keepdim=True)
    location, scale = low / 2 + high / 2, high / 2 - low / 2
    measured = torch.isfinite(location)
    zero = torch.zeros_like(location)
    return torch.where(measured, location, zero), torch.where(measured, scale, zero)


NORMALIZATIONS = {'local': local_normalization, 'minmax': minmax_normalization}


def _tensors(stacks, device):
    """Stacks of images, (B, H, W), as tensors, (B, 1, H, W)."""
    return (torch.from_numpy(stack)[:, None].float().to(device) for stack in stacks)


def expected_error(hints: Sequence[torch.Tensor]) -> torch.Tensor:
    """Standard error of the kriging, (B,), from the hints of ``fill='kriging+spline'``.

    Parameters
    ----------
    hints : sequence of `torch.Tensor`, (B, 1, H, W)
        As from `Inpainter.prepare`.
    """
    return hints[6].flatten(1).amax(dim=1).clamp(min=_LEAST_ERROR)


class Inpainter(nn.Module):
    """Network with the normalisation of its training.

    Parameters
    ----------
    network : `~csr_astro.nn.unet.PartialConvUNet`
        The network.
    normalization : {'local', 'minmax'}, optional
        A key of ``NORMALIZATIONS``.
    fill : {'none', 'push-pull', 'kriging', 'kriging+spline'}, optional
        Fill to which the network's output is added: none (the paper),
        `~csr_astro.nn.fill.push_pull_fill`, or that with
        `~csr_astro.kriging.kriging_fill` behind the central mask. With ``'kriging'`` the
        network has two hints: the kriging fill, and the brightness of the sources. With
        ``'kriging+spline'`` it has two more, `~csr_astro.kriging.spline_fill` and the standard
        error of the kriging, and its output counts in that error.
    dtype : `torch.dtype`, optional
        Precision of the network's arithmetic; all other computations keep the
        precision of the image.
    wings_only : bool, optional
        Whether predictions use the network only behind bright sources, whose wings it knows,
        and the kriging alone elsewhere; needs a fill of kriging.

    Examples
    --------
    >>> import torch
    >>> from csr_astro.nn.inpainter import Inpainter
    >>> from csr_astro.nn.unet import PartialConvUNet
    >>> inpainter = Inpainter(PartialConvUNet(width=0.125)).eval()
    >>> image, valid = torch.full((1, 1, 96, 96), 3.5), torch.ones(1, 1, 96, 96)
    >>> valid[..., 43:54, 43:54] = 0
    >>> with torch.no_grad():
    ...     prediction = inpainter(image, valid, valid, 1 - valid, torch.tensor([5.0]))
    >>> bool((prediction == 3.5).all())
    True
    """

    def __init__(
        self,
        network: PartialConvUNet,
        normalization: str = 'local',
        *,
        fill: str = 'push-pull',
        dtype: torch.dtype = torch.float32,
        wings_only: bool = False,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ('normalization', normalization, sorted(NORMALIZATIONS)),
            ('fill', fill, list(FILLS)),
        ):
            if value not in known:
                raise ValueError(f'{name} must be one of {known}, got {value!r}.')
        if network.n_hints != FILLS[fill]:
            raise ValueError(
                f'fill={fill!r} needs a network that takes {FILLS[fill]} hints, not '
                f'{network.n_hints}.'
            )
        if fill == 'none':
            network.use_single_precision()
        if wings_only and not fill.startswith('kriging'):
            raise ValueError(f'wings_only needs a fill of kriging, got fill={fill!r}.')
        self.wings_only = wings_only
        self.network = network
        self.normalization = normalization
        self.fill = fill
        self.dtype = dtype

    def folded(self) -> Inpainter:
        """Return the same model with `~csr_astro.nn.folded.fold` of its network.

        It predicts faster on processors, and cannot be trained.

        Returns
        -------
        inpainter : `Inpainter`
        """
        network = fold(self.network, self.dtype)
        model = Inpainter(
            network, self.normalization,
            fill=self.fill, dtype=self.dtype, wings_only=self.wings_only,
        )  # fmt: skip
        model.info = getattr(self, 'info', None)
        return model.eval()

    def prepare(
        self,
        image: torch.Tensor,
        valid: torch.Tensor,
        finite: torch.Tensor,
        central: torch.Tensor,
        radius: torch.Tensor,
        *,
        wings_known: bool = False,
    ) -> tuple[
        torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor, torch.Tensor, list[Kriging | None]
    ]:
        """Prepare the input of the network.

        Parameters
        ----------
        image, valid, finite, central, radius : `torch.Tensor`
            As in `forward`.
        wings_known : bool, optional
            Whether the wings of the sources were subtracted from the image, so that the network
            is not told how bright they are.

        Returns
        -------
        normalized : `torch.Tensor`, (B, 1, H, W)
            Float32, clipped, 0 in invalid pixels; for ``fill='kriging'`` without the wings
            of the central source.
        hints : tuple of `torch.Tensor`, (B, 1, H, W)
            For ``fill='kriging'`` the kriging fill, 1 in the central mask, the logarithm
            of bright pixels under all masks, and 1 in those pixels. For ``'kriging+spline'``
            also the spline fill and the standard error of the kriging, each followed by 1 in
            the central mask; else none.
        location, scale : `torch.Tensor`, (B, 1, 1, 1)
        krigings : list of `~csr_astro.kriging.Kriging` or None
            Kriging of each normalised image, for ``fill='kriging'``.
        """
        location, scale = NORMALIZATIONS[self.normalization](image, valid, finite, radius)
        units = (image - location) / torch.where(scale > 0, scale, torch.ones_like(scale))
        normalized = (units.clamp(-_CLIP, _CLIP) * valid).float()
        if not self.fill.startswith('kriging'):
            return normalized, (), location, scale, [None] * len(image)
        central = (central > 0).float()
        hidden = ((finite > 0) & (valid == 0)).float()
        # A core that was not measured is assumed to be bright.
        peak = torch.where(central * hidden > 0, units, -torch.inf).amax(dim=(-3, -2, -1))
        peak = torch.where(torch.isfinite(peak), peak, torch.inf)
        _, inside, holes = arrays = [
            tensor[:, 0].cpu().numpy() for tensor in (normalized, valid > 0, central > 0)
        ]
        radius = radius.cpu().numpy()
        *stacks, krigings = kriging_fills(*arrays, radius, peak.cpu().numpy())
        fills, wings = _tensors(stacks, image.device)
        bright = torch.log10(units.clamp(_BRIGHT, _BRIGHTEST) / _BRIGHT).float() * hidden
        if wings_known:
            # The network takes part of the background for wings of bright sources.
            bright = torch.zeros_like(bright)
        normalized = (normalized - wings) * (valid > 0)
        hints: tuple[torch.Tensor, ...] = fills, central, bright, (bright > 0).float()
        if self.fill == 'kriging+spline':
            splines = spline_fills(normalized[:, 0].cpu().numpy(), inside, holes, radius)
            stacks = [splines, kriging_errors(krigings, holes)]
            splines, errors = _tensors(stacks, image.device)
            hints = *hints, splines, central, errors, central
        return normalized, hints, location, scale, krigings

    def network_share(self, hints: Sequence[torch.Tensor], n: int) -> torch.Tensor:
        """Share of the network in the predictions; the rest is that of the kriging.

        Parameters
        ----------
        hints : sequence of `torch.Tensor`, (B, 1, H, W)
            As from `prepare`.
        n : int
            Number of images.

        Returns
        -------
        share : `torch.Tensor`, (B,)
            1, and with ``wings_only`` 0 behind sources whose peak is below 100 scatters. It rises
            up to 400, so that no flux jumps.
        """
        if not self.wings_only:
            return torch.ones(n)
        _, central, bright = hints[:3]
        peak = (bright * central).flatten(1).amax(dim=1)
        low, high = (math.log10(each / _BRIGHT) for each in _ASKED)
        return ((peak - low) / (high - low)).clamp(0, 1)

    def predict_normalized(
        self,
        normalized: torch.Tensor,
        valid: torch.Tensor,
        hints: Sequence[torch.Tensor] = (),
        *,
        reach: int | None = None,
    ) -> torch.Tensor:
        """Predict the background in normalised units.

        Parameters
        ----------
        normalized, valid, hints : `torch.Tensor`
            As from `prepare`, and as in `forward`.
        reach : int, optional
            As in `~csr_astro.nn.unet.PartialConvUNet.forward`.

        Returns
        -------
        prediction : `torch.Tensor`, (B, 1, H, W) or (B, 1, 2 reach + 1, 2 reach + 1)
            Float32.
        """
        device = normalized.device
        valid = valid.float()
        image = normalized.contiguous(memory_format=memory_format(device))
        with torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            output = self.network(image, valid, hints[::2], hints[1::2], reach=reach).float()
        if self.fill == 'none':
            return output
        if not hints:
            return central_pixels(push_pull_fill(normalized, valid), reach) + output
        guess, central = hints[:2]
        fill = torch.where(central > 0, guess, normalized)
        # Only cutouts with another hole within reach need the push-pull fill.
        unknown = (central_pixels(valid + central, reach) == 0).flatten(1).any(dim=1)
        if unknown.any():
            smooth = push_pull_fill(normalized[unknown], valid[unknown])
            fill[unknown] = torch.where(central[unknown] > 0, guess[unknown], smooth)
        if self.fill == 'kriging+spline':
            # In units of the error that kriging expects, so that where that is sure of itself
            # the network changes little.
            output = output * expected_error(hints).reshape(-1, 1, 1, 1)
        return central_pixels(fill, reach) + output

    def forward(
        self,
        image: torch.Tensor,
        valid: torch.Tensor,
        finite: torch.Tensor,
        central: torch.Tensor,
        radius: torch.Tensor,
    ) -> torch.Tensor:
        """Predict the background in the unit of the image.

        Parameters
        ----------
        image : `torch.Tensor`, (B, 1, H, W)
            Finite numbers, with the source at pixel (H // 2, W // 2).
        valid, finite, central : `torch.Tensor`, (B, 1, H, W)
            1 for valid background; for measured pixels, sources included; for the
            central mask.
        radius : `torch.Tensor`, (B,)
            Radius of the central disc in pixels.

        Returns
        -------
        prediction : `torch.Tensor`, (B, 1, H, W), the dtype of ``image``
        """
        normalized, hints, location, scale, _ = self.prepare(image, valid, finite, central, radius)
        prediction = self.predict_normalized(normalized, valid, hints)
        return location + scale * prediction.to(image.dtype)
