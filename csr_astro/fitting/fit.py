"""Fits of point sources and Gaussians on a background predicted by kriging."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from csr_astro.fitting.tiles import Catalogue, fit_map

if TYPE_CHECKING:
    from collections.abc import Callable

    from csr_astro.fitting.psf import PixelPSF
    from csr_astro.images import Image
    from csr_astro.masking import SourceMask

__all__ = ['FitOptions', 'SourceFits', 'fit_sources']


# Sources closer than this part of the FWHM cannot be told apart: they share one flux.
_SAME = 1e-3


@dataclass(frozen=True)
class FitOptions:
    """Options of `fit_sources`.

    Attributes
    ----------
    shape : {'point', 'gaussian'}
        What is fitted: point sources, or elliptical Gaussians convolved with the PSF where the
        data ask for more than a point.
    mask_radius : float
        Radius of the pixels to fit, in FWHM of the source, for sources without a given mask.
    smallest_mask : float
        The same, at least, in pixels.
    position_error : float or (N,) array of float
        Standard deviation of the Gaussian prior on each coordinate of the positions, in FWHM of
        the PSF, of all sources or of each; 0 keeps positions fixed.
    xy_bounds : (float, float)
        Largest distance from the given position in x and in y, in pixels.
    width_error : float
        Relative standard deviation of the width of the PSF, common to all sources; 0 if it is
        known.
    width_scatter : float
        Relative standard deviation of the widths of single sources about the common one.
    profile_error : float
        Relative standard deviation of the PSF in each pixel; 0 if it is known. From the second
        round on the residuals of all sources count, too.
    rounds : int
        How often each group is fitted, at most; shapes take a few more.
    max_group : int
        Larger groups are solved in parts.
    halo : float
        Neighbours up to this many FWHM away are solved with each part.
    """

    shape: Literal['point', 'gaussian'] = 'point'
    mask_radius: float = 1.25
    smallest_mask: float = 0.0
    position_error: float | np.ndarray = 0.1
    xy_bounds: tuple[float, float] = (np.inf, np.inf)
    width_error: float = 0.05
    width_scatter: float = 0.01
    profile_error: float = 0.02
    rounds: int = 3
    max_group: int = 6
    halo: float = 1.25


@dataclass(eq=False)
class SourceFits:
    """Results of `fit_sources`.

    Attributes
    ----------
    flux, x, y : (N,) `~numpy.ndarray` of float
        Flux in units of the sum of the map, and position in pixels; NaN where nothing
        constrains the fit.
    flux_err, x_err, y_err : (N,) `~numpy.ndarray` of float
        1-sigma errors; 0 for fixed positions.
    width, width_err : (N,) `~numpy.ndarray` of float
        Width over that of the PSF.
    extended, saturated, ambiguous : (N,) `~numpy.ndarray` of bool
        Sources that were fitted as Gaussians; those of which the flat top was left out; those so
        close to others that little more than the sum of the fluxes is known.
    major, minor, angle, major_err, minor_err, angle_err : (N,) `~numpy.ndarray` of float
        FWHM of the axes of a Gaussian in pixels, before its convolution with the PSF, and
        angle of the major axis from the x axis in degrees; 0 for point sources.
    shape : (N, 3) `~numpy.ndarray` of float
        (a, b, c) of the second moments ``L Lᵀ`` of a Gaussian, with ``L = (a, 0; b, c)`` in
        pixels; 0 for point sources.
    covariance : (N, 7, 7) `~numpy.ndarray` of float
        Of the flux, x, y, logarithm of the width, and the shape; 0 for fixed parameters.
    chi2, dof : (N,) `~numpy.ndarray` of float
        Goodness of fit in the pixels of the source's own mask, and their number less that of
        its free parameters.
    rim : (N,) `~numpy.ndarray` of float
        Mean residual of the outermost pixels of the mask, over its standard deviation.
    local_bkg : (N,) `~numpy.ndarray` of float
        Predicted background in the pixel nearest to the position.
    group_id, group_size : (N,) `~numpy.ndarray` of int
        Number of the connected masks, from 1, and how many sources they hold; 0 for none.
    masks : list of `~csr_astro.masking.SourceMask` or None
        Masks that were fitted.
    background : list of (rows, columns, values) or None
        Predicted background in the trusted pixels of each mask.
    left : list of (Q,) `~numpy.ndarray` of float or None
        The map less all sources and the background in the same pixels.
    profile_error : float
        Relative error of the PSF in each pixel, as the residuals say; the mean of the tiles of a
        large map.
    make_residual : callable
        Computes `residual`.
    """

    flux: np.ndarray
    x: np.ndarray
    y: np.ndarray
    flux_err: np.ndarray
    x_err: np.ndarray
    y_err: np.ndarray
    width: np.ndarray
    width_err: np.ndarray
    extended: np.ndarray
    saturated: np.ndarray
    ambiguous: np.ndarray
    major: np.ndarray
    minor: np.ndarray
    angle: np.ndarray
    major_err: np.ndarray
    minor_err: np.ndarray
    angle_err: np.ndarray
    shape: np.ndarray
    covariance: np.ndarray
    chi2: np.ndarray
    dof: np.ndarray
    rim: np.ndarray
    local_bkg: np.ndarray
    group_id: np.ndarray
    group_size: np.ndarray
    masks: list[SourceMask | None]
    background: list[tuple[np.ndarray, np.ndarray, np.ndarray] | None]
    left: list[np.ndarray | None]
    profile_error: float
    make_residual: Callable[[], np.ndarray] = field(repr=False)

    def __repr__(self) -> str:
        return f'<SourceFits: {len(self.flux)} sources>'

    @cached_property
    def residual(self) -> np.ndarray:
        """The map less all sources, (ny, nx) float; 0 where it is not valid."""
        return self.make_residual()


def fit_sources(
    image: Image,
    x: np.ndarray,
    y: np.ndarray,
    psf: PixelPSF,
    *,
    masks: list[SourceMask | None] | None = None,
    flux: np.ndarray | None = None,
    options: FitOptions | None = None,
) -> SourceFits:
    """Fit sources on the background that kriging predicts behind them.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map; its error, if there is one, is taken for the noise of the pixels.
    x, y : (N,) `~numpy.ndarray` of float
        Positions in pixels; NaN gives NaN.
    psf : `~csr_astro.fitting.psf.PixelPSF`
        The PSF.
    masks : list of `~csr_astro.masking.SourceMask` or None, optional
        Pixels to fit. By default discs of ``options.mask_radius``.
    flux : (N,) `~numpy.ndarray` of float, optional
        First guesses; by default 0.
    options : `FitOptions`, optional

    Returns
    -------
    fits : `SourceFits`

    Notes
    -----
    Groups are fitted in turn, the brightest first, on the residuals of all other sources
    (block Gauss-Seidel). Within a group, parameters follow from Gauss-Newton steps of
    generalised least squares with Gaussian priors. The covariance holds the errors of the
    predicted background, the pixels' noise, and ``(e f P)²`` for a PSF of which each pixel is
    known to e.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.fitting.fit import fit_sources
    >>> from csr_astro.fitting.psf import pixel_psf
    >>> from csr_astro.simulation.inject import inject_sources
    >>> from csr_astro.simulation.psf import gaussian_profile
    >>> profile = gaussian_profile(3.5)
    >>> data = np.random.default_rng(1).normal(7, 1, (120, 120))
    >>> data = inject_sources(data, [50.2], [40.7], [500.0], profile)
    >>> fits = fit_sources(parse_image(data), [50], [41], pixel_psf(profile))
    >>> bool(abs(fits.flux[0] - 500) < 3 * fits.flux_err[0])
    True
    """
    options = FitOptions() if options is None else options
    n = len(x)
    given = np.full(n, np.nan) if flux is None else np.asarray(flux, dtype=float)
    catalogue = Catalogue(
        np.asarray(x, dtype=float), np.asarray(y, dtype=float), given,
        [None] * n if masks is None else list(masks),
        np.broadcast_to(np.asarray(options.position_error, dtype=float), n),
        has_masks=masks is not None,
    )  # fmt: skip
    order, copies = catalogue.distinct(_SAME * psf.fwhm)
    found = fit_map(image, catalogue.take(order), psf, options)
    return _expand(found, copies)


def _expand(found, copies):
    """Results in the order of the catalogue; copies of a source share its flux."""
    values = {}
    number = np.bincount(copies)[copies]
    for name, column in found.items():
        if isinstance(column, list):
            values[name] = [column[k] for k in copies]
        elif isinstance(column, np.ndarray):
            values[name] = column[copies]
        else:
            values[name] = column
    share = values['flux'] / number
    # Any of the copies may have all of the flux.
    values['flux_err'] = np.where(
        number > 1, np.hypot(values['flux_err'] / number, share * (number - 1)), values['flux_err']
    )
    values['flux'] = share
    identity = values['group_id']
    first = np.unique(identity[identity > 0], return_index=True)
    rank = np.zeros(identity.max(initial=0) + 1, dtype=int)
    rank[first[0][np.argsort(first[1])]] = np.arange(1, len(first[0]) + 1)
    values['group_id'] = rank[identity]
    values['group_size'] = np.bincount(rank[identity], minlength=1)[rank[identity]]
    values['group_size'] = values['group_size'] * (identity > 0)
    return SourceFits(**values)
