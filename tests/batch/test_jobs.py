from pathlib import Path

import pytest
from astropy.io import fits
from astropy.table import Table
from helpers_batch import NAMES, write_catalog

from csr_astro.batch import read_jobs, remove_many


@pytest.mark.parametrize('suffix', ['.csv', '.ecsv'])
def test_table_names_maps_relative_to_itself(folder, options, threads, suffix, monkeypatch):
    (folder / 'lists').mkdir()
    write_catalog(folder / 'lists' / 'own.csv', [(40, 50)])
    table = Table(
        {
            'map': ['../a.fits', str(folder / 'b.fits'), '../c.fits'],
            'catalog': ['own.csv', '', 'own.csv'],
            'instrument': ['', '', 'spire-250'],
            'output': ['first.fits.gz', '', ''],
            'remark': ['x', 'y', 'z'],
        }
    )
    table.write(folder / 'lists' / f'maps{suffix}')
    monkeypatch.chdir(folder)
    jobs = read_jobs(f'lists/maps{suffix}', 'catalog.ecsv')
    manifest = remove_many(jobs, 'out', cluster=threads, **options)
    assert list(manifest['status']) == ['done'] * 3, manifest['message']
    assert list(manifest['n_sources']) == [1, 3, 1]
    assert list(manifest['instrument']) == ['generic', 'generic', 'spire-250']
    assert list(manifest['table']) == ['first.ecsv', 'b_source_free.ecsv', 'c_source_free.ecsv']
    with fits.open(folder / 'out' / 'first.fits.gz') as hdus:
        assert hdus['CSR_MASK'].data[50, 40]


def test_a_map_that_matches_twice_is_done_once(folder):
    given = [folder / '*.fits', folder / 'a.fits', f'{folder}/[ab].fits']
    jobs = read_jobs(given, folder / 'catalog.ecsv')
    assert [Path(job.map).stem for job in jobs] == NAMES


def test_maps_are_paired_with_catalogues_of_their_name(folder, options, threads):
    """As the published tool pairs them: MAP.fits with MAP.csv."""
    write_catalog(folder / 'a.csv', [(40, 50)])
    write_catalog(folder / 'b.ecsv', [(40, 50), (70, 20)])
    # The first of the known formats.
    write_catalog(folder / 'b.csv', [(1, 1)])
    jobs = read_jobs([folder / 'a.fits', folder / 'b.fits'])
    assert [Path(job.catalog).name for job in jobs] == ['a.csv', 'b.ecsv']
    manifest = remove_many(jobs, folder / 'out', cluster=threads, **options)
    assert list(manifest['n_sources']) == [1, 2]
    with pytest.raises(ValueError, match=r"no catalogue for .*c\.fits'.*put c\.csv beside it"):
        read_jobs(folder)
    for name in ('c', 'd'):
        write_catalog(folder / f'{name}.csv', [(9, 9)])
    assert [Path(job.catalog).name for job in read_jobs(folder)] == [
        'a.csv', 'b.ecsv', 'c.csv', 'd.csv',
    ]  # fmt: skip
    # One that is given is for all.
    jobs = read_jobs(folder, folder / 'catalog.ecsv')
    assert {Path(job.catalog).name for job in jobs} == {'catalog.ecsv'}
    Table({'map': ['a.fits']}).write(folder / 'maps.csv')
    assert Path(read_jobs(folder / 'maps.csv')[0].catalog).name == 'a.csv'
    assert read_jobs(folder / 'a.fits', find=True)[0].catalog == ''


@pytest.mark.parametrize(
    ('table', 'message'),
    [
        ({'name': ['a.fits']}, 'must have a column map'),
        ({'map': ['a.fits'], 'Catalogue': ['c.csv']}, "'Catalogue' of .* must be called catalog"),
        ({'map': ['a.fits']}, 'there is no catalogue for'),
        ({'map': ['a.fits', ''], 'catalog': ['c.csv', 'c.csv']}, 'row 2 of .* has no map'),
        (
            {'map': ['a.fits'], 'catalog': ['c.csv'], 'output': ['x/y.fits']},
            "output must be the name of a FITS file, got 'x/y.fits'",
        ),
        (
            {'map': ['a.fits'], 'catalog': ['c.csv'], 'output': ['y.png']},
            "output must be the name of a FITS file, got 'y.png'",
        ),
    ],
)
def test_unusable_tables_are_refused(tmp_path, table, message):
    Table(table).write(tmp_path / 'maps.ecsv')
    with pytest.raises(ValueError, match=message):
        read_jobs(tmp_path / 'maps.ecsv')


@pytest.mark.parametrize(
    ('maps', 'message'),
    [
        ([], 'there are no maps'),
        (['nothing/*.fits'], r"no file matches 'nothing/\*.fits'"),
        (['nothing.csv'], "no such file: 'nothing.csv'"),
        (['a.fits', 'maps.csv'], 'give maps or one table of maps, not both'),
    ],
)
def test_lists_without_maps_are_refused(maps, message):
    with pytest.raises(ValueError, match=message):
        read_jobs(maps, 'catalog.ecsv')
