"""Shapes of apertures: arguments, places on the map, and one for each source."""

from __future__ import annotations

import copy
import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from photutils.aperture import (
    Aperture,
    ApertureMask,
    CircularAperture,
    EllipticalAnnulus,
    EllipticalAperture,
    PixelAperture,
    RectangularAnnulus,
    RectangularAperture,
    SkyAperture,
    SkyEllipticalAnnulus,
    SkyEllipticalAperture,
    SkyRectangularAnnulus,
    SkyRectangularAperture,
    region_to_aperture,
)

from csr_astro.drawings import is_region
from csr_astro.utils.sky import local_axes, sky_shape, sky_to_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regions import Region

    from csr_astro.masking import SourceMask
    from csr_astro.typing import AperturesLike, WcsLike

__all__ = [
    'PerSource', 'aperture_box', 'at_same_place', 'exceeds_mask', 'is_length', 'parse_apertures',
    'place_aperture', 'radius_in_pixels', 'region_aperture',
]  # fmt: skip

_ACCEPTED = 'radii (pixels or an angle), photutils apertures or regions, one or many'
# Larger integers do not convert to floats.
_HUGE = 10**300
# Apertures and annuli with a larger radius in pixels are mistakes, and do not fit into memory.
_MAX_RADIUS = 2000.0
# Largest separation of sky apertures at the same position.
_SAME_PLACE = 1e-3 * u.arcsec
# Apertures on the sky that have an orientation, and those in pixels.
_ORIENTED = {
    SkyEllipticalAperture: EllipticalAperture,
    SkyEllipticalAnnulus: EllipticalAnnulus,
    SkyRectangularAperture: RectangularAperture,
    SkyRectangularAnnulus: RectangularAnnulus,
}


@dataclass(frozen=True, eq=False)
class PerSource:
    """Apertures of different shapes, one at each position.

    It has the methods of a photutils aperture with many positions that are needed here.

    Attributes
    ----------
    apertures : list of `~photutils.aperture.PixelAperture`
        Apertures with one position each.

    Examples
    --------
    >>> from photutils.aperture import CircularAperture
    >>> from csr_astro.photometry.shapes import PerSource
    >>> shapes = PerSource([CircularAperture((20, 30), 3), CircularAperture((50, 30), 4)])
    >>> print(len(shapes), shapes.r)
    2 [3. 4.]
    """

    apertures: list[PixelAperture]

    def __len__(self) -> int:
        return len(self.apertures)

    def __getitem__(self, i: int) -> PixelAperture:
        return self.apertures[i]

    def __getattr__(self, name: str) -> np.ndarray:
        # The radii, if all are circles, as of a photutils aperture.
        if name == 'r' and all(hasattr(each, 'r') for each in self.apertures):
            return np.array([each.r for each in self.apertures])
        raise AttributeError(name)

    def to_mask(self, method: str = 'exact') -> list[ApertureMask]:
        """Return the mask of each aperture.

        Parameters
        ----------
        method : {'exact', 'center', 'subpixel'}, optional
            Weighting of pixels on the rim, as in photutils.
        """
        return [each.to_mask(method=method) for each in self.apertures]


def parse_apertures(apertures: AperturesLike) -> tuple[list, bool]:
    """Check apertures, and convert regions to apertures.

    Parameters
    ----------
    apertures : float, Quantity, aperture, region, or a sequence of them
        Radii in pixels or as an angle, or shapes.

    Returns
    -------
    parsed : list of float, Quantity or `~photutils.aperture.Aperture`
    single : bool
        Whether it was only one.

    Examples
    --------
    >>> from csr_astro.photometry.shapes import parse_apertures
    >>> parse_apertures([3, 4.5])
    ([3.0, 4.5], False)
    """
    if is_region(apertures, 'Regions'):
        apertures = list(apertures)
    single = isinstance(apertures, Aperture) or is_region(apertures) or (
        not isinstance(apertures, list | tuple) and np.ndim(apertures) == 0
    )
    if single and isinstance(apertures, np.ndarray) and not isinstance(apertures, u.Quantity):
        apertures = apertures.item()
    items: list = [apertures] if single else list(apertures)
    if not items:
        raise ValueError(f'apertures must be {_ACCEPTED}; got none.')
    return [_parse_aperture(item) for item in items], single


