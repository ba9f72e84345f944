"""Tests of the files and the meta of tables."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from csr_astro.tables import TABLE_FORMATS, fits_meta, printable, versions, write_table


@pytest.fixture
def table():
    table = QTable({'id': [1, 2], 'flux': [3.5, np.nan] * u.Jy})
    table['sky_center'] = SkyCoord([10.5, 11] * u.deg, [-5, 6] * u.deg)
    table.meta.update({'weights': 'default', 'weights_sha256': 64 * 'a', 'apertures': [5, 6]})
    return table


@pytest.mark.parametrize('suffix', TABLE_FORMATS)
def test_numbers_are_read_back_as_they_were_written(table, tmp_path, suffix):
    path = tmp_path / f'sources{suffix}'
    path.write_text('older')
    write_table(path, table)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    found = QTable.read(path, format=TABLE_FORMATS[suffix])
    assert list(found['id']) == [1, 2]
    # CSV has no place for units but the names.
    flux = u.Quantity(found['flux [Jy]' if suffix == '.csv' else 'flux']).value
    assert flux[0] == 3.5
    assert np.isnan(np.ma.filled(flux[1], np.nan))
    if suffix == '.ecsv':
        assert found['sky_center'].separation(table['sky_center']).max() < 1e-9 * u.arcsec
        assert found.meta == table.meta
    else:
        assert list(u.Quantity(found['ra']).value) == [10.5, 11]
        assert list(u.Quantity(found['dec']).value) == [-5, 6]
    # The table itself is as it was.
    assert table.colnames == ['id', 'flux', 'sky_center']


@pytest.mark.parametrize('name', ['sources', 'sources.txt', 'sources.fits.gz'])
def test_table_of_an_unknown_format_is_refused(table, tmp_path, name):
    with pytest.raises(ValueError, match=r'must end in one of .*by which its format is chosen'):
        write_table(tmp_path / name, table)
    assert list(tmp_path.iterdir()) == []


def test_header_holds_plain_text_under_short_names(table):
    meta = fits_meta(table.meta)
    assert meta == {'weights': 'default', 'sha256': 64 * 'a'}
    assert printable('größer\nals 5') == 'gr??er als 5'
    assert printable(5.5) == 5.5


def test_versions_are_those_of_the_packages():
    found = versions()
    assert found['numpy'] == np.__version__
    assert set(found) >= {'csr_astro', 'astropy', 'photutils', 'torch'}
