"""Settings, loss, validation rows and files of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from skyproof.learn.shards import Shards


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a training. Patience is a number of evaluations of the validation rows.

    `stop_patience`, `restore_best` and the schedule 'plateau' raise ValueError without validation
    rows.
    """

    n_epochs: int
    batch: int  # rows per step
    micro_batch: int  # rows per forward pass (gradients are accumulated); changes the result
    learning_rate: float
    schedule: Literal["constant", "cosine", "milestones", "plateau"] = "constant"
    warmup_steps: int = 0  # the learning rate rises linearly over the first steps
    milestones: tuple[int, ...] = ()  # epochs after which it is multiplied by `factor`
    factor: float = 0.1  # of a milestone, or of a plateau
    plateau_patience: int = 10  # see `schedule.plateau_factor`
    stop_patience: int = 0  # see `schedule.should_stop`; 0: train all epochs
    min_delta: float = 0.0  # smallest decrease of the validation loss that defers the stop
    restore_best: bool = False  # return the weights of the smallest validation loss
    clip_norm: float = 0.0  # largest norm of the gradient; 0: not clipped
    weight_decay: float = 0.0
    checkpoint_every: int = 100  # steps
    profile_steps: int = 0
    mixed_precision: bool = False  # bfloat16 where safe
    exact: bool = True  # the same bits on any number of ranks; False is faster

    @property
    def needs_validation(self) -> bool:
        return self.stop_patience > 0 or self.restore_best or self.schedule == "plateau"


@dataclass(frozen=True)
class Objective:
    """A loss and further named numbers that are reported.

    `function(outputs, targets)` returns scalars by name: "loss", which is minimised, and one for
    each name in `fractions` and `means`. All are means over the rows. Each has a column in the
    history. Values of `fractions` lie between 0 and 1: they are summed in one vector with the
    gradients without reducing their precision. Values of `means` may have any size.
    """

    function: Callable[[Tensor, Tensor], Mapping[str, Tensor]]
    fractions: tuple[str, ...] = ()
    means: tuple[str, ...] = ()

    @property
    def with_gradient(self) -> tuple[str, ...]:
        return ("loss", *self.fractions)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.with_gradient, *self.means)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        values = self.function(outputs, targets)
        if set(values) != set(self.names):
            raise ValueError(f"the loss returned {sorted(values)}, not {sorted(self.names)}")
        return values


@dataclass(frozen=True)
class Validation:
    """Rows on which the network is evaluated: after each epoch, or after every `every` steps.

    The weights after the last step are always evaluated. `rows` is the size of a forward pass
    (0: the micro-batch of training).
    """

    shards: Shards
    every: int = 0
    rows: int = 0


@dataclass(frozen=True)
class TrainingFiles:
    """Folders of the checkpoints, logs and traces of a training.

    They lie in `ckpts/<cache_key>`, `logs/<cache_key>` and `prof/<cache_key>` below `folder`: a
    training with another cache key does not continue from them. `configuration` is written into
    the checkpoints; `start` is a checkpoint of the same configuration, used if the folder has none.
    """

    folder: Path
    cache_key: str
    configuration: str
    start: Path | None = None
