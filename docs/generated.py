"""Tables of the documentation, written from the registries of the package when it is built."""

import sys
from pathlib import Path

from sphinx_gallery.sorting import FileNameSortKey

#: Tutorials in the order in which a newcomer reads them; others follow.
_TUTORIALS = (
    'aperture_photometry', 'psf_photometry', 'crowded_field', 'resolved_cores', 'power_spectrum',
    'own_instrument', 'standard_star', 'published_checkpoints',
)  # fmt: skip

#: Pages of instruments: their title, how the names of their bands begin, what was measured.
INSTRUMENTS = {
    'pacs': ('Herschel PACS', 'pacs-', 'standard star, injected sources, background'),
    'spire': ('Herschel SPIRE', 'spire-', 'background at 250 µm, one star'),
    'jwst': ('JWST NIRCam and MIRI', 'jwst-', 'nothing yet'),
    'spitzer': ('Spitzer IRAC and MIPS', 'spitzer-', 'nothing yet'),
    'wise': ('WISE', 'wise-', 'nothing yet'),
    'scuba2': ('JCMT SCUBA-2', 'scuba2-', 'three stars'),
    'interferometers': ('ALMA, VLA and other interferometers', (), 'nothing yet'),
    'others': ('AKARI FIS and NIKA2', ('akari-', 'nika2-'), 'nothing yet'),
}


class TutorialOrder(FileNameSortKey):
    """Order of the tutorials in the gallery."""

    def __call__(self, filename):
        """Return the place of a script, and its name."""
        name = Path(filename).stem
        return _TUTORIALS.index(name) if name in _TUTORIALS else len(_TUTORIALS), name


def list_table(head, rows, widths=None):
    """Lines of a ``list-table``."""
    lines = ['.. list-table::', '    :header-rows: 1']
    if widths:
        lines.append(f'    :widths: {widths}')
    lines.append('')
    for row in (head, *rows):
        lines += [f'    {"  -" if i else "* -"} {cell}' for i, cell in enumerate(row)]
    return [*lines, '']


def _names(names):
    return ', '.join(f'``{name}``' for name in names)


def flags():
    """Table of the flags."""
    from csr_astro.flags import FLAGS

    rows = [(flag.bit, f'``{flag.name}``', flag.description) for flag in FLAGS]
    return {'flags': list_table(('bit', 'name', 'meaning'), rows)}


def formats():
    """Tables of images and units that work, from the parameters of the tests, and of extensions."""
    sys.path.insert(0, str(Path(__file__).parents[1] / 'tests'))
    from helpers_formats import DOORS, EXCEPTIONS, UNITS

    from csr_astro.utils.data import read_data

    def names(convention, *roles):
        return _names(name for role in roles for name in convention.get(role, ()))

    conventions = [
        (
            name,
            each['description'],
            names(each, 'image'),
            names(each, 'error', 'variance', 'inverse_variance'),
            names(each, 'mask', 'quality', 'weight', 'coverage'),
        )
        for name, each in read_data('file_conventions.toml').items()
        if 'description' in each
    ]
    # Every image is tested with every unit.
    works = [
        (f'``{unit}``', *(EXCEPTIONS.get((unit, door), 'yes') for door in DOORS)) for unit in UNITS
    ]
    return {
        'formats': list_table(('unit', *DOORS), works),
        'conventions': list_table(('name', 'files', 'image', 'error', 'mask'), conventions),
    }


