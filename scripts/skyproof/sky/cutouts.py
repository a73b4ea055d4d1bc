"""The gather of stamps out of the planes of a brick, compiled.

A stamp is 64 short pieces of each plane, each on a memory page of its own, and its axes are
exchanged on the way. numpy does this band by band and waits for memory at every piece.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numba
import numpy as np

from skyproof.obiwan.survey import HALF, STAMP

_LINE = 16  # float32 values that memory hands out at a time
_TILE = 32  # columns whose turned rows stay in the innermost cache

Gather = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.float32]


def gather(planes: np.ndarray, cx: np.ndarray, cy: np.ndarray, out: np.ndarray) -> None:
    """Copy the stamps around pixels cx, cy [n] of planes [band, ny, nx] to out [n, x, y, band].

    All are float32 and contiguous; all stamps must lie inside.
    """
    _compiled(len(planes))(planes, cx, cy, out)


@cache
def _compiled(n_bands: int) -> Gather:
    """Return the loop for so many bands: twice as fast where the compiler knows the number."""

    def loop(planes: np.ndarray, cx: np.ndarray, cy: np.ndarray, out: np.ndarray) -> np.float32:
        seen = np.float32(0)
        for row in range(len(cx)):
            x0, y0 = cx[row] - HALF, cy[row] - HALF
            # One value of each line of the stamp, first: these loads need not wait for each other,
            # as those of the copy must. Their maximum is returned, else they would be left out.
            for band in range(n_bands):
                for y in range(y0, y0 + STAMP):
                    for x in range(x0, x0 + STAMP, _LINE):
                        seen = max(seen, planes[band, y, x])
                    seen = max(seen, planes[band, y, x0 + STAMP - 1])
            for left in range(0, STAMP, _TILE):
                for y in range(STAMP):
                    for x in range(left, left + _TILE):
                        for band in range(n_bands):
                            out[row, x, y, band] = planes[band, y0 + y, x0 + x]
        return seen

    try:
        return numba.njit(cache=True)(loop)
    except RuntimeError:  # no folder that it may be kept in: each process compiles
        return numba.njit(loop)


def gather_edge(planes: np.ndarray, cx: np.ndarray, cy: np.ndarray, out: np.ndarray) -> None:
    """As `gather`, for stamps that reach over the edge: pixels outside the image become 0.

    0 is no NaN that would spread through a network, and an inverse variance of 0 marks them.
    """
    ny, nx = planes.shape[1:]
    out[...] = 0
    for row, x0, y0 in zip(range(len(cx)), cx - HALF, cy - HALF, strict=True):
        x = slice(max(x0, 0), min(x0 + STAMP, nx))
        y = slice(max(y0, 0), min(y0 + STAMP, ny))
        place = out[row, x.start - x0 : x.stop - x0, y.start - y0 : y.stop - y0]
        place[...] = planes[:, y, x].T
