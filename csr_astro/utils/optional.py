"""What is said where a package is missing that only some of the work needs?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ['require']


def require(module: str, purpose: str, extra: str, package: str | None = None) -> ModuleType:
    """A module of an optional dependency, or an error that says how to get it.

    Parameters
    ----------
    module : str
        What is imported.
    purpose : str
        What needs it: the beginning of the sentence, with its verb.
    extra : str
        The extra of this package that installs it.
    package : str, optional
        Name of what is installed, if it is not that of the module.

    Returns
    -------
    module : module

    Raises
    ------
    ImportError
        If it is not installed.

    Examples
    --------
    >>> from csr_astro.utils.optional import require
    >>> require('json', 'reports need', 'all').__name__
    'json'
    >>> require('no_such_module', 'reports need', 'all')
    Traceback (most recent call last):
    ...
    ImportError: reports need no_such_module; install it with: pip install "csr_astro[all]"
    """
    try:
        return import_module(module)
    except ImportError:
        name = package or module.partition('.')[0]
        raise ImportError(
            f'{purpose} {name}; install it with: pip install "csr_astro[{extra}]"'
        ) from None
