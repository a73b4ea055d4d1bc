"""The state of a training between two steps, which a checkpoint contains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from skyproof.core.comm import on_first_rank
from skyproof.learn.checkpoint import Checkpoints
from skyproof.learn.history import History
from skyproof.learn.reduce import Team


class TrainingState:
    """Weights, state of the optimiser, history, and the weights of the best evaluation.

    Learning rate and early stopping are functions of the history.
    """

    def __init__(self, network: nn.Module, optimizer: Optimizer, history: History) -> None:
        self.network, self.optimizer, self.history = network, optimizer, history
        self.best: dict[str, Tensor] = {}  # empty: there was no evaluation

    def add_evaluation(self, done: int, values: Mapping[str, float]) -> None:
        """Add an evaluation after `done` steps; keep the weights if it is the best."""
        self.history.add_evaluation(done, values)
        if self.history.best_step == done:
            weights = self.network.state_dict().items()
            self.best = {name: value.detach().clone() for name, value in weights}

    def restore_best(self) -> None:
        """Set the network to the weights of the best evaluation."""
        self.network.load_state_dict(self.best)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything as tensors by name."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
        tensors |= {f"history.{name}": value for name, value in self.history.tensors().items()}
        return tensors | {f"best.{name}": value for name, value in self.best.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state that `tensors` returned."""
        self.network.load_state_dict(_below("network.", tensors))
        state: dict[int, dict[str, Any]] = {}
        for name, value in _below("optimizer.", tensors).items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.history.load(_below("history.", tensors))
        device = next(self.network.parameters()).device
        self.best = {name: value.to(device) for name, value in _below("best.", tensors).items()}

    def resume(self, checkpoints: Checkpoints, start: Path | None, team: Team) -> int:
        """Load the newest checkpoint, else `start`, on all ranks; return its step, or 0."""

        def newest() -> tuple[int, dict[str, Tensor]] | None:
            found = checkpoints.newest()
            return checkpoints.load(start) if found is None and start is not None else found

        found = on_first_rank(team.comm, newest)
        if found is None:
            return 0
        done, tensors = found
        self.load(tensors)
        return done


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}
