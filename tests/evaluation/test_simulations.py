"""The report on many simulations."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from numpy.testing import assert_allclose

from csr_astro.evaluation.simulations import (
    find_simulations,
    injected_flux,
    measure_simulations,
    summarize_fields,
)
from csr_astro.simulation.field import synthetic_map
from csr_astro.simulation.write import write_simulations


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Two fields at two levels, as the command writes them."""
    folder = tmp_path_factory.mktemp('simulated')
    header = fits.Header({'INSTRUME': 'PACS', 'WAVELNTH': 70, 'OBS_MODE': 'Scan map'})
    fields = [
        {'name': name, 'data': synthetic_map('power-law', (150, 150), number), 'header': header}
        for number, name in enumerate(('calm', 'wild'))
    ]
    write_simulations(folder, fields, levels=[2000, 20_000], number=4, seed=1)
    return folder


@pytest.fixture(scope='module')
def table(folder):
    return measure_simulations(find_simulations(folder), apertures=[4, 6], orientations=1)


def test_simulations_are_found_beside_their_tables(folder):
    found = find_simulations(folder)
    assert [each.name for each in found] == [
        'calm_02000mJy', 'calm_20000mJy', 'wild_02000mJy', 'wild_20000mJy',
    ]  # fmt: skip
    assert {each.table.suffix for each in found} == {'.ecsv'}
    assert find_simulations(*[each.map for each in found]) == found
    with pytest.raises(ValueError, match='has no table of injected sources'):
        find_simulations(folder / 'calm_truth.fits')
    with pytest.raises(ValueError, match='there are no simulations'):
        find_simulations()


def test_bright_fluxes_come_out_right(table):
    assert len(table) == 2 * 4 * 4
    assert set(table['instrument']) == {'pacs-scanmap-blue'}
    bright = table[(table['injected'] == 20_000)]
    # Any background does: the sources are that bright.
    assert_allclose(bright['network'], 1, atol=0.02)
    assert_allclose(bright['annulus'], 1, atol=0.02)


def test_each_field_has_a_row(table):
    fields = summarize_fields(table, aperture=6)
    assert list(fields['field']) == ['calm', 'wild']
    for name, value in (('n_sources', 4), ('lowest', 2000), ('highest', 20_000),
                        ('total_sources', 8), ('n_simulations', 2), ('aperture', 6)):
        assert list(fields[name]) == [value] * 2, name
    here = table[(table['field'] == 'calm') & (table['aperture'] == 6)]
    assert_allclose(fields['annulus_ratio'][0], np.median(here['annulus']))


def test_tables_of_the_published_tool_are_in_millijansky(folder, tmp_path):
    """FIELD_simN.fits with FIELD_simN.csv: ra, dec, flux."""
    for end in ('.fits', '.csv'):
        path = tmp_path / f'1342_L2_5_sim0{end}'
        path.write_bytes((folder / f'calm_20000mJy{end}').read_bytes())
    with fits.open(tmp_path / '1342_L2_5_sim0.fits', mode='update') as hdus:
        for hdu in hdus:
            hdu.header.remove('CSRFIELD', ignore_missing=True)
    measured = measure_simulations(
        find_simulations(tmp_path), apertures=[6], orientations=1
    )
    assert set(measured['field']) == {'1342_L2_5'}
    assert set(measured['injected']) == {20_000}
    # By the energy of the Vesta image, which is not quite that of the model.
    assert_allclose(measured['network'], 1, atol=0.03)


def test_fluxes_without_unit_are_in_millijansky():
    assert injected_flux(Table({'ra': [1.0]})) is None
    assert str(injected_flux(Table({'flux': [2.0]})).unit) == 'mJy'


def test_command_writes_the_report(folder, tmp_path, weights, capsys):
    pytest.importorskip('matplotlib')
    from csr_astro.cli import main

    arguments = [
        'evaluate', 'simulations', str(folder), '-o', str(tmp_path / 'report'),
        '--weights', str(weights), '--orientations', '1', '--apertures', '4,6',
    ]  # fmt: skip
    assert main(arguments) == 0
    written = {path.name for path in (tmp_path / 'report').iterdir()}
    assert written == {
        'report.html', 'fluxes.ecsv', 'fields.ecsv',
        'flux_ratios_pacs-scanmap-blue.png', 'flux_ratios_pacs-scanmap-blue.pdf',
        'flux_ratios_pacs-scanmap-blue.ecsv',
    }  # fmt: skip
    summary = Table.read(tmp_path / 'report' / 'flux_ratios_pacs-scanmap-blue.ecsv')
    assert set(summary['level']) == {2000, 20_000}
    assert set(summary['n']) == {8}
    assert main(arguments) == 1
    assert 'exists; give --overwrite' in capsys.readouterr().err
