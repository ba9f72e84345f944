"""Options that several commands share, and the objects made of them."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from astropy import units as u
    from astropy.io import fits

    from csr_astro import NeuralBackgroundEstimator
    from csr_astro.images import Image
    from csr_astro.typing import SourcesLike

    Commands: TypeAlias = _SubParsersAction[ArgumentParser]


# -------------------------------------------------------------------------------------- parsers


def add_command(
    commands: Commands,
    name: str,
    function: Callable[[Namespace], None],
    help_text: str,
    examples: Sequence[str],
    parents: Sequence[ArgumentParser] = (),
) -> ArgumentParser:
    """Add a command.

    Parameters
    ----------
    commands : subparsers of argparse
        Parser to which the command is added.
    name : str
        Name of the command.
    function : callable
        Runs the command, given its parsed arguments.
    help_text : str
        One line, from a small letter on and without a full stop.
    examples : list of str
        Lines for the shell, without ``csr-astro``.
    parents : list of `argparse.ArgumentParser`, optional
        Options that the command has too.

    Returns
    -------
    command : `argparse.ArgumentParser`
    """
    command = commands.add_parser(
        name,
        help=help_text,
        description=_sentence(help_text),
        epilog='examples:\n' + '\n'.join(f'  csr-astro {line}' for line in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_debug_options(), *parents],
    )
    command.set_defaults(function=function)
    return command


def add_group(
    commands: Commands, name: str, help_text: str, example: str, metavar: str
) -> Commands:
    """Add a command that has commands of its own.

    Parameters
    ----------
    commands : subparsers of argparse
        Parser to which the group is added.
    name : str
        Name of the group.
    help_text : str
        One line, from a small letter on and without a full stop.
    example : str
        Line for the shell, without ``csr-astro``.
    metavar : str
        Word for one of its commands.

    Returns
    -------
    commands : subparsers of argparse
        Parser to which its commands are added.
    """
    group = commands.add_parser(
        name,
        help=help_text,
        description=_sentence(help_text),
        epilog=f'example: csr-astro {example}',
    )
    return group.add_subparsers(metavar=metavar, required=True)


def _sentence(text):
    return f'{text[0].upper()}{text[1:]}.'


def _debug_options():
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument('--debug', action='store_true', help='show the traceback of an error')
    options.add_argument('--verbose', action='store_true', help='tell what is done, and when')
    return options


def map_options(**map_argument: Any) -> ArgumentParser:
    """Options for a map and its sources.

    Parameters
    ----------
    **map_argument
        Arguments of `argparse.ArgumentParser.add_argument` for the map.
    """
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument('map', metavar='MAP', help='FITS file', **map_argument)
    options.add_argument(
        'catalog', metavar='CATALOG', nargs='?',
        help='table (ECSV, CSV, FITS, VOTable) or DS9 regions (.reg)',
    )
    options.add_argument(
        '--position', action='append', metavar='"RA DEC"',
        help='one source on the sky; can be repeated',
    )
    options.add_argument(
        '--pixel', action='append', nargs=2, type=float, metavar=('X', 'Y'),
        help='one source in zero-based pixels; can be repeated',
    )
    add_find(options)
    options.add_argument('--error', metavar='FILE', help='FITS file of the errors of the map')
    options.add_argument('--mask', metavar='FILE', help='FITS file of the mask of the map')
    return options


def removal_options() -> ArgumentParser:
    """Options for the prediction of backgrounds."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument('--instrument', help='name from "csr-astro instruments" [from the header]')
    options.add_argument('--fwhm', help='beam (FWHM) of any other instrument: pixels, or 18arcsec')
    add_psf(options)
    options.add_argument(
        '--mask-radius', metavar='R',
        help='pixels, an angle, or snr [by peak contrast; regions as drawn]',
    )
    options.add_argument(
        '--columns', metavar='RA,DEC',
        help='columns of the catalogue that hold the positions [those with known names]; a third '
        'word says what they hold: pixel, pixel1, icrs, fk5, fk4, galactic or ecliptic',
    )
    options.add_argument(
        '--keep', action=argparse.BooleanOptionalAction, default=True,
        help='write all columns of the catalogue to the tables',
    )
    options.add_argument(
        '--refine', action='store_true', help='refine the positions on the map first'
    )
    options.add_argument('--hdu', help='extension of the image: name or number [found by name]')
    options.add_argument(
        '--error-hdu', metavar='HDU', help='extension of the error [found by name]'
    )
    options.add_argument(
        '--mask-hdu', metavar='HDU',
        help='extension of the mask, quality, weight or coverage, or none [found by name]',
    )
    options.add_argument(
        '--ignore-errors', action='store_true', help='do not read the errors of the map'
    )
    options.add_argument(
        '--plane', metavar='N[,N...]', help='plane of a cube, zero-based; one for each leading axis'
    )
    options.add_argument('--unit', help='unit of the map, such as MJy/sr [from the header]')
    options.add_argument(
        '--weights', default='default', help='name or file of weights [%(default)s]'
    )
    options.add_argument('--preset', default='default', choices=('default', 'paper'),
                         help='paper: normalise and blend as in the method paper [%(default)s]')
    options.add_argument('--orientations', type=int, choices=(1, 2, 4, 8),
                         help='flips and rotations to average over [8]')
    options.add_argument('--device', help='cpu, cuda or mps [a GPU if present]')
    options.add_argument('--dtype', choices=('float32', 'bfloat16'),
                         help='precision of the network [bfloat16 if the device supports it]')
    options.add_argument('--batch-size', type=int, help='cutouts per forward pass [by the device]')
    options.add_argument('--overwrite', action='store_true', help='replace existing files')
    return options


