"""Photometry of standard stars, compared with their reference fluxes (paper, Sect. 5.1)."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table, vstack
from photutils.centroids import centroid_2dg

from csr_astro.images import read_image
from csr_astro.instruments import get_instrument, identify_instrument, warn_of_another
from csr_astro.photometry import InpaintedAperturePhotometry
from csr_astro.utils.data import DATA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csr_astro.estimator import NeuralBackgroundEstimator
    from csr_astro.images import Image
    from csr_astro.typing import PathLike

__all__ = ['find_stars', 'measure_stars', 'standard_stars', 'star_rows']


_APERTURE = 12 * u.arcsec


@cache
def standard_stars() -> QTable:
    """Standard stars with their reference fluxes at 70, 100 and 160 µm.

    Returns
    -------
    stars : `~astropy.table.QTable`
        ``name``, ``sky_center``, ``reference`` (``1`` Balog et al. 2014, ``2`` Klaas et al.
        2018), and for each wavelength in µm ``ref_70``, ``ref_err_70`` and ``paper_70`` (as
        measured in the paper), in mJy; NaN where there is none.

    Examples
    --------
    >>> from csr_astro.evaluation.standard_stars import standard_stars
    >>> stars = standard_stars()
    >>> print(stars['name'][4], stars['ref_70'][4])
    gamma Dra 3283.0 mJy
    """
    table = Table.read(DATA / 'standard_stars.csv', format='ascii.csv', comment='#')
    stars = QTable({
        'name': np.array(table['name'], dtype=str),
        'sky_center': SkyCoord(table['ra_deg'], table['dec_deg'], unit='deg'),
        'reference': np.array(table['source']),
    })
    for name in table.colnames:
        if name.endswith('_mjy'):
            values: np.ndarray = np.ma.filled(np.ma.asarray(table[name], dtype=float), np.nan)
            stars[name.removesuffix('_mjy')] = values * u.mJy
    return stars


def find_stars(image: Image) -> QTable:
    """Standard stars on a map.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        As from `~csr_astro.images.read_image`.

    Returns
    -------
    stars : `~astropy.table.QTable`
        Rows of `standard_stars` whose position is on a valid pixel; none without a WCS.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.evaluation.standard_stars import find_stars
    >>> from csr_astro.images import parse_image
    >>> len(find_stars(parse_image(np.zeros((50, 50)))))
    0
    """
    stars = standard_stars()
    if image.wcs is None:
        return stars[:0]
    x, y = image.wcs.world_to_pixel(stars['sky_center'])
    ny, nx = image.shape
    with np.errstate(invalid='ignore'):
        near = (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
    column, row = (np.where(near, np.round(each), 0).astype(int) for each in (x, y))
    near &= image.valid((slice(None), slice(None)))[row, column]
    return stars[near]


def measure_stars(
    maps: PathLike | Sequence[PathLike],
    *,
    estimator_options: dict | None = None,
    apertures: u.Quantity = _APERTURE,
    instrument: str | None = None,
) -> QTable:
    """Measure the standard stars on maps, and compare with their reference fluxes.

    Parameters
    ----------
    maps : path-like or sequence of path-like
        FITS maps of PACS whose headers tell the band.
    estimator_options : dict, optional
        Arguments of `~csr_astro.NeuralBackgroundEstimator`, such as ``weights``.
    apertures : `~astropy.units.Quantity`, optional
        Radius or radii, as angles; 12″ by default.
    instrument : str, optional
        The band of all maps, if their headers do not tell it.

    Returns
    -------
    table : `~astropy.table.QTable`
        A row for each star, map and aperture: ``map`` (name of the file), ``name``, ``ra``,
        ``dec`` (of the reference), ``instrument``, ``wavelength``, ``aperture``, ``reference``
        and ``reference_err``, ``flux`` and ``flux_err`` (centred on the star; corrected for the
        aperture and for the colour of a photosphere), ``ratio`` to the reference and
        ``ratio_err`` (of the measurement), ``annulus_ratio`` by the instrument's annulus,
        ``paper_ratio``, ``reference_source``, ``snr`` and ``flags``. Fluxes in mJy.

    Raises
    ------
    ValueError
        If a header does not tell a band of PACS, or the unit of a map is not flux per pixel.

    Notes
    -----
    Paper, Sect. 5.1: ratios of Table 5. A map without a standard star gives no row.

    Examples
    --------
    >>> from csr_astro.evaluation.standard_stars import measure_stars
    >>> table = measure_stars('gamma_dra_blue.fits')  # doctest: +SKIP
    >>> table['name', 'ratio', 'ratio_err', 'paper_ratio']  # doctest: +SKIP
    """
    from csr_astro import NeuralBackgroundEstimator

    maps = [maps] if isinstance(maps, str | os.PathLike) else list(maps)
    parts = [_no_rows()]
    for path in maps:
        image, header = read_image(path)
        band = _band(path, header, instrument)
        stars = find_stars(image)
        if not len(stars):
            continue
        estimator = NeuralBackgroundEstimator(instrument=band, **(estimator_options or {}))
        parts.append(star_rows(image, stars, estimator, Path(path).name, apertures))
    table = vstack(parts, metadata_conflicts='silent')
    for name in table.colnames:
        if 'ratio' in name:
            table[name].info.format = '.3f'
        elif name in ('flux', 'flux_err', 'reference', 'reference_err', 'snr'):
            table[name].info.format = '.1f'
    return table


def _band(path, header, instrument):
    name = instrument or identify_instrument(header)
    warn_of_another(name, header)
    band = None if name is None else get_instrument(name)
    if band is None or band.colour_correction_star is None:
        raise ValueError(
            f'{str(path)!r}: the header tells no band of PACS, for which alone there are '
            'reference fluxes; give the instrument.'
        )
    return band


def star_rows(
    image: Image,
    stars: QTable,
    estimator: NeuralBackgroundEstimator,
    name: str,
    apertures: u.Quantity = _APERTURE,
) -> QTable:
    """Measure standard stars on one map.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    stars : `~astropy.table.QTable`
        As from `find_stars`.
    estimator : `~csr_astro.NeuralBackgroundEstimator`
        Its instrument is a band of PACS.
    name : str
        Name of the map.
    apertures : `~astropy.units.Quantity`, optional
        Radius or radii, as angles.

    Returns
    -------
    table : `~astropy.table.QTable`
        As from `measure_stars`.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> from csr_astro.evaluation.standard_stars import find_stars, standard_stars, star_rows
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.simulation.field import tangent_wcs
    >>> star = standard_stars()['sky_center'][0]
    >>> wcs = tangent_wcs((100, 100), 1.6, (star.ra.deg, star.dec.deg))
    >>> noise = np.random.default_rng(0).normal(size=(100, 100)) * u.mJy / u.pix
    >>> image = parse_image(noise, wcs=wcs)
    >>> estimator = NeuralBackgroundEstimator(instrument='pacs-scanmap-blue')
    >>> len(star_rows(image, find_stars(image), estimator, 'noise'))
    1
    """
    estimator = estimator.replace(centroid_func=centroid_2dg)
    apertures = np.atleast_1d(u.Quantity(apertures, u.arcsec))
    photometry = InpaintedAperturePhotometry(
        list(apertures), estimator=estimator, annulus='instrument'
    )
    measured = photometry(image, stars['sky_center'])
    rows = [
        _rows(name, estimator.instrument, stars, measured, k, aperture)
        for k, aperture in enumerate(apertures)
    ]
    return vstack(rows, metadata_conflicts='silent')


def _rows(name, band, stars, measured, k, aperture):
    """Rows of the stars on one map for one aperture."""
    colour = band.colour_correction_star
    try:
        flux, error, annulus = (
            (measured[f'{column}_{k}'] / colour).to(u.mJy)
            for column in ('flux', 'flux_err', 'annulus_flux')
        )
    except (AttributeError, u.UnitConversionError):
        raise ValueError(
            f'{name}: the unit of a map with standard stars must be a flux per pixel, such as '
            'Jy/pixel.'
        ) from None
    reference, uncertainty, paper = (
        stars[f'{column}_{band.wavelength:g}'] for column in ('ref', 'ref_err', 'paper')
    )
    n = len(stars)
    return QTable({
        'map': np.full(n, name),
        'name': stars['name'],
        'ra': stars['sky_center'].ra,
        'dec': stars['sky_center'].dec,
        'instrument': np.full(n, band.name),
        'wavelength': np.full(n, band.wavelength) * u.um,
        'aperture': np.full(n, aperture.value) * aperture.unit,
        'reference': reference,
        'reference_err': uncertainty,
        'flux': flux,
        'flux_err': error,
        'ratio': (flux / reference).value,
        'ratio_err': (error / reference).value,
        'annulus_ratio': (annulus / reference).value,
        'paper_ratio': (paper / reference).value,
        'reference_source': stars['reference'],
        'snr': np.asarray(measured['snr']),
        'flags': np.asarray(measured['flags']),
    })


def _no_rows():
    """A table without rows but with all columns, for maps without stars."""
    band = get_instrument('pacs-scanmap-blue')
    measured = QTable({
        name: [] * u.Jy for name in ('flux_0', 'flux_err_0', 'annulus_flux_0')
    } | {'snr': np.zeros(0), 'flags': np.zeros(0, dtype=int)})
    return _rows('', band, standard_stars()[:0], measured, 0, _APERTURE)
