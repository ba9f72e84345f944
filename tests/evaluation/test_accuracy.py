from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from numpy.testing import assert_allclose, assert_array_equal
from photutils.aperture import CircularAperture, aperture_photometry
from scipy import ndimage

from csr_astro import NeuralBackgroundEstimator, get_instrument
from csr_astro.cli import main
from csr_astro.evaluation.accuracy import (
    background_errors,
    evaluate_accuracy,
    gaussian_errors,
    gaussian_fields,
    get_methods,
    injected_errors,
    snr_levels,
)
from csr_astro.evaluation.baselines import get_baselines
from csr_astro.evaluation.positions import (
    blank_positions,
    draw_positions,
    read_groups,
    read_positions,
)
from csr_astro.evaluation.statistics import (
    average_ratios,
    bright_bias,
    coverage,
    flux_ratios,
    robust_scatter,
    scatter_ratios,
    summarize,
)
from csr_astro.flags import BITS
from csr_astro.kriging.stationary import kriging_variance
from csr_astro.simulation.psf import encircled_energy, gaussian_profile, moffat_profile


@pytest.fixture(scope='module')
def groups():
    """Two groups of maps: smooth structure and noise, one of them with a gap."""
    rng = np.random.default_rng(4)
    maps = [
        10 + 30 * ndimage.gaussian_filter(rng.normal(size=(150, 170)), 5)
        + rng.normal(0, 0.2, (150, 170))
        for _ in range(3)
    ]
    maps[1][60:80, 100:120] = np.nan
    return {'first': maps[:2], 'second': maps[2:]}


class Oracle:
    """Says of the background that it is a known map, and a bit."""

    def __init__(self, truth=None, offset=0.0):
        self.truth, self.offset = truth, offset

    def estimate(self, image, sources, *, mask_radius):
        assert len(sources) == len(mask_radius)
        return SimpleNamespace(
            background=(image if self.truth is None else self.truth) + self.offset,
            flags=np.zeros(len(sources), dtype=int),
        )


# Positions


def test_positions_are_valid_places(groups):
    positions = draw_positions(groups, [5, 9], 20, seed=3)
    assert len(positions) == 2 * 2 * 20
    y, x = np.indices((150, 170))
    for row in positions:
        image = groups[row['group']][row['map']]
        distance = np.hypot(x - row['x'], y - row['y'])
        assert np.isfinite(image[distance <= 4]).all()
        assert np.isfinite(image[distance <= row['radius']]).mean() > 0.75


def test_positions_follow_from_the_seed(groups):
    first, again, other = (draw_positions(groups, [5], 9, seed=seed) for seed in (1, 1, 2))
    assert_array_equal(first['x'], again['x'])
    alone = draw_positions({'second': groups['second']}, [5], 9, seed=1)
    assert_array_equal(alone['x'], first['x'][first['group'] == 'second'])
    assert (first['x'] != other['x']).any()


def test_positions_are_read_back(groups, tmp_path):
    positions = draw_positions(groups, [5], 9, seed=7)
    positions.write(tmp_path / 'positions.ecsv')
    back = read_positions(tmp_path / 'positions.ecsv')
    assert back.meta['seed'] == 7
    for name in positions.colnames:
        assert_array_equal(back[name], positions[name])


def test_bad_positions_are_refused(groups, tmp_path):
    with pytest.raises(FileNotFoundError, match='no table of positions'):
        read_positions(tmp_path / 'none.ecsv')
    (tmp_path / 'text.ecsv').write_text('nothing', encoding='utf-8')
    with pytest.raises(ValueError, match='is no ECSV table'):
        read_positions(tmp_path / 'text.ecsv')
    Table({'x': [1.0], 'y': [2.0]}).write(tmp_path / 'few.ecsv')
    with pytest.raises(ValueError, match=r"lacks \['group', 'map', 'radius'\]"):
        read_positions(tmp_path / 'few.ecsv')
    positions = draw_positions(groups, [5], 2)
    with pytest.raises(TypeError, match='methods must be a dict'):
        background_errors(groups, positions, ['plane'])
    for wrong in (groups['first'], groups['first'][0]):
        with pytest.raises(TypeError, match='must be a dict of lists of maps'):
            draw_positions(wrong, [5], 2)
        with pytest.raises(TypeError, match='must be a dict of lists of maps'):
            background_errors(wrong, positions, {})
    plane = get_baselines(['plane'])
    with pytest.raises(ValueError, match="'second', which were not given"):
        background_errors({'first': groups['first']}, positions, plane)
    with pytest.raises(ValueError, match='are on 2 maps, 1 were given'):
        background_errors(
            {'first': groups['first'][:1]},
            Table({'group': ['first'], 'map': [1], 'radius': [5.0], 'x': [50.0], 'y': [50.0]}),
            plane,
        )
    off = positions[:1]
    off['x'] = 500.0
    with pytest.raises(ValueError, match='lies off map'):
        background_errors(groups, off, plane)


