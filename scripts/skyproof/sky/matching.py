"""Nearest neighbours between two catalogues of sky positions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import KDTree

from skyproof.sky.sphere import chord, unit_vectors


def nearest_within(
    ra: ArrayLike, dec: ArrayLike, others_ra: ArrayLike, others_dec: ArrayLike, arcsec: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return for every position [n] (degrees) the nearest one of others [m] within a radius.

    Return whether there is one, bool [n], and its index, int [n] (m if there is none).
    """
    tree = KDTree(unit_vectors(others_ra, others_dec).reshape(-1, 3))
    vectors = unit_vectors(ra, dec).reshape(-1, 3)
    distance, index = tree.query(vectors, distance_upper_bound=chord(arcsec / 3600))
    return np.isfinite(distance), index
