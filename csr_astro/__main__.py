"""Command line as a module: ``python -m csr_astro`` is ``csr-astro``."""

import sys

from csr_astro.cli import main

sys.exit(main())
