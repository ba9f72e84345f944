"""Progress bars, shown where a person watches."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ['progress_bar']


def progress_bar(*, progress: bool | None, **options: Any) -> tqdm:
    """Make a progress bar.

    Parameters
    ----------
    progress : bool or None
        Whether the bar is shown; None shows it in a notebook, and on a terminal.
    **options
        Arguments of ``tqdm``, such as ``total`` and ``unit``.

    Returns
    -------
    bar : `~tqdm.tqdm`
        A bar of ``tqdm.auto``.

    Examples
    --------
    >>> from csr_astro.utils.progress import progress_bar
    >>> with progress_bar(progress=None, total=3, unit='source') as bar:
    ...     for _ in range(3):
    ...         _ = bar.update()
    """
    from tqdm.auto import tqdm

    if progress is None:
        in_notebook = any(each.__module__ == 'tqdm.notebook' for each in tqdm.__mro__)
        progress = in_notebook or bool(getattr(sys.stderr, 'isatty', bool)())
    return tqdm(disable=not progress, **options)
