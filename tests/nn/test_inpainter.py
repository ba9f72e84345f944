"""Tests of the network with its normalisation and fills."""

import numpy as np
import pytest
import torch
from helpers_textbook import random_discs
from numpy.testing import assert_allclose

from csr_astro.kriging import kriging_fill
from csr_astro.nn.inpainter import (
    FILLS,
    NORMALIZATIONS,
    Inpainter,
    expected_error,
    local_normalization,
    minmax_normalization,
)
from csr_astro.nn.unet import PartialConvUNet

every_fill = pytest.mark.parametrize('fill', list(FILLS))
both_normalizations = pytest.mark.parametrize('normalization', sorted(NORMALIZATIONS))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make_network(n_hints=0):
    torch.manual_seed(0)
    return PartialConvUNet(width=0.0625, n_hints=n_hints).eval().requires_grad_(False)


@pytest.fixture(scope='module')
def network():
    return make_network()


def make_model(normalization='local', fill='kriging'):
    return Inpainter(make_network(FILLS[fill]), normalization, fill=fill)


def cutouts(shape=(96, 96), n_images=3, dtype=torch.float64, seed=0):
    """Red noise, a bright source in the middle, discs masked, a strip not measured at all."""
    torch.manual_seed(seed)
    image = torch.randn(n_images, 1, *shape, dtype=dtype).cumsum(-1).cumsum(-2) / 20 + 3
    valid = random_discs(n_images, shape, seed=seed).to(dtype)
    y, x = (torch.arange(n) - n // 2 for n in shape)
    distance2 = y[:, None] ** 2 + x**2
    image += 1e4 * torch.exp(-distance2 / 4.0)
    valid[..., distance2 < 7**2] = 0
    finite = torch.ones_like(valid)
    finite[..., :20] = 0
    image = image * finite
    central = (distance2 < 7**2).to(dtype).expand_as(valid).contiguous()
    return image, valid * finite, finite, central, torch.tensor([4.0, 7.0, 13.0][:n_images])


# Normalisation


@pytest.mark.parametrize('shape', [(96, 96), (96, 128)])
def test_local_normalization_is_a_weighted_mean_and_scatter(shape):
    image, valid, finite, _, radius = cutouts(shape)
    location, scale = local_normalization(image, valid, finite, radius)
    assert location.shape == scale.shape == (3, 1, 1, 1)
    y, x = np.indices(shape)
    distance2 = (y - shape[0] // 2) ** 2 + (x - shape[1] // 2) ** 2
    for i, r in enumerate(radius.tolist()):
        weights = valid[i, 0].numpy() * np.exp(-distance2 / (2 * (r + 10) ** 2))
        mean = np.average(image[i, 0], weights=weights)
        variance = np.average((image[i, 0] - mean) ** 2, weights=weights)
        assert_allclose(location[i].item(), mean, rtol=1e-12)
        assert_allclose(scale[i].item(), np.sqrt(variance), rtol=1e-12)


def test_minmax_normalization_spans_measured_pixels_with_the_source():
    image, valid, finite, _, radius = cutouts()
    image = torch.where(finite > 0, image, 1e9)
    location, scale = minmax_normalization(image, valid, finite, radius)
    normalized = (image - location) / scale
    for i in range(3):
        measured = normalized[i][finite[i] > 0]
        assert_allclose([measured.min(), measured.max()], [-1, 1], rtol=1e-12)
    # The maximum is the source, which the mask covers.
    assert normalized[valid > 0].max() < 0


def test_normalized_image_is_clipped_and_zero_where_invalid(network):
    image, valid, finite, central, radius = cutouts()
    image[..., 10, 30], valid[..., 10, 30] = 1e9, 1
    normalized, *_ = Inpainter(network).prepare(image, valid, finite, central, radius)
    assert normalized.dtype == torch.float32
    assert torch.all(normalized[..., 10, 30] <= 30)
    assert torch.all(normalized[valid == 0] == 0)


# Prediction


@pytest.mark.parametrize('fill', ['none', 'push-pull'])
def test_nothing_under_the_mask_matters(fill):
    image, valid, finite, central, radius = cutouts()
    other = torch.where(valid > 0, image, torch.randn_like(image) * 1e9)
    model = make_model(fill=fill)
    assert torch.equal(
        model(image, valid, finite, central, radius),
        model(other, valid, torch.ones_like(finite), central, radius),
    )


@both_normalizations
@every_fill
@pytest.mark.parametrize(('factor', 'offset'), [(1, 5), (1e-20, 0), (1e-3, -100), (1e20, 5)])
def test_prediction_follows_scale_and_offset(normalization, fill, factor, offset):
    image, valid, finite, central, radius = cutouts()
    model = make_model(normalization, fill)
    expected = factor * (model(image, valid, finite, central, radius) + offset)
    shifted = torch.where(finite > 0, factor * (image + offset), 0)
    prediction = model(shifted, valid, finite, central, radius)
    _, scale = NORMALIZATIONS[normalization](shifted, valid, finite, radius)
    assert prediction.dtype == torch.float64
    assert ((prediction - expected) / scale).abs().max() < 1e-4


def predict_constant(fill, normalization, value, dtype):
    image = torch.full((1, 1, 96, 96), value, dtype=dtype)
    valid = random_discs(1, (96, 96)).to(dtype)
    model = make_model(normalization, fill)
    return model(image, valid, torch.ones_like(valid), 1 - valid, torch.tensor([7.0]))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ('normalization', 'value'),
    [
        ('local', 0),
        ('local', 0.5),
        ('local', -(2.0**40)),
        ('minmax', 0),
        ('minmax', -1234.567),
        ('minmax', 1e-20),
    ],
)
@pytest.mark.parametrize('fill', ['push-pull', 'kriging', 'kriging+spline'])
def test_constant_image_gives_exactly_the_constant(fill, normalization, value, dtype):
    prediction = predict_constant(fill, normalization, value, dtype)
    assert torch.all(prediction == torch.tensor(value, dtype=dtype))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('fill', ['push-pull', 'kriging', 'kriging+spline'])
def test_constant_image_gives_exactly_any_constant(fill, dtype):
    for value in (0.1, 0.7, 1 / 3, -1234.567, 7.7e-3, 1e20):
        prediction = predict_constant(fill, 'local', value, dtype)
        assert torch.all(prediction == torch.tensor(value, dtype=dtype)), value


@both_normalizations
@every_fill
@pytest.mark.parametrize('measured', [0, 1])
def test_prediction_without_valid_pixels_is_finite(normalization, fill, measured):
    image, valid, _, central, radius = cutouts()
    finite = torch.full_like(valid, measured)
    model = make_model(normalization, fill)
    assert torch.isfinite(model(image, torch.zeros_like(valid), finite, central, radius)).all()


@every_fill
def test_prediction_with_one_valid_pixel_is_its_value(fill):
    image, valid, finite, central, radius = cutouts()
    valid = torch.zeros_like(valid)
    valid[..., 30, 60] = 1
    prediction = make_model(fill=fill)(image, valid, finite, central, radius)
    assert_allclose(prediction, image[..., 30:31, 60:61].expand_as(prediction), rtol=1e-9)


def test_bfloat16_is_close_to_single_precision(network):
    arguments = cutouts()
    expected = Inpainter(network)(*arguments)
    error = Inpainter(network, dtype=torch.bfloat16)(*arguments) - expected
    assert 0 < error.std() < 0.05 * expected.std()


def test_inputs_are_not_modified(network):
    arguments = cutouts()
    before = [tensor.clone() for tensor in arguments]
    Inpainter(network)(*arguments)
    assert all(map(torch.equal, arguments, before))


def test_unknown_normalization_is_refused(network):
    with pytest.raises(ValueError, match=r"one of \['local', 'minmax'\], got 'zscore'\.$"):
        Inpainter(network, 'zscore')


def test_unknown_fill_is_refused(network):
    with pytest.raises(ValueError, match=r"'kriging', 'kriging\+spline'\], got 'mean'"):
        Inpainter(network, fill='mean')


def test_number_of_hints_must_fit(network):
    with pytest.raises(ValueError, match=r"^fill='kriging' needs a network that takes 2 hints"):
        Inpainter(network, fill='kriging')
    with pytest.raises(ValueError, match=r"^fill='push-pull' needs a network that takes 0 hints"):
        Inpainter(make_network(2), fill='push-pull')
    image = torch.zeros(1, 1, 96, 96)
    with pytest.raises(ValueError, match=r'^this network takes 2 hints, got 0\.$'):
        make_network(2)(image, image)
    with pytest.raises(ValueError, match=r'^this network takes 0 hints, got 1\.$'):
        network(image, image, [image], [image])


def test_network_without_effect_leaves_the_kriging():
    image, valid, finite, central, radius = cutouts()
    model = make_model()
    torch.nn.init.zeros_(model.network.decoder[-1].conv.weight)
    torch.nn.init.zeros_(model.network.decoder[-1].conv.bias)
    prediction = model(image, valid, finite, central, radius)
    for i in range(len(image)):
        hole, good = central[i, 0].numpy() > 0, valid[i, 0].numpy() > 0
        values = image[i, 0].numpy()
        expected = kriging_fill(values, good, hole, float(radius[i]), values[hole].max())
        assert_allclose(prediction[i, 0].numpy()[hole], expected, rtol=1e-4)


def test_hints_are_the_kriging_and_the_bright_pixels():
    image, valid, finite, central, radius = cutouts()
    _, (guess, inside, bright, where), location, scale, _ = make_model().prepare(
        image, valid, finite, central, radius
    )
    assert torch.equal(inside, central.float())
    assert torch.all(guess[central == 0] == 0)
    units = (image - location) / scale
    hidden = (valid == 0) & (finite > 0)
    assert torch.equal(where > 0, hidden & (units > 10))
    assert_allclose(bright[where > 0], torch.log10(units[where > 0] / 10), rtol=1e-5)
    assert torch.all(bright[where == 0] == 0)


@every_fill
def test_pixels_near_the_centre_are_those_of_the_whole_prediction(fill):
    image, valid, finite, central, radius = cutouts()
    valid[:, :, 35:62, 35:62] = 1 - central[:, :, 35:62, 35:62]
    # The first has another hole near the centre, the others none.
    valid[0, :, 58:61, 40:44] = 0
    model = make_model(fill=fill)
    normalized, hints, *_ = model.prepare(image, valid, finite, central, radius)
    whole = model.predict_normalized(normalized, valid, hints)
    near = model.predict_normalized(normalized, valid, hints, reach=12)
    assert_allclose(near, whole[..., 36:61, 36:61], rtol=1e-5, atol=1e-5)


def test_what_is_faint_under_the_mask_does_not_matter():
    image, valid, finite, central, radius = cutouts()
    faint = torch.where(valid > 0, image, image.median())
    other = torch.where(valid > 0, image, image.median() + 1)
    model = make_model()
    arguments = valid, finite, central, radius
    assert torch.equal(model(faint, *arguments), model(other, *arguments))


def test_output_counts_in_errors_of_the_kriging():
    """The same output changes a window that kriging knows well by less."""
    network = make_network(4)
    torch.nn.init.zeros_(network.decoder[-1].conv.weight)
    torch.nn.init.ones_(network.decoder[-1].conv.bias)
    model = Inpainter(network, fill='kriging+spline')
    y, x = np.mgrid[:96, :96] - 48
    noise = np.random.default_rng(0).normal(size=(96, 96))
    smooth, rough = x + 0.01 * noise, 20 * noise
    for values in (smooth, rough):
        image = torch.from_numpy(values)[None, None]
        hole = torch.from_numpy((np.hypot(x, y) <= 5) * 1.0)[None, None]
        arguments = image, 1 - hole, torch.ones_like(hole), hole, torch.tensor([5.0])
        hints, location, scale = model.prepare(*arguments)[1:4]
        error = scale.item() * expected_error(hints).item()
        inside = hole > 0
        changed = model(*arguments)[inside] - (location + scale * hints[0])[inside]
        assert_allclose(changed.numpy(), error, rtol=1e-4)
        if values is rough:
            # White noise of 20, and the mean of the pixels around.
            assert 18 < error < 24
        else:
            assert error < 0.5


def test_hints_of_splines_are_exact_on_planes():
    model = make_model(fill='kriging+spline')
    y, x = np.mgrid[:96, :96] - 48
    hole = np.hypot(x, y) <= 7
    image, valid, finite, central = (
        torch.from_numpy(np.asarray(each, dtype=float))[None, None]
        for each in (0.3 * x - 0.1 * y, ~hole, np.ones_like(hole), hole)
    )
    _, hints, location, scale, _ = model.prepare(
        image, valid, finite, central, torch.tensor([7.0])
    )
    inside = central > 0
    found = (location + scale * hints[4])[inside]
    assert_allclose(found.numpy(), image[inside].numpy(), atol=1e-4)
    assert torch.equal(hints[5], central.float())


def test_network_is_asked_behind_bright_sources_only():
    """Its share rises from 0 at 100 scatters to 1 at 400."""
    model = Inpainter(make_network(4), fill='kriging+spline', wings_only=True)
    _, valid, _, central, radius = cutouts(n_images=3)
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 1, 96, 96)))
    for number, peak in enumerate((50.0, 200.0, 1000.0)):
        noise[number, 0, 48, 48] = peak
    hints = model.prepare(noise, 1 - central, torch.ones_like(valid), central, radius)[1]
    share = model.network_share(hints, 3)
    assert_allclose(share.numpy(), [0, 0.5, 1], atol=0.1)
    model.wings_only = False
    assert model.network_share(hints, 3).tolist() == [1, 1, 1]


def test_wings_need_kriging(network):
    with pytest.raises(ValueError, match=r"^wings_only needs a fill of kriging, got fill='none'"):
        Inpainter(network, fill='none', wings_only=True)