@pytest.mark.parametrize(
    ('radii', 'aperture', 'message'),
    [([0], 4, 'radii must be'), ([np.nan], 4, 'radii must be'), ([5], -1, 'positive radius')],
)
def test_bad_radii_are_refused(groups, radii, aperture, message):
    with pytest.raises(ValueError, match=message):
        draw_positions(groups, radii, 3, aperture=aperture)


def test_too_small_maps_say_so():
    with pytest.raises(ValueError, match='tiny: the maps have room for 0 discs'):
        draw_positions({'tiny': [np.zeros((6, 6))]}, [5], 3)


# Blank discs


def test_errors_are_sums_over_the_aperture(groups):
    positions = draw_positions(groups, [3, 9], 12)
    errors = background_errors(
        groups,
        positions,
        {'oracle': Oracle(), 'high': Oracle(offset=2.0)},
        apertures=(2.0, 4.0),
    )
    assert len(errors) == 2 * len(positions)
    assert_allclose(errors['oracle'], 0, atol=1e-9)
    small = np.array((errors['aperture'] == 2) | (errors['radius'] == 9))
    area = np.pi * np.array(errors['aperture']) ** 2
    whole = np.array([
        np.isfinite(
            groups[r['group']][r['map']][
                np.hypot(*np.ogrid[-r['y'] : 150 - r['y'], -r['x'] : 170 - r['x']]) <= r['radius']
            ]
        ).all()
        for r in errors
    ])
    assert_allclose(errors['high'][small & whole], 2 * area[small & whole])
    # The aperture reaches beyond the disc of 3 pixels, where the map is known.
    beyond = errors['high'][~small & whole]
    assert_allclose(beyond, 2 * 29, rtol=1e-9)
    image = groups['second'][0]
    rows = errors[(errors['group'] == 'second') & (errors['aperture'] == 4)]
    aperture = CircularAperture(np.column_stack([rows['x'], rows['y']]), 4)
    assert_allclose(rows['true'], aperture_photometry(image, aperture)['aperture_sum'])


def test_methods_see_no_pixel_of_any_disc(groups):
    seen = []

    def spy(values, valid, hole, x, y, radius):
        seen.append((values.copy(), valid.copy(), hole.copy(), x, y, radius))
        return np.zeros(hole.sum())

    positions = Table({
        'group': ['second'] * 2, 'map': [0, 0], 'radius': [5.0, 5.0],
        'x': [50.25, 92.0], 'y': [70.0, 70.0],
    })  # fmt: skip
    background_errors(groups, positions, {'spy': spy})
    values, valid, hole, x, y, _ = seen[0]
    yy, xx = np.indices(valid.shape)
    assert (x, y) == (48.25, 48)
    assert_array_equal(hole, np.hypot(xx - x, yy - y) <= 5)
    assert not valid[hole].any()
    # The neighbour is predicted at the same time.
    neighbour = np.hypot(xx - (48 + 42), yy - 48) <= 5
    assert not valid[neighbour].any()
    assert valid.sum() == valid.size - hole.sum() - neighbour.sum()
    expected = np.where(valid[48], groups['second'][0][70, 2:99], np.nan)
    assert_array_equal(values[48], expected)


def test_gaps_are_not_valid(groups):
    def spy(values, valid, hole, x, y, radius):
        del x, y, radius
        assert np.isfinite(values[valid]).all()
        assert np.isnan(values[~valid]).all()
        return np.full(hole.sum(), np.mean(values[valid]))

    positions = Table({
        'group': ['first'], 'map': [1], 'radius': [9.0], 'x': [95.0], 'y': [70.0],
    })  # fmt: skip
    errors = background_errors(groups, positions, {'spy': spy})
    assert np.isfinite(errors['spy'][0])


