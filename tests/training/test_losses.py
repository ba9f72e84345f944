"""Losses of the training."""

import sys
from dataclasses import FrozenInstanceError, astuple
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import ndimage

from csr_astro.training.features import oriented_features
from csr_astro.training.losses import (
    PAPER_WEIGHTS,
    LossWeights,
    hole_l1,
    hole_loss,
    loss_terms,
    paper_loss,
    relative_hole_loss,
    scaled_hole_loss,
    source_loss,
    ssim_loss,
    style_loss,
    total_loss,
    valid_loss,
    windowed_l1,
)

needs_kornia = pytest.mark.skipif(find_spec('kornia') is None, reason='needs kornia')


SHAPE = (3, 1, 40, 48)


def random_images(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *SHAPE, generator=generator, dtype=torch.float64)


@pytest.fixture
def cutouts():
    """Prediction, target, image, valid, hole; the first five columns are blank."""
    prediction, target, source = random_images(3)
    y, x = np.indices(SHAPE[-2:])
    hole = torch.zeros(SHAPE, dtype=torch.float64)
    for b in range(SHAPE[0]):
        hole[b, 0] = torch.from_numpy(np.hypot(y - 20, x - 24) <= 5 + b)
    valid = 1 - hole
    valid[..., :5] = 0
    return prediction, target, target + source.abs(), valid, hole


def test_hole_and_valid_loss_are_per_pixel_of_the_cutout(cutouts):
    prediction, target, _, valid, hole = cutouts
    for loss, mask in ((hole_loss, hole), (valid_loss, valid)):
        expected = [
            np.abs(m * (p - t)).sum() / p.size
            for p, t, m in zip(prediction.numpy(), target.numpy(), mask.numpy(), strict=True)
        ]
        assert_allclose(loss(prediction, target, mask), expected, rtol=1e-12)
    area = hole.mean(dim=(1, 2, 3))
    expected = hole_l1(prediction, target, hole) * area
    assert_allclose(hole_loss(prediction, target, hole), expected, rtol=1e-12)


def numpy_gram(maps):
    flat = maps.reshape(len(maps), -1)
    return np.einsum('ci,di->cd', flat, flat) / flat.size


def test_style_loss_is_that_of_its_formula(cutouts):
    prediction, target, composite, _, _ = cutouts
    expected = 0
    for image in (prediction, composite):
        for maps, wanted in zip(oriented_features(image), oriented_features(target), strict=True):
            expected += np.array([
                np.abs(numpy_gram(m) - numpy_gram(w)).mean()
                for m, w in zip(maps.numpy(), wanted.numpy(), strict=True)
            ])
    assert_allclose(style_loss(prediction, target, composite), expected, rtol=1e-10)


def test_style_loss_takes_any_features():
    ones = torch.ones(SHAPE)
    loss = style_loss(3 * ones, ones, 2 * ones, features=lambda image: [image, 2 * image])
    # Gram matrices of one constant: its square.
    assert_allclose(loss, np.full(3, (9 - 1) + (4 - 1) + 4 * (9 - 1) + 4 * (4 - 1)))


