"""Rows keep what identifies them in the caller's catalogue."""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData
from astropy.table import Column, MaskedColumn, QTable, Table
from helpers_removal import SOURCES, make_sky, make_wcs
from numpy.testing import assert_array_equal
from regions import PixCoord, PointPixelRegion

from csr_astro import InpaintedAperturePhotometry
from csr_astro.evaluation.source_strips import row_strip, source_strip
from csr_astro.tables import write_table

X, Y = np.transpose(SOURCES)


@pytest.fixture(scope='module')
def ccd():
    return CCDData(make_sky(), unit='Jy/pixel', wcs=make_wcs())


@pytest.fixture(scope='module')
def estimator(make_estimator):
    return make_estimator(fwhm=3.3)


def catalog(ids=('c', 'a 1', 'b', 'd', 'e'), name='designation'):
    return Table(
        {
            name: ids,
            'x': X,
            'y': Y,
            'flux': X * u.mJy,
            'Snr': [1, 2, 3, 4, 5],
            'ra': np.ones(5),
            'vector': np.arange(10).reshape(5, 2),
            'z': MaskedColumn(Y, mask=[0, 1, 0, 0, 0]),
        }
    )


@pytest.mark.parametrize('ids', [('c', 'a 1', 'b', 'd', 'e'), (7, 3, 2**40, 0, -1)])
@pytest.mark.parametrize('name', ['id', 'label', 'NUMBER', 'Source_ID'])
def test_ids_are_those_of_the_catalogue(estimator, ccd, ids, name):
    result = estimator.estimate(ccd, catalog(ids, name))
    table = InpaintedAperturePhotometry(4, estimator=estimator)(result)
    for found in (result.sources, table):
        assert_array_equal(found['id'], ids)
        assert found['id'].dtype.kind == np.array(ids).dtype.kind
        assert found.meta['columns'] == 'x, y (pixels)'
        assert found.meta['id_column'] == name
    assert 'Snr' not in result.sources.colnames


def test_ids_are_counted_only_without_a_catalogue(estimator, ccd):
    result = estimator.estimate(ccd, SOURCES)
    assert_array_equal(result.sources['id'], [1, 2, 3, 4, 5])
    assert not {'columns', 'id_column'} & set(result.sources.meta)


def test_rows_passed_on_keep_their_ids(estimator, ccd):
    result = estimator.estimate(ccd, catalog())
    again = estimator.estimate(ccd, result.sources[[3, 1]])
    assert_array_equal(again.sources['id'], ['d', 'a 1'])
    counted = estimator.estimate(ccd, SOURCES)
    again = estimator.estimate(ccd, counted.sources[[3, 1]])
    assert_array_equal(again.sources['id'], [4, 2])
    table = InpaintedAperturePhotometry(4, estimator=estimator)(ccd, counted.sources[[3, 1]])
    assert_array_equal(table['id'], [4, 2])
    assert again.sources.meta['columns'] == 'sky_center (icrs)'


def test_methods_take_ids(estimator, ccd):
    whole = estimator.estimate(ccd, SOURCES)
    named = estimator.estimate(ccd, catalog())
    assert_array_equal(named.covariance('a 1').matrix, whole.covariance(2).matrix)
    assert_array_equal(named.covariance('c', 'a 1'), whole.covariance(1, 2))
    assert named.cutouts('b')[0] == whole.cutouts(3)[0]
    assert source_strip(named, 'b') == source_strip(whole, 3)
    with pytest.raises(
        ValueError, match="no source with id 'f'; ids are 'c', 'a 1', 'b', 'd', 'e'"
    ):
        named.cutouts('f')
    with pytest.raises(ValueError, match='no source with id 2'):
        named.covariance(2)


def test_duplicate_ids_are_an_error_only_where_one_is_asked_for(estimator, ccd):
    result = estimator.estimate(ccd, catalog((7, 7, 8, 9, 10)))
    assert_array_equal(result.sources['id'], [7, 7, 8, 9, 10])
    assert len(result.cutouts(8)) == 2
    assert row_strip(result, 1)[0]
    for method in (result.covariance, result.cutouts, result.plot_source):
        with pytest.raises(ValueError, match='2 sources have the id 7, rows 0, 1: give each an id'):
            method(7)


def test_columns_are_kept_on_request_with_a_prefix_where_they_clash(estimator, ccd):
    given = catalog(name='id')
    given['flux'].description = 'as published'
    result = estimator.estimate(ccd, given, keep=True)
    table = InpaintedAperturePhotometry(4, estimator=estimator)(ccd, given, keep=True)
    assert result.sources.colnames[-7:] == ['x', 'y', 'flux', 'catalog_Snr', 'ra', 'vector', 'z']
    kept = ['x', 'y', 'catalog_flux', 'catalog_Snr', 'ra', 'vector', 'z']
    assert table.colnames[-7:] == kept
    assert_array_equal(table['catalog_flux'], X * u.mJy)
    assert table['catalog_flux'].info.description == 'as published'
    assert_array_equal(np.ma.getmaskarray(np.ma.asarray(given['z'])), [0, 1, 0, 0, 0])
    assert given.colnames == catalog(name='id').colnames


def test_labels_of_regions_are_ids_of_the_result(estimator, ccd):
    regions = [
        PointPixelRegion(PixCoord(x, y), meta={'text': f's{i}'}) for i, (x, y) in enumerate(SOURCES)
    ]
    assert_array_equal(estimator.estimate(ccd, regions).sources['id'], [f's{i}' for i in range(5)])


@pytest.mark.parametrize('suffix', ['ecsv', 'csv', 'fits', 'vot', 'xml'])
def test_kept_columns_are_written_in_every_format(estimator, ccd, tmp_path, suffix):
    given = catalog()
    given['none'] = Column([None] * 5, dtype=object)
    given['words'] = Column(['a', None, 'b', '', 'c'], dtype=object)
    given['bad'] = Column(X, unit=u.Unit('furlongs/fortnite', parse_strict='silent'))
    result = estimator.estimate(ccd, given, keep=True)
    path = tmp_path / f'table.{suffix}'
    write_table(path, result.sources)
    found = Table.read(path)
    assert_array_equal(found['designation'], given['designation'])
    assert_array_equal(found['catalog_Snr'], given['Snr'])
    assert 'none' not in found.colnames
    # The position on the sky does not replace a column of the catalogue.
    assert_array_equal(found['ra'], np.ones(5))
    if suffix == 'csv':
        assert_array_equal(found['vector_2'], given['vector'][:, 1])
        assert {'sky_center_ra', 'sky_center_dec'} <= set(found.colnames)


def test_catalogue_of_photutils_is_kept(estimator, ccd):
    table = QTable({'label': [5, 2], 'x_centroid': X[:2], 'y_centroid': Y[:2]})
    table['sky_centroid'] = np.array([None, None])
    result = estimator.estimate(ccd, table, keep=True)
    assert_array_equal(result.sources['id'], [5, 2])
    assert 'sky_centroid' not in result.sources.colnames
