"""The networks of a training, one file per member: `members/fold<fold>-<seed>.safetensors`.

Weights have the names of the original's modules, so that the file and a `best.pth.tar` have the
same state: `fc.<i>.weight`, `fc.<i>.bias`, `bn.<i>.weight`, `bn.<i>.bias`, `bn.<i>.running_mean`,
`bn.<i>.running_var` (dnn, dnnp, dnnps), `hl1.weight`, `hl1.bias` (lin, linp); float32, with the
shapes of torch's modules. The inputs are all features of the table, in its order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skyproof.core import blocks
from skyproof.core.errors import InputError
from skyproof.learn import checkpoint
from skyproof.learn.ensemble.members import State

MEMBER = "skyproof-sysnet-member-1"
FOLDER = "members"

# Cosine annealing of the learning rate: epochs of the first cycle, and growth factor per cycle.
FIRST_CYCLE, CYCLE_GROWTH = 10, 2


_ARRAYS = ("shift", "scale", "keep", "train", "valid", "rate")


@dataclass
class SavedNetwork:
    """One trained network with its settings and the losses of its training.

    The input of a feature x is (x - shift) / scale, computed in float64 and cast to float32, and 0
    where `keep` is False. Losses are by epoch: sum of weighted row losses / rows (spec 1.4).
    """

    fold: int
    chain: int
    seed: int
    model: str  # dnn, dnnp, dnnps, lin, linp
    structure: tuple[int, int]  # layers (output included), units
    loss: str  # mse, pnll
    weighting: str  # poisson, original
    normalisation: str  # z-score, minmax
    features: tuple[str, ...]
    shift: np.ndarray  # [F] f8, of the training rows
    scale: np.ndarray  # [F] f8
    keep: np.ndarray  # [F] bool
    label: tuple[float, float]  # mean and standard deviation of the training labels; not used
    state: State  # of the best epoch
    train: np.ndarray  # [n_epochs] f8
    valid: np.ndarray  # [n_epochs] f8
    rate: np.ndarray  # [n_epochs] f8, learning rate at the end of each epoch
    best_epoch: int
    snapshots: dict[int, State] = field(default_factory=dict)  # by epoch
    # State of the optimiser at the best epoch, to continue a training: <torch's name>.<name of the
    # weight>, such as exp_avg.fc.0.weight, and the number of steps.
    optimiser: State = field(default_factory=dict)
    n_steps: int = 0
    # Settings of the optimiser and its schedule, by the names of the options.
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Path of the file, relative to the folder of the block index."""
        return name_of(self.fold, self.seed)

    @property
    def best_loss(self) -> float:
        """The smallest validation loss, that of the weights in `state`."""
        return float(self.valid[self.best_epoch])

    def without_weights(self) -> SavedNetwork:
        """Return a copy without the tensors, which are large."""
        bare: dict[int, State] = {epoch: {} for epoch in self.snapshots}
        return replace(self, state={}, optimiser={}, snapshots=bare)


def name_of(fold: int, seed: int) -> str:
    """Return the path of a member's file, relative to the folder of the block index."""
    return f"{FOLDER}/fold{fold}-{seed}.safetensors"


def write_member(path: Path, member: SavedNetwork) -> None:
    """Write a member; equal members give equal bytes."""
    tensors = _prefixed("best", member.state) | _prefixed("optimiser", member.optimiser)
    for epoch, state in member.snapshots.items():
        tensors |= _prefixed(f"snapshot-{epoch}", state)
    tensors |= {name: torch.from_numpy(np.array(getattr(member, name))) for name in _ARRAYS}
    about = {
        "format": MEMBER,
        "fold": member.fold,
        "chain": member.chain,
        "seed": member.seed,
        "model": member.model,
        "structure": list(member.structure),
        "loss": member.loss,
        "weighting": member.weighting,
        "normalisation": member.normalisation,
        "features": list(member.features),
        "label": list(member.label),
        "best_epoch": member.best_epoch,
        "n_steps": member.n_steps,
        "training": member.training,
    }
    checkpoint.write(path, tensors, about)


def read_member(path: str | Path) -> SavedNetwork:
    """Read a member. Raise InputError if it is not a member or has changed since it was written."""
    tensors, about = checkpoint.read(path, MEMBER)
    states: dict[str, State] = {}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        states.setdefault(group, {})[rest] = tensor
    values: dict[str, Any] = {name: tensors[name].numpy() for name in _ARRAYS} | about
    del values["format"]
    for name in ("structure", "features", "label"):
        values[name] = tuple(values[name])
    return SavedNetwork(
        **values,
        state=states["best"],
        optimiser=states.get("optimiser", {}),
        snapshots={
            int(group.partition("-")[2]): state
            for group, state in sorted(states.items(), key=lambda entry: _epoch(entry[0]))
            if group.startswith("snapshot-")
        },
    )


def _prefixed(prefix: str, state: Mapping[str, torch.Tensor]) -> State:
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def _epoch(group: str) -> int:
    return int(group.partition("-")[2] or -1)


@dataclass(frozen=True, order=True)
class MemberFile:
    """Path of a member's file; sorted by fold and chain, as the columns of the predictions."""

    fold: int
    chain: int
    seed: int
    path: Path


def find_members(paths: Sequence[Path]) -> list[MemberFile]:
    """Return the members listed in block indexes, by fold and chain.

    Raise InputError if a member is listed twice or the folds have different chains.
    """
    places = sorted(place for item in blocks.read_indexes(paths) for place in _places(item))
    if not places:
        raise InputError(paths[0], "lists no member", expected="block indexes of sysnet.train")
    chains: dict[int, list[int]] = {}
    for place in places:
        chains.setdefault(place.fold, []).append(place.chain)
    wanted = list(range(max(place.chain for place in places) + 1))
    for fold in range(max(chains) + 1):
        if chains.get(fold, []) != wanted:
            raise InputError(
                paths[0], f"and the other block indexes list the chains {chains.get(fold, [])}",
                field=f"fold {fold}", expected=f"each of 0 to {wanted[-1]} once",
            )  # fmt: skip
    return places


def _places(item: blocks.Item) -> Iterator[MemberFile]:
    """Yield the members of a group from fold, chain and seed of each in the block index."""
    for fold, chain, seed in item.known("members", "sysnet.train"):
        yield MemberFile(fold, chain, seed, item.path(name_of(fold, seed)))
