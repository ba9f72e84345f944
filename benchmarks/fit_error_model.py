"""Fit the coefficients of csr_astro/data/error_model.toml.

Behind discs on maps, without sources and with injected ones, and in Gaussian fields, the errors
that the network makes are compared with those that it would make in a Gaussian field, by what
distinguishes the place from one. What is fitted is the scale of Student's t distribution with 15
degrees of freedom, in which no single disc decides.

example: python benchmarks/fit_error_model.py maps/train
"""

import argparse

import numpy as np
from photutils.aperture import CircularAperture
from scipy import optimize

from csr_astro import NeuralBackgroundEstimator, get_instrument
from csr_astro.cutouts import extract
from csr_astro.evaluation.accuracy import gaussian_fields
from csr_astro.evaluation.positions import draw_positions, read_groups, separate_positions
from csr_astro.images import parse_image
from csr_astro.simulation.inject import inject_sources
from csr_astro.simulation.psf import instrument_profile
from csr_astro.uncertainty import aperture_weights

RADII = (4.5, 6.0, 8.0, 10.5, 13.0)
APERTURES = (3.0, 4.0, 5.0, 6.0, 8.0)
DEGREES = 15.0
RIDGE = 1e-3


def samples(result, truth):
    """Rows of (error, structure variance, noise variance, features...) of sums in apertures."""
    rows = []
    background = np.asarray(result.background)
    for i, mask in enumerate(result.source_masks):
        if mask is None:
            continue
        y, x = mask.on_map()
        known = np.isfinite(truth[y, x])
        center = result.sources['x_center'][i], result.sources['y_center'][i]
        weights = known * np.array([
            aperture_weights(CircularAperture(center, a), x, y, 'exact')
            for a in APERTURES if a <= mask.radius + 0.5
        ])
        structure, noise, features = result.errors.variance_parts(i, weights)
        if features is None:
            continue
        error = weights @ np.where(known, background[y, x] - truth[y, x], 0)
        rows += [
            (*row, *features) for row in zip(error, structure, noise, strict=True) if row[1] > 0
        ]
    return rows


def measure(estimator, image, x, y, radius, rng, *, profile=None):
    """Samples behind discs of one radius, or behind injected sources with masks by their SNR."""
    rows = []
    for members in separate_positions(x, y, 30 + 2 * radius):
        px, py, data, radii = x[members], y[members], image, radius
        if profile is not None:
            px, py = (p + rng.uniform(-0.5, 0.5, len(p)) for p in (px, py))
            scatter = np.nanstd(extract(parse_image(image), px, py, 41), axis=(1, 2))
            # Peaks of about 2 to 2000 times the scatter.
            flux = 30 * scatter * 10 ** rng.uniform(0.3, 3.3, len(px))
            data = inject_sources(image, px, py, flux, profile)
            radii = None
        rows += samples(
            estimator.estimate(data, np.column_stack([px, py]), mask_radius=radii), image
        )
    return rows


def collect(estimator, injecting, profile, groups, n, seed):
    """Samples of every group of maps."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, images in groups.items():
        rows = []
        for radius in (*RADII, None):
            try:
                chosen = draw_positions({name: images}, [radius or RADII[2]], n, seed=seed)
            except ValueError as error:
                # Islands of sky that are smaller than a disc with its surroundings.
                print(error, flush=True)
                continue
            for number in np.unique(chosen['map']):
                part = chosen[chosen['map'] == number]
                x, y = np.array(part['x'], dtype=float), np.array(part['y'], dtype=float)
                if radius is None:
                    rows += measure(injecting, images[number], x, y, 30.0, rng, profile=profile)
                else:
                    rows += measure(estimator, images[number], x, y, radius, rng)
        found[name] = np.array(rows)
        print(f'{name}: {len(rows)} sums', flush=True)
    return found


def fit(found):
    """Constant and coefficients; every group counts by the square root of its samples."""
    rows = np.vstack(list(found.values()))
    weight = np.concatenate([np.full(len(part), len(part) ** -0.5) for part in found.values()])
    weight /= weight.mean()
    error, structure, noise = rows[:, :3].T
    features = np.column_stack([np.ones(len(rows)), rows[:, 3:]])

    def loss(parameters):
        variance = structure * np.exp(2 * np.clip(features @ parameters, -3, 3)) + noise
        tail = (DEGREES + 1) / 2 * np.log1p(error**2 / (variance * DEGREES))
        ridge = RIDGE * np.sum(parameters[1:] ** 2)
        return np.mean(weight * (0.5 * np.log(variance / structure) + tail)) + ridge

    return optimize.minimize(loss, np.zeros(features.shape[1])).x


def report(found, parameters):
    """Print how often the errors are covered."""
    for name, part in found.items():
        features = np.column_stack([np.ones(len(part)), part[:, 3:]])
        variance = part[:, 1] * np.exp(2 * features @ parameters) + part[:, 2]
        pull = np.abs(part[:, 0]) / np.sqrt(variance)
        print(f'{name:34s} {np.mean(pull <= 1):.3f} {np.mean(pull <= 2):.3f}')


def main():
    """Collect, fit, report, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('maps', nargs='+', help='FITS files and folders of the training maps')
    parser.add_argument('--weights', default='default')
    parser.add_argument('--number', type=int, default=14, help='discs per map kind and radius')
    parser.add_argument('--seed', type=int, default=3)
    args = parser.parse_args()
    estimator = NeuralBackgroundEstimator(args.weights, fwhm=3.5)
    # Sources whose wings the estimator does not know.
    instrument = get_instrument('pacs-scanmap-blue')
    injecting = NeuralBackgroundEstimator(args.weights, fwhm=instrument.fwhm)
    groups = read_groups(args.maps) | gaussian_fields(2, seed=args.seed)[0]
    found = collect(
        estimator, injecting, instrument_profile(instrument), groups, args.number, args.seed
    )
    parameters = fit(found)
    report(found, parameters)
    print(f'constant = {parameters[0]:.3f}')
    print(f'coefficients = [{", ".join(f"{value:.3f}" for value in parameters[1:])}]')


if __name__ == '__main__':
    main()
