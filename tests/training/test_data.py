"""Cutouts to train on."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from helpers_simulation import simulate_fields
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro.simulation.dataset import SPLITS, CutoutDataset, write_dataset
from csr_astro.simulation.psf import moffat_profile, psf_stamp
from csr_astro.simulation.simulate import simulate_map
from csr_astro.training.data import (
    CutoutSampler,
    read_maps,
)
from csr_astro.training.stored import DatasetSampler, dataset_samplers


@pytest.fixture(scope='module')
def sampler():
    return CutoutSampler({}, seed=3)


def make_map(shape=(260, 300), seed=0):
    """A plane with a little noise and a blank stripe."""
    y, x = np.indices(shape, dtype=np.float32)
    image = 0.3 * x + 0.1 * y + np.random.default_rng(seed).normal(0, 1e-3, shape)
    image[:, 100:110] = np.nan
    return image.astype(np.float32)


def test_batch_depends_on_seed_and_number_only(sampler):
    first = sampler.batch(2, 4)
    other = sampler.batch(3, 4)
    again = CutoutSampler({}, seed=3).batch(2, 4)
    reseeded = CutoutSampler({}, seed=4).batch(2, 4)
    for a, b, c, d in zip(first, again, other, reseeded, strict=True):
        assert_array_equal(a, b)
        assert not np.array_equal(a, c)
        assert not np.array_equal(a, d)


@pytest.mark.parametrize('real_fraction', [0, 1])
def test_batch_is_what_it_says(real_fraction):
    sampler = CutoutSampler({'map': [make_map()]}, real_fraction=real_fraction)
    image, target, valid, hole, central, radius = sampler.batch(0, 12)
    for array in (image, target, valid, hole, central):
        assert array.shape == (12, 1, 96, 96)
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    assert set(np.unique(valid)) == set(np.unique(hole)) == set(np.unique(central)) == {0, 1}
    assert not (valid * hole).any()
    assert not (valid * central).any()
    # Under the discs the image holds the sources; blank pixels hold nothing.
    assert not image[(valid == 0) & (hole == 0)].any()
    # The hole is the disc, up to blank pixels, and the radius is one that holds it.
    assert radius.dtype == np.float32
    assert ((radius >= 5) & (radius <= 14)).all()
    y, x = np.indices((96, 96)) - 48
    inside = np.hypot(y, x) <= radius[:, None, None, None] - 2
    assert (central >= inside).all()
    assert (central <= (np.hypot(y, x) <= radius[:, None, None, None] + 1)).all()
    assert not (valid * inside).any()
    assert (hole * inside).sum() > 0.6 * inside.sum()
    # Of order 1: the target has about unit scatter around its disc.
    assert 0.1 < np.median([t[h > 0].std() for t, h in zip(target, valid, strict=True)]) < 30


def test_without_sources_the_valid_image_is_the_target():
    sampler = CutoutSampler({'map': [make_map()]}, source_fraction=0, seed=1)
    image, target, valid, hole, *_ = sampler.batch(0, 16)
    assert_array_equal(image, target * (valid + hole))


def test_sources_add_flux_that_reaches_outside_the_discs():
    sampler = CutoutSampler({}, source_fraction=1, seed=1)
    image, target, valid, *_ = sampler.batch(0, 16)
    wings = (image - target) * valid
    assert wings.min() > -1e-3
    assert (wings.max(axis=(1, 2, 3)) > 1e-3).mean() > 0.9


def test_blank_pixels_are_neither_valid_nor_judged():
    """A map of which only a stripe is measured: the rest is blank in every array."""
    image = np.full((200, 200), np.nan, dtype=np.float32)
    image[80:120] = np.random.default_rng(0).normal(size=(40, 200))
    sampler = CutoutSampler({'stripe': [image]}, real_fraction=1)
    _, target, valid, hole, *_ = sampler.batch(0, 8)
    measured = (valid + hole) > 0
    assert not target[~measured].any()
    assert (measured.mean(axis=(1, 2, 3)) <= 40 / 96 + 1e-6).all()


@pytest.mark.parametrize('real_fraction', [0, 1])
def test_real_fraction_decides_where_cutouts_come_from(real_fraction):
    """The second difference of the map is nearly zero, that of a synthetic field is not."""
    maps = {'plane': [make_map()], 'blank': [np.full((200, 200), np.nan)]}
    sampler = CutoutSampler(maps, real_fraction=real_fraction)
    _, target, valid, *_ = sampler.batch(0, 20)
    whole = (valid[..., :-2] * valid[..., 1:-1] * valid[..., 2:]) > 0
    bend = [np.median(np.abs(np.diff(t, 2)[w])) for t, w in zip(target, whole, strict=True)]
    # A part of the cutouts gets additional noise.
    assert np.mean(np.array(bend) < 2e-3) == pytest.approx(real_fraction, abs=0.4)


def test_sampler_travels_to_other_processes(sampler):
    copy = pickle.loads(pickle.dumps(sampler))
    for array, expected in zip(copy.batch(5, 2), sampler.batch(5, 2), strict=True):
        assert_array_equal(array, expected)


def test_psf_images_are_used():
    psf = psf_stamp(moffat_profile(5, 2), 41)
    with_psf = CutoutSampler({}, [psf], seed=3, source_fraction=1).batch(0, 4)
    without = CutoutSampler({}, seed=3, source_fraction=1).batch(0, 4)
    assert_array_equal(with_psf[1], without[1])
    assert not np.array_equal(with_psf[0], without[0])


def write_fits(path, *images):
    hdus = [fits.PrimaryHDU()] + [fits.ImageHDU(image) for image in images]
    fits.HDUList(hdus).writeto(path)


def test_maps_are_read_by_kind(tmp_path):
    plane = make_map((60, 50))
    write_fits(tmp_path / 'survey70_tile1.fits', plane, np.zeros(7), np.zeros((2, 9, 9)))
    write_fits(tmp_path / 'survey70_tile2.fits', 2 * plane, 3 * plane)
    write_fits(tmp_path / 'other.fits', np.arange(12, dtype='>i2').reshape(3, 4))
    maps = read_maps(tmp_path)
    assert {kind: len(images) for kind, images in maps.items()} == {'survey70': 3, 'other': 1}
    for factor, image in enumerate(maps['survey70'], start=1):
        assert image.dtype == np.float32
        assert_array_equal(image, factor * plane)
    assert_array_equal(maps['other'][0], np.arange(12).reshape(3, 4))


@pytest.mark.parametrize(('shape', 'n_images'), [((399, 500), 1), ((400, 401), 2)])
def test_large_maps_are_also_read_block_averaged(tmp_path, shape, n_images):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    image[0, 0] = np.nan
    write_fits(tmp_path / 'map.fits', image)
    images = read_maps(tmp_path)['map']
    assert len(images) == n_images
    if n_images == 2:
        expected = image[:400, :400].reshape(200, 2, 200, 2).mean(axis=(1, 3))
        assert_allclose(images[1], expected, rtol=1e-5, atol=1e-6)


def test_maps_are_not_their_coverage_or_errors(tmp_path):
    extensions = [fits.PrimaryHDU()]
    for value, name in enumerate(['image', 'coverage', 'stDev', 'CSR_MASK', ''], start=1):
        extensions.append(fits.ImageHDU(np.full((120, 120), float(value)), name=name))
    fits.HDUList(extensions).writeto(tmp_path / 'map.fits')
    assert [image[0, 0] for image in read_maps(tmp_path)['map']] == [1, 5]


def test_maps_may_be_read_block_averaged_only(tmp_path):
    write_fits(tmp_path / 'map.fits', np.ones((400, 400), dtype=np.float32))
    assert [image.shape for image in read_maps(tmp_path, block_sizes=(2,))['map']] == [(200, 200)]


def test_other_files_beside_the_maps_are_left_alone(tmp_path):
    write_fits(tmp_path / 'm31.v1_tile02.fits', np.ones((300, 300), dtype=np.float32))
    (tmp_path / 'm31.v1_tile02.fits.md5').write_text('no map')
    assert list(read_maps(tmp_path)) == ['m31.v1']


def test_folder_without_maps_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match='no FITS files in'):
        read_maps(tmp_path)


# Datasets


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A dataset of three fields, one for each split."""
    names = ('a', 'b', 'c')
    folder = tmp_path_factory.mktemp('datasets') / 'array'
    write_dataset(folder, simulate_fields(names), dict(zip(names, SPLITS, strict=True)))
    return folder