def _parse_aperture(item):
    if is_region(item):
        return region_aperture(item)
    if isinstance(item, Aperture):
        return item
    if not isinstance(item, numbers.Real | u.Quantity) or isinstance(item, bool):
        raise TypeError(f'apertures must be {_ACCEPTED}, got {type(item).__name__}.')
    value = item.value if isinstance(item, u.Quantity) else item
    if isinstance(value, int) and abs(value) > _HUGE:
        value = np.inf
    unit = getattr(item, 'unit', u.pix)
    if not is_length(unit):
        raise ValueError(f'aperture radii must be in pixels or an angle, got {item}.')
    if np.ndim(value):
        raise ValueError(f'apertures must be {_ACCEPTED}; got a list in a list.')
    if not 0 < value < np.finfo(float).max:
        raise ValueError(f'aperture radii must be positive and finite, got {item}.')
    return item if unit.is_equivalent(u.arcsec) else float(value)


def is_length(unit: u.UnitBase) -> bool:
    """Return whether a radius can have this unit: pixels or an angle.

    Parameters
    ----------
    unit : `~astropy.units.UnitBase`
        The unit.

    Examples
    --------
    >>> from astropy import units as u
    >>> from csr_astro.photometry.shapes import is_length
    >>> is_length(u.arcmin), is_length(u.Jy)
    (True, False)
    """
    return unit.is_equivalent(u.arcsec) or unit in (u.pix, u.dimensionless_unscaled)


def region_aperture(region: Region) -> Aperture:
    """Convert a region to an aperture.

    Parameters
    ----------
    region : `~regions.Region`
        Circle, ellipse or rectangle, or an annulus of them.

    Examples
    --------
    >>> from regions import CirclePixelRegion, PixCoord
    >>> from csr_astro.photometry.shapes import region_aperture
    >>> region_aperture(CirclePixelRegion(PixCoord(20, 30), 3))
    <CircularAperture([20., 30.], r=3.0)>
    """
    try:
        return region_to_aperture(region)
    except (TypeError, ValueError):
        raise TypeError(
            f'a {type(region).__name__} cannot be an aperture; circles, ellipses, rectangles and '
            'their annuli can.'
        ) from None


def at_same_place(first: Aperture, other: Any) -> bool:
    """Return whether an aperture has the positions of the first, or none.

    Parameters
    ----------
    first : `~photutils.aperture.Aperture`
        The first aperture.
    other : float, Quantity or `~photutils.aperture.Aperture`
        Another, or a radius.

    Examples
    --------
    >>> from photutils.aperture import CircularAperture
    >>> from csr_astro.photometry.shapes import at_same_place
    >>> at_same_place(CircularAperture((20, 30), 3), CircularAperture((20, 30), 4))
    True
    """
    if not isinstance(other, Aperture):
        return True
    if np.shape(first.positions) != np.shape(other.positions):
        return False
    if isinstance(first, SkyAperture) != isinstance(other, SkyAperture):
        return False
    if isinstance(first, SkyAperture):
        return bool(np.all(first.positions.separation(other.positions) < _SAME_PLACE))
    return np.array_equal(first.positions, other.positions)


def radius_in_pixels(radius: float | u.Quantity, scale: float | None, name: str) -> float:
    """Convert a radius to pixels.

    Parameters
    ----------
    radius : float or Quantity
        Radius in pixels or as an angle.
    scale : float or None
        Pixel scale in arcsec.
    name : str
        What has the radius, for errors.

    Examples
    --------
    >>> from astropy import units as u
    >>> from csr_astro.photometry.shapes import radius_in_pixels
    >>> radius_in_pixels(6 * u.arcsec, 2.0, 'the aperture')
    3.0
    """
    if isinstance(radius, u.Quantity) and radius.unit.is_equivalent(u.arcsec):
        if scale is None:
            raise ValueError(f'{name} is an angle, and the data have no WCS; give pixels.')
        pixels = float(radius.to_value(u.arcsec) / scale)
    else:
        pixels = float(getattr(radius, 'value', radius))
    _check_size(pixels, name)
    return pixels


