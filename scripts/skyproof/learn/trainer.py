"""A training loop for networks that stream shards, on a CPU or a GPU.

Order of the rows, augmentation and learning rate are functions of (seed, step). So a checkpoint is
the weights, the optimiser's state, the step and the history, and a training that was killed at any
moment goes on to the same bits.

A batch is cut into micro-batches of fixed size, which the ranks share. Their gradients are added
exactly (`reduce.ExactSum`), so that any number of ranks takes the same step.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from skyproof.core.comm import on_first_rank
from skyproof.core.errors import SkyproofError
from skyproof.core.progress import Progress
from skyproof.learn.checkpoint import Checkpoints
from skyproof.learn.reduce import ExactSum, PlainSum, Team
from skyproof.learn.shards import Batch, Shards, Share, Stream

# (outputs, y) -> (mean loss of the rows, mean accuracy of the rows)
Loss = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

_REPORT_EVERY = 10  # steps; a GPU is asked for its numbers no more often
_RUNNING_MEAN = 50  # steps


@dataclass(frozen=True)
class Settings:
    """What decides the numbers, besides network, rows and seed; and what is recorded."""

    n_epochs: int
    batch: int  # rows
    micro_batch: int  # rows of a piece of the batch; part of the bits
    learning_rate: float
    schedule: str = "constant"  # or "cosine"
    weight_decay: float = 0.0
    augment: bool = False
    checkpoint_every: int = 100  # steps
    profile_steps: int = 0
    mixed_precision: bool = False  # bfloat16 where safe
    exact: bool = True  # the same bits on any number of ranks; else faster


@dataclass(frozen=True)
class Place:
    """Where a training keeps its checkpoints, logs and traces, and under which names.

    Checkpoints lie in `ckpts/<recipe>/` below `folder`: a training of another recipe starts anew.
    `configuration` is written into them; `start` is one to go on from where there are none yet.
    """

    folder: Path
    recipe: str
    configuration: str
    start: Path | None = None


@dataclass
class History:
    """Loss and accuracy of every step so far."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)

    def columns(self, settings: Settings, steps_per_epoch: int) -> dict[str, np.ndarray]:
        """Return the table: step and epoch from 1, values of the step, and running means."""
        steps = np.arange(len(self.loss))
        loss, accuracy = np.array(self.loss, "f4"), np.array(self.accuracy, "f4")
        total = settings.n_epochs * steps_per_epoch
        rates = [learning_rate(settings, step, total) for step in range(len(loss))]
        return {
            "step": steps + 1,
            "epoch": steps // steps_per_epoch + 1,
            "loss": loss,
            "accuracy": accuracy,
            "learning_rate": np.array(rates),
            "mean_loss": running_mean(loss),
            "mean_accuracy": running_mean(accuracy),
        }


def fit(
    network: nn.Module,
    shards: Shards,
    loss: Loss,
    settings: Settings,
    place: Place,
    *,
    stream: Stream,
    device: torch.device,
    log: logging.Logger,
    progress: Callable[[int, str], Progress],
    team: Team | None = None,
) -> History:
    """Train `network` for exactly `settings.n_epochs` epochs, resuming where a kill left it.

    `network(x)` takes rows as `shards` stores them. `stream(*names)` is the source of randomness.
    All ranks of `team` call this alike and end with the same weights; rank 0 keeps the checkpoints.
    Raises SkyproofError where the loss is not finite, InputError where `place.start` does not fit.
    """
    team = team or Team()
    network.to(device).train()
    optimizer = torch.optim.AdamW(
        network.parameters(), weight_decay=settings.weight_decay, fused=True
    )
    checkpoints = Checkpoints(place.folder / "ckpts" / place.recipe, place.configuration, log)
    total = settings.n_epochs * shards.steps(settings.batch)
    first, history = _resume(network, optimizer, checkpoints, place, team)
    if first and team.rank == 0:
        log.info("going on after step %d of %d", first, total)
    bar = progress(total, "training")
    bar.advance(first)
    batches = shards.batches(
        stream,
        settings.batch,
        settings.n_epochs,
        first=first,
        augment=settings.augment,
        share=Share(settings.micro_batch, team.rank, team.size),
    )
    fresh: list[torch.Tensor] = []  # loss and accuracy of steps that are still on the device
    add = summation(network, settings, team)
    with (
        _scalars(place.folder / "logs" / place.recipe, first, team) as write_scalar,
        _profiler(place.folder / "prof" / place.recipe, settings, device, team) as profiler,
    ):
        for batch in batches:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, batch.step, total)
            fresh.append(train_step(network, optimizer, loss, batch, device, settings, add))
            profiler.step()
            done = batch.step + 1
            save = done % settings.checkpoint_every == 0 or done == total
            if save or done % _REPORT_EVERY == 0:
                _record(fresh, history, write_scalar)
                bar.advance(done - bar.done, f"loss {np.mean(history.loss[-_RUNNING_MEAN:]):.4f}")
            if save and team.rank == 0:
                checkpoints.save(done, _state(network, optimizer, history))
    bar.close()
    return history


