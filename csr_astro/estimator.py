"""Estimator of backgrounds behind sources, compatible with photutils' local backgrounds."""

from __future__ import annotations

import copy
import logging
import numbers
import os
import time
import warnings
from dataclasses import dataclass, replace
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from astropy import units as u
from astropy.utils.exceptions import AstropyUserWarning
from photutils.background import LocalBackground

from csr_astro.combine import combine
from csr_astro.flags import count_sources
from csr_astro.images import parse_image, shape_text
from csr_astro.instruments import get_instrument, require_instrument
from csr_astro.plan import plan_removal
from csr_astro.prediction import BATCH_SIZES, ORIENTATIONS, Predictor
from csr_astro.sources import parse_sources
from csr_astro.utils.representation import html_table
from csr_astro.utils.sky import north_angle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from csr_astro.background import NeuralBackground
    from csr_astro.fitting.psf import PixelPSF
    from csr_astro.images import Image
    from csr_astro.instruments import Instrument
    from csr_astro.plan import Plan
    from csr_astro.typing import ImageLike, PathLike, PsfLike, QuantityLike, SourcesLike, WcsLike

__all__ = ['NeuralBackgroundEstimator']


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Preset:
    """Settings of a preset."""

    published: bool
    orientations: int


_PRESETS = {
    # Normalised as in the training of the weights; only the mask is replaced.
    'default': _Preset(published=False, orientations=ORIENTATIONS),
    # Windows, masks and rims of the published tool (paper, Sects. 2.4 and 4).
    'paper': _Preset(published=True, orientations=1),
}


# Normalisation and fill of the paper's network.
_PUBLISHED = ('minmax', 'none')
# Arguments that `NeuralBackgroundEstimator.replace` keeps.
_ARGUMENTS = (
    'weights', 'instrument', 'psf', 'preset', 'orientations', 'centroid_func', 'device', 'dtype',
    'batch_size', 'progress',
)  # fmt: skip