def test_batches_of_a_dataset_repeat_and_differ_by_seed(folder):
    dataset = CutoutDataset(folder)
    first, again, other = (
        DatasetSampler(dataset, seed=seed).batch(3, 5) for seed in (4, 4, 5)
    )
    for a, b in zip(first, again, strict=True):
        assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


def test_every_cutout_is_seen_once_before_any_is_seen_again(folder):
    """Without augmentation a cutout is the same whenever it is seen."""
    sampler = DatasetSampler(CutoutDataset(folder), augment=False)
    epochs = [np.concatenate([sampler.batch(2 * k + i, 4)[0] for i in range(2)]) for k in range(2)]
    seen = [{image.tobytes() for image in epoch} for epoch in epochs]
    assert seen[0] == seen[1]
    assert len(seen[0]) == 8
    assert not np.array_equal(*epochs)


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_batches_of_a_dataset_are_like_those_of_the_sampler(folder, split):
    sampler = DatasetSampler(CutoutDataset(folder, split))
    image, target, valid, hole, central, radius = sampler.batch(0, 8)
    for each in (image, target, valid, hole, central):
        assert each.shape == (8, 1, 96, 96)
        assert each.dtype == np.float32
        assert np.isfinite(each).all()
    assert not (valid * hole).any()
    assert (central <= hole).all()
    # Centred and scaled by the background around the disc.
    assert np.abs(np.median(image[valid > 0])) < 3
    assert 0.3 < image[valid > 0].std() < 10
    # The central disc is whole after every shift.
    for i in range(8):
        assert central[i].sum() == pytest.approx(np.pi * radius[i] ** 2, rel=0.35)
    # Sources are in the holes, not in the target.
    excess = (image - target)[hole > 0]
    assert excess.mean() > 20 * np.abs((image - target)[valid > 0]).mean()