def instruments():
    """Tables of the bands of each page of ``instruments/``, and of all of them."""
    from csr_astro.instruments import get_instrument, list_instruments
    from csr_astro.utils.data import read_data

    entries = read_data('instruments.toml')['instruments']

    def row(name):
        band, scale = get_instrument(name), entries[name]['pixel_scale']
        radii, annulus = (
            ' – '.join(f'{radius * scale:.3g}' for radius in (min(each), max(each)))
            for each in (band.mask_radii, band.annulus)
        )
        return (
            f'``{name}``', f'{band.wavelength:g}', f'{band.fwhm * scale:.3g}', f'{scale:g}',
            f'{band.fwhm:.1f}', radii, annulus,
        )  # fmt: skip

    head = (
        'name', 'λ [µm]', 'beam FWHM [″]', 'pixel [″]', 'pixels per beam', 'mask radii [″]',
        'annulus [″]',
    )  # fmt: skip
    written, front = {}, []
    for page, (title, prefix, measured) in INSTRUMENTS.items():
        names = [name for name in list_instruments() if name.startswith(prefix)]
        bands = [get_instrument(name) for name in names]
        front.append((f':doc:`{title} </instruments/{page}>`', *_in_short(bands), measured))
        if not names:
            continue
        sources = sorted({get_instrument(name).source for name in names})
        thresholds = {}
        for name in names:
            thresholds.setdefault(get_instrument(name).snr_thresholds, []).append(name)
        written[f'instruments/{page}'] = [
            *list_table(head, map(row, names)),
            f'Beams are from: {"; ".join(sources)}.', '', *_thresholds(thresholds),
            f'A header names the band by the keywords {_keywords(names, entries)}.', '',
        ]  # fmt: skip
    head = ('instrument', 'bands', 'wavelength', 'beam', 'PSF', 'measured on real maps')
    written['instruments/front'] = list_table(head, front)
    every = [
        (f'``{name}``', band.description, f'{band.fwhm * band.pixel_scale:.3g}″', band.source)
        for name in list_instruments()
        if (band := get_instrument(name)).source
    ]
    written['instruments'] = list_table(('name', 'band', 'beam', 'source'), every)
    return written


def _in_short(bands):
    """Cells of the front page: number of bands, wavelengths, beams, PSF."""
    if not bands:
        return 'any', 'any', '``BMAJ``, ``BMIN``', 'Gaussian'
    ends = {}
    for name, values in (
        ('wavelength', [band.wavelength for band in bands]),
        ('beam', [band.fwhm * band.pixel_scale for band in bands]),
    ):
        ends[name] = ' – '.join(f'{each:.4g}' for each in sorted({min(values), max(values)}))
    psf = 'model' if all(band.psf_model for band in bands) else 'Gaussian'
    return len(bands), f'{ends["wavelength"]} µm', f'{ends["beam"]}″', psf


def _keywords(names, entries):
    keywords = {key: None for name in names for each in entries[name]['header'] for key in each}
    return _names(keywords)


def _thresholds(thresholds):
    from csr_astro.instruments import MASK_NAMES

    lines = []
    for each, names in thresholds.items():
        steps = zip(MASK_NAMES[:-1], each, strict=True)
        listed = ', '.join(f'``{name}`` from {value:g}' for name, value in steps)
        of = f' of {_names(names)}' if len(thresholds) > 1 else ''
        text = f'Masks{of} by peak contrast (column ``snr``): {listed}, ``{MASK_NAMES[-1]}`` below.'
        lines += [text, '']
    return lines


def catalogues():
    """Tables of catalogue formats and of column names."""
    from csr_astro.catalogues import FORMATS
    from csr_astro.columns import known_names

    kinds = {'coordinates': 'SkyCoord', 'pixel': 'pixels, zero-based',
             'pixel1': 'pixels, one-based', 'barycentricmeanecliptic': 'ecliptic'}  # fmt: skip
    known = known_names()
    read = [(name, _names(suffix.split(', '))) for name, suffix in FORMATS.items()]
    positions = [
        (
            entry['says'],
            kinds.get(entry['kind'], entry['kind']),
            _names(entry.get('pairs', entry.get('names'))),
        )
        for entry in known['position']
    ]
    parts = _names(name for names in known['sexagesimal'].values() for name in names)
    positions.append(('VizieR and CDS, in parts', 'icrs', parts))
    lines = ['.. files', '', *list_table(('format', 'file extension'), read)]
    lines += ['.. positions', '', *list_table(('from', 'what', 'columns'), positions)]
    lines += ['.. identifiers', '', _names(known['identifier']['names']), '']
    return {'formats_catalogues': lines}


def write_all(folder):
    """Write every table as an ``.inc`` file below a folder, if it changed."""
    for tables in (flags(), formats(), instruments(), catalogues()):
        for name, lines in tables.items():
            path = folder / f'{name}.inc'
            text = '\n'.join(lines)
            if not path.exists() or path.read_text(encoding='utf-8') != text:
                path.write_text(text, encoding='utf-8')