def _check_size(pixels, name):
    if pixels > _MAX_RADIUS:
        raise ValueError(
            f'{name} has a radius of {pixels:.3g} pixels; at most {_MAX_RADIUS:g} are taken.'
        )


# --------------------------------------------------------------------------------------- places


def place_aperture(
    aperture: Any,
    x: np.ndarray,
    y: np.ndarray,
    *,
    wcs: WcsLike | None,
    scale: float | None,
    shape: tuple[int, int],
) -> PixelAperture | PerSource:
    """Move an aperture to all positions.

    The North of an aperture on the sky is that at its own position, as in photutils.

    Parameters
    ----------
    aperture : float, Quantity, `~photutils.aperture.Aperture` or list of them
        A radius or a shape for all positions, or a list with one for each.
    x, y : (N,) array of float
        Positions in pixels.
    wcs : WCS or None
        World coordinate system of the map.
    scale : float or None
        Pixel scale in arcsec.
    shape : (int, int)
        Shape of the map, whose centre counts for an aperture whose position is off the sky.

    Returns
    -------
    aperture : `~photutils.aperture.PixelAperture` or `PerSource`

    Examples
    --------
    >>> from csr_astro.photometry.shapes import place_aperture
    >>> place_aperture(3.0, [20, 50], [30, 30], wcs=None, scale=None, shape=(60, 60)).positions
    array([[20., 30.],
           [50., 30.]])
    """
    if isinstance(aperture, list):
        found = [
            place_aperture(each, x[i : i + 1], y[i : i + 1], wcs=wcs, scale=scale, shape=shape)
            for i, each in enumerate(aperture)
        ]
        return PerSource([each[0] for each in found])
    if not isinstance(aperture, Aperture):
        aperture = CircularAperture((0.0, 0.0), radius_in_pixels(aperture, scale, 'the aperture'))
    elif isinstance(aperture, SkyAperture):
        if wcs is None:
            raise ValueError('apertures on the sky need a WCS, and the data have none.')
        aperture = _on_pixels(aperture, wcs, shape)
    _check_box(aperture)
    return _moved(aperture, x, y) if len(x) else aperture


def _check_box(aperture):
    # From the bounding box, which is up to a pixel larger on each side.
    _check_size(max(np.atleast_1d(aperture.bbox)[0].shape) / 2 - 1, 'the aperture')


def _moved(aperture, x, y):
    aperture = copy.copy(aperture)
    aperture.positions = np.column_stack([x, y])
    return aperture


def _on_pixels(aperture, wcs, shape):
    """Convert an aperture on the sky to pixels, at its first position or the map's centre."""
    position = aperture.positions if aperture.isscalar else aperture.positions[0]
    x, y = sky_to_pixels(position, wcs)
    if type(aperture) not in _ORIENTED:
        return aperture.to_pixel(wcs)
    lost = not np.isfinite([x, y]).all()
    if lost:
        x, y = (np.array([(size - 1) / 2]) for size in (shape[1], shape[0]))
    axes = local_axes(wcs, x, y)[0]
    if np.linalg.det(axes) < 0 and not lost:
        return aperture.to_pixel(wcs)
    # photutils 3.0 mirrors the shape where East is clockwise of North.
    return _ORIENTED[type(aperture)]((x[0], y[0]), **_pixel_shape(aperture, axes))


