"""Instruments: beam, mask radii, apertures and aperture corrections of their bands.

The numbers are in ``data/instruments.toml`` and ``data/aperture_corrections.csv``; a
new band is a new entry there.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from astropy import units as u
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from scipy.interpolate import PchipInterpolator

from csr_astro.headers import header_beam
from csr_astro.utils.data import DATA, read_data
from csr_astro.utils.representation import html_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

__all__ = [
    'MASK_NAMES',
    'Instrument',
    'get_instrument',
    'identify_instrument',
    'list_instruments',
    'require_instrument',
]


MASK_NAMES = ('full', 'large', 'moderate', 'small', 'focused', 'minimal')

_GENERIC_FWHM = 3.5
# Masks for larger beams are far too large for any window.
_LARGEST_FWHM = 300
# Relative difference of pixel scales below which the published radii in pixels are kept.
_SAME_SCALE = 0.02
# What a beam takes from the band that the header of its map tells.
_OF_BAND = ('wavelength', 'corrections', 'psf_model', 'zero_is_blank')
# Largest ratio of two beams that are taken for the same band; smoothed maps are wider.
_SAME_BEAM = 1.2


@cache
def _corrections():
    return Table.read(DATA / 'aperture_corrections.csv', format='ascii.csv', comment='#')


def _numbers(values: ArrayLike, name: str, shape: tuple | None = None) -> np.ndarray:
    """Convert to an array of float, and check its shape if one is given."""
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f'{name} must be a number or numbers, got {values!r}.') from None
    if shape is not None and array.shape != shape:
        raise TypeError(f'{name} must be a number, got {values!r}.')
    return array


@dataclass(frozen=True)
class Instrument:
    """Band of an instrument, with radii in pixels of ``pixel_scale``.

    Attributes
    ----------
    name : str
        Name, as in `list_instruments`.
    description : str
        Description in words.
    fwhm : float
        Full width at half maximum of the beam, in pixels.
    snr_radii : (float, float, float)
        Radius of the circle of the peak, inner and outer radius of the ring for
        the SNR (paper, Sect. 2.4.4).
    snr_thresholds : tuple of 5 float
        Lowest SNR of each mask, from the largest to the last but one.
    mask_radii : tuple of 6 float
        Radii of the masks, from the largest to the smallest (paper, Table 3).
    pixel_scale : float or None
        Pixel scale in arcsec; None for an instrument defined in pixels.
    wavelength : float or None
        Wavelength in micrometres.
    corrections : str or None
        Key of the enclosed-energy tables.
    annulus : (float, float)
        Background annulus of classical photometry, in pixels.
    colour_correction_star : float or None
        Colour correction by which the flux of a stellar photosphere is divided.
    psf_model : str or None
        Key of the model of the PSF in ``data/psf_models.toml``; a Gaussian otherwise.
    zero_is_blank : bool
        Whether areas of zeros in a map were not observed, as in the archive's maps of PACS.
    angular : bool
        Whether only the angular size of the beam is known, so that radii in
        pixels need the pixel scale of the map.
    beam_area : float or None
        Measured solid angle of the beam in square arcsec; that of a Gaussian otherwise.
    source : str
        Where the numbers are from.
    checked : bool
        Whether the beam was compared with its source.
    psf_of : str
        Name of the band whose PSF and enclosed energy a beam has, see `with_psf_of`.
    psf_angle : float
        Degrees by which the model of the PSF is turned, counter-clockwise, see `turned`.

    Examples
    --------
    >>> from csr_astro.instruments import get_instrument
    >>> blue = get_instrument('pacs-scanmap-blue')
    >>> print(blue.wavelength, blue.pixel_scale, blue.mask_radii)
    70 1.6 (12, 11, 9, 7, 6, 5)
    >>> print(round(blue.on_pixels(3.2).fwhm / blue.fwhm, 6))
    0.5
    """

    name: str
    description: str
    fwhm: float
    snr_radii: tuple
    snr_thresholds: tuple
    mask_radii: tuple
    annulus: tuple
    pixel_scale: float | None = None
    wavelength: float | None = None
    corrections: str | None = None
    colour_correction_star: float | None = None
    psf_model: str | None = None
    zero_is_blank: bool = False
    angular: bool = False
    beam_area: float | None = None
    source: str = ''
    checked: bool = True
    psf_of: str = ''
    psf_angle: float = 0.0

    def __repr__(self) -> str:
        pixels = '' if self.pixel_scale is None else f' of {self.pixel_scale:.3g} arcsec'
        return f'<Instrument {self.name!r}: beam of {self.fwhm:.3g} pixels{pixels}>'

    def _repr_html_(self) -> str:
        radii = ', '.join(f'{name} {radius:.3g}' for name, radius in self._masks())
        return html_table(
            f'Instrument {self.name!r}: {self.description}',
            {
                'pixels': None if self.pixel_scale is None else f'{self.pixel_scale:.3g} arcsec',
                'beam': f'{self.fwhm:.3g} pixels',
                'wavelength in micrometres': self.wavelength,
                'mask radii': f'{radii} pixels',
                'ring for the SNR': '{1:.3g} to {2:.3g} pixels'.format(*self.snr_radii),
                'annulus': '{:.3g} to {:.3g} pixels'.format(*self.annulus),
                'enclosed energy': self.corrections or 'of a Gaussian beam',
            },
        )

    @property
    def beam_pixels(self) -> float:
        """Solid angle of the beam in pixels."""
        if self.beam_area is not None and self.pixel_scale is not None:
            return self.beam_area / self.pixel_scale**2
        return float(np.pi / (4 * np.log(2)) * self.fwhm**2)

    @property
    def default_correction(self) -> str:
        """Aperture correction of a point source: ``'eef'`` with a table, else ``'gaussian'``."""
        return 'gaussian' if self.corrections is None else 'eef'

    def with_psf_of(self, header: Mapping[str, Any], pixel_scale: float | None) -> Instrument:
        """Return this beam with the PSF of the band that a header tells.

        Parameters
        ----------
        header : mapping
            Header of a map, as for `identify_instrument`.
        pixel_scale : float or None
            Pixel scale of the map in arcsec.

        Returns
        -------
        instrument : `Instrument`
            The radii stay; enclosed energies, model of the PSF and solid angle of the beam are
            those of the band. Unchanged if this is no generic beam, if the header tells no band,
            or if the beams differ by more than 20 %, as those of a smoothed map.

        Examples
        --------
        >>> from csr_astro.instruments import get_instrument
        >>> header = {'INSTRUME': 'SPIRE', 'WAVELNTH': 250}
        >>> get_instrument(fwhm=3).with_psf_of(header, 6.0).psf_of
        'spire-250'
        """
        name = identify_instrument(header) if self.name == 'generic' else None
        if name is None or pixel_scale is None:
            return self
        band, beam = get_instrument(name).on_pixels(pixel_scale), self.on_pixels(pixel_scale)
        if not 1 / _SAME_BEAM < beam.fwhm / band.fwhm < _SAME_BEAM:
            return self
        return replace(
            beam,
            pixel_scale=pixel_scale,
            psf_of=name,
            beam_area=band.beam_pixels * pixel_scale**2,
            **{key: getattr(band, key) for key in _OF_BAND},
        )

    def turned(self, header: Mapping[str, Any], north: float | None) -> Instrument:
        """Return the band with its PSF in the orientation of a map.

        Parameters
        ----------
        header : mapping
            Header of the map; ``POSANGLE`` is the position angle of the spacecraft in degrees.
        north : float or None
            Direction of North in the map, in degrees counter-clockwise from the x axis.

        Returns
        -------
        instrument : `Instrument`
            Unchanged if an angle is not known, or without a model of the PSF.

        Examples
        --------
        >>> from csr_astro.instruments import get_instrument
        >>> get_instrument('pacs-scanmap-blue').turned({'POSANGLE': 80.5}, 90.0).psf_angle
        80.5
        """
        angle = header.get('POSANGLE')
        if north is None or self.psf_model is None or not isinstance(angle, int | float):
            return self
        turn = read_data('psf_models.toml')[self.psf_model].get('turn', 0)
        return replace(self, psf_angle=float(angle + north - 90 + turn))

    def _masks(self):
        return zip(MASK_NAMES, self.mask_radii, strict=True)

    def mask(self, snr: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return the name and radius of the mask for an SNR (paper, Table 3).

        Parameters
        ----------
        snr : array-like of float
            Signal-to-noise ratios; NaN gets the smallest mask.

        Returns
        -------
        name : `~numpy.ndarray` of str
        radius : `~numpy.ndarray` of float
            Radius in pixels.

        Examples
        --------
        >>> from csr_astro.instruments import get_instrument
        >>> name, radius = get_instrument('pacs-scanmap-green').mask([500, 13, 1])
        >>> print(name, radius)
        ['full' 'moderate' 'minimal'] [13. 10.  5.]
        """
        values = np.nan_to_num(_numbers(snr, 'snr'), nan=-np.inf, posinf=np.inf)
        category = (values[..., np.newaxis] < np.array(self.snr_thresholds)).sum(axis=-1)
        return np.array(MASK_NAMES)[category], np.array(self.mask_radii, dtype=float)[category]

    def on_pixels(self, pixel_scale: float | None) -> Instrument:
        """Return the same band for a map with another pixel scale.

        Parameters
        ----------
        pixel_scale : float or None
            Pixel scale of the map in arcsec; None changes nothing.

        Returns
        -------
        instrument : `Instrument`
            Instrument with radii in pixels of the map. The published SNR and mask
            radii are kept if the scales differ by less than 2 %.
        """
        if pixel_scale is None and self.angular:
            raise ValueError('fwhm is an angle, and the data have no WCS; give pixels or wcs=.')
        if pixel_scale is None or self.pixel_scale is None:
            return self
        pixel_scale = float(_numbers(pixel_scale, 'pixel_scale', shape=()))
        if not 0 < pixel_scale < np.inf:
            raise ValueError(f'pixel_scale must be positive and finite, got {pixel_scale}.')
        factor = self.pixel_scale / pixel_scale
        if self.fwhm * factor > _LARGEST_FWHM:
            raise ValueError(
                f'on pixels of {pixel_scale:.3g} arcsec the beam is {self.fwhm * factor:.3g} '
                f'pixels wide; at most {_LARGEST_FWHM} are taken.'
            )
        changed: dict[str, Any] = {
            'pixel_scale': pixel_scale,
            'fwhm': self.fwhm * factor,
            'angular': False,
        }
        for name in ('snr_radii', 'mask_radii', 'annulus'):
            if abs(factor - 1) >= _SAME_SCALE or name == 'annulus':
                changed[name] = tuple(radius * factor for radius in getattr(self, name))
        return replace(self, **changed)

    def enclosed_energy(
        self, radius: ArrayLike, table: str = 'eef', *, outside: str = 'raise'
    ) -> np.ndarray:
        """Compute the enclosed-energy fraction of a point source in a circular aperture.

        The tabulated values are interpolated monotonically. A band without a table
        has a Gaussian beam, ``1 − exp(−4 ln 2 · r²/FWHM²)``.

        Parameters
        ----------
        radius : array-like of float
            Radii in pixels.
        table : {'eef', 'vesta', 'gaussian'}, optional
            Table for real sources, table for injected PSFs, which end at some radius (60 arcsec
            for PACS), or that of a Gaussian beam.
        outside : {'raise', 'nan'}, optional
            Whether radii outside the table raise an error or give NaN.

        Returns
        -------
        fraction : `~numpy.ndarray` of float

        Raises
        ------
        ValueError
            If a radius is outside the table, unless ``outside`` is ``'nan'``.

        Examples
        --------
        >>> from csr_astro.instruments import get_instrument
        >>> blue = get_instrument('pacs-scanmap-blue')
        >>> print(blue.enclosed_energy(5 / 1.6))  # 5 arcsec
        0.59090795
        """
        if table not in ('eef', 'vesta', 'gaussian'):
            raise ValueError(f"table must be 'eef', 'vesta' or 'gaussian', got {table!r}.")
        if outside not in ('raise', 'nan'):
            raise ValueError(f"outside must be 'raise' or 'nan', got {outside!r}.")
        radius = _numbers(radius, 'radius')
        if self.corrections is None or table == 'gaussian':
            # All energy is inside a hundred beams; larger radii could overflow.
            return -np.expm1(-4 * np.log(2) * (radius.clip(0, 100 * self.fwhm) / self.fwhm) ** 2)
        arcsec, fraction = self._curve(table)
        with np.errstate(over='ignore'):
            # Every band with a table has a pixel scale.
            asked = radius * cast('float', self.pixel_scale)
        # A radius converted from arcsec to pixels and back may miss the end by rounding.
        tolerance = 1e-6 * arcsec[-1]
        uncovered = (asked < arcsec[0] - tolerance) | (asked > arcsec[-1] + tolerance)
        if uncovered.any() and outside == 'raise':
            worst = np.atleast_1d(asked)[np.atleast_1d(uncovered)][0]
            raise ValueError(
                f'the enclosed-energy table of {self.name} covers radii of {arcsec[0]:g} to '
                f'{arcsec[-1]:g} arcsec, not {worst:.3g}; give aperture_correction= for others.'
            )
        found = PchipInterpolator(arcsec, fraction)(np.clip(asked, arcsec[0], arcsec[-1]))
        return np.where(uncovered, np.nan, found)

    def _curve(self, table):
        """Return the radii in arcsec and the fractions of a table."""
        mode, band = cast('str', self.corrections).split(',')
        rows = _corrections()
        rows = rows[(rows['mode'] == mode) & (rows['band'] == band)]
        found = rows[rows['table'] == table]
        if len(found):
            return found['radius_arcsec'].data, found['enclosed_energy_fraction'].data
        # Injected sources end at the edge of the model.
        inside = read_data('psf_models.toml')[self.psf_model]['energy_within_edge']
        return rows['radius_arcsec'].data, rows['enclosed_energy_fraction'].data / inside


