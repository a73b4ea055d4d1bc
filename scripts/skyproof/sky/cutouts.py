"""Copy stamps from the planes of an image (`sky.stamps` defines the pixels of a stamp).

A stamp consists of `size` short pieces of each plane, each on a different memory page, and its axes
are exchanged. numpy copies band by band and waits for memory at every piece; the loop here is
compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numba
import numpy as np

_CACHE_LINE = 16  # float32 values per cache line
_TILE = 32  # columns whose transposed rows fit into the first-level cache

Gather = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.float32]


def gather(planes: np.ndarray, cx: np.ndarray, cy: np.ndarray, out: np.ndarray) -> None:
    """Copy the stamps around pixels cx, cy [n] of planes [band, ny, nx] to out [n, x, y, band].

    The size of a stamp is the length of the x and y axes of `out`. All arrays are contiguous
    float32; all stamps must be inside the image (`sky.stamps.stamp_inside`).
    """
    _compiled(len(planes), out.shape[1])(planes, cx, cy, out)


@cache
def _compiled(n_bands: int, size: int) -> Gather:
    """Return the loop compiled for fixed number of bands and size, which doubles its speed."""
    before = size // 2
    tile = _TILE if size % _TILE == 0 else size

    def loop(planes: np.ndarray, cx: np.ndarray, cy: np.ndarray, out: np.ndarray) -> np.float32:
        seen = np.float32(0)
        for row in range(len(cx)):
            x0, y0 = cx[row] - before, cy[row] - before
            # First load one value of each cache line of the stamp: these loads run in parallel,
            # unlike those of the copy. Their maximum is returned so that the compiler keeps them.
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
    except RuntimeError:  # no writable folder for the compiled code: each process compiles it
        return numba.njit(loop)


def gather_edge(
    planes: np.ndarray, cx: np.ndarray, cy: np.ndarray, out: np.ndarray, fill: float
) -> None:
    """Copy stamps that may extend beyond the image, as `gather`; pixels outside are `fill`."""
    ny, nx = planes.shape[1:]
    size = out.shape[1]
    out[...] = fill
    for row, x0, y0 in zip(range(len(cx)), cx - size // 2, cy - size // 2, strict=True):
        x = slice(max(x0, 0), min(x0 + size, nx))
        y = slice(max(y0, 0), min(y0 + size, ny))
        inside = out[row, x.start - x0 : x.stop - x0, y.start - y0 : y.stop - y0]
        inside[...] = planes[:, y, x].T
