#!/usr/bin/env bash
# The checks beside the tests, in the active environment, which CONTRIBUTING.rst says how to make.
#
#     bash tools/check.sh          all of them
#     bash tools/check.sh style    style, spelling, types, docstrings, layers of imports
#     bash tools/check.sh docs     build the documentation in docs/_build/html, warnings are errors
set -euo pipefail
cd "$(dirname "$0")/.."

style() {
    ruff check .
    codespell
    lint-imports
    mypy
    find csr_astro -name '*.py' -exec numpydoc lint {} +
}

docs() {
    rm -rf docs/api  # pages of modules that may have moved
    # One thread in each of the processes, which would wait for each other.
    MPLBACKEND=agg OMP_NUM_THREADS=1 \
        sphinx-build -j auto -W --keep-going -E -b html docs docs/_build/html
}

if [ $# = 0 ]; then
    set -- style docs
fi
for part; do
    case $part in
        style | docs) "$part" ;;
        *) echo "tools/check.sh: no part '$part'; accepted are style and docs" >&2; exit 2 ;;
    esac
done
