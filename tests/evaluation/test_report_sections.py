"""Sections of a report."""

from csr_astro.nn.weights import read_info
from csr_astro.utils.data import read_data


def test_card_is_that_of_the_bundled_weights():
    for name in ['default']:
        card = read_data('report/cards.toml')[read_info(name).sha256]
        assert set(card['scatter_over_annulus']) == {'5', '9', '12'}
        assert 0 < card['within_1_sigma'] < card['within_2_sigma'] < 1