def list_instruments() -> list[str]:
    """List the names of the instruments.

    Returns
    -------
    names : list of str
        Each is accepted by `get_instrument`; ``'generic'`` takes a beam.

    Examples
    --------
    >>> from csr_astro.instruments import list_instruments
    >>> 'spire-250' in list_instruments()
    True
    """
    return [*read_data('instruments.toml')['instruments'], 'generic']


def get_instrument(
    name: str | Instrument = 'generic', fwhm: float | u.Quantity | None = None
) -> Instrument:
    """Look up an instrument.

    Parameters
    ----------
    name : str or `Instrument`, optional
        Name from `list_instruments`; an `Instrument` is returned unchanged.
    fwhm : float or `~astropy.units.Quantity`, optional
        Full width at half maximum of the beam of ``'generic'``, in pixels or as an
        angle, which sets all radii; 3.5 pixels by default.

    Returns
    -------
    instrument : `Instrument`

    Examples
    --------
    >>> from astropy import units as u
    >>> from csr_astro.instruments import get_instrument
    >>> get_instrument('pacs-scanmap-blue').mask_radii
    (12, 11, 9, 7, 6, 5)
    >>> get_instrument('generic', fwhm=5).snr_radii
    (11.5, 14.5, 31.5)
    """
    if isinstance(name, Instrument):
        if fwhm is not None:
            raise ValueError('fwhm belongs to the instrument; give one or the other.')
        return name
    if name not in list_instruments():
        raise ValueError(f'instrument must be one of {list_instruments()}, got {name!r}.')
    tables = read_data('instruments.toml')
    if name == 'generic':
        return _from_beam(name, 'any instrument, by its beam', fwhm)
    if fwhm is not None:
        raise ValueError(f"fwhm is for the instrument 'generic'; {name!r} has its own.")
    entry = tables['instruments'][name]
    if 'scale' not in entry:
        beam = _from_beam(name, entry['description'], entry['fwhm'] / entry['pixel_scale'])
        return replace(
            beam,
            pixel_scale=entry['pixel_scale'],
            wavelength=entry['wavelength'],
            annulus=tuple(radius / entry['pixel_scale'] for radius in entry['annulus']),
            beam_area=entry.get('beam_area'),
            corrections=entry.get('aperture_corrections'),
            psf_model=entry.get('psf_model'),
            source=entry['source'],
            checked=entry.get('checked', True),
        )
    scale = tables['scales'][entry['scale']]
    return Instrument(
        name=name,
        description=entry['description'],
        fwhm=entry['fwhm'] / entry['pixel_scale'],
        snr_radii=tuple(scale['snr_radii']),
        snr_thresholds=tuple(scale['snr_thresholds']),
        mask_radii=tuple(entry['mask_radii']),
        annulus=tuple(radius / entry['pixel_scale'] for radius in entry['annulus']),
        pixel_scale=entry['pixel_scale'],
        wavelength=entry['wavelength'],
        corrections=entry['aperture_corrections'],
        colour_correction_star=entry['colour_correction_star'],
        psf_model=entry['psf_model'],
        zero_is_blank=entry['zero_is_blank'],
        source=entry['source'],
    )


