"""How does a package load its parts when they are first used, and show all of them before?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ['load_lazily']


def load_lazily(
    package: str, submodules: Sequence[str], names: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A ``__getattr__`` and a ``__dir__`` for the ``__init__.py`` of a package.

    Parameters
    ----------
    package : str
        ``__name__`` there.
    submodules : sequence of str
        Modules of the package that its users need.
    names : dict of str to str, optional
        Public names, and the modules that hold them.

    Returns
    -------
    getter, lister : callable
        Load what is asked for; list all that there is.

    Examples
    --------
    >>> from csr_astro.lazy import load_lazily
    >>> getter, lister = load_lazily('xml', ['sax', 'dom'], {'parse': 'xml.sax'})
    >>> lister()
    ['dom', 'parse', 'sax']
    >>> getter('parse').__name__
    'parse'
    """
    names = names or {}

    def getter(name):
        # The interpreter remembers submodules; asking for a module that is loaded costs nothing.
        if name in names:
            return getattr(import_module(names[name]), name)
        if name in submodules:
            return import_module(f'{package}.{name}')
        raise AttributeError(f'module {package!r} has no attribute {name!r}')

    def lister():
        return sorted([*submodules, *names])

    return getter, lister
