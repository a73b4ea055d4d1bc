"""Small ensembles for tests: rows of noise with a trend, members, and torch's own modules."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from skyproof.core.seeds import stream
from skyproof.learn import device, ensemble
from skyproof.learn.checkpoint import Checkpoints
from skyproof.learn.ensemble import EnsembleGroup, EnsembleMember, EnsembleSettings, TrainedMember
from skyproof.learn.ensemble.rows import EnsembleRows
from skyproof.learn.ensemble.shape import Shape

LOG = logging.getLogger("test")
STREAM = partial(stream, 7)
SHAPE = Shape((3, 6, 6, 1))


def make_rows(n: int = 130, n_features: int = 3, seed: int = 1) -> EnsembleRows:
    """Return rows whose label follows the first feature."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, n_features)).astype(np.float32)
    weight = rng.uniform(0.3, 1, n).astype(np.float32)
    y = rng.poisson(4 * weight * np.exp(0.5 * x[:, 0])).astype(np.float32)
    return EnsembleRows(x, y, weight)


def make_member(
    key: int, rows: EnsembleRows, n_train: int = 80, n_valid: int = 20, **more: Any
) -> EnsembleMember:
    """Return a member; its rows depend on the key."""
    chosen = np.random.default_rng(key).permutation(len(rows.x))
    train, valid = chosen[:n_train], chosen[n_train : n_train + n_valid]
    return EnsembleMember(key, rows, train, valid, **({"learning_rate": 0.01} | more))


def poisson(outputs: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    expected = nn.functional.softplus(outputs[:, 0]) * weight
    return expected - y * torch.log(expected + 1e-8)


def gaussian(outputs: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The blazar system's: mean and softplus variance; twice the negative logarithm."""
    variance = nn.functional.softplus(outputs[:, 1]) + 1e-6
    difference = y - outputs[:, 0]
    return torch.log(variance) + difference * difference / variance


def make_settings(**more: Any) -> EnsembleSettings:
    given: dict[str, Any] = {
        "shape": SHAPE,
        "loss": poisson,
        "batch": 16,
        "n_epochs": 4,
        "group_size": 3,
        "schedule": "cosine",
        "checkpoint_every": 2,
    }
    return EnsembleSettings(**(given | more))


def where() -> torch.device:
    return device.configure("cpu", 1, "portable")


def make_group(members: Sequence[EnsembleMember], **more: Any) -> EnsembleGroup:
    return EnsembleGroup(members, make_settings(**more), STREAM, where(), LOG)


def fit(
    members: Sequence[EnsembleMember], checkpoints: Checkpoints | None = None, **more: Any
) -> list[TrainedMember]:
    return ensemble.fit(
        members,
        make_settings(**more),
        stream=STREAM,
        device=where(),
        log=LOG,
        checkpoints=checkpoints,
    )


def bits(trained: TrainedMember) -> dict[str, bytes]:
    """Return everything of a training, as bytes by name."""
    states = {"state": trained.state} | trained.moments
    states |= {f"snapshot {epoch}": state for epoch, state in trained.snapshots.items()}
    found = {
        f"{kind} {name}": value.numpy().tobytes()
        for kind, state in states.items()
        for name, value in state.items()
    }
    arrays = {name: getattr(trained, name).tobytes() for name in ("train", "valid", "rate")}
    return found | arrays | {"best": bytes([trained.best_epoch, trained.n_steps])}


class Plain(nn.Module):
    """The network of a `Shape` in torch's own modules."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        widths = shape.widths
        self.linear = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        norms = widths[1:-1] if shape.norm != "none" else ()
        self.norm = nn.ModuleList(nn.BatchNorm1d(width) for width in norms)
        self.order = shape.norm

    def forward(self, x: torch.Tensor, dropout: Sequence[torch.Tensor | None] = ()) -> torch.Tensor:
        for i, linear in enumerate(self.linear[:-1]):
            x = linear(x)
            if self.order == "before":
                x = self.norm[i](x)
            x = torch.relu(x)
            if dropout and dropout[i] is not None:
                x = x * dropout[i]
            if self.order == "after":
                x = self.norm[i](x)
        return self.linear[-1](x)

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Take the tensors of one member of an ensemble."""
        names = {"weight": ("linear", "weight"), "bias": ("linear", "bias")}
        names |= {"gamma": ("norm", "weight"), "beta": ("norm", "bias")}
        names |= {"mean": ("norm", "running_mean"), "variance": ("norm", "running_var")}
        with torch.no_grad():
            for name, value in state.items():
                kind, _, layer = name.partition(".")
                modules, tensor = names[kind]
                getattr(getattr(self, modules)[int(layer)], tensor).copy_(value)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return weights and statistics by the ensemble's names."""
        names = {"linear.weight": "weight", "linear.bias": "bias"}
        names |= {"norm.weight": "gamma", "norm.bias": "beta"}
        names |= {"norm.running_mean": "mean", "norm.running_var": "variance"}
        found = {}
        for name, value in self.state_dict().items():
            modules, layer, tensor = name.split(".")
            if f"{modules}.{tensor}" in names:
                found[f"{names[f'{modules}.{tensor}']}.{layer}"] = value
        return found
