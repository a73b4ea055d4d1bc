"""How far a selection function is drawn towards 1: by what skies without contamination would show.

Structure of the galaxies that is larger than a superpixel is alike in training and test part, so a
fit finds some of it even out of fold. How much is seen by passing mock skies, which cluster as the
corrected data do, through the same folds, linear and quadratic fits and mixing. With v0 the mean
variance of their selection functions and v that of the data's, S - 1 = signal + chance with
variances v - v0 and v0, and the factor of least squared error is 1 - v0 / v, or 0 (James & Stein).
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
from skyproof.sysnet.weights.combination import Sample, fit_mix

MOCKED = ("constant", "linear", "quadratic")


@dataclass(frozen=True)
class Shrinkage:
    """The factor in [0, 1]; the spread (rms) of S - 1 in the data, and by chance alone."""

    factor: float
    spread: float
    chance: float

    @classmethod
    def none(cls, selection: np.ndarray) -> Shrinkage:
        """Leave the selection function as it is."""
        return cls(1.0, float(np.std(selection)), 0.0)


def shrinkage(
    selection: np.ndarray,
    sample: Sample,
    table: Table,
    folds: Folds,
    keep: np.ndarray,
    *,
    n_mocks: int,
    stream: Callable[..., np.random.Generator],
) -> Shrinkage:
    """Return how far to draw `selection` [m], that of the rows of `sample`, towards 1."""
    grid = power.Grid.of(table, sample.rows)
    unit = null.galaxy(grid, sample.label)
    corrected = power.spectrum(grid, sample.label, unit, 1 / selection)
    mean = float(sample.label.sum() / sample.fracgood.sum())
    clustering = null.fit_clustering(grid, corrected, mean, unit)
    everywhere = power.Grid.of(table, np.arange(len(table)))  # models train beyond the tested rows
    skies = null.many(everywhere, clustering, n_mocks, stream)
    labels = np.stack(list(skies), axis=1)
    chance = np.mean([
        np.var(found) for found in mock_selections(labels, sample, table, folds, keep)
    ])  # fmt: skip
    variance = np.var(selection)
    factor = max(0.0, 1 - chance / variance) if variance > 0 else 0.0
    return Shrinkage(float(factor), float(np.sqrt(variance)), float(np.sqrt(chance)))


def mock_selections(
    labels: np.ndarray, sample: Sample, table: Table, folds: Folds, keep: np.ndarray
) -> list[np.ndarray]:
    """Return the selection function [m] that each mock sky, labels [n, k], would be given."""
    fits = {name: POLYNOMIALS[name] for name in MOCKED}
    predictions = out_of_fold(replace(table, label=labels), folds, keep, fits)
    selections = []
    for k in range(labels.shape[1]):
        one = {name: values[sample.rows, k] for name, values in predictions.items()}
        density = fit_mix(replace(sample, label=labels[sample.rows, k]), one, MOCKED).density(one)
        selections.append(density / density.mean())
    return selections
