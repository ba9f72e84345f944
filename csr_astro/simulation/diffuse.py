"""What can the extended emission behind a source look like?"""

import numpy as np
from scipy import fft, ndimage

__all__ = ['diffuse_field', 'filament_field', 'lognormal_field', 'power_law_field']


def _standardize(field):
    field -= field.mean()
    scatter = field.std()
    if scatter > 0:
        field /= scatter
    return field


def power_law_field(shape, slope, rng):
    """Gaussian random field with an isotropic power-law power spectrum.

    Parameters
    ----------
    shape : tuple of int
        (ny, nx) of the field, which is periodic.
    slope : float
        Slope of the power spectrum: ``P(k) ∝ k**slope``; about −3 for dust, 0
        for white noise.
    rng : `numpy.random.Generator` or int
        Source of randomness, or a seed.

    Returns
    -------
    field : (ny, nx) `~numpy.ndarray` of float64
        Mean 0, standard deviation 1.

    Examples
    --------
    >>> from csr_astro.simulation.diffuse import power_law_field
    >>> field = power_law_field((64, 64), -3, 1)
    >>> print(round(abs(field.mean()), 9), round(field.std(), 9))
    0.0 1.0
    """
    rng = np.random.default_rng(rng)
    ny, nx = shape
    spectrum = fft.rfft2(rng.standard_normal((ny, nx)))
    k2 = fft.fftfreq(ny)[:, None] ** 2 + fft.rfftfreq(nx)[None, :] ** 2
    k2[0, 0] = np.inf if slope < 0 else 0
    spectrum *= k2 ** (slope / 4)
    return _standardize(fft.irfft2(spectrum, s=(ny, nx)))


def lognormal_field(shape, slope, contrast, rng):
    """Exponential of a power-law field: positive, with bright clumps and quiet voids.

    Parameters
    ----------
    shape, slope, rng
        As in `power_law_field`; the slope is that of the logarithm.
    contrast : float
        Standard deviation of the logarithm.

    Returns
    -------
    field : (ny, nx) `~numpy.ndarray` of float64
        Mean 0, standard deviation 1.
    """
    return _standardize(np.exp(contrast * power_law_field(shape, slope, rng)))


def filament_field(shape, slope, width, rng):
    """Ridges along the zero levels of a power-law field, of varying brightness.

    Parameters
    ----------
    shape, slope, rng
        As in `power_law_field`.
    width : float
        Width of the ridges in pixels, where the field has its typical gradient.

    Returns
    -------
    field : (ny, nx) `~numpy.ndarray` of float64
        Mean 0, standard deviation 1.
    """
    rng = np.random.default_rng(rng)
    level = power_law_field(shape, slope, rng)
    gradient = np.hypot(*np.gradient(level)).mean()
    ridges = np.exp(-0.5 * (level / (width * gradient)) ** 2)
    return _standardize(ridges * np.exp(0.7 * power_law_field(shape, -3, rng)))


def diffuse_field(shape, rng):
    """Draw a field of a random kind: power law, lognormal or filaments, plus noise.

    Slopes are between −2 and −4, the noise is white, sometimes correlated over
    the beam, and up to half as strong as the emission (in one field of ten
    stronger).

    Parameters
    ----------
    shape, rng
        As in `power_law_field`.

    Returns
    -------
    field : (ny, nx) `~numpy.ndarray` of float32
    """
    rng = np.random.default_rng(rng)
    slope = rng.uniform(-4, -2)
    kind = rng.choice(3)
    if kind == 0:
        field = power_law_field(shape, slope, rng)
    elif kind == 1:
        field = lognormal_field(shape, slope, rng.uniform(0.3, 1.2), rng)
    else:
        field = filament_field(shape, slope, rng.uniform(1.5, 5), rng)
        field += rng.uniform(0.2, 2) * power_law_field(shape, slope, rng)
    if rng.random() < 0.5:
        field = ndimage.gaussian_filter(field, rng.uniform(0.6, 2.5), mode='wrap')
    noise = rng.standard_normal(shape)
    if rng.random() < 0.3:
        noise = _standardize(ndimage.gaussian_filter(noise, rng.uniform(0.4, 1.2), mode='wrap'))
    strength = 10 ** rng.uniform(-2.5, -0.3) if rng.random() < 0.9 else rng.uniform(0.5, 5)
    # Emission matters at the scale of a cutout: compare the noise with its scatter there.
    small_scale = (field - ndimage.uniform_filter(field, 25, mode='wrap')).std()
    return (field + strength * max(small_scale, 1e-6) * 2 * noise).astype(np.float32)
