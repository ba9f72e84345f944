"""What do the signatures call the kinds of things that are taken and returned?

For type checkers and for signatures of one's own; nothing here is needed to use the
package.
"""

import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.modeling import Model
from astropy.nddata import NDData
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


#: A file or a folder.
PathLike = str | os.PathLike[str]
#: A number or numbers, with a unit or without.
QuantityLike = u.Quantity | ArrayLike
#: A seed, or what draws already.
RngLike = np.random.Generator | int
#: What `~csr_astro.images.parse_image` takes.
ImageLike = (
    NDData | fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU | fits.HDUList | QuantityLike
)
#: A world coordinate system, of astropy or of another package that has its interface.
WcsLike = BaseHighLevelWCS | BaseLowLevelWCS
#: What `~csr_astro.sources.parse_sources` takes.
SourcesLike = SkyCoord | Table | Region | Regions | Sequence[Region] | ArrayLike
#: Radii, apertures or regions, one or several.
AperturesLike = QuantityLike | Aperture | Region | Sequence[u.Quantity | Aperture | Region]
#: Surface brightness at offsets ``(dx, dy)`` in pixels.
ProfileLike = Callable[[np.ndarray, np.ndarray], np.ndarray]
#: What `~csr_astro.simulation.psf.psf_profile` takes.
PsfLike = ProfileLike | PathLike | fits.PrimaryHDU | fits.ImageHDU | Model | ArrayLike
#: Groups of maps, by name.
Maps = Mapping[str, Sequence[np.ndarray]]
#: Estimators and functions such as `~csr_astro.evaluation.baselines.BASELINES`, by name.
Methods = Mapping[str, Callable]
#: Pixels of a map, ``(rows, columns)``.
Pixels = tuple[np.ndarray, np.ndarray]
#: Pixels relative to a central one, ``(dx, dy)``.
Places = tuple[np.ndarray, np.ndarray]
#: Numbers of sources that are predicted together, and the width of their windows.
Batches = list[tuple[np.ndarray, int]]
