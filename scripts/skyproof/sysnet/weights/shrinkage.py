"""Shrinkage of a selection function towards 1, estimated from skies without contamination.

Structure of the galaxies that is larger than a superpixel is common to training and test part, so
a fit partly reproduces it even out of fold. To estimate this part, mock skies with the clustering
of the corrected data pass through the same folds, linear and quadratic fits, and stacking. Let v0
be the mean variance of their selection functions and v that of the data's. Then S - 1 = signal +
chance with variances v - v0 and v0, and the factor of least squared error is max(0, 1 - v0 / v)
(James & Stein).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from skyproof.sysnet.baselines import POLYNOMIALS, out_of_fold
from skyproof.sysnet.folds import Folds
from skyproof.sysnet.mocks import null
from skyproof.sysnet.table import Table
from skyproof.sysnet.verdict import power
from skyproof.sysnet.weights.combination import OutOfFoldRows, fit_combination

MOCKED = ("constant", "linear", "quadratic")


@dataclass(frozen=True)
class Shrinkage:
    """The factor in [0, 1]; the rms of S - 1 in the data (spread) and by chance alone."""

    factor: float
    spread: float
    chance: float

    @classmethod
    def none(cls, selection: np.ndarray) -> Shrinkage:
        """Return a factor of 1, which leaves the selection function unchanged."""
        return cls(1.0, float(np.std(selection)), 0.0)


def shrinkage(
    selection: np.ndarray,
    tested: OutOfFoldRows,
    table: Table,
    folds: Folds,
    keep: np.ndarray,
    *,
    n_mocks: int,
    stream: Callable[..., np.random.Generator],
) -> Shrinkage:
    """Return the shrinkage of `selection` [m], the selection function of the tested rows."""
    grid = power.Grid.of(table, tested.rows)
    unit = null.galaxy_label(grid, tested.label)
    corrected = power.spectrum(grid, tested.label, unit, 1 / selection)
    mean = float(tested.label.sum() / tested.fracgood.sum())
    clustering = null.fit_clustering(grid, corrected, mean, unit)
    everywhere = power.Grid.of(table, np.arange(len(table)))  # models train beyond the tested rows
    skies = null.mock_skies(everywhere, clustering, n_mocks, stream)
    labels = np.stack(list(skies), axis=1)
    chance = np.mean([
        np.var(found) for found in mock_selections(labels, tested, table, folds, keep)
    ])  # fmt: skip
    variance = np.var(selection)
    factor = max(0.0, 1 - chance / variance) if variance > 0 else 0.0
    return Shrinkage(float(factor), float(np.sqrt(variance)), float(np.sqrt(chance)))


def mock_selections(
    labels: np.ndarray, tested: OutOfFoldRows, table: Table, folds: Folds, keep: np.ndarray
) -> list[np.ndarray]:
    """Return the selection function [m] of each mock sky with labels [n, k]."""
    fits = {name: POLYNOMIALS[name] for name in MOCKED}
    predictions = out_of_fold(replace(table, label=labels), folds, keep, fits)
    selections = []
    for k in range(labels.shape[1]):
        one = {name: values[tested.rows, k] for name, values in predictions.items()}
        density = fit_combination(
            replace(tested, label=labels[tested.rows, k]), one, MOCKED
        ).density(one)
        selections.append(density / density.mean())
    return selections
