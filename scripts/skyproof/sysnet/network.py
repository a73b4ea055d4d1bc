"""The networks and losses of SYSNet, as functions for the batched ensemble.

dnn (L, U) is L - 1 times [Linear, ReLU, BatchNorm] and a Linear to one output. dnnp applies
softplus to the output, dnnps the exponential. lin is one Linear, linp adds softplus. With 18
features, (4, 20) has 1,241 weights and 120 parameters of normalisation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from skyproof.core.errors import UsageError
from skyproof.learn.ensemble.members import State
from skyproof.learn.ensemble.network import RowLoss, Slope
from skyproof.learn.ensemble.shape import Shape
from skyproof.sysnet.members.losses import EPSILON

LINEAR = ("lin", "linp")
_ANY_SIGN = ("dnn", "lin")  # their densities may be negative
_LAYER = {"weight": "fc.{}.weight", "bias": "fc.{}.bias"}
_NORM = {
    "gamma": "bn.{}.weight",
    "beta": "bn.{}.bias",
    "mean": "bn.{}.running_mean",
    "variance": "bn.{}.running_var",
}


def check_model(model: str, loss: str) -> None:
    """Raise UsageError for the Poisson loss of a network that may predict negative counts."""
    if loss == "pnll" and model in _ANY_SIGN:
        raise UsageError(
            f"model {model} with loss pnll takes the logarithm of negative counts; "
            f"expected model dnnp, dnnps or linp, or loss mse"
        )


def shape_of(model: str, structure: tuple[int, int], n_features: int) -> Shape:
    """Return the layers of a model; `structure` is (layers, output included; units per layer)."""
    layers, units = structure
    hidden = () if model in LINEAR else (units,) * (layers - 1)
    return Shape((n_features, *hidden, 1), norm="after")


def density(model: str, outputs: Tensor) -> Tensor:
    """Return the density per unit of observed fraction [E, rows] from outputs [E, 1, rows]."""
    found = outputs[:, 0]
    if model in ("dnnp", "linp"):
        return functional.softplus(found)
    return found.exp() if model == "dnnps" else found


def row_loss(model: str, loss: str, weighting: str) -> RowLoss:
    """Return the row loss, not yet weighted by fracgood (see `losses.row_losses`)."""

    def value(outputs: Tensor, label: Tensor, fracgood: Tensor) -> Tensor:
        return _losses(loss, weighting, density(model, outputs), label, fracgood)

    return value


def _losses(loss: str, weighting: str, found: Tensor, label: Tensor, fracgood: Tensor) -> Tensor:
    if loss == "pnll":
        expected = found * fracgood
        return expected - label * torch.log(expected + EPSILON)
    original = weighting == "original"
    difference = found * fracgood - label if original else found - label / fracgood
    return difference * difference


def row_slope(model: str, loss: str, weighting: str) -> Slope:
    """Return the row loss with its analytic derivative by the output of the network."""

    def slope(outputs: Tensor, label: Tensor, fracgood: Tensor) -> tuple[Tensor, Tensor]:
        found = density(model, outputs)
        if loss == "pnll":
            by_density = fracgood - fracgood * label / (found * fracgood + EPSILON)
        elif weighting == "original":
            by_density = 2 * fracgood * (found * fracgood - label)
        else:
            by_density = 2 * (found - label / fracgood)
        if model in ("dnnp", "linp"):
            by_density = by_density * torch.sigmoid(outputs[:, 0])
        elif model == "dnnps":
            by_density = by_density * found
        return _losses(loss, weighting, found, label, fracgood), by_density[:, None]

    return slope


def original_names(model: str, tensors: State) -> State:
    """Return the tensors of one member of an ensemble (`Shape`) by the original's names."""
    return {_original(model, name): tensor for name, tensor in tensors.items()}


def ensemble_names(model: str, shape: Shape, tensors: State) -> State:
    """Return tensors, given by the original's names, by the names of `Shape`."""
    wanted = [name for name, _ in [*shape.parameters(), *shape.statistics()]]
    found = {name: _original(model, name) for name in wanted}
    return {name: tensors[other] for name, other in found.items() if other in tensors}


def _original(model: str, name: str) -> str:
    kind, _, layer = name.partition(".")
    if model in LINEAR:
        return f"hl1.{kind}"
    return (_LAYER | _NORM)[kind].format(layer)