def _from_beam(name, description, fwhm):
    """Make an instrument from its beam."""
    fwhm = _GENERIC_FWHM if fwhm is None else fwhm
    angle = isinstance(fwhm, u.Quantity) and fwhm.unit.is_equivalent(u.arcsec)
    if isinstance(fwhm, u.Quantity):
        if not angle and fwhm.unit not in (u.pix, u.dimensionless_unscaled):
            raise ValueError(f'fwhm must be in pixels or an angle, got {fwhm}.')
        fwhm = fwhm.to_value(u.arcsec) if angle else fwhm.value
    try:
        fwhm = float(fwhm)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f'fwhm must be a number of pixels or an angle, got {fwhm!r}.') from None
    if not (np.isfinite(fwhm) and fwhm > 0):
        raise ValueError(f'fwhm must be positive, got {fwhm}.')
    if not angle and fwhm > _LARGEST_FWHM:
        raise ValueError(f'fwhm must be at most {_LARGEST_FWHM} pixels, got {fwhm}.')
    # An angle needs a pixel scale until that of the map is known: a fifth of the beam.
    pixel_scale = fwhm / 5 if angle else None
    fwhm = 5.0 if angle else fwhm
    rules = read_data('instruments.toml')['generic']

    def in_pixels(key):
        # Rounded, because 1.4 * 3.5 is 4.8999999999999995.
        return tuple(round(factor * fwhm, 9) for factor in rules[key])

    return Instrument(
        name=name,
        description=description,
        fwhm=fwhm,
        snr_radii=in_pixels('snr_radii'),
        snr_thresholds=tuple(rules['snr_thresholds']),
        mask_radii=in_pixels('mask_radii'),
        annulus=in_pixels('annulus'),
        pixel_scale=pixel_scale,
        angular=angle,
    )


