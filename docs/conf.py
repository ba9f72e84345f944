"""Configuration of Sphinx."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx_astropy.conf.v3 import *

sys.path.insert(0, str(Path(__file__).parent))
import generated

project = 'csr_astro'
author = 'csr_astro developers'
copyright = f'2026, {author}'
release = installed_version('csr_astro')
version = release.split('+', maxsplit=1)[0]

# Links into the documentation of other packages need a network, which a local build
# may not have. `sphinx-build -D disable_intersphinx=0` switches them on.
disable_intersphinx = int(not on_rtd)
intersphinx_mapping['photutils'] = ('https://photutils.readthedocs.io/en/stable/', None)

extensions += [
    'matplotlib.sphinxext.plot_directive',
    'sphinx_design',
    'sphinx_gallery.gen_gallery',
    'sphinxarg.ext',
]
exclude_patterns += ['tutorials/**.ipynb', 'tutorials/**.py', 'sg_execution_times.rst']

plot_include_source = True
plot_html_show_source_link = False
plot_html_show_formats = False
plot_formats = [('png', 120)]
plot_rcparams = {'font.size': 10, 'image.cmap': 'viridis', 'image.origin': 'lower'}

# The tutorials are scripts in examples/; the gallery runs them and writes pages and notebooks.
sphinx_gallery_conf = {
    'examples_dirs': '../examples',
    'gallery_dirs': 'tutorials',
    'filename_pattern': r'\.py$',
    'within_subsection_order': 'generated.TutorialOrder',
    'abort_on_example_error': True,
    'capture_repr': ('_repr_html_', '__repr__'),
    'ignore_repr_types': r'matplotlib',
    'min_reported_time': 1e6,
    'remove_config_comments': True,
    'download_all_examples': False,
    'show_memory': False,
    'copyfile_regex': r'.*\.rst',
    'show_signature': False,
}

# The descriptions of parameters give their types in words.
autodoc_typehints = 'none'

# Only lines after a prompt are copied, without the prompt.
copybutton_prompt_text = r'>>> |\.\.\. |\$ '
copybutton_line_continuation_character = '\\'

html_theme = 'pydata_sphinx_theme'
html_title = f'csr_astro {version}'
html_static_path = ['_static']
html_css_files = ['csr_astro.css']
html_logo = '_static/logo.svg'
html_favicon = '_static/logo.svg'
html_show_sourcelink = False
html_theme_options = {
    'logo': {'text': 'csr_astro'},
    'header_links_before_dropdown': 6,
    'navbar_align': 'left',
    'navigation_with_keys': False,
    'show_nav_level': 1,
    'show_toc_level': 2,
    'footer_start': ['copyright'],
    'footer_end': ['sphinx-version'],
}

generated.write_all(Path(__file__).parent)
