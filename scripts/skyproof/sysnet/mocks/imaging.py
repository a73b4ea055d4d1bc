"""The imaging of a mock survey: footprint and 18 templates, as in the eBOSS tables.

Dust, hydrogen and stars depend on Galactic latitude and a smooth field of low multipoles. Seeing,
sky brightness, exposure time and date are constant per night and stretch of a declination stripe,
and correlated between the three bands. Depth follows from the other templates. All depends only on
the seed of the survey: mock skies of one survey differ only in their galaxies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skyproof.core.comm import Comm, share
from skyproof.core.seeds import Stream
from skyproof.sky.photometry import DECAM_EXTINCTION
from skyproof.sysnet.mocks.fields import gaussian_field

BANDS = "rgz"
GALACTIC = ("ebv", "ln_hi", "n_star")
NIGHTLY = ("seeing", "sky", "exptime", "mjd")
NAMES = (*GALACTIC, *(f"{what}_{band}" for what in ("depth", *NIGHTLY) for band in BANDS))

_MIN_LATITUDE = 20.0  # deg, |b|
_MIN_DECLINATION = -30.0  # deg
_SMOOTHEST, _LMAX = 1, 47  # multipoles of the smooth fields: representable at all resolutions
_PASSES = 3  # exposures of a pixel and band
_STRIPE, _BLOCK = 3.2, 12.0  # deg of declination and of right ascension (at the equator)
# Fractions of the variance of a nightly quantity: common to all bands, separate per band, smooth.
_SHARED, _OWN, _SMOOTH = 0.45, 0.35, 0.2

# Median by band r, g, z, and the scatter: arcsec, mag / arcsec2, ln s, days.
_SEEING = ((1.18, 1.29, 1.11), 0.12)
_SKY = ((21.0, 22.0, 18.8), 0.25)
_LN_EXPTIME = ((4.6, 4.9, 5.0), 0.25)
_MJD = ((57100.0, 57000.0, 57200.0), 250.0)
_DEPTH = (23.4, 23.9, 22.5)  # mag, 5 sigma, at the medians
_DEPTH_SCATTER = 0.15  # mag: clouds


@dataclass(frozen=True)
class Imaging:
    """Pixels (RING, celestial) of the footprint, ascending [n], and their templates [n, 18]."""

    nside: int
    hpix: np.ndarray
    templates: np.ndarray


def footprint(nside: int) -> np.ndarray:
    """Return the pixels (RING, celestial) of the mock survey: |b| > 20 deg and dec > -30 deg."""
    hpix = np.arange(12 * nside**2)
    _, dec = _equatorial(nside, hpix)
    _, latitude = _galactic(nside, hpix)
    return hpix[(np.abs(latitude) > _MIN_LATITUDE) & (dec > _MIN_DECLINATION)]


def draw_imaging(nside: int, stream: Stream, comm: Comm) -> Imaging:
    """Draw the templates. The ranks divide the random fields; all ranks return all templates."""
    hpix = footprint(nside)
    fields = {}
    for name in share(_field_names(), comm):
        fields[name] = _draw_field(name, nside, hpix, stream)
    drawn = {name: field for part in comm.allgather(fields) for name, field in part.items()}
    return Imaging(nside, hpix, _templates(nside, hpix, drawn))


def _field_names() -> list[str]:
    nightly = [f"{what} {kind}" for what in NIGHTLY for kind in ("smooth", "all", *BANDS)]
    return ["dust", "hydrogen", "stars", *nightly, *(f"clouds {band}" for band in BANDS)]


def _draw_field(name: str, nside: int, hpix: np.ndarray, stream: Stream) -> np.ndarray:
    """Return a field of unit variance on the footprint, drawn from the stream of its name."""
    rng = stream("imaging", name)
    if name in ("dust", "hydrogen", "stars") or name.endswith("smooth"):
        l = np.arange(_LMAX + 1.0)  # noqa: E741
        power = np.where(l >= _SMOOTHEST, np.maximum(l, 1) ** -2.0, 0)
        power *= 4 * np.pi / ((2 * l + 1) * power).sum()
        return gaussian_field(power, nside, rng)[hpix]
    return _nights(nside, hpix, rng)


def _nights(nside: int, hpix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the sum over passes of a normal deviate per night, scaled to unit variance."""
    ra, dec = _equatorial(nside, hpix)
    total = np.zeros(len(hpix))
    for _ in range(_PASSES):
        offset_dec, offset_ra = rng.uniform(0, 1, 2)
        stripe = np.floor((dec + 90) / _STRIPE + offset_dec).astype(int)
        centre = np.deg2rad(np.clip((stripe + 0.5 - offset_dec) * _STRIPE - 90, -89, 89))
        per_stripe = np.maximum(np.round(360 / _BLOCK * np.cos(centre)), 1)
        block = np.floor((ra / 360 + offset_ra) % 1 * per_stripe).astype(int)
        nights = rng.standard_normal((int(180 / _STRIPE) + 3, int(360 / _BLOCK) + 1))
        total += nights[stripe, block]
    return total / np.sqrt(_PASSES)


