"""HEALPix pixels of a finer resolution inside those of a coarser one (Gorski et al. 2005)."""

from __future__ import annotations

import numpy as np


def superpixels(hpix: np.ndarray, nside: int, nside_group: int) -> np.ndarray:
    """Return the NESTED index [n] of the pixel at nside_group that holds each RING pixel at nside.

    Both are powers of 2, nside_group at most nside.
    """
    import healpy

    return healpy.ring2nest(nside, hpix) // (nside // nside_group) ** 2


def coarse_pixels(hpix: np.ndarray, fine: int, coarse: int) -> np.ndarray:
    """Return the RING pixel [n] at nside `coarse` that holds each RING pixel at nside `fine`."""
    import healpy

    if fine == coarse:
        return hpix
    return healpy.nest2ring(coarse, superpixels(hpix, fine, coarse))
