"""Losses of predicted densities, as they are reported: sums of weighted row losses over rows."""

from __future__ import annotations

import numpy as np

EPSILON = 1e-8  # torch's PoissonNLLLoss: keeps the logarithm of an empty expectation finite


def row_losses(
    loss: str, weighting: str, density: np.ndarray, label: np.ndarray, fracgood: np.ndarray
) -> np.ndarray:
    """Return the weighted loss of each row [n], float64 (formulas A1, A2).

    With the expected count mu = density x fracgood, `pnll` is fracgood (mu - y log(mu + 1e-8)),
    the Poisson likelihood without its constant. `mse` is fracgood (mu - y)^2 in the original's
    weighting, which amounts to fracgood^3 on (density - y / fracgood)^2; `poisson` weighs that
    square by fracgood, as the variance of y / fracgood asks for.
    """
    expected = density * fracgood
    if loss == "pnll":
        return fracgood * (expected - label * np.log(expected + EPSILON))
    if weighting == "original":
        return fracgood * (expected - label) ** 2
    return fracgood * (density - label / fracgood) ** 2


def mean_loss(
    loss: str, weighting: str, density: np.ndarray, label: np.ndarray, fracgood: np.ndarray
) -> float:
    """Return the sum of the rows' weighted losses over their number (not over their weights)."""
    return float(row_losses(loss, weighting, density, label, fracgood).sum() / len(label))


def constant_densities(label: np.ndarray, fracgood: np.ndarray) -> dict[str, float]:
    """Return the constants that a network must beat (A3): the original's, and the better one.

    `base`: the mean label, biased low where fracgood < 1; `mle`: counts over observed fraction,
    the constant of greatest Poisson likelihood.
    """
    return {"base": float(label.mean()), "mle": float(label.sum() / fracgood.sum())}
