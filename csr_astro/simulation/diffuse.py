"""Random fields of diffuse emission, noise and coverage.

Emission is drawn from power laws, lognormal fields and filaments, or matched to a real map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, ndimage, signal

from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.profiles import gaussian_profile
from csr_astro.utils.plane import fit_plane

if TYPE_CHECKING:
    from csr_astro.typing import ProfileLike, RngLike

__all__ = [
    'correlated_noise',
    'coverage_mask',
    'diffuse_field',
    'faint_sources',
    'filament_field',
    'gradient_field',
    'lognormal_field',
    'matched_field',
    'power_law_field',
    'radial_periodogram',
    'striped_noise',
    'white_noise',
]


# Fraction of a map's width and height over which it fades out for its power spectrum.
_TAPER = 0.3


def _standardize(field):
    field -= field.mean()
    scatter = field.std()
    if scatter > 0:
        field /= scatter
    return field


def power_law_field(shape: tuple[int, int], slope: float, rng: RngLike) -> np.ndarray:
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


def lognormal_field(
    shape: tuple[int, int], slope: float, contrast: float, rng: RngLike
) -> np.ndarray:
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

    Examples
    --------
    >>> from csr_astro.simulation.diffuse import lognormal_field
    >>> field = lognormal_field((64, 64), -3.0, 0.8, 1)
    >>> print(field.max() > -field.min())  # bright clumps, quiet voids
    True
    """
    return _standardize(np.exp(contrast * power_law_field(shape, slope, rng)))


def filament_field(shape: tuple[int, int], slope: float, width: float, rng: RngLike) -> np.ndarray:
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

    Examples
    --------
    >>> from csr_astro.simulation.diffuse import filament_field
    >>> field = filament_field((64, 64), -3.0, 3.0, 1)
    >>> print(field.shape, round(field.std(), 6))
    (64, 64) 1.0
    """
    rng = np.random.default_rng(rng)
    level = power_law_field(shape, slope, rng)
    gradient = np.hypot(*np.gradient(level)).mean()
    ridges = np.exp(-0.5 * (level / (width * gradient)) ** 2)
    return _standardize(ridges * np.exp(0.7 * power_law_field(shape, -3, rng)))


def diffuse_field(shape: tuple[int, int], rng: RngLike) -> np.ndarray:
    """Draw a field of a random kind: power law, lognormal or filaments, plus noise.

    Slopes are between −2 and −4. The noise is white or correlated over the beam, and up to half
    as strong as the emission, or stronger in one field of ten.

    Parameters
    ----------
    shape, rng
        As in `power_law_field`.

    Returns
    -------
    field : (ny, nx) `~numpy.ndarray` of float32

    Examples
    --------
    >>> from csr_astro.simulation.diffuse import diffuse_field
    >>> field = diffuse_field((64, 64), 1)
    >>> print(field.shape, field.dtype)
    (64, 64) float32
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
    # The noise is compared with the scatter of the emission at the scale of a cutout.
    small_scale = (field - ndimage.uniform_filter(field, 25, mode='wrap')).std()
    return (field + strength * max(small_scale, 1e-6) * 2 * noise).astype(np.float32)


def gradient_field(shape: tuple[int, int], rng: RngLike) -> np.ndarray:
    """A plane that rises in a random direction.

    Parameters
    ----------
    shape, rng
        As in `power_law_field`.

    Returns
    -------
    field : (ny, nx) `~numpy.ndarray` of float64
        Mean 0, standard deviation 1.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.simulation.diffuse import gradient_field
    >>> field = gradient_field((64, 64), 1)
    >>> print(np.allclose(np.diff(field, n=2, axis=0), 0), round(field.std(), 6))
    True 1.0
    """
    angle = np.random.default_rng(rng).uniform(0, 2 * np.pi)
    y, x = np.indices(shape, dtype=float)
    return _standardize(np.cos(angle) * x + np.sin(angle) * y)


