"""Power spectrum and Δ-variance of power-law fields, beside those of TurbuStat.

TurbuStat 1.3 needs an environment with setuptools before 81 (it imports pkg_resources) and six.

example: python benchmarks/structure_statistics.py --slopes -2.5 -3.4
"""

import argparse

import numpy as np
from scipy import fft

from csr_astro.evaluation.power_spectrum import delta_variance, fit_power_law, power_spectrum

LAGS = np.array([4, 6, 8, 12, 16, 24, 32, 48])
# Between these frequencies slopes of spectra are fitted, in waves per pixel.
RANGE = 0.02, 0.3


def field(slope, side, rng):
    """A periodic Gaussian field with the power spectrum k^slope."""
    k = np.hypot(fft.fftfreq(side)[:, None], fft.rfftfreq(side)[None, :])
    k[0, 0] = np.inf
    noise = fft.rfft2(rng.standard_normal((side, side)))
    return fft.irfft2(k ** (slope / 2) * noise, s=(side, side))


def peer(image):
    """Δ-variance and slope of the power spectrum by TurbuStat."""
    from astropy import units as u
    from astropy.io import fits
    from turbustat.statistics import DeltaVariance, PowerSpectrum

    header = fits.Header({
        'CTYPE1': 'RA---TAN', 'CTYPE2': 'DEC--TAN', 'CDELT1': -1 / 3600, 'CDELT2': 1 / 3600,
        'CRPIX1': 1, 'CRPIX2': 1, 'CRVAL1': 0, 'CRVAL2': 0, 'CUNIT1': 'deg', 'CUNIT2': 'deg',
    })  # fmt: skip
    delta = DeltaVariance(image, header=header, weights=np.ones(image.shape), lags=LAGS * u.pix)
    delta.compute_deltavar()
    spectrum = PowerSpectrum(image, header=header)
    spectrum.compute_pspec()
    spectrum.compute_radial_pspec()
    low, high = RANGE / u.pix
    spectrum.fit_pspec(low_cut=low, high_cut=high)
    return np.asarray(delta.delta_var), spectrum.slope


def main():
    """Print slopes and the ratios of Δ-variances."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--slopes', type=float, nargs='+', default=[-2.5, -3.0, -3.4])
    parser.add_argument('--side', type=int, default=384, help='of the field [%(default)s]')
    parser.add_argument('--seed', type=int, default=1, help='[%(default)s]')
    args = parser.parse_args()
    heads = 'true', 'spectrum', 'theirs', 'true', 'Δ-var.', 'theirs'
    print(' '.join(f'{head:>8s}' for head in heads)
          + '  ratio of Δ-variances at lags of ' + ' '.join(map(str, LAGS)) + ' pixels')
    for slope in args.slopes:
        image = field(slope, args.side, np.random.default_rng(args.seed))
        theirs, their_slope = peer(image)
        ours = delta_variance(image, LAGS)
        spectrum = power_spectrum(image)
        k = spectrum['frequency'].value
        used = spectrum[(k > RANGE[0]) & (k < RANGE[1])]
        slopes = (
            fit_power_law(used['frequency'], used['power'], used['power_err'])[0],
            fit_power_law(LAGS, ours['delta_variance'])[0],
            fit_power_law(LAGS, theirs)[0],
        )
        ratio = ours['delta_variance'].value / theirs
        row = slope, slopes[0], their_slope, -slope - 2, *slopes[1:]
        print(' '.join(f'{each:8.3f}' for each in row) + '  '
              + ' '.join(f'{each:.3f}' for each in ratio))


if __name__ == '__main__':
    main()
