"""Point spread functions of Herschel's PACS and SPIRE: a core, a ring of lobes and wings.

The parameters are data, in ``data/psf_models.toml``.
"""

from __future__ import annotations

import numpy as np

from csr_astro.instruments import get_instrument, list_instruments
from csr_astro.simulation.profiles import Profile, positive_number, smeared_profile
from csr_astro.utils.data import read_data

__all__ = ['band_profile', 'pacs_profile']


def pacs_brightness(model, x, y):
    """Surface brightness of a PSF of PACS or SPIRE, in units of the core's central brightness.

    The model is the sum of an elliptical Gaussian; a ring of three lobes,
    ``exp(−(r − ρ)²/2w²) (1 + c cos 3(θ − θ₀))``; and wings
    ``(1 + r²/s²)^(−p/2)``.

    Parameters
    ----------
    model : dict
        An entry of ``data/psf_models.toml``.
    x, y : array-like of float
        Offsets in arcsec.

    Returns
    -------
    brightness : `~numpy.ndarray` of float
    """
    core, lobes, wings = (model[part] for part in ('core', 'lobes', 'wings'))
    r2 = x**2 + y**2
    angle = np.radians(core['angle'])
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    major, minor = core['fwhm']
    brightness = np.exp(-4 * np.log(2) * ((along / major) ** 2 + (across / minor) ** 2))
    azimuth = np.arctan2(y, x) - np.radians(lobes['angle'])
    ring = np.exp(-0.5 * ((np.sqrt(r2) - lobes['radius']) / lobes['width']) ** 2)
    brightness += lobes['amplitude'] * ring * (1 + lobes['contrast'] * np.cos(3 * azimuth))
    return brightness + wings['amplitude'] * (1 + r2 / wings['radius'] ** 2) ** (
        -wings['exponent'] / 2
    )


def pacs_profile(
    band: str, pixel_scale: float, *, radius: float = 60.0, smear: float = 0.0
) -> Profile:
    """The PSF of a band of Herschel/PACS: core, three lobes and wings.

    The model was fitted to images of Vesta and to the tables of enclosed energy. A stamp of unit
    sum encloses the energies of the table ``vesta``. The table ``eef``, for real sources, also
    counts the energy beyond 60 arcsec: it is smaller by the model's ``energy_within_edge``.

    Parameters
    ----------
    band : {'blue', 'green', 'red'} or str
        Band at 70, 100 or 160 micrometres; or the name of a PACS instrument, as
        ``'pacs-scanmap-blue'``.
    pixel_scale : float
        Side of a pixel of the map in arcsec.
    radius : float, optional
        Radius at which the wings end, in arcsec.
    smear : float, optional
        Length in arcsec by which a fast scan smears it along the x axis: 12 (blue, green) or 6
        (red) in parallel mode. See `~csr_astro.simulation.profiles.smeared_profile`.

    Returns
    -------
    profile : `~csr_astro.simulation.profiles.Profile`

    Examples
    --------
    >>> from csr_astro.simulation.psf import encircled_energy, pacs_profile
    >>> profile = pacs_profile('blue', 1.6)
    >>> print(encircled_energy(profile, 12 / 1.6).round(2))  # 12 arcsec
    0.88
    """
    bands = ('blue', 'green', 'red')
    name = get_instrument(band).psf_model if band in list_instruments() else str(band)
    if name not in bands:
        raise ValueError(f'band must be one of {list(bands)} or a PACS instrument, got {band!r}.')
    return band_profile(name, pixel_scale, radius=radius, smear=smear)


def band_profile(
    name: str,
    pixel_scale: float,
    *,
    radius: float | None = None,
    smear: float = 0.0,
    angle: float = 0.0,
) -> Profile:
    """The PSF of a band of PACS or SPIRE.

    Parameters
    ----------
    name : str
        Entry of ``data/psf_models.toml``.
    pixel_scale : float
        Side of a pixel of the map in arcsec.
    radius : float, optional
        Radius at which the wings end, in arcsec; by default that of the model.
    smear : float, optional
        As in `pacs_profile`.
    angle : float, optional
        Degrees by which it is turned from the orientation of the spacecraft, counter-clockwise.

    Returns
    -------
    profile : `~csr_astro.simulation.profiles.Profile`

    Examples
    --------
    >>> from csr_astro.simulation.pacs import band_profile
    >>> from csr_astro.simulation.psf import encircled_energy
    >>> profile = band_profile('spire-250', 6.0)
    >>> print((0.9707 * encircled_energy(profile, 22 / 6)).round(2))
    0.79
    """
    model = dict(read_data('psf_models.toml')[name])
    for part in ('core', 'lobes'):
        model[part] = model[part] | {'angle': model[part]['angle'] + angle}
    radius = model['edge'] if radius is None else radius
    pixel_scale, radius, smear = (
        positive_number(value, what, zero=what == 'smear')
        for value, what in ((pixel_scale, 'pixel_scale'), (radius, 'radius'), (smear, 'smear'))
    )

    def brightness(dx, dy):
        return pacs_brightness(model, np.asarray(dx) * pixel_scale, np.asarray(dy) * pixel_scale)

    profile = Profile(brightness, radius / pixel_scale)
    return smeared_profile(profile, smear / pixel_scale) if smear else profile