def test_network_is_measured_through_the_public_estimator(groups, weights):
    estimator = NeuralBackgroundEstimator(weights, orientations=1)
    positions = draw_positions({'second': groups['second']}, [6], 1, seed=2)
    errors = background_errors(groups, positions, {'network': estimator})
    image, place = groups['second'][0], [(positions['x'][0], positions['y'][0])]
    result = estimator.estimate(image, place, mask_radius=6)
    sums = [
        aperture_photometry(each, CircularAperture(place, 4))['aperture_sum'][0]
        for each in (result.background, image)
    ]
    assert_allclose(errors['network'], sums[0] - sums[1])


def test_what_was_not_predicted_is_nan(groups):
    class Silent(Oracle):
        def estimate(self, *args, **kwargs):
            result = super().estimate(*args, **kwargs)
            result.flags[:] = BITS['no_background']
            return result

    positions = draw_positions({'second': groups['second']}, [6], 2)
    assert np.isnan(background_errors(groups, positions, {'silent': Silent()})['silent']).all()


# Gaussian fields


def test_gaussian_fields_have_the_covariance():
    fields, covariances = gaussian_fields(40, fields=[(-2.5, 0.2)], size=64, seed=3)
    for name, images in fields.items():
        power = np.mean(np.abs(np.fft.fft2(images)) ** 2, axis=0) / 64**2
        expected = np.fft.fft2(covariances[name]).real
        assert_allclose(np.mean(power.ravel()[1:] / expected.ravel()[1:]), 1, atol=0.02)


def test_limit_is_the_closed_form_and_nobody_beats_it():
    fields = [(-3.0, 0.1)]
    peers = get_baselines(['annulus_median', 'plane'])
    errors = gaussian_errors(peers, radii=[6.0], n=40, fields=fields, seed=1)
    one = errors[errors['group'] == 'slope -3 noise 0.1']
    _, covariances = gaussian_fields(1, fields=fields)
    distance = np.hypot(*np.ogrid[-48:49, -48:49])
    weight = CircularAperture((48, 48), 4).to_mask(method='exact').to_image((97, 97))
    variance = kriging_variance(weight, distance > 6, covariances['slope -3 noise 0.1'])
    rms = np.sqrt(np.mean(np.square(one['limit'])))
    assert_allclose(rms, np.sqrt(variance), rtol=4 / np.sqrt(2 * 40))
    ratios = scatter_ratios(one, 'limit', ['annulus_median', 'plane'])
    assert (ratios['rms_ratio'] < 1 + 2 * ratios['rms_ratio_err']).all()
    # Of white noise nothing is predicted, and its own scatter is the limit.
    white = errors[errors['group'] == 'white noise']
    assert_allclose(white['limit'], -white['true'], atol=1e-9)


def test_gaussian_errors_are_repeated_from_positions():
    peers = get_baselines(['plane'])
    fields = [(-3.0, 0.1)]
    first = gaussian_errors(peers, radii=[5.0], n=4, fields=fields, seed=6)
    positions = first['group', 'map', 'radius', 'x', 'y']
    positions.meta['seed'] = 6
    again = gaussian_errors(peers, fields=fields, positions=positions)
    assert_array_equal(first['plane'], again['plane'])
    assert_array_equal(first['limit'], again['limit'])


# Injected sources


def test_injected_flux_is_recovered_by_who_knows_the_background(groups):
    truth = groups['second'][0]

    positions = Table({
        'group': ['second'], 'map': [0], 'radius': [9.0], 'x': [80.25], 'y': [70.0],
    })  # fmt: skip
    profile = gaussian_profile(3.5)
    errors = injected_errors(
        {'second': [truth]}, positions, {'known': Oracle(truth)}, profile, flux_levels=[50.0, 5e4]
    )
    assert_allclose(errors['known'], 0, atol=1e-6)
    fraction = errors['flux_aperture'] / errors['flux']
    assert_allclose(fraction, encircled_energy(profile, 4), rtol=0.01)
    table = flux_ratios(errors)
    assert_allclose(table[table['method'] == 'known']['ratio'], 1, atol=1e-6)
    instrument = get_instrument('generic')
    assert errors['snr'][1] > 300 > errors['snr'][0]
    assert errors['radius'][1] == instrument.mask_radii[0] > errors['radius'][0]


