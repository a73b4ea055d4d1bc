"""Copying stamps out of the planes of an image (`sky.stamps` defines which pixels they cover).

A stamp is `size` short pieces of each plane, each on a memory page of its own, and its axes are
exchanged on the way. numpy does this band by band and waits for memory at every piece; the loop
here is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numba
import numpy as np

_CACHE_LINE = 16  # float32 values that memory delivers at a time
_TILE = 32  # columns whose transposed rows stay in the innermost cache

Gather = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.float32]


def gather(planes: np.ndarray, cx: np.ndarray, cy: np.ndarray, out: np.ndarray) -> None:
    """Copy the stamps around pixels cx, cy [n] of planes [band, ny, nx] to out [n, x, y, band].

    The size of a stamp is that of `out`, whose x and y axes are equally long. All arrays are
    contiguous float32; all stamps must lie inside the image (`sky.stamps.stamp_inside`).
    """
    _compiled(len(planes), out.shape[1])(planes, cx, cy, out)


@cache
def _compiled(n_bands: int, size: int) -> Gather:
    """Return the loop for this number of bands and size: both known, it is twice as fast."""
    before = size // 2
    tile = _TILE if size % _TILE == 0 else size

    def loop(planes: np.ndarray, cx: np.ndarray, cy: np.ndarray, out: np.ndarray) -> np.float32:
        seen = np.float32(0)
        for row in range(len(cx)):
            x0, y0 = cx[row] - before, cy[row] - before
            # One value of each cache line of the stamp first: these loads need not wait for each
            # other, as those of the copy must. Returning their maximum keeps the compiler from
            # removing them.
            for band in range(n_bands):
                for y in range(y0, y0 + size):
                    for x in range(x0, x0 + size, _CACHE_LINE):
                        seen = max(seen, planes[band, y, x])
                    seen = max(seen, planes[band, y, x0 + size - 1])
            for left in range(0, size, tile):
                for y in range(size):
                    for x in range(left, left + tile):
                        for band in range(n_bands):
                            out[row, x, y, band] = planes[band, y0 + y, x0 + x]
        return seen

    try:
        return numba.njit(cache=True)(loop)
    except RuntimeError:  # no folder for the compiled code can be written: each process compiles
        return numba.njit(loop)


def gather_edge(
    planes: np.ndarray, cx: np.ndarray, cy: np.ndarray, out: np.ndarray, fill: float
) -> None:
    """As `gather`, for stamps that extend beyond the image: pixels outside it become `fill`."""
    ny, nx = planes.shape[1:]
    size = out.shape[1]
    out[...] = fill
    for row, x0, y0 in zip(range(len(cx)), cx - size // 2, cy - size // 2, strict=True):
        x = slice(max(x0, 0), min(x0 + size, nx))
        y = slice(max(y0, 0), min(y0 + size, ny))
        inside = out[row, x.start - x0 : x.stop - x0, y.start - y0 : y.stop - y0]
        inside[...] = planes[:, y, x].T
