"""Image of point sources of known flux on the pixels of a map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.spatial import KDTree

from csr_astro.cutouts import window_corner

__all__ = ['PixelProfile', 'SourceModel']


class PixelProfile(Protocol):
    """PSF averaged over pixels, such as `~csr_astro.fitting.PixelPSF`.

    Attributes
    ----------
    radius : float
        Distance in pixels at which it ends.
    """

    radius: float

    def evaluate(self, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
        """Flux in the pixels of a grid, for a source of unit flux.

        Parameters
        ----------
        dx, dy : (nx,), (ny,) `~numpy.ndarray` of float
            Offsets of the columns and rows from the source, in pixels.

        Returns
        -------
        values : (ny, nx) `~numpy.ndarray` of float
        """


@dataclass(frozen=True, eq=False)
class SourceModel:
    """Point sources of one PSF, as far as their fluxes are known.

    Attributes
    ----------
    psf : `PixelProfile`
        The PSF.
    x, y, flux, width : (N,) `~numpy.ndarray` of float
        Positions in pixels, fluxes in sums of the map, and factors by which the PSF is
        stretched.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.fitting import pixel_psf
    >>> from csr_astro.source_model import SourceModel
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> one = np.ones(1)
    >>> model = SourceModel(pixel_psf(gaussian_profile(3)), 20 * one, 30 * one, 5 * one, one)
    >>> print(model.windows([20.0], [30.0], 33).sum().round(2))
    5.0
    """

    psf: PixelProfile
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    width: np.ndarray

    def __repr__(self) -> str:
        return f'<SourceModel: {len(self.x)} sources, {self.psf!r}>'

    def windows(self, x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
        """Image of the sources in windows around positions.

        Parameters
        ----------
        x, y : (K,) array of float
            Positions in pixels.
        size : int
            Width of the windows, as in `~csr_astro.cutouts.extract`.

        Returns
        -------
        images : (K, size, size) `~numpy.ndarray` of float
        """
        images = np.zeros((len(x), size, size))
        if not len(self.x):
            return images
        reach = size / 2 + self.psf.radius * self.width.max() + 1
        tree = KDTree(np.column_stack([self.x, self.y]))
        near = tree.query_ball_point(np.column_stack([x, y]), reach, p=np.inf, return_sorted=True)
        for k, members in enumerate(near):
            x0, y0 = window_corner(x[k], y[k], size)
            columns, rows = x0 + np.arange(size), y0 + np.arange(size)
            for i in members:
                dx, dy = ((pixels - center) / self.width[i]
                          for pixels, center in ((columns, self.x[i]), (rows, self.y[i])))
                images[k] += self.flux[i] / self.width[i] ** 2 * self.psf.evaluate(dx, dy)
        return images
