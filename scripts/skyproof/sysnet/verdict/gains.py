"""Out-of-fold losses of all models, and how clear the gain of one over another is.

Rows of a superpixel are not independent, so differences are resampled by superpixel.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from skyproof.sysnet.losses import row_losses

LOSSES = ("pnll", "mse")


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


def gain(
    worse: np.ndarray,
    better: np.ndarray,
    group: np.ndarray,
    *,
    draws: int,
    stream: np.random.Generator,
) -> dict[str, float]:
    """Return by how much row losses [m] fall, its bootstrap error over superpixels, and a share.

    value: mean(worse - better); error: its standard deviation over `draws` resamplings of the
    superpixels; better: the share of resamplings in which it is above 0.
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
