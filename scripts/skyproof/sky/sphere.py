"""Positions on the sphere as unit vectors, without special cases at RA 0/360 or at the poles."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def unit_vectors(ra: ArrayLike, dec: ArrayLike) -> np.ndarray:
    """Return the unit vectors [..., 3] of positions in degrees."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def chord(angle: float) -> float:
    """Return the distance of two unit vectors that are separated by an angle in degrees."""
    return float(2 * np.sin(np.radians(angle) / 2))
