from dataclasses import replace

import pytest
from astropy import units as u
from astropy.io import fits
from helpers_batch import jobs_in, times, write_catalog

from csr_astro import get_instrument
from csr_astro.batch import remove_many
from csr_astro.nn.inpainter import Inpainter
from csr_astro.nn.unet import PartialConvUNet
from csr_astro.nn.weights import save_weights


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'weights': 'nothing'}, 'weights must be one of'),
        ({'preset': 'nothing'}, 'preset must be one of'),
        ({'photometry': {'apertures': -1}}, 'radi'),
        ({'split': 0}, 'split must be a number from 1 up, got 0'),
        ({'instrument': 'nothing', 'fwhm': None}, 'nothing'),
    ],
)
def test_wrong_arguments_are_one_error(folder, options, threads, arguments, message):
    with pytest.raises(ValueError, match=message):
        remove_many(jobs_in(folder), folder / 'out', cluster=threads, **(options | arguments))
    assert not (folder / 'out').exists()


def other_weights(folder):
    path = folder / 'other.safetensors'
    save_weights(path, Inpainter(PartialConvUNet(0.125)))
    return path


@pytest.mark.parametrize(
    ('change', 'redone'),
    [
        ({'orientations': 2}, 'abcd'),
        ({'mask_radius': 6.0}, 'abcd'),
        ({'mask_radius': 6 * u.pix}, 'abcd'),
        ({'errors': False}, 'abcd'),
        ({'photometry': {'apertures': 4}}, 'abcd'),
        ({'overwrite': True}, 'abcd'),
        ({'batch_size': 2, 'device': 'cpu', 'progress': False}, ''),
        ('catalog', 'abcd'),
        ('map', 'b'),
        ('weights', 'abcd'),
    ],
)
def test_restart_redoes_what_changed(folder, options, threads, change, redone, tmp_path):
    out = folder / 'out'
    arguments = {**options, 'cluster': threads}
    remove_many(jobs_in(folder), out, **arguments)
    before = times(out)
    if change == 'catalog':
        write_catalog(folder / 'catalog.ecsv', [(40, 50)])
    elif change == 'map':
        fits.setval(folder / 'b.fits', 'OBJECT', value='another')
    elif change == 'weights':
        arguments['weights'] = other_weights(tmp_path)
    else:
        arguments |= change
    manifest = remove_many(jobs_in(folder), out, **arguments)
    assert set(manifest['status']) == {'done'}
    after = times(out)
    assert {name[0] for name in after if after[name] != before.get(name)} == set(redone)


def test_any_change_of_an_instrument_is_one(folder, weights, threads):
    def run(instrument):
        arguments = {'weights': weights, 'orientations': 1, 'cluster': threads}
        remove_many(jobs_in(folder, ['a']), folder / 'out', instrument=instrument, **arguments)
        return times(folder / 'out')

    blue = get_instrument('pacs-scanmap-blue')
    before = run(blue)
    assert run(blue) == before
    wider = replace(blue, mask_radii=tuple(1.5 * radius for radius in blue.mask_radii))
    assert run(wider) != before


def test_default_that_is_named_changes_nothing(folder, options, threads):
    remove_many(jobs_in(folder), folder / 'out', cluster=threads, **options)
    before = times(folder / 'out')
    named = options | {'preset': 'default', 'instrument': None, 'centroid_func': None}
    remove_many(jobs_in(folder), folder / 'out', cluster=threads, **named)
    assert times(folder / 'out') == before
