"""Which cutouts does the network learn from?

Real maps and synthetic fields, discs cut out of them, and sources whose wings
reach outside the discs. Everything is drawn on the fly from a seed and the
number of the batch, so a resumed training sees the same cutouts as one that
was never stopped.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from csr_astro.images import IMAGE_NAMES, open_fits
from csr_astro.simulation.diffuse import diffuse_field
from csr_astro.simulation.psf import (
    gaussian_profile,
    image_profile,
    moffat_profile,
    pacs_profile,
    psf_pixels,
    psf_stamp,
)
from csr_astro.utils.files import fits_files, stem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csr_astro.typing import Maps, PathLike

__all__ = ['CutoutSampler', 'read_maps']


_FIELD_SIZE = 320
_FIELDS = 96
_BATCHES_PER_FIELD = 12
_STAMPS = 384
_STAMP_SIZE = 97
# Full widths at half maximum, in pixels.
_FWHM = (2.0, 6.0)
# Of the PACS bands, in arcsec, and the length of a fast scan's smear.
_PACS = {'blue': (5.6, 12.0), 'green': (6.8, 12.0), 'red': (11.4, 6.0)}
# Pixel scales of maps over those of the PSF images: PACS scan maps and parallel mode.
_PSF_SCALES = (1.2 / 1.6, 1.2 / 3.2, 2.4 / 3.2, 1.0)
_RADII = (4.0, 13.5)
_MAX_NEIGHBOURS = 5
# Largest wing at the rim of a disc, over the peak of its source.
_MAX_RIM = 0.07
# Most draws succeed at once; a thousand in vain mean that none can.
_TRIES = 1000
# What stands out by more than this many scatters is not background.
_BRIGHT = 10.0
# Peaks of injected sources and their wings at the rim, in scatters.
_PEAKS = (3.0, 1e5)
_RIMS = (0.03, 6.0)


def read_maps(
    folder: PathLike, block_sizes: tuple[int, ...] = (1, 2)
) -> dict[str, list[np.ndarray]]:
    """Read the maps in a folder of FITS files.

    Parameters
    ----------
    folder : path-like
        Holds ``*.fits``; two-dimensional extensions that are called ``image``, ``SCI`` or
        ``DATA``, or have no name, are read: others hold coverage, errors and masks. Blank
        pixels are NaN.
    block_sizes : tuple of int, optional
        Each image is also taken averaged over blocks of this many pixels, as
        long as at least 200 pixels per side remain.

    Returns
    -------
    maps : dict of str to list of (ny, nx) `~numpy.ndarray` of float32
        Images by file name, without the tile number: maps of one kind share a
        name.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> from csr_astro.training.data import read_maps
    >>> with TemporaryDirectory() as folder:
    ...     fits.writeto(Path(folder) / 'field.fits', np.zeros((400, 400)))
    ...     maps = read_maps(folder)
    >>> [each.shape for each in maps['field']]
    [(400, 400), (200, 200)]
    """
    from astropy.nddata import block_reduce

    maps: dict[str, list[np.ndarray]] = {}
    for file in fits_files(folder):
        with open_fits(file) as hdus:
            for hdu in hdus:
                named = hdu.name and hdu.name.lower() not in (*IMAGE_NAMES, 'primary')
                if named or not hdu.is_image or hdu.header.get('NAXIS') != 2:
                    continue
                image = np.asarray(hdu.data, dtype=np.float32)
                kind = stem(file).name.split('_tile')[0]
                for block in block_sizes:
                    if block == 1:
                        maps.setdefault(kind, []).append(image)
                    elif min(image.shape) >= 200 * block:
                        maps.setdefault(kind, []).append(block_reduce(image, block, func=np.mean))
    return maps


class _RealMap:
    """A map and the pixels on which a disc may be centred."""

    def __init__(self, image):
        self.image = image
        finite = np.isfinite(image)
        self.centers = np.flatnonzero(finite)
        self.weight = len(self.centers)


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
    """PACS, of the user, Moffat or Gaussian: wings of every kind, and none."""
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
    """Draws training batches.

    Parameters
    ----------
    maps : dict of str to list of (ny, nx) array
        Real maps by kind, NaN where blank; may be empty.
    psfs : list of (ny, nx) array, optional
        PSF images; those of PACS, Moffat and Gaussian profiles are always used besides.
    real_fraction : float, optional
        Fraction of the cutouts that come from real maps.
    source_fraction : float, optional
        Fraction of the discs that hold a source, of any brightness; the wings of
        most reach outside.
    size : int, optional
        Pixels per side of a cutout.
    seed : int, optional
        Everything is drawn from this and the number of the batch.

    Notes
    -----
    Each cutout is shifted (its centre is any measured pixel of a map, and the disc
    lies up to half a pixel off), flipped and rotated by quarter turns, all of which
    move pixels without interpolating them; has the masks of up to five neighbours
    at random places, blank pixels where the map ends or has gaps, sometimes more
    noise, and sources, turned and stretched at random, whose wings reach outside
    the masks. `read_maps` adds maps of other resolution.

    A factor on the brightness and an offset are not drawn: normalisation takes
    both off again. Nor are signs changed: maps are skewed towards bright
    structures, and so are the errors of a background.

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
        # Kinds count by the square root of their size: neither the largest map nor the
        # number of kinds decides alone.
        area = np.array([sum(m.weight for m in kind) for kind in self.kinds], dtype=float)
        self.kind_weights = np.sqrt(area) / np.sqrt(area).sum() if len(area) else area
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
        """PSF, and its mean at every distance over its peak."""
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
            Cutout with sources, without them, 1 where valid background, 1 where
            the prediction is judged (measured pixels of the discs), 1 in the
            central disc. Of order 1, without NaN.
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
        else:
            first = number // _BATCHES_PER_FIELD
            field = self._field(first + int(rng.integers(_FIELDS)))
            y, x = rng.integers(0, _FIELD_SIZE - self.size, 2)
            cutout = field[y : y + self.size, x : x + self.size]
            if rng.random() < 0.15:
                # The edge of a map, or a gap in it.
                cutout = cutout.copy()
                edge = int(rng.integers(0, self.size // 2 - 4))
                cutout[:, :edge] = np.nan
        turns = int(rng.integers(4))
        cutout = np.rot90(cutout, turns)
        return cutout[:, ::-1] if rng.random() < 0.5 else cutout

    def _draw(self, rng, number, image, target, valid, hole, central, radius):
        half = self.size // 2
        cutout = self._background(rng, number)
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
        near = good & ((yy - half) ** 2 + (xx - half) ** 2 <= (radii[0] + 12) ** 2)
        if near.sum() < 30:
            return False
        location, scatter = np.median(cutout[near]), cutout[near].std()
        if not scatter > 0:
            return False
        clean = np.where(finite, (cutout - location) / scatter, 0).astype(np.float32)
        if clean[discs[0]].max() > _BRIGHT:
            # A source of the map's own, which is no background.
            return False
        if rng.random() < 0.15:
            clean += rng.standard_normal(clean.shape, dtype=np.float32) * 10 ** rng.uniform(-2, 0)
        dirty = clean.copy()
        for (y, x), r in zip(centers, radii, strict=True):
            if rng.random() < self.source_fraction:
                self._inject(rng, dirty, y, x, r)
        image[:] = np.where(finite, dirty, 0)
        target[:] = np.clip(clean, -1e4, 1e4)
        valid[:] = good
        hole[:] = finite & mask
        central[:] = discs[0]
        radius[0] = np.ceil(radii[0])
        return True

    def _inject(self, rng, image, y, x, radius):
        """Add a source: of any brightness, or with any wing at the rim of its disc."""
        stamp, profile = self._stamp(rng.integers(_STAMPS))
        half = _STAMP_SIZE // 2
        wing = profile[min(round(radius), half)]
        # Masks are made to cover what stands out.
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