def test_annulus_of_the_instrument_is_compared(groups):
    positions = draw_positions({'second': groups['second']}, [9], 6, seed=5)
    errors = injected_errors(
        groups, positions, get_baselines(['plane']), gaussian_profile(3.5), levels=(20, 300)
    )
    assert {'plane', 'annulus'} <= set(errors.colnames)
    table = flux_ratios(errors)
    assert len(table) == 2 * 2
    # The fainter the source, the more the background counts.
    iqr = [table[table['method'] == 'annulus']['iqr'][i] for i in (0, 1)]
    assert iqr[0] > 5 * iqr[1]


def test_levels_are_snrs():
    image = np.random.default_rng(2).normal(3, 0.5, (200, 200))
    profile = gaussian_profile(3.5)
    positions = draw_positions({'noise': [image]}, [9], 30)
    flux = snr_levels([image], positions, profile, get_instrument('generic'), [10, 100])
    assert_allclose(flux[1] / flux[0], 10)
    peak = flux[0] * gaussian_profile(3.5)(0.0, 0.0) * 4 * np.log(2) / (np.pi * 3.5**2)
    # Averaging over the central pixel lowers the peak a little.
    assert_allclose(peak, 10 * 0.5, rtol=0.1)
    with pytest.raises(ValueError, match='do not scatter'):
        snr_levels([np.ones((200, 200))], positions, profile, get_instrument('generic'), [10])


def test_wings_outside_the_mask_bias_who_sees_only_the_rim():
    rng = np.random.default_rng(1)
    groups = {'noise': [rng.normal(0, 1, (300, 300))]}
    positions = draw_positions(groups, [12], 12)
    errors = injected_errors(
        groups, positions, get_baselines(['annulus_median']), moffat_profile(3.5, 1.8),
        levels=(20, 2000),
    )  # fmt: skip
    table = bright_bias(errors)
    rim, annulus = (table[table['method'] == m][0] for m in ('annulus_median', 'annulus'))
    for row in (rim, annulus):
        assert row['bias'] > 5 * row['bias_err']
    assert rim['n'] == 12
    assert len(bright_bias(errors, snr=1e9)) == 0


# Statistics


def make_errors(n=2000, **columns):
    errors = Table({'group': ['a'] * n, **columns})
    errors['radius'], errors['aperture'] = 5.0, 4.0
    return errors


def test_coverage_of_errors_that_are_right_and_that_are_half_as_large():
    rng = np.random.default_rng(3)
    error = rng.uniform(1, 5, 4000)
    values = rng.normal(0, error)
    errors = make_errors(4000, right=values, small=values, silent=values)
    errors['right_err'], errors['small_err'] = error, error / 2
    errors['right'][0], errors['right'][1] = 100.0, np.nan
    right, small = coverage(errors)
    assert (right['method'], right['n'], right['n_outliers']) == ('right', 3999, 1)
    assert (small['method'], small['n']) == ('small', 4000)
    # Of a normal distribution within 1, 2, 1/2 and 1 of its standard deviations.
    for row, expected in ((right, (0.6827, 0.9545, 1)), (small, (0.3829, 0.6827, 2))):
        for name, value in zip(('within_1_sigma', 'within_2_sigma', 'pull'), expected, strict=True):
            assert abs(row[name] - value) < 4 * row[f'{name}_err']
        assert row['within_1_sigma_err'] == pytest.approx(np.sqrt(0.22 / 4000), rel=0.2)


def test_coverage_resamples_positions_and_not_apertures():
    """Five apertures that err alike are one."""
    values = np.random.default_rng(4).normal(size=400)
    single = make_errors(400, network=values)
    single['map'], single['x'], single['y'] = 0, np.arange(400.0), 0.0
    single['network_err'] = 1.0
    many = single[np.repeat(np.arange(400), 5)]
    first, second = coverage(single)[0], coverage(many)[0]
    assert first['within_1_sigma'] == second['within_1_sigma']
    assert second['within_1_sigma_err'] == pytest.approx(first['within_1_sigma_err'], rel=0.15)


