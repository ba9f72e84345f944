"""Helpers that several tests of the evaluation share."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
from scipy import fft


class Oracle:
    """An estimator that returns a known map plus an offset."""

    def __init__(self, truth=None, offset=0.0):
        self.truth, self.offset = truth, offset

    def estimate(self, image, sources, *, mask_radius):
        assert len(sources) == len(mask_radius)
        return SimpleNamespace(
            background=(image if self.truth is None else self.truth) + self.offset,
            flags=np.zeros(len(sources), dtype=int),
        )


def power_law(slope, seed, shape=(200, 240), factor=3):
    """A piece of a field of exactly the power spectrum k^slope, not periodic itself."""
    side = factor * max(shape)
    k = np.hypot(fft.fftfreq(side)[:, None], fft.rfftfreq(side)[None, :])
    k[0, 0] = np.inf
    noise = fft.rfft2(np.random.default_rng(seed).standard_normal((side, side)))
    return fft.irfft2(k ** (slope / 2) * noise, s=(side, side))[: shape[0], : shape[1]]


class Page(HTMLParser):
    """Sources, links and open tags of a page."""

    void = frozenset({'meta', 'img', 'br', 'link', 'input'})

    def __init__(self, text):
        super().__init__()
        self.sources, self.links, self.open, self.ids = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.sources += [attrs[name] for name in ('src', 'srcset') if name in attrs]
        self.links += [attrs['href']] if 'href' in attrs else []
        self.ids += [attrs['id']] if 'id' in attrs else []
        if tag == 'img':
            assert attrs['alt']
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_page(folder):
    text = (folder / 'report.html').read_text(encoding='utf-8')
    page = Page(text)
    assert not page.open
    assert all(source.startswith('data:image/png;base64,') for source in page.sources)
    assert not re.search(r'https?://|url\(|@import', text)
    for link in page.links:
        if link.startswith('#'):
            assert link[1:] in page.ids
        else:
            assert (folder / link).is_file(), link
    return text
