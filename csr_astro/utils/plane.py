"""Planes through the pixels of maps and cutouts, by weighted least squares."""

import numpy as np

__all__ = ['fit_plane']


def fit_plane(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit a plane to each image of a stack.

    Parameters
    ----------
    values : (N, ny, nx) array of float
        Images. Subtract a typical value first: planes through large numbers lose digits.
    weights : (N, ny, nx) array of float or bool
        Weights of the squared residuals. Values of weight 0 have no influence and may be NaN.

    Returns
    -------
    plane : (N, ny, nx) `~numpy.ndarray` of float64
        The plane at every pixel. Of several planes that fit equally well, as through fewer than
        three pixels, the one with the smallest coefficients.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.utils.plane import fit_plane
    >>> plane = 2.0 + np.add.outer(3 * np.arange(5.0), np.arange(6.0))[np.newaxis]
    >>> values = plane.copy()
    >>> values[0, 2, 2] = np.nan
    >>> np.allclose(fit_plane(values, np.isfinite(values)), plane)
    True
    """
    shape = values.shape[-2:]
    y, x = ((np.arange(n) - n // 2) / n for n in shape)
    basis = np.stack([np.ones(shape), *np.meshgrid(x, y)])
    weights = weights.astype(float)
    weighted = np.where(weights > 0, values, 0) * weights
    normal = np.einsum('iyx,jyx,nyx->nij', basis, basis, weights, optimize=True)
    moment = np.einsum('iyx,nyx->ni', basis, weighted)
    coefficients = np.einsum('nij,nj->ni', np.linalg.pinv(normal, hermitian=True), moment)
    return np.einsum('iyx,ni->nyx', basis, coefficients)
