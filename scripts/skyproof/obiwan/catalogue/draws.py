"""Random draws used for simulated and injected galaxies: magnitudes, and separated positions."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def draw_magnitudes(
    n: int, brightest: float, faintest: float, slope: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw magnitudes [n] whose log10 counts increase by `slope` per magnitude."""
    u = rng.uniform(size=n)
    if slope == 0:
        return brightest + (faintest - brightest) * u
    return brightest + np.log10(1 + u * (10 ** (slope * (faintest - brightest)) - 1)) / slope


def positions_apart(
    candidates: Iterable[Iterable[float]], count: int, separation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return x, y of the first `count` candidates with a minimum separation from each other.

    A candidate nearer than `separation` to an accepted one is skipped. Fewer than `count` positions
    are returned if there are not enough candidates.
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
