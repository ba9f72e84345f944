"""Cutouts that the network learns from.

`CutoutSampler` draws them from real maps and synthetic fields: discs are cut out, and sources put
in whose wings reach outside the discs. `~csr_astro.training.stored.DatasetSampler` takes the
cutouts of a dataset on disk. Both draw from a seed and the number of the batch, so that a resumed
training sees the same cutouts as one that was never stopped.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from astropy.utils.exceptions import AstropyUserWarning
from photutils.background import Background2D
from photutils.detection import DAOStarFinder
from photutils.utils.exceptions import NoDetectionsWarning
from scipy import ndimage

from csr_astro.conventions import file_conventions, meaning
from csr_astro.cutouts import nearest_pixel
from csr_astro.simulation.diffuse import diffuse_field, power_law_field
from csr_astro.simulation.pacs import pacs_profile
from csr_astro.simulation.patterns import detector_pattern
from csr_astro.simulation.profiles import gaussian_profile, image_profile, moffat_profile
from csr_astro.simulation.psf import psf_pixels, psf_stamp
from csr_astro.simulation.tiles import read_tiles
from csr_astro.utils.files import fits_files
from csr_astro.utils.warnings import ignored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csr_astro.typing import Maps, PathLike

__all__ = ['LARGEST', 'SURROUNDINGS', 'CutoutSampler', 'read_maps']


_FIELD_SIZE = 320
_FIELDS = 96
_BATCHES_PER_FIELD = 12
_STAMPS = 384
_STAMP_SIZE = 97
# Full widths at half maximum, in pixels.
_FWHM = (2.0, 6.0)
# Beams of the PACS bands and lengths of a fast scan's smear, in arcsec.
_PACS = {'blue': (5.6, 12.0), 'green': (6.8, 12.0), 'red': (11.4, 6.0)}
# Pixel scales of maps over those of the PSF images: PACS scan maps and parallel mode.
_PSF_SCALES = (1.2 / 1.6, 1.2 / 3.2, 2.4 / 3.2, 1.0)
_RADII = (4.0, 13.5)
_MAX_NEIGHBOURS = 5
# Largest wing at the rim of a disc, over the peak of its source.
_MAX_RIM = 0.07
# Number of draws of a cutout before the maps are taken to have none.
_TRIES = 1000
# Compact sources of real maps: FWHM in pixels, and peak in scatters of a box of so many pixels,
# above which they are not background.
_SOURCE_FWHM, _SOURCE_PEAK, _SOURCE_BOX = 3.0, 8.0, 32
# Exponents of the brightness above the faintest pixel, and their chance.
_GAMMAS, _TRANSFORMED = (0.6, 1.8), 0.25
# Chances of another cutout on top, of a pattern of the detector, of noise, and of noise that
# depends on the place.
_MIXED, _PATTERN, _NOISE, _UNEVEN = 0.1, 0.08, 0.15, 0.3
# Kinds of maps are weighted by this power of their area.
_AREA_POWER = 0.4
# Peaks of injected sources and their wings at the rim, in scatters.
_PEAKS = (3.0, 1e5)
_RIMS = (0.03, 6.0)
#: Background within this distance of the central disc decides the scale, in pixels.
SURROUNDINGS = 12
#: Pixels of targets are clipped to this, in units of the scale.
LARGEST = 1e4


def read_maps(
    folder: PathLike, block_sizes: tuple[int, ...] = (1, 2)
) -> dict[str, list[np.ndarray]]:
    """Read the maps in a folder of FITS files.

    Parameters
    ----------
    folder : path-like
        Folder of FITS files. Two-dimensional extensions with the name ``image``, ``SCI`` or
        ``DATA`` or without a name are read; others hold coverage, errors and masks. Blank
        pixels are NaN.
    block_sizes : tuple of int, optional
        Each image is averaged over blocks of each of these sizes, in pixels, as long as at least
        200 pixels per side remain.

    Returns
    -------
    maps : dict of str to list of (ny, nx) `~numpy.ndarray` of float32
        Images by file name without the tile number: maps of one kind share a name.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> from csr_astro.training.data import read_maps
    >>> with TemporaryDirectory() as folder:
    ...     fits.writeto(f'{folder}/field.fits', np.zeros((400, 400)))
    ...     maps = read_maps(folder)
    >>> [each.shape for each in maps['field']]
    [(400, 400), (200, 200)]
    """
    from astropy.nddata import block_reduce

    maps: dict[str, list[np.ndarray]] = {}
    for _, kind, images in read_tiles(fits_files(folder), _map_hdus, np.float32):
        for image in images:
            for block in block_sizes:
                if block == 1:
                    maps.setdefault(kind, []).append(image)
                elif min(image.shape) >= 200 * block:
                    maps.setdefault(kind, []).append(block_reduce(image, block, func=np.mean))
    return maps


def _map_hdus(hdus):
    conventions = file_conventions(hdus)
    return [
        hdu
        for hdu in hdus
        if hdu.name in ('', 'PRIMARY') or meaning(hdu, conventions)[0] == 'image'
    ]


class _RealMap:
    """A map, the pixels on which a disc may be centred, and those of its compact sources."""

    def __init__(self, image):
        self.image = image
        finite = np.isfinite(image)
        self.centers = np.flatnonzero(finite)
        self.weight = len(self.centers)
        self.sources = _compact_sources(image, finite)


def _compact_sources(image, finite):
    """True at the peaks of compact sources, told from bright background by their shape."""
    peaks = np.zeros(image.shape, dtype=bool)
    if min(image.shape) < _SOURCE_BOX or not finite.any():
        return peaks
    filled = np.where(finite, image, np.median(image[finite])).astype(float)
    sharp = filled - ndimage.median_filter(filled, int(3 * _SOURCE_FWHM))
    with ignored(AstropyUserWarning, NoDetectionsWarning):
        try:
            # The scatter of the fine structure around each pixel, sources clipped.
            scatter = Background2D(
                sharp, _SOURCE_BOX, mask=~finite, exclude_percentile=80
            ).background_rms
        except ValueError:
            # No box has enough pixels.
            return peaks
        least = 1e-6 * max(np.ptp(filled), np.finfo(float).tiny)
        scaled = np.where(finite, sharp, 0) / np.maximum(np.asarray(scatter), least)
        found = DAOStarFinder(threshold=_SOURCE_PEAK, fwhm=_SOURCE_FWHM)(scaled)
    if found is not None:
        y, x = (
            found[next(name for name in names if name in found.colnames)]
            for names in (('y_centroid', 'ycentroid'), ('x_centroid', 'xcentroid'))
        )
        peaks[nearest_pixel(np.asarray(y)), nearest_pixel(np.asarray(x))] = True
    return peaks


def _window(image, y, x, size):
    """(size, size) cutout with pixel (y, x) at (size // 2, size // 2), NaN off the map."""
    half = size // 2
    out = np.full((size, size), np.nan, dtype=np.float32)
    y0, x0 = y - half, x - half
    sy = slice(max(y0, 0), min(y0 + size, image.shape[0]))
    sx = slice(max(x0, 0), min(x0 + size, image.shape[1]))
    out[sy.start - y0 : sy.stop - y0, sx.start - x0 : sx.stop - x0] = image[sy, sx]
    return out


def _draw_profile(rng, psfs, number):
    """A profile of PACS, of the user, Moffat or Gaussian: with wings of every kind, and none."""
    kind = number % 6
    if kind in (0, 1):
        band, (fwhm, smear) = list(_PACS.items())[rng.integers(len(_PACS))]
        return pacs_profile(
            band, fwhm / rng.uniform(*_FWHM), smear=smear * float(rng.random() < 0.3)
        )
    if kind in (2, 3) and psfs:
        image = psfs[rng.integers(len(psfs))]
        return image_profile(image, rng.choice(_PSF_SCALES), rng.uniform(2.5, 3.5))
    if kind == 4:
        return gaussian_profile(rng.uniform(*_FWHM))
    return moffat_profile(rng.uniform(*_FWHM), rng.uniform(1.4, 5))


class CutoutSampler:
    """Batches of cutouts that are drawn from real maps and synthetic fields.

    Parameters
    ----------
    maps : dict of str to list of (ny, nx) array
        Real maps by kind, NaN where blank; may be empty.
    psfs : list of (ny, nx) array, optional
        PSF images, in addition to the profiles of PACS, Moffat and Gaussian.
    real_fraction : float, optional
        Fraction of the cutouts that come from real maps.
    source_fraction : float, optional
        Fraction of the discs that hold a source. The wings of most reach outside the disc.
    size : int, optional
        Pixels per side of a cutout.
    seed : int, optional
        Decides everything, together with the number of the batch.

    Notes
    -----
    Each cutout is centred on a random measured pixel of a map without a compact source, with the
    disc up to half a pixel off, flipped and rotated by quarter turns; none of this interpolates
    pixels. It has the masks of up to five neighbours at random places, blank pixels beyond edges
    and in gaps of the map, and sources, rotated and stretched at random, whose wings reach outside
    the masks. Some have a power of the map's brightness, a second cutout on top, more noise or
    patterns of a detector. `read_maps` adds maps of other resolution.

    Brightness is neither scaled nor offset, because normalisation removes both. Signs are not
    changed, because maps are skewed towards bright structures.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro.training.data import CutoutSampler
    >>> maps = {'noise': [np.random.default_rng(0).normal(size=(160, 160))]}
    >>> image, target, valid, hole, central, radius = CutoutSampler(maps).batch(0, 2)
    >>> print(image.shape, radius.shape)
    (2, 1, 96, 96) (2,)
    """

    def __init__(
        self,
        maps: Maps,
        psfs: Sequence[np.ndarray] = (),
        *,
        real_fraction: float = 0.6,
        source_fraction: float = 0.2,
        size: int = 96,
        seed: int = 0,
    ) -> None:
        self.kinds = [
            [_RealMap(image) for image in images if np.isfinite(image).any()]
            for images in maps.values()
        ]
        self.kinds = [kind for kind in self.kinds if kind]
        # Neither the largest map nor the number of kinds decides alone.
        area = np.array([sum(m.weight for m in kind) for kind in self.kinds], dtype=float)
        self.kind_weights = area**_AREA_POWER / (area**_AREA_POWER).sum() if len(area) else area
        self.map_weights = [
            np.array([m.weight for m in kind]) / sum(m.weight for m in kind) for kind in self.kinds
        ]
        self.real_fraction = real_fraction if self.kinds else 0.0
        self.source_fraction = source_fraction
        self.size = size
        self.seed = seed
        self.psfs = [psf_pixels(psf) for psf in psfs]
        self._remember_drawn()

    def __repr__(self) -> str:
        n_maps = sum(map(len, self.kinds))
        return (
            f'<CutoutSampler: {self.size} x {self.size} pixels, {n_maps} maps of '
            f'{len(self.kinds)} kinds, {self.real_fraction:.0%} of the cutouts, seed {self.seed}>'
        )

    def _remember_drawn(self):
        self._field = lru_cache(maxsize=_FIELDS + 8)(self._make_field)
        self._stamp = lru_cache(maxsize=_STAMPS)(self._make_stamp)

    def __getstate__(self) -> dict:
        # A cache cannot be sent to another process.
        caches = ('_field', '_stamp')
        return {key: value for key, value in self.__dict__.items() if key not in caches}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._remember_drawn()

    def _make_field(self, number):
        rng = np.random.default_rng([self.seed, 1, number])
        return diffuse_field((_FIELD_SIZE, _FIELD_SIZE), rng)

    def _make_stamp(self, number):
        """PSF over its peak, and its mean at every distance."""
        rng = np.random.default_rng([self.seed, 2, number])
        stamp = psf_stamp(
            _draw_profile(rng, self.psfs, number),
            _STAMP_SIZE,
            offset=rng.uniform(-0.5, 0.5, 2),
            angle=rng.uniform(0, 2 * np.pi),
            elongation=rng.uniform(1, 1.3),
        )
        stamp /= stamp.max()
        yy, xx = np.indices(stamp.shape) - _STAMP_SIZE // 2
        ring = np.rint(np.hypot(yy, xx)).astype(int)
        profile = ndimage.mean(stamp, ring, np.arange(_STAMP_SIZE // 2 + 1))
        return stamp.astype(np.float32), profile

    def batch(
        self, number: int, batch_size: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draw one batch.

        Parameters
        ----------
        number : int
            Number of the batch; the same number gives the same batch.
        batch_size : int
            Number of cutouts.

        Returns
        -------
        image, target, valid, hole, central : (B, 1, size, size) `~numpy.ndarray` of float32
            Cutout with sources and without, of order 1 and without NaN; 1 in valid background; 1
            in the pixels that are judged, which are the measured ones of the discs; 1 in the
            central disc.
        radius : (B,) `~numpy.ndarray` of float32
            Radius of the central disc in pixels.
        """
        rng = np.random.default_rng([self.seed, 0, number])
        shape = (batch_size, 1, self.size, self.size)
        image, target, valid, hole, central = (np.zeros(shape, dtype=np.float32) for _ in range(5))
        radius = np.zeros(batch_size, dtype=np.float32)
        for i in range(batch_size):
            for _ in range(_TRIES):
                if self._draw(
                    rng,
                    number,
                    image[i, 0],
                    target[i, 0],
                    valid[i, 0],
                    hole[i, 0],
                    central[i, 0],
                    radius[i : i + 1],
                ):
                    break
            else:
                raise ValueError(
                    f'no usable cutout was found in {_TRIES} tries: the maps are blank, constant, '
                    'or smaller than a disc with its surroundings.'
                )
        return image, target, valid, hole, central, radius

    def _background(self, rng, number):
        if rng.random() < self.real_fraction:
            k = rng.choice(len(self.kinds), p=self.kind_weights)
            real = self.kinds[k][rng.choice(len(self.kinds[k]), p=self.map_weights[k])]
            y, x = np.unravel_index(rng.choice(real.centers), real.image.shape)
            cutout = _window(real.image, y, x, self.size)
            sources = np.argwhere(_window(real.sources, y, x, self.size) > 0)
        else:
            sources = np.zeros((0, 2))
            first = number // _BATCHES_PER_FIELD
            field = self._field(first + int(rng.integers(_FIELDS)))
            y, x = rng.integers(0, _FIELD_SIZE - self.size, 2)
            cutout = field[y : y + self.size, x : x + self.size]
            if rng.random() < 0.15:
                # An edge of the map, or a gap in it.
                cutout = cutout.copy()
                edge = int(rng.integers(0, self.size // 2 - 4))
                cutout[:, :edge] = np.nan
        cutout = _with_brightness_changed(rng, cutout)
        distance = np.hypot(*(sources - self.size // 2).T).min(initial=np.inf)
        turns = int(rng.integers(4))
        cutout = np.rot90(cutout, turns)
        return cutout[:, ::-1] if rng.random() < 0.5 else cutout, distance

    def _draw(self, rng, number, image, target, valid, hole, central, radius):
        half = self.size // 2
        cutout, nearest_source = self._background(rng, number)
        if rng.random() < _MIXED:
            other, distance = self._background(rng, number)
            cutout = _mixed(rng, cutout, other)
            nearest_source = min(nearest_source, distance)
        finite = np.isfinite(cutout)
        yy, xx = np.ogrid[: self.size, : self.size]
        n_discs = 1 + rng.integers(_MAX_NEIGHBOURS + 1)
        centers = rng.uniform(6, self.size - 6, (n_discs, 2))
        centers[0] = half + rng.uniform(-0.5, 0.5, 2)
        radii = rng.uniform(*_RADII, n_discs)
        discs = [
            (yy - y) ** 2 + (xx - x) ** 2 <= r * r
            for (y, x), r in zip(centers, radii, strict=True)
        ]
        mask = np.logical_or.reduce(discs)
        good = finite & ~mask
        if good.sum() < 60 or finite[discs[0]].mean() < 0.6:
            return False
        if nearest_source <= radii[0] + _SOURCE_FWHM / 2:
            # The map has a source of its own there. Bright background stays: a network that never
            # sees any predicts too little of it.
            return False
        near = good & (
            (yy - half) ** 2 + (xx - half) ** 2 <= (radii[0] + SURROUNDINGS) ** 2
        )
        if near.sum() < 30:
            return False
        location, scatter = np.median(cutout[near]), cutout[near].std()
        if not scatter > 0:
            return False
        clean = np.where(finite, (cutout - location) / scatter, 0).astype(np.float32)
        clean = np.where(finite, clean + _detector(rng, clean.shape), 0)
        dirty = clean.copy()
        for (y, x), r in zip(centers, radii, strict=True):
            if rng.random() < self.source_fraction:
                self._inject(rng, dirty, y, x, r)
        image[:] = np.where(finite, dirty, 0)
        target[:] = np.clip(clean, -LARGEST, LARGEST)
        valid[:] = good
        hole[:] = finite & mask
        central[:] = discs[0]
        radius[0] = np.ceil(radii[0])
        return True

    def _inject(self, rng, image, y, x, radius):
        """Add a source, of random brightness or with random wings at the rim of its disc."""
        stamp, profile = self._stamp(rng.integers(_STAMPS))
        half = _STAMP_SIZE // 2
        wing = profile[min(round(radius), half)]
        # Masks are made to cover wings that stand out.
        if wing >= _MAX_RIM:
            return
        brightest = min(_PEAKS[1], _RIMS[1] / max(wing, 1e-9))
        lowest = _PEAKS[0]
        if rng.random() < 0.7:
            lowest = max(lowest, min(_RIMS[0] / max(wing, 1e-9), brightest))
        peak = np.exp(rng.uniform(np.log(lowest), np.log(brightest)))
        y0, x0 = round(y) - half, round(x) - half
        sy = slice(max(y0, 0), min(y0 + _STAMP_SIZE, self.size))
        sx = slice(max(x0, 0), min(x0 + _STAMP_SIZE, self.size))
        image[sy, sx] += peak * stamp[sy.start - y0 : sy.stop - y0, sx.start - x0 : sx.stop - x0]


def _with_brightness_changed(rng, cutout):
    """The cutout, or a power of its brightness above the faintest pixel."""
    if rng.random() >= _TRANSFORMED:
        return cutout
    finite = np.isfinite(cutout)
    if not finite.any():
        return cutout
    low, high = cutout[finite].min(), np.percentile(cutout[finite], 99)
    if not high > low:
        return cutout
    above = (cutout - low) / (high - low) + 10 ** rng.uniform(-2, 0.5)
    return (above ** rng.uniform(*_GAMMAS)).astype(np.float32)


def _mixed(rng, cutout, other):
    """Sum of two cutouts of comparable scatter; where the other is blank, the first alone."""
    scales = [np.nanstd(each) if np.isfinite(each).any() else 0.0 for each in (cutout, other)]
    if not min(scales) > 0:
        return cutout
    weight = 10 ** rng.uniform(-1, 0.5) * scales[0] / scales[1]
    return cutout + weight * np.where(np.isfinite(other), other - np.nanmean(other), 0)


def _detector(rng, shape):
    """Noise and patterns of a detector, in scatters of the background; mostly none."""
    added = np.zeros(shape, dtype=np.float32)
    if rng.random() < _NOISE:
        noise = rng.standard_normal(shape)
        if rng.random() < _UNEVEN:
            # Coverage in waves, or with a step.
            coverage = power_law_field(shape, -4, rng)
            noise *= np.exp(coverage if rng.random() < 0.5 else np.sign(coverage))
        if rng.random() < _UNEVEN:
            # Drizzled maps and maps smoothed to a beam.
            noise = ndimage.gaussian_filter(noise, rng.uniform(0.4, 1.5))
        added += noise / noise.std() * 10 ** rng.uniform(-2, 0.5)
    if rng.random() < _PATTERN:
        added += detector_pattern(shape, rng) * 10 ** rng.uniform(-1.5, 0.7)
    return added
