"""The size of a stamp, and the part of a brick image that a stamp covers."""

from __future__ import annotations

import numpy as np

from skyproof.sky.stamps import centre_pixel

STAMP = 64  # side [pixel]
HALF = 32  # index of the centre pixel


def stamp_boxes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the boxes [n, 4] of the stamps around positions x, y [n] (pixels).

    A box is (x_low, x_high, y_low, y_high), its edges in pixels; pixel i covers [i - 0.5, i + 0.5).
    """
    cx, cy = centre_pixel(x, y)
    low, high = -HALF - 0.5, STAMP - HALF - 0.5
    return np.stack([cx + low, cx + high, cy + low, cy + high], axis=-1).astype(np.float64)
