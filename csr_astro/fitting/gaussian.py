"""Elliptical Gaussian sources convolved with the PSF.

The second moments of the source are Σ = L Lᵀ with L = (a, 0; b, c): every (a, b, c) is an
ellipse, and (0, 0, 0) a point source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from csr_astro.masking import SourceMask

if TYPE_CHECKING:
    from csr_astro.fitting.psf import PixelPSF

__all__ = ['ellipse_axes', 'elliptical_mask', 'moments', 'shape_derivatives']


# FWHM of a Gaussian over its standard deviation.
FWHM = 2 * np.sqrt(2 * np.log(2))
_STEP = 1e-4


def moments(shape: np.ndarray) -> np.ndarray:
    """Second moments of a source.

    Parameters
    ----------
    shape : (3,) `~numpy.ndarray` of float
        (a, b, c) of L, in pixels.

    Returns
    -------
    moments : (2, 2) `~numpy.ndarray` of float
        (xx, xy; xy, yy), in square pixels.

    Examples
    --------
    >>> from csr_astro.fitting.gaussian import moments
    >>> moments((2, 0, 1)).tolist()
    [[4, 0], [0, 1]]
    """
    a, b, c = shape
    return np.array([[a * a, a * b], [a * b, b * b + c * c]])


def shape_of(second_moments, smallest):
    """Find (a, b, c) of the nearest ellipse whose axes are not too small.

    Parameters
    ----------
    second_moments : (2, 2) `~numpy.ndarray` of float
        In square pixels.
    smallest : float
        Smallest standard deviation along an axis, in pixels.
    """
    values, vectors = np.linalg.eigh(second_moments)
    values = np.maximum(values, smallest**2)
    lower = np.linalg.cholesky((vectors * values) @ vectors.T)
    return np.array([lower[0, 0], lower[1, 0], lower[1, 1]])


def shape_derivatives(
    psf: PixelPSF, dx: np.ndarray, dy: np.ndarray, shape: np.ndarray
) -> np.ndarray:
    """Derivatives of the image of a source with respect to (a, b, c).

    Parameters
    ----------
    psf : `~csr_astro.fitting.psf.PixelPSF`
        Already convolved with the source.
    dx, dy : (nx,), (ny,) `~numpy.ndarray` of float
        Offsets of columns and rows from the source, in pixels.
    shape : (3,) `~numpy.ndarray` of float
        (a, b, c), in pixels.

    Returns
    -------
    derivatives : (3, ny, nx) `~numpy.ndarray` of float
        By the heat equation: ``∂P/∂xx = ½ ∂²P/∂dx²``, ``∂P/∂xy = ∂²P/∂dx∂dy``.
    """
    by_xx, by_xy, by_yy = moment_derivatives(psf, dx, dy)
    a, b, c = shape
    return np.stack([2 * a * by_xx + b * by_xy, a * by_xy + 2 * b * by_yy, 2 * c * by_yy])


def moment_derivatives(psf, dx, dy):
    """Derivatives of the image of a source with respect to its moments xx, xy, yy.

    Parameters
    ----------
    psf, dx, dy
        As in `shape_derivatives`.
    """
    return np.stack([
        psf.evaluate(dx, dy, order=(2, 0)) / 2,
        psf.evaluate(dx, dy, order=(1, 1)),
        psf.evaluate(dx, dy, order=(0, 2)) / 2,
    ])


def ellipse_axes(
    shape: np.ndarray, covariance: np.ndarray | None = None, beam: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Axes and angle of a source, and their errors.

    Parameters
    ----------
    shape : (3,) `~numpy.ndarray` of float
        (a, b, c), in pixels.
    covariance : (3, 3) `~numpy.ndarray` of float, optional
        Of (a, b, c).
    beam : float, optional
        FWHM in pixels of a round beam with which the source is convolved.

    Returns
    -------
    axes, errors : (3,) `~numpy.ndarray` of float
        FWHM of the major and of the minor axis in pixels; angle of the major axis from the
        x axis, counter-clockwise, in degrees between −90 and 90. Errors are NaN without a
        covariance.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.fitting.gaussian import ellipse_axes
    >>> axes, _ = ellipse_axes(np.array([1.0, 0.0, 2.0]))
    >>> print(axes.round(2))
    [ 4.71  2.35 90.  ]
    """
    axes = _axes(shape, beam)
    if covariance is None:
        return axes, np.full(3, np.nan)
    slopes = np.empty((3, 3))
    for k in range(3):
        step = np.zeros(3)
        step[k] = _STEP
        slopes[:, k] = (_axes(shape + step, beam) - _axes(shape - step, beam)) / (2 * _STEP)
    # Angles are the same modulo 180 degrees.
    half_turn = 90 / _STEP
    slopes[2] = (slopes[2] + half_turn / 2) % half_turn - half_turn / 2
    return axes, np.sqrt(np.maximum(np.diag(slopes @ covariance @ slopes.T), 0))


def _axes(shape, beam):
    values, vectors = np.linalg.eigh(moments(shape) + (beam / FWHM) ** 2 * np.identity(2))
    minor, major = FWHM * np.sqrt(np.maximum(values, 0))
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    return np.array([major, minor, (angle + 90 - 1e-9) % 180 - 90 + 1e-9])


def elliptical_mask(
    x: float, y: float, second_moments: np.ndarray, radius: float, shape: tuple[int, int]
) -> SourceMask | None:
    """Pixels within an ellipse.

    Parameters
    ----------
    x, y : float
        Position in pixels.
    second_moments : (2, 2) `~numpy.ndarray` of float
        Of the convolved source, in square pixels.
    radius : float
        Semi-axes of the mask over the FWHM of the source.
    shape : (int, int)
        Shape of the map.

    Returns
    -------
    mask : `~csr_astro.masking.SourceMask` or None
        None if no pixel is on the map.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.fitting.gaussian import elliptical_mask
    >>> mask = elliptical_mask(30, 20, np.diag([4.0, 1.0]), 1.5, (50, 60))
    >>> print(mask.pixels.shape)
    (7, 15)
    """
    reach = radius * FWHM * np.sqrt(np.diag(second_moments))
    bounds = [
        (max(int(np.ceil(center - r)), 0), min(int(np.floor(center + r)) + 1, n))
        for center, r, n in zip((y, x), reach[::-1], shape, strict=True)
    ]
    rows, columns = np.ogrid[slice(*bounds[0]), slice(*bounds[1])]
    inverse = np.linalg.inv(second_moments)
    dx, dy = columns - x, rows - y
    squared = inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2
    pixels = squared <= (radius * FWHM) ** 2
    if not pixels.any():
        return None
    clipped = bool((np.array([y, x]) - reach < 0).any()
                   or (np.array([y, x]) + reach > np.array(shape) - 1).any())  # fmt: skip
    return SourceMask(bounds[0][0], bounds[1][0], pixels, float(reach.max()), clipped)
