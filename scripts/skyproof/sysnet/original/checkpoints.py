"""The original's checkpoints, `best.pth.tar` and `snapshot_<epoch>.pth.tar`: written and read.

A checkpoint is a dictionary: epoch, state_dict, optim_dict, scheduler_dict, best_val_loss, and
stats, {'x': (mean, std), 'y': (mean, std)} of the training rows. Reading executes nothing: torch's
own restricted unpickler gets leave for numpy's arrays and numbers, which `stats` holds.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skyproof.core.errors import InputError
from skyproof.sysnet.members.member import CYCLE_GROWTH, FIRST_CYCLE, Member, State

BEST = "best.pth.tar"

# The original's fixed settings (spec 1.3): not options, there or here.
_ADAM = {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False}
_MOMENTUM = 0.9


def folder_of(fold: int, seed: int) -> str:
    """Return the name of a member's folder in the original's layout."""
    return f"model_{fold}_{seed}"


def best_checkpoint(member: Member) -> bytes:
    """Return the content of a member's best.pth.tar; equal members give equal bytes."""
    content = {
        "epoch": member.best_epoch,
        "state_dict": _module_state(member.state, _steps(member, member.best_epoch)),
        "optim_dict": _optimiser_state(member),
        "scheduler_dict": _scheduler_state(member),
        "best_val_loss": member.best_loss,
        "stats": _stats(member),
    }
    return _saved(content)


def snapshot_checkpoint(member: Member, epoch: int) -> bytes:
    """Return the content of snapshot_<epoch>.pth.tar: the weights at the end of a cycle."""
    content = {
        "epoch": epoch,
        "state_dict": _module_state(member.snapshots[epoch], _steps(member, epoch)),
        "best_val_loss": float(member.valid[: epoch + 1].min()),
        "stats": _stats(member),
    }
    return _saved(content)


def _saved(content: dict[str, Any]) -> bytes:
    """Save to memory: a file's name would become a part of its bytes."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def _module_state(state: State, n_steps: int) -> State:
    """Return the state in the order of the original's modules, with torch's count of batches."""
    found: State = {}
    for name in _weight_order(state):
        found[name] = state[name].contiguous().clone()
        if name.endswith("running_var"):
            counter = name.replace("running_var", "num_batches_tracked")
            found[counter] = torch.tensor(n_steps, dtype=torch.int64)
    return found


def _weight_order(state: State) -> list[str]:
    """Order names as a module lists them: fc before bn, layer by layer, weight before bias."""
    kinds = ("weight", "bias", "running_mean", "running_var")

    def place(name: str) -> tuple[int, int, int]:
        module, *rest = name.split(".")
        layer = int(rest[0]) if len(rest) > 1 else 0
        return ("fc", "bn", "hl1").index(module), layer, kinds.index(rest[-1])

    return sorted(state, key=place)


def _optimiser_state(member: Member) -> dict[str, Any]:
    """Return the optimiser's state as torch's optimisers hold it, parameters by number."""
    told = member.training
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
    group: dict[str, Any] = {"lr": _rate(member), "weight_decay": told.get("weight_decay", 0.0)}
    group |= {"momentum": _MOMENTUM} if told.get("optimiser") == "sgd" else _ADAM
    group |= {"initial_lr": told.get("learning_rate", 0.0), "params": list(range(len(parameters)))}
    return {"state": state, "param_groups": [group]}


def _steps(member: Member, epoch: int) -> int:
    """Return the number of steps up to the end of an epoch, counted from 0."""
    return int(member.training["steps_per_epoch"]) * (epoch + 1)


def _rate(member: Member) -> float:
    return float(member.rate[member.best_epoch])


def _scheduler_state(member: Member) -> dict[str, Any] | None:
    """Return the state of torch's CosineAnnealingWarmRestarts after the best epoch, or None."""
    told = member.training
    if told.get("scheduler") != "cosann":
        return None
    steps = int(told["steps_per_epoch"])
    position = member.best_epoch + (steps - 1) / steps
    cycle = int(math.log2(position / FIRST_CYCLE * (CYCLE_GROWTH - 1) + 1))
    start = FIRST_CYCLE * (CYCLE_GROWTH**cycle - 1) / (CYCLE_GROWTH - 1)
    return {
        "T_0": FIRST_CYCLE,
        "T_i": FIRST_CYCLE * CYCLE_GROWTH**cycle,
        "T_mult": CYCLE_GROWTH,
        "eta_min": told.get("eta_min", 0.0),
        "T_cur": position - start,
        "base_lrs": [told.get("learning_rate", 0.0)],
        "last_epoch": member.best_epoch,
        "_last_lr": [_rate(member)],
    }


def _stats(member: Member) -> dict[str, Any]:
    # Arrays for the features, as the original's own readers compute with them; built anew, as a
    # pickle tells whether two equal values are one object.
    x = (np.array(member.shift.tolist()), np.array(member.scale.tolist()))
    return {"x": x, "y": (float(member.label[0]), float(member.label[1]))}


def _allowed() -> list[Any]:
    """Return what numpy's arrays and numbers are made of in a pickle, by numpy's old name and new.

    (Numpy 2 moved its core; files name the one or the other.)
    """
    parts: list[Any] = [np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in "fdilqILQ?"}]
    core = np.arange(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    for place in ("numpy.core.multiarray", "numpy._core.multiarray"):
        parts += [(core, f"{place}._reconstruct"), (scalar, f"{place}.scalar")]
    # The bytes of a number travel as text in pickles of torch's protocol.
    encode = b"".__reduce_ex__(2)[0]
    return [*parts, encode]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint of the original, tensors on the CPU wherever they were written.

    InputError where it is none, or holds more than tensors, arrays, numbers and text.
    """
    try:
        with torch.serialization.safe_globals(_allowed()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"names {named[1]}" if named else "is no checkpoint"
        raise InputError(
            path, f"cannot be read as data ({reason})",
            expected="tensors, arrays, numbers and text",
        ) from None  # fmt: skip
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, FileNotFoundError):
            raise InputError(path, "does not exist") from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            path, f"cannot be read ({reason})", expected="a checkpoint (.pth.tar)"
        ) from None
    if not isinstance(content, dict) or "state_dict" not in content:
        raise InputError(path, "is no checkpoint of a network", field="state_dict")
    return content
