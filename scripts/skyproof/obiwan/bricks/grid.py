"""The grid of 0.25 deg bricks that tiles the sky, with the numbers and names of the Legacy Surveys.

It reproduces the survey's table of bricks (survey-bricks.fits): Dey et al. 2019, AJ 157, 168.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from skyproof.core.errors import UsageError
from skyproof.sky.tan import Tan

PIXEL_SCALE = 0.262  # arcsec

_N_ROWS = 721  # every 0.25 deg from pole to pole, both included
_FIRST_ID = 365_372  # synthetic surveys start at brick 1211p060


class Brick(NamedTuple):
    """One cell of the grid."""

    id: int  # from 1, row by row from the south pole, as in the survey's catalogues
    name: str
    ra: float  # of the centre [deg]
    dec: float


@cache
def _row_starts() -> np.ndarray:
    """Return the number of bricks south of each row, and in total (662,174).

    The number of columns of a row is the length of its edge nearer to the equator over 0.25 deg,
    rounded up to an even number; each pole has one brick.
    """
    edge = np.maximum(np.abs(0.25 * np.arange(_N_ROWS) - 90) - 0.125, 0)
    columns = 2 * np.ceil(720 * np.cos(np.radians(edge)) - 1e-9).astype(int)
    columns[[0, -1]] = 1
    return np.concatenate([[0], np.cumsum(columns)])


def brick_of_id(brickid: int) -> Brick:
    """Return the brick with the survey's number `brickid` (1 to 662174)."""
    starts = _row_starts()
    row = int(np.searchsorted(starts, brickid - 1, side="right")) - 1
    column, columns = brickid - 1 - int(starts[row]), int(starts[row + 1] - starts[row])
    tenth_ra = (2 * column + 1) * 1800 // columns  # integers: no rounding in names
    hundredth_dec = 25 * row - 9000
    sign = "m" if hundredth_dec < 0 else "p"
    name = f"{tenth_ra:04d}{sign}{abs(hundredth_dec) // 10:03d}"
    return Brick(brickid, name, (column + 0.5) * 360 / columns, hundredth_dec / 100)


def survey_bricks(n: int) -> list[Brick]:
    """Return the first `n` bricks of a synthetic survey, starting at 1211p060 towards the east."""
    total = int(_row_starts()[-1])
    if not 0 < n <= total:
        raise UsageError(f"n_bricks: expected 1 to {total}, the bricks of the whole sky, got {n}")
    return [brick_of_id(1 + (_FIRST_ID - 1 + i) % total) for i in range(n)]


def brick_tan(brick: Brick, pixels: int) -> Tan:
    """Return the projection of a square brick image, north up and east to the left."""
    # Rounded to the digits of a FITS card, so that the header has the same values.
    ra, step = (float(f"{value:.14e}") for value in (brick.ra, PIXEL_SCALE / 3600))
    middle = (pixels + 1) / 2
    return Tan(ra, brick.dec, (middle, middle), ((-step, 0.0), (0.0, step)), pixels, pixels)


def bricks_of_block(names: Sequence[str], block: int, block_size: int) -> list[str]:
    """Return the bricks of one job, at most `block_size`. Raise UsageError if there are none."""
    blocks = -(-len(names) // block_size)
    if not 0 <= block < blocks:
        raise UsageError(f"block {block}: {len(names)} bricks make blocks 0 to {blocks - 1}")
    return list(names[block * block_size : (block + 1) * block_size])


def bricks_at(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return the identifiers, int64 [n], of the bricks that contain positions (RA, Dec) [deg]."""
    starts = _row_starts()
    row = np.floor((np.asarray(dec, float) + 90.125) / 0.25).astype(int)
    first = starts[row]
    columns = starts[row + 1] - first
    return first + np.floor(np.asarray(ra, float) % 360 / 360 * columns).astype(int) + 1
