"""Simulated measured catalogue of a synthetic brick, instead of a run of the Tractor.

Measured values are the truth plus noise, without masked sources. The noise depends only on flux,
size, seeing and depth, so that real and injected galaxies are measured in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from skyproof.obiwan.bricks.grid import PIXEL_SCALE, Brick, bricks_at
from skyproof.obiwan.mock.depth import Depth, point_spread
from skyproof.sky.tan import Tan

_CALIBRATION = 0.005  # relative error of a flux at any depth
_POINT_RADIUS = 0.2  # arcsec; sources with smaller measured radii are classified as points
_ROUND_SNR = 20.0  # at lower S/N, galaxies are fitted as round exponentials
_NEAR = 3  # half width [pixel] of the box over which the inverse variance is averaged


class Sources(NamedTuple):
    """True properties of all sources of a brick, arrays [n]."""

    x: np.ndarray  # 0-based pixel
    y: np.ndarray
    r_half: np.ndarray  # arcsec; 0 for stars
    bulge_share: np.ndarray
    flux: Mapping[str, np.ndarray]  # in the image [nanomaggies], by band


def measure(
    sources: Sources,
    depths: Mapping[str, Depth],
    fwhm: Mapping[str, float],
    dust: Mapping[str, float],
    brick: Brick,
    tan: Tan,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Return the columns of a Tractor catalogue, in an order independent of the classes."""
    n = len(sources.x)
    fluxes: dict[str, np.ndarray] = {}
    snr_squared = np.zeros(n)
    for band, depth in depths.items():
        flux, flux_ivar, nobs = _photometry(sources, depth, band, fwhm[band], rng)
        snr_squared += flux**2 * flux_ivar
        fluxes |= {f"flux_{band}": flux, f"flux_ivar_{band}": flux_ivar, f"nobs_{band}": nobs}
        fluxes[f"mw_transmission_{band}"] = np.full(n, dust[band])
        fluxes[f"psfsize_{band}"] = np.where(nobs > 0, fwhm[band], 0.0)
        fluxes[f"allmask_{band}"] = np.where(flux_ivar > 0, 0, 1).astype("i2")
    snr = np.maximum(np.sqrt(snr_squared), 3.0)
    width = float(np.mean([fwhm[b] for b in depths]))
    bx, by = _positions(sources, snr, width, rng)
    radius, kind = _forms(sources, snr, width, rng)
    ra, dec = tan.sky(bx, by)
    columns = {
        "brick_primary": bricks_at(ra, dec) == brick.id,
        "type": kind,
        "ra": ra,
        "dec": dec,
        "bx": bx.astype("f4"),
        "by": by.astype("f4"),
        "shapeexp_r": np.where(np.isin(kind, (b"REX", b"EXP")), radius, 0).astype("f4"),
        "shapedev_r": np.where(kind == b"DEV", radius, 0).astype("f4"),
        **{name: _single(column) for name, column in sorted(fluxes.items())},
    }
    order = rng.permutation(n)
    return {
        "brickid": np.full(n, brick.id, "i4"),
        "brickname": np.full(n, brick.name, "S8"),
        "objid": np.arange(n, dtype="i4"),
        **{name: column[order] for name, column in columns.items()},
    }


def _single(column: np.ndarray) -> np.ndarray:
    return column.astype("f4") if column.dtype == np.float64 else column


def _photometry(
    sources: Sources, depth: Depth, band: str, fwhm: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return measured flux, its inverse variance (both 0 without data), and nobs."""
    draw = rng.standard_normal(len(sources.x))
    ivar, nobs = _ivar_near(sources, depth.ivar), _at(sources, depth.nobs)
    gathered = (
        point_spread(fwhm).effective_pixels() + 4 * np.pi * (sources.r_half / PIXEL_SCALE) ** 2
    )
    seen = ivar > 0
    variance = gathered / np.where(seen, ivar, 1)
    variance += (_CALIBRATION * sources.flux[band]) ** 2
    flux = sources.flux[band] + draw * np.sqrt(variance)
    return np.where(seen, flux, 0), np.where(seen, 1 / variance, 0), nobs


def _at(sources: Sources, plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape
    column = np.clip(np.rint(sources.x).astype(int), 0, width - 1)
    row = np.clip(np.rint(sources.y).astype(int), 0, height - 1)
    return plane[row, column]


def _ivar_near(sources: Sources, ivar: np.ndarray) -> np.ndarray:
    steps = np.arange(-_NEAR, _NEAR + 1)
    height, width = ivar.shape
    columns = np.clip(np.rint(sources.x).astype(int)[:, None, None] + steps, 0, width - 1)
    rows = np.clip(np.rint(sources.y).astype(int)[:, None, None] + steps[:, None], 0, height - 1)
    return ivar[rows, columns].mean(axis=(1, 2), dtype=np.float64)


def _positions(
    sources: Sources, snr: np.ndarray, fwhm: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return measured positions, with the error of a centroid, 0.6 widths over the S/N."""
    width = np.hypot(fwhm, sources.r_half) / PIXEL_SCALE
    error = np.minimum(0.6 * width / snr, 0.5) * rng.standard_normal((2, len(snr)))
    return sources.x + error[0], sources.y + error[1]


def _forms(
    sources: Sources, snr: np.ndarray, fwhm: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the measured half-light radius [arcsec] and the best-fitting model."""
    error = np.hypot(fwhm, sources.r_half) / snr
    radius = np.maximum(sources.r_half + error * rng.standard_normal(len(snr)), 0)
    share = sources.bulge_share + np.minimum(4 / snr, 0.5) * rng.standard_normal(len(snr))
    kind = np.where(share > 0.6, b"DEV", b"EXP")
    kind = np.where((kind == b"EXP") & (snr < _ROUND_SNR), b"REX", kind)
    return radius, np.where(radius < _POINT_RADIUS, b"PSF", kind).astype("S4")
