"""Wings of a source outside its mask, fitted together with its background."""

from __future__ import annotations

import numpy as np

__all__ = ['CONTRAST', 'WING_SLOPES', 'wing', 'wing_amplitude']


#: Wings as powers of the distance.
WING_SLOPES = (2.5, 5.0)
#: The source is at least this much brighter than its wing, unlike a clump of the background.
CONTRAST = 10.0
# Wings are subtracted if their amplitude exceeds this many standard errors.
_THRESHOLD = 3.0


def wing(distance: np.ndarray, radius: float, slope: float) -> np.ndarray:
    """Compute the profile of a source outside its mask, 1 at the rim.

    Parameters
    ----------
    distance : `~numpy.ndarray` of float
        Distances from the source in pixels.
    radius : float
        Radius of the mask in pixels.
    slope : float
        Power of the distance with which the profile falls.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.wings import wing
    >>> print(wing(np.array([3, 5, 10]), 5, 2))
    [1.   1.   0.25]
    """
    return (np.maximum(distance, radius) / max(radius, 1)) ** -slope


def wing_amplitude(products: np.ndarray) -> tuple[float, float, int]:
    """Fit the amplitude of a wing.

    Parameters
    ----------
    products : (2 + K, 2 + K) `~numpy.ndarray` of float
        Scalar products, under the inverse covariance, of a constant, the pixels, and the K
        shapes of wings.

    Returns
    -------
    amplitude, error : float
        0 if no wing is significant.
    number : int
        The most significant shape.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.kriging.wings import wing, wing_amplitude
    >>> shape = wing(np.arange(9.0, 40.0), 9, 2.5)
    >>> sides = np.stack([np.ones(len(shape)), 100 * shape, shape])
    >>> amplitude, error, number = wing_amplitude(sides @ sides.T)
    >>> bool(99 < amplitude < 100), number
    (True, 0)
    """
    constant, data, shapes = products[0], products[1], products[2:]
    level = shapes[:, 0] / constant[0]
    information = np.diagonal(shapes[:, 2:]) - shapes[:, 0] * level
    # Few pixels cannot distinguish a wing from a constant.
    known = information > 1e-9 * np.diagonal(shapes[:, 2:])
    significance = np.zeros(len(shapes))
    estimate = data[2:] - data[0] * level
    significance[known] = estimate[known] / np.sqrt(information[known])
    number = int(np.argmax(significance))
    best = significance[number]
    if best <= _THRESHOLD:
        return 0.0, 0.0, number
    # Reduced by the amplitude that noise alone could give.
    error = 1 / np.sqrt(information[number])
    return best * error * (1 - (_THRESHOLD / best) ** 2), error, number
