"""Columns and images of what a fit found."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.table import QTable
from photutils.psf import CircularGaussianPRF, PSFPhotometry

from csr_astro.fitting.gaussian import moments

if TYPE_CHECKING:
    from csr_astro.fitting import PixelPSF, SourceFits
    from csr_astro.images import Image

__all__ = ['ellipse_columns', 'fit_columns', 'model_image', 'photutils_columns', 'source_window']


@cache
def photutils_columns() -> dict[str, str]:
    """Columns of the installed photutils' `~photutils.psf.PSFPhotometry`, from its own output.

    Returns
    -------
    names : dict of str to str
        Their names, in order, and those under which `fit_columns` has their values: versions
        of photutils spell the number of pixels differently.

    Examples
    --------
    >>> from csr_astro.photometry.psf_columns import photutils_columns
    >>> list(photutils_columns())[:3]
    ['id', 'group_id', 'group_size']
    """
    model = CircularGaussianPRF(flux=100.0, x_0=5, y_0=5, fwhm=3)
    y, x = np.indices((11, 11))
    table = PSFPhotometry(model, 5, aperture_radius=3)(
        model(x, y), init_params=QTable({'x': [5.0], 'y': [5.0]})
    )
    return {name: 'n_pixels' if 'pix' in name else name for name in table.colnames}


def fit_columns(
    fits: SourceFits, image: Image, start: tuple[np.ndarray, np.ndarray]
) -> dict[str, np.ndarray]:
    """Compute the columns of photutils from a fit.

    Parameters
    ----------
    fits : `~csr_astro.fitting.SourceFits`
        Fit of N sources.
    image : `~csr_astro.images.Image`
        The map.
    start : ((N,), (N,)) `~numpy.ndarray` of float
        Initial positions, x and y in pixels.

    Returns
    -------
    columns : dict of str to (N,) `~numpy.ndarray`
        In pixels and in the unit of the map; NaN for sources that were not fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.fitting import fit_sources, pixel_psf
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.photometry.psf_columns import fit_columns
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> image = parse_image(np.random.default_rng(0).normal(size=(80, 80)))
    >>> start = np.array([40.0]), np.array([30.0])
    >>> fits = fit_sources(image, *start, pixel_psf(gaussian_profile(3.5)))
    >>> print(fit_columns(fits, image, start)['n_pixels'])
    [61]
    """
    n = len(fits.flux)
    columns = {name: np.full(n, np.nan) for name in ('flux_init', 'qfit', 'cfit')}
    n_pixels = np.zeros(n, dtype=int)
    for i, place in enumerate(fits.background):
        if place is None:
            continue
        rows, pixels, values = place
        n_pixels[i] = len(rows)
        columns['flux_init'][i] = (image.data[rows, pixels] - values).sum(dtype=float)
        residual = fits.left[i]
        center = np.argmin(np.hypot(pixels - fits.x[i], rows - fits.y[i]))
        with np.errstate(divide='ignore', invalid='ignore'):
            columns['qfit'][i] = np.abs(residual).sum() / fits.flux[i]
            columns['cfit'][i] = residual[center] / fits.flux[i]
    with np.errstate(divide='ignore', invalid='ignore'):
        reduced = np.where(fits.dof > 0, fits.chi2 / fits.dof, np.nan)
    return columns | {
        'id': np.arange(1, n + 1), 'group_id': fits.group_id, 'group_size': fits.group_size,
        'local_bkg': fits.local_bkg, 'x_init': start[0], 'y_init': start[1],
        'x_fit': fits.x, 'y_fit': fits.y, 'flux_fit': fits.flux, 'x_err': fits.x_err,
        'y_err': fits.y_err, 'flux_err': fits.flux_err, 'n_pixels': n_pixels,
        'reduced_chi2': reduced,
    }  # fmt: skip


def ellipse_columns(fits: SourceFits, image: Image) -> dict[str, Any]:
    """Compute the sizes and angles of Gaussian sources.

    Parameters
    ----------
    fits : `~csr_astro.fitting.SourceFits`
        Fit of N sources with ``shape='gaussian'``.
    image : `~csr_astro.images.Image`
        The map.

    Returns
    -------
    columns : dict of str to (N,) `~numpy.ndarray` or `~astropy.units.Quantity`
        FWHM of the axes in arcsec with a WCS, else in pixels; ``angle`` from the x axis,
        counter-clockwise; with a WCS ``position_angle`` from north through east, 0 to 180
        degrees.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.fitting import FitOptions, fit_sources, pixel_psf
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.photometry.psf_columns import ellipse_columns
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> psf, axis = pixel_psf(gaussian_profile(3.5)), np.arange(80.0)
    >>> data = np.random.default_rng(0).normal(size=(80, 80))
    >>> data += 5000 * psf.convolved(np.diag([4, 1])).evaluate(axis - 40, axis - 30)
    >>> image = parse_image(data)
    >>> fits = fit_sources(image, [40], [30], psf, options=FitOptions(shape='gaussian'))
    >>> columns = ellipse_columns(fits, image)
    >>> print(columns['fwhm_major'].round(), columns['angle'].round())
    [5.] [0.] deg
    """
    scale = image.pixel_scale
    columns = {'extended': fits.extended}
    for name in ('major', 'minor'):
        for suffix in ('', '_err'):
            size = getattr(fits, name + suffix)
            columns[f'fwhm_{name}{suffix}'] = size if scale is None else size * scale * u.arcsec
    columns['angle'], columns['angle_err'] = fits.angle * u.deg, fits.angle_err * u.deg
    if image.wcs is not None:
        columns['position_angle'] = _position_angles(fits, image.wcs)
    return columns


def _position_angles(fits, wcs):
    """Angle of the major axis from north through east, 0 to 180 degrees."""
    found = np.full(len(fits.flux), np.nan) * u.deg
    known = np.isfinite(fits.angle)
    found[known] = 0 * u.deg
    known &= fits.extended
    if known.any():
        x, y, angle = fits.x[known], fits.y[known], np.radians(fits.angle[known])
        ends = [
            wcs.pixel_to_world(x + s * np.cos(angle) / 2, y + s * np.sin(angle) / 2)
            for s in (-1, 1)
        ]
        found[known] = ends[0].position_angle(ends[1]).to(u.deg) % (180 * u.deg)
    return found


def model_image(
    fits: SourceFits,
    psf: PixelPSF,
    shape: tuple[int, int],
    *,
    psf_shape: int | tuple[int, int] | None = None,
    include_local_bkg: bool = False,
) -> np.ndarray:
    """Draw the sources of a fit.

    Parameters
    ----------
    fits : `~csr_astro.fitting.SourceFits`
        The fit.
    psf : `~csr_astro.fitting.PixelPSF`
        Its PSF.
    shape : (int, int)
        Shape of the image, (ny, nx).
    psf_shape : int or (int, int), optional
        Size (ny, nx) of the box around each source that is drawn; by default all of the PSF.
    include_local_bkg : bool, optional
        Whether to add the predicted background in the pixels that were fitted.

    Returns
    -------
    image : (ny, nx) `~numpy.ndarray` of float

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.fitting import fit_sources, pixel_psf
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.photometry.psf_columns import model_image
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> image = parse_image(np.random.default_rng(0).normal(size=(80, 80)))
    >>> psf = pixel_psf(gaussian_profile(3.5))
    >>> fits = fit_sources(image, [40.0], [30.0], psf)
    >>> bool(np.isclose(model_image(fits, psf, image.shape).sum(), fits.flux[0], rtol=1e-3))
    True
    """
    image = np.zeros(shape)
    half = (np.inf, np.inf) if psf_shape is None else np.broadcast_to(psf_shape, 2) / 2
    for i in np.flatnonzero(np.isfinite(fits.flux)):
        _draw(image, fits, i, psf, half)
    if include_local_bkg:
        drawn = np.zeros(image.shape, dtype=bool)
        for place in fits.background:
            if place is None:
                continue
            rows, columns, values = place
            new = (rows < shape[0]) & (columns < shape[1])
            new[new] = ~drawn[rows[new], columns[new]]
            image[rows[new], columns[new]] += values[new]
            drawn[rows[new], columns[new]] = True
    return image


def _draw(image, fits, i, psf, half):
    """Add one source to an image, inside a box of (rows, columns)."""
    if fits.extended[i]:
        psf = psf.convolved(moments(fits.shape[i]))
    width = fits.width[i]
    window, dx, dy = source_window(fits, i, psf, image.shape, half)
    image[window] += fits.flux[i] / width**2 * psf.evaluate(dx / width, dy / width)


def source_window(
    fits: SourceFits,
    i: int,
    psf: PixelPSF,
    shape: tuple[int, int],
    half: tuple[float, float] = (np.inf, np.inf),
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """Find the pixels of a map that a source reaches.

    Parameters
    ----------
    fits : `~csr_astro.fitting.SourceFits`
        The fit.
    i : int
        Number of the source, from 0.
    psf : `~csr_astro.fitting.PixelPSF`
        Its image.
    shape : (int, int)
        Shape of the map.
    half : (float, float), optional
        Largest distance of rows and columns from the source.

    Returns
    -------
    window : (slice, slice)
        Rows and columns.
    dx, dy : `~numpy.ndarray` of float
        Offsets of the columns and rows from the source.

    Examples
    --------
    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> from photutils.psf import CircularGaussianPRF
    >>> from csr_astro.fitting import pixel_psf
    >>> from csr_astro.photometry.psf_columns import source_window
    >>> fits = SimpleNamespace(x=np.array([20.0]), y=np.array([3.0]), width=np.ones(1))
    >>> psf = pixel_psf(CircularGaussianPRF(fwhm=3))
    >>> window, dx, dy = source_window(fits, 0, psf, (40, 40), half=(5, 5))
    >>> print(dy[0], dy[-1], dx[0], dx[-1])
    -3.0 5.0 -5.0 5.0
    """
    x, y = fits.x[i], fits.y[i]
    reach = psf.radius * fits.width[i] + 1
    rows, columns = (
        _pixels_within(center, min(reach, limit), size)
        for center, limit, size in zip((y, x), half, shape, strict=True)
    )
    down, across = (slice(p[0], p[-1] + 1) if len(p) else slice(0, 0) for p in (rows, columns))
    return (down, across), columns - x, rows - y


def _pixels_within(center, reach, size):
    first, last = np.ceil(center - reach), np.floor(center + reach)
    return np.arange(max(int(first), 0), min(int(last) + 1, size))

