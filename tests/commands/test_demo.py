import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from numpy.testing import assert_allclose, assert_array_equal

from csr_astro.commands.demo import _coverage
from csr_astro.demo import judge, measure_field, plot_demo


def test_demo_writes_and_prints(run, tmp_path):
    pytest.importorskip('matplotlib')
    folder = tmp_path / 'new' / 'folder'
    code, out, _ = run('demo', '--output', folder)
    assert code == 0
    assert {path.name for path in folder.iterdir()} == {'demo.fits', 'demo.ecsv', 'demo.png'}
    table = QTable.read(folder / 'demo.ecsv')
    good = np.array(table['injected'] > 100)
    assert_allclose(np.median((table['flux'] / table['injected'])[good]), 1, atol=0.1)
    assert (folder / 'demo.png').read_bytes()[:4] == b'\x89PNG'
    with fits.open(folder / 'demo.fits') as hdus:
        assert [hdu.name for hdu in hdus[1:]] == ['IMAGE', 'SOURCE_FREE', 'TRUTH', 'CSR_MASK']
        kept = hdus['CSR_MASK'].data == 0
        assert_array_equal(hdus['SOURCE_FREE'].data[kept], hdus['IMAGE'].data[kept])
    lines = out.splitlines()
    assert {'injected', 'measured', 'ratio'} <= set(lines[0].split())
    assert len(lines) == len(table) + 6
    summary = judge(table)
    for row, line in zip(summary, lines[-4:-2], strict=True):
        words = line.split()
        assert words[0] == row['method']
        assert float(words[1]) == pytest.approx(row['scatter'], abs=0.01)
        assert words[3:] == [f'{row[f"within_{k}_sigma"]:.0%}' for k in (1, 2)]
    ratio = summary['scatter'][0] / summary['scatter'][1]
    assert lines[-2].startswith(f'verdict: errors scatter {ratio:.2f} times')
    assert all(name in lines[-1] for name in ('demo.fits', 'demo.ecsv', 'demo.png'))


def test_verdict_tells_errors_that_are_too_small_or_too_large():
    assert _coverage(0.7, 40).startswith('hold (70% of the fluxes')
    assert 'too small' in _coverage(0.3, 40)
    assert 'too large' in _coverage(0.95, 400)


def test_figure_shows_every_flux_and_the_verdict():
    pytest.importorskip('matplotlib')
    result, table = measure_field(seed=3)
    figure = plot_demo(result, table)
    panels = [ax for part in figure.subfigs for ax in part.axes if 'injected' in ax.get_xlabel()]
    for ax, row in zip(panels, judge(table), strict=True):
        assert ax.get_title().startswith(f'{row["method"]}: scatter {row["scatter"]:.1f}')
        assert len(ax.lines[1].get_xdata()) == len(table)
