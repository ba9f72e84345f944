"""How do objects look in a notebook?"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csr_astro.images import Image

__all__ = ['html_table', 'shape_text']


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
    >>> from csr_astro.notebook import html_table
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


def shape_text(image: Image) -> str:
    """The size of a map in words, for ``__repr__``.

    Parameters
    ----------
    image : `~csr_astro.images.Image`
        The map.

    Returns
    -------
    text : str
        Pixels and unit.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from csr_astro.images import parse_image
    >>> from csr_astro.notebook import shape_text
    >>> shape_text(parse_image(np.zeros((20, 30)) * u.Jy))
    '20 x 30 map in Jy'
    """
    ny, nx = image.shape
    return f'{ny} x {nx} map' + ('' if image.unit is None else f' in {image.unit}')
