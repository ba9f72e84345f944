"""Removal of the sources of one map: files in, files out."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, cast

from csr_astro.diagnosis import require_success
from csr_astro.estimator import NeuralBackgroundEstimator
from csr_astro.images import read_image
from csr_astro.instruments import require_instrument, warn_of_another
from csr_astro.products import describe_removal, write_source_free
from csr_astro.sources import parse_sources, read_sources
from csr_astro.tables import write_table
from csr_astro.utils.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from astropy import units as u
    from astropy.io import fits
    from astropy.table import QTable

    from csr_astro.background import NeuralBackground
    from csr_astro.images import Image
    from csr_astro.instruments import Instrument
    from csr_astro.photometry.apertures import InpaintedAperturePhotometry
    from csr_astro.photometry.psf import InpaintedPSFPhotometry
    from csr_astro.photometry.subtraction import SourceSubtraction
    from csr_astro.typing import PathLike, QuantityLike, SourcesLike

__all__ = [
    'check_subtraction', 'find_sources', 'make_estimator', 'make_photometry', 'remove_file',
]  # fmt: skip

_LOG = logging.getLogger(__name__)


def make_estimator(
    header: fits.Header,
    *,
    instrument: str | Instrument | None = None,
    fwhm: float | u.Quantity | None = None,
    announce: Callable[[str], object] | None = None,
    **options: Any,
) -> NeuralBackgroundEstimator:
    """Make the estimator for a map, by its header if no instrument is given.

    Parameters
    ----------
    header : `~astropy.io.fits.Header`
        Header of the map.
    instrument, fwhm
        As in `~csr_astro.NeuralBackgroundEstimator`. Without both, the header tells
        the instrument.
    announce : callable, optional
        Called with the name of the instrument that the header tells.
    **options
        Other arguments of `~csr_astro.NeuralBackgroundEstimator`.

    Returns
    -------
    estimator : `~csr_astro.NeuralBackgroundEstimator`

    Raises
    ------
    ValueError
        If neither the arguments nor the header tell the instrument.

    Warns
    -----
    AstropyUserWarning
        If the header is that of another instrument.

    Examples
    --------
    >>> from astropy.io import fits
    >>> from csr_astro.removal import make_estimator
    >>> make_estimator(fits.Header({'INSTRUME': 'SPIRE', 'WAVELNTH': 250})).instrument.name
    'spire-250'
    """
    if instrument is None and fwhm is None:
        instrument = require_instrument(header)
        if announce is not None:
            announce(_in_words(instrument))
    estimator = NeuralBackgroundEstimator(instrument=instrument, fwhm=fwhm, **options)
    warn_of_another(estimator.instrument.name, header)
    return estimator


def make_photometry(
    estimator: NeuralBackgroundEstimator, **options: Any
) -> InpaintedAperturePhotometry | InpaintedPSFPhotometry:
    """Make the photometry that arguments are of.

    Parameters
    ----------
    estimator : `~csr_astro.NeuralBackgroundEstimator`
        The estimator.
    **options
        Arguments of `~csr_astro.InpaintedAperturePhotometry`, ``apertures`` at least, or of
        `~csr_astro.InpaintedPSFPhotometry`.

    Returns
    -------
    photometry : `~csr_astro.InpaintedAperturePhotometry` or `~csr_astro.InpaintedPSFPhotometry`

    Examples
    --------
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> from csr_astro.removal import make_photometry
    >>> estimator = NeuralBackgroundEstimator(fwhm=3.5)
    >>> type(make_photometry(estimator, shape='gaussian')).__name__
    'InpaintedPSFPhotometry'
    """
    if 'apertures' in options:
        from csr_astro.photometry.apertures import InpaintedAperturePhotometry

        return InpaintedAperturePhotometry(estimator=estimator, **options)
    from csr_astro.photometry.psf import InpaintedPSFPhotometry

    return InpaintedPSFPhotometry(estimator=estimator, **options)


def find_sources(
    image: Image, estimator: NeuralBackgroundEstimator, threshold: float = 5.0
) -> QTable:
    """Find the sources of a map, or say that there is none.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.
    estimator : `~csr_astro.NeuralBackgroundEstimator`
        Tells the PSF.
    threshold : float, optional
        As in `~csr_astro.NeuralSourceFinder`.

    Returns
    -------
    sources : `~astropy.table.QTable`
        Table of `~csr_astro.NeuralSourceFinder`.

    Raises
    ------
    ValueError
        If no source is found.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.removal import find_sources
    >>> noise = parse_image(np.random.default_rng(0).normal(size=(60, 60)))
    >>> find_sources(noise, NeuralBackgroundEstimator(fwhm=3.3))
    Traceback (most recent call last):
        ...
    ValueError: no source of 5 standard errors was found in the map.
    """
    from csr_astro.photometry.finder import NeuralSourceFinder

    table = NeuralSourceFinder(estimator, threshold).table(image)
    if not len(table):
        raise ValueError(f'no source of {threshold:g} standard errors was found in the map.')
    _LOG.info('%d sources above %g standard errors found', len(table), threshold)
    return table


def check_subtraction(photometry: dict | None, *, subtract: bool) -> None:
    """Raise an error if sources are to be subtracted that are not fitted.

    Parameters
    ----------
    photometry : dict or None
        Arguments of `make_photometry`.
    subtract : bool
        Whether sources are subtracted.

    Examples
    --------
    >>> from csr_astro.removal import check_subtraction
    >>> check_subtraction({'shape': 'point'}, subtract=True)
    """
    if subtract and (photometry is None or 'apertures' in photometry):
        raise ValueError(
            "subtract needs photometry by fit: photometry={'shape': 'point'} or 'gaussian'."
        )


def _in_words(instrument):
    if instrument.name != 'generic':
        return instrument.name
    return f'beam of {instrument.fwhm * instrument.pixel_scale:.3g} arcsec'


def remove_file(
    path: PathLike,
    sources: PathLike | SourcesLike | None,
    output: PathLike,
    *,
    table: PathLike,
    photometry: dict | None = None,
    photometry_table: PathLike | None = None,
    subtract: bool = False,
    hdu: str | int | None = None,
    reading: Mapping[str, Any] | None = None,
    mask_radius: QuantityLike | Literal['snr'] | None = None,
    find: float | None = None,
    realization: int | None = None,
    errors: bool = True,
    columns: str | Sequence[str] | None = None,
    keep: bool = True,
    estimate: Callable[..., NeuralBackground] | None = None,
    announce: Callable[[str], object] | None = None,
    **estimator: Any,
) -> NeuralBackground | SourceSubtraction:
    """Remove the sources of a map and write what was found.

    All files are complete before the first takes its name; existing ones are replaced. The
    expected background has a standard deviation that is 6 to 9 % too small inside the masks, and
    smaller in noise: give ``realization`` for statistics of the map.

    Parameters
    ----------
    path : path-like
        FITS file of the map.
    sources : path-like, SkyCoord, regions, table, (N, 2) array of (x, y) or None
        The sources: a file for `~csr_astro.sources.read_sources`, or anything that
        `~csr_astro.sources.parse_sources` takes; None with ``find``.
    output : path-like
        Source-free map to write, see `~csr_astro.products.write_source_free`.
    table : path-like
        Table of the sources to write, see `~csr_astro.tables.write_table`.
    photometry : dict, optional
        Arguments of `make_photometry`: the sources are measured too.
    photometry_table : path-like, optional
        Table of the photometry to write.
    subtract : bool, optional
        Whether sources whose fit by ``photometry`` is good are subtracted in place of inpainting,
        see `~csr_astro.photometry.subtraction.subtract_sources`.
    hdu : str or int, optional
        Extension of the image, see `~csr_astro.images.find_image_hdu`.
    reading : mapping, optional
        Other arguments of `~csr_astro.images.read_image`, such as ``error_hdu`` and ``plane``.
    mask_radius : float, Quantity, array or 'snr', optional
        As in `~csr_astro.NeuralBackgroundEstimator.estimate`.
    find : float, optional
        Threshold of `~csr_astro.NeuralSourceFinder`, which finds the sources if none are given.
    realization : int, optional
        Seed of a `~csr_astro.NeuralBackground.realization` that fills the masks in
        place of the prediction.
    errors : bool, optional
        Whether the map gets an extension of the background's errors.
    columns : str or sequence of str, optional
        Columns of the catalogue that hold the positions, see
        `~csr_astro.columns.find_positions`.
    keep : bool, optional
        Whether the tables keep all columns of the catalogue.
    estimate : callable, optional
        Function that predicts in place of the estimator's method, called as
        ``estimate(path, sources, estimator=..., hdu=..., reading=..., mask_radius=...,
        errors=...)``: `~csr_astro.batch.estimate_distributed` with its cluster.
    announce : callable, optional
        Called with the name of the instrument that the header tells.
    **estimator
        Arguments of `~csr_astro.NeuralBackgroundEstimator`, see `make_estimator`.

    Returns
    -------
    result : `~csr_astro.NeuralBackground` or `~csr_astro.photometry.subtraction.SourceSubtraction`
        The latter with ``subtract``.

    Raises
    ------
    ValueError
        If no source could be removed, or none is fitted with ``subtract``: nothing is written.

    Examples
    --------
    >>> from csr_astro.removal import remove_file
    >>> result = remove_file(
    ...     'map.fits', 'catalog.ecsv', 'clean.fits', table='clean.ecsv', fwhm=3.5
    ... )  # doctest: +SKIP
    """
    check_subtraction(photometry, subtract=subtract)
    reading = dict(reading or {})
    image, header = read_image(path, hdu, **reading)
    model = make_estimator(header, announce=announce, **estimator)
    if sources is None and find is not None:
        sources = find_sources(image, model, find)
    elif isinstance(sources, str | os.PathLike):
        sources = read_sources(sources)
    sources = parse_sources(sources, image.wcs, columns=columns, keep=keep)
    if estimate is None:
        result = model.estimate(image, sources, mask_radius=mask_radius)
    else:
        result = estimate(
            path,
            sources,
            estimator=model,
            hdu=hdu,
            mask_radius=mask_radius,
            errors=errors,
            **({'reading': reading} if reading else {}),
        )
    require_success(image, result.sources, 'removed')
    measure = None if photometry is None else make_photometry(model, **photometry)
    background = None if realization is None else result.realization(realization)
    done: NeuralBackground | SourceSubtraction = result
    fluxes = None
    if subtract:
        from csr_astro.photometry.subtraction import subtract_sources

        # A fit, as was checked.
        fit = cast('InpaintedPSFPhotometry', measure)
        done, fluxes = subtract_sources(result, fit), fit.results
        background = None if background is None else done.background_of(background)
    elif measure is not None:
        fluxes = measure(result)
    with ExitStack() as stack:
        new_map, new_table = (stack.enter_context(atomic_path(each)) for each in (output, table))
        write_table(new_table, done.sources)
        if fluxes is not None and photometry_table is not None:
            write_table(stack.enter_context(atomic_path(photometry_table)), fluxes)
        write_source_free(
            new_map,
            path,
            done,
            hdu=hdu,
            plane=reading.get('plane'),
            background=background,
            history=describe_removal(done, realization, errors=errors),
            errors=errors,
        )
    _LOG.info('%s: written %s and %s', path, output, table)
    return done
