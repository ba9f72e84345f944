import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from numpy.testing import assert_allclose, assert_array_equal


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
    assert len(lines) == len(table) + 4
    assert lines[-3].startswith('network: median error')
    assert lines[-2].startswith('annulus: median error')
    assert all(name in lines[-1] for name in ('demo.fits', 'demo.ecsv', 'demo.png'))
