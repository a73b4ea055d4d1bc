"""Mock skies without contamination that cluster as the data do: what chance alone would show.

The weighted field's power, less its shot noise, is fitted by C_l = a (l/30)^-b; lognormal fields of
that power are observed through the footprint, with Poisson noise (spec 1.10, check 6; A22, A24).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from skyproof.sysnet.mocks.fields import gaussian_field
from skyproof.sysnet.verdict.power import Grid, Spectrum, bands, in_bands

_PIVOT = 30.0
_STEEPEST, _FLATTEST = 4.0, 0.0
_CALIBRATION = 20  # mocks a round
_ROUNDS = 2
_EQUAL = 1e-9  # of the greatest label: labels nearer than this differ by rounding
_WHOLE = 0.02  # labels that are multiples of one number, but for rounding


def label_unit(label: np.ndarray) -> float | None:
    """Return the label of one galaxy: 1 for counts, less for counts over their mean; else None.

    None: labels that are no multiples of one number, such as densities already divided by the
    observed fraction.
    """
    values = np.unique(label[label > 0])
    gaps = np.diff(values, prepend=0.0)
    unit = float(gaps[gaps > _EQUAL * values[-1]].min())
    unit = float(np.median(values / np.round(values / unit)))  # less rounding than in one gap
    multiples = values / unit
    return unit if np.max(np.abs(multiples - np.round(multiples))) < _WHOLE else None


def galaxy(grid: Grid, label: np.ndarray) -> float:
    """Return the label of one galaxy: from the labels, or else from the power at the largest l."""
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

    The mask mixes neighbouring l, and the exponential adds power: what the mocks of a first fit
    show over what they were given corrects the next one. `stream(round, mock)` gives numbers;
    without it the first fit is returned, which is some per cent off.
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
    """Return amplitude and slope that fit band powers, each with its expected scatter."""
    from scipy.optimize import least_squares

    edges = np.array(bands(grid.lmax))
    centre = edges.mean(axis=1)
    modes = (edges[:, 1] + 1) ** 2 - edges[:, 0] ** 2
    scale = float(np.median(np.abs(signal))) or 1e-12
    start = max(float(signal[np.argmin(np.abs(centre - _PIVOT))]), 0.1 * scale)

    def law(values: np.ndarray) -> np.ndarray:
        return np.exp(values[0]) * (centre / _PIVOT) ** -values[1]

    # The scatter follows the model, in two turns, so that low bands by chance do not weigh more.
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


def many(
    grid: Grid, clustering: Clustering, n: int, stream: Callable[..., np.random.Generator]
) -> Iterator[np.ndarray]:
    """Yield the labels [rows] of n mock skies; sky i is that of `stream(i)`."""
    for number in range(n):
        yield mock_labels(grid, clustering, stream(number))
