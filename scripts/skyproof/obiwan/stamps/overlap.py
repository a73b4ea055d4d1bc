"""Overlap of bricks and stamps on the sky, computed with the tangent-plane WCS of the bricks.

A box is (x_low, x_high, y_low, y_high): its edges in pixels of one brick image, where pixel i
covers [i - 0.5, i + 0.5). Two rectangles, each parallel to the axes of its brick, share sky exactly
if the bounding box of each one overlaps the other in the frame of the other (the separating-axis
theorem: four axes, two from each frame). Straight lines stay straight between tangent planes, so
only corners are projected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skyproof.sky.sphere import unit_vectors
from skyproof.sky.tan import Tan

# Neighbouring boxes share an edge; the rounding error of projecting to the sky and back is smaller.
_ROUNDING_PIXELS = 1e-3
# Stamps of a test patch may end inside a pixel of another brick: the whole pixel counts as covered.
MARGIN_PIXELS = 1.0
_ROUNDING_CHORD = 1e-14


def image_box(tan: Tan) -> np.ndarray:
    """Return the box [n, 4] of a whole brick image, or of n stacked ones."""
    width, height = np.ravel(tan.width), np.ravel(tan.height)
    low = np.full(len(width), -0.5)
    return np.stack([low, width - 0.5, low, height - 0.5], axis=-1)


def stacked(tans: Sequence[Tan]) -> Tan:
    """Return one projection with values [n, 1], with which `project` works row by row."""
    numbers = np.array(
        [(t.ra, t.dec, *t.crpix, *t.cd[0], *t.cd[1], t.width, t.height) for t in tans], dtype=float
    )
    columns: Any = numbers.reshape(-1, 10).T[:, :, None]
    ra, dec, x, y, a, b, c, d, width, height = columns
    return Tan(ra, dec, (x, y), ((a, b), (c, d)), width, height)


def project(boxes: np.ndarray, source: Tan, target: Tan) -> np.ndarray:
    """Return the bounding boxes [n, 4], in pixels of `target`, of boxes [n, 4] of `source`."""
    x, y = target.pixel(*source.sky(boxes[:, [0, 1, 1, 0]], boxes[:, [2, 2, 3, 3]]))
    return np.stack([x.min(axis=1), x.max(axis=1), y.min(axis=1), y.max(axis=1)], axis=-1)


def touch(a: np.ndarray, b: np.ndarray, margin: float = -_ROUNDING_PIXELS) -> np.ndarray:
    """Return which boxes a [..., 4] and b [..., 4] (broadcast) are nearer than `margin` pixels."""
    return (
        (a[..., 0] < b[..., 1] + margin)
        & (b[..., 0] < a[..., 1] + margin)
        & (a[..., 2] < b[..., 3] + margin)
        & (b[..., 2] < a[..., 3] + margin)
    )


def images_touch(first: Sequence[Tan], second: Sequence[Tan]) -> np.ndarray:
    """Return which pairs of brick images share sky or are within a pixel of it, bool [n]."""
    a, b = stacked(first), stacked(second)
    return touch(project(image_box(a), a, b), image_box(b), MARGIN_PIXELS) & touch(
        project(image_box(b), b, a), image_box(a), MARGIN_PIXELS
    )


def shared_pairs(
    boxes_a: np.ndarray, tan_a: Tan, boxes_b: np.ndarray, tan_b: Tan
) -> list[tuple[int, int]]:
    """Return the pairs (i, j) of boxes [n, 4] of brick a and [m, 4] of brick b that share sky."""
    if not len(boxes_a) or not len(boxes_b):
        return []
    b_in_a, a_in_b = project(boxes_b, tan_b, tan_a), project(boxes_a, tan_a, tan_b)
    near = np.flatnonzero(touch(b_in_a, image_box(tan_a)))  # reduces the number of pairs
    pairs = []
    for j in near:
        both = touch(boxes_a, b_in_a[j]) & touch(a_in_b, boxes_b[j])
        pairs += [(int(i), int(j)) for i in np.flatnonzero(both)]
    return pairs


class Neighbours:
    """Search for the bricks that may share sky with a given one, anywhere on the sphere.

    Bricks are sorted by declination, then compared by chords between unit vectors, which have no
    special cases at RA 0/360 or at the poles. Memory: 56 bytes per brick.
    """

    def __init__(self, tans: Sequence[Tan]) -> None:
        vectors, dec, radii = circles(tans)
        self._order = np.argsort(dec, kind="stable")
        self._place = np.argsort(self._order)
        self._vectors, self._dec, self._radii = (
            column[self._order] for column in (vectors, dec, radii)
        )
        self._window = np.degrees(2 * radii.max(initial=0.0))

    def near(self, index: int) -> list[int]:
        """Return the other bricks whose circle around the image overlaps that of brick `index`."""
        place = self._place[index]
        edges = self._dec[place] + np.array([-self._window, self._window])
        low, high = np.searchsorted(self._dec, edges)
        chords = 2 - 2 * (self._vectors[low:high] @ self._vectors[place])  # squared
        reach = self._radii[place] + self._radii[low:high]  # a chord is shorter than its arc
        found = self._order[low:high][chords <= reach**2 + _ROUNDING_CHORD]
        return sorted(int(other) for other in found if other != index)


def circles(tans: Sequence[Tan]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return circles around the images plus one pixel.

    Unit vectors [n, 3] of the centres, declinations [n] (degrees), radii [n] (radians).
    """
    tan = stacked(tans)
    x, y = (np.concatenate([-1 + 0 * size, size], axis=1) for size in (tan.width, tan.height))
    corners = unit_vectors(*tan.sky(x[:, [0, 1, 1, 0]], y[:, [0, 0, 1, 1]]))
    ra, dec = tan.sky((tan.width - 1) / 2, (tan.height - 1) / 2)
    centres = unit_vectors(ra, dec)
    chords = np.sqrt(np.sum((corners - centres) ** 2, axis=-1)).max(axis=1, initial=0.0)
    return centres[:, 0], dec[:, 0], 2 * np.arcsin(np.minimum(chords / 2, 1.0))
