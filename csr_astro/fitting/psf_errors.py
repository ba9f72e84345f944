"""What the sources of a map tell of the errors of its PSF.

Fits take the width of the PSF and its value in each pixel as known to some error. The sources of
a map share one PSF: what all others show of its width is the prior of each, and what is left in
the residuals of all tells how well its profile is known.
"""

from __future__ import annotations

import numpy as np

__all__ = ['profile_error', 'width_prior']


# Sources tell of the width if they add this part to what is known before; those so many standard
# deviations off the others are resolved, or blends, and do not.
_MIN_INFORMATION = 0.01
_CLIP = 3.0
_CLIPPINGS = 5
# The given scatter of the widths counts as much as that of so many sources. With 3, fluxes at SNR
# 200 on SPIRE maps scattered by 0.6 of those of photutils instead of by 0.4.
_PRIOR_SOURCES = 1
# The smallest error of the profile, over the given one.
_SMALLEST = 0.01


def width_prior(
    posterior: np.ndarray,
    posterior_err: np.ndarray,
    prior: np.ndarray,
    prior_err: np.ndarray,
    *,
    error: float,
    scatter: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Prior of the width of each source from the widths of all others.

    The widths are those of a hierarchical model: a common one with a prior of mean 0 and
    standard deviation ``error``, about which single sources scatter.

    Parameters
    ----------
    posterior, posterior_err, prior, prior_err : (N,) `~numpy.ndarray` of float
        Logarithms of the relative widths after and before the fits, and their errors; NaN where
        there is no fit.
    error, scatter : float
        Standard deviations of the common width, and of single ones about it. What the sources
        show of the latter is taken along.

    Returns
    -------
    mean, deviation : (N,) `~numpy.ndarray` of float

    Examples
    --------
    One bright source of two tells the width of the other:

    >>> import numpy as np
    >>> from csr_astro.fitting.psf_errors import width_prior
    >>> zeros, before = np.zeros(2), np.full(2, 0.05)
    >>> mean, deviation = width_prior(np.array([-0.04, 0.0]), np.array([0.001, 0.05]), zeros,
    ...                               before, error=0.05, scatter=0.01)
    >>> print(mean[1].round(2), deviation.round(2))
    -0.04 [0.05 0.01]
    """
    with np.errstate(divide='ignore', invalid='ignore'):
        # The data alone: the prior is divided out.
        information = np.nan_to_num(posterior_err**-2.0 - prior_err**-2.0, posinf=0, neginf=0)
        information[information < _MIN_INFORMATION * prior_err**-2.0] = 0
        measured = (posterior * posterior_err**-2.0 - prior * prior_err**-2.0) / information
    known = information > 0
    measured = np.where(known, measured, 0.0)
    variance = 1 / np.where(known, information, 1.0)
    weight = known / (variance + scatter**2)
    # Much wider than the PSF may be is not the PSF.
    weight[np.abs(measured) > _CLIP * np.hypot(error, scatter)] = 0
    for _ in range(_CLIPPINGS):
        common = (weight * measured).sum() / (weight.sum() + error**-2.0)
        weight[np.abs(measured - common) * np.sqrt(weight) > _CLIP] = 0
    if scatter > 0:
        excess = (measured - common) ** 2 - variance
        pseudo = _PRIOR_SOURCES * scatter**-4.0
        found = (weight**2 @ excess + pseudo * scatter**2) / (weight @ weight + pseudo)
        scatter = max(np.sqrt(max(found, 0)), scatter / 10)
    weight = (weight > 0) / (variance + scatter**2)
    others = weight.sum() - weight + error**-2.0
    mean = ((weight * measured).sum() - weight * measured) / others
    return mean, np.sqrt(1 / others + scatter**2)


def profile_error(
    given: float,
    current: float,
    score: np.ndarray,
    information: np.ndarray,
    *,
    largest: float = 5.0,
) -> float:
    """Relative error of the PSF in each pixel, from the residuals of all fits.

    A step of Fisher's scoring of the variance for each fit, and the median of them, weighted
    by their information: a few sources that are unlike the PSF do not decide.

    Parameters
    ----------
    given, current : float
        Error before any fit, which counts as one pixel, and the one with which fits were made.
    score, information : (N,) `~numpy.ndarray` of float
        Derivative of the logarithm of the likelihood with respect to the variance, and its
        expected negative second derivative.
    largest : float, optional
        Limit of the result, over the given error.

    Returns
    -------
    error : float
        At least a hundredth of the given one.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.fitting.psf_errors import profile_error
    >>> print(profile_error(0.02, 0.02, np.array([-1e5]), np.array([2.5e8])))
    0.0002
    """
    used = information > 0
    variance = np.append(current**2 + score[used] / information[used], given**2)
    weight = np.append(information[used], 0.5 / given**4)
    order = np.argsort(variance)
    total = np.cumsum(weight[order])
    middle = variance[order][np.searchsorted(total, total[-1] / 2)]
    return float(np.sqrt(np.clip(middle, (_SMALLEST * given) ** 2, (largest * given) ** 2)))
