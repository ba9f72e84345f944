"""Access to the data files of the package."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ['DATA', 'read_data']

#: Folder of the package's data files.
DATA = Path(__file__).parents[1] / 'data'


@cache
def read_data(name: str) -> dict[str, Any]:
    """Read a TOML file of the package's ``data`` folder.

    Parameters
    ----------
    name : str
        Path relative to ``data``, with its suffix.

    Returns
    -------
    content : dict
        Content of the file, the same object at every call: do not modify it.

    Examples
    --------
    >>> from csr_astro.utils.data import read_data
    >>> sorted(read_data('error_model.toml'))
    ['coefficients', 'constant', 'range']
    """
    return tomllib.loads((DATA / name).read_text(encoding='utf-8'))
