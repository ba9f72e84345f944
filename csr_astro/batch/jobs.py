"""List of the maps of a batch, from file names or a table."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from difflib import get_close_matches
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import Table

from csr_astro.utils.files import fits_files, stem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csr_astro.typing import PathLike

__all__ = ['Job', 'read_jobs']

_FORMATS = {'.csv': 'ascii.csv', '.ecsv': 'ascii.ecsv'}
# Catalogues of the same name as a map.
_BESIDE = ('.ecsv', '.csv', '.reg')
# Columns of a table of maps.
_COLUMNS = ('map', 'catalog', 'instrument', 'output', 'error', 'mask')


@dataclass(frozen=True)
class Job:
    """Map of a batch, with its catalogue and the name of its output.

    Attributes
    ----------
    map, catalog : str
        FITS file and its sources, see `~csr_astro.sources.read_sources`; '' if they are found.
    output : str
        Name of the source-free map in the output folder.
    instrument : str or None
        Instrument of the map; by default that of the batch, else by the header.
    error, mask : str or None
        FITS files of the errors and of the mask of the map.

    Examples
    --------
    >>> from csr_astro.batch import Job
    >>> Job('m31.fits', 'stars.ecsv', 'm31_source_free.fits', instrument='spire-250').instrument
    'spire-250'
    """

    map: str
    catalog: str
    output: str
    instrument: str | None = None
    error: str | None = None
    mask: str | None = None

    @property
    def files(self) -> dict[str, str]:
        """Files that are read with the map, by the names of `~csr_astro.images.read_image`."""
        return {name: file for name in ('error', 'mask') if (file := getattr(self, name))}


def read_jobs(
    maps: PathLike | Sequence[PathLike],
    catalog: PathLike | None = None,
    *,
    find: bool = False,
    error: str | None = None,
    mask: str | None = None,
) -> list[Job]:
    """Read the list of the maps of a batch.

    Parameters
    ----------
    maps : path-like or list of path-like
        FITS files, folders of them and patterns such as ``'maps/*.fits'``; or one table, ``.csv``
        or ``.ecsv``, with columns ``map`` and, if wanted, ``catalog``, ``instrument``,
        ``output``, ``error`` and ``mask``. Files named in a table are relative to its folder.
    catalog : path-like, optional
        Sources of the maps that have no catalogue of their own. Without it, those are in
        ``MAP.ecsv``, ``MAP.csv`` or ``MAP.reg`` beside ``MAP.fits``, the first that exists.
    find : bool, optional
        Whether the sources of maps without a catalogue are found; it is an error otherwise.
    error, mask : str, optional
        Files of the errors and of the mask of maps that have none of their own: one file for all
        maps; or a rule that gives that of each, in the folder of the map: ``'{}_rms.fits'``, in
        which ``{}`` is the name of the map without ``.fits``, or ``'_sci=_rms'``, which
        replaces one text in its name by another.

    Returns
    -------
    jobs : list of `Job`

    Examples
    --------
    >>> from csr_astro.batch import read_jobs
    >>> for job in read_jobs(['/maps/m31.fits', '/maps/m33.fits'], '/lists/stars.ecsv'):
    ...     print(job.map, job.catalog, job.output)
    /maps/m31.fits /lists/stars.ecsv m31_source_free.fits
    /maps/m33.fits /lists/stars.ecsv m33_source_free.fits
    >>> read_jobs(['/maps/m31_sci.fits'], '/lists/stars.ecsv', error='_sci=_rms')[0].error
    '/maps/m31_rms.fits'
    """
    paths = [Path(path) for path in ([maps] if isinstance(maps, str | os.PathLike) else maps)]
    catalog = '' if catalog is None and find else catalog
    if any(path.suffix.lower() in _FORMATS for path in paths):
        if len(paths) > 1:
            raise ValueError('give maps or one table of maps, not both.')
        jobs = _table_jobs(paths[0], catalog)
    else:
        found = [path for pattern in paths for path in _expand(pattern)]
        jobs = [_job(path, _beside(path) if catalog is None else catalog) for path in found]
    if not jobs:
        raise ValueError('there are no maps to do.')
    jobs = [
        replace(
            job,
            error=job.error or _companion(job.map, error, 'error'),
            mask=job.mask or _companion(job.map, mask, 'mask'),
        )
        for job in jobs
    ]
    # A file may match two patterns.
    return list(dict.fromkeys(jobs))


def _companion(path, rule, what):
    """Return the file that belongs to a map by a rule, None without a rule."""
    if rule is None:
        return None
    path, rule = Path(path), str(rule)
    if '{}' in rule:
        return str(path.parent / rule.replace('{}', stem(path).name))
    old, replaced, new = rule.partition('=')
    if not replaced:
        return str(Path(rule).absolute())
    if not old or old not in path.name:
        raise ValueError(
            f'{what}: the name of the map {path.name!r} has no {old!r} to be replaced.'
        )
    return str(path.with_name(path.name.replace(old, new)))


def _beside(path):
    """Catalogue with the name of a map beside it; None if there is none."""
    name = stem(path)
    for suffix in _BESIDE:
        # The name may hold dots.
        catalog = name.with_name(name.name + suffix)
        if catalog.is_file():
            return catalog
    return None


def _expand(pattern):
    if pattern.is_dir():
        return fits_files(pattern)
    if pattern.exists() or not any(letter in str(pattern) for letter in '*?['):
        return [pattern]
    found = sorted(glob(str(pattern), recursive=True))  # noqa: PTH207  (absolute patterns too)
    if not found:
        raise ValueError(f'no file matches {str(pattern)!r}.')
    return found


def _table_jobs(path, catalog):
    if not path.is_file():
        raise ValueError(f'no such file: {str(path)!r}.')
    table = Table.read(path, format=_FORMATS[path.suffix.lower()])
    if 'map' not in table.colnames:
        raise ValueError(
            f'the table {str(path)!r} must have a column map, and may have catalog, instrument, '
            f'output, error and mask; it has {", ".join(table.colnames)}.'
        )
    for name in set(table.colnames) - set(_COLUMNS):
        # Other columns are ignored, but not a misspelt one.
        if meant := get_close_matches(name.lower(), _COLUMNS, cutoff=0.8):
            raise ValueError(f'the column {name!r} of {str(path)!r} must be called {meant[0]}.')
    jobs = []
    for row in table:
        cells = {
            name: str(row[name])
            for name in _COLUMNS
            if name in table.colnames and not np.ma.is_masked(row[name]) and str(row[name])
        }
        if 'map' not in cells:
            raise ValueError(f'row {row.index + 1} of {str(path)!r} has no map.')
        own = path.parent / cells.pop('catalog') if 'catalog' in cells else catalog
        for name in ('error', 'mask'):
            if name in cells:
                cells[name] = str((path.parent / cells[name]).absolute())
        place = path.parent / cells.pop('map')
        jobs.append(_job(place, _beside(place) if own is None else own, **cells))
    return jobs


def _job(path, catalog, output=None, instrument=None, **files):
    path = Path(path).absolute()
    if catalog is None:
        raise ValueError(
            f'there is no catalogue for {str(path)!r}: give one, put {stem(path).name}.csv beside '
            'it, or find sources.'
        )
    output = output or f'{stem(path).name}_source_free.fits'
    if Path(output).name != output or stem(Path(output)).name == output:
        raise ValueError(f'output must be the name of a FITS file, got {output!r}.')
    # Sources are found where the name of the catalogue is empty.
    catalog = str(Path(catalog).absolute()) if catalog else ''
    return Job(str(path), catalog, output, instrument, **files)
