"""Flux of a standard star in archive maps, over its reference, network and annulus.

example: python benchmarks/standard_star.py maps/*.fits --position "269.152 51.489" \
    --reference 70=3.283 100=1.604 160=0.621
"""

import argparse

from astropy import units as u
from astropy.coordinates import SkyCoord
from photutils.centroids import centroid_2dg

from csr_astro import InpaintedAperturePhotometry, NeuralBackgroundEstimator, get_instrument
from csr_astro.images import read_image
from csr_astro.instruments import identify_instrument


def main():
    """Print one row per map: corrected for aperture and colour, over the reference."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('maps', nargs='+', help='FITS maps whose headers tell the instrument')
    parser.add_argument('--position', required=True, metavar='"RA DEC"', help='degrees')
    parser.add_argument('--reference', nargs='+', required=True, metavar='MICRON=JY')
    parser.add_argument('--apertures', type=float, nargs='+', default=[10.0, 12.0],
                        help='radii in arcsec')
    parser.add_argument('--weights', default='default', help='name or file [%(default)s]')
    args = parser.parse_args()
    reference = dict(map(float, item.split('=')) for item in args.reference)

    print(f'{"instrument":20s} {"aperture":>8s} {"network":>8s} {"+-":>6s} {"annulus":>8s}')
    for path in args.maps:
        image, header = read_image(path)
        band = get_instrument(identify_instrument(header))
        estimator = NeuralBackgroundEstimator(
            args.weights, instrument=band, centroid_func=centroid_2dg
        )
        photometry = InpaintedAperturePhotometry(
            args.apertures * u.arcsec, estimator=estimator, annulus='instrument'
        )
        row = photometry(image, SkyCoord(args.position, unit='deg'))[0]
        scale = reference[band.wavelength] * u.Jy * band.colour_correction_star
        for i, radius in enumerate(args.apertures):
            ratios = [row[f'{name}_{i}'] / scale for name in ('flux', 'flux_err', 'annulus_flux')]
            network, error, annulus = (float(ratio.decompose()) for ratio in ratios)
            print(f'{band.name:20s} {radius:7.0f}" {network:8.3f} {error:6.3f} {annulus:8.3f}')


if __name__ == '__main__':
    main()
