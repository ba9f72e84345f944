"""Cutouts in the folders of the published tool."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from csr_astro.simulation.dataset import read_dataset
from csr_astro.simulation.joined import JoinedDatasets
from csr_astro.simulation.published import PublishedCutouts, read_published
from csr_astro.training.stored import DatasetSampler, dataset_samplers


def write_examples(folder, counts, size=96):
    """Examples as the published tool reads them: four masks, of which the last is by SNR."""
    rng = np.random.default_rng(0)
    y, x = np.indices((size, size)) - size // 2
    for split, n in counts.items():
        for kind in ('', '_mask', '_target'):
            (folder / f'{split}{kind}').mkdir(parents=True)
        for number in range(n):
            target = rng.normal(size=(size, size))
            radius = 5 + number
            masks = [np.hypot(x, y) > r for r in (21, 11, 8, radius)]
            name = f'{number}.npy'
            np.save(folder / split / name, target + 100 * np.exp(-(x**2 + y**2) / 4))
            np.save(folder / f'{split}_mask' / name, np.array(masks, dtype=np.uint8))
            np.save(folder / f'{split}_target' / name, target)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_examples(tmp_path / 'numpy_examples', {'train': 6, 'valid': 3})


def test_published_folder_is_read(folder):
    splits = read_dataset(folder)
    assert {split: len(cutouts) for split, cutouts in splits.items()} == {
        'train': 6, 'validation': 3,
    }  # fmt: skip
    image, mask, target = splits['train'][4]
    assert image.shape == mask.shape == target.shape == (1, 96, 96)
    assert_array_equal(image[0], np.load(folder / 'train' / '4.npy').astype(np.float32))
    assert_array_equal(mask[0], np.load(folder / 'train_mask' / '4.npy')[3])
    assert_array_equal(target[0], np.load(folder / 'train_target' / '4.npy').astype(np.float32))
    assert 'PublishedCutouts: 6 cutouts of 96 x 96' in repr(splits['train'])


def test_mask_tells_the_radius(folder):
    cutouts = PublishedCutouts(folder)
    for number in range(6):
        dx, dy, radius = cutouts.source(number)
        assert (dx, dy) == (0, 0)
        assert 5 + number - 0.5 <= radius <= 5 + number + 1


def test_published_folder_is_trained_on(folder):
    sampler, validation = dataset_samplers(folder)
    image, target, valid, hole, central, radius = sampler.batch(0, 6)
    assert image.shape == (6, 1, 96, 96)
    assert_array_equal(np.sort(radius), [5, 6, 7, 8, 9, 10])
    assert_array_equal(hole, central)
    assert not (valid * hole).any()
    # In the hole there is a source, outside it the image is the target.
    assert (np.abs(image - target) * valid < 1).all()
    assert len(validation) == 3
    again = pickle.loads(pickle.dumps(sampler)).batch(0, 6)
    assert_array_equal(again[0], image)


def test_published_and_own_datasets_are_joined(folder):
    one = PublishedCutouts(folder)
    both = JoinedDatasets([one, PublishedCutouts(folder, 'validation')])
    assert (len(both), both.size) == (9, 96)
    assert_array_equal(both.stack(7), PublishedCutouts(folder, 'validation').stack(1))
    assert both.source(5) == one.source(5)
    assert DatasetSampler(both).batch(0, 9)[0].shape == (9, 1, 96, 96)


def test_other_folders_are_not_taken_for_it(tmp_path):
    assert read_published(tmp_path) == {}
    with pytest.raises(ValueError, match='no complete dataset, and no train_mask'):
        read_dataset(tmp_path)


def test_missing_and_misshaped_files_are_named(folder):
    (folder / 'train_mask' / '2.npy').unlink()
    with pytest.raises(ValueError, match=r"train_mask' lacks 2.npy"):
        PublishedCutouts(folder)
    np.save(folder / 'train_mask' / '2.npy', np.ones((4, 96, 90)))
    cutouts = PublishedCutouts(folder)
    with pytest.raises(ValueError, match=r'cutout 2 of .* must be square'):
        cutouts.stack(2)
    with pytest.raises(IndexError, match='there are 6 cutouts, no number 6'):
        cutouts.stack(6)
    with pytest.raises(ValueError, match='split must be one of'):
        PublishedCutouts(folder, 'test')


def test_datasets_of_different_sizes_are_not_joined(folder, tmp_path):
    other = write_examples(tmp_path / 'other', {'train': 1}, size=64)
    with pytest.raises(ValueError, match='must have one size'):
        JoinedDatasets([PublishedCutouts(folder), PublishedCutouts(other)])