def add_psf(command: ArgumentParser) -> None:
    """Add the option for the PSF.

    Parameters
    ----------
    command : `argparse.ArgumentParser`
        Command that gets the option.
    """
    command.add_argument(
        '--psf', metavar='FILE', help='FITS image of the PSF [by the instrument]'
    )


def add_find(command: ArgumentParser) -> None:
    """Add the option to find the sources in place of a catalogue.

    Parameters
    ----------
    command : `argparse.ArgumentParser`
        Command that gets the option.
    """
    command.add_argument(
        '--find', nargs='?', type=float, const=5.0, metavar='THRESHOLD',
        help='find sources above this number of standard errors, instead of a catalogue [5]',
    )


def add_errors(command: ArgumentParser) -> None:
    """Add the option for the errors of filled pixels.

    Parameters
    ----------
    command : `argparse.ArgumentParser`
        Command that gets the option.
    """
    command.add_argument(
        '--errors', action=argparse.BooleanOptionalAction, default=True,
        help='write the 1-sigma errors of the filled pixels to the extension CSR_RMS',
    )


# ---------------------------------------------------------------------------------------- files


def output_path(args: Namespace, ending: str) -> Path:
    """Path of the output: as asked, or beside the map.

    Parameters
    ----------
    args : `argparse.Namespace`
        Arguments, with ``output`` and ``map``.
    ending : str
        End of the name beside the map.
    """
    from csr_astro.utils.files import stem

    if Path(args.map).is_dir():
        raise ValueError(f'{args.map!r} is a folder; give one FITS file.')
    return Path(args.output or f'{stem(Path(args.map))}{ending}')


def check_map_path(path: Path) -> None:
    """Raise an error if a map would get the name of another kind of file.

    Parameters
    ----------
    path : `pathlib.Path`
        Map to write.
    """
    from csr_astro.utils.files import stem

    if stem(path).name == path.name:
        raise ValueError(
            f'the map {str(path)!r} is written as FITS and must end in .fits, .fits.gz or .fits.fz.'
        )