def warn_of_another(name: str | None, header: Mapping[str, Any]) -> None:
    """Warn if a header names another instrument than the one in use.

    Parameters
    ----------
    name : str or None
        Name of the instrument in use.
    header : `~astropy.io.fits.Header`
        Header of the map.
    """
    known = identify_instrument(header)
    if None not in (known, name) and name not in (known, 'generic'):
        warnings.warn(
            f'the header of the map is that of {known}; it is treated as {name}, as was asked.',
            AstropyUserWarning,
            stacklevel=3,
        )


def identify_instrument(header: Mapping[str, Any]) -> str | None:
    """Identify the instrument of a header.

    Parameters
    ----------
    header : mapping
        Header with the keywords of an entry of ``data/instruments.toml``: ``INSTRUME`` and
        ``WAVELNTH``, ``FILTER`` and so on.

    Returns
    -------
    name : str or None
        None if the header does not name a known instrument.

    Examples
    --------
    >>> from astropy.io import fits
    >>> from csr_astro.instruments import identify_instrument
    >>> identify_instrument(fits.Header({'INSTRUME': 'SPIRE', 'WAVELNTH': 250}))
    'spire-250'
    >>> identify_instrument(fits.Header({'INSTRUME': 'MIRI', 'FILTER': 'F770W'}))
    'jwst-miri-f770w'
    """
    for name, entry in read_data('instruments.toml')['instruments'].items():
        for keywords in entry['header']:
            if all(_says(header.get(key), wanted) for key, wanted in keywords.items()):
                return name
    return None


