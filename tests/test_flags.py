"""Tests of the registry of flags."""

import numpy as np
import pytest
from astropy.table import Table

from csr_astro.flags import FLAGS, count_sources, decode_flags


def test_flags_are_single_bits_with_names():
    bits = [flag.bit for flag in FLAGS]
    assert bits == [1 << i for i in range(len(FLAGS))]
    assert len({flag.name for flag in FLAGS}) == len(FLAGS)
    for flag in FLAGS:
        assert decode_flags(flag.bit) == [flag.name]
    assert decode_flags(sum(bits)) == [flag.name for flag in FLAGS]
    assert decode_flags(np.array([[0, 1], [2, 3]], dtype='>i4')) == [
        [[], ['invalid_position']],
        [['off_map'], ['invalid_position', 'off_map']],
    ]


@pytest.mark.parametrize(
    ('flags', 'text'),
    [
        ([], '0 of 0 sources removed'),
        ([0, 16, 64], '3 of 3 sources removed'),
        ([0, 1, 2, 20], '1 of 4 sources removed (3 could not be, see flags)'),
    ],
)
def test_sources_that_were_measured_are_counted(flags, text):
    assert count_sources(Table({'flags': np.array(flags, dtype=int)}), 'removed') == text