def _templates(nside: int, hpix: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
    """Return the templates [n, 18] in the order of NAMES."""
    longitude, latitude = _galactic(nside, hpix)
    path = 1 / np.sin(np.deg2rad(np.abs(latitude))) - 1  # through the disc, less 1
    towards_centre = np.cos(np.deg2rad(longitude)) * np.cos(np.deg2rad(latitude))
    ln_dust = 0.5 * path + 0.5 * fields["dust"]
    made = {
        "ebv": 0.03 * np.exp(ln_dust),
        "ln_hi": 46.5 + 0.7 * ln_dust + 0.3 * fields["hydrogen"],
        "n_star": 800 * np.exp(0.4 * path + 0.6 * towards_centre + 0.2 * fields["stars"]),
    }
    for i, band in enumerate(BANDS):
        night = {what: _nightly(what, band, fields) for what in NIGHTLY}
        seeing = _SEEING[0][i] * np.exp(_SEEING[1] * night["seeing"])
        sky = _SKY[0][i] + _SKY[1] * night["sky"]
        ln_exptime = _LN_EXPTIME[0][i] + _LN_EXPTIME[1] * night["exptime"]
        made[f"seeing_{band}"] = seeing
        made[f"sky_{band}"] = sky
        made[f"exptime_{band}"] = np.exp(ln_exptime)
        made[f"mjd_{band}"] = _MJD[0][i] + _MJD[1] * night["mjd"]
        made[f"depth_{band}"] = (
            _DEPTH[i]
            - 2.5 * np.log10(seeing / _SEEING[0][i])
            + 0.5 * (sky - _SKY[0][i])
            + 1.25 * np.log10(np.e) * (ln_exptime - _LN_EXPTIME[0][i])
            - DECAM_EXTINCTION[band] * made["ebv"]
            + _DEPTH_SCATTER * fields[f"clouds {band}"]
        )
    return np.stack([made[name] for name in NAMES], axis=1)


def _nightly(what: str, band: str, fields: dict[str, np.ndarray]) -> np.ndarray:
    return (
        np.sqrt(_SMOOTH) * fields[f"{what} smooth"]
        + np.sqrt(_SHARED) * fields[f"{what} all"]
        + np.sqrt(_OWN) * fields[f"{what} {band}"]
    )


def _equatorial(nside: int, hpix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import healpy

    return healpy.pix2ang(nside, hpix, lonlat=True)


def _galactic(nside: int, hpix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Galactic longitude and latitude [deg] of pixels in the celestial frame."""
    import healpy

    ra, dec = _equatorial(nside, hpix)
    return healpy.Rotator(coord="CG")(ra, dec, lonlat=True)
