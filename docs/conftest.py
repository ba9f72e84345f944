"""Every page is tested in a folder of its own that holds a map and a catalogue."""

import pytest
from helpers_docs import write_example

# Needs Sphinx and its extensions.
collect_ignore = ['conf.py', 'generated.py']


@pytest.fixture(autouse=True)
def folder_with_a_map(tmp_path, monkeypatch):
    """Write ``map.fits`` and ``catalog.csv`` to a new folder, and change to it."""
    write_example(tmp_path)
    monkeypatch.chdir(tmp_path)
