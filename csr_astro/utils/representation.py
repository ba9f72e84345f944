"""HTML representations of objects for notebooks."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ['html_table']


def html_table(title: str, rows: Mapping[str, object]) -> str:
    """Format the content of an object as an HTML table, for ``_repr_html_``.

    Parameters
    ----------
    title : str
        Title of the table.
    rows : dict
        Values by name; None and empty strings are left out.

    Returns
    -------
    table : str
        HTML table with all text escaped.

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
