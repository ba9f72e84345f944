"""Simulations of several fields, written as maps with tables and as a dataset of cutouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from astropy import units as u

from csr_astro.instruments import get_instrument, identify_instrument
from csr_astro.simulation.dataset import split_fields, write_dataset
from csr_astro.simulation.simulate import simulate_levels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from csr_astro.typing import PathLike

__all__ = ['Written', 'write_simulations']


@dataclass(frozen=True)
class Written:
    """Numbers of the maps and cutouts that `write_simulations` wrote.

    Attributes
    ----------
    n_maps : int
        Number of maps with sources.
    cutouts : dict of str to int
        Number of cutouts of each split; empty without a dataset.

    Examples
    --------
    >>> from csr_astro.simulation.write import Written
    >>> Written(2, {'train': 40}).n_maps
    2
    """

    n_maps: int
    cutouts: dict


def write_simulations(
    folder: PathLike,
    fields: Sequence[dict],
    *,
    dataset: PathLike | None = None,
    layout: Literal['array', 'paper'] = 'array',
    instrument: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable | None = None,
    **options: Any,
) -> Written:
    """Simulate fields and write maps, truths, tables and, if wanted, cutouts.

    Parameters
    ----------
    folder : path-like
        Folder for maps and tables, made if missing; see
        `~csr_astro.simulation.result.Simulation.write`.
    fields : list of dict
        Arguments of `~csr_astro.simulation.simulate.simulate_levels` for each field: ``name``
        and ``data``, and optionally ``header`` and ``avoid``.
    dataset : path-like, optional
        Folder for cutouts, split by field; see
        `~csr_astro.simulation.dataset.write_dataset`. A single field goes into the training
        split.
    layout : {'array', 'paper'}, optional
        Layout of the dataset.
    instrument : str, optional
        By default it is read from each header.
    seed : int, optional
        Decides everything.
    overwrite : bool, optional
        Whether existing files are replaced.
    progress : callable, optional
        Called with a line of text for each map written.
    **options
        Options of `~csr_astro.simulation.simulate.simulate_levels`. ``psf`` may also be the
        width of a Gaussian beam, in pixels or as an angle, which then is the instrument.

    Returns
    -------
    written : `Written`

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from csr_astro.simulation.write import write_simulations
    >>> noise = np.random.default_rng(0).normal(size=(120, 120))
    >>> with TemporaryDirectory() as folder:
    ...     written = write_simulations(
    ...         folder, [{'name': 'noise', 'data': noise}], levels=[300], number=2, psf=3.5
    ...     )
    >>> written.n_maps
    1
    """
    names = [each['name'] for each in fields]
    if len(set(names)) < len(names):
        raise ValueError(f'fields must have different names, got {names}.')
    n_maps = 0

    def simulations():
        nonlocal n_maps
        for each in fields:
            chosen = dict(options)
            chosen['instrument'] = _instrument(each, chosen, instrument)
            for simulation in simulate_levels(**each, **chosen, seed=seed):
                paths = simulation.write(folder, overwrite=overwrite)
                n_maps += 1
                if progress is not None:
                    progress(f'{len(simulation.sources)} sources: {paths[0]}')
                yield simulation

    if dataset is None:
        for _ in simulations():
            pass
        return Written(n_maps, {})
    counts = write_dataset(
        dataset, simulations(), split_fields(names, seed=seed), layout=layout, overwrite=overwrite
    )
    return Written(n_maps, counts)


def _instrument(field, options, instrument):
    """The instrument of a field: the one given, by its beam, or by its header."""
    psf = options.get('psf')
    if isinstance(psf, float | u.Quantity):
        if instrument is not None:
            raise ValueError('a beam is an instrument of its own; give one or the other.')
        options['psf'] = None
        return get_instrument('generic', fwhm=psf)
    if instrument is None and field.get('header') is not None:
        instrument = identify_instrument(field['header'])
    if instrument is None and psf is None:
        raise ValueError(
            f'the header of {field["name"]!r} does not tell the instrument; give the instrument, '
            'a PSF or the width of the beam (--instrument, --psf, --fwhm).'
        )
    return instrument
