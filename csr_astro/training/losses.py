"""By what is a prediction judged during training?"""

import torch
from torch.nn import functional as F

__all__ = ['hole_l1', 'relative_hole_loss', 'windowed_l1']


def hole_l1(prediction, target, hole):
    """Mean absolute error over each image's hole, ``‖(1−M)⊙(out−gt)‖ / Σ(1−M)``.

    The paper's L_hole (Eq. 2), per pixel of the hole instead of per pixel of
    the cutout.

    Parameters
    ----------
    prediction, target : `torch.Tensor`, (B, 1, H, W)
    hole : `torch.Tensor`, (B, 1, H, W)
        1 where the prediction is judged, else 0.

    Returns
    -------
    loss : `torch.Tensor`, (B,)
    """
    error = (prediction - target).abs() * hole
    return error.sum(dim=(1, 2, 3)) / hole.sum(dim=(1, 2, 3)).clamp(min=1)


def windowed_l1(prediction, target, hole, window):
    """Mean absolute error of the sums over square windows inside the hole.

    ``Σ |Σ_window (1−M)⊙(out−gt)| / Σ Σ_window (1−M)``: what matters to
    photometry is the error of the sum behind a source, not that of its pixels.

    Parameters
    ----------
    prediction, target, hole : `torch.Tensor`, (B, 1, H, W)
        As in `hole_l1`.
    window : int
        Width of the window in pixels, odd.

    Returns
    -------
    loss : `torch.Tensor`, (B,)
    """
    def window_mean(x):
        return F.avg_pool2d(x, window, stride=1, padding=window // 2)

    error = window_mean((prediction - target) * hole).abs()
    area = window_mean(hole)
    return error.sum(dim=(1, 2, 3)) / area.sum(dim=(1, 2, 3)).clamp(min=1e-6)


def relative_hole_loss(prediction, target, hole, baseline, *, windows=(7,), floor=0.3):
    """Errors in the hole, pixel by pixel and of sums, over those of a smooth fill.

    ``(L_hole(out) + Σ_w L_w(out)) / (L_hole(fill) + Σ_w L_w(fill) + floor)``, the fill
    being that of the target's own valid pixels. A map that is smooth counts for
    more than it would by its small errors, and one that is all noise, where no
    network can do better than a constant, for less.

    Parameters
    ----------
    prediction, target, hole : `torch.Tensor`, (B, 1, H, W)
        As in `hole_l1`, in normalised units.
    baseline : `torch.Tensor`, (B, 1, H, W)
        The smooth fill of the target.
    windows : tuple of int, optional
        Widths for `windowed_l1`.
    floor : float, optional
        Errors far below this count as they are: with a small floor the network
        learns first of all to leave smooth maps alone.

    Returns
    -------
    loss : `torch.Tensor`, scalar
    """
    def total(image):
        return hole_l1(image, target, hole) + sum(
            windowed_l1(image, target, hole, window) for window in windows
        )

    with torch.no_grad():
        scale = total(baseline) + floor
    judged = (hole.sum(dim=(1, 2, 3)) > 0).to(scale.dtype)
    return (judged * total(prediction) / scale).sum() / judged.sum().clamp(min=1)
