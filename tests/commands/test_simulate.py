import json
import shlex

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from numpy.testing import assert_array_equal
from photutils.aperture import CircularAperture
from photutils.psf import CircularGaussianPRF

from csr_astro.cli import main
from csr_astro.images import read_image
from csr_astro.instruments import get_instrument
from csr_astro.simulation.dataset import read_dataset
from csr_astro.simulation.field import tangent_wcs
from csr_astro.simulation.psf import encircled_energy, pacs_profile

SHAPE = (150, 160)


@pytest.fixture
def map_path(tmp_path):
    """A map as archives have them."""
    primary = fits.PrimaryHDU()
    primary.header['INSTRUME'] = 'PACS'
    primary.header['OBS_MODE'] = 'Scan map'
    primary.header['WAVELNTH'] = 70.0
    data = np.random.default_rng(0).normal(1e-3, 1e-4, SHAPE)
    image = fits.ImageHDU(data.astype('>f8'), tangent_wcs(SHAPE, 1.6).to_header(), name='image')
    image.header['BUNIT'] = 'Jy/pixel'
    path = tmp_path / 'map.fits'
    fits.HDUList([primary, image]).writeto(path)
    return path


@pytest.fixture
def run(capsys, tmp_path):
    """Run ``csr-astro simulate``: its exit code, standard output and standard error."""

    def run_command(line, output='out'):
        code = main(['simulate', *shlex.split(line), '-o', str(tmp_path / output)])
        return code, *capsys.readouterr()

    return run_command


def test_real_map_is_simulated_by_its_header(run, map_path, tmp_path):
    code, out, err = run(f'{map_path} --lowest 100 --highest 150 --number 4 --seed 3')
    assert (code, err) == (0, '')
    assert 'written: 3 maps' in out
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    levels = ('00100', '00125', '00150')
    assert names == {'map_truth.fits', 'fields.ecsv'} | {
        f'map_{level}mJy{end}' for level in levels for end in ('.fits', '.ecsv', '.csv')
    }
    truth, _ = read_image(tmp_path / 'out' / 'map_truth.fits')
    assert_array_equal(truth.data, fits.getdata(map_path, 'image'))
    image, header = read_image(tmp_path / 'out' / 'map_00125mJy.fits')
    assert (header['INSTRUME'], header['WAVELNTH']) == ('PACS', 70)
    table = QTable.read(tmp_path / 'out' / 'map_00125mJy.ecsv')
    assert table.meta['instrument'] == 'pacs-scanmap-blue'
    added = image.data - truth.data
    for row in table:
        found = CircularAperture((row['x'], row['y']), 8).do_photometry(added)[0][0]
        expected = 0.125 * encircled_energy(pacs_profile('blue', 1.6), 8.0)
        assert found == pytest.approx(expected, rel=0.02)
    sky = Table.read(tmp_path / 'out' / 'map_00125mJy.csv')
    assert sky.colnames == ['ra', 'dec', 'flux']
    again = truth.wcs.world_to_pixel_values(sky['ra'], sky['dec'])
    assert_array_equal(np.round(again[0], 5), np.round(table['x'], 5))


def test_same_seed_gives_the_same_files(run, map_path, tmp_path):
    for output, seed in (('a', 1), ('b', 1), ('c', 2)):
        line = f'{map_path} --flux-levels 200 --number 3 --fwhm 3.5 --seed {seed}'
        assert run(line, output)[0] == 0
    a, b, c = (fits.getdata(tmp_path / name / 'map_00200mJy.fits', 'image') for name in 'abc')
    assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_psf_can_be_a_file(run, map_path, tmp_path):
    y, x = np.indices((25, 25))
    fits.writeto(tmp_path / 'psf.fits', CircularGaussianPRF(x_0=12, y_0=12, fwhm=3)(x, y))
    code, *_ = run(
        f'{map_path} --psf {tmp_path}/psf.fits --flux-levels 300 --number 3 --angle 0 '
        f'--avoid {avoided(tmp_path)} --separation 30'
    )
    assert code == 0
    truth, _ = read_image(tmp_path / 'out' / 'map_truth.fits')
    image, _ = read_image(tmp_path / 'out' / 'map_00300mJy.fits')
    assert (image.data - truth.data).sum() == pytest.approx(0.9, rel=1e-4)
    table = QTable.read(tmp_path / 'out' / 'map_00300mJy.ecsv')
    assert np.hypot(table['x'] - 80, table['y'] - 75).min() > 30


def avoided(tmp_path):
    Table({'x': [80.0], 'y': [75.0]}).write(tmp_path / 'known.ecsv')
    return tmp_path / 'known.ecsv'


def test_synthetic_field_is_simulated(run, tmp_path):
    code, _, err = run(
        '--field power-law --slope -3 --shape 140 180 --instrument pacs-parallel-green --fast-scan '
        '--random --number 5 --gaps --noise-kind striped --faint 0.1 --gradient 1'
    )
    assert (code, err) == (0, '')
    image, _ = read_image(tmp_path / 'out' / 'power-law_random000.fits')
    assert image.shape == (140, 180)
    assert image.pixel_scale == pytest.approx(get_instrument('pacs-parallel-green').pixel_scale)
    assert np.isnan(image.data).any()
    table = QTable.read(tmp_path / 'out' / 'power-law_random000.ecsv')
    assert len(table) == 5


def test_fields_become_a_dataset_split_by_field(run, tmp_path):
    folder = tmp_path / 'cutouts'
    code, out, _ = run(
        '--field lognormal --contrast 0.8 --shape 120 120 --fields 4 --fwhm 3 --number 3 '
        f'--flux-levels 100,200 --dataset {folder}'
    )
    assert code == 0
    assert 'train: 12 cutouts' in out
    splits = read_dataset(folder)
    assert [len(split) for split in splits.values()] == [12, 6, 6]
    fields = [set(split.index['field']) for split in splits.values()]
    assert len(set.union(*fields)) == sum(map(len, fields)) == 4
    assert json.loads((folder / 'dataset.json').read_text())['size'] == 100


