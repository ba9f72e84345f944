"""Tables in HTML that represent objects in notebooks."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ['html_table']


def html_table(title: str, rows: Mapping[str, object]) -> str:
    """A table of what an object holds, for ``_repr_html_``.

    Parameters
    ----------
    title : str
        What the object is.
    rows : dict
        What is in it; what is None or empty is left out.

    Returns
    -------
    table : str
        HTML, in which nothing that a user named can be markup.

    Examples
    --------
    >>> from csr_astro.utils.representation import html_table
    >>> print(html_table('Band', {'name': '<blue>', 'scale': None}))
    <table>...<td style="text-align:left">&lt;blue&gt;</td></tr></tbody></table>
    """
    left = 'style="text-align:left"'
    body = ''.join(
        f'<tr><th {left}>{html.escape(name)}</th><td {left}>{html.escape(str(value))}</td></tr>'
        for name, value in rows.items()
        if value is not None and value != ''
    )
    return (
        f'<table><thead><tr><th colspan="2" {left}>{html.escape(title)}</th></tr></thead>\n'
        f'<tbody>{body}</tbody></table>'
    )
