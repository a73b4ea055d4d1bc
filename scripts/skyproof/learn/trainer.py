"""The training loop of networks that stream shards, on a CPU or a GPU.

The order of the rows, their random numbers and the learning rate are functions of the seed, the
step and the history. A checkpoint contains the weights, the state of the optimiser, the history and
the best weights. Therefore a killed training continues to the same bits.

A batch is divided into micro-batches of fixed size, which the ranks share. Their gradients are
added exactly (`reduce.ExactSum`), so the step does not depend on the number of ranks.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from skyproof.core.progress import Progress
from skyproof.core.seeds import Stream
from skyproof.learn import monitor
from skyproof.learn.checkpoint import Checkpoints
from skyproof.learn.history import History
from skyproof.learn.inputs import Assembly
from skyproof.learn.reduce import Team
from skyproof.learn.schedule import learning_rate, plateau_factor, should_stop
from skyproof.learn.settings import Objective, TrainingFiles, TrainingSettings, Validation
from skyproof.learn.shards import Shards, Share
from skyproof.learn.state import TrainingState
from skyproof.learn.step import Forward, TrainingStep
from skyproof.learn.validation import Evaluation, not_finite

CHECKPOINT = "skyproof-training-2"  # the format of a checkpoint
_REPORT_EVERY = 10  # steps between two copies of numbers from a GPU

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def fit(
    network: nn.Module,
    shards: Shards,
    objective: Objective,
    settings: TrainingSettings,
    files: TrainingFiles,
    *,
    stream: Stream,
    device: torch.device,
    log: logging.Logger,
    progress: Callable[[int, str], Progress],
    team: Team | None = None,
    validation: Validation | None = None,
    assembly: Assembly | None = None,
    optimizer: MakeOptimizer | None = None,
) -> History:
    """Train `network` for at most `settings.n_epochs` epochs, from the newest checkpoint if any.

    `network(x)` takes rows as `shards` stores them or `assembly` returns them; it must not draw
    random numbers or depend on other rows of a batch (dropout, batch normalisation: ValueError).
    `stream(*names)` is the source of random numbers. The default `optimizer` is AdamW. All ranks of
    `team` call this function and end with the same weights; rank 0 writes the checkpoints.

    Raises SkyproofError if a loss is not finite, InputError if a row or `files.start` is invalid.
    """
    check(network, settings, validation)
    team = team or Team()
    network.to(device).train()
    make = optimizer or adamw(settings)
    state = TrainingState(network, make(network.parameters()), History(objective.names))
    history, total = state.history, settings.n_epochs * shards.steps(settings.batch)
    kept = Checkpoints(
        files.folder / "ckpts" / files.cache_key, files.configuration, log, kind=CHECKPOINT
    )
    first = state.resume(kept, files.start, team)
    if first and team.rank == 0:
        log.info("resuming after step %d of %d", first, total)
    forward = Forward(network, objective, settings, device, assembly)
    step = TrainingStep(forward, state.optimizer, settings, team)
    evaluate = Evaluation(forward, validation, settings, team) if validation else None
    batches = shards.batches(
        stream, settings.batch, settings.n_epochs, first=first,
        draw=assembly.draw if assembly else None,
        share=Share(settings.micro_batch, team.rank, team.size),
    )  # fmt: skip
    every = (validation and validation.every) or shards.steps(settings.batch)
    factor = plateau_factor(settings, history.valid["loss"])
    stopped = should_stop(history.valid["loss"], settings.stop_patience, settings.min_delta)
    pending: list[tuple[Tensor, float]] = []  # numbers and rates of steps, still on the device
    bar = progress(total, "training")
    bar.advance(first)
    with (
        monitor.scalars(files.folder / "logs" / files.cache_key, first, team) as write_scalars,
        monitor.profiler(
            files.folder / "prof" / files.cache_key, settings.profile_steps, device, team
        ) as profiler,
    ):
        for batch in () if stopped else batches:
            rate = learning_rate(settings, batch.step, total) * factor
            pending.append((step(batch, rate), rate))
            profiler.step()
            done = batch.step + 1
            validate = evaluate is not None and (done % every == 0 or done == total)
            save = done % settings.checkpoint_every == 0 or done == total
            if validate or save or done % _REPORT_EVERY == 0:
                _record(pending, history, write_scalars)
                bar.advance(done - bar.done, f"loss {history.recent_loss():.4f}")
            if evaluate is not None and validate:
                values = evaluate(done)
                state.add_evaluation(done, values)
                write_scalars({f"valid_{name}": value for name, value in values.items()}, done)
                losses = history.valid["loss"]
                factor = plateau_factor(settings, losses)
                stopped = should_stop(losses, settings.stop_patience, settings.min_delta)
            if (save or stopped) and team.rank == 0:
                kept.save(done, state.tensors())
            if stopped:
                break
    bar.close()
    if settings.restore_best:
        state.restore_best()
    return history


def check(network: nn.Module, settings: TrainingSettings, validation: Validation | None) -> None:
    """Raise ValueError for settings or layers with which a training is not reproducible."""
    if settings.needs_validation and validation is None:
        raise ValueError("stop_patience, restore_best and 'plateau' need validation rows")
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd):
            raise ValueError(f"{name}: {type(module).__name__} depends on batches or their order")


def adamw(settings: TrainingSettings) -> MakeOptimizer:
    """Return a constructor of AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101)."""
    return lambda parameters: torch.optim.AdamW(
        parameters, weight_decay=settings.weight_decay, fused=True
    )


def _record(
    pending: list[tuple[Tensor, float]], history: History, write_scalars: monitor.WriteScalars
) -> None:
    """Move the numbers of the last steps from the device to the history and to TensorBoard."""
    for numbers, (_, rate) in zip(
        torch.stack([values for values, _ in pending]).tolist(), pending, strict=True
    ):
        found = dict(zip(history.steps, numbers, strict=True))
        if not math.isfinite(found["loss"]):
            raise not_finite("loss", found["loss"], f"at step {len(history) + 1}")
        history.add_step(found, rate)
        write_scalars(found, len(history))
    pending.clear()


@dataclass(frozen=True, eq=False)
class SeedMember:
    """A network of an ensemble, with its name and its random streams."""

    name: str
    network: nn.Module
    stream: Stream


def fit_members(
    members: Sequence[SeedMember],
    shards: Shards,
    objective: Objective,
    settings: TrainingSettings,
    files: TrainingFiles,
    **more: Any,
) -> list[History]:
    """Train networks that differ in their seed, in sequence; `more` are arguments of `fit`.

    Each has the bits of a separate training. Memory holds one optimiser at a time; `resident`
    shards are read once for all members. Each member has a folder of checkpoints, so a resumed call
    does not repeat finished members.
    """
    histories = []
    for member in members:
        own = replace(files, cache_key=f"{files.cache_key}/{member.name}")
        histories.append(
            fit(member.network, shards, objective, settings, own, stream=member.stream, **more)
        )
        member.network.cpu()
    return histories
