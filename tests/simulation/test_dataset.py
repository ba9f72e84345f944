"""Datasets of cutouts."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from helpers_simulation import simulate_fields
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro.simulation.dataset import (
    CHANNELS,
    SPLITS,
    CutoutDataset,
    read_dataset,
    split_fields,
    write_dataset,
)

NAMES = ('a', 'b', 'c')


@pytest.fixture(scope='module')
def simulations():
    return simulate_fields(NAMES)


@pytest.fixture(scope='module')
def folder(simulations, tmp_path_factory):
    folder = tmp_path_factory.mktemp('datasets') / 'array'
    counts = write_dataset(folder, iter(simulations), dict(zip(NAMES, SPLITS, strict=True)))
    assert counts == dict.fromkeys(SPLITS, 8)
    return folder


# Splits


@pytest.mark.parametrize('n', [0, 1, 2, 3, 4, 7, 50, 101])
def test_fields_are_divided_as_wanted(n):
    fields = [f'field{i}' for i in range(n)]
    splits = split_fields(fields, seed=2)
    assert list(splits) == fields
    counts = [list(splits.values()).count(split) for split in SPLITS]
    assert sum(counts) == n
    if n >= 3:
        assert min(counts) >= 1
        assert_allclose(counts, [0.7 * n, 0.15 * n, 0.15 * n], atol=1.5)
    elif n:
        assert counts[0] == 1


def test_every_category_is_in_every_split():
    fields = [f'field{i}' for i in range(30)]
    categories = ['dust' if i < 25 else 'void' for i in range(30)]
    splits = split_fields(fields, categories=categories, seed=0)
    for kind in ('dust', 'void'):
        members = {splits[f] for f, c in zip(fields, categories, strict=True) if c == kind}
        assert members == set(SPLITS)


def test_division_depends_on_the_seed_only():
    fields = [f'field{i}' for i in range(30)]
    assert split_fields(fields, seed=1) == split_fields(fields, seed=1)
    assert split_fields(fields, seed=1) != split_fields(fields, seed=2)


def test_fractions_can_be_given():
    assert set(split_fields(NAMES, fractions={'test': 1.0}).values()) == {'test'}


@pytest.mark.parametrize(
    ('fields', 'options', 'sentence'),
    [
        (['a', 'a'], {}, 'fields must have different names'),
        (['a'], {'fractions': {'other': 1}}, 'fractions must be positive numbers'),
        (['a'], {'fractions': {'train': -1}}, 'fractions must be positive numbers'),
        (['a'], {'fractions': {'train': 0}}, 'must not all be zero'),
        (['a'], {'categories': []}, '1 fields, but 0 categories'),
    ],
)
def test_impossible_divisions_are_refused(fields, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        split_fields(fields, **options)


# Files


def test_array_is_memory_mapped_and_complete(folder, simulations):
    datasets = read_dataset(folder)
    assert list(datasets) == list(SPLITS)
    for dataset, name in zip(datasets.values(), NAMES, strict=True):
        assert isinstance(dataset.cutouts, np.memmap)
        assert dataset.cutouts.shape == (8, 3, 100, 100)
        assert dataset.cutouts.dtype == np.float32
        assert set(dataset.index['field']) == {name}
    files = {path.name for path in folder.iterdir()}
    assert files == {'dataset.json'} | {s + e for s in SPLITS for e in ('.npy', '.ecsv')}
    # The same pixels as in the maps.
    simulation, dataset = simulations[0], datasets['train']
    row = dataset.index[2]
    x, y = int(np.floor(row['x'] + 0.5)), int(np.floor(row['y'] + 0.5))
    window = slice(max(y - 50, 0), y + 50), slice(max(x - 50, 0), x + 50)
    image, mask, target = dataset[2]
    assert image.shape == mask.shape == target.shape == (1, 100, 100)
    inside = tuple(
        slice(max(50 - p, 0), max(50 - p, 0) + s.stop - s.start)
        for p, s in ((y, slice(window[0].start, min(window[0].stop, 180))),
                     (x, slice(window[1].start, min(window[1].stop, 170))))
    )  # fmt: skip
    assert_array_equal(image[0][inside], simulation.injected.data[window].astype(np.float32))
    assert_array_equal(target[0][inside], simulation.original.data[window].astype(np.float32))
    assert np.isnan(image).sum() == 100**2 - image[0][inside].size


def test_masks_are_those_of_the_removal(folder):
    dataset = CutoutDataset(folder, 'train')
    yy, xx = np.indices((100, 100)) - 50
    for i, row in enumerate(dataset.index):
        _, mask, target = dataset[i]
        dx, dy = (row[name] - np.floor(row[name] + 0.5) for name in 'xy')
        disc = np.hypot(xx - dx, yy - dy) <= row['mask_radius']
        assert not mask[0][disc].any()
        assert row['mask_name'] in ('full', 'large', 'moderate', 'small', 'focused', 'minimal')
        # Separation keeps other discs off this one.
        around = np.hypot(xx - dx, yy - dy) <= row['mask_radius'] + 1.5
        outside = around & ~disc & np.isfinite(target[0])
        assert mask[0][outside].mean() > 0.9


def test_invalid_pixels_are_no_background(folder):
    dataset = CutoutDataset(folder, 'validation')
    assert np.isnan(dataset.cutouts[:, 0]).any()
    for i in range(len(dataset)):
        image, mask, target = dataset[i]
        assert_array_equal(np.isnan(image), np.isnan(target))
        assert not mask[np.isnan(image)].any()


def test_dataset_can_be_sent_to_another_process(folder):
    dataset = CutoutDataset(folder)
    again = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(dataset))))
    assert isinstance(again.cutouts, np.memmap)
    assert_array_equal(again[3], dataset[3])


@pytest.mark.parametrize('layout', ['array', 'paper'])
def test_nothing_is_left_of_a_dataset_that_is_replaced(simulations, tmp_path, layout):
    splits = {'a': 'train', 'b': 'test'}
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train' / 'notes.txt').write_text('mine')
    write_dataset(tmp_path, simulations[:4], splits, size=32, layout=layout)
    new = tmp_path / 'fresh'
    write_dataset(new, simulations[:1], size=32, layout='paper')
    write_dataset(tmp_path, simulations[:1], size=32, layout='paper', overwrite=True)
    files = {path.relative_to(tmp_path) for path in tmp_path.rglob('*') if path.is_file()}
    assert {path for path in files if path.parts[0] != 'fresh'} == {
        path.relative_to(new) for path in new.rglob('*') if path.is_file()
    } | {Path('train/notes.txt')}


def test_paper_layout_has_a_file_for_each_cutout(simulations, folder, tmp_path):
    write_dataset(tmp_path / 'new', simulations[:2], 'test', layout='paper', size=96)
    paths = sorted((tmp_path / 'new' / 'test').glob('*/*.npy'))
    assert len(paths) == 3 * 8
    assert {path.parent.name for path in paths} == set(CHANNELS)
    assert len(Table.read(tmp_path / 'new' / 'test.ecsv')) == 8
    stored = CutoutDataset(folder, 'train').cutouts[0]
    for channel, values in zip(CHANNELS, stored, strict=True):
        found = np.load(tmp_path / 'new' / 'test' / channel / '000000.npy')
        assert_array_equal(found, values[2:-2, 2:-2])


def test_layouts_are_read_alike(simulations, tmp_path):
    for layout in ('array', 'paper'):
        write_dataset(tmp_path / layout, simulations[:2], 'test', layout=layout, size=40)
    array, paper = (read_dataset(tmp_path / layout)['test'] for layout in ('array', 'paper'))
    assert len(array) == len(paper) == 8
    assert array.cutouts.shape == paper.cutouts.shape == (8, 3, 40, 40)
    paper = pickle.loads(pickle.dumps(paper))
    for i in (0, 7, -1):
        assert_array_equal(array[i], paper[i])
    with pytest.raises(IndexError, match='there are 8 cutouts, no number 8'):
        paper.cutouts[8]


def test_interrupted_run_leaves_no_dataset(simulations, tmp_path):
    def stopped():
        yield simulations[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / 'new', stopped())
    assert not list((tmp_path / 'new').iterdir())
    with pytest.raises(ValueError, match='holds no complete dataset'):
        read_dataset(tmp_path / 'new')


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'splits': {'b': 'train'}}, "the field 'a' must be in one of"),
        ({'splits': 'other'}, "got 'other'"),
        ({'layout': 'zip'}, 'layout must be one of'),
        ({'size': 3}, 'at least 16 pixels'),
    ],
)
def test_impossible_datasets_are_refused(simulations, tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        write_dataset(tmp_path / 'new', simulations[:1], **options)


def test_dataset_is_not_overwritten_by_accident(simulations, folder):
    before = (folder / 'train.npy').stat().st_mtime_ns
    with pytest.raises(ValueError, match='holds a dataset'):
        write_dataset(folder, simulations[:1])
    assert (folder / 'train.npy').stat().st_mtime_ns == before
    with pytest.raises(ValueError, match='there are no simulations'):
        write_dataset(folder.with_name('empty'), [])


def test_damaged_dataset_is_refused(simulations, tmp_path):
    write_dataset(tmp_path, simulations[:1])
    table = Table.read(tmp_path / 'train.ecsv')
    table[:-1].write(tmp_path / 'train.ecsv', overwrite=True)
    with pytest.raises(ValueError, match='is damaged'):
        CutoutDataset(tmp_path)
    with pytest.raises(ValueError, match=r"split must be one of \['train'\], got 'test'"):
        CutoutDataset(tmp_path, 'test')
    assert json.loads((tmp_path / 'dataset.json').read_text())['splits']['train']['fields'] == ['a']


def test_dataset_feeds_a_torch_loader(folder):
    from torch.utils.data import DataLoader

    image, mask, target = next(iter(DataLoader(CutoutDataset(folder), batch_size=4)))
    assert image.shape == mask.shape == target.shape == (4, 1, 100, 100)
