"""Numbers of the paper's simulations (Madarász et al. 2025, Sect. 2.3.1).

Flux levels, numbers of sources and sizes of cutouts are read from ``data/simulation.toml``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from csr_astro.simulation.units import to_millijansky
from csr_astro.utils.data import read_data

if TYPE_CHECKING:
    from astropy import units as u

__all__ = ['flux_levels', 'paper_facts']


def paper_facts() -> dict:
    """Numbers of the paper's simulations.

    Returns
    -------
    facts : dict
        Content of ``data/simulation.toml``; the same object at every call.

    Examples
    --------
    >>> from csr_astro.simulation.paper import paper_facts
    >>> paper_facts()['cutout_size'], len(paper_facts()['flux_levels'])
    (96, 51)
    """
    return read_data('simulation.toml')


def flux_levels(
    lowest: float | u.Quantity | None = None, highest: float | u.Quantity | None = None
) -> np.ndarray:
    """Flux levels of the paper (Table 1), in mJy.

    Parameters
    ----------
    lowest, highest : float or Quantity, optional
        Only levels between these two (inclusive), in mJy.

    Returns
    -------
    levels : (N,) `~numpy.ndarray` of float

    Examples
    --------
    >>> from csr_astro.simulation.paper import flux_levels
    >>> print(flux_levels(40, 125))
    [ 40.  60.  80. 100. 125.]
    """
    levels = np.array(paper_facts()['flux_levels'], dtype=float)
    lowest = -np.inf if lowest is None else to_millijansky(lowest)
    highest = np.inf if highest is None else to_millijansky(highest)
    return levels[(levels >= lowest) & (levels <= highest)]
