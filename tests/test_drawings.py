"""Tests of regions that are sources, and of those that are not."""

import warnings

import numpy as np
import pytest
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from regions import (
    CircleAnnulusPixelRegion,
    CirclePixelRegion,
    EllipseAnnulusPixelRegion,
    LinePixelRegion,
    PixCoord,
    PointPixelRegion,
    RectangleAnnulusPixelRegion,
    Regions,
    TextPixelRegion,
)

from csr_astro.sources import parse_sources, read_sources

CENTER = PixCoord(17.5, 13.25)
HEAD = '# Region file format: DS9 version 4.1\nglobal color=green font="helvetica 10" source=1\n'
SOURCE = 'circle(11,21,5)\n'
DRAWN = {
    'annulus(30,30,4,8)': '1 annulus',
    'annulus(30,30,4,8,12)': '1 annulus',
    'annulus 30 30 4 8': '1 annulus',
    'ellipse(30,30,4,2,8,4,30)': '1 annulus',
    'box(30,30,4,4,8,8,30)': '1 annulus',
    'panda(30,30,0,90,1,4,8,1)': '1 panda',
    'epanda(30,30,0,90,1,4,8,6,9,1)': '1 panda',
    'bpanda(30,30,0,90,1,4,8,6,9,1)': '1 panda',
    'circle(30,30,8) # background': '1 background region',
    'circle(30,30,8) # color=red background': '1 background region',
    'circle(30,30,8) # source=0': '1 background region',
    'ellipse(30,30,8,4,0) # background tag={bkg}': '1 background region',
    '-circle(30,30,8)': '1 excluded region',
    'circle(30,30,8) # include=0': '1 excluded region',
    'text(30,30) # text={north}': '1 text',
    '# text(30,30) text={north}': '1 text',
    'line(1,1,9,9) # line=0 0': '1 line',
    '# vector(30,30,8,45) vector=1': '1 vector',
    'vector(30,30,8,45)': '1 vector',
    '# ruler(1,1,9,9) ruler=image': '1 ruler',
    '# compass(30,30,20) compass=image {N} {E} 1 1': '1 compass',
    '# projection(1,1,9,9,4)': '1 projection',
    '# segment(1,1,9,9,4,5)': '1 segment',
}


@pytest.mark.parametrize('line', DRAWN)
def test_what_is_no_source_is_left_out_and_counted(tmp_path, line):
    path = tmp_path / 'drawn.reg'
    path.write_text(f'{HEAD}image\n{line}\n{SOURCE}')
    sentence = f"^1 of 2 regions of '.*drawn.reg' are no sources and are left out: {DRAWN[line]}.$"
    with pytest.warns(AstropyUserWarning, match=sentence) as seen:
        sources = parse_sources(read_sources(path))
    assert len(seen) == 1
    np.testing.assert_array_equal([sources.x, sources.y], [[10], [20]])


def test_kinds_are_counted_in_one_sentence(tmp_path):
    path = tmp_path / 'drawn.reg'
    path.write_text(
        f'{HEAD}image\nannulus(30,30,4,8); circle(11,21,5); annulus(40,30,4,8)\n'
        'circle(30,30,8) # background\n# ruler(1,1,9,9)\ncircle(12,21,5) # text={a; b}\n'
    )
    sentence = r'4 of 6 regions .* left out: 2 annuli, 1 background region, 1 ruler\.'
    with pytest.warns(AstropyUserWarning, match=sentence) as seen:
        assert len(read_sources(path)) == 2
    assert len(seen) == 1


@pytest.mark.parametrize(
    'line',
    [
        'circle(11,21,5) # text={background}',
        'circle(11,21,5) # tag={background}',
        'circle(11,21,5) # background=0',
        '+circle(11,21,5)',
        'ellipse(11,21,5,3,30)',
        'box(11,21,5,3,30)',
        'point(11,21) # point=x',
        'polygon(9,19,13,19,11,25)',
    ],
)
def test_sources_are_taken_without_a_word(tmp_path, line):
    path = tmp_path / 'sources.reg'
    path.write_text(f'{HEAD}image\n{line}\n')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert len(parse_sources(read_sources(path))) == 1


def test_file_without_any_source_says_what_is_in_it(tmp_path):
    path = tmp_path / 'drawn.reg'
    path.write_text(f'{HEAD}image\nannulus(30,30,4,8)\n# compass(30,30,20)\n')
    with pytest.raises(ValueError, match=r'none of the 2 .* source: 1 annulus, 1 compass'):
        read_sources(path)


@pytest.mark.parametrize(
    ('region', 'kind'),
    [
        (CircleAnnulusPixelRegion(CENTER, 3, 6), 'annulus'),
        (EllipseAnnulusPixelRegion(CENTER, 3, 6, 5, 9), 'annulus'),
        (RectangleAnnulusPixelRegion(CENTER, 3.5, 6.5, 5, 9), 'annulus'),
        (LinePixelRegion(PixCoord(16.5, 12.25), PixCoord(18.5, 14.25)), 'line'),
        (TextPixelRegion(CENTER, 'north'), 'text'),
        (CirclePixelRegion(CENTER, 3, meta={'background': 1}), 'background region'),
        (CirclePixelRegion(CENTER, 3, meta={'include': 0}), 'excluded region'),
        (CirclePixelRegion(CENTER, 3, meta={'include': False}), 'excluded region'),
    ],
)
@pytest.mark.parametrize('on_sky', [False, True])
def test_regions_in_python_are_told_apart_too(region, kind, on_sky):
    wcs = WCS({'CTYPE1': 'RA---TAN', 'CTYPE2': 'DEC--TAN', 'CDELT1': -0.001, 'CDELT2': 0.001})
    region = region.to_sky(wcs) if on_sky else region
    with pytest.warns(AstropyUserWarning, match=f'^1 of 2 regions are no sources .*: 1 {kind}.'):
        sources = parse_sources([region, PointPixelRegion(PixCoord(3, 4))], wcs)
    np.testing.assert_array_equal([sources.x, sources.y], [[3], [4]])
    with pytest.raises(ValueError, match=f'the region is no source: 1 {kind}'):
        parse_sources(region, wcs)


def test_labels_of_regions_are_ids(tmp_path):
    path = tmp_path / 'named.reg'
    path.write_text('image\ncircle(11,21,5) # text={B 1}\npoint(31,9) # text={A} tag={t}\n')
    sources = parse_sources(read_sources(path))
    np.testing.assert_array_equal(sources.ids, ['B 1', 'A'])
    assert sources.id_column == 'text'
    unnamed = Regions([PointPixelRegion(CENTER), PointPixelRegion(CENTER, meta={'text': 'a'})])
    assert parse_sources(unnamed).ids is None


@pytest.mark.parametrize(
    ('line', 'reason'),
    [
        ('circle(11,north,5)', 'Cannot parse pixel region position coordinates'),
        ('circel(11,21,5)', '"circel" frame or shape is not a valid frame'),
        ('physical; circle(11,21,5)', '"physical" frame or shape is not supported'),
        ('@', 'Unable to parse line'),
    ],
)
def test_error_names_the_file_and_the_line(tmp_path, line, reason):
    path = tmp_path / 'bad.reg'
    path.write_text(f'{HEAD}image\n{SOURCE}{line}\n{SOURCE}')
    with pytest.raises(
        ValueError, match=f"bad.reg' cannot be read as a catalogue: line 5: {reason}"
    ):
        read_sources(path)