def _says(value, wanted):
    """Return whether a header has one of the wanted values: numbers, or patterns of texts."""
    wanted = wanted if isinstance(wanted, list) else [wanted]
    if any(isinstance(each, int | float) for each in wanted):
        try:
            return float(value) in wanted
        except (TypeError, ValueError):
            return False
    text = str('' if value is None else value).strip().lower()
    refused = [each[1:].lower() for each in wanted if each.startswith('!')]
    if any(fnmatchcase(text, each) for each in refused):
        return False
    return any(fnmatchcase(text, each.lower()) for each in wanted if not each.startswith('!'))


def require_instrument(header: Mapping[str, Any]) -> Instrument:
    """Identify the instrument of a header, or raise an error that says what to give.

    Parameters
    ----------
    header : `~astropy.io.fits.Header`
        As for `identify_instrument`.

    Returns
    -------
    instrument : `Instrument`
        A known one, else the generic one with the beam of ``BMAJ`` and ``BMIN``.

    Examples
    --------
    >>> from astropy.io import fits
    >>> from csr_astro.instruments import require_instrument
    >>> require_instrument(fits.Header({'INSTRUME': 'SPIRE', 'WAVELNTH': 250})).name
    'spire-250'
    """
    name = identify_instrument(header)
    if name is not None:
        return get_instrument(name)
    beam = header_beam(header)
    if beam is not None:
        return get_instrument('generic', np.sqrt(beam[0] * beam[1]))
    raise ValueError(
        'the header does not tell the instrument; give its name (see "csr-astro instruments") '
        'or the beam: instrument or fwhm, on the command line --instrument or --fwhm.'
    )