def numpy_ssim(a, b, data_range, window=5):
    """SSIM map under a Gaussian of so many pixels, mirrored at the edges."""
    taps = np.exp(-((np.arange(window) - window // 2) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def mean(x):
        for axis in (0, 1):
            x = ndimage.correlate1d(x, taps, axis, mode='mirror')
        return x

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    covariance = mean(a * b) - mean(a) * mean(b)
    variances = mean(a**2) - mean(a) ** 2 + mean(b**2) - mean(b) ** 2
    return (
        (2 * mean(a) * mean(b) + c1) * (2 * covariance + c2)
        / ((mean(a) ** 2 + mean(b) ** 2 + c1) * (variances + c2))
    )


@needs_kornia
@pytest.mark.parametrize('data_range', [1, 5.0])
def test_ssim_loss_is_that_of_its_formula(cutouts, data_range):
    prediction, target = cutouts[:2]
    expected = [
        (1 - numpy_ssim(p[0], t[0], data_range).mean()) / 2
        for p, t in zip(prediction.numpy(), target.numpy(), strict=True)
    ]
    loss = ssim_loss(prediction, target, data_range=data_range)
    assert_allclose(loss, expected, rtol=1e-6)


def test_ssim_formula_is_that_of_scikit_image(cutouts):
    metrics = pytest.importorskip('skimage.metrics')
    a, b = (image[0, 0].numpy() for image in cutouts[:2])
    _, expected = metrics.structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1,
        full=True,
    )
    # Its Gaussian has always 11 pixels, and it mirrors otherwise at the edges.
    inner = np.s_[5:-5, 5:-5]
    assert_allclose(numpy_ssim(a, b, 1, window=11)[inner], expected[inner], rtol=1e-9)


def test_source_loss_is_that_of_its_formula(cutouts):
    composite, target, image, _, _ = (array.numpy() for array in cutouts)
    expected = np.abs((image - target) - (image - composite)).mean(axis=(1, 2, 3))
    assert_allclose(source_loss(*cutouts[:2]), expected, rtol=1e-12)


def test_bright_source_costs_no_precision():
    target = torch.rand(SHAPE)
    composite = target + 1e-3
    assert_allclose(source_loss(composite, target), np.full(3, 1e-3), rtol=1e-4)


@needs_kornia
def test_paper_loss_has_the_papers_weights(cutouts):
    prediction, target, image, valid, hole = cutouts
    measured = valid + hole
    prediction, target, image = (x * measured for x in (prediction, target, image))
    composite = image * (1 - hole) + prediction * hole
    expected = (
        6 * (hole_loss(prediction, target, hole) + valid_loss(prediction, target, valid))
        + 120 * style_loss(prediction, target, composite)
        + 0.4 * ssim_loss(prediction, target)
        + source_loss(composite, target)
    )
    assert_allclose(paper_loss(*cutouts), expected, rtol=1e-12)


def test_terms_of_weight_zero_are_not_computed(cutouts):
    def features(_):
        raise AssertionError

    weights = LossWeights(hole=1, valid=0, style=0, ssim=0, source=0, windowed=2)
    terms = loss_terms(*cutouts, weights=weights, features=features, window=9)
    assert list(terms) == ['hole', 'windowed']
    prediction, target, _, _, hole = cutouts
    expected = hole_loss(prediction, target, hole) + 2 * windowed_l1(prediction, target, hole, 9)
    assert_allclose(total_loss(terms, weights), expected, rtol=1e-12)


@needs_kornia
@pytest.mark.parametrize('image', ['target', 'sources outside the hole'])
def test_perfect_prediction_costs_only_what_the_input_does(cutouts, image):
    _, target, input_image, valid, hole = cutouts
    weights = LossWeights(windowed=1)
    input_image = target if image == 'target' else input_image
    terms = loss_terms(target, target, input_image, valid, hole, weights=weights)
    for name in ('hole', 'valid', 'windowed'):
        assert_allclose(terms[name], np.zeros(3), atol=0)
    # The SSIM of equal images is 1 but for a small number in kornia's denominator.
    assert_allclose(terms['ssim'], np.zeros(3), atol=1e-5)
    for name in ('style', 'source'):
        assert (terms[name] > 0).all() == (image != 'target')


@needs_kornia
def test_loss_of_an_image_does_not_depend_on_its_batch(cutouts):
    together = paper_loss(*cutouts)
    for b in range(SHAPE[0]):
        alone = paper_loss(*(array[b : b + 1] for array in cutouts))
        assert_allclose(alone, together[b : b + 1], rtol=1e-10)


@needs_kornia
def test_blank_pixels_count_in_no_term(cutouts):
    weights = LossWeights(windowed=1)
    expected = loss_terms(*cutouts, weights=weights)
    prediction, target, image, valid, hole = cutouts
    blank = (valid + hole) == 0
    for value in (1e9, np.nan):
        filled = [torch.where(blank, value, x) for x in (prediction, target, image)]
        terms = loss_terms(*filled, valid, hole, weights=weights)
        for name, term in terms.items():
            assert_allclose(term, expected[name], rtol=0, err_msg=name)


@needs_kornia
@pytest.mark.parametrize('name', ['hole', 'valid', 'style', 'ssim', 'source', 'windowed'])
def test_gradient_reaches_the_pixels_that_are_judged(cutouts, name):
    prediction, target, image, valid, hole = cutouts
    prediction[..., 0] = torch.nan
    prediction.requires_grad_()
    only = {key: float(key == name) for key in LossWeights.__annotations__}
    paper_loss(
        prediction, target, image, valid, hole, weights=LossWeights(**only)
    ).sum().backward()
    gradient = prediction.grad
    assert torch.isfinite(gradient).all()
    reached = gradient != 0
    assert not reached[(valid + hole) == 0].any()
    assert reached[hole > 0].all() == (name != 'valid')
    assert reached[valid > 0].all() == (name in {'valid', 'style', 'ssim'})


@needs_kornia
def test_source_loss_pulls_as_the_hole_loss_does(cutouts):
    prediction, *others = cutouts
    prediction.requires_grad_()
    gradients = []
    for name in ('hole', 'source'):
        term = loss_terms(prediction, *others)[name]
        gradients.append(torch.autograd.grad(term.sum(), prediction)[0])
    assert torch.equal(*gradients)


def test_weights_are_the_papers_and_cannot_change():
    assert astuple(PAPER_WEIGHTS) == (6, 6, 120, 0.4, 1, 0)
    with pytest.raises(FrozenInstanceError):
        PAPER_WEIGHTS.hole = 1


@pytest.mark.parametrize('value', [-1, np.nan, np.inf])
def test_weights_must_be_finite_and_not_negative(value):
    with pytest.raises(ValueError, match="'style' must be finite and not negative, got"):
        LossWeights(style=value)


def test_total_of_unknown_terms_is_refused():
    with pytest.raises(ValueError, match=r"no terms \['tv'\]; it has \['hole', 'valid', 'style'"):
        total_loss({'tv': torch.zeros(1), 'hole': torch.zeros(1)})


def test_total_of_no_terms_is_refused(cutouts):
    with pytest.raises(ValueError, match='at least one term whose weight is not 0'):
        paper_loss(*cutouts, weights=LossWeights(0, 0, 0, 0, 0))


@pytest.mark.parametrize('loss', [
    hole_loss,
    valid_loss,
    style_loss,
    lambda a, b, c: source_loss(a, b + c),
    lambda a, b, c: paper_loss(a, b, a, 1 - c, c),
])
def test_images_that_would_be_broadcast_are_refused(loss):
    image, flat = torch.zeros(4, 1, 32, 32), torch.zeros(4, 32, 32)
    for images in ((image, flat, flat), (flat, flat, flat)):
        with pytest.raises(ValueError, match=r'one and the same shape \(B, 1, H, W\), got'):
            loss(*images)


@needs_kornia
def test_ssim_refuses_bad_windows_and_ranges():
    image = torch.zeros(1, 1, 16, 16)
    for window in (0, 4, -3, 33):
        with pytest.raises(ValueError, match=rf'window must be odd and fit .*got {window}'):
            ssim_loss(image, image, window=window)
    with pytest.raises(ValueError, match='data_range must be positive, got 0'):
        ssim_loss(image, image, data_range=0)


def test_missing_kornia_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'kornia.losses', None)
    with pytest.raises(ImportError, match=r'needs kornia; install it with: .*csr_astro\[train\]'):
        ssim_loss(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16))


