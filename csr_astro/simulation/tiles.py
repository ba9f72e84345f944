"""Images of FITS files, with the name of the field that a file is a tile of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from csr_astro.images import open_fits
from csr_astro.utils.files import stem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from astropy.io import fits
    from numpy.typing import DTypeLike

    from csr_astro.typing import PathLike

__all__ = ['read_tiles']


def read_tiles(
    files: Iterable[PathLike],
    choose: Callable[[fits.HDUList], Iterable[Any]],
    dtype: DTypeLike = float,
) -> Iterator[tuple[PathLike, str, list[np.ndarray]]]:
    """Read the two-dimensional images of FITS files.

    Parameters
    ----------
    files : iterable of path-like
        FITS files.
    choose : callable
        Returns the HDUs of a file that are read if they hold a two-dimensional image.
    dtype : dtype, optional
        Type of the images.

    Yields
    ------
    file : path-like
        One of ``files``.
    field : str
        Its name without ``_tileNN`` and the suffix: tiles of one field share it.
    images : list of (ny, nx) `~numpy.ndarray`
        Its images.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> from csr_astro.simulation.tiles import read_tiles
    >>> with TemporaryDirectory() as folder:
    ...     fits.writeto(f'{folder}/cloud_tile01.fits', np.zeros((20, 30)))
    ...     tiles = list(read_tiles([f'{folder}/cloud_tile01.fits'], choose=list))
    >>> tiles[0][1], tiles[0][2][0].shape
    ('cloud', (20, 30))
    """
    for file in files:
        with open_fits(file) as hdus:
            images = [
                np.array(hdu.data, dtype=dtype)
                for hdu in choose(hdus)
                if hdu.is_image and hdu.header.get('NAXIS') == 2
            ]
        yield file, stem(Path(file)).name.split('_tile')[0], images
