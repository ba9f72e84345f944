"""Simulated maps: a map with sources of known flux, the same map without, and their files."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable

from csr_astro.images import Image, shape_text
from csr_astro.tables import write_table
from csr_astro.utils.files import atomic_path
from csr_astro.utils.representation import html_table
from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from csr_astro.instruments import Instrument
    from csr_astro.typing import PathLike

__all__ = ['Simulation']


# Keywords that describe the file that the map came from, not the map.
_OF_THE_FILE = {'SIMPLE', 'XTENSION', 'BITPIX', 'EXTEND', 'PCOUNT', 'GCOUNT', 'GROUPS', 'EXTNAME',
                'BSCALE', 'BZERO', 'BLANK', 'DATAMIN', 'DATAMAX', 'CHECKSUM', 'DATASUM', 'COMMENT',
                'HISTORY', 'BUNIT', ''}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Simulation:
    """A map with sources of known flux, and the same map without them.

    Attributes
    ----------
    name : str
        Name of its files: the field and the flux level.
    field : str
        Name of the map into which the sources were put.
    injected, original : `~csr_astro.images.Image`
        The map with the sources and without.
    sources : `~astropy.table.QTable`
        Columns ``id``, ``x``, ``y`` (pixels, zero-based), ``sky_center`` if the
        map has a WCS, ``flux`` in mJy, and ``angle`` by which the PSF is turned.
    instrument : `~csr_astro.instruments.Instrument`
        The instrument, with its radii in pixels of the map.
    header : `~astropy.io.fits.Header`
        Header of the map.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.simulation.simulate import simulate_map
    >>> noise = np.random.default_rng(0).normal(size=(120, 120))
    >>> simulation = simulate_map(noise, 300, instrument='generic', number=2)
    >>> print(len(simulation.sources), (simulation.data - simulation.truth).max() > 1)
    2 True
    """

    name: str
    field: str
    injected: Image
    original: Image
    sources: QTable
    instrument: Instrument
    header: fits.Header = dataclasses.field(default_factory=fits.Header)

    def __repr__(self) -> str:
        return (
            f'<Simulation {self.name!r}: {shape_text(self.injected)}, '
            f'{len(self.sources)} sources, {self.instrument.name}>'
        )

    def _repr_html_(self) -> str:
        flux = self.sources['flux']
        return html_table(
            f'Simulation {self.name!r}',
            {
                'field': self.field,
                'map': shape_text(self.injected),
                'instrument': self.instrument.name,
                'sources': len(self.sources),
                'fluxes': f'{flux.min():.4g} to {flux.max():.4g}' if len(flux) else None,
            },
        )

    @property
    def data(self) -> np.ndarray:
        """The map with sources: an array, or a Quantity if the map was one."""
        return self.injected.like_input(self.injected.data)

    @property
    def truth(self) -> np.ndarray:
        """The map without sources, as `data`."""
        return self.original.like_input(self.original.data)

    def write(self, folder: PathLike, *, overwrite: bool = False) -> list[Path]:
        """Write the map with sources, the one without, and the tables.

        Parameters
        ----------
        folder : path-like
            Made if missing. ``NAME.fits`` is the map, ``NAME.ecsv`` the table `sources`,
            ``NAME.csv`` the paper's table (``ra`` and ``dec`` in degrees, J2000, or ``x`` and
            ``y`` for a map without a WCS; ``flux`` in mJy), ``FIELD_truth.fits`` the map without
            sources.
        overwrite : bool, optional
            Whether existing files are replaced, each in one step.

        Returns
        -------
        paths : list of `pathlib.Path`
            The four files.

        Raises
        ------
        ValueError
            If a file exists and is not to be overwritten. The map without sources, which the
            simulations of a field share, may exist.
        """
        folder = Path(folder)
        truth = folder / f'{self.field}_truth.fits'
        image, table, paper = (folder / f'{self.name}{end}' for end in ('.fits', '.ecsv', '.csv'))
        for path in (image, table, paper):
            if path.exists() and not overwrite:
                raise ValueError(f'{str(path)!r} exists; overwrite it (--overwrite) or choose '
                                 'another folder.')  # fmt: skip
        known = truth.exists() and self._is_truth(truth)
        if truth.exists() and not known and not overwrite:
            raise ValueError(f'{str(truth)!r} is of another simulation; overwrite it (--overwrite) '
                             'or choose another folder.')  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        if not known:
            self._write_map(truth, self.original, 'The map without injected sources.')
        # The map is written last, so that the tables beside a map are complete.
        write_table(table, self.sources)
        write_table(paper, self._paper_table())
        self._write_map(image, self.injected, f'{len(self.sources)} injected sources: {table.name}')
        return [image, table, paper, truth]

    def _paper_table(self):
        table = QTable()
        if 'sky_center' in self.sources.colnames:
            sky = self.sources['sky_center']
            table['ra'], table['dec'] = sky.icrs.ra.deg, sky.icrs.dec.deg
        else:
            table['x'], table['y'] = self.sources['x'], self.sources['y']
        table['flux'] = self.sources['flux'].to_value(u.mJy)
        return table

    def _is_truth(self, path):
        """Whether a file holds the map without sources of this simulation."""
        with fits.open(path) as hdus:
            return 'image' in hdus and np.array_equal(
                hdus['image'].data, _with_blanks(self.original), equal_nan=True
            )

    def _write_map(self, path, image, comment):
        header = self.header.copy()
        for key in list(header):
            if key in _OF_THE_FILE or key.startswith('NAXIS'):
                header.remove(key, ignore_missing=True)
        if image.wcs is not None and hasattr(image.wcs, 'to_header'):
            header.update(image.wcs.to_header(relax=True))
        if image.unit is not None:
            with ignored(Warning):
                header['BUNIT'] = image.unit.to_string('fits') if image.unit else ''
        header['CSRFIELD'] = self.field, 'map without sources'
        header['CSRSEED'] = self.sources.meta['seed'], 'seed of the simulation'
        header.add_history(f'csr_astro {self.sources.meta["csr_astro"]} simulate: {comment}')
        hdus = fits.HDUList([fits.PrimaryHDU(header=_observation(header)),
                             fits.ImageHDU(_with_blanks(image), header, name='image')])  # fmt: skip
        if image.error is not None:
            hdus.append(fits.ImageHDU(np.array(image.error, dtype=image.dtype), name='stDev'))
        with atomic_path(path) as temporary, ignored(fits.verify.VerifyWarning):
            hdus.writeto(temporary, overwrite=True, output_verify='silentfix')


def _with_blanks(image):
    """Pixels of a map as they are written: NaN where invalid."""
    everywhere = (slice(None), slice(None))
    return np.where(image.valid(everywhere), image.data, np.nan).astype(image.dtype)


def _observation(header):
    """The keywords of a primary header by which the instrument is recognised."""
    keys = ('OBJECT', 'TELESCOP', 'INSTRUME', 'OBS_MODE', 'WAVELNTH', 'OBS_ID')
    return fits.Header([(key, header[key]) for key in keys if key in header])