def faint_sources(
    shape: tuple[int, int],
    rng: RngLike,
    *,
    density: float = 0.01,
    slope: float = -1.5,
    dynamic_range: float = 100.0,
    profile: ProfileLike | None = None,
) -> np.ndarray:
    """Confused emission of sources too faint to be resolved.

    Parameters
    ----------
    shape, rng
        As in `power_law_field`.
    density : float, optional
        Sources per pixel.
    slope : float, optional
        Slope of the integral number counts: ``N(>S) ∝ S**slope``.
    dynamic_range : float, optional
        Flux of the brightest possible source over that of the faintest.
    profile : callable, optional
        The PSF, see `~csr_astro.simulation.psf.psf_profile`; by default a
        Gaussian of 3.5 pixels.

    Returns
    -------
    field : (ny, nx) `~numpy.ndarray` of float64
        Mean 0, standard deviation 1. Sources beyond the edges contribute.

    Examples
    --------
    >>> from csr_astro.simulation.diffuse import faint_sources
    >>> field = faint_sources((64, 64), 1)
    >>> print(bool(field.max() > -2 * field.min()))  # sources are positive
    True
    """
    rng = np.random.default_rng(rng)
    if not (density > 0 and slope < 0 and dynamic_range > 1):
        raise ValueError(
            'density must be positive, slope negative and dynamic_range above 1, got '
            f'{density}, {slope} and {dynamic_range}.'
        )
    profile = gaussian_profile(3.5) if profile is None else profile
    margin = 16
    ny, nx = (n + 2 * margin for n in shape)
    n = rng.poisson(density * ny * nx)
    # Inverse of the truncated cumulative counts.
    faintest, brightest = 1.0, dynamic_range**slope
    flux = (faintest - rng.random(n) * (faintest - brightest)) ** (1 / slope)
    # On whole pixels: thousands of sources are then one convolution.
    counts = np.zeros((ny, nx))
    np.add.at(counts, (rng.integers(0, ny, n), rng.integers(0, nx, n)), flux)
    kernel = inject_sources(np.zeros((ny, nx)), [nx // 2], [ny // 2], [1.0], profile)
    spectrum = fft.rfft2(counts) * fft.rfft2(np.roll(kernel, (-(ny // 2), -(nx // 2)), (0, 1)))
    field = fft.irfft2(spectrum, s=(ny, nx))
    return _standardize(field[margin:-margin, margin:-margin])


def white_noise(shape: tuple[int, int], rng: RngLike) -> np.ndarray:
    """Noise that is independent from pixel to pixel.

    Parameters
    ----------
    shape, rng
        As in `power_law_field`.

    Returns
    -------
    noise : (ny, nx) `~numpy.ndarray` of float64
        Mean 0, standard deviation 1.

    Examples
    --------
    >>> from csr_astro.simulation.diffuse import white_noise
    >>> noise = white_noise((64, 64), 1)
    >>> print(noise.shape, round(noise.std(), 6))
    (64, 64) 1.0
    """
    return _standardize(np.random.default_rng(rng).standard_normal(shape))


def correlated_noise(shape: tuple[int, int], fwhm: float, rng: RngLike) -> np.ndarray:
    """Noise that is correlated between neighbouring pixels, as map making leaves it.

    Parameters
    ----------
    shape, rng
        As in `power_law_field`.
    fwhm : float
        Width of the Gaussian kernel in pixels.

    Returns
    -------
    noise : (ny, nx) `~numpy.ndarray` of float64
        Mean 0, standard deviation 1.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.simulation.diffuse import correlated_noise
    >>> noise = correlated_noise((64, 64), 3.0, 1)
    >>> print(round(noise.std(), 6), np.mean(noise[1:] * noise[:-1]) > 0.5)
    1.0 True
    """
    if not fwhm > 0:
        raise ValueError(f'fwhm must be positive, got {fwhm}.')
    noise = np.random.default_rng(rng).standard_normal(shape)
    return _standardize(ndimage.gaussian_filter(noise, fwhm / np.sqrt(8 * np.log(2)), mode='wrap'))


def striped_noise(
    shape: tuple[int, int],
    rng: RngLike,
    *,
    angle: float | None = None,
    length: float = 40.0,
    slope: float = -1.0,
) -> np.ndarray:
    """Stripes along the scan, as drifts of the detectors leave them.

    The power lies at waves across the scan, ``P ∝ k**slope``, and falls off along it.

    Parameters
    ----------
    shape, rng
        As in `power_law_field`.
    angle : float, optional
        Direction of the stripes in radians, counter-clockwise from the x axis;
        random by default.
    length : float, optional
        Correlation length along the stripes, in pixels.
    slope : float, optional
        Slope of the power spectrum across the stripes; −1 is 1/f noise.

    Returns
    -------
    noise : (ny, nx) `~numpy.ndarray` of float64
        Mean 0, standard deviation 1.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.simulation.diffuse import striped_noise
    >>> noise = striped_noise((64, 64), 1, angle=0)
    >>> along, across = (np.abs(np.diff(noise, axis=axis)).mean() for axis in (1, 0))
    >>> print(bool(along < 0.2 * across))
    True
    """
    rng = np.random.default_rng(rng)
    if not length > 0:
        raise ValueError(f'length must be positive, got {length}.')
    angle = rng.uniform(0, np.pi) if angle is None else angle
    ny, nx = shape
    ky, kx = fft.fftfreq(ny)[:, None], fft.rfftfreq(nx)[None, :]
    along = np.cos(angle) * kx + np.sin(angle) * ky
    across = np.abs(np.cos(angle) * ky - np.sin(angle) * kx)
    amplitude = np.maximum(across, 1 / max(shape)) ** (slope / 2)
    amplitude *= np.exp(-0.5 * (2 * np.pi * along * length / 2) ** 2)
    amplitude[0, 0] = 0
    spectrum = fft.rfft2(rng.standard_normal(shape)) * amplitude
    return _standardize(fft.irfft2(spectrum, s=(ny, nx)))


def coverage_mask(
    shape: tuple[int, int],
    rng: RngLike,
    *,
    footprint: bool = True,
    n_gaps: int = 3,
    gap_width: float = 6.0,
) -> np.ndarray:
    """Pixels that a scan map covers: a rotated rectangle with gaps.

    Parameters
    ----------
    shape, rng
        As in `power_law_field`.
    footprint : bool, optional
        Whether the map ends at a randomly rotated rectangle.
    n_gaps : int, optional
        Number of gaps: stripes along the scan, and round holes.
    gap_width : float, optional
        Mean width of a gap in pixels.

    Returns
    -------
    covered : (ny, nx) `~numpy.ndarray` of bool

    Examples
    --------
    >>> from csr_astro.simulation.diffuse import coverage_mask
    >>> covered = coverage_mask((100, 100), 1)
    >>> print(0.4 < covered.mean() < 1)
    True
    """
    rng = np.random.default_rng(rng)
    ny, nx = shape
    y, x = np.indices(shape, dtype=float)
    y -= (ny - 1) / 2
    x -= (nx - 1) / 2
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    covered = np.ones(shape, dtype=bool)
    if footprint:
        for part in (along, across):
            covered &= np.abs(part) <= 0.5 * rng.uniform(0.8, 1.0) * np.hypot(ny, nx) / 1.2
    for _ in range(n_gaps):
        width = gap_width * rng.uniform(0.5, 1.5)
        x0, y0 = rng.uniform(-0.5, 0.5, 2) * (nx, ny)
        if rng.random() < 0.5:
            gap = np.abs(across - y0) <= width / 2
            gap &= np.abs(along - x0) <= rng.uniform(0.2, 1.0) * max(shape)
        else:
            gap = np.hypot(x - x0, y - y0) <= width / 2
        covered &= ~gap
    return covered


def radial_periodogram(
    image: np.ndarray, n_bins: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean power of the waves of a map in rings of spatial frequency.

    The valid pixels, without their plane, are multiplied by a window that fades out towards the
    edges, so that the jump from one edge to the opposite one does not count as structure. The
    effect of gaps on the power is not corrected:
    `~csr_astro.evaluation.power_spectrum.power_spectrum` does that.

    Parameters
    ----------
    image : (ny, nx) array
        The map, NaN where it is invalid.
    n_bins : int, optional
        Number of bins between zero and one half.

    Returns
    -------
    k : (n,) `~numpy.ndarray`
        Spatial frequency in 1/pixel, mean of each bin.
    power : (n,) `~numpy.ndarray`
        Power per mode; 1 for white noise of unit variance.

    Examples
    --------
    >>> from csr_astro.simulation.diffuse import radial_periodogram, white_noise
    >>> k, power = radial_periodogram(white_noise((128, 128), 1))
    >>> print(round(power[10:].mean(), 1))
    1.0
    """
    image = np.asarray(image, dtype=float)
    if image.ndim != 2 or min(image.shape) < 8:
        raise ValueError(f'a power spectrum needs at least 8 x 8 pixels, got {image.shape}.')
    valid = np.isfinite(image)
    if valid.sum() < 16:
        raise ValueError('a power spectrum needs more than a few valid pixels.')
    window = np.outer(*(signal.windows.tukey(n, _TAPER, sym=False) for n in image.shape)) * valid
    values = np.where(valid, image - image[valid].mean(), 0)
    plane = fit_plane(values[np.newaxis], valid[np.newaxis])[0]
    values = np.where(valid, values - plane, 0)
    weighted = (values - (window * values).sum() / window.sum()) * window
    power = np.abs(fft.fft2(weighted)) ** 2 / (window**2).sum()
    k = np.hypot(fft.fftfreq(image.shape[0])[:, None], fft.fftfreq(image.shape[1])[None, :])
    n_bins = min(image.shape) // 2 if n_bins is None else n_bins
    inside = (k > 0) & (k <= 0.5)
    index = np.minimum((k[inside] * 2 * n_bins).astype(int), n_bins - 1)
    counts = np.bincount(index, minlength=n_bins)
    filled = counts > 0
    means = [
        np.bincount(index, part, minlength=n_bins)[filled] / counts[filled]
        for part in (k[inside], power[inside])
    ]
    return means[0], means[1]


def matched_field(
    image: np.ndarray, rng: RngLike, *, shape: tuple[int, int] | None = None, n_iterations: int = 30
) -> np.ndarray:
    """A random field with the power spectrum and the histogram of a real map.

    A field of random phases is given the map's spectrum and the map's sorted values
    alternately, until both fit.

    Parameters
    ----------
    image : (ny, nx) array
        The real map, NaN where it is invalid.
    rng : `numpy.random.Generator` or int
        Source of randomness, or a seed.
    shape : tuple of int, optional
        (ny, nx) of the field, that of the map by default; the field is
        periodic.
    n_iterations : int, optional
        Number of alternations.

    Returns
    -------
    field : (ny, nx) `~numpy.ndarray` of float64
        It has the values of the map, and its power spectrum without its plane as closely as
        these values allow.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.simulation.diffuse import lognormal_field, matched_field
    >>> image = lognormal_field((64, 64), -3, 0.8, 1)
    >>> field = matched_field(image, 2)
    >>> print(np.allclose(np.sort(field, axis=None), np.sort(image, axis=None)))
    True
    """
    rng = np.random.default_rng(rng)
    image = np.asarray(image, dtype=float)
    k, power = radial_periodogram(image)
    ny, nx = image.shape if shape is None else shape
    grid = np.hypot(fft.fftfreq(ny)[:, None], fft.rfftfreq(nx)[None, :])
    grid[0, 0] = k[0]
    # Straight lines in logarithms, continued beyond the ends.
    good = power > 0
    if good.sum() < 2 or np.nanmin(image) == np.nanmax(image):
        raise ValueError('the map has no structure that a field could be matched to.')
    log_k, log_power = np.log(k[good]), np.log(power[good])
    amplitude = np.exp(0.5 * np.interp(np.log(grid), log_k, log_power))
    low = min(4, len(log_k))
    slope = np.polyfit(log_k[:low], log_power[:low], 1)[0]
    beyond = np.log(grid) < log_k[0]
    amplitude[beyond] *= np.exp(0.5 * slope * (np.log(grid[beyond]) - log_k[0]))
    amplitude[0, 0] = 0
    # Sorted values of the map, as many as the field has pixels.
    valid = np.sort(image[np.isfinite(image)])
    quantiles = (np.arange(ny * nx) + 0.5) / (ny * nx)
    values = np.interp(quantiles, (np.arange(len(valid)) + 0.5) / len(valid), valid)
    noise = fft.rfft2(rng.standard_normal((ny, nx)))
    # Modes keep the scatter of a random field about the mean spectrum.
    target = amplitude * np.abs(noise)
    # A real transform keeps one of two conjugate waves: they count twice.
    power = 2 * target**2
    power[:, [0, -1] if nx % 2 == 0 else [0]] /= 2
    # The longest waves follow from the histogram: a windowed map without its plane constrains
    # them little.
    order = np.argsort(-grid, axis=None)
    budget = 0.9 * values.var() * (ny * nx) ** 2
    longest = (grid <= max(k[1], 2 / min(ny, nx))).ravel()
    longest[order] |= np.cumsum(power.ravel()[order]) > budget
    longest = longest.reshape(grid.shape)
    if power[longest].sum() > 0:
        missing = values.var() * (ny * nx) ** 2 - power[~longest].sum()
        target[longest] *= np.sqrt(missing / power[longest].sum())
    phases = noise / np.abs(noise)
    field = fft.irfft2(phases * target, s=(ny, nx))
    for _ in range(n_iterations):
        ranked = np.empty(ny * nx)
        ranked[np.argsort(field, axis=None)] = values
        spectrum = fft.rfft2(ranked.reshape(ny, nx))
        size = np.abs(spectrum)
        size[size == 0] = 1
        field = fft.irfft2(np.where(longest, spectrum, spectrum / size * target), s=(ny, nx))
    ranked = np.empty(ny * nx)
    ranked[np.argsort(field, axis=None)] = values
    return ranked.reshape(ny, nx)
