"""Arguments and results of an ensemble training: settings, members, trained members."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from skyproof.core.seeds import Stream
from skyproof.learn.ensemble.network import RowLoss, Slope
from skyproof.learn.ensemble.optimiser import Kind
from skyproof.learn.ensemble.rows import EnsembleRows
from skyproof.learn.ensemble.shape import Shape

State = dict[str, Tensor]


@dataclass(frozen=True)
class EnsembleSettings:
    """Settings that all members share."""

    shape: Shape
    loss: RowLoss  # per row, without its weight
    batch: int  # rows of a step
    n_epochs: int
    group_size: int
    slope: Slope | None = None  # the loss with its derivative; None: by autograd
    mean: bool = True  # the loss of a batch is its weighted mean, else its weighted sum
    optimiser: Kind = "adamw"
    schedule: Literal["cosine", "plateau", "constant"] = "constant"
    least_rate: float = 0.0  # of the cosine
    first_cycle: int = 10  # epochs of the first cosine cycle
    cycle_growth: int = 2
    patience: int = 10  # of the plateau, epochs
    factor: float = 0.1  # of the plateau
    stop_after: int = 0  # epochs without a better validation loss; 0: never stop early
    snapshots: bool = False  # keep the weights at the end of each cosine cycle
    checkpoint_every: int = 10  # epochs
    compile: bool = False


@dataclass
class TrainedMember:
    """A trained member: the weights of its best epoch, and its history.

    The best epoch is the first one with the smallest validation loss; -1 if all losses are NaN.
    `state` and snapshots contain parameters and running statistics by their names in `Shape`.
    """

    state: State
    moments: dict[str, State]  # of the optimiser, at the best epoch
    n_steps: int  # until the best epoch
    best_epoch: int
    train: np.ndarray  # [n_epochs] f8, mean over rows of the weighted loss, during each epoch
    valid: np.ndarray  # [n_epochs] f8, the same at the end of each epoch
    rate: np.ndarray  # [n_epochs] f8, step size of each epoch's last step
    snapshots: dict[int, State] = field(default_factory=dict)  # by epoch


@dataclass(frozen=True, eq=False)
class EnsembleMember:
    """One network of a group: its key, its rows, and settings that may differ between members.

    `train` and `valid` are positions in `rows`. Initial weights are drawn as for a network of the
    features in `keep` only (None: all); the weights of other features are 0, and their columns in
    `rows` should be 0. `start` is a training to continue, at its best epoch.
    """

    key: int
    rows: EnsembleRows
    train: np.ndarray
    valid: np.ndarray
    learning_rate: float
    weight_decay: float = 0.0
    l1: float = 0.0  # coefficient of the L1 norm of the first layer's weights in the loss
    keep: np.ndarray | None = None
    start: TrainedMember | None = None


def first_state(shape: Shape, member: EnsembleMember, stream: Stream) -> State:
    """Return the initial weights and running statistics of a member.

    Weights and biases are uniform in +-1/sqrt(fan_in), as torch's Linear draws them; normalisation
    starts as the identity.
    """
    state: State = {}
    keep = member.keep if member.keep is not None else np.ones(shape.widths[0], bool)
    for name, size in [*shape.parameters(), *shape.statistics()]:
        kind, _, layer = name.partition(".")
        if kind not in ("weight", "bias"):
            values = np.full(size, 1.0 if kind in ("gamma", "variance") else 0.0)
        else:
            fan_in = int(keep.sum()) if layer == "0" else shape.widths[int(layer)]
            bound = 1 / math.sqrt(fan_in)
            draw = stream("weights", member.key, name).uniform
            if name == "weight.0":
                values = np.zeros(size)
                values[:, keep] = draw(-bound, bound, (size[0], fan_in))
            else:
                values = draw(-bound, bound, size)
        state[name] = torch.from_numpy(values.astype(np.float32))
    return state