def test_summary_and_its_errors():
    rng = np.random.default_rng(0)
    values = rng.normal(0.7, 2, 2000)
    values[:3] = np.nan
    row = summarize(make_errors(plane=values))[0]
    good = values[3:]
    assert row['n'] == 1997
    assert_allclose(row['scatter'], 1.4826 * np.median(np.abs(good - np.median(good))))
    assert_allclose(row['rms'], np.sqrt(np.mean(good**2)))
    assert_allclose([row['bias'], row['median']], [good.mean(), np.median(good)])
    # Textbook errors for normal errors.
    n = len(good)
    assert_allclose(row['bias_err'], 2 / np.sqrt(n), rtol=0.15)
    assert_allclose(row['median_err'], 2 * np.sqrt(np.pi / 2 / n), rtol=0.2)
    assert_allclose(row['scatter_err'], 2 * 1.167 / np.sqrt(n), rtol=0.2)


def test_ratios_are_taken_on_the_same_positions():
    rng = np.random.default_rng(1)
    base = rng.normal(0, 1, 500)
    errors = make_errors(500, network=base, same=2 * base, other=rng.normal(0, 2, 500))
    ratios = scatter_ratios(errors, 'network', ['same', 'other'])
    assert_allclose(ratios['scatter_ratio'][0], 0.5)
    assert_allclose(ratios['scatter_ratio_err'][0], 0, atol=1e-12)
    assert abs(ratios['rms_ratio'][1] - 0.5) < 4 * ratios['rms_ratio_err'][1]
    assert ratios['rms_ratio_err'][1] > 0.01
    errors['same'][:490] = np.nan
    ratios = scatter_ratios(errors, 'network', ['same'])
    assert ratios['n'][0] == 10
    assert_allclose(ratios['scatter_ratio'][0], 0.5)


def test_averages_of_ratios():
    ratios = Table({
        'group': ['a', 'b'], 'method': ['network'] * 2, 'reference': ['lpi'] * 2,
        'scatter_ratio': [0.8, 1.0], 'scatter_ratio_err': [0.3, 0.4],
        'rms_ratio': [0.5, 0.7], 'rms_ratio_err': [0.1, 0.1],
    })  # fmt: skip
    row = average_ratios(ratios)[0]
    assert_allclose([row['scatter_ratio'], row['scatter_ratio_err']], [0.9, 0.25])
    assert row['scatter_ratio_worst'] == 1.0
    assert row['n_ratios'] == 2
    # A method that gave nothing in a group.
    ratios.add_row(['c', 'network', 'lpi', np.nan, np.nan, np.nan, np.nan])
    assert list(average_ratios(ratios)[0]) == list(row)


def test_method_without_any_prediction_has_a_row():
    row = summarize(make_errors(5, plane=np.full(5, np.nan)))[0]
    assert row['n'] == 0
    assert np.isnan(row['scatter'])


def test_robust_scatter_ignores_outliers():
    values = np.random.default_rng(1).normal(0, 3, 10001)
    values[:50] = 1e9
    assert_allclose(robust_scatter(values), 3, rtol=0.05)
    assert_allclose(robust_scatter([[1, 2, 3], [1, 1, np.nan]]), [1.4826, 0])


# All in one go


def test_real_maps_are_read_in_groups(shared_data):
    folder = shared_data / 'data' / 'maps' / 'validation'
    groups = read_groups([folder / 'higal250_tile01.fits', folder / 'higal250_tile09.fits',
                          folder / 'ext_ophiuchus.fits'])  # fmt: skip
    assert list(groups) == ['higal250', 'ext_ophiuchus']
    assert len(groups['higal250']) == 42 + 37
    assert groups['ext_ophiuchus'][0].shape == (317, 349)
    archive = next((shared_data / 'data' / 'pacs_gamma_dra').glob('*MAPB_blue*'))
    assert [len(images) for images in read_groups([archive]).values()] == [1]


def test_real_maps_are_measured(shared_data):
    folder = shared_data / 'data' / 'maps' / 'validation'
    groups = read_groups([folder / 'higal250_tile01.fits'])
    places = blank_positions(groups['higal250'], 30, 9, 1)
    assert len(places) == 30
    tables = evaluate_accuracy(
        groups, get_methods(['lpi', 'annulus_median']), n=30, radii=[9.0]
    )
    row = tables['blank_ratios'][0]
    assert (row['method'], row['reference'], row['n']) == ('lpi', 'annulus_median', 30)
    assert 0 < row['rms_ratio'] < 1.2


