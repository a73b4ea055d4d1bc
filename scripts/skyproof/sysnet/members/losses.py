"""Losses of predicted densities as reported: sum of weighted row losses / number of rows."""

from __future__ import annotations

import numpy as np

EPSILON = 1e-8  # as in torch's PoissonNLLLoss: the logarithm of a zero expectation stays finite


def row_losses(
    loss: str, weighting: str, density: np.ndarray, label: np.ndarray, fracgood: np.ndarray
) -> np.ndarray:
    """Return the weighted loss of each row [n], float64 (formulas A1, A2).

    With the expected count mu = density x fracgood, `pnll` is fracgood (mu - y log(mu + 1e-8)),
    the negative Poisson log-likelihood without its constant. With weighting `original`, `mse` is
    fracgood (mu - y)^2 = fracgood^3 (density - y / fracgood)^2. With weighting `poisson` it is
    fracgood (density - y / fracgood)^2, the inverse-variance weight of y / fracgood.
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
    """Return the sum of the weighted row losses over the number of rows (not over the weights)."""
    return float(row_losses(loss, weighting, density, label, fracgood).sum() / len(label))


def constant_densities(label: np.ndarray, fracgood: np.ndarray) -> dict[str, float]:
    """Return the constant densities to which networks are compared (A3).

    `base`: the mean label, as in the original, biased low if fracgood < 1; `mle`: sum of labels /
    sum of fracgood, the constant of maximum Poisson likelihood.
    """
    return {"base": float(label.mean()), "mle": float(label.sum() / fracgood.sum())}
