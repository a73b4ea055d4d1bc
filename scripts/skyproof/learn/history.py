"""The numbers of every step and of every evaluation of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from skyproof.learn.schedule import best_of

_RUNNING_MEAN = 50  # steps


class History:
    """The named numbers of a loss: per step (float32), and per evaluation (float64)."""

    def __init__(self, names: Sequence[str] = ("loss",)) -> None:
        self.steps: dict[str, list[float]] = {name: [] for name in names}
        self.rates: list[float] = []  # learning rate of each step
        self.valid: dict[str, list[float]] = {name: [] for name in names}
        self.valid_steps: list[int] = []  # steps done before each evaluation

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.rates)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and vars(self) == vars(other)

    @property
    def best_step(self) -> int | None:
        """The number of steps before the evaluation with the smallest loss; None: no evaluation."""
        return self.valid_steps[best_of(self.valid["loss"])] if self.valid_steps else None

    def add_step(self, values: Mapping[str, float], rate: float) -> None:
        for name, value in values.items():
            self.steps[name].append(value)
        self.rates.append(rate)

    def add_evaluation(self, done: int, values: Mapping[str, float]) -> None:
        """Add an evaluation after `done` steps."""
        for name, value in values.items():
            self.valid[name].append(value)
        self.valid_steps.append(done)

    def recent_loss(self) -> float:
        """Return the mean loss of the last steps."""
        return float(np.mean(self.steps["loss"][-_RUNNING_MEAN:]))

    def columns(self, steps_per_epoch: int) -> dict[str, np.ndarray]:
        """Return the table of the steps: step and epoch from 1, values, rate and running means.

        With validation rows, columns `valid_<name>` follow, NaN for steps without an evaluation.
        """
        steps = np.arange(len(self))
        values = {name: np.array(numbers, "f4") for name, numbers in self.steps.items()}
        table = {
            "step": steps + 1,
            "epoch": steps // steps_per_epoch + 1,
            **values,
            "learning_rate": np.array(self.rates),
            **{f"mean_{name}": trailing_mean(numbers) for name, numbers in values.items()},
        }
        if self.valid_steps:
            for name, numbers in self.valid.items():
                column = np.full(len(self), math.nan)
                column[np.array(self.valid_steps) - 1] = numbers
                table[f"valid_{name}"] = column
        return table

    def evaluations(self, steps_per_epoch: int) -> dict[str, np.ndarray]:
        """Return the table of the evaluations: step, epoch, and values as `valid_<name>`."""
        steps = np.array(self.valid_steps, dtype=np.int64)
        columns = {f"valid_{name}": np.array(numbers) for name, numbers in self.valid.items()}
        return {"step": steps, "epoch": -(-steps // steps_per_epoch), **columns}

    def tensors(self) -> dict[str, Tensor]:
        """Return everything as tensors by name."""
        tensors = {f"step.{name}": torch.tensor(v) for name, v in self.steps.items()}
        for name, numbers in self.valid.items():
            tensors[f"valid.{name}"] = torch.tensor(numbers, dtype=torch.float64)
        tensors["rate"] = torch.tensor(self.rates, dtype=torch.float64)
        tensors["valid_steps"] = torch.tensor(self.valid_steps, dtype=torch.int64)
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the values that `tensors` returned."""
        self.steps = {name: tensors[f"step.{name}"].tolist() for name in self.steps}
        self.valid = {name: tensors[f"valid.{name}"].tolist() for name in self.valid}
        self.rates = tensors["rate"].tolist()
        self.valid_steps = tensors["valid_steps"].tolist()


def trailing_mean(values: np.ndarray, width: int = _RUNNING_MEAN) -> np.ndarray:
    """Return at each step the mean of the last `width` values, or of all if there are fewer."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    steps = np.arange(1, len(values) + 1)
    begin = np.maximum(steps - width, 0)
    return (sums[steps] - sums[begin]) / (steps - begin)
