"""Run ``csr-astro`` as ``python -m csr_astro``."""

import sys

from csr_astro.cli import main

sys.exit(main())
