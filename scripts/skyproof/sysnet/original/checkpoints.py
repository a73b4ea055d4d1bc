"""Write and read the checkpoints of the original, `best.pth.tar` and `snapshot_<epoch>.pth.tar`.

A checkpoint is a dictionary: epoch, state_dict, optim_dict, scheduler_dict, best_val_loss, and
stats, {'x': (mean, std), 'y': (mean, std)} of the training rows. Reading executes no code of the
file (`core.formats.torch_file`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skyproof.core.errors import InputError
from skyproof.core.formats import torch_file
from skyproof.learn.ensemble.members import State
from skyproof.sysnet.members.member import CYCLE_GROWTH, FIRST_CYCLE, SavedNetwork

BEST = "best.pth.tar"

# Fixed settings of the original (spec 1.3), which are not options.
_ADAM = {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False}
_MOMENTUM = 0.9


def folder_of(fold: int, seed: int) -> str:
    """Return the name of a network's folder in the original's layout."""
    return f"model_{fold}_{seed}"


def best_checkpoint(member: SavedNetwork) -> bytes:
    """Return the content of best.pth.tar; equal networks give equal bytes."""
    content = {
        "epoch": member.best_epoch,
        "state_dict": _module_state(member.state, _steps(member, member.best_epoch)),
        "optim_dict": _optimiser_state(member),
        "scheduler_dict": _scheduler_state(member),
        "best_val_loss": member.best_loss,
        "stats": _stats(member),
    }
    return torch_file.saved(content)


def snapshot_checkpoint(member: SavedNetwork, epoch: int) -> bytes:
    """Return the content of snapshot_<epoch>.pth.tar: the weights at the end of a cycle."""
    content = {
        "epoch": epoch,
        "state_dict": _module_state(member.snapshots[epoch], _steps(member, epoch)),
        "best_val_loss": float(member.valid[: epoch + 1].min()),
        "stats": _stats(member),
    }
    return torch_file.saved(content)


def _module_state(state: State, n_steps: int) -> State:
    """Return the state in the order of the original's modules, with num_batches_tracked."""
    found: State = {}
    for name in _weight_order(state):
        found[name] = state[name].contiguous().clone()
        if name.endswith("running_var"):
            counter = name.replace("running_var", "num_batches_tracked")
            found[counter] = torch.tensor(n_steps, dtype=torch.int64)
    return found


def _weight_order(state: State) -> list[str]:
    """Return names in the order of a module: fc before bn, by layer, weight before bias."""
    kinds = ("weight", "bias", "running_mean", "running_var")

    def position(name: str) -> tuple[int, int, int]:
        module, *rest = name.split(".")
        layer = int(rest[0]) if len(rest) > 1 else 0
        return ("fc", "bn", "hl1").index(module), layer, kinds.index(rest[-1])

    return sorted(state, key=position)


def _optimiser_state(member: SavedNetwork) -> dict[str, Any]:
    """Return the state in the format of torch's optimisers, parameters by number."""
    training = member.training
    parameters = [name for name in _weight_order(member.state) if "running" not in name]
    state: dict[int, dict[str, Any]] = {}
    for number, name in enumerate(parameters):
        moments = {
            what: member.optimiser[key].contiguous().clone()
            for what in ("exp_avg", "exp_avg_sq", "momentum_buffer")
            if (key := f"{what}.{name}") in member.optimiser
        }
        if "exp_avg" in moments:
            moments = {"step": torch.tensor(float(_steps(member, member.best_epoch))), **moments}
        if moments:
            state[number] = moments
    group: dict[str, Any] = {"lr": _rate(member), "weight_decay": training.get("weight_decay", 0.0)}
    group |= {"momentum": _MOMENTUM} if training.get("optimiser") == "sgd" else _ADAM
    group |= {"initial_lr": training.get("learning_rate", 0.0)}
    group |= {"params": list(range(len(parameters)))}
    return {"state": state, "param_groups": [group]}


def _steps(member: SavedNetwork, epoch: int) -> int:
    """Return the number of steps up to the end of an epoch, counted from 0."""
    return int(member.training["steps_per_epoch"]) * (epoch + 1)


def _rate(member: SavedNetwork) -> float:
    return float(member.rate[member.best_epoch])


def _scheduler_state(member: SavedNetwork) -> dict[str, Any] | None:
    """Return the state of torch's CosineAnnealingWarmRestarts after the best epoch, or None."""
    training = member.training
    if training.get("scheduler") != "cosann":
        return None
    steps = int(training["steps_per_epoch"])
    position = member.best_epoch + (steps - 1) / steps
    cycle = int(math.log2(position / FIRST_CYCLE * (CYCLE_GROWTH - 1) + 1))
    start = FIRST_CYCLE * (CYCLE_GROWTH**cycle - 1) / (CYCLE_GROWTH - 1)
    return {
        "T_0": FIRST_CYCLE,
        "T_i": FIRST_CYCLE * CYCLE_GROWTH**cycle,
        "T_mult": CYCLE_GROWTH,
        "eta_min": training.get("eta_min", 0.0),
        "T_cur": position - start,
        "base_lrs": [training.get("learning_rate", 0.0)],
        "last_epoch": member.best_epoch,
        "_last_lr": [_rate(member)],
    }


def _stats(member: SavedNetwork) -> dict[str, Any]:
    # Arrays, because the original's readers compute with them. They are new objects, because a
    # pickle stores whether two equal values are the same object.
    x = (np.array(member.shift.tolist()), np.array(member.scale.tolist()))
    return {"x": x, "y": (float(member.label[0]), float(member.label[1]))}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint of the original, with all tensors on the CPU.

    Raise InputError if it is not one or contains other than tensors, arrays, numbers and text.
    """
    content = torch_file.read(path, expected="a checkpoint (.pth.tar)")
    if not isinstance(content, dict) or "state_dict" not in content:
        raise InputError(path, "is not a checkpoint of a network", field="state_dict")
    return content