class NeuralBackgroundEstimator(LocalBackground):
    """Predict the background behind sources with a partial-convolution U-Net.

    The method is that of Madarász et al. (2025). photutils accepts an instance as
    ``local_bkg_estimator``.

    Parameters
    ----------
    weights : str or path-like, optional
        Name from `~csr_astro.list_weights`, or path of a safetensors file. ``'default'`` stands
        for those of the preset: with ``'paper'`` they are ``'paper-parallel'`` for the blue and
        green bands of PACS parallel mode, else ``'paper-scanmap'``.
    instrument : str or `~csr_astro.instruments.Instrument`, optional
        Instrument, or name from `~csr_astro.list_instruments`, that sets the mask
        radii; by default the generic one with the beam ``fwhm``, else what the header of
        each map tells: ``INSTRUME`` and so on, or ``BMAJ`` and ``BMIN``.
    fwhm : float or `~astropy.units.Quantity`, optional
        Full width at half maximum of the beam, in pixels or as an angle, for
        the generic instrument. Where the header of a map tells a band of about this beam, PSF
        and aperture corrections are those of the band; else they are those of a Gaussian.
    psf : profile, path-like, image HDU, array, astropy or photutils model, optional
        Point spread function of the map, as in `~csr_astro.simulation.psf.psf_profile`; by default
        that of the instrument: a model for PACS and SPIRE (that of PACS in the orientation of the
        map, by ``POSANGLE``), a Gaussian of the beam for others. The wings of bright sources, by
        this PSF or by such a model, are fitted and subtracted before the background is
        predicted; with a beam alone, the network guesses them.
    preset : {'default', 'paper'}, optional
        ``'default'`` normalises by valid pixels only, replaces exactly the
        mask and averages over flips and rotations. ``'paper'`` gives the pixels of the published
        tool: its windows, normalisation by minimum and maximum, and prediction and map
        blended at the rim; it takes only weights of the paper's network.
    orientations : {1, 2, 4, 8}, optional
        Number of flips and rotations to average over; by default 8 with the preset
        ``'default'`` and 1 with ``'paper'``. The run time grows with it.
    centroid_func : callable, optional
        Centroid function of photutils, such as `~photutils.centroids.centroid_2dg`,
        that refines positions inside the smallest mask of the instrument.
    device : str, optional
        Device of the network: ``'cpu'``, ``'cuda'`` and so on; by default a GPU
        if available.
    dtype : {'float32', 'bfloat16'}, optional
        Precision of the network's arithmetic; by default ``'bfloat16'`` where the device computes
        in it and the weights normalise by the background. This is faster, and moves fluxes by
        less than a tenth of their errors.
    batch_size : int, optional
        Number of cutouts per forward pass; affects speed and memory, not results.
    progress : bool, optional
        Whether to show a progress bar after two seconds; by default on a terminal and in a
        notebook.

    Examples
    --------
    >>> import numpy as np
    >>> from csr_astro import NeuralBackgroundEstimator
    >>> yy, xx = np.indices((120, 120))
    >>> slope = 1.0 + 0.01 * xx
    >>> star = 50 * np.exp(-0.5 * ((xx - 60) ** 2 + (yy - 50) ** 2) / 2.0)
    >>> estimator = NeuralBackgroundEstimator(fwhm=3.3)
    >>> result = estimator.estimate(slope + star, [(60, 50)])
    >>> bool(abs(result.background[50, 60] - 1.6) < 0.05)
    True
    """

    def __init__(
        self,
        weights: PathLike = 'default',
        *,
        instrument: str | Instrument | None = None,
        fwhm: float | u.Quantity | None = None,
        psf: PsfLike | None = None,
        preset: Literal['default', 'paper'] = 'default',
        orientations: Literal[1, 2, 4, 8] | None = None,
        centroid_func: Callable | None = None,
        device: str | None = None,
        dtype: Literal['float32', 'bfloat16'] | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> None:
        if not isinstance(preset, str) or preset not in _PRESETS:
            raise ValueError(f'preset must be one of {sorted(_PRESETS)}, got {preset!r}.')
        if orientations not in (None, 1, 2, 4, 8):
            raise ValueError(f'orientations must be 1, 2, 4 or 8, got {orientations!r}.')
        if dtype not in (None, 'float32', 'bfloat16'):
            raise ValueError(f"dtype must be 'float32' or 'bfloat16', got {dtype!r}.")
        if batch_size is not None and not (
            isinstance(batch_size, numbers.Integral) and batch_size > 0
        ):
            raise ValueError(f'batch_size must be a positive integer, got {batch_size!r}.')
        if centroid_func is not None and not callable(centroid_func):
            raise TypeError(f'centroid_func must be callable, got {centroid_func!r}.')
        if centroid_func is not None and 'mask' not in signature(centroid_func).parameters:
            raise ValueError(
                "centroid_func must take the keyword 'mask', as those of photutils.centroids do."
            )
        if isinstance(instrument, str) and instrument == 'generic' and fwhm is None:
            raise ValueError("the instrument 'generic' needs its beam; give fwhm=.")
        known = instrument is not None or fwhm is not None
        beam = get_instrument('generic' if instrument is None else instrument, fwhm)
        #: Instrument, None if the header of each map tells it.
        self.instrument: Any = beam if known else None
        _, inner, outer = beam.snr_radii
        super().__init__(inner, outer)
        self.weights = weights
        self.psf = psf
        self.preset = preset
        self.orientations = orientations or _PRESETS[preset].orientations
        self.centroid_func = centroid_func
        self.device = device
        self.batch_size = batch_size
        self.progress = progress
        # Read now, so that a misspelt name fails here and not hours later.
        self._info = self._read_info()
        self._default_dtype = dtype is None
        # In the range of bright sources, bfloat16 does not resolve the background.
        self.dtype = dtype or self._fast_dtype()

    def _fast_dtype(self):
        """The fastest precision of the device that resolves what the weights are shown."""
        from csr_astro.nn.device import best_dtype, resolve_device

        fast = str(best_dtype(resolve_device(self.device))).removeprefix('torch.')
        return fast if self._info.normalization == 'local' else 'float32'

    def _read_info(self):
        from csr_astro.nn.device import resolve_device
        from csr_astro.nn.weights import preset_weights, read_info

        resolve_device(self.device)
        weights = self.weights
        if isinstance(weights, str) and weights == 'default':
            weights = preset_weights(self.preset, self.instrument and self.instrument.name)
            if _PRESETS[self.preset].published:
                warnings.warn(
                    "the bundled weights of the preset 'paper' are far from trained out: they are "
                    'for comparison, and their backgrounds are too low; convert the published '
                    'checkpoint (csr-astro weights convert) and give it as weights.',
                    AstropyUserWarning,
                    stacklevel=3,
                )
        info = read_info(weights)
        if _PRESETS[self.preset].published and (info.normalization, info.fill) != _PUBLISHED:
            raise ValueError(
                f"the preset 'paper' needs weights of the paper's network, normalised by minimum "
                f'and maximum and without a fill; {str(weights)!r} has the normalisation '
                f'{info.normalization!r} and the fill {info.fill!r}.'
            )
        return info

    def __repr__(self) -> str:
        return (
            f'<NeuralBackgroundEstimator(weights={str(self.weights)!r}, '
            f'instrument={self.instrument and self.instrument.name!r}, preset={self.preset!r}, '
            f'orientations={self.orientations})>'
        )

    def _repr_html_(self) -> str:
        return html_table(
            'NeuralBackgroundEstimator',
            {
                'weights': self.weights,
                'instrument': f'{self.instrument.name}, {self.instrument.description}'
                if self.instrument
                else 'by the header of the map',
                'beam': self.instrument and f'{self.instrument.fwhm:.3g} pixels',
                'preset': self.preset,
                'orientations': self.orientations,
                'centroids': getattr(self.centroid_func, '__name__', self.centroid_func),
                'device': self.device,
                'dtype': self.dtype,
            },
        )

    def pixel_psf(self, pixel_scale: float | None = None) -> PixelPSF:
        """The PSF on the pixels of a map.

        Parameters
        ----------
        pixel_scale : float, optional
            Side of a pixel of the map in arcsec; by default that of the instrument.

        Returns
        -------
        psf : `~csr_astro.fitting.PixelPSF`

        Examples
        --------
        >>> from csr_astro import NeuralBackgroundEstimator
        >>> NeuralBackgroundEstimator(instrument='pacs-scanmap-blue').pixel_psf(1.6)
        <PixelPSF: FWHM 3.13 pixels, up to 37.8 pixels>
        """
        from csr_astro.fitting.psf import pixel_psf
        from csr_astro.simulation.psf import instrument_profile

        instrument = self.instrument.on_pixels(pixel_scale)
        scale = pixel_scale or instrument.pixel_scale
        psf = instrument_profile(instrument) if self.psf is None else self.psf
        return pixel_psf(psf, scale)

    @property
    def knows_wings(self) -> bool:
        """Whether the wings of the PSF are known, and not only the width of its core.

        With a beam alone they are not: few PSFs are Gaussians without wings. The network, which
        was trained on sources with wings, guesses them then.
        """
        return self.psf is not None or (
            self.instrument is not None and self.instrument.psf_model is not None
        )

    @property
    def provenance(self) -> dict[str, object]:
        """Weights, instrument and arguments, for the ``meta`` of results."""
        return {
            'weights': self._info.name,
            'weights_sha256': self._info.sha256,
            'instrument': self.instrument and self.instrument.name,
            'preset': self.preset,
            'orientations': self.orientations,
            'dtype': self.dtype,
            'fwhm': self.instrument and self.instrument.fwhm,
            'psf_of': self.instrument and self.instrument.psf_of,
            'psf': _named(self.psf),
            'centroid_func': getattr(self.centroid_func, '__name__', str(self.centroid_func)),
        }

    def replace(self, **changes: Any) -> NeuralBackgroundEstimator:
        """Return a copy with some arguments changed.

        Parameters
        ----------
        **changes
            Arguments of `NeuralBackgroundEstimator`.

        Returns
        -------
        estimator : `NeuralBackgroundEstimator`

        Examples
        --------
        >>> from csr_astro import NeuralBackgroundEstimator
        >>> NeuralBackgroundEstimator(fwhm=3.3).replace(orientations=1).orientations
        1
        """
        arguments = {name: getattr(self, name) for name in _ARGUMENTS} | changes
        if 'preset' in changes and 'orientations' not in changes:
            arguments['orientations'] = None
        if self._default_dtype and 'dtype' not in changes:
            arguments['dtype'] = None
        if changes.get('fwhm') is not None and 'instrument' not in changes:
            arguments['instrument'] = None
        return NeuralBackgroundEstimator(**arguments)

    def for_image(self, image: Image) -> NeuralBackgroundEstimator:
        """Return the estimator with the instrument of a map.

        Parameters
        ----------
        image : `~csr_astro.images.Image`
            The map, whose header tells the instrument if the estimator has none.

        Returns
        -------
        estimator : `NeuralBackgroundEstimator`

        Raises
        ------
        ValueError
            If neither tells it.
        """
        header = image.header
        if header is None:
            if self.instrument is None:
                raise ValueError('the beam of the map is not known; give instrument= or fwhm=.')
            return self
        instrument = require_instrument(header) if self.instrument is None else self.instrument
        if self.psf is None:
            instrument = instrument.with_psf_of(header, image.pixel_scale)
            middle = (np.array(image.shape[::-1]) - 1) / 2
            instrument = instrument.turned(header, north_angle(image.wcs, *middle))
        if instrument is self.instrument:
            return self
        known = copy.copy(self)
        known.instrument = instrument
        _, known.inner_radius, known.outer_radius = known.instrument.snr_radii
        # The weights of a preset depend on the instrument.
        known._info = known._read_info()  # noqa: SLF001
        return known

    @property
    def predictor(self) -> Predictor:
        """The `~csr_astro.prediction.Predictor`, which can be sent to other processes."""
        return Predictor(
            self._info.name,
            self._info.sha256,
            _PRESETS[self.preset].published,
            self.orientations,
            self.device,
            self.dtype,
        )

    def plan(
        self,
        data: ImageLike,
        sources: SourcesLike,
        *,
        mask: ArrayLike | PathLike | None = None,
        error: QuantityLike | PathLike | None = None,
        wcs: WcsLike | None = None,
        mask_radius: QuantityLike | Literal['snr'] | None = None,
        columns: str | Sequence[str] | None = None,
        keep: bool = False,
        hdu: str | int | None = None,
        plane: int | Sequence[int] | None = None,
        wings: bool = True,
    ) -> Plan:
        """Plan a removal, the first of the three steps of `estimate`.

        Parameters
        ----------
        data, sources, mask, error, wcs, mask_radius, columns, keep, hdu, plane
            As in `estimate`.
        wings : bool, optional
            Whether the wings of bright sources are fitted.

        Returns
        -------
        plan : `~csr_astro.plan.Plan`
        """
        from csr_astro.nn.device import resolve_device

        image = parse_image(data, mask=mask, error=error, wcs=wcs, hdu=hdu, plane=plane)
        device = resolve_device(self.device).type
        known = self.for_image(image)
        known._check_beam(known.instrument.on_pixels(image.pixel_scale))  # noqa: SLF001
        published = _PRESETS[self.preset].published
        plan = plan_removal(
            image,
            parse_sources(sources, image.wcs, columns=columns, keep=keep),
            known.instrument,
            mask_radius=mask_radius,
            centroid_func=self.centroid_func,
            batch_size=self.batch_size or BATCH_SIZES.get(device, 16),
            published=published,
        )
        if published or not wings or not known.knows_wings:
            return plan
        from csr_astro.fitting.wings import fit_wings

        return replace(plan, model=fit_wings(plan, known.pixel_psf(image.pixel_scale)))

    def _check_beam(self, instrument):
        """Warn if the weights were trained for narrower or wider beams."""
        low, high = self._info.beams or (0, np.inf)
        if not low <= instrument.fwhm <= high:
            warnings.warn(
                f'the beam is {instrument.fwhm:.3g} pixels wide; the weights {self._info.name!r} '
                f'were trained for {low:g} to {high:g}: rebin the map, or train weights for it.',
                AstropyUserWarning,
                stacklevel=4,
            )

    # ------------------------------------------------------------------------------- estimation

    def __call__(
        self, data: ArrayLike, x: ArrayLike, y: ArrayLike, mask: ArrayLike | None = None
    ) -> float | np.ndarray:
        """Return the background of each source as one number, as photutils' local backgrounds.

        Parameters
        ----------
        data : (ny, nx) array
            The map.
        x, y : float or (N,) array of float
            Positions in pixels.
        mask : (ny, nx) array of bool, optional
            True for invalid pixels.

        Returns
        -------
        background : float, (N,) `~numpy.ndarray` of float or Quantity
            Mean of the predicted background, weighted by a Gaussian of the
            instrument's beam: the constant that leaves the flux of a PSF fit
            unbiased. NaN for a source without prediction. In the unit of the data if they
            are a Quantity.

        Notes
        -----
        photutils passes no WCS, so the map is assumed to have the pixel scale of the
        instrument. For another pixel scale, in arcsec, give
        ``instrument=get_instrument(name).on_pixels(scale)``; ``fwhm`` cannot be an angle.
        """
        x, y = np.atleast_1d(x).astype(float), np.atleast_1d(y).astype(float)
        if x.shape != y.shape:
            raise ValueError(f'x and y must be equally many, got {x.size} and {y.size}.')
        result = self.estimate(data, np.column_stack([x, y]), mask=mask)
        background = u.Quantity(result.background).value
        fwhm = result.instrument.fwhm
        values = np.full(len(x), np.nan)
        for i, source_mask in enumerate(result.source_masks):
            if source_mask is None:
                continue
            yy, xx = source_mask.on_map()
            distance2 = (xx - x[i]) ** 2 + (yy - y[i]) ** 2
            # Relative to the nearest pixel, so that not all weights can underflow.
            weight = np.exp(-4 * np.log(2) * (distance2 - distance2.min()) / fwhm**2)
            values[i] = np.average(background[yy, xx], weights=weight)
        found = values[0] if values.size == 1 else values
        return u.Quantity(found, result.unit) if result.image.as_quantity else found

    def estimate(
        self,
        data: ImageLike,
        sources: SourcesLike,
        *,
        mask: ArrayLike | PathLike | None = None,
        error: QuantityLike | PathLike | None = None,
        wcs: WcsLike | None = None,
        mask_radius: QuantityLike | Literal['snr'] | None = None,
        columns: str | Sequence[str] | None = None,
        keep: bool = False,
        hdu: str | int | None = None,
        plane: int | Sequence[int] | None = None,
    ) -> NeuralBackground:
        """Predict the background behind every source of a map.

        Parameters
        ----------
        data : path-like, NDData, CCDData, Cutout2D, image HDU, HDUList, Quantity or array
            The map, (ny, nx); see `~csr_astro.images.parse_image`. It is not modified.
        sources : path-like, SkyCoord, regions, table or (N, 2) array of (x, y)
            The sources, see `~csr_astro.sources.parse_sources`.
        mask : (ny, nx) array of bool or path-like, optional
            True for invalid pixels, in addition to those that are not finite.
        error : (ny, nx) array, Quantity or path-like, optional
            1-sigma error of the map, used for the errors of results.
        wcs : optional
            World coordinate system; replaces that of ``data``.
        mask_radius : float, Quantity, array or 'snr', optional
            Radius of the masks in pixels or as an angle, one for all or one for
            each source. By default regions with an area are the masks
            themselves, and all other masks are discs with a radius set by the peak contrast
            (column ``snr``; paper, Sect. 2.4.4); with ``'snr'`` all masks are such discs.
        columns : str or sequence of str, optional
            Columns of a table that hold the positions, such as ``('RA', 'DEC')``, see
            `~csr_astro.columns.find_positions`; by default those with known names.
        keep : bool, optional
            Whether the results keep all columns of the table of sources, with the prefix
            ``catalog_`` where a name is taken. The ids are kept in any case.
        hdu : str or int, optional
            Extension of the image in a file or HDUList.
        plane : int or sequence of int, optional
            Plane of a cube, zero-based.

        Returns
        -------
        result : `NeuralBackground`

        Raises
        ------
        TypeError, ValueError
            If an argument is not of an accepted kind. A source that cannot be
            measured raises no error; its row has a flag.
        """
        plan = self.plan(
            data,
            sources,
            mask=mask,
            error=error,
            wcs=wcs,
            mask_radius=mask_radius,
            columns=columns,
            keep=keep,
            hdu=hdu,
            plane=plane,
        )
        known = self.for_image(plan.image)
        started = time.perf_counter()
        result = combine(plan, known.predictor.parts(plan, progress=self.progress), known)
        _LOG.info(
            '%s: %s, weights %s, %.1f s', shape_text(result.image),
            count_sources(result.sources), self.weights, time.perf_counter() - started,
        )  # fmt: skip
        return result


def _named(psf):
    """Describe a PSF in a word: its file, or its class."""
    if psf is None:
        return 'instrument'
    return str(psf) if isinstance(psf, str | os.PathLike) else type(psf).__name__
