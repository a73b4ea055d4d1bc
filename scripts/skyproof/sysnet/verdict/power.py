"""Angular power of the weighted galaxy field: pseudo-C_l under one mask, bands, shot noise.

The field is w delta, the density contrast times the observed fraction, so that partly observed
pixels, which have larger noise, have less weight. Before, after and truth share the mask w (A24).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from skyproof.sky.healpix import coarse_pixels
from skyproof.sysnet.table import Table

# Finer maps are averaged to this resolution: contamination is on large scales, and the cost of the
# transform grows as the cube of nside.
FINEST = 128

EDGES = (2, 5, 10, 15, 20, 30, 40, 50, 65, 80, 100, 130, 170, 220, 257)
LOW = 30  # lower l: wavelengths of at least two superpixels (nside 8)
CONTAMINATED = 50  # upper limit of l for the bias (spec 1.10, check 3)


@dataclass(frozen=True)
class Grid:
    """The pixels of a table's rows on a map of at most nside 128, and their observed fraction."""

    nside: int
    pixel: np.ndarray  # [n] pixel of each row, RING
    fracgood: np.ndarray  # [n]
    share: float  # area of a row over that of a map pixel

    @classmethod
    def of(cls, table: Table, rows: np.ndarray) -> Grid:
        """Return the grid of the given rows of a table."""
        nside = min(table.nside, FINEST)
        pixel = coarse_pixels(table.hpix[rows], table.nside, nside)
        return cls(nside, pixel, table.fracgood[rows], (nside / table.nside) ** 2)

    @property
    def lmax(self) -> int:
        """Twice nside; at higher l the pixel window function distorts the power."""
        return 2 * self.nside

    @property
    def coverage(self) -> float:
        """Mean square of the mask over the sky, the ratio of masked to full-sky power."""
        return float((self.paint(self.fracgood) ** 2).mean())

    def paint(self, values: np.ndarray) -> np.ndarray:
        """Return a full-sky map of values [n], averaged over the rows of a map pixel; 0 outside."""
        total = np.bincount(self.pixel, values, minlength=12 * self.nside**2)
        return total * self.share

    def field(self, label: np.ndarray) -> np.ndarray:
        """Return the map of w delta for (weighted) labels [n]."""
        return self.paint(label * (self.fracgood.sum() / label.sum()) - self.fracgood)

    def noise(self, label: np.ndarray, unit: float, weight: np.ndarray | float = 1.0) -> float:
        """Return the shot noise in the pseudo-C_l of labels [n] x weight; it is the same at all l.

        `unit` is the label of one galaxy. The Poisson variance of a row is unit x label.
        """
        scale = self.fracgood.sum() / np.sum(label * weight)
        variance = np.sum(unit * label * (scale * weight) ** 2) * self.share**2
        area = 4 * np.pi / (12 * self.nside**2)
        return float(variance * area**2 / (4 * np.pi))

    def pseudo_power(self, label: np.ndarray) -> np.ndarray:
        """Return the pseudo-C_l [lmax + 1] of (weighted) labels [n], noise included."""
        import healpy

        return healpy.anafast(self.field(label), lmax=self.lmax, iter=1)


def bands(lmax: int) -> list[tuple[int, int]]:
    """Return the bands (first l, last l) up to lmax."""
    return [(low, min(high - 1, lmax)) for low, high in itertools.pairwise(EDGES)
            if low <= lmax]  # fmt: skip


def band_power(power: np.ndarray, first: int, last: int) -> float:
    """Return the mean of C_l over first..last, weighted by the number of modes 2l + 1."""
    l = np.arange(first, min(last, len(power) - 1) + 1)  # noqa: E741
    return float(np.average(power[l], weights=2 * l + 1))


def in_bands(power: np.ndarray) -> np.ndarray:
    """Return the band powers of a pseudo-C_l [lmax + 1]."""
    return np.array([band_power(power, *band) for band in bands(len(power) - 1)])


@dataclass(frozen=True)
class Spectrum:
    """A pseudo-C_l [lmax + 1] divided by the coverage, an estimate of C_l, and its shot noise."""

    total: np.ndarray
    noise: float

    @property
    def signal(self) -> np.ndarray:
        return self.total - self.noise


def spectrum(
    grid: Grid, label: np.ndarray, unit: float, weight: np.ndarray | float = 1.0
) -> Spectrum:
    """Return the spectrum of labels [n] weighted by `weight` (1 / selection)."""
    power = grid.pseudo_power(label * weight)
    return Spectrum(power / grid.coverage, grid.noise(label, unit, weight) / grid.coverage)


def compared(before: Spectrum, after: Spectrum, truth: Spectrum | None) -> dict[str, Any]:
    """Return the effect of the weights on the power, also relative to the truth where known.

    Ratios of power without noise, at l < 30 (low) and l >= 30 (high): after_over_before_*; with a
    truth before_low, kept_low and kept_high relative to the truth. bias_before, bias_after: mean
    |C - truth| at l < 50; bias: their ratio, after over before.
    """
    top = len(before.total) - 1

    def ratio(one: Spectrum, other: Spectrum, first: int, last: int) -> float | None:
        if first > top:
            return None
        below = band_power(other.signal, first, last)
        return band_power(one.signal, first, last) / below if below > 0 else None

    found: dict[str, Any] = {
        "after_over_before_low": ratio(after, before, 2, LOW - 1),
        "after_over_before_high": ratio(after, before, LOW, top),
    }
    if truth is not None:
        l = np.arange(2, min(CONTAMINATED, top + 1))  # noqa: E741
        wrong = [np.average(np.abs(s.total - truth.total - (s.noise - truth.noise))[l],
                            weights=2 * l + 1) for s in (before, after)]  # fmt: skip
        found |= {
            "before_low": ratio(before, truth, 2, LOW - 1),
            "kept_low": ratio(after, truth, 2, LOW - 1),
            "kept_high": ratio(after, truth, LOW, top),
            "bias_before": float(wrong[0]),
            "bias_after": float(wrong[1]),
            "bias": float(wrong[1] / wrong[0]) if wrong[0] > 0 else None,
        }
    return found
