"""Losses of the training.

All are pure functions of stacks of cutouts, (B, 1, H, W). `hole_l1`, `windowed_l1` and
`relative_hole_loss` are made for photometry, where the sum behind a source matters. The others
are those of the paper (Sect. 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from csr_astro.training.features import gram_matrix, oriented_features
from csr_astro.utils.optional import require

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    'PAPER_WEIGHTS',
    'LossWeights',
    'hole_l1',
    'hole_loss',
    'loss_terms',
    'paper_loss',
    'relative_hole_loss',
    'scaled_hole_loss',
    'source_loss',
    'ssim_loss',
    'style_loss',
    'total_loss',
    'valid_loss',
    'windowed_l1',
]


__doctest_requires__ = {('ssim_loss', 'paper_loss'): ['kornia']}


def hole_l1(prediction: torch.Tensor, target: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Mean absolute error over each image's hole, ``‖(1−M)⊙(out−gt)‖ / Σ(1−M)``.

    The paper's L_hole (Eq. 2), per pixel of the hole instead of per pixel of
    the cutout.

    Parameters
    ----------
    prediction, target : `torch.Tensor`, (B, 1, H, W)
    hole : `torch.Tensor`, (B, 1, H, W)
        1 in the pixels that are judged, else 0.

    Returns
    -------
    loss : `torch.Tensor`, (B,)

    Examples
    --------
    >>> import torch
    >>> from csr_astro.training.losses import hole_l1
    >>> hole = torch.zeros(1, 1, 9, 9)
    >>> hole[..., 3:6, 3:6] = 1
    >>> print(hole_l1(2 * hole, 0 * hole, hole).item())
    2.0
    """
    error = (prediction - target).abs() * hole
    return error.sum(dim=(1, 2, 3)) / hole.sum(dim=(1, 2, 3)).clamp(min=1)