@pytest.fixture
def judged():
    """Prediction, target, hole (the last one empty) and baseline of three images."""
    rng = np.random.default_rng(0)
    prediction, target, baseline = rng.normal(size=(3, 3, 1, 20, 24))
    hole = (rng.random((3, 1, 20, 24)) < 0.3).astype(float)
    hole[2] = 0
    return prediction, target, hole, baseline


def tensors(arrays):
    return [torch.from_numpy(array) for array in arrays]


def numpy_hole_l1(prediction, target, hole):
    errors = zip(np.abs(prediction - target), hole, strict=True)
    return np.array([error[h > 0].mean() if h.any() else 0 for error, h in errors])


def numpy_windowed_l1(prediction, target, hole, window):
    """Sums over every window that is centred on a pixel, by hand."""
    losses = []
    for p, t, h in zip(prediction[:, 0], target[:, 0], hole[:, 0], strict=True):
        error, area = 0, 0
        half = window // 2
        for y, x in np.ndindex(p.shape):
            inside = (slice(max(y - half, 0), y + half + 1), slice(max(x - half, 0), x + half + 1))
            error += abs(((p - t) * h)[inside].sum())
            area += h[inside].sum()
        losses.append(error / area if area else 0)
    return np.array(losses)


def test_hole_l1_is_the_mean_error_over_the_hole(judged):
    assert_allclose(hole_l1(*tensors(judged[:3])), numpy_hole_l1(*judged[:3]), rtol=1e-12)


