import os
import sys

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable, Table
from helpers_batch import jobs_in, times

import csr_astro
from csr_astro.batch import MANIFEST, read_jobs, remove_many


def test_manifest_has_a_row_for_every_map_in_the_order_given(folder, options, threads):
    jobs = jobs_in(folder, ['c', 'a', 'd'])
    manifest = remove_many(jobs, folder / 'out', cluster=threads, errors=False, **options)
    assert list(manifest['map']) == [str(folder / f'{name}.fits') for name in ('c', 'a', 'd')]
    assert set(manifest['status']) == {'done'}
    assert set(manifest['catalog']) == {str(folder / 'catalog.ecsv')}
    assert set(manifest['message']) == {'3 of 3 sources removed'}
    assert set(manifest['n_sources']) == {3}
    assert set(manifest['instrument']) == {'generic'}
    assert (manifest['seconds'] > 0).all()
    assert len(set(manifest['fingerprint'])) == 3
    assert list(manifest['output']) == [f'{name}_source_free.fits' for name in ('c', 'a', 'd')]
    assert set(manifest['photometry']) == {''}
    written = Table.read(folder / 'out' / MANIFEST)
    assert written.meta['csr_astro'] == csr_astro.__version__
    for name in manifest.colnames:
        assert list(np.ma.filled(written[name], '')) == list(manifest[name])
    for row in manifest:
        with fits.open(folder / 'out' / row['output']) as hdus:
            assert [hdu.name for hdu in hdus] == ['PRIMARY', 'CSR_MASK']
        assert len(QTable.read(folder / 'out' / row['table'])) == 3


def test_maps_with_the_same_output_are_refused_before_anything_starts(folder, options, threads):
    (folder / 'other').mkdir()
    os.link(folder / 'a.fits', folder / 'other' / 'a.fits')
    jobs = read_jobs([folder / 'a.fits', folder / 'other' / 'a.fits'], folder / 'catalog.ecsv')
    with pytest.raises(ValueError, match=r"would both be written to 'a_source_free\.fits'"):
        remove_many(jobs, folder / 'out', cluster=threads, **options)
    assert not (folder / 'out').exists()


@pytest.mark.parametrize('name', ['manifest.fits', 'x_photometry.fits'])
def test_tables_must_not_have_the_same_name_either(folder, options, threads, name):
    Table({'map': ['a.fits', 'b.fits'], 'output': ['x.fits', name]}).write(folder / 'maps.csv')
    jobs = read_jobs(folder / 'maps.csv', folder / 'catalog.ecsv')
    with pytest.raises(ValueError, match=r"would both be written to '.*\.ecsv'"):
        remove_many(jobs, folder / 'out', cluster=threads, photometry={'apertures': 3}, **options)


def test_inputs_are_not_replaced(folder, options, threads):
    Table({'map': ['a.fits'], 'output': ['a.fits']}).write(folder / 'maps.csv')
    jobs = read_jobs(folder / 'maps.csv', folder / 'catalog.ecsv')
    before = (folder / 'a.fits').read_bytes()
    with pytest.raises(ValueError, match='would be replaced, and is an input'):
        remove_many(jobs, folder, cluster=threads, overwrite=True, **options)
    assert (folder / 'a.fits').read_bytes() == before


def test_files_of_others_are_replaced_on_request_only(folder, options, threads):
    (folder / 'out').mkdir()
    foreign = folder / 'out' / 'a_source_free.fits'
    foreign.write_text('precious')
    jobs = jobs_in(folder, ['a'])
    with pytest.raises(ValueError, match='exists and is of another batch; give --overwrite'):
        remove_many(jobs, folder / 'out', cluster=threads, **options)
    assert foreign.read_text() == 'precious'
    remove_many(jobs, folder / 'out', cluster=threads, overwrite=True, **options)
    assert fits.getdata(foreign).shape == (110, 120)
    (folder / 'other').mkdir()
    os.link(folder / 'b.fits', folder / 'other' / 'a.fits')
    jobs = read_jobs(folder / 'other' / 'a.fits', folder / 'catalog.ecsv')
    with pytest.raises(ValueError, match=r"is that of '.*a\.fits'; give --overwrite"):
        remove_many(jobs, folder / 'out', cluster=threads, **options)


def test_foreign_manifest_is_refused(folder, options, threads):
    (folder / 'out').mkdir()
    Table({'x': [1]}).write(folder / 'out' / MANIFEST)
    with pytest.raises(ValueError, match='is not the manifest of a batch; give another folder'):
        remove_many(jobs_in(folder), folder / 'out', cluster=threads, **options)


def test_restart_does_only_what_is_missing(folder, options, threads):
    out = folder / 'out'
    remove_many(jobs_in(folder, ['a', 'b']), out, cluster=threads, **options)
    before = times(out)
    (out / 'b_source_free.ecsv').unlink()
    killed = out / '.csr-astro-0123456789abcdef'
    killed.mkdir()
    for name in ('lock', 'c_source_free.fits'):
        (killed / name).write_text('of a process that was killed')
    manifest = remove_many(jobs_in(folder, ['a', 'b', 'c']), out, cluster=threads, **options)
    assert list(manifest['status']) == ['done'] * 3
    after = times(out)
    assert {name for name in after if before.get(name) != after[name]} == {
        f'{name}_source_free.{kind}' for name in 'bc' for kind in ('fits', 'ecsv')
    }
    assert not list(out.glob('.*'))


def test_nothing_left_to_do_needs_no_cluster(folder, options, threads, monkeypatch):
    remove_many(jobs_in(folder), folder / 'out', cluster=threads, **options)
    monkeypatch.setitem(sys.modules, 'distributed', None)
    manifest = remove_many(jobs_in(folder), folder / 'out', **options)
    assert set(manifest['status']) == {'done'}


def test_rows_of_earlier_batches_stay(folder, options, threads):
    remove_many(jobs_in(folder, ['a', 'b']), folder / 'out', cluster=threads, **options)
    manifest = remove_many(
        jobs_in(folder, ['d', 'b']), folder / 'out', cluster=threads, **options
    )
    assert list(manifest['output']) == ['d_source_free.fits', 'b_source_free.fits']
    written = Table.read(folder / 'out' / MANIFEST)
    assert [name[0] for name in written['output']] == ['d', 'b', 'a']
    assert set(written['status']) == {'done'}
