"""Synthetic maps of diffuse emission and noise, with a unit and a WCS."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.wcs import WCS

from csr_astro.images import parse_image
from csr_astro.simulation import diffuse

if TYPE_CHECKING:
    from csr_astro.images import Image
    from csr_astro.typing import RngLike

__all__ = ['FIELDS', 'NOISES', 'synthetic_map', 'tangent_wcs']


# Kinds of emission, each a function of (shape, rng, options) with mean 0 and scatter 1.
FIELDS: dict[str, Any] = {
    'power-law': lambda shape, rng, slope=-3.0: diffuse.power_law_field(shape, slope, rng),
    'lognormal': lambda shape, rng, slope=-3.0, contrast=0.6: diffuse.lognormal_field(
        shape, slope, contrast, rng
    ),
    'filaments': lambda shape, rng, slope=-3.0, width=3.0: diffuse.filament_field(
        shape, slope, width, rng
    ),
    'gradient': diffuse.gradient_field,
    'mixed': diffuse.diffuse_field,
    'flat': lambda shape, rng: np.zeros(shape),  # noqa: ARG005
}
NOISES = {
    'white': diffuse.white_noise,
    'correlated': lambda shape, rng: diffuse.correlated_noise(shape, 2.0, rng),
    'striped': diffuse.striped_noise,
}


def tangent_wcs(
    shape: tuple[int, int], pixel_scale: float, center: tuple[float, float] = (180.0, 0.0)
) -> WCS:
    """A tangential projection around the middle of a map, north up.

    Parameters
    ----------
    shape : (int, int)
        (ny, nx).
    pixel_scale : float
        Side of a pixel in arcsec.
    center : (float, float), optional
        Right ascension and declination in degrees.

    Returns
    -------
    wcs : `~astropy.wcs.WCS`

    Examples
    --------
    >>> from csr_astro.simulation.field import tangent_wcs
    >>> wcs = tangent_wcs((101, 101), 1.6, (180.0, 30.0))
    >>> print(wcs.pixel_to_world(50, 50).to_string())
    180 30
    """
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = 'RA---TAN', 'DEC--TAN'
    wcs.wcs.crval = center
    wcs.wcs.crpix = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    wcs.wcs.cdelt = -pixel_scale / 3600, pixel_scale / 3600
    wcs.pixel_shape = shape[::-1]
    return wcs


def synthetic_map(
    kind: str | np.ndarray,
    shape: tuple[int, int],
    rng: RngLike = 0,
    *,
    level: float = 5e-3,
    scatter: float = 1e-3,
    gradient: float = 0.0,
    faint: float = 0.0,
    noise: float = 0.1,
    noise_kind: str = 'white',
    gaps: bool = False,
    pixel_scale: float = 1.6,
    **options: float,
) -> Image:
    """A map of diffuse emission and noise, with a unit and a WCS.

    Parameters
    ----------
    kind : str or (ny, nx) array
        A kind of emission, see ``FIELDS``: ``'power-law'``, ``'lognormal'``,
        ``'filaments'``, ``'gradient'``, ``'mixed'``, ``'flat'``; or a real map
        whose power spectrum and histogram are matched. ``level`` and ``scatter``
        are then those of the map, and no noise is added.
    shape : (int, int)
        (ny, nx) of the map.
    rng : `numpy.random.Generator` or int, optional
        Source of randomness, or a seed.
    level, scatter : float, optional
        Mean and standard deviation of the emission in Jy/pixel.
    gradient, faint, noise : float, optional
        Standard deviations of a plane, unresolved sources and noise, in units of ``scatter``.
    noise_kind : {'white', 'correlated', 'striped'}, optional
        Kind of the noise.
    gaps : bool, optional
        Whether the map ends at a rotated rectangle and has gaps (NaN).
    pixel_scale : float, optional
        Side of a pixel in arcsec.
    **options
        Options of the kind: ``slope``, ``contrast``, ``width``.

    Returns
    -------
    image : `~csr_astro.images.Image`

    Examples
    --------
    >>> from csr_astro.simulation.field import synthetic_map
    >>> image = synthetic_map('power-law', (64, 96), 1, slope=-3, noise=0)
    >>> print(image.shape, image.unit, round(image.data.mean(), 6), round(image.pixel_scale, 3))
    (64, 96) Jy / pix 0.005 1.6
    """
    rng = np.random.default_rng(rng)
    shape = _shape(shape)
    if isinstance(kind, str):
        emission = level + scatter * _emission(kind, shape, rng, options)
    else:
        if options:
            raise ValueError(f'a matched field has no {sorted(options)}.')
        source = parse_image(kind)
        image = np.where(source.valid((slice(None),) * 2), source.data, np.nan)
        emission = diffuse.matched_field(image, rng, shape=shape)
        scatter, noise = emission.std(), 0.0
    if noise_kind not in NOISES:
        raise ValueError(f'noise_kind must be one of {list(NOISES)}, got {noise_kind!r}.')
    for strength, draw in (
        (gradient, diffuse.gradient_field),
        (faint, diffuse.faint_sources),
        (noise, NOISES[noise_kind]),
    ):
        if strength < 0:
            raise ValueError(f'strengths must not be negative, got {strength}.')
        if strength:
            emission = emission + strength * scatter * draw(shape, rng)
    if gaps:
        emission = np.where(diffuse.coverage_mask(shape, rng), emission, np.nan)
    unit = u.Jy / u.pix if isinstance(kind, str) else source.unit
    return parse_image(
        emission if unit is None else u.Quantity(emission, unit),
        wcs=tangent_wcs(shape, pixel_scale),
    )


def _shape(shape):
    try:
        ny, nx = (int(n) for n in shape)
    except (TypeError, ValueError):
        raise ValueError(f'shape must be (ny, nx), got {shape!r}.') from None
    if min(ny, nx) < 16:
        raise ValueError(f'a field needs at least 16 x 16 pixels, got {ny} x {nx}.')
    return ny, nx


def _emission(kind, shape, rng, options):
    if kind not in FIELDS:
        raise ValueError(f'kind must be one of {list(FIELDS)}, got {kind!r}.')
    draw = FIELDS[kind]
    known = set(inspect.signature(draw).parameters) - {'shape', 'rng'}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f'a field of kind {kind!r} has no {unknown[0]}; it has {sorted(known)}.')
    return draw(shape, rng, **options)
