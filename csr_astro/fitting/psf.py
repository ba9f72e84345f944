"""PSFs on the pixels of a map, with the derivatives that a fit needs."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, interpolate

from csr_astro.simulation.psf import psf_profile

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from csr_astro.typing import ProfileLike, PsfLike

__all__ = ['PixelPSF', 'pixel_psf']


# Samples per FWHM: a cubic spline through 10 is good to 1e-4 of the peak.
_SAMPLES_PER_FWHM = 10
_MAX_OVERSAMPLING = 12
# Radius in pixels of the table of a profile that does not end.
_DEFAULT_RADIUS = 32.0
# Sub-pixel centres over which the profile is averaged, as in `psf_stamp`.
_SUBPIXELS = np.array([-1.0, 0.0, 1.0]) / 3
# A Gaussian ends after so many standard deviations.
_GAUSSIAN_RADIUS = 4.5
# The table is cut where all that is left outside is less than this part of the peak.
_NEGLIGIBLE = 1e-8


class PixelPSF:
    """PSF averaged over the pixels of a map, as a spline through an oversampled table.

    Parameters
    ----------
    table : (n, n) `~numpy.ndarray` of float
        Flux that falls into a pixel of the map, for a source of unit flux; n is odd, and the
        source lies at the central element.
    oversampling : int
        Elements of the table per pixel of the map.

    Attributes
    ----------
    fwhm : float
        Diameter in pixels of the circle with the area above half the maximum.
    radius : float
        Half the width of the table in pixels; the PSF is zero outside.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.fitting.psf import pixel_psf
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> psf = pixel_psf(gaussian_profile(3.5))
    >>> offsets = np.arange(-9, 10) - 0.3
    >>> print(round(psf.evaluate(offsets, offsets).sum(), 4), round(psf.fwhm, 1))
    1.0 3.5
    """

    def __init__(self, table: np.ndarray, oversampling: int) -> None:
        self._table = table
        self._oversampling = oversampling
        self.radius = (len(table) // 2) / oversampling
        above = (table > table.max() / 2).sum() / oversampling**2
        self.fwhm = float(2 * np.sqrt(above / np.pi))

    @property
    def table(self) -> np.ndarray:
        """The oversampled table, (n, n)."""
        return self._table

    @property
    def oversampling(self) -> int:
        """Elements of the table per pixel of the map."""
        return self._oversampling

    def __repr__(self) -> str:
        return f'<PixelPSF: FWHM {self.fwhm:.3g} pixels, up to {self.radius:.3g} pixels>'

    def evaluate(
        self, dx: np.ndarray, dy: np.ndarray, *, order: tuple[int, int] = (0, 0)
    ) -> np.ndarray:
        """Value or partial derivative of the PSF on a grid of pixels.

        Parameters
        ----------
        dx, dy : (nx,), (ny,) `~numpy.ndarray` of float
            Increasing offsets of the columns and rows from the source, in pixels.
        order : (int, int), optional
            Order of the derivative with respect to ``dx`` and ``dy``.

        Returns
        -------
        values : (ny, nx) `~numpy.ndarray` of float
        """
        values = np.zeros((len(dy), len(dx)))
        rows, columns = (np.flatnonzero(np.abs(d) <= self.radius) for d in (dy, dx))
        if len(rows) and len(columns):
            near = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            values[near] = self._spline(dy[near[0]], dx[near[1]], dx=order[1], dy=order[0])
        return values

    def with_derivatives(
        self, dx: np.ndarray, dy: np.ndarray, *, width: float = 1.0
    ) -> np.ndarray:
        """The PSF and its derivatives with respect to position and width.

        Parameters
        ----------
        dx, dy
            As in `evaluate`.
        width : float, optional
            By which the PSF is stretched, at constant flux.

        Returns
        -------
        values : (4, ny, nx) `~numpy.ndarray` of float
            P, ∂P/∂x and ∂P/∂y for the position (x, y) of the source, and ∂P/∂ln(width)
            at constant flux, ``−2 P − dx ∂P/∂dx − dy ∂P/∂dy``.
        """
        dx, dy = dx / width, dy / width
        value = self.evaluate(dx, dy)
        slope_x = self.evaluate(dx, dy, order=(1, 0))
        slope_y = self.evaluate(dx, dy, order=(0, 1))
        wider = -2 * value - dx * slope_x - dy[:, np.newaxis] * slope_y
        return np.stack([value, -slope_x / width, -slope_y / width, wider]) / width**2

    def enclosed_energy(self, radius: ArrayLike) -> np.ndarray:
        """Fraction of the flux in circles around the source.

        Parameters
        ----------
        radius : array-like of float
            Radii in pixels, positive.

        Returns
        -------
        fraction : `~numpy.ndarray` of float
            On the pixels of the map, for a source at the centre of a pixel; 1 is the flux inside
            `radius` of this PSF.
        """
        from photutils.aperture import CircularAperture

        radius = np.asarray(radius, dtype=float)
        reach = int(np.ceil(self.radius))
        steps = np.arange(-reach, reach + 1.0)
        image = self.evaluate(steps, steps)
        found = np.full(radius.shape, np.nan)
        for index in np.ndindex(radius.shape):
            if radius[index] > 0:
                circle = CircularAperture((reach, reach), min(radius[index], 2 * reach))
                found[index] = circle.do_photometry(image)[0][0] / image.sum()
        return found

    def convolved(self, covariance: np.ndarray) -> PixelPSF:
        """Image of an elliptical Gaussian source.

        Parameters
        ----------
        covariance : (2, 2) `~numpy.ndarray` of float
            Second moments (xx, xy; xy, yy) of the Gaussian, in square pixels.

        Returns
        -------
        psf : `PixelPSF`
            Convolved in Fourier space. Its derivatives with respect to the moments follow from
            the heat equation: ``∂P/∂xx = ½ ∂²P/∂dx²``, ``∂P/∂xy = ∂²P/∂dx∂dy``.
        """
        largest = np.sqrt(max(np.linalg.eigvalsh(covariance)[-1], 0))
        pad = int(np.ceil(_GAUSSIAN_RADIUS * largest * self._oversampling))
        table = np.pad(self._table, pad)
        n = fft.next_fast_len(len(table) + pad, real=True)
        scale = 2 * np.pi * self._oversampling
        ky = scale * fft.fftfreq(n)[:, np.newaxis]
        kx = scale * fft.rfftfreq(n)
        exponent = covariance[0, 0] * kx**2 + 2 * covariance[0, 1] * kx * ky
        exponent = exponent + covariance[1, 1] * ky**2
        spectrum = fft.rfft2(table, (n, n)) * np.exp(-exponent / 2)
        return PixelPSF(fft.irfft2(spectrum, (n, n))[: len(table), : len(table)],
                        self._oversampling)  # fmt: skip

    @cached_property
    def _spline(self):
        steps = (np.arange(len(self._table)) - len(self._table) // 2) / self._oversampling
        return interpolate.RectBivariateSpline(steps, steps, self._table)


def pixel_psf(
    psf: PsfLike | PixelPSF,
    pixel_scale: float | None = None,
    *,
    psf_scale: float | None = None,
    radius: float | None = None,
) -> PixelPSF:
    """Tabulate a PSF on the pixels of a map.

    Parameters
    ----------
    psf : profile, path-like, image HDU, array, astropy or photutils model, or `PixelPSF`
        As in `~csr_astro.simulation.psf.psf_profile`.
    pixel_scale, psf_scale : float, optional
        Pixel scales of the map and of an image of the PSF, in arcsec.
    radius : float, optional
        Radius in pixels at which the PSF is cut off. By default that of the profile, or 32.

    Returns
    -------
    psf : `PixelPSF`
        A photutils model keeps its own normalisation (its ``flux`` is 1); others are
        normalised to a unit sum inside the radius.

    Examples
    --------
    >>> from csr_astro.fitting.psf import pixel_psf
    >>> from photutils.psf import CircularGaussianPRF
    >>> print(pixel_psf(CircularGaussianPRF(fwhm=3)))
    <PixelPSF: FWHM 3.1 pixels, up to 7.75 pixels>
    """
    if isinstance(psf, PixelPSF):
        return psf
    keeps_flux = 'flux' in getattr(psf, 'param_names', ())
    if keeps_flux:
        psf = psf.copy()
        psf.flux = 1
    profile = psf_profile(psf, pixel_scale, psf_scale=psf_scale)
    if radius is None:
        radius = getattr(profile, 'radius', np.inf)
        radius = _DEFAULT_RADIUS if np.isinf(radius) else radius + 1
    oversampling = _oversampling(profile)
    table = _trimmed(_tabulate(profile, radius, oversampling))
    if not keeps_flux:
        table /= table.sum() / oversampling**2
    return PixelPSF(table, oversampling)


def _trimmed(table):
    """Cut off a rim that is negligible, such as that of a Gaussian."""
    middle = len(table) // 2
    rows, columns = np.nonzero(np.abs(table) > _NEGLIGIBLE * np.abs(table).max())
    reach = int(max(np.abs(rows - middle).max(), np.abs(columns - middle).max()))
    near = slice(middle - reach, middle + reach + 1)
    return np.ascontiguousarray(table[near, near])


def _tabulate(profile: ProfileLike, radius: float, oversampling: int) -> np.ndarray:
    """Averages of a profile over pixels whose centres are 1 / oversampling apart."""
    reach = int(np.ceil(radius * oversampling))
    steps = np.arange(-reach, reach + 1) / oversampling
    # What is left of the map's pixel beside that of an image of the PSF: squares of widths add.
    width = np.sqrt(max(0.0, 1 - getattr(profile, 'pixel', 0.0) ** 2))
    if width == 0:
        return np.array(profile(*np.meshgrid(steps, steps)), dtype=float)
    table = np.zeros((len(steps), len(steps)))
    for shift_y in width * _SUBPIXELS:
        for shift_x in width * _SUBPIXELS:
            table += profile(*np.meshgrid(steps + shift_x, steps + shift_y))
    return table / len(_SUBPIXELS) ** 2


def _oversampling(profile):
    """Enough samples per pixel for a spline."""
    coarse = PixelPSF(_tabulate(profile, 8, 4), 4)
    return int(np.clip(np.ceil(_SAMPLES_PER_FWHM / coarse.fwhm), 2, _MAX_OVERSAMPLING))
