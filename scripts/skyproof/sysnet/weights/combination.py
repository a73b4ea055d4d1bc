"""A non-negative linear combination of out-of-fold predictions, fitted on other rows (stacking)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from skyproof.sysnet.folds import Folds
from skyproof.sysnet.table import Table
from skyproof.sysnet.weights.predictions import Predictions

_PARTS = 5  # for cross-fitting if one fold tests all rows


@dataclass(frozen=True)
class OutOfFoldRows:
    """The tested rows [m]: index in the table, label, fracgood, and part of the cross-fitting."""

    rows: np.ndarray
    label: np.ndarray
    fracgood: np.ndarray
    part: np.ndarray

    @classmethod
    def of(cls, table: Table, folds: Folds, predictions: Predictions) -> OutOfFoldRows:
        rows, part = predictions.rows, predictions.fold
        if len(np.unique(part)) == 1:
            part = np.unique(folds.group[rows], return_inverse=True)[1] % _PARTS
        return cls(rows, table.label[rows], table.fracgood[rows], part)


@dataclass(frozen=True)
class Combination:
    """Weights [parts, models] of the models, and the part of each row [m]."""

    models: tuple[str, ...]
    weights: np.ndarray
    part: np.ndarray

    def density(self, predictions: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the weighted sum [m] of predictions (name -> [m]), by the part of each row."""
        columns = np.stack([predictions[name] for name in self.models], axis=1)
        return (columns * self.weights[self.part]).sum(axis=1)

    def weights_by_model(self) -> dict[str, Any]:
        """Return the weights of each part, and their means, by model."""
        parts = [dict(zip(self.models, map(float, row), strict=True)) for row in self.weights]
        mean = dict(zip(self.models, map(float, self.weights.mean(axis=0)), strict=True))
        return {"models": list(self.models), "weights": parts, "mean_weights": mean}


def fit_combination(
    tested: OutOfFoldRows, predictions: Mapping[str, np.ndarray], models: tuple[str, ...]
) -> Combination:
    """Return the combination whose weights for a part are fitted on the rows of the other parts.

    A single model has weight 1.
    """
    columns = np.stack([predictions[name] for name in models], axis=1)
    numbers, part = np.unique(tested.part, return_inverse=True)
    weights = np.ones((len(numbers), len(models)))
    if len(models) > 1:
        for number in range(len(numbers)):
            others = part != number
            weights[number] = nonnegative(
                columns[others], tested.label[others], tested.fracgood[others]
            )
    return Combination(models, weights, part)


def nonnegative(columns: np.ndarray, label: np.ndarray, fracgood: np.ndarray) -> np.ndarray:
    """Return weights >= 0 that minimise sum w (columns @ weights - y/w)^2 (Poisson weighting)."""
    from scipy.optimize import nnls

    # Normal equations: there are few models and tens of thousands of rows.
    root = np.sqrt(fracgood)[:, None]
    gram = (root * columns).T @ (root * columns)
    factor = np.linalg.cholesky(gram + np.diag(np.diag(gram)) * 1e-12)
    return nnls(factor.T, np.linalg.solve(factor, columns.T @ label))[0]
