"""Configuration of Sphinx."""

from importlib.metadata import version as installed_version

from sphinx_astropy.conf.v3 import *

project = 'csr_astro'
author = 'csr_astro developers'
copyright = f'2026, {author}'
release = installed_version('csr_astro')
version = release.split('+', maxsplit=1)[0]

# Links into other packages' documentation need a network, which a local build
# may not have. `sphinx-build -D disable_intersphinx=0` switches them on.
disable_intersphinx = int(not on_rtd)
intersphinx_mapping['photutils'] = ('https://photutils.readthedocs.io/en/stable/', None)

html_title = f'csr_astro {release}'
html_theme_options = {'goatcounter_analytics_url': False}
