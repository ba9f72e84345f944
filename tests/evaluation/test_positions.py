"""Maps and positions on which methods are compared."""

import numpy as np
import pytest
from astropy.table import Table
from numpy.testing import assert_array_equal

from csr_astro.evaluation.baselines import get_baselines
from csr_astro.evaluation.discs import background_errors
from csr_astro.evaluation.positions import (
    draw_positions,
    read_groups,
    read_positions,
)


def test_positions_are_valid_places(groups):
    positions = draw_positions(groups, [5, 9], 20, seed=3)
    assert len(positions) == 2 * 2 * 20
    y, x = np.indices((150, 170))
    for row in positions:
        image = groups[row['group']][row['map']]
        distance = np.hypot(x - row['x'], y - row['y'])
        assert np.isfinite(image[distance <= 4]).all()
        assert np.isfinite(image[distance <= row['radius']]).mean() > 0.75


def test_positions_follow_from_the_seed(groups):
    first, again, other = (draw_positions(groups, [5], 9, seed=seed) for seed in (1, 1, 2))
    assert_array_equal(first['x'], again['x'])
    alone = draw_positions({'second': groups['second']}, [5], 9, seed=1)
    assert_array_equal(alone['x'], first['x'][first['group'] == 'second'])
    assert (first['x'] != other['x']).any()


def test_positions_are_read_back(groups, tmp_path):
    positions = draw_positions(groups, [5], 9, seed=7)
    positions.write(tmp_path / 'positions.ecsv')
    back = read_positions(tmp_path / 'positions.ecsv')
    assert back.meta['seed'] == 7
    for name in positions.colnames:
        assert_array_equal(back[name], positions[name])


def test_bad_positions_are_refused(groups, tmp_path):
    with pytest.raises(FileNotFoundError, match='no table of positions'):
        read_positions(tmp_path / 'none.ecsv')
    (tmp_path / 'text.ecsv').write_text('nothing', encoding='utf-8')
    with pytest.raises(ValueError, match='is no ECSV table'):
        read_positions(tmp_path / 'text.ecsv')
    Table({'x': [1.0], 'y': [2.0]}).write(tmp_path / 'few.ecsv')
    with pytest.raises(ValueError, match=r"lacks \['group', 'map', 'radius'\]"):
        read_positions(tmp_path / 'few.ecsv')
    positions = draw_positions(groups, [5], 2)
    with pytest.raises(TypeError, match='methods must be a dict'):
        background_errors(groups, positions, ['plane'])
    for wrong in (groups['first'], groups['first'][0]):
        with pytest.raises(TypeError, match='must be a dict of lists of maps'):
            draw_positions(wrong, [5], 2)
        with pytest.raises(TypeError, match='must be a dict of lists of maps'):
            background_errors(wrong, positions, {})
    plane = get_baselines(['plane'])
    with pytest.raises(ValueError, match="'second', which were not given"):
        background_errors({'first': groups['first']}, positions, plane)
    with pytest.raises(ValueError, match='are on 2 maps, 1 were given'):
        background_errors(
            {'first': groups['first'][:1]},
            Table({'group': ['first'], 'map': [1], 'radius': [5.0], 'x': [50.0], 'y': [50.0]}),
            plane,
        )
    off = positions[:1]
    off['x'] = 500.0
    with pytest.raises(ValueError, match='lies off map'):
        background_errors(groups, off, plane)


@pytest.mark.parametrize(
    ('radii', 'aperture', 'message'),
    [([0], 4, 'radii must be'), ([np.nan], 4, 'radii must be'), ([5], -1, 'positive radius')],
)
def test_bad_radii_are_refused(groups, radii, aperture, message):
    with pytest.raises(ValueError, match=message):
        draw_positions(groups, radii, 3, aperture=aperture)


def test_too_small_maps_say_so():
    with pytest.raises(ValueError, match='tiny: the maps have room for 0 discs'):
        draw_positions({'tiny': [np.zeros((6, 6))]}, [5], 3)


def test_real_maps_are_read_in_groups(shared_data):
    folder = shared_data / 'data' / 'maps' / 'validation'
    groups = read_groups([folder / 'higal250_tile01.fits', folder / 'higal250_tile09.fits',
                          folder / 'ext_ophiuchus.fits'])  # fmt: skip
    assert list(groups) == ['higal250', 'ext_ophiuchus']
    # Every island of sky is a map of its own, and the tiles of a band are one group.
    assert len(groups['higal250']) > 2
    assert {each.ndim for each in groups['higal250']} == {2}
    assert groups['ext_ophiuchus'][0].shape == (317, 349)
    archive = next((shared_data / 'data' / 'pacs_gamma_dra').glob('*MAPB_blue*'))
    assert [len(images) for images in read_groups([archive]).values()] == [1]