def _pixel_shape(aperture, axes):
    """Return the arguments of the pixel aperture for one on the sky, but its position."""
    ellipse = isinstance(aperture, SkyEllipticalAperture | SkyEllipticalAnnulus)
    names = 'ab' if ellipse else 'wh'

    def convert(end):
        sizes = (getattr(aperture, f'{name}{end}').to_value(u.arcsec) for name in names)
        return sky_shape(axes, *sizes, aperture.theta.to_value(u.rad), ellipse=ellipse)

    found = {}
    for end in ('',) if hasattr(aperture, names[0]) else ('_in', '_out'):
        *sizes, angle = convert(end)
        found |= {f'{name}{end}': size for name, size in zip(names, sizes, strict=True)}
    return found | {'theta': angle * u.rad}


def aperture_box(
    apertures: Sequence[PixelAperture], shape: tuple[int, int]
) -> tuple[slice, slice]:
    """Return the rows and columns of a map that contain all apertures of one position.

    Parameters
    ----------
    apertures : list of `~photutils.aperture.PixelAperture`
        Apertures with one position each.
    shape : (int, int)
        Shape of the map.

    Examples
    --------
    >>> from photutils.aperture import CircularAperture
    >>> from csr_astro.photometry.shapes import aperture_box
    >>> rows, columns = aperture_box([CircularAperture((20, 1), 3)], (60, 60))
    >>> print(rows.start, rows.stop, columns.start, columns.stop)
    0 5 17 24
    """
    boxes = np.array([(b.iymin, b.iymax, b.ixmin, b.ixmax) for b in (a.bbox for a in apertures)])
    low, high = boxes.min(axis=0).clip(0), boxes.max(axis=0).clip(0)
    return slice(low[0], min(high[1], shape[0])), slice(low[2], min(high[3], shape[1]))


def exceeds_mask(aperture: ApertureMask, source_mask: SourceMask | None) -> bool:
    """Return whether an aperture contains a pixel centre outside the mask of its source.

    Parameters
    ----------
    aperture : `~photutils.aperture.ApertureMask`
        The aperture, by the pixels whose centres are in it.
    source_mask : `~csr_astro.masking.SourceMask` or None
        Mask of the source.

    Examples
    --------
    >>> from photutils.aperture import CircularAperture
    >>> from csr_astro.masking import disc
    >>> from csr_astro.photometry.shapes import exceeds_mask
    >>> aperture = CircularAperture((20, 30), 4).to_mask(method='center')
    >>> exceeds_mask(aperture, disc(20, 30, 3, (60, 60)))
    True
    """
    if source_mask is None:
        return False
    y, x = np.nonzero(aperture.data)
    y, x = y + aperture.bbox.iymin - source_mask.y0, x + aperture.bbox.ixmin - source_mask.x0
    height, width = source_mask.pixels.shape
    within = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    if source_mask.clipped:
        # Pixels off the map are in no mask, and do not count.
        return not bool(source_mask.pixels[y[within], x[within]].all())
    return not bool(within.all() and source_mask.pixels[y, x].all())


def parse_annulus(annulus: Any) -> Any:
    """Check the radii of a background annulus.

    Parameters
    ----------
    annulus : (float, float), Quantity, 'instrument' or None
        Argument of `~csr_astro.InpaintedAperturePhotometry`.

    Returns
    -------
    annulus : (float, float), Quantity, 'instrument' or None
        As given.

    Examples
    --------
    >>> from csr_astro.photometry.shapes import parse_annulus
    >>> parse_annulus((6, 9))
    (6, 9)
    """
    if annulus is None or (isinstance(annulus, str) and annulus == 'instrument'):
        return annulus
    try:
        inner, outer = annulus
        units = (getattr(radius, 'unit', u.pix) for radius in (inner, outer))
        good = all(map(is_length, units)) and bool(
            0 * inner < inner < outer and np.isfinite(outer)
        )
    except (TypeError, ValueError, OverflowError, u.UnitConversionError):
        good = False
    if not good or isinstance(inner, str):
        raise ValueError(
            "annulus must be (inner, outer) radii in pixels or as an angle, or 'instrument', "
            f'got {annulus!r}.'
        )
    return inner, outer
