"""Geometry of stamps, the square cutouts around pixels of an image.

A stamp of `size` pixels around a centre pixel c covers the pixels c - size // 2 to
c - size // 2 + size - 1 along each axis: the centre pixel has the index size // 2.
"""

from __future__ import annotations

import numpy as np


def centre_pixel(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 0-based pixels (x, y), int64 [n], that contain positions [n] (pixels).

    Pixel 3 covers [2.5, 3.5). Positions are rounded, not truncated: the offset of a source from the
    centre of its stamp's centre pixel is in [-0.5, 0.5).
    """
    return np.floor(x + 0.5).astype("i8"), np.floor(y + 0.5).astype("i8")


def on_image(cx: np.ndarray, cy: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return which centre pixels [n] are on an image [ny, nx], bool [n]."""
    return (cx >= 0) & (cx < shape[1]) & (cy >= 0) & (cy < shape[0])


def stamp_inside(cx: np.ndarray, cy: np.ndarray, shape: tuple[int, int], size: int) -> np.ndarray:
    """Return which stamps of `size` pixels are entirely on an image [ny, nx], bool [n]."""
    before = size // 2
    after = size - before - 1
    return on_image(cx - before, cy - before, shape) & on_image(cx + after, cy + after, shape)