@pytest.fixture
def map_path(tmp_path, groups):
    path = tmp_path / 'cloud.fits'
    fits.PrimaryHDU(groups['second'][0]).writeto(path)
    return path


def test_command_writes_tables_that_repeat(map_path, weights, tmp_path, capsys):
    command = ['evaluate', 'accuracy', str(map_path), '--methods', 'network,annulus_median',
               '--weights', str(weights), '--orientations', '1', '--number', '5']  # fmt: skip
    assert main([*command, '--radii', '5', '--inject', '-o', str(tmp_path / 'one')]) == 0
    printed = capsys.readouterr().out
    assert 'blank_ratios:' in printed
    assert 'bright:' in printed
    names = sorted(path.name for path in (tmp_path / 'one').iterdir())
    assert names == [
        'blank.ecsv', 'blank_averages.ecsv', 'blank_coverage.ecsv', 'blank_errors.ecsv',
        'blank_ratios.ecsv', 'bright.ecsv', 'injected.ecsv', 'injected_coverage.ecsv',
        'injected_errors.ecsv', 'positions.ecsv',
    ]  # fmt: skip
    again = ['--positions', str(tmp_path / 'one' / 'positions.ecsv'), '-o', str(tmp_path / 'two')]
    assert main(command + again) == 0
    for name in ('blank_errors', 'injected_errors'):
        first, second = (
            Table.read(tmp_path / folder / f'{name}.ecsv') for folder in ('one', 'two')
        )
        for column in ('x', 'network', 'annulus_median'):
            assert_array_equal(first[column], second[column])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'give maps, or --gaussian'),
        (['none.fits'], "no such file: 'none.fits'"),
        (['MAP', '--methods', 'magic'], 'a method must be one of'),
        (['MAP', '--weights', 'none'], 'none'),
        (['MAP', '--radii', '0'], 'radii must be'),
        (['MAP', '--number', '1000000'], 'have room for'),
        (['MAP', '--number', '0'], 'number of positions must be'),
        (['MAP', '--positions', 'none.ecsv'], 'no table of positions'),
        (['MAP', '--inject', '--instrument', 'eye'], 'instrument must be one of'),
        (['MAP', '--flux-levels', '5'], 'are of injected sources, and need --inject'),
        (['--gaussian', '--inject'], 'give maps to put sources on'),
    ],
)
def test_bad_command_is_one_sentence(arguments, message, map_path, capsys):
    arguments = [str(map_path) if each == 'MAP' else each for each in arguments]
    if '--methods' not in arguments and '--weights' not in arguments:
        arguments += ['--methods', 'plane']
    assert main(['evaluate', 'accuracy', *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_pacs_psf_is_injected(shared_data, groups):
    psf = shared_data / 'data' / 'psf' / 'pacs70_vesta.fits'
    tables = evaluate_accuracy(
        {'second': groups['second']}, get_methods(['plane']), n=3, radii=[9.0], inject=True,
        psf=psf, instrument='pacs-scanmap-blue', levels=(60,), apertures=(3.0, 5.0),
    )  # fmt: skip
    errors = tables['injected_errors']
    fraction = np.array(errors['flux_aperture'] / errors['flux'])
    band = get_instrument('pacs-scanmap-blue')
    # The image ends at 18 arcsec, so that its sum is that of fewer wings; and the map's pixels
    # are wider than its own.
    expected = band.enclosed_energy([3, 5], 'vesta') / band.enclosed_energy(18 / 1.6, 'vesta')
    assert_allclose(fraction.reshape(3, 2), np.broadcast_to(expected, (3, 2)), rtol=0.05)


def test_wide_annulus_fits_into_the_window(groups):
    positions = draw_positions({'second': groups['second']}, [9], 1, seed=5)
    errors = injected_errors(
        groups, positions, {}, gaussian_profile(11), instrument=get_instrument(fwhm=11.0),
        levels=(20,),
    )  # fmt: skip
    assert np.isfinite(errors['annulus']).all()
