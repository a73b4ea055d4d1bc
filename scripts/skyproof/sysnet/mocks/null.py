"""Null mocks: skies without contamination with the clustering of the data.

C_l = a (l/30)^-b is fitted to the power of the weighted field minus its shot noise. Lognormal
fields of that power are observed through the footprint with Poisson noise (spec 1.10, check 6; A22,
A24).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from skyproof.sysnet.mocks.fields import gaussian_field
from skyproof.sysnet.verdict.power import Grid, Spectrum, bands, in_bands

_PIVOT = 30.0
_STEEPEST, _FLATTEST = 4.0, 0.0
_CALIBRATION = 20  # mocks per round
_ROUNDS = 2
_EQUAL = 1e-9  # fraction of the largest label: smaller differences are rounding
_WHOLE = 0.02  # tolerance on multiples of the unit


def label_unit(label: np.ndarray) -> float | None:
    """Return the label of one galaxy: 1 for counts, 1 / mean for counts divided by their mean.

    None if the labels are not multiples of one number, for example densities that were divided by
    the observed fraction.
    """
    values = np.unique(label[label > 0])
    gaps = np.diff(values, prepend=0.0)
    unit = float(gaps[gaps > _EQUAL * values[-1]].min())
    unit = float(np.median(values / np.round(values / unit)))  # less rounding than in one gap
    multiples = values / unit
    return unit if np.max(np.abs(multiples - np.round(multiples))) < _WHOLE else None


def galaxy_label(grid: Grid, label: np.ndarray) -> float:
    """Return the label of one galaxy, from the labels or from the shot noise at the largest l."""
    found = label_unit(label)
    if found is not None:
        return found
    plateau = grid.pseudo_power(label)[-grid.nside // 2 :].mean()
    return float(plateau / grid.noise(label, 1.0))


@dataclass(frozen=True)
class Clustering:
    """C_l = amplitude (l/30)^-slope, the mean density, and the label of one galaxy."""

    amplitude: float
    slope: float
    mean: float
    unit: float

    def power(self, lmax: int) -> np.ndarray:
        """Return C_l [lmax + 1]; 0 at l < 2."""
        l = np.arange(lmax + 1)  # noqa: E741
        return np.where(l >= 2, self.amplitude * (np.maximum(l, 2) / _PIVOT) ** -self.slope, 0.0)

    def variance(self, lmax: int) -> float:
        """Return the variance of the field up to lmax."""
        modes = 2 * np.arange(lmax + 1) + 1
        return float(np.sum(modes * self.power(lmax)) / (4 * np.pi))


def mock_labels(grid: Grid, clustering: Clustering, stream: np.random.Generator) -> np.ndarray:
    """Return the labels [n] of one mock sky without contamination."""
    field = gaussian_field(clustering.power(grid.lmax), grid.nside, stream)
    density = np.exp(field - clustering.variance(grid.lmax) / 2)[grid.pixel]
    expected = clustering.mean * grid.fracgood * density / clustering.unit
    return clustering.unit * stream.poisson(expected)


def fit_clustering(
    grid: Grid,
    measured: Spectrum,
    mean: float,
    unit: float,
    stream: Callable[..., np.random.Generator] | None = None,
) -> Clustering:
    """Fit amplitude and slope to the measured signal.

    The mask couples neighbouring l, and the exponential adds power. The ratio of measured to input
    power of mocks with the first fit corrects the next one. `stream(round, mock)` gives random
    numbers; without it the first fit is returned, whose error is some per cent.
    """
    signal = in_bands(measured.signal)
    response = np.ones(len(signal))
    for turn in range(_ROUNDS + 1):
        amplitude, slope = _fit_power_law(signal / response, grid, measured)
        clustering = Clustering(amplitude, slope, mean, unit)
        if turn == _ROUNDS or stream is None:
            return clustering
        shown = np.zeros(len(signal))
        for number in range(_CALIBRATION):
            label = mock_labels(grid, clustering, stream(turn, number))
            power = (grid.pseudo_power(label) - grid.noise(label, unit)) / grid.coverage
            shown += in_bands(power) / _CALIBRATION
        given = in_bands(clustering.power(grid.lmax))
        response = np.clip(shown / given, 0.3, 3.0)
    raise AssertionError  # the last round returns


def _fit_power_law(signal: np.ndarray, grid: Grid, measured: Spectrum) -> tuple[float, float]:
    """Return amplitude and slope of a fit to band powers, weighted by their expected scatter."""
    from scipy.optimize import least_squares

    edges = np.array(bands(grid.lmax))
    centre = edges.mean(axis=1)
    modes = (edges[:, 1] + 1) ** 2 - edges[:, 0] ** 2
    scale = float(np.median(np.abs(signal))) or 1e-12
    start = max(float(signal[np.argmin(np.abs(centre - _PIVOT))]), 0.1 * scale)

    def law(values: np.ndarray) -> np.ndarray:
        return np.exp(values[0]) * (centre / _PIVOT) ** -values[1]

    # The scatter is computed from the model and iterated: bands that are low by chance would
    # otherwise have too large weights.
    found = np.array([np.log(start), 1.0])
    for _ in range(3):
        scatter = (law(found) + measured.noise) / np.sqrt(modes * grid.coverage / 2)
        fit = least_squares(
            lambda values, scatter=scatter: (law(values) - signal) / scatter,
            found, bounds=([np.log(start) - 12, _FLATTEST], [np.log(start) + 6, _STEEPEST]),
            loss="soft_l1",
        )  # fmt: skip
        found = fit.x
    return float(np.exp(found[0])), float(found[1])


def mock_skies(
    grid: Grid, clustering: Clustering, n: int, stream: Callable[..., np.random.Generator]
) -> Iterator[np.ndarray]:
    """Yield the labels [rows] of n mock skies; sky i is drawn from `stream(i)`."""
    for number in range(n):
        yield mock_labels(grid, clustering, stream(number))
