"""Files of simulations."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro.images import read_image
from csr_astro.simulation.field import synthetic_map
from csr_astro.simulation.simulate import simulate_levels, simulate_map
from csr_astro.sources import parse_sources


@pytest.fixture(scope='module')
def field():
    return synthetic_map('lognormal', (200, 220), 1)


def test_files_read_back(field, tmp_path):
    header = fits.Header({'INSTRUME': 'PACS', 'OBS_MODE': 'Scan map', 'WAVELNTH': 70.0})
    simulation = simulate_map(field, 900, instrument='pacs-scanmap-blue', number=4, seed=3,
                              name='cloud', header=header)  # fmt: skip
    paths = simulation.write(tmp_path / 'new')
    names = ['cloud.fits', 'cloud.ecsv', 'cloud.csv', 'cloud_truth.fits']
    assert [path.name for path in paths] == names
    image, found = read_image(paths[0])
    assert_array_equal(image.data, simulation.injected.data)
    assert image.unit == field.unit
    assert (found['INSTRUME'], found['WAVELNTH'], found['CSRSEED']) == ('PACS', 70, 3)
    assert_array_equal(read_image(paths[3])[0].data, field.data)
    assert QTable.read(paths[1]).meta['seed'] == 3
    table = Table.read(paths[2])
    assert table.colnames == ['ra', 'dec', 'flux']
    sources = parse_sources(table, image.wcs)
    assert_allclose(sources.x, simulation.sources['x'], atol=1e-6)
    assert (table['flux'] == 900).all()
    with pytest.raises(ValueError, match=r'cloud\.fits.* exists'):
        simulation.write(tmp_path / 'new')
    assert len(simulation.write(tmp_path / 'new', overwrite=True)) == 4
    assert len(list((tmp_path / 'new').iterdir())) == 4


def test_truth_of_another_simulation_is_not_kept(field, tmp_path):
    options = {'instrument': 'pacs-scanmap-blue', 'number': 4, 'name': 'cloud'}
    series = simulate_levels(field, levels=[700, 900], **options)
    truth, again = (each.write(tmp_path)[3] for each in series)
    assert truth == again
    before = truth.stat().st_mtime_ns
    data = read_image(truth)[0].data
    other = next(iter(simulate_levels(data + 1, levels=[800], **options)))
    with pytest.raises(ValueError, match=r'cloud_truth\.fits.* is of another simulation'):
        other.write(tmp_path)
    assert truth.stat().st_mtime_ns == before
    assert not list(tmp_path.glob('*800*'))
    other.write(tmp_path, overwrite=True)
    assert_array_equal(read_image(truth)[0].data, other.original.data)


def test_map_without_a_place_has_a_table_in_pixels(tmp_path):
    simulation = simulate_map(np.zeros((200, 200)), [100, 200], number=2)
    paths = simulation.write(tmp_path)
    assert Table.read(paths[2]).colnames == ['x', 'y', 'flux']
