"""The networks of a training: one file a member, `members/fold<fold>-<seed>.safetensors`.

Weights carry the names of the original's modules, so that a member and a `best.pth.tar` hold the
same state: `fc.<i>.weight`, `fc.<i>.bias`, `bn.<i>.weight`, `bn.<i>.bias`, `bn.<i>.running_mean`,
`bn.<i>.running_var` (dnn, dnnp, dnnps), `hl1.weight`, `hl1.bias` (lin, linp); float32, as torch's
own modules shape them. They take all features of the table, in its order.
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

MEMBER = "skyproof-sysnet-member-1"
FOLDER = "members"

# The learning rate follows cosines: epochs of the first cycle, and the growth from cycle to cycle.
FIRST_CYCLE, CYCLE_GROWTH = 10, 2

State = dict[str, torch.Tensor]

_ARRAYS = ("shift", "scale", "keep", "train", "valid", "rate")


@dataclass
class Member:
    """One trained network: what it is, what it was trained with, and how that went.

    A feature x enters the network as (x - shift) / scale in float64, then float32, and as 0 where
    `keep` is False. Losses are those of spec 1.4: sums of weighted row losses over rows, by epoch.
    """

    fold: int
    chain: int
    seed: int
    model: str  # dnn, dnnp, dnnps, lin, linp
    structure: tuple[int, int]  # layers with the output's, units
    loss: str  # mse, pnll
    weighting: str  # poisson, original
    normalisation: str  # z-score, minmax
    features: tuple[str, ...]
    shift: np.ndarray  # [F] f8, of the training rows
    scale: np.ndarray  # [F] f8
    keep: np.ndarray  # [F] bool
    label: tuple[float, float]  # mean and spread of the training labels; networks do not use it
    state: State  # of the best epoch
    train: np.ndarray  # [n_epochs] f8
    valid: np.ndarray  # [n_epochs] f8
    rate: np.ndarray  # [n_epochs] f8, learning rate at the end of each epoch
    best_epoch: int
    snapshots: dict[int, State] = field(default_factory=dict)  # by epoch
    # State of the optimiser at the best epoch, for going on: <torch's name>.<name of the weight>,
    # such as exp_avg.fc.0.weight, and the number of steps.
    optimiser: State = field(default_factory=dict)
    n_steps: int = 0
    # What the optimiser and its schedule were told, by the option's names.
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The place of the member's file below the record's folder."""
        return name_of(self.fold, self.seed)

    @property
    def best_loss(self) -> float:
        """The least validation loss, that of the weights in `state`."""
        return float(self.valid[self.best_epoch])

    def without_weights(self) -> Member:
        """Return what is known of the member but for its tensors, which are large."""
        bare: dict[int, State] = {epoch: {} for epoch in self.snapshots}
        return replace(self, state={}, optimiser={}, snapshots=bare)


def name_of(fold: int, seed: int) -> str:
    """Return the place of a member's file below the folder of its record."""
    return f"{FOLDER}/fold{fold}-{seed}.safetensors"


def write_member(path: Path, member: Member) -> None:
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


def read_member(path: str | Path) -> Member:
    """Read a member (InputError if the file is none, or has changed since it was written)."""
    tensors, about = checkpoint.read(path, MEMBER)
    states: dict[str, State] = {}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        states.setdefault(group, {})[rest] = tensor
    values: dict[str, Any] = {name: tensors[name].numpy() for name in _ARRAYS} | about
    del values["format"]
    for name in ("structure", "features", "label"):
        values[name] = tuple(values[name])
    return Member(
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
class Place:
    """Where a member lies: folds and chains in their order, as columns of the predictions."""

    fold: int
    chain: int
    seed: int
    path: Path


def find_members(paths: Sequence[Path]) -> list[Place]:
    """Return the members that the records name, by fold and chain.

    InputError where a member is named twice, or a fold has other chains than the first.
    """
    places = sorted(place for item in blocks.read_records(paths) for place in _places(item))
    if not places:
        raise InputError(paths[0], "names no member", expected="records of sysnet.train")
    chains: dict[int, list[int]] = {}
    for place in places:
        chains.setdefault(place.fold, []).append(place.chain)
    wanted = list(range(max(place.chain for place in places) + 1))
    for fold in range(max(chains) + 1):
        if chains.get(fold, []) != wanted:
            raise InputError(
                paths[0], f"and its like name the chains {chains.get(fold, [])}",
                field=f"fold {fold}", expected=f"each of 0 to {wanted[-1]} once",
            )  # fmt: skip
    return places


def _places(item: blocks.Item) -> Iterator[Place]:
    """Yield the members of a group; its record's info lists fold, chain and seed of each."""
    for fold, chain, seed in item.known("members", "sysnet.train"):
        yield Place(fold, chain, seed, item.path(name_of(fold, seed)))
