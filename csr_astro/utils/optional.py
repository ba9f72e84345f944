"""Imports of optional dependencies."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ['require']


def require(module: str, purpose: str, extra: str, package: str | None = None) -> ModuleType:
    """Import a module of an optional dependency, or raise an error that says how to install it.

    Parameters
    ----------
    module : str
        Name of the module.
    purpose : str
        Beginning of the error message with its verb, such as ``'plots need'``.
    extra : str
        Extra of this package that installs the dependency.
    package : str, optional
        Name of the package to install, if it differs from that of the module.

    Returns
    -------
    module : module

    Raises
    ------
    ImportError
        If the module is not installed.

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
