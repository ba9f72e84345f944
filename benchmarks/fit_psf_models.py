"""Fit the models of the PACS PSFs to images of Vesta and to the tables of enclosed energy.

Prints the parameters as TOML (those of csr_astro/data/psf_models.toml), and how well each model
fits as comments: its enclosed energy over that of the tables and of the image. The images are
broader than the tables say, because they were resampled: a blur of the image alone is fitted too.

example: python benchmarks/fit_psf_models.py psf/pacs70_vesta.fits psf/pacs100_vesta.fits \
    psf/pacs160_vesta.fits > psf_models.toml
"""

import argparse
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from photutils.aperture import CircularAperture
from scipy import ndimage, optimize

import csr_astro
from csr_astro.instruments import get_instrument
from csr_astro.simulation.pacs import pacs_brightness

BANDS = {'blue': 70, 'green': 100, 'red': 160}
# The wings end here: 1 arcmin, to which the Vesta PSFs are normalised.
EDGE = 60.0
# Between 20 and 60 arcsec brightness falls as r**-3.
WING_EXPONENT = 3.0
# Half the side and the step, in arcsec, of the grid on which models are measured.
HALF, STEP = 25.6, 0.4
# What a residual may be: of the tables, relative; of the image, in units of its peak.
TABLE_ERROR, IMAGE_ERROR = 0.002, 0.015
# (start, lowest, highest); lengths are those at 70 micrometres and scale with the wavelength.
PARAMETERS = {
    ('core', 'major'): (5.6, 4.0, 8.0),
    ('core', 'minor'): (5.2, 4.0, 8.0),
    ('core', 'angle'): (0.0, -180.0, 180.0),
    ('lobes', 'amplitude'): (0.03, 0.0, 0.2),
    ('lobes', 'radius'): (8.0, 5.0, 12.0),
    ('lobes', 'width'): (1.6, 0.7, 4.0),
    ('lobes', 'contrast'): (0.8, 0.0, 1.0),
    ('lobes', 'angle'): (0.0, -100.0, 100.0),
    ('wings', 'amplitude'): (0.01, 0.0, 0.2),
    ('wings', 'radius'): (8.0, 2.0, 30.0),
}
LENGTHS = {'major', 'minor', 'fwhm', 'radius', 'width'}


def model_of(values):
    """Parameters of the fit as an entry of the data file."""
    model = {}
    for (part, name), value in zip(PARAMETERS, values, strict=False):
        model.setdefault(part, {})[name] = float(value)
    core = model['core']
    core['fwhm'] = [core.pop('major'), core.pop('minor')]
    model['wings']['exponent'] = WING_EXPONENT
    return model


def energy(model):
    """Energy inside the edge, in units of the core's central brightness."""
    r = (np.arange(600) + 0.5) * EDGE / 600
    angle = np.arange(24) * 2 * np.pi / 24
    around = pacs_brightness(model, r[:, None] * np.cos(angle), r[:, None] * np.sin(angle))
    return (around.mean(axis=1) * 2 * np.pi * r).sum() * EDGE / 600


