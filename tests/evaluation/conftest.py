"""Fixtures of the evaluation."""

import numpy as np
import pytest
from scipy import ndimage

from csr_astro import NeuralBackgroundEstimator
from csr_astro.demo import simulated_field


@pytest.fixture(scope='session')
def groups():
    """Two groups of maps: smooth structure and noise, one of them with a gap."""
    rng = np.random.default_rng(4)
    maps = [
        10 + 30 * ndimage.gaussian_filter(rng.normal(size=(150, 170)), 5)
        + rng.normal(0, 0.2, (150, 170))
        for _ in range(3)
    ]
    maps[1][60:80, 100:120] = np.nan
    return {'first': maps[:2], 'second': maps[2:]}


@pytest.fixture(scope='session')
def simulation():
    """A field, its map with sources and its removal by the bundled weights."""
    truth, data, catalog = simulated_field(3)
    result = NeuralBackgroundEstimator(fwhm=3.5, orientations=1).estimate(data, catalog)
    return truth, result, catalog
