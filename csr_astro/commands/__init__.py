"""Commands of the shell, one module for each.

Every module has a function ``add_parser(commands)``, which adds the options of its
command and sets the function that runs it; `csr_astro.cli` lists the modules. A
command imports the package when it runs, so that ``--help`` does not wait for it.
"""
