"""Depth and seeing of a synthetic brick: the CCDs that cover it, their noise, masked pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from skyproof.obiwan.bricks.grid import PIXEL_SCALE
from skyproof.sky.photometry import flux
from skyproof.sky.profiles import MOFFAT, GaussianPsf

if TYPE_CHECKING:
    from skyproof.obiwan.options import Simulate

# Size of a CCD of the Dark Energy Camera and of the gaps, as fractions of a 3600 pixel brick, so
# that smaller bricks have the same pattern (Flaugher et al. 2015, AJ 150, 150).
_CCD = (4094 / 3600, 2046 / 3600)  # x, y
_GAP = (153 / 3600, 201 / 3600)
_EXPOSURES = (3, 5)  # per band
_DEAD = 0.03  # fraction of CCDs without data

# Depth in a band relative to g [mag], as in the survey's exposures.
_DEPTH = {"g": 0.0, "r": -0.5, "i": -0.9, "z": -1.3}
# Median FWHM relative to r: larger in blue bands.
_SEEING = {"g": 1.3 / 1.2, "r": 1.0, "i": 1.15 / 1.2, "z": 1.1 / 1.2}

CCD_DTYPE = np.dtype([
    ("expnum", "<i4"), ("ccdname", "S4"), ("filter", "S1"),
    ("fwhm", "<f4"),  # [pixel]
    ("sig1", "<f4"),  # noise of a pixel [nanomaggies]
    ("x0", "<i4"), ("x1", "<i4"), ("y0", "<i4"), ("y1", "<i4"),  # part of the brick, ends excluded
])  # fmt: skip


class Depth(NamedTuple):
    """Depth of one band over the brick, arrays [ny, nx]."""

    ivar: np.ndarray  # float32 [nanomaggies^-2]; 0 without data
    nobs: np.ndarray  # int16, number of CCDs that cover the pixel


def draw_seeing(bands: str, median: float, rng: np.random.Generator) -> dict[str, float]:
    """Draw the FWHM [arcsec] of each band of a brick, with 15 % scatter around the band's median.

    All bands are drawn, also those not in use, so that one band does not depend on the others.
    """
    drawn = {b: median * ratio * rng.uniform(0.85, 1.15) for b, ratio in _SEEING.items()}
    return {b: drawn[b] for b in bands}


def point_spread(fwhm: float) -> GaussianPsf:
    """Return the point-spread function of a coadd: a Moffat function of this FWHM [arcsec]."""
    return GaussianPsf(MOFFAT, fwhm / PIXEL_SCALE)


def pixel_noise(depth: float, fwhm: float) -> float:
    """Return sigma of a pixel [nanomaggies] for a 5-sigma point-source depth [mag] at this FWHM."""
    return float(flux(depth) / 5 / np.sqrt(point_spread(fwhm).effective_pixels()))


def draw_ccds(band: str, options: Simulate, fwhm: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the CCDs that cover a brick in one band, CCD_DTYPE [n]; `fwhm` in arcsec."""
    noise = pixel_noise(options.depth + _DEPTH[band], options.seeing * _SEEING[band])
    pixels = options.brick_pixels
    rows = []
    for exposure in range(rng.integers(_EXPOSURES[0], _EXPOSURES[1] + 1)):
        sigma = noise * np.exp(0.12 * rng.standard_normal())
        spans_x, spans_y = (_spans(pixels, k, rng) for k in (0, 1))
        for number, (y0, y1, x0, x1) in enumerate((*v, *h) for v in spans_y for h in spans_x):
            alive = rng.uniform() >= _DEAD
            sigma_ccd = sigma * np.exp(0.02 * rng.standard_normal())
            if alive:
                name = f"S{number + 1}"
                pixels_fwhm = fwhm / PIXEL_SCALE
                rows.append((exposure, name, band, pixels_fwhm, sigma_ccd, x0, x1, y0, y1))
    return np.array(rows, CCD_DTYPE)


def _spans(pixels: int, axis: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return the pixel ranges of the CCDs along one axis, for a random pointing."""
    length, gap = round(_CCD[axis] * pixels), max(1, round(_GAP[axis] * pixels))
    start = -int(rng.integers(length + gap))
    starts = range(start, pixels, length + gap)
    spans = [(max(s, 0), min(s + length, pixels)) for s in starts]
    return [span for span in spans if span[0] < span[1]]


def coadded(ccds: np.ndarray, pixels: int, rng: np.random.Generator) -> Depth:
    """Return the depth of the coadd of these CCDs, with masked pixels and dead columns."""
    ivar, nobs = np.zeros((pixels, pixels), np.float32), np.zeros((pixels, pixels), np.int16)
    for ccd in ccds:
        part = np.s_[ccd["y0"] : ccd["y1"], ccd["x0"] : ccd["x1"]]
        ivar[part] += 1 / ccd["sig1"] ** 2
        nobs[part] += 1
    for _ in range(rng.integers(1, 4)):
        x, low = rng.integers(pixels), rng.integers(pixels)
        ivar[low : low + rng.integers(pixels // 8, pixels // 2), x] = 0
    hot = rng.integers(pixels, size=(2, pixels**2 // 5000))
    ivar[hot[0], hot[1]] = 0
    return Depth(ivar, nobs)


def with_noise(image: np.ndarray, ivar: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the image with sky noise of standard deviation 1/sqrt(ivar), and 0 where ivar is 0.

    The photon noise of the sources is neglected: the sky is assumed to be much brighter.
    """
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    seen = ivar > 0
    sigma = 1 / np.sqrt(np.where(seen, ivar, np.float32(1)))
    return np.where(seen, image + noise * sigma, np.float32(0))
