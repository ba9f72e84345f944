"""Type aliases of the public signatures.

They serve type checkers and annotations in user code; nothing here is needed to use the
package.
"""

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.modeling import Model
from astropy.nddata import Cutout2D, NDData
from astropy.table import Table
from astropy.wcs.wcsapi import BaseHighLevelWCS, BaseLowLevelWCS
from numpy.typing import ArrayLike
from photutils.aperture import Aperture
from regions import Region, Regions

__all__ = [
    'AperturesLike',
    'Batches',
    'ImageLike',
    'Maps',
    'Methods',
    'PathLike',
    'Pixels',
    'Places',
    'ProfileLike',
    'PsfLike',
    'QuantityLike',
    'RngLike',
    'SourcesLike',
    'WcsLike',
]


#: Path of a file or folder.
PathLike = str | os.PathLike[str]
#: One or more numbers, with or without a unit.
QuantityLike = u.Quantity | ArrayLike
#: Seed or random generator.
RngLike = np.random.Generator | int
#: Input of `~csr_astro.images.parse_image`.
ImageLike = (
    PathLike
    | NDData
    | Cutout2D
    | fits.PrimaryHDU
    | fits.ImageHDU
    | fits.CompImageHDU
    | fits.HDUList
    | QuantityLike
)
#: World coordinate system of astropy, or of another package with the same interface.
WcsLike = BaseHighLevelWCS | BaseLowLevelWCS
#: Input of `~csr_astro.sources.parse_sources`.
SourcesLike = PathLike | SkyCoord | Table | Region | Regions | Sequence[Region] | ArrayLike
#: One or more radii, apertures or regions.
AperturesLike = QuantityLike | Aperture | Region | Sequence[u.Quantity | Aperture | Region]
#: Surface brightness at offsets ``(dx, dy)`` in pixels.
ProfileLike = Callable[[np.ndarray, np.ndarray], np.ndarray]
#: Input of `~csr_astro.simulation.psf.psf_profile`.
PsfLike = ProfileLike | PathLike | fits.PrimaryHDU | fits.ImageHDU | Model | ArrayLike
#: Groups of maps, by name.
Maps = Mapping[str, Sequence[np.ndarray]]
#: Estimators and functions such as `~csr_astro.evaluation.baselines.BASELINES`, by name.
Methods = Mapping[str, Callable]
#: Pixels of a map, ``(rows, columns)``.
Pixels = tuple[np.ndarray, np.ndarray]
#: Pixel offsets from a central pixel, ``(dx, dy)``.
Places = tuple[np.ndarray, np.ndarray]
#: Indices of sources that are predicted together, and the width of their windows in pixels.
Batches = list[tuple[np.ndarray, int]]
