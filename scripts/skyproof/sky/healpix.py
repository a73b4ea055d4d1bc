"""Indices of the coarser HEALPix pixels that contain finer ones (Gorski et al. 2005)."""

from __future__ import annotations

import numpy as np


def superpixels(hpix: np.ndarray, nside: int, nside_group: int) -> np.ndarray:
    """Return the NESTED index [n] at nside_group of the pixel that contains each RING pixel.

    `hpix` [n] is at nside. Both are powers of 2, and nside_group is at most nside.
    """
    import healpy

    return healpy.ring2nest(nside, hpix) // (nside // nside_group) ** 2


def coarse_pixels(hpix: np.ndarray, fine: int, coarse: int) -> np.ndarray:
    """Return the RING pixel [n] at nside `coarse` that contains each RING pixel at nside `fine`."""
    import healpy

    if fine == coarse:
        return hpix
    return healpy.nest2ring(coarse, superpixels(hpix, fine, coarse))
