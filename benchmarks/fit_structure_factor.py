"""Coefficients of csr_astro.fitting.calibration, from fluxes fitted on empty places of maps.

The PSF is fitted where no source is: what comes out is the error. Maximum likelihood of Student's t
gives how its scale depends on the mean square of fluxes on a ring around the place, and on the
number of blocks from which the variogram was measured. Coverages are those of groups left out.

example: OPENBLAS_NUM_THREADS=1 python benchmarks/fit_structure_factor.py \
         maps/train/*.fits
"""
# ruff: noqa: SLF001 - it looks into the fits of single groups

import argparse

import numpy as np
from scipy import optimize
from source_fitting import FWHM

from csr_astro.evaluation.positions import blank_positions, read_groups, separate_positions
from csr_astro.fitting import group_fit
from csr_astro.fitting.calibration import ring_features
from csr_astro.fitting.fit import FitOptions
from csr_astro.fitting.group_fit import GroupFit
from csr_astro.fitting.grouping import SourceGroup
from csr_astro.fitting.psf import pixel_psf
from csr_astro.fitting.scene import Scene
from csr_astro.images import parse_image
from csr_astro.simulation.psf import gaussian_profile

EXACT = FitOptions(position_error=0, width_error=0, profile_error=0, rounds=1)
FREEDOM = 6


class Recorder:
    """Takes the place of `structure_factor`: keeps its features and returns 1."""

    def __call__(self, *window):
        """Measure the features in a window."""
        self.features = ring_features(*window) or (0.0, 0.0)
        return 1.0


def measure(images, fwhm, n, rng):
    """Error of the flux, variances of structure and noise, and features, of each place."""
    recorder = group_fit.structure_factor = Recorder()
    psf, rows = pixel_psf(gaussian_profile(fwhm)), []
    places = blank_positions(images, n, 5.0, rng)
    for m in np.unique(places['map']):
        here = places[places['map'] == m]
        px, py = (here[k] + rng.uniform(-0.5, 0.5, len(here)) for k in ('x', 'y'))
        for members in separate_positions(px, py, 30):
            scene = Scene(parse_image(images[m]), px[members], py[members], psf, None, None, EXACT)
            scene.find_outliers()
            for i in range(len(members)):
                fit = GroupFit(scene, SourceGroup(0, np.array([i]), np.zeros(0, dtype=int)))
                if fit.weights is None:
                    continue
                template = fit._templates()[0][0, 0]
                solved = np.linalg.solve(fit._covariance, template)
                weights = solved / (solved @ template)
                noise = weights**2 @ fit._own_variance
                structure = weights @ fit._covariance @ weights - noise
                rows.append([weights @ fit._residual(), structure, noise, *recorder.features])
    return np.array(rows)


def variance(rows, coefficients):
    """Variance of the fluxes with the structure scaled."""
    constant, slope, few = coefficients
    scale = np.exp(2 * np.clip(constant + slope * rows[:, 3] + few * rows[:, 4], -4, 4))
    return scale * rows[:, 1] + rows[:, 2]


def fit(rows):
    """Coefficients of largest likelihood."""
    def cost(coefficients):
        found = variance(rows, coefficients)
        far = np.log1p(rows[:, 0] ** 2 / found / FREEDOM)
        return np.mean(np.log(found / (rows[:, 1] + rows[:, 2])) + (FREEDOM + 1) * far) / 2

    return optimize.minimize(cost, [0.0, 0.5, 0.0], method='BFGS').x


def main():
    """Print coefficients and coverages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('files', nargs='+')
    parser.add_argument('--number', type=int, default=150, help='places per group [%(default)s]')
    args = parser.parse_args()
    rng = np.random.default_rng(5)
    found = {
        group: measure(images, FWHM.get(group.split('_')[0], 3.0), args.number, rng)
        for group, images in read_groups(args.files).items()
    }
    print('constant, slope, few:', fit(np.concatenate(list(found.values()))).round(2))
    for group, rows in found.items():
        others = fit(np.concatenate([part for name, part in found.items() if name != group]))
        pull = np.abs(rows[:, 0]) / np.sqrt(variance(rows, others))
        print(f'{group:30s} {100 * np.mean(pull < 1):4.0f} {100 * np.mean(pull < 2):4.0f} %')


if __name__ == '__main__':
    main()