@pytest.mark.parametrize('window', [1, 3, 7])
def test_windowed_l1_is_the_error_of_sums_over_windows(judged, window):
    loss = windowed_l1(*tensors(judged[:3]), window)
    assert_allclose(loss, numpy_windowed_l1(*judged[:3], window), rtol=1e-12)


@pytest.mark.parametrize('windows', [(), (7,), (3, 5)])
@pytest.mark.parametrize('floor', [0.01, 1])
def test_relative_loss_compares_with_the_baseline(judged, windows, floor):
    def total(image):
        return numpy_hole_l1(image, *judged[1:3]) + sum(
            numpy_windowed_l1(image, *judged[1:3], window) for window in windows
        )

    loss = relative_hole_loss(*tensors(judged), windows=windows, floor=floor)
    # The image whose hole is empty does not count.
    expected = (total(judged[0]) / (total(judged[3]) + floor))[:2].mean()
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_relative_loss_of_perfect_predictions_and_empty_holes_is_zero(judged):
    prediction, target, hole, baseline = tensors(judged)
    assert relative_hole_loss(target, target, hole, baseline) == 0
    assert relative_hole_loss(prediction, target, 0 * hole, baseline) == 0


def test_losses_ignore_everything_outside_the_hole(judged):
    prediction, target, hole, baseline = tensors(judged)
    other = torch.where(hole > 0, prediction, 1e9)
    assert relative_hole_loss(other, target, hole, baseline) == relative_hole_loss(
        prediction, target, hole, baseline
    )


def test_scaled_loss_is_the_mean_square_of_small_errors(judged):
    prediction, target, hole, _ = tensors(judged)
    error = torch.tensor([50.0, 200.0, 1.0], dtype=torch.float64)
    loss = scaled_hole_loss(prediction, target, hole, error, windows=())
    squares = (((prediction - target) * hole) ** 2).sum((1, 2, 3)) / hole.sum((1, 2, 3))
    assert_allclose(loss[:2], (squares / error**2)[:2], rtol=2e-3)
    # The image whose hole is empty costs nothing.
    assert loss[2] == 0


def test_scaled_loss_is_least_at_the_mean_of_a_skewed_target():
    """A relative or absolute error is least at the median, which is lower."""
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.exponential(1, (1, 1, 200, 200)) - 1)
    hole, error = torch.ones_like(target), torch.ones(1)
    levels = torch.linspace(-0.6, 0.4, 41)
    losses = [
        scaled_hole_loss(torch.full_like(target, level), target, hole, error, windows=(), bend=30)
        for level in levels
    ]
    assert abs(levels[torch.cat(losses).argmin()]) < 0.05


def test_scaled_loss_of_large_errors_grows_linearly_and_ignores_the_rest(judged):
    prediction, target, hole, _ = tensors(judged)
    error = torch.full((3,), 1e-4, dtype=torch.float64)
    once, twice = (
        scaled_hole_loss(target + factor * (prediction - target), target, hole, error)
        for factor in (1, 2)
    )
    assert_allclose(twice[:2] / once[:2], 2, rtol=1e-3)
    other = torch.where(hole > 0, prediction, 1e9)
    assert_allclose(scaled_hole_loss(other, target, hole, error), once)
