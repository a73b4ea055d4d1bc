"""Labels far beyond chance: what they are, and what they do to the fits.

A pixel with 27 times the mean, say a nearby cluster, or a satellite trail, can pull a least-squares
fit. How far it does is seen by fitting the linear model once without such pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from skyproof.sysnet.baselines import Rows, fit_linear
from skyproof.sysnet.losses import row_losses
from skyproof.sysnet.table import Table

_FAR = 12.0  # robust standard deviations
_LISTED = 5


def find(table: Table, rows: np.ndarray, density: np.ndarray, unit: float) -> dict[str, Any]:
    """Return how many labels lie far above expectation, the greatest, and what they move.

    `density` [m] is the prediction for `rows`; residuals are over the root of unit x expectation,
    and far beyond twelve robust standard deviations of all rows. shift: rms change of the linear
    model's selection function when they are left out; loss_share: their share of the squared loss.
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
        everything = fit_linear(0, Rows(features, label, fracgood))(features)
        without = fit_linear(0, Rows(features[~far], label[~far], fracgood[~far]))(features)
        change = (without / without.mean()) / (everything / everything.mean()) - 1
        found["shift"] = float(np.sqrt(np.mean(change**2)))
    return found
