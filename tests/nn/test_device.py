"""Tests that all tensors of the network are on its device, on a device that is only pretended.

PyTorch's fake tensors have shapes and devices but no numbers, and need no such device. They refuse
to compute with tensors of two devices, as a GPU does.
"""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from csr_astro.kriging import kriging_fills
from csr_astro.nn import inpainter
from csr_astro.nn.fill import push_pull_fill
from csr_astro.nn.inpainter import FILLS, NORMALIZATIONS, Inpainter
from csr_astro.nn.unet import PartialConvUNet

DEVICE = torch.device('meta')
SHAPE = 2, 1, 96, 96


def zeros(tensor):
    """An array for a tensor without numbers."""
    return np.zeros(tensor.shape, dtype=bool if tensor.dtype == torch.bool else float)


@pytest.fixture(autouse=True)
def pretended(monkeypatch):
    """Fake tensors, which have numbers where the code asks for them."""
    # The device has no precision of its own.
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())
    monkeypatch.setattr(FakeTensor, '__bool__', lambda _: False, raising=False)
    monkeypatch.setattr(FakeTensor, 'numpy', zeros, raising=False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def cutouts(dtype=torch.float32):
    """Image, valid and finite pixels, central mask and radius on the device."""
    maps = [torch.ones(SHAPE, dtype=dtype, device=DEVICE) for _ in range(4)]
    return *maps, torch.ones(SHAPE[0], dtype=dtype, device=DEVICE)


def moved(module):
    """The module on the device, with its parameters and buffers and nothing else."""
    for each in module.modules():
        for name, tensor in each.named_parameters(recurse=False):
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)
            setattr(each, name, torch.nn.Parameter(empty))
        for name, tensor in each.named_buffers(recurse=False):
            setattr(each, name, torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE))
    return module


def test_tensors_of_two_devices_are_refused():
    """The test of the other tests: what they look for is found."""
    with pytest.raises((RuntimeError, AssertionError), match='device'):
        torch.ones(3, device=DEVICE) + torch.ones(3)


@pytest.mark.parametrize('name', sorted(NORMALIZATIONS))
def test_normalization_stays_on_the_device(name):
    location, scale = NORMALIZATIONS[name](*[each for k, each in enumerate(cutouts()) if k != 3])
    assert location.device == scale.device == DEVICE


def test_fill_stays_on_the_device():
    image, valid, *_ = cutouts()
    assert push_pull_fill(image, valid).device == DEVICE


@pytest.mark.parametrize('reach', [None, 16])
@pytest.mark.parametrize('n_hints', [0, 2])
@pytest.mark.parametrize('training', [False, True])
def test_network_stays_on_the_device(n_hints, reach, training):
    network = moved(PartialConvUNet(0.125, n_hints=n_hints)).train(training)
    image, valid, *rest = cutouts()
    hints = [image] * n_hints, [rest[1]] * n_hints
    output = network(image, valid, *hints, reach=None if training else reach)
    assert output.device == DEVICE
    if training:
        output.sum().backward()
        assert {each.grad.device for each in network.parameters()} == {DEVICE}


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('fill', list(FILLS))
def test_model_stays_on_the_device(fill, dtype, monkeypatch):
    asked = []

    def fills(*arrays):
        asked.append([type(each) for each in arrays])
        return np.zeros((2, 96, 96)), np.zeros((2, 96, 96)), [None, None]

    monkeypatch.setattr(inpainter, 'kriging_fills', fills)
    model = Inpainter(PartialConvUNet(0.125, n_hints=FILLS[fill]), fill=fill, dtype=dtype)
    model = moved(model).eval()
    normalized, hints, location, scale, _ = model.prepare(*cutouts(torch.float64))
    assert {each.device for each in (normalized, *hints, location, scale)} == {DEVICE}
    output = model.predict_normalized(normalized, cutouts()[1], hints, reach=16)
    assert (output.device, output.dtype) == (DEVICE, torch.float32)
    assert model(*cutouts(torch.float64)).device == DEVICE
    # Kriging is done by the processor.
    assert all(kinds == [np.ndarray] * 5 for kinds in asked)
    assert len(asked) == 2 * fill.startswith('kriging')
    assert kriging_fills is not fills
