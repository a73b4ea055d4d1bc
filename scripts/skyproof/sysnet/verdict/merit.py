"""Figures of merit of the weights: losses, loss differences, recovery of the truth, outliers.

Losses are out of fold. Rows of a superpixel are not independent, so loss differences are resampled
by superpixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from skyproof.sysnet.baselines import TrainingRows, fit_linear
from skyproof.sysnet.members.losses import row_losses
from skyproof.sysnet.table import Table

LOSSES = ("pnll", "mse")

_FAR = 12.0  # robust standard deviations
_LISTED = 5


def losses_of(
    models: Mapping[str, np.ndarray], label: np.ndarray, fracgood: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """Return loss -> model -> row losses [m] (losses.row_losses, Poisson weighting)."""
    return {
        loss: {
            name: row_losses(loss, "poisson", density, label, fracgood)
            for name, density in models.items()
        }
        for loss in LOSSES
    }


def mean_losses(losses: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    """Return model -> loss -> its mean over rows."""
    return {
        name: {loss: float(by_model[name].mean()) for loss, by_model in losses.items()}
        for name in losses[LOSSES[0]]
    }


def loss_difference(
    worse: np.ndarray,
    better: np.ndarray,
    group: np.ndarray,
    *,
    draws: int,
    stream: np.random.Generator,
) -> dict[str, float]:
    """Return the mean difference of row losses [m], with its bootstrap error over superpixels.

    value: mean(worse - better); error: its standard deviation over `draws` resamplings of the
    superpixels; better: the fraction of the resamplings in which it is above 0.
    """
    numbers = np.unique(group, return_inverse=True)[1]
    total = np.bincount(numbers, worse - better)
    rows = np.bincount(numbers).astype(float)
    n = len(total)
    picked = stream.multinomial(n, np.full(n, 1 / n), size=draws).astype(float)
    values = (picked @ total) / (picked @ rows)
    return {
        "value": float(total.sum() / rows.sum()),
        "error": float(values.std(ddof=1)) if n > 1 else float("nan"),
        "better": float((values > 0).mean()),
    }


def recovery(selection: np.ndarray, contamination: np.ndarray) -> dict[str, float | None]:
    """Compare S [m] with F [m], both over their means (spec 1.10, check 1).

    correlation of S and F (None without contamination); error: rms of S/F - 1; planted: rms of
    F - 1, which is about the error without weights; share: error over planted.
    """
    found, true = selection / selection.mean(), contamination / contamination.mean()
    error = float(np.sqrt(np.mean((found / true - 1) ** 2)))
    planted = float(np.sqrt(np.mean((true - 1) ** 2)))
    clean = np.ptp(true) < 1e-9 or np.ptp(found) == 0
    return {
        "correlation": None if clean else float(np.corrcoef(found, true)[0, 1]),
        "error": error,
        "planted": planted,
        "share": error / planted if planted > 1e-9 else None,
    }


def outliers(table: Table, rows: np.ndarray, density: np.ndarray, unit: float) -> dict[str, Any]:
    """Return the number of labels far above expectation, the largest ones, and their influence.

    A pixel with 27 times the mean, such as a nearby cluster or a satellite trail, can dominate a
    least-squares fit. `density` [m] is the prediction for `rows`; `unit` is the label of a galaxy.
    Residuals are in units of sqrt(unit x expectation), the Poisson error. A label is an outlier if
    its residual exceeds 12 and twelve robust standard deviations of all residuals.

    n: their number; loss_share: their fraction of the squared loss; shift: rms change of the linear
    model's selection function if they are left out; listed: the five largest.
    """
    label, fracgood = table.label[rows], table.fracgood[rows]
    expected = density * fracgood
    residual = (label - expected) / np.sqrt(unit * expected)
    scale = 1.4826 * np.median(np.abs(residual - np.median(residual)))
    far = residual > _FAR * max(scale, 1.0)
    loss = row_losses("mse", "poisson", density, label, fracgood)
    found: dict[str, Any] = {
        "n": int(far.sum()),
        "loss_share": float(loss[far].sum() / loss.sum()),
        "shift": 0.0,
        "listed": [
            {"hpix": int(table.hpix[rows[i]]), "label": float(label[i]),
             "expected": float(expected[i])}
            for i in np.argsort(np.where(far, -label, np.inf), kind="stable")[:_LISTED] if far[i]
        ],
    }  # fmt: skip
    if far.any():
        features = table.features[rows]
        everything = fit_linear(0, TrainingRows(features, label, fracgood))(features)
        without = fit_linear(0, TrainingRows(features[~far], label[~far], fracgood[~far]))(features)
        change = (without / without.mean()) / (everything / everything.mean()) - 1
        found["shift"] = float(np.sqrt(np.mean(change**2)))
    return found
