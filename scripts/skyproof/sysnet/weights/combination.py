"""A non-negative mix of out-of-fold predictions, decided by rows that it is not used for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from skyproof.sysnet.folds import Folds
from skyproof.sysnet.table import Table
from skyproof.sysnet.weights.predictions import Predictions

_PARTS = 5  # for cross-fitting where one fold tests all rows


@dataclass(frozen=True)
class Sample:
    """The tested rows [m]: place in the table, label, fracgood, and the part each is mixed in."""

    rows: np.ndarray
    label: np.ndarray
    fracgood: np.ndarray
    part: np.ndarray

    @classmethod
    def of(cls, table: Table, folds: Folds, predictions: Predictions) -> Sample:
        rows, part = predictions.rows, predictions.fold
        if len(np.unique(part)) == 1:
            part = np.unique(folds.group[rows], return_inverse=True)[1] % _PARTS
        return cls(rows, table.label[rows], table.fracgood[rows], part)


@dataclass(frozen=True)
class Mix:
    """Weights [parts, models] of the mix, and the part of each row [m]."""

    models: tuple[str, ...]
    weights: np.ndarray
    part: np.ndarray

    def density(self, predictions: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the mix of predictions (name -> [m]), each row with the weights of its part."""
        columns = np.stack([predictions[name] for name in self.models], axis=1)
        return (columns * self.weights[self.part]).sum(axis=1)

    def record(self) -> dict[str, Any]:
        """Return the weights of each part, and their means, by model."""
        parts = [dict(zip(self.models, map(float, row), strict=True)) for row in self.weights]
        mean = dict(zip(self.models, map(float, self.weights.mean(axis=0)), strict=True))
        return {"models": list(self.models), "weights": parts, "mean_weights": mean}


def fit_mix(sample: Sample, predictions: Mapping[str, np.ndarray], models: tuple[str, ...]) -> Mix:
    """Return the mix whose weights for a part come from the rows of the other parts.

    A single model is taken as it is.
    """
    columns = np.stack([predictions[name] for name in models], axis=1)
    numbers, part = np.unique(sample.part, return_inverse=True)
    weights = np.ones((len(numbers), len(models)))
    if len(models) > 1:
        for number in range(len(numbers)):
            others = part != number
            weights[number] = nonnegative(
                columns[others], sample.label[others], sample.fracgood[others]
            )
    return Mix(models, weights, part)


def nonnegative(columns: np.ndarray, label: np.ndarray, fracgood: np.ndarray) -> np.ndarray:
    """Return weights >= 0 that minimise sum w (columns @ weights - y/w)^2 (Poisson weighting)."""
    from scipy.optimize import nnls

    # The normal equations: a handful of models, and rows by the ten thousand.
    root = np.sqrt(fracgood)[:, None]
    gram = (root * columns).T @ (root * columns)
    factor = np.linalg.cholesky(gram + np.diag(np.diag(gram)) * 1e-12)
    return nnls(factor.T, np.linalg.solve(factor, columns.T @ label))[0]
