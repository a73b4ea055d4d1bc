"""Magnitudes (AB), fluxes, and extinction by Galactic dust."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

NANOMAGGIES = 22.5  # AB magnitude of a source of 1 nanomaggie

Number = TypeVar("Number", float, np.ndarray)

# A / E(B-V) in the bands of the Dark Energy Camera (legacysurvey.org, after Schlafly & Finkbeiner
# 2011, ApJ 737, 103).
DECAM_EXTINCTION = {"g": 3.214, "r": 2.165, "i": 1.592, "z": 1.211}


def magnitude(
    flux: np.ndarray, transmission: np.ndarray | float = 1.0, zero_point: float = NANOMAGGIES
) -> np.ndarray:
    """Return the AB magnitude [n], float64, of a flux [n] corrected for dust.

    `transmission` is the fraction of light transmitted by dust. NaN if flux or transmission is not
    positive.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        intrinsic = np.asarray(flux, "f8") / np.asarray(transmission, "f8")
    positive = np.isfinite(intrinsic) & (intrinsic > 0)
    return zero_point - 2.5 * np.log10(np.where(positive, intrinsic, np.nan))


def flux(magnitude: Number, zero_point: float = NANOMAGGIES) -> Number:
    """Return the flux of an AB magnitude, in nanomaggies by default."""
    return 10 ** (0.4 * (zero_point - magnitude))


def transmission(reddening: float, coefficients: Mapping[str, float]) -> dict[str, float]:
    """Return the fraction of light transmitted by dust of this E(B-V), by band.

    `coefficients`: A / E(B-V) of each band.
    """
    return {band: float(10 ** (-0.4 * k * reddening)) for band, k in coefficients.items()}