def test_without_augmentation_cutouts_are_as_stored(folder):
    dataset = CutoutDataset(folder)
    valid = DatasetSampler(dataset, augment=False).batch(0, 1)[2]
    stored = [mask[:, 2:-2, 2:-2] for _, mask, _ in dataset]
    assert any(np.array_equal(valid[0], mask) for mask in stored)


def test_sampler_of_a_dataset_travels_to_other_processes(folder):
    sampler = DatasetSampler(CutoutDataset(folder))
    copy = pickle.loads(pickle.dumps(sampler))
    for array, expected in zip(copy.batch(5, 2), sampler.batch(5, 2), strict=True):
        assert_array_equal(array, expected)
    assert repr(copy) == '<DatasetSampler: 96 x 96 pixels, 8 cutouts, seed 0>'


@pytest.mark.parametrize('size', [0, 101])
def test_impossible_cutout_sizes_are_refused(folder, size):
    with pytest.raises(ValueError, match='size must be between 1 and 100'):
        DatasetSampler(CutoutDataset(folder), size=size)


def test_samplers_of_a_dataset_train_and_validate(folder):
    sampler, validation = dataset_samplers(folder, seed=3)
    assert (len(sampler.dataset), sampler.augment) == (8, True)
    assert (len(validation.dataset), validation.augment) == (8, False)
    assert set(validation.dataset.index['field']) == {'b'}


def test_datasets_that_cannot_train_are_refused(tmp_path):
    simulation = simulate_map(np.zeros((200, 200)), 300, instrument='generic', number=2)
    with pytest.raises(ValueError, match='holds no complete dataset'):
        dataset_samplers(tmp_path)
    write_dataset(tmp_path, [simulation])
    with pytest.raises(ValueError, match='has no cutouts for validation; simulate more fields'):
        dataset_samplers(tmp_path)
    small = tmp_path / 'small'
    other = replace(simulation, field='other')
    write_dataset(small, [simulation, other], {'field': 'train', 'other': 'validation'}, size=48)
    with pytest.raises(ValueError, match='size must be between 1 and 48, got 96'):
        dataset_samplers(small)


def test_cutouts_avoid_compact_sources_and_keep_bright_background():
    """A star is no background, a bright cloud is."""
    y, x = np.mgrid[:300, :300]
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(300, 300))
    stars = sum(
        300 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * 1.4**2))
        for a, b in rng.uniform(20, 280, (12, 2))
    )
    cloud = 300 * np.exp(-((x - 150) ** 2 + (y - 150) ** 2) / (2 * 30.0**2))
    for added, brightest in ((stars, 12), (cloud, None)):
        sampler = CutoutSampler(
            {'map': [noise + added]}, real_fraction=1, source_fraction=0, seed=5
        )
        found = sampler.kinds[0][0].sources
        if brightest is None:
            assert not found.any()
        else:
            assert 10 <= found.sum() <= 13
            rows, columns = np.nonzero(found)
            assert (stars[rows, columns] > 150).all()


def test_small_islands_have_no_sources_to_avoid():
    sampler = CutoutSampler({'map': [np.random.default_rng(0).normal(size=(20, 20))]})
    assert not sampler.kinds[0][0].sources.any()
