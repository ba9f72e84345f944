"""Do realizations have the statistics of the map, and what does the expected background have?

On maps without sources, discs that cover a given part are masked and filled. Printed are the
standard deviation and interquartile range inside the discs over the true ones, the difference in
skewness, and the power spectrum over the true one; and a picture is drawn: where are the discs?

example: python benchmarks/realizations.py maps/*.fits --picture realizations.png
"""

import argparse

import numpy as np
from scipy import stats

from csr_astro import NeuralBackgroundEstimator
from csr_astro.evaluation.accuracy import gaussian_fields
from csr_astro.evaluation.positions import read_groups

EDGES = np.geomspace(0.01, 0.5, 9)


def power_spectrum(image):
    """Mean power in logarithmic bins of frequency, apodised."""
    finite = np.isfinite(image)
    image = np.where(finite, image - image[finite].mean(), 0)
    image = image * np.outer(*(np.hanning(n) for n in image.shape))
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, image.shape), indexing='ij'))
    power = np.abs(np.fft.fft2(image)) ** 2
    number = np.digitize(frequency, EDGES)
    return np.array([power[number == k].mean() for k in range(1, len(EDGES))])


def place(image, radius, fraction, rng):
    """Positions of discs that do not touch and cover a fraction of the measured pixels."""
    finite = np.isfinite(image)
    wanted = fraction * finite.sum() / (np.pi * radius**2)
    reach = int(radius) + 1
    positions = np.zeros((0, 2))
    for _ in range(100_000):
        if len(positions) >= wanted:
            break
        x, y = rng.uniform(reach, np.array(image.shape[::-1]) - reach - 1)
        window = finite[int(y) - reach : int(y) + reach + 2, int(x) - reach : int(x) + reach + 2]
        far = np.hypot(*(positions - (x, y)).T) > 2 * radius + 2
        if window.all() and far.all():
            positions = np.vstack([positions, (x, y)])
    return positions


def moments(values):
    """Standard deviation, interquartile range, skewness."""
    return np.array([values.std(), stats.iqr(values), stats.skew(values)])


def draw_picture(path, image, result, realization):
    """The map, the expected background and a realization, on the same scale."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), layout='constrained')
    low, high = np.nanpercentile(image, [1, 99])
    pictures = {'map': image, 'expected background': result.background, 'realization': realization}
    for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
        ax.imshow(picture, origin='lower', cmap='gray', vmin=low, vmax=high)
        ax.set(title=title, xticks=[], yticks=[])
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main():
    """Print two rows per map: expected background and realizations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('maps', nargs='*', help='FITS maps without bright sources')
    parser.add_argument('--fraction', type=float, default=0.1, help='to fill [%(default)s]')
    parser.add_argument('--radius', type=float, default=7.0, help='of discs [%(default)s]')
    parser.add_argument('--number', type=int, default=5, help='of realizations [%(default)s]')
    parser.add_argument('--size', type=int, default=400, help='largest side used [%(default)s]')
    parser.add_argument('--orientations', type=int, default=2)
    parser.add_argument('--picture', help='PNG file, of the first map')
    args = parser.parse_args()
    estimator = NeuralBackgroundEstimator(fwhm=3.5, orientations=args.orientations)
    groups = read_groups(args.maps) if args.maps else {}
    groups |= gaussian_fields(1, seed=4, fields=[(-3, 0.06)], size=args.size)[0]

    frequency = np.sqrt(EDGES[1:] * EDGES[:-1])
    print(f'{"map":22s} {"product":12s} {"std":>6s} {"iqr":>6s} {"skew":>6s}  power at '
          + ' '.join(f'{f:.3f}' for f in frequency) + ' per pixel')
    for name, images in groups.items():
        image = max(images, key=lambda each: np.isfinite(each).sum())[: args.size, : args.size]
        positions = place(image, args.radius, args.fraction, np.random.default_rng(1))
        result = estimator.estimate(image, positions, mask_radius=args.radius)
        maps = np.reshape(result.realization(1, n=args.number), (-1, *image.shape))
        true, power = moments(image[result.mask]), power_spectrum(image)
        for product, found in (('expected', result.background[None]), ('realization', maps)):
            std, iqr, skew = np.mean([moments(each[result.mask]) for each in found], axis=0)
            ratio = np.mean([power_spectrum(each) for each in found], axis=0) / power
            print(f'{name:22s} {product:12s} {std / true[0]:6.3f} {iqr / true[1]:6.3f} '
                  f'{skew - true[2]:+6.2f}           ' + ' '.join(f'{r:.3f}' for r in ratio))
        if args.picture and name == next(iter(groups)):
            draw_picture(args.picture, image, result, maps[0])


if __name__ == '__main__':
    main()