def windowed_l1(
    prediction: torch.Tensor, target: torch.Tensor, hole: torch.Tensor, window: int
) -> torch.Tensor:
    """Mean absolute error of the sums over square windows inside the hole.

    ``Σ |Σ_window (1−M)⊙(out−gt)| / Σ Σ_window (1−M)``: for photometry the error of the sum behind
    a source matters, not that of its pixels.

    Parameters
    ----------
    prediction, target, hole : `torch.Tensor`, (B, 1, H, W)
        As in `hole_l1`.
    window : int
        Width of the window in pixels, odd.

    Returns
    -------
    loss : `torch.Tensor`, (B,)

    Examples
    --------
    >>> import torch
    >>> from csr_astro.training.losses import windowed_l1
    >>> hole = torch.zeros(1, 1, 9, 9)
    >>> hole[..., 3:6, 3:6] = 1
    >>> print(windowed_l1(2 * hole, 0 * hole, hole, 3).item())
    2.0
    """
    def window_mean(x):
        return F.avg_pool2d(x, window, stride=1, padding=window // 2)

    error = window_mean((prediction - target) * hole).abs()
    area = window_mean(hole)
    return error.sum(dim=(1, 2, 3)) / area.sum(dim=(1, 2, 3)).clamp(min=1e-6)


def scaled_hole_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    hole: torch.Tensor,
    error: torch.Tensor,
    *,
    windows: tuple[int, ...] = (7,),
    bend: float = 2.0,
) -> torch.Tensor:
    """Squared errors of pixels and of means in the hole, over the error that is expected.

    Errors are counted in units of ``error``, squared up to ``bend`` and absolute beyond
    (pseudo-Huber). Other than with absolute errors, a skewed background is predicted by its mean
    and not by its median, and weights that do not depend on the target leave that so.

    Parameters
    ----------
    prediction, target, hole : `torch.Tensor`, (B, 1, H, W)
        As in `hole_l1`.
    error : `torch.Tensor`, (B,)
        Expected error of each cutout's pixels.
    windows : tuple of int, optional
        Widths in pixels of the windows whose means are judged too, odd.
    bend : float, optional
        Where squares become absolute values.

    Returns
    -------
    loss : `torch.Tensor`, (B,)

    Examples
    --------
    >>> import torch
    >>> from csr_astro.training.losses import scaled_hole_loss
    >>> hole = torch.zeros(1, 1, 9, 9)
    >>> hole[..., 3:6, 3:6] = 1
    >>> loss = scaled_hole_loss(0.1 * hole, 0 * hole, hole, torch.ones(1), windows=())
    >>> print(round(loss.item(), 3))
    0.01
    """
    error = error.reshape(-1, 1, 1, 1)
    scaled = (prediction - target) * hole / error

    def mean_cost(deviation, weight):
        cost = 2 * bend**2 * ((1 + (deviation / bend) ** 2).sqrt() - 1)
        return (cost * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp(min=1e-6)

    loss = mean_cost(scaled, hole)
    for window in windows:
        area = F.avg_pool2d(hole, window, stride=1, padding=window // 2)
        mean = F.avg_pool2d(scaled, window, stride=1, padding=window // 2)
        loss = loss + mean_cost(mean / area.clamp(min=1e-6), area)
    return loss


def relative_hole_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    hole: torch.Tensor,
    baseline: torch.Tensor,
    *,
    windows: tuple[int, ...] = (7,),
    floor: float = 0.3,
) -> torch.Tensor:
    """Errors of pixels and of sums in the hole, relative to those of a smooth fill.

    ``(L_hole(out) + Σ_w L_w(out)) / (L_hole(fill) + Σ_w L_w(fill) + floor)``, with the fill of the
    target's own valid pixels. Smooth maps get a larger weight than by their small errors, and
    maps of noise, which no network predicts better than a constant, a smaller one.

    Parameters
    ----------
    prediction, target, hole : `torch.Tensor`, (B, 1, H, W)
        As in `hole_l1`, in normalised units.
    baseline : `torch.Tensor`, (B, 1, H, W)
        The smooth fill of the target.
    windows : tuple of int, optional
        Widths for `windowed_l1`.
    floor : float, optional
        Errors of the fill far below this do not increase the weight of a map. With a small
        floor the network learns little but the smoothest maps.

    Returns
    -------
    loss : `torch.Tensor`, scalar

    Examples
    --------
    >>> import torch
    >>> from csr_astro.training.losses import relative_hole_loss
    >>> hole = torch.zeros(1, 1, 9, 9)
    >>> hole[..., 3:6, 3:6] = 1
    >>> print(relative_hole_loss(hole, hole, hole, 0 * hole).item())
    0.0
    """
    def total(image):
        return hole_l1(image, target, hole) + sum(
            windowed_l1(image, target, hole, window) for window in windows
        )

    with torch.no_grad():
        scale = total(baseline) + floor
    judged = (hole.sum(dim=(1, 2, 3)) > 0).to(scale.dtype)
    return (judged * total(prediction) / scale).sum() / judged.sum().clamp(min=1)


def hole_loss(prediction: torch.Tensor, target: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Error in the hole per pixel of the cutout, ``L_hole = ‖(1−M)⊙(out−gt)‖ / N``.

    The paper's Eq. 2, in which ``‖·‖`` is the L1 norm and N the number of pixels
    of the cutout. `hole_l1` divides by those of the hole.

    Parameters
    ----------
    prediction, target, hole : `torch.Tensor`, (B, 1, H, W)
        As in `hole_l1`.

    Returns
    -------
    loss : `torch.Tensor`, (B,)

    Examples
    --------
    >>> import torch
    >>> from csr_astro.training.losses import hole_loss
    >>> hole = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    >>> hole_loss(torch.full((1, 1, 2, 2), 4.0), torch.zeros(1, 1, 2, 2), hole)
    tensor([1.])
    """
    _check_shapes(prediction=prediction, target=target, hole=hole)
    return ((prediction - target).abs() * hole).mean(dim=(1, 2, 3))


def valid_loss(prediction: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Error outside the hole per pixel of the cutout, ``L_valid = ‖M⊙(out−gt)‖ / N``.

    The paper's Eq. 2.

    Parameters
    ----------
    prediction, target : `torch.Tensor`, (B, 1, H, W)
    valid : `torch.Tensor`, (B, 1, H, W)
        1 in valid background, else 0.

    Returns
    -------
    loss : `torch.Tensor`, (B,)

    Examples
    --------
    >>> import torch
    >>> from csr_astro.training.losses import valid_loss
    >>> valid = torch.tensor([[[[0.0, 1.0], [1.0, 1.0]]]])
    >>> valid_loss(torch.full((1, 1, 2, 2), 4.0), torch.zeros(1, 1, 2, 2), valid)
    tensor([3.])
    """
    return hole_loss(prediction, target, valid)


def style_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    composite: torch.Tensor,
    features: Callable = oriented_features,
) -> torch.Tensor:
    """Difference in texture, ``Σ_n Σ_{I ∈ {out, comp}} mean |G_n(I) − G_n(gt)|``.

    The paper's Eq. 3, the mean being over the elements of the Gram matrices
    ``G_n``, one for each set of feature maps.

    Parameters
    ----------
    prediction, target : `torch.Tensor`, (B, 1, H, W)
    composite : `torch.Tensor`, (B, 1, H, W)
        The prediction in the hole, the map outside.
    features : callable, optional
        Takes an image, (B, 1, H, W), and returns a list of feature maps,
        (B, C_n, H_n, W_n): `~csr_astro.training.features.oriented_features`, or a
        `~csr_astro.training.features.VGG16Features` as in the paper.

    Returns
    -------
    loss : `torch.Tensor`, (B,)

    Examples
    --------
    Moving a texture does not change its style, smoothing it does:

    >>> import torch
    >>> from csr_astro.training.losses import style_loss
    >>> target = torch.randn(1, 1, 96, 96)
    >>> moved = target.roll(20, dims=-1)
    >>> smoothed = torch.nn.functional.avg_pool2d(target, 3, stride=1, padding=1)
    >>> bool(style_loss(moved, target, moved) < 0.2 * style_loss(smoothed, target, smoothed))
    True
    """
    _check_shapes(prediction=prediction, target=target, composite=composite)
    expected = [gram_matrix(maps) for maps in features(target)]
    return sum(
        (gram_matrix(maps) - gram).abs().mean(dim=(1, 2))
        for image in (prediction, composite)
        for maps, gram in zip(features(image), expected, strict=True)
    )


def ssim_loss(
    prediction: torch.Tensor, target: torch.Tensor, *, window: int = 5, data_range: float = 1.0
) -> torch.Tensor:
    """Structural dissimilarity, ``L_ssim = (1 − SSIM(out, gt)) / 2``.

    The paper's Eqs. 4 and 5 (Wang et al. 2004), as kornia computes them: moments
    under a Gaussian of 1.5 pixels, the mean over all pixels.

    Parameters
    ----------
    prediction, target : `torch.Tensor`, (B, 1, H, W)
    window : int, optional
        Width of the window in pixels, odd.
    data_range : float, optional
        Range L of the pixel values in the constants ``c_1 = (0.01 L)²`` and
        ``c_2 = (0.03 L)²``, below which means and scatters do not count.

    Returns
    -------
    loss : `torch.Tensor`, (B,)

    Examples
    --------
    >>> import torch
    >>> from csr_astro.training.losses import ssim_loss
    >>> image = torch.randn(1, 1, 32, 32)
    >>> bool(ssim_loss(image, image) < 1e-5)
    True
    """
    kornia_ssim_loss = require('kornia.losses', 'the SSIM loss needs', 'train').ssim_loss
    _check_shapes(prediction=prediction, target=target)
    if window % 2 != 1 or window < 1 or min(prediction.shape[-2:]) <= window // 2:
        raise ValueError(
            f'window must be odd and fit the images, {tuple(prediction.shape[-2:])}, got {window}.'
        )
    if not data_range > 0:
        raise ValueError(f'data_range must be positive, got {data_range}.')
    loss = kornia_ssim_loss(
        prediction, target, window, max_val=float(data_range), reduction='none'
    )
    return loss.mean(dim=(1, 2, 3))


def source_loss(composite: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Error of the extracted source, ``L_source = ‖(in − gt) − (in − comp)‖ / N``.

    The paper's Eq. 6, the injected minus the extracted source. The input cancels: the loss is
    computed as ``‖comp − gt‖ / N``, so that bright sources cost no precision. Its gradient is
    that of `hole_loss`, because outside the hole the composite is the input.

    Parameters
    ----------
    composite : `torch.Tensor`, (B, 1, H, W)
        The prediction in the hole, the input, sources included, outside.
    target : `torch.Tensor`, (B, 1, H, W)

    Returns
    -------
    loss : `torch.Tensor`, (B,)

    Examples
    --------
    >>> import torch
    >>> from csr_astro.training.losses import source_loss
    >>> source_loss(torch.ones(1, 1, 2, 2), torch.tensor([[[[1.0, 1.0], [1.0, 3.0]]]]))
    tensor([0.5000])
    """
    _check_shapes(composite=composite, target=target)
    return (composite - target).abs().mean(dim=(1, 2, 3))


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms in `total_loss`; by default the paper's (Eq. 7).

    A term of weight 0 is not computed.

    Attributes
    ----------
    hole : float
        Weight of `hole_loss`.
    valid : float
        Weight of `valid_loss`.
    style : float
        Weight of `style_loss`.
    ssim : float
        Weight of `ssim_loss`.
    source : float
        Weight of `source_loss`.
    windowed : float
        Weight of `windowed_l1`, the error of sums behind sources, which the paper does not
        have.

    Examples
    --------
    >>> from csr_astro.training.losses import LossWeights
    >>> LossWeights(style=0).hole
    6.0
    """

    hole: float = 6.0
    valid: float = 6.0
    style: float = 120.0
    ssim: float = 0.4
    source: float = 1.0
    windowed: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
                # Comparisons with NaN are false.
            if not 0 <= value < float('inf'):
                raise ValueError(
                    f'the weight {field.name!r} must be finite and not negative, got {value}.'
                )


PAPER_WEIGHTS = LossWeights()


def loss_terms(
    prediction: torch.Tensor,
    target: torch.Tensor,
    image: torch.Tensor,
    valid: torch.Tensor,
    hole: torch.Tensor,
    *,
    weights: LossWeights = PAPER_WEIGHTS,
    features: Callable = oriented_features,
    window: int = 7,
) -> dict[str, torch.Tensor]:
    """Terms of the paper's loss, without their weights.

    The composite is ``comp = M⊙in + (1−M)⊙out``. Blank pixels, neither valid nor in the hole, are
    the same in all images and contribute to no term.

    Parameters
    ----------
    prediction, target : `torch.Tensor`, (B, 1, H, W)
        In normalised units.
    image : `torch.Tensor`, (B, 1, H, W)
        Input of the network with the sources, in the same units.
    valid, hole : `torch.Tensor`, (B, 1, H, W)
        1 in valid background; 1 in the pixels to predict.
    weights : `LossWeights`, optional
        Terms of weight 0 are left out.
    features : callable, optional
        As in `style_loss`.
    window : int, optional
        As in `windowed_l1`.

    Returns
    -------
    terms : dict of str to `torch.Tensor`, (B,)
        Terms by the names of the weights, in their order.

    Examples
    --------
    >>> import torch
    >>> from csr_astro.training.losses import LossWeights, loss_terms
    >>> image, ones = torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
    >>> list(loss_terms(image, image, image, ones, 0 * ones, weights=LossWeights(ssim=0)))
    ['hole', 'valid', 'style', 'source']
    """
    _check_shapes(prediction=prediction, target=target, image=image, valid=valid, hole=hole)
    # Not a product, because blank pixels may not be finite.
    measured = (valid + hole) > 0
    prediction, target, image = (
        torch.where(measured, x, torch.zeros_like(x)) for x in (prediction, target, image)
    )
    composite = torch.where(hole > 0, prediction, image)
    compute = {
        'hole': lambda: hole_loss(prediction, target, hole),
        'valid': lambda: valid_loss(prediction, target, valid),
        'style': lambda: style_loss(prediction, target, composite, features),
        'ssim': lambda: ssim_loss(prediction, target),
        'source': lambda: source_loss(composite, target),
        'windowed': lambda: windowed_l1(prediction, target, hole, window),
    }
    return {name: term() for name, term in compute.items() if getattr(weights, name) > 0}


def total_loss(
    terms: dict[str, torch.Tensor], weights: LossWeights = PAPER_WEIGHTS
) -> torch.Tensor:
    """Weighted sum of terms.

    With the paper's weights (Eq. 7), ``6 (L_hole + L_valid) + 120 L_style + 0.4 L_ssim
    + 1 L_source``.

    Parameters
    ----------
    terms : dict of str to `torch.Tensor`, (B,)
        As from `loss_terms`; the names are those of the weights.
    weights : `LossWeights`, optional

    Returns
    -------
    loss : `torch.Tensor`, (B,)

    Examples
    --------
    >>> import torch
    >>> from csr_astro.training.losses import total_loss
    >>> total_loss({'hole': torch.tensor([2.0]), 'source': torch.tensor([1.0])})
    tensor([13.])
    """
    known = [field.name for field in fields(weights)]
    if unknown := sorted(terms.keys() - set(known)):
        raise ValueError(f'the loss has no terms {unknown}; it has {known}.')
    if not terms:
        raise ValueError('a loss needs at least one term whose weight is not 0.')
    return sum(getattr(weights, name) * term for name, term in terms.items())


def paper_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    image: torch.Tensor,
    valid: torch.Tensor,
    hole: torch.Tensor,
    *,
    weights: LossWeights = PAPER_WEIGHTS,
    **options: Any,
) -> torch.Tensor:
    """Evaluate the paper's whole loss (Sect. 3.3.5, Eq. 7).

    ``6 (L_hole + L_valid) + 120 L_style + 0.4 L_ssim + 1 L_source``, or with other
    weights.

    Parameters
    ----------
    prediction, target, image, valid, hole : `torch.Tensor`, (B, 1, H, W)
        As in `loss_terms`.
    weights : `LossWeights`, optional
        The weights.
    **options
        ``features`` and ``window``, as in `loss_terms`.

    Returns
    -------
    loss : `torch.Tensor`, (B,)
        Loss of each image; the training minimises the mean.

    Examples
    --------
    >>> import torch
    >>> from csr_astro.training.losses import LossWeights, paper_loss
    >>> target = torch.randn(2, 1, 32, 32)
    >>> hole = torch.zeros(2, 1, 32, 32)
    >>> hole[..., 12:20, 12:20] = 1
    >>> paper_loss(0 * target, target, target, 1 - hole, hole).shape
    torch.Size([2])
    >>> for_photometry = LossWeights(style=0, ssim=0, source=0, windowed=6)
    >>> paper_loss(target, target, target, 1 - hole, hole, weights=for_photometry)
    tensor([0., 0.])
    """
    terms = loss_terms(prediction, target, image, valid, hole, weights=weights, **options)
    return total_loss(terms, weights)


def _check_shapes(**images):
    """Refuse different shapes, which would be broadcast against each other."""
    shapes = {name: tuple(image.shape) for name, image in images.items()}
    first = next(iter(shapes.values()))
    if len(first) != 4 or len(set(shapes.values())) > 1:
        raise ValueError(f'images must have one and the same shape (B, 1, H, W), got {shapes}.')
