"""Fit the models of the SPIRE PSFs to what is published of the beams.

A core, a ring (that of diffraction) and wings, as those of PACS, from four numbers of each band:
the FWHM of the beam, its solid angle, and the aperture corrections without and with a background
from an annulus, whose difference tells the energy at 60 to 90 arcsec. Prints the models as TOML
(those of csr_astro/data/psf_models.toml), and the enclosed energies as rows of
aperture_corrections.csv: on the pixels of the standard maps. The published fractions, of maps with
pixels of 1 arcsec, are 0.3 to 1.2 % larger.

Sources: beam on Neptune, FWHM and solid angle (SPIRE Handbook 2.5, Sect. 5.2.9; Griffin et al.
2013, MNRAS 434, 992); aperture corrections of the SPIRE calibration tree (ColorCorrAperture;
Handbook, Sect. 5.7) for a spectral index of 1.5, near that of Neptune. For other indices from
-1 to 3 they differ by less than 0.6 %.

example: python benchmarks/fit_spire_psf.py
"""

import argparse

import numpy as np
from scipy import integrate, ndimage, optimize

# FWHM, solid angle (square arcsec), aperture (arcsec), corrections without and with an annulus.
BEAMS = {
    250: (17.6, 450, 22, 1.267, 1.271),
    350: (23.9, 795, 30, 1.222, 1.230),
    500: (35.2, 1665, 42, 1.202, 1.218),
}
ANNULUS = 60, 90
# The beam maps end here, and the models where they are cut off.
LIMIT, EDGE = 700.0, {250: 150.0, 350: 200.0, 500: 280.0}
# Between the ring and the limit brightness falls as r**-3, as behind any circular aperture.
EXPONENT = 3.0
# Bright ring of a telescope of 3.29 m, at 1.65 wavelengths over diameter, and its width.
RING, RING_WIDTH = 25.9, 4.0
RADII = np.linspace(0, LIMIT, 70_001)
# Pixels of the standard maps, and the step of the grid on which apertures on them are computed.
PIXEL, STEP = {250: 6, 350: 10, 500: 14}, 0.5


def brightness(values, wavelength, r):
    """Brightness of a model, in units of the core's centre."""
    fwhm, ring, amplitude, radius = values
    scale = wavelength / 250
    return (
        np.exp(-4 * np.log(2) * (r / fwhm) ** 2)
        + ring * np.exp(-0.5 * ((r - RING * scale) / (RING_WIDTH * scale)) ** 2)
        + amplitude * (1 + (r / radius) ** 2) ** (-EXPONENT / 2)
    )


def growth(values, wavelength):
    """Energy inside RADII, in units of the peak."""
    profile = brightness(values, wavelength, RADII)
    ring = 2 * np.pi * RADII * profile / profile[0]
    return profile / profile[0], integrate.cumulative_simpson(ring, x=RADII, initial=0)


def predicted(values, wavelength):
    """The four numbers that are published, of a model."""
    profile, energy = growth(values, wavelength)
    aperture, (inner, outer) = BEAMS[wavelength][2], ANNULUS
    inside, low, high = np.interp((aperture, inner, outer), RADII, energy / energy[-1])
    level = (high - low) / (outer**2 - inner**2) * aperture**2
    fwhm = 2 * np.interp(-0.5, -profile[:5000], RADII[:5000])
    return np.array([fwhm, energy[-1], 1 / inside, 1 / (inside - level)])


def fit(wavelength):
    """Four parameters of a model from four numbers."""
    fwhm, area, _, without, within = BEAMS[wavelength]
    wanted, errors = np.array([fwhm, area, without, within]), [0.1, 0.01 * area, 1e-3, 1e-3]
    return optimize.least_squares(
        lambda values: (predicted(values, wavelength) - wanted) / errors,
        [fwhm, 0.01, 0.005, 0.08 * wavelength],
        bounds=([0.9 * fwhm, 0, 0, 5], [1.1 * fwhm, 0.1, 0.3, 120]),
        x_scale=[1, 0.01, 0.01, 10],
    ).x


def on_pixels(values, wavelength, radii):
    """Energy in apertures on the pixels of a map, the mean over all places of a source in a pixel.

    The brightness is averaged over pixels, and once more by the fractions of the pixels at the rim.
    """
    steps = np.arange(-max(radii) - 40, max(radii) + 40 + STEP, STEP)
    distance = np.hypot(steps, steps[:, None])
    image = brightness(values, wavelength, distance)
    width = round(PIXEL[wavelength] / STEP)
    box = np.ones(width + 1 - width % 2) / (width + 1 - width % 2)
    if width % 2 == 0:
        box = np.r_[0.5, np.ones(width - 1), 0.5] / width
    for axis in (0, 1, 0, 1):
        image = ndimage.convolve1d(image, box, axis)
    _, energy = growth(values, wavelength)
    total = energy[-1] * brightness(values, wavelength, 0.0)
    fine = [np.clip((r - distance) / STEP + 0.5, 0, 1) for r in radii]
    return [float((image * inside).sum() * STEP**2 / total) for inside in fine]


def main():
    """Print models and enclosed energies."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    rows = []
    for wavelength in BEAMS:
        values = fit(wavelength)
        _, energy = growth(values, wavelength)
        energy /= energy[-1]
        fwhm, ring, amplitude, radius = values
        scale, edge = wavelength / 250, EDGE[wavelength]
        print(f'# {np.round(predicted(values, wavelength), 4)}')
        print(f'[spire-{wavelength}]\nedge = {edge}')
        print(f'energy_within_edge = {np.interp(edge, RADII, energy):.4f}')
        print(f'core = {{ angle = 0.0, fwhm = [{fwhm:.4f}, {fwhm:.4f}] }}')
        print(
            f'lobes = {{ amplitude = {ring:.5f}, radius = {RING * scale:.2f}, width = '
            f'{RING_WIDTH * scale:.2f}, contrast = 0.0, angle = 0.0 }}'
        )
        print(
            f'wings = {{ amplitude = {amplitude:.5f}, radius = {radius:.4f}, exponent = {EXPONENT} '
            '}\n'
        )
        radii = BEAMS[wavelength][2] * np.array(
            [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.35, 1.5, 1.75, 2, 2.5, 3, 4]
        )
        rows += [
            f'eef,spire,{wavelength},{r:g},{fraction:.5f}'
            for r, fraction in zip(radii, on_pixels(values, wavelength, radii), strict=True)
        ]
    print('\n'.join(rows))


if __name__ == '__main__':
    main()
