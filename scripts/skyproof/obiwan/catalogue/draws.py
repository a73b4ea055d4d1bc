"""Draws that simulated and injected galaxies share: magnitudes, and positions apart."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def draw_magnitudes(
    n: int, brightest: float, faintest: float, slope: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw magnitudes [n] whose log10 counts rise by `slope` per magnitude."""
    u = rng.uniform(size=n)
    if slope == 0:
        return brightest + (faintest - brightest) * u
    return brightest + np.log10(1 + u * (10 ** (slope * (faintest - brightest)) - 1)) / slope


def positions_apart(
    candidates: Iterable[Iterable[float]], count: int, separation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return x, y of the first `count` candidates that keep a distance from those taken before.

    Candidates nearer than `separation` to one of those are left out. Fewer are returned where the
    candidates run out.
    """
    x, y = np.empty(count), np.empty(count)
    n = 0
    if count == 0:
        return x, y
    for position in candidates:
        x[n], y[n] = position
        if not (np.hypot(x[:n] - x[n], y[:n] - y[n]) < separation).any():
            n += 1
            if n == count:
                break
    return x[:n], y[:n]
