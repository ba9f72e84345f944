"""Simulated sources to train on."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from csr_astro import get_instrument
from csr_astro.simulation.paper import flux_levels
from csr_astro.training.data import CutoutSampler
from csr_astro.training.loop import train
from csr_astro.training.recipe import read_recipe
from csr_astro.training.simulated import resume_simulation, simulate_cutouts
from csr_astro.training.stored import DatasetSampler, dataset_samplers

BANDS = ['pacs-scanmap-blue', 'pacs-scanmap-red']


def ripples(shape=(200, 220)):
    y, x = np.indices(shape)
    noise = np.random.default_rng(0).normal(size=shape)
    return np.sin(0.05 * x) + np.cos(0.09 * y) + 0.1 * noise


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp('cutouts')
    return simulate_cutouts(folder / 'train', {'ripples': [ripples()]}, BANDS, 200, seed=2)


def test_masks_are_those_of_table_3(dataset):
    expected = [get_instrument(band).mask(np.array(dataset.index['snr']))[1] for band in BANDS]
    radius = np.array(dataset.index['mask_radius'])
    assert ((radius == expected[0]) | (radius == expected[1])).all()
    assert len(np.unique(radius)) > 2


def test_each_simulation_has_one_level_of_table_1(dataset):
    flux = np.array(dataset.index['flux'])
    assert set(np.unique(flux)) <= set(flux_levels())
    for number in np.unique(dataset.index['name']):
        assert len(np.unique(flux[dataset.index['name'] == number])) <= 3


def test_real_and_synthetic_fields_share_the_cutouts(dataset):
    fields, counts = np.unique(dataset.index['field'], return_counts=True)
    assert list(fields) == ['ripples', 'synthetic']
    assert counts.min() > 0.3 * counts.sum()


def test_all_masks_of_a_cutout_are_drawn(dataset):
    image, mask, target = dataset[3]
    middle = dataset.size // 2
    assert mask[0, middle, middle] == 0
    # Sources reach outside their masks; far from them nothing was added.
    changed = np.abs(image - target) > 1e-3 * np.nanstd(target)
    assert changed[0, middle, middle]


def test_islands_without_room_are_passed_over(tmp_path):
    small = np.full((60, 60), np.nan)
    small[20:30, 20:30] = ripples((10, 10))
    simulated = simulate_cutouts(
        tmp_path, {'island': [small], 'ripples': [ripples()]}, BANDS[:1], 20, real_fraction=1.0
    )
    assert set(simulated.index['field']) == {'ripples'}
    with pytest.raises(ValueError, match='no map has room for sources'):
        simulate_cutouts(tmp_path / 'b', {'island': [small]}, BANDS[:1], 1, real_fraction=1.0)


def test_seed_decides(tmp_path, dataset):
    again = simulate_cutouts(tmp_path, {'ripples': [ripples()]}, BANDS, 200, seed=2)
    assert_array_equal(again.cutouts[5], dataset.cutouts[5])
    other = simulate_cutouts(tmp_path / 'other', {}, BANDS, 2, seed=3)
    assert not np.array_equal(other.cutouts[0], dataset.cutouts[0])


def test_simulation_is_done_once(tmp_path):
    first = resume_simulation(tmp_path, {}, BANDS, 3)
    time = first.path.stat().st_mtime_ns
    assert resume_simulation(tmp_path, {}, BANDS, 3).path.stat().st_mtime_ns == time
    with pytest.raises(ValueError, match='are wanted; remove it or choose another folder'):
        resume_simulation(tmp_path, {}, BANDS, 10_000)


@pytest.mark.parametrize(
    ('instruments', 'n', 'sentence'),
    [([], 5, 'at least one instrument'), (BANDS, 0, 'n_cutouts must be positive'),
     (['hubble'], 5, 'instrument must be one of')],
)  # fmt: skip
def test_wrong_arguments_are_refused(tmp_path, instruments, n, sentence):
    with pytest.raises(ValueError, match=sentence):
        simulate_cutouts(tmp_path, {}, instruments, n)


# Training on them


RECIPE = replace(
    read_recipe('paper'), width=0.125, batch_size=4, n_cutouts=48, n_simulated=12, n_validation=4
)


def test_plateau_is_looked_for_after_each_pass(dataset, tmp_path):
    pytest.importorskip('lightning')
    pytest.importorskip('kornia')
    few = DatasetSampler(dataset, size=96, seed=1)
    few.dataset = _First(dataset, 24)
    train(RECIPE, few, few, tmp_path, device='cpu', progress=False)
    rows = (tmp_path / 'log.csv').read_text().split()[1:]
    assert [int(row.split(',')[0]) for row in rows] == [24, 48]


class _First:
    """The first cutouts of a dataset."""

    def __init__(self, dataset, n):
        self.dataset, self.n = dataset, n

    def __len__(self):
        return self.n

    def __getattr__(self, name):
        return getattr(self.dataset, name)


def test_pass_needs_data_with_an_end(tmp_path):
    pytest.importorskip('lightning')
    sampler = CutoutSampler({})
    with pytest.raises(ValueError, match='validate_every = 0 needs a dataset'):
        train(RECIPE, sampler, sampler, tmp_path, device='cpu', progress=False)


def test_bands_are_trained_on_together(tmp_path):
    for band in BANDS:
        for split, seed in (('train', 1), ('validation', 2)):
            # The splits of a band beside each other, as two folders.
            simulate_cutouts(tmp_path / band / split, {}, [band], 2, split=split, seed=seed)
    folders = [tmp_path / band / split for band in BANDS for split in ('train', 'validation')]
    sampler, _ = dataset_samplers(*folders)
    assert len(sampler) == sum(
        len(dataset_samplers(folders[2 * k], folders[2 * k + 1])[0]) for k in range(2)
    )
    image, *_, radius = sampler.batch(0, 4)
    assert image.shape == (4, 1, 96, 96)
    assert (radius >= 4).all()
    with pytest.raises(ValueError, match='has no cutouts for validation'):
        dataset_samplers(folders[0], folders[2])
