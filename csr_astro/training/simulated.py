"""Simulated sources on real maps and synthetic fields, to train the paper's network on.

The procedure of the paper (Sects. 2.3 and 2.4): fields with sources of one flux level each, a
cutout around every source, masks by SNR for all sources of a cutout. The cutouts are written as a
dataset before the training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from csr_astro.instruments import get_instrument
from csr_astro.simulation.dataset import (
    CutoutDataset,
    is_dataset,
    write_dataset,
)
from csr_astro.simulation.diffuse import diffuse_field
from csr_astro.simulation.paper import flux_levels, paper_facts
from csr_astro.simulation.simulate import flux_range, simulate_map

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from csr_astro.instruments import Instrument
    from csr_astro.simulation.result import Simulation
    from csr_astro.typing import Maps, PathLike

__all__ = ['resume_simulation', 'simulate_cutouts']


# Side of a synthetic field in pixels, and number of its simulations.
_FIELD_SIZE = 320
_PER_FIELD = 3
# Largest number of simulations without a place for a source after which none is expected.
_TRIES = 1000


def simulate_cutouts(
    folder: PathLike,
    maps: Maps,
    instruments: Sequence[str],
    n_cutouts: int,
    *,
    split: str = 'train',
    real_fraction: float = 0.5,
    seed: int = 0,
) -> CutoutDataset:
    """Write a dataset of simulated sources by the paper's procedure.

    Parameters
    ----------
    folder : path-like
        Folder of the dataset, made if missing.
    maps : dict of str to list of (ny, nx) array
        Real maps by kind, NaN where blank, as from `~csr_astro.training.data.read_maps`; may be
        empty.
    instruments : sequence of str
        Names of the instruments, whose PSFs and masks are drawn with equal frequency.
    n_cutouts : int
        Least number of cutouts; the last simulation is not cut short.
    split : {'train', 'validation', 'test'}, optional
        The split of all fields.
    real_fraction : float, optional
        Fraction of the cutouts that come from real maps, the others from synthetic fields; 0
        without maps.
    seed : int, optional
        Decides everything.

    Returns
    -------
    dataset : `~csr_astro.simulation.dataset.CutoutDataset`

    Raises
    ------
    ValueError
        If no map has room for a source.

    Notes
    -----
    A simulation is a field, an instrument and one flux level of the paper's Table 1. Numbers of
    sources follow from the area, positions do not cluster, each PSF is rotated at random, and
    that of parallel mode is elongated by the fast scan. Kinds of maps are drawn with the square
    root of their area.

    Maps have many units, and a network that normalises each cutout does not see them. So each
    field is scaled so that its faintest visible sources, of SNR 3, have a random level below
    3500 mJy, as the paper's fields (Tables 6 to 8). Levels go up to an SNR of 1000.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from csr_astro.training.simulated import simulate_cutouts
    >>> with TemporaryDirectory() as folder:
    ...     dataset = simulate_cutouts(folder, {}, ['pacs-scanmap-blue'], 20)
    ...     print(len(dataset) >= 20, dataset.size)
    True 100
    """
    if not instruments:
        raise ValueError('simulations need at least one instrument.')
    if n_cutouts < 1:
        raise ValueError(f'n_cutouts must be positive, got {n_cutouts}.')
    chosen = [get_instrument(name) for name in instruments]
    simulations = _simulations(maps, chosen, n_cutouts, real_fraction if maps else 0.0, seed)
    write_dataset(folder, simulations, split)
    return CutoutDataset(folder, split)


def resume_simulation(
    folder: PathLike, maps: Maps, instruments: Sequence[str], n_cutouts: int, **options: Any
) -> CutoutDataset:
    """Read the dataset in a folder, or write it there first.

    Parameters
    ----------
    folder, maps, instruments, n_cutouts, **options
        As in `simulate_cutouts`.

    Returns
    -------
    dataset : `~csr_astro.simulation.dataset.CutoutDataset`

    Raises
    ------
    ValueError
        If the dataset there has fewer cutouts.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from csr_astro.training.simulated import resume_simulation
    >>> with TemporaryDirectory() as folder:
    ...     first = resume_simulation(folder, {}, ['pacs-scanmap-blue'], 4)
    ...     again = resume_simulation(folder, {}, ['pacs-scanmap-blue'], 4)
    ...     print(len(first) == len(again))
    True
    """
    if not is_dataset(folder):
        return simulate_cutouts(folder, maps, instruments, n_cutouts, **options)
    dataset = CutoutDataset(folder, options.get('split', 'train'))
    if len(dataset) < n_cutouts:
        raise ValueError(
            f'{str(folder)!r} holds {len(dataset)} cutouts, {n_cutouts} are wanted; remove it or '
            'choose another folder.'
        )
    return dataset


def _simulations(
    maps: Maps, instruments: list[Instrument], n_cutouts: int, real_fraction: float, seed: int
) -> Iterator[Simulation]:
    """Simulations with enough sources, real and synthetic fields in turn."""
    rng = np.random.default_rng([seed, 5])
    kinds = list(maps)
    areas = {kind: np.array([np.isfinite(each).sum() for each in maps[kind]]) for kind in kinds}
    weights = np.sqrt([areas[kind].sum() for kind in kinds])
    number, vain, field = 0, 0, None
    counts = {True: 0, False: 0}
    while sum(counts.values()) < n_cutouts:
        real = counts[True] < real_fraction * (sum(counts.values()) + 1)
        if real:
            kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
            image = maps[kind][rng.choice(len(areas[kind]), p=areas[kind] / areas[kind].sum())]
        else:
            kind = 'synthetic'
            if number % _PER_FIELD == 0 or field is None:
                field = diffuse_field((_FIELD_SIZE, _FIELD_SIZE), rng)
            image = field
            number += 1
        instrument = instruments[rng.integers(len(instruments))]
        try:
            simulation = _simulate(image, kind, instrument, rng)
        except ValueError:
            # An island without room for a source, or without structure.
            vain += 1
            if vain > _TRIES:
                raise ValueError('no map has room for sources with their surroundings.') from None
            continue
        vain = 0
        counts[real] += len(simulation.sources)
        yield simulation


def _simulate(image, kind, instrument, rng):
    """Sources of one random level on a field of random brightness."""
    fast_scan = 'parallel' in instrument.name
    lowest, highest = flux_range(image, instrument=instrument, fast_scan=fast_scan)
    visible = flux_levels(None, paper_facts()['largest_visible'])
    faintest = rng.choice(visible)
    levels = flux_levels(faintest, faintest * highest / lowest)
    flux = rng.choice(levels)
    options = {'instrument': instrument, 'fast_scan': fast_scan, 'name': kind}
    scaled = image * (faintest / lowest)
    seed = int(rng.integers(2**31))
    # A map of islands has little room.
    for number in (None, 4, 2, 1):
        try:
            return simulate_map(scaled, flux, number=number, seed=seed, **options)
        except ValueError:
            if number == 1:
                raise
    raise AssertionError
