"""Tests of progress bars."""

import io

import pytest

from csr_astro.utils.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ('progress', 'stream', 'shown'),
    [
        (None, Terminal, True),
        (None, io.StringIO, False),
        (True, io.StringIO, True),
        (False, Terminal, False),
    ],
)
def test_bar_is_shown_where_a_person_watches(monkeypatch, progress, stream, shown):
    stderr = stream()
    monkeypatch.setattr('sys.stderr', stderr)
    with progress_bar(progress=progress, total=2, unit='source') as bar:
        bar.update(2)
    assert bool(stderr.getvalue()) == shown


def test_bar_is_shown_in_a_notebook(monkeypatch):
    from tqdm.std import tqdm

    class Notebook(tqdm):
        __module__ = 'tqdm.notebook'

    stderr = io.StringIO()
    monkeypatch.setattr('sys.stderr', stderr)
    monkeypatch.setattr('tqdm.auto.tqdm', Notebook)
    progress_bar(progress=None, total=2).close()
    assert stderr.getvalue()
