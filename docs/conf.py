"""Configuration of Sphinx."""

from importlib.metadata import version as installed_version

from sphinx_astropy.conf.v3 import *

project = 'csr_astro'
author = 'csr_astro developers'
copyright = f'2026, {author}'
release = installed_version('csr_astro')
version = release.split('+', maxsplit=1)[0]

# Links into the documentation of other packages need a network, which a local build
# may not have. `sphinx-build -D disable_intersphinx=0` switches them on.
disable_intersphinx = int(not on_rtd)
intersphinx_mapping['photutils'] = ('https://photutils.readthedocs.io/en/stable/', None)

extensions += ['matplotlib.sphinxext.plot_directive']
plot_include_source = True
plot_html_show_source_link = False
plot_html_show_formats = False
plot_formats = [('png', 120)]

# The descriptions of parameters give their types in words.
autodoc_typehints = 'none'

html_title = f'csr_astro {version}'
html_theme_options = {'goatcounter_analytics_url': False}


def write_flags():
    """Write the table of flags from their registry."""
    from pathlib import Path

    from csr_astro.flags import FLAGS

    rows = ['.. list-table::', '    :header-rows: 1', '', '    * - bit', '      - name',
            '      - meaning']
    for flag in FLAGS:
        rows += [f'    * - {flag.bit}', f'      - ``{flag.name}``', f'      - {flag.description}']
    Path(__file__).with_name('flags.inc').write_text('\n'.join([*rows, '']), encoding='utf-8')



def write_formats():
    """Write the tables of images and units that work from the parameters of the tests."""
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1] / 'tests'))
    from helpers_formats import DOORS, EXCEPTIONS, UNITS

    from csr_astro.instruments import get_instrument, list_instruments
    from csr_astro.utils.data import read_data

    def table(head, rows):
        lines = ['.. list-table::', '    :header-rows: 1', '']
        for row in (head, *rows):
            lines += [f'    {"* -" if i == 0 else "  -"} {cell}' for i, cell in enumerate(row)]
        return [*lines, '']

    def names(convention, *roles):
        return ', '.join(f'``{name}``' for role in roles for name in convention.get(role, ()))

    conventions = [
        (
            name,
            each['description'],
            names(each, 'image'),
            names(each, 'error', 'variance', 'inverse_variance'),
            names(each, 'mask', 'quality', 'weight', 'coverage'),
        )
        for name, each in read_data('file_conventions.toml').items()
        if name != 'units'
    ]
    instruments = [
        (f'``{name}``', band.description, f'{band.fwhm * band.pixel_scale:.3g}"', band.source)
        for name in list_instruments()
        if (band := get_instrument(name)).source
    ]
    # Every image is tested with every unit.
    works = [
        (f'``{unit}``', *(EXCEPTIONS.get((unit, door), 'yes') for door in DOORS)) for unit in UNITS
    ]
    rows = {
        'formats': table(('unit', *DOORS), works),
        'conventions': table(('name', 'files', 'image', 'error', 'mask'), conventions),
        'instruments': table(('name', 'band', 'beam', 'source'), instruments),
    }
    for name, lines in rows.items():
        path = Path(__file__).with_name(f'{name}.inc')
        path.write_text('\n'.join(lines), encoding='utf-8')


write_flags()
write_formats()


def write_catalogues():
    """Write the tables of catalogue formats and of column names from their ledgers."""
    from pathlib import Path

    from csr_astro.catalogues import FORMATS
    from csr_astro.columns import known_names

    def listed(*head):
        cells = [f'    {"  -" if i else "* -"} {name}' for i, name in enumerate(head)]
        return ['.. list-table::', '    :header-rows: 1', '', *cells]

    kinds = {'coordinates': 'SkyCoord', 'pixel': 'pixels, zero-based',
             'pixel1': 'pixels, one-based', 'barycentricmeanecliptic': 'ecliptic'}
    known = known_names()
    lines = ['.. files', '', *listed('format', 'file extension')]
    for name, suffix in FORMATS.items():
        lines += [f'    * - {name}', f'      - {", ".join(f"``{s}``" for s in suffix.split(", "))}']
    lines += ['', '.. positions', '', *listed('from', 'what', 'columns')]
    for entry in known['position']:
        names = ', '.join(f'``{each}``' for each in entry.get('pairs', entry.get('names')))
        lines += [f'    * - {entry["says"]}', f'      - {kinds.get(entry["kind"], entry["kind"])}',
                  f'      - {names}']
    parts = ', '.join(f'``{name}``' for names in known['sexagesimal'].values() for name in names)
    lines += ['    * - VizieR and CDS, in parts', '      - icrs', f'      - {parts}']
    names = ', '.join(f'``{name}``' for name in known['identifier']['names'])
    lines += ['', '.. identifiers', '', names, '']
    path = Path(__file__).with_name('formats_catalogues.inc')
    path.write_text('\n'.join(lines), encoding='utf-8')


write_catalogues()