class Fit:
    """What a model is compared with."""

    def __init__(self, path, band):
        self.band = band
        steps = np.arange(-HALF, HALF + STEP / 2, STEP)
        self.grid = np.meshgrid(steps, steps)
        self.image = fits.getdata(path).astype(float)
        self.pixel = fits.getheader(path)['PIXARCS']
        n = self.image.shape[0]
        fine = ((np.arange(3 * n) - (3 * n - 1) / 2) / 3) * self.pixel
        self.fine = np.meshgrid(fine, fine)
        path = Path(csr_astro.__file__).parent / 'data' / 'aperture_corrections.csv'
        rows = Table.read(path, format='ascii.csv', comment='#')
        rows = rows[rows['band'] == band].group_by(['table', 'mode'])
        center = (len(steps) - 1) / 2
        self.tables = []
        for key, group in zip(rows.groups.keys, rows.groups, strict=True):
            radii = np.asarray(group['radius_arcsec'], dtype=float)
            weights = [
                CircularAperture((center, center), r / STEP)
                .to_mask(method='exact')
                .to_image(self.grid[0].shape)
                .ravel()
                for r in radii
            ]
            # Scan-map green: the published column "vesta" repeats "eef" within 3e-4.
            whole = key['table'] == 'eef' or (band == 'green' and key['mode'] == 'scanmap')
            self.tables.append(
                (
                    f'{key["table"]} {key["mode"]}',
                    radii,
                    np.asarray(group['enclosed_energy_fraction']),
                    get_instrument(f'pacs-{key["mode"]}-{band}').pixel_scale,
                    whole,
                    np.array(weights),
                )
            )

    def enclosed(self, values):
        """Ratios to the tables, one array for each."""
        model, within = model_of(values), values[len(PARAMETERS)]
        brightness = pacs_brightness(model, *self.grid) / energy(model) * STEP**2
        ratios = []
        for _, _, fraction, pixel, whole, weights in self.tables:
            # The tables are of maps: apertures on pixels. A box with half weights at its ends.
            box = np.ones(round(pixel / STEP) + 1)
            box[[0, -1]] = 0.5
            box /= box.sum()
            on_pixels = ndimage.convolve1d(ndimage.convolve1d(brightness, box, 0), box, 1)
            ratios.append(weights @ on_pixels.ravel() * (within if whole else 1) / fraction)
        return ratios

    def stamp(self, values):
        """The model on the pixels of the image, blurred like it, of the same sum."""
        blur, dx, dy = values[-3:]
        n = self.image.shape[0]
        fine = pacs_brightness(model_of(values), self.fine[0] - dx, self.fine[1] - dy)
        fine = ndimage.gaussian_filter(fine, blur / np.sqrt(8 * np.log(2)) / self.pixel * 3)
        stamp = fine.reshape(n, 3, n, 3).mean(axis=(1, 3))
        return stamp * self.image.sum() / stamp.sum()

    def residuals(self, values):
        """In units of the tolerated errors."""
        image = (self.stamp(values) - self.image) / self.image.max() / IMAGE_ERROR
        tables = (np.concatenate(self.enclosed(values)) - 1) / TABLE_ERROR
        return np.concatenate([tables, image.ravel()])

    def run(self):
        """Best parameters, energy within the edge, blur and offset of the image."""
        scale = BANDS[self.band] / 70
        bounds = np.array(
            [
                [value * (scale if name in LENGTHS else 1) for value in triple]
                for (_, name), triple in PARAMETERS.items()
            ]
            + [[0.9, 0.8, 1.0], [1.0, 0.1, 8.0], [0.0, -2.0, 2.0], [0.0, -2.0, 2.0]]
        )
        # Where the lobes are brightest: the phase of the third harmonic around the peak.
        r = np.hypot(*self.fine)
        ring = (r > 8 * scale) & (r < 10 * scale)
        fine = np.kron(self.image, np.ones((3, 3)))[ring]
        phase = np.angle((fine * np.exp(3j * np.arctan2(self.fine[1], self.fine[0])[ring])).sum())
        start = bounds[:, 0]
        start[list(PARAMETERS).index(('lobes', 'angle'))] = np.degrees(phase) / 3
        span = bounds[:, 2] - bounds[:, 1]
        return optimize.least_squares(
            self.residuals, start, bounds=(bounds[:, 1], bounds[:, 2]), x_scale=span / 5
        ).x


def report(fit, values):
    """Print a band."""
    model, within = model_of(values), values[len(PARAMETERS)]
    for (name, radii, _, pixel, whole, _), ratio in zip(
        fit.tables, fit.enclosed(values), strict=True
    ):
        text = ' '.join(f'{r:g}":{x:.3f}' for r, x in zip(radii, ratio, strict=True))
        print(f'# {name}, {pixel}" pixels{", times energy_within_edge" * whole}: {text}')
    stamp, n = fit.stamp(values), fit.image.shape[0]
    radii = [r for r in (3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26) if r < n * fit.pixel / 2]
    apertures = [CircularAperture(((n - 1) / 2, (n - 1) / 2), r / fit.pixel) for r in radii]
    ratios = [a.do_photometry(stamp)[0][0] / a.do_photometry(fit.image)[0][0] for a in apertures]
    text = ' '.join(f'{r:g}":{x:.3f}' for r, x in zip(radii, ratios, strict=True))
    rms = np.std(stamp - fit.image) / fit.image.max()
    print(f'# image, blurred by {values[-3]:.2f}": {text}; rms of the pixels {rms:.4f} of the peak')
    print(f'[{fit.band}]\nedge = {EDGE}\nenergy_within_edge = {within:.4f}')
    for part, entries in model.items():
        text = ', '.join(
            f'{name} = {[round(v, 4) for v in x] if isinstance(x, list) else round(x, 5)}'
            for name, x in entries.items()
        )
        print(f'{part} = {{ {text} }}')
    print(flush=True)


def main():
    """Fit the bands one after another, a minute or two each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('blue', help='FITS image of the PSF at 70 micrometres (with PIXARCS)')
    parser.add_argument('green', help='at 100 micrometres')
    parser.add_argument('red', help='at 160 micrometres')
    args = parser.parse_args()
    for band in BANDS:
        fit = Fit(getattr(args, band), band)
        report(fit, fit.run())


if __name__ == '__main__':
    main()