def test_map_can_be_matched(run, map_path, tmp_path):
    code, *_ = run(f'--match {map_path} --shape 128 128 --fwhm 3 --flux-levels 50 --number 2')
    assert code == 0
    image, _ = read_image(tmp_path / 'out' / 'map_like_truth.fits')
    assert image.shape == (128, 128)
    assert image.data.std() == pytest.approx(1e-4, rel=0.05)


@pytest.mark.parametrize(
    ('line', 'sentence'),
    [
        ('', 'give a MAP with few sources, or a --field'),
        ('nothing.fits', "no such file: 'nothing.fits'"),
        ('{map} --instrument nothing', 'instrument must be one of'),
        ('{map} --psf nothing.fits', "no such file: 'nothing.fits'"),
        ('{map} --psf a.fits --fwhm 3', 'give --psf or --fwhm, not both'),
        ('{map} --fwhm 3 --instrument spire-250', 'a beam is an instrument of its own'),
        ('{map} --fwhm wide', "--fwhm: 'wide' is neither a number"),
        ('{map} --flux-levels 1,a', "--flux-levels must be numbers and commas, got '1,a'"),
        ('{map} --flux-levels -5', 'flux levels must be positive'),
        ('{map} --number 5000', 'do: give a smaller number or separation'),
        ('{map} --lowest 41 --highest 42', 'no flux level of 10 to 40000 mJy'),
        ('{map} {map}', 'fields must have different names'),
        ('{map} --random -1', 'random must be a number of simulations'),
        ('--field cirrus --fwhm 3', 'kind must be one of'),
        ('--field flat --slope -3 --fwhm 3', "kind 'flat' has no slope"),
        ('--field flat --match {map} --fwhm 3', 'give --field or --match, not both'),
        ('--field flat --shape 3 3 --fwhm 3', 'at least 16 x 16 pixels'),
        ('--field power-law', "header of 'power-law' does not tell the instrument"),
    ],
)
def test_wrong_input_gets_one_sentence(run, map_path, tmp_path, line, sentence):
    code, _, err = run(line.format(map=map_path))
    assert code == 1
    assert err.startswith('csr-astro: error: ')
    assert sentence in err
    assert err.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_files_are_not_overwritten_by_accident(run, map_path, tmp_path):
    line = f'{map_path} --flux-levels 100 --number 2 --fwhm 3'
    assert run(line)[0] == 0
    before = (tmp_path / 'out' / 'map_00100mJy.fits').read_bytes()
    code, _, err = run(line)
    assert code == 1
    assert 'exists; overwrite it (--overwrite)' in err
    assert (tmp_path / 'out' / 'map_00100mJy.fits').read_bytes() == before
    assert run(f'{line} --overwrite')[0] == 0


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(['simulate', '--help'])
    assert stopped.value.code == 0
    assert 'csr-astro simulate map.fits --instrument pacs-scanmap-blue' in capsys.readouterr().out


# Tables of fields


def test_each_field_has_its_own_settings(run, map_path, tmp_path):
    """As the paper's Tables 6 to 8: number of sources, range of fluxes and split by hand."""
    for name in ('one', 'two', 'three'):
        (tmp_path / f'{name}.fits').write_bytes(map_path.read_bytes())
    Table({
        'map': ['one.fits', 'two.fits', 'three.fits'], 'number': [3, 2, 1],
        'lowest': [100, 400, 60], 'highest': [150, 500, 60],
        'split': ['train', 'validation', 'test'],
    }).write(tmp_path / 'fields.csv')  # fmt: skip
    code, out, err = run(f'{tmp_path}/fields.csv --dataset {tmp_path}/cutouts')
    assert (code, err) == (0, '')
    assert 'written: 6 maps' in out
    fields = Table.read(tmp_path / 'out' / 'fields.ecsv')
    assert list(fields['field']) == ['one', 'two', 'three']
    assert list(fields['number']) == [3, 2, 1]
    assert list(fields['lowest']) == [100, 400, 60]
    assert list(fields['highest']) == [150, 500, 60]
    assert list(fields['split']) == ['train', 'validation', 'test']
    assert list(fields['n_simulations']) == [3, 2, 1]
    assert list(fields['total_sources']) == [9, 4, 1]
    assert set(fields['instrument']) == {'pacs-scanmap-blue'}
    counts = {split: len(each) for split, each in read_dataset(tmp_path / 'cutouts').items()}
    assert counts == {'train': 9, 'validation': 4, 'test': 1}
    # Another band of the same fields is added.
    code, *_ = run(f'{tmp_path}/fields.csv --instrument pacs-scanmap-green --overwrite')
    assert code == 0
    assert len(Table.read(tmp_path / 'out' / 'fields.ecsv')) == 6


@pytest.mark.parametrize(
    ('content', 'extra', 'sentence'),
    [
        ('name\none.fits\n', '', 'must have a column map'),
        ('map\nno.fits\n', '', 'no.fits'),
        ('map\nmap.fits\n', 'map.fits', 'give maps or one table of maps, not both'),
    ],
)
@pytest.mark.usefixtures('map_path')
def test_unusable_tables_of_fields_are_refused(run, tmp_path, content, extra, sentence):
    (tmp_path / 'fields.csv').write_text(content)
    code, _, err = run(f'{tmp_path}/fields.csv {extra}')
    assert code == 1
    assert sentence in err