def refuse_overwrite(args: Namespace, *paths: Path) -> None:
    """Raise an error if a file cannot or must not be written.

    Parameters
    ----------
    args : `argparse.Namespace`
        Arguments, with ``overwrite``.
    *paths : `pathlib.Path`
        Files to write: the map first, then the table.
    """
    if len({path.absolute() for path in paths}) < len(paths):
        raise ValueError(f'{str(paths[0])!r} cannot be both the map and the table.')
    for path in paths:
        if path.exists() and not args.overwrite:
            raise ValueError(f'{str(path)!r} exists; give --overwrite to replace it.')
        if not path.parent.is_dir():
            raise ValueError(f'there is no folder {str(path.parent)!r} to write to.')
        if not os.access(path.parent, os.W_OK):
            raise ValueError(f'the folder {str(path.parent)!r} cannot be written to.')


def keep_inputs(output: Path, *inputs: str | None) -> None:
    """Raise an error if an input would be replaced.

    Parameters
    ----------
    output : `pathlib.Path`
        File to write.
    *inputs : str or None
        Files that are read.
    """
    for path in inputs:
        if path and output.exists() and Path(path).exists() and output.samefile(path):
            raise ValueError(f'{str(output)!r} would be replaced, and is an input.')


def read_map(args: Namespace) -> tuple[Image, fits.Header]:
    """Read the map.

    Parameters
    ----------
    args : `argparse.Namespace`
        Arguments of `map_options` and `removal_options`.
    """
    from csr_astro.images import read_image

    return read_image(args.map, args.hdu, **reading_options(args))


def reading_options(args: Namespace) -> dict[str, Any]:
    """Arguments that say how a map is read, apart from its extension.

    Parameters
    ----------
    args : `argparse.Namespace`
        Arguments of `removal_options` and, if it has them, of `map_options`.
    """
    names = ('error_hdu', 'mask_hdu', 'ignore_errors', 'unit', 'error', 'mask')
    found = {name: getattr(args, name) for name in names if getattr(args, name, None)}
    if args.plane is not None:
        try:
            found['plane'] = [int(number) for number in args.plane.split(',')]
        except ValueError:
            raise ValueError(f'--plane must be a number, got {args.plane!r}.') from None
    return found


# -------------------------------------------------------------------------------------- sources


def parse_positions(args: Namespace) -> SourcesLike | str | None:
    """Positions of the sources, or the name of the catalogue; None if they are to be found.

    Parameters
    ----------
    args : `argparse.Namespace`
        Arguments of `map_options`.
    """
    given = [bool(args.catalog), bool(args.position), bool(args.pixel), args.find is not None]
    if sum(given) != 1:
        raise ValueError('give the sources once: a CATALOG, --position, --pixel or --find.')
    if args.find is not None:
        return None
    return args.catalog or args.pixel or _coordinates(args.position)


def read_sources(
    args: Namespace, image: Image, estimator: NeuralBackgroundEstimator
) -> SourcesLike:
    """Read the sources, or find them.

    Parameters
    ----------
    args : `argparse.Namespace`
        Arguments of `map_options`.
    image : `~csr_astro.images.Image`
        The map.
    estimator : `~csr_astro.NeuralBackgroundEstimator`
        Tells the PSF.
    """
    from csr_astro import removal, sources

    found = parse_positions(args)
    if found is None:
        return removal.find_sources(image, estimator, args.find)
    return sources.read_sources(found) if isinstance(found, str) else found


def _coordinates(texts):
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    coordinates = []
    for text in texts:
        try:
            coordinates.append(SkyCoord(text.replace(',', ' '), unit=_angle_units(text)).icrs)
        except (ValueError, u.UnitsError):
            raise ValueError(
                f'--position is not understood: {text!r}; give degrees ("269.15 51.49") or hours '
                'and degrees ("17:56:36 +51:29:20", "17h56m36s +51d29m20s").'
            ) from None
    return SkyCoord(coordinates)


def _angle_units(text):
    """Units of numbers without one: "269.1 51.4" are degrees, "17:56:36 51.4" begins with hours."""
    from astropy import units as u

    words = text.replace(',', ' ').split()
    hours = len(words) > 2 or ':' in words[0] or words[0].startswith('J') if words else False
    return (u.hourangle if hours else u.deg), u.deg