def learning_rate(settings: Settings, step: int, total: int) -> float:
    """Return the step size of step `step` (from 0) of `total`.

    'cosine' falls from `settings.learning_rate` to 0 along half a period (Loshchilov & Hutter 2017,
    arXiv:1608.03983).
    """
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * (1 + math.cos(math.pi * step / total)) / 2


def summation(network: nn.Module, settings: Settings, team: Team) -> ExactSum | PlainSum:
    """Return what adds the parts of a step: gradients of all parameters, loss, accuracy."""
    flat = [parameter.detach().flatten() for parameter in network.parameters()]
    like = torch.cat([*flat, flat[0].new_zeros(2)])
    return (ExactSum if settings.exact else PlainSum)(team, like)


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    batch: Batch,
    device: torch.device,
    settings: Settings,
    add: ExactSum | PlainSum,
) -> torch.Tensor:
    """Take one step and return (loss, accuracy) of the batch as a tensor [2] on the device."""
    parameters = list(network.parameters())
    parts = []  # of each micro-batch: its share of gradient, loss and accuracy
    for x, y in batch.pieces(settings.micro_batch):
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.mixed_precision):
            rows = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
            value, accuracy = loss(network(rows[0]), rows[1])
        share = len(y) / batch.n_rows
        gradients = torch.autograd.grad(value * share, parameters)
        figures = torch.stack([value.detach(), accuracy]) * share
        parts.append(torch.cat([*(g.flatten() for g in gradients), figures]))
    total = add(parts, -(-batch.n_rows // settings.micro_batch))
    pieces = total[:-2].split([p.numel() for p in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad = piece.view_as(parameter)
    optimizer.step()
    return total[-2:]


def _record(
    fresh: list[torch.Tensor], history: History, write_scalar: Callable[[str, float, int], None]
) -> None:
    """Move the numbers of the last steps from the device to the history and to TensorBoard."""
    for value, accuracy in torch.stack(fresh).tolist():
        if not math.isfinite(value):
            raise SkyproofError(
                f"the loss is {value} at step {len(history.loss) + 1}: "
                "a smaller learning_rate may help; the checkpoints before it are kept",
                collective=True,  # all ranks have the same number
            )
        history.loss.append(value)
        history.accuracy.append(accuracy)
        write_scalar("loss", value, len(history.loss))
        write_scalar("accuracy", accuracy, len(history.loss))
    fresh.clear()


def _state(
    network: nn.Module, optimizer: torch.optim.Optimizer, history: History
) -> dict[str, torch.Tensor]:
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    tensors["history.loss"] = torch.tensor(history.loss)
    tensors["history.accuracy"] = torch.tensor(history.accuracy)
    return tensors


def _resume(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    checkpoints: Checkpoints,
    place: Place,
    team: Team,
) -> tuple[int, History]:
    """Load the newest checkpoint of this training, else the one to start from, else nothing."""
    found = on_first_rank(team.comm, lambda: _newest(checkpoints, place))
    if found is None:
        return 0, History()
    step, tensors = found
    network.load_state_dict(_below("network.", tensors))
    state: dict[int, dict[str, Any]] = {}
    for name, value in _below("optimizer.", tensors).items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    history = _below("history.", tensors)
    return step, History(history["loss"].tolist(), history["accuracy"].tolist())


def _newest(checkpoints: Checkpoints, place: Place) -> tuple[int, dict[str, torch.Tensor]] | None:
    found = checkpoints.newest()
    if found is None and place.start is not None:
        return checkpoints.load(place.start)
    return found


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n.removeprefix(prefix): value for n, value in tensors.items() if n.startswith(prefix)}


def running_mean(values: np.ndarray, width: int = _RUNNING_MEAN) -> np.ndarray:
    """Return at each step the mean of the last `width` values (of all, where there are fewer)."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    steps = np.arange(1, len(values) + 1)
    begin = np.maximum(steps - width, 0)
    return (sums[steps] - sums[begin]) / (steps - begin)


@contextmanager
def _scalars(folder: Path, first: int, team: Team) -> Iterator[Callable[[str, float, int], None]]:
    """Give a writer of TensorBoard scalars; a resume hides what came after its checkpoint."""
    if team.rank:
        yield lambda name, value, step: None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder), purge_step=first + 1 if first else None)
    try:
        yield writer.add_scalar
    finally:
        writer.close()


@contextmanager
def _profiler(folder: Path, settings: Settings, device: torch.device, team: Team) -> Iterator[Any]:
    """Trace a few steps of rank 0, after one of warm-up, into a file for chrome://tracing."""
    steps = settings.profile_steps
    if steps == 0 or team.rank:
        yield _NoProfiler()
        return
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(
        activities=kinds,
        schedule=torch.profiler.schedule(wait=0, warmup=1, active=steps, repeat=1),
        on_trace_ready=lambda done: done.export_chrome_trace(str(folder / "trace.json")),
    ) as profiler:
        yield profiler


class _NoProfiler:
    def step(self) -> None:
        pass
