"""Options of the shell for photometry, shared by commands that measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from csr_astro.commands.options import length

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = ['add_photometry', 'photometry_options']


def add_photometry(command: ArgumentParser) -> None:
    """Add the options for photometry.

    Parameters
    ----------
    command : `argparse.ArgumentParser`
        Command that gets the options.
    """
    command.add_argument(
        '--method', choices=('aperture', 'psf', 'gaussian'),
        help='sums in apertures, fits of the PSF, or fits of Gaussians convolved with it for '
        'resolved sources [aperture]',
    )
    command.add_argument(
        '--apertures', metavar='R[,R...]',
        help='radii: pixels, or an angle such as 6arcsec; shapes such as '
        'ellipse(8arcsec,5arcsec,30), with the angle from North through East; regions for those '
        'of the catalogue; a file of regions, one for each source or one for all',
    )
    command.add_argument(
        '--aperture-correction', metavar='KIND',
        help='eef (real sources), vesta (injected PSFs), gaussian (of the FWHM), none, or '
        'fractions [eef if known, else gaussian]',
    )
    command.add_argument(
        '--annulus', action='store_true', help='add the fluxes over a classical annulus'
    )
    command.add_argument(
        '--beam', metavar='FWHM[,FWHM]',
        help='beam of a map per beam, such as 18arcsec [from the header or the instrument]',
    )
    command.add_argument(
        '--flux-unit', metavar='UNIT',
        help='unit of fluxes, such as mJy, or map for plain sums [Jy]',
    )


def photometry_options(args: Namespace) -> dict[str, Any] | None:
    """Arguments of the photometry, as `~csr_astro.removal.make_photometry` takes them.

    Parameters
    ----------
    args : `argparse.Namespace`
        Arguments of `add_photometry`.

    Returns
    -------
    options : dict or None
        None if no photometry is asked for.
    """
    if args.method in ('psf', 'gaussian'):
        if args.apertures or args.annulus:
            raise ValueError('--apertures and --annulus are for --method aperture.')
        return {
            'shape': 'point' if args.method == 'psf' else 'gaussian',
            'aperture_correction': _correction(args.aperture_correction),
            'beam': _beam(args.beam),
            'flux_unit': args.flux_unit,
        }
    if not args.apertures:
        if args.method or args.annulus or args.aperture_correction:
            raise ValueError('photometry needs --apertures, or --method psf or gaussian.')
        return None
    from csr_astro.commands.shapes import parse_shapes

    return {
        **parse_shapes(args.apertures),
        'aperture_correction': _correction(args.aperture_correction),
        'annulus': 'instrument' if args.annulus else None,
        'beam': _beam(args.beam),
        'flux_unit': args.flux_unit,
    }


def _beam(text):
    if text is None:
        return None
    from astropy import units as u

    axes = [length(part, '--beam') for part in text.split(',')]
    if not all(isinstance(axis, u.Quantity) for axis in axes):
        raise ValueError(f'--beam must be an angle such as 18arcsec, got {text!r}.')
    return axes[0] if len(axes) == 1 else u.Quantity(axes)


def _correction(text):
    if text is None or text in ('eef', 'vesta', 'gaussian', 'psf', 'none'):
        return text
    try:
        fractions = [float(part) for part in text.split(',')]
    except ValueError:
        raise ValueError(
            f'--aperture-correction must be eef, vesta, gaussian, none or fractions, got {text!r}.'
        ) from None
    return fractions if len(fractions) > 1 else fractions[0]
