"""Figures of a removal."""

import numpy as np
import pytest
from astropy.nddata import CCDData
from numpy.testing import assert_allclose

from csr_astro import NeuralBackgroundEstimator
from csr_astro.simulation.field import tangent_wcs


def test_plot_source_has_sky_axes_and_the_unit():
    import matplotlib.pyplot as plt

    wcs = tangent_wcs((90, 90), 2.0)
    ccd = CCDData(np.random.default_rng(1).normal(size=(90, 90)), unit='MJy / sr', wcs=wcs)
    result = NeuralBackgroundEstimator(fwhm=3.0, orientations=1).estimate(ccd, [(40, 50)])
    axes = result.plot_source(1)
    assert len(axes) == 5
    assert axes[0].coords[0].get_axislabel() == 'right ascension'
    # The panel shows the same part of the sky as the map.
    corner = axes[0].wcs.pixel_to_world(0, 0)
    x, y = wcs.world_to_pixel(corner)
    shown = np.asarray(axes[0].images[0].get_array())
    assert_allclose(shown[0, 0], ccd.data[round(float(y)), round(float(x))])
    labels = [each.get_ylabel() for each in axes[0].figure.axes]
    assert any('MJy' in label for label in labels)
    plt.close('all')
    plain = NeuralBackgroundEstimator(fwhm=3.0, orientations=1).estimate(ccd.data, [(40, 50)])
    _, five = plt.subplots(1, 5)
    assert plain.plot_source(1, axes=five)[0].get_xlabel() == 'x [pixel]'
    with pytest.raises(ValueError, match='axes must be five'):
        plain.plot_source(1, axes=five[:2])
    plt.close('all')
