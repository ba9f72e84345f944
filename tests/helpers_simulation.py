"""Helpers that several tests of simulations share."""

from csr_astro.simulation.field import synthetic_map
from csr_astro.simulation.simulate import simulate_map


def simulate_fields(names):
    """Simulations of several fields, two of each; the second field has gaps."""
    return [
        simulate_map(
            synthetic_map('lognormal', (180, 170), number, gaps=number == 1),
            500 + 100 * again,
            instrument='pacs-scanmap-blue',
            number=4,
            seed=again,
            name=name,
        )
        for number, name in enumerate(names)
        for again in range(2)
    ]