def catalog_options(args: Namespace) -> dict[str, Any]:
    """Arguments of the estimator for the columns of the catalogue.

    Parameters
    ----------
    args : `argparse.Namespace`
        Arguments of `removal_options`.
    """
    columns = None if args.columns is None else [name.strip() for name in args.columns.split(',')]
    return {'columns': columns, 'keep': args.keep}


# ------------------------------------------------------------------------------------- numbers


def length(text: str, option: str) -> float | u.Quantity:
    """Length in pixels (a plain number) or as an angle (6arcsec, 6" or "0.1 arcmin").

    Parameters
    ----------
    text : str
        Value of the option.
    option : str
        Name of the option, for an error.
    """
    from astropy import units as u

    try:
        value = u.Quantity(text.strip().replace('"', 'arcsec'))
    except (TypeError, ValueError):
        raise ValueError(
            f'{option}: {text.strip()!r} is neither a number of pixels nor an angle.'
        ) from None
    return float(value.value) if value.unit == u.dimensionless_unscaled else value


def aperture_radii(args: Namespace) -> list[float | u.Quantity]:
    """Radii of apertures, each in pixels or as an angle.

    Parameters
    ----------
    args : `argparse.Namespace`
        Arguments, with ``apertures``.
    """
    return [length(text, '--apertures') for text in args.apertures.split(',')]


def numbers(text: str | None, option: str) -> list[float] | None:
    """Numbers between commas; None for an option that was not given.

    Parameters
    ----------
    text : str or None
        Value of the option.
    option : str
        Name of the option, for an error.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(',')]
    except ValueError:
        raise ValueError(f'{option} must be numbers and commas, got {text!r}.') from None


def mask_radius(args: Namespace) -> float | u.Quantity | str | None:
    """Radius of the masks, as the estimator takes it.

    Parameters
    ----------
    args : `argparse.Namespace`
        Arguments of `removal_options`.
    """
    if args.mask_radius in (None, 'snr'):
        return args.mask_radius
    return length(args.mask_radius, '--mask-radius')


def field_scale(args: Namespace) -> float:
    """Pixel scale of a synthetic field: as asked, or that of the instrument.

    Parameters
    ----------
    args : `argparse.Namespace`
        Arguments, with ``pixel_scale`` and ``instrument``.
    """
    if args.pixel_scale is not None or args.instrument is None:
        return args.pixel_scale or 1.6
    from csr_astro.instruments import get_instrument

    return get_instrument(args.instrument).pixel_scale or 1.6


# --------------------------------------------------------------------- estimator and photometry


def estimator_options(args: Namespace) -> dict[str, Any]:
    """Arguments of the estimator.

    Parameters
    ----------
    args : `argparse.Namespace`
        Arguments of `removal_options`.
    """
    return {
        'weights': args.weights,
        'instrument': args.instrument,
        'fwhm': None if args.fwhm is None else length(args.fwhm, '--fwhm'),
        'psf': None if args.psf is None else str(Path(args.psf).absolute()),
        'preset': args.preset,
        'orientations': args.orientations,
        'centroid_func': _centroid_func() if args.refine else None,
        'device': args.device,
        'dtype': args.dtype,
        'batch_size': args.batch_size,
    }


def _centroid_func():
    from photutils.centroids import centroid_2dg

    return centroid_2dg


def announce_instrument(name: str) -> None:
    """Tell the instrument that a header tells.

    Parameters
    ----------
    name : str
        Name of the instrument.
    """
    print(f'instrument: {name} (from the header)', file=sys.stderr)


def make_estimator(args: Namespace, header: fits.Header) -> NeuralBackgroundEstimator:
    """Make the estimator for a map.

    Parameters
    ----------
    args : `argparse.Namespace`
        Arguments of `removal_options`.
    header : `~astropy.io.fits.Header`
        Header of the map.
    """
    from csr_astro import removal

    options = estimator_options(args)
    return removal.make_estimator(header, announce=announce_instrument, progress=True, **options)
