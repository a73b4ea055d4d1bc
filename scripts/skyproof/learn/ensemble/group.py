"""Training of a group of members, epoch by epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from skyproof.core.seeds import Stream
from skyproof.learn.ensemble import compiled
from skyproof.learn.ensemble.members import (
    EnsembleMember,
    EnsembleSettings,
    State,
    TrainedMember,
    first_state,
)
from skyproof.learn.ensemble.multiply import multiply_on
from skyproof.learn.ensemble.network import MOMENTUM, EnsembleBatch, outputs_of
from skyproof.learn.ensemble.optimiser import Optimiser, cosine_rate, ends_cycle
from skyproof.learn.ensemble.rows import (
    EVALUATION_ROWS,
    DeviceTable,
    Steps,
    batches,
    in_steps,
    order,
    usable,
)
from skyproof.learn.ensemble.shape import Pack, size_of
from skyproof.learn.schedule import Plateau

_PLATEAU = ("best", "bad", "share")
_RESUMED = ("history", "best_loss", "best_epoch", "stopped")


class EnsembleGroup:
    """A group of members in training. Tensors are [E, ...], E = settings.group_size."""

    def __init__(
        self,
        members: Sequence[EnsembleMember],
        settings: EnsembleSettings,
        stream: Stream,
        device: torch.device,
        log: logging.Logger,
    ) -> None:
        if not 1 <= len(members) <= settings.group_size:
            raise ValueError(f"{len(members)} members in a group of {settings.group_size}")
        self.n_members = len(members)
        self.members = [*members, *[members[0]] * (settings.group_size - len(members))]
        self.settings, self.stream, self.device = settings, stream, device
        self.table = DeviceTable([member.rows for member in self.members], device)
        self.step = compiled.maker(settings, device, log)
        self.multiply = multiply_on(device)
        shape, n = settings.shape, settings.group_size
        layouts = list(shape.parameters()), list(shape.statistics())
        self.parameters, self.statistics = (
            Pack(torch.zeros(n, size_of(layout), device=device), layout) for layout in layouts
        )
        decay = self._of_members("weight_decay")
        self.optimiser = Optimiser(settings.optimiser, self.parameters.flat, decay)
        self.l1 = self._of_members("l1")
        self.plateau = Plateau(n, settings.patience, settings.factor)
        self.epoch = 0  # epochs done in this training
        self.history = torch.zeros(3, n, 0, dtype=torch.float64)  # train, valid, rate
        self.best_loss = torch.full((n,), math.inf, dtype=torch.float64)
        self.best_epoch = torch.full((n,), -1, dtype=torch.int64)  # counted with a start's epochs
        self.stopped = torch.zeros(n, dtype=torch.bool)
        self.snapshots: dict[int, Tensor] = {}  # by epoch of this training: [E, P + R]
        for e, member in enumerate(self.members):
            self._begin(e, member)
        self.best = {name: value.clone() for name, value in self._moving().items()}

    def _of_members(self, name: str) -> Tensor:
        return torch.tensor([getattr(m, name) for m in self.members], device=self.device)

    def _begin(self, e: int, member: EnsembleMember) -> None:
        """Set the initial weights of a member, or those of the training that it continues."""
        start = member.start
        state = start.state if start else first_state(self.settings.shape, member, self.stream)
        for pack in (self.parameters, self.statistics):
            pack.put(e, state)
        if start is None:
            return
        self.best_epoch[e], self.best_loss[e] = start.best_epoch, start.valid[start.best_epoch]
        layout = self.parameters.layout
        self.optimiser.steps[e] = start.n_steps
        for name, values in self.optimiser.moments.items():
            Pack(values, layout).put(e, start.moments[name])

    @cached_property
    def first_epochs(self) -> list[int]:
        """The first epoch of each member in this training."""
        return [member.start.best_epoch + 1 if member.start else 0 for member in self.members]

    @cached_property
    def n_steps(self) -> list[int]:
        """The number of steps per epoch of each member."""
        whole, width = self.settings.shape.normalised, self.settings.batch
        return [-(-usable(len(m.train), width, whole) // width) for m in self.members]

    @cached_property
    def validation(self) -> Steps:
        return in_steps([member.valid for member in self.members], EVALUATION_ROWS, self.table)

    def run_epoch(self) -> None:
        """Train each member for one epoch, then evaluate all on their validation rows."""
        train, rates = self._train_epoch()
        valid = self._validate()
        running = ~self.stopped
        if self.settings.schedule == "plateau":
            self.plateau.update(valid)
        better = running & (valid < self.best_loss)
        self.best_loss = torch.where(better, valid, self.best_loss)
        own_epochs = torch.tensor(self.first_epochs) + self.epoch
        self.best_epoch = torch.where(better, own_epochs, self.best_epoch)
        for name, now in self._moving().items():
            here = better.to(now.device).view(-1, *[1] * (now.ndim - 1))
            self.best[name] = torch.where(here, now, self.best[name])
        if self.settings.snapshots and any(map(self._ends_cycle, range(len(self.members)))):
            flat = torch.cat([self.parameters.flat, self.statistics.flat], 1)
            self.snapshots[self.epoch] = flat.cpu()
        fresh = torch.where(running, torch.stack([train, valid, rates]), math.nan)
        self.history = torch.cat([self.history, fresh[:, :, None]], 2)
        self.epoch += 1
        if self.settings.stop_after:
            self.stopped |= own_epochs - self.best_epoch >= self.settings.stop_after

    def _ends_cycle(self, e: int, epoch: int | None = None) -> bool:
        epoch = self.epoch if epoch is None else epoch
        cycle = self.settings.first_cycle, self.settings.cycle_growth
        return ends_cycle(self.first_epochs[e] + epoch, *cycle)

    def batches(self) -> Iterator[tuple[np.ndarray, EnsembleBatch]]:
        """Yield the steps of this epoch: the number of rows of each member [E], and the rows."""
        keys = [
            (member.key, first + self.epoch)
            for member, first in zip(self.members, self.first_epochs, strict=True)
        ]
        orders = {
            (member, epoch): order(member.train, self.stream, key, epoch)
            for member, (key, epoch) in dict(zip(self.members, keys, strict=True)).items()
        }
        rows = [
            orders[member, epoch] for member, (_, epoch) in zip(self.members, keys, strict=True)
        ]
        shape, width = self.settings.shape, self.settings.batch
        steps = in_steps(rows, width, self.table, whole=shape.normalised)
        masked = self.settings.compile
        made = batches(steps, self.table, shape, keys, self.stream, masked=masked)
        yield from zip(steps.counts, made, strict=True)

    def _train_epoch(self) -> tuple[Tensor, Tensor]:
        """Return the members' training losses and last step sizes [E], float64."""
        n = self.settings.group_size
        total = torch.zeros(n, dtype=torch.float64, device=self.device)
        rate, n_rows = np.zeros(n), np.zeros(n, np.int64)
        for step, (counts, batch) in enumerate(self.batches()):
            active = (counts > 0) & ~self.stopped.numpy()
            rate = np.where(active, self._rates(step), rate)
            total += self.take_step(batch, rate, active)
            n_rows += counts
        return total.cpu() / torch.from_numpy(n_rows), torch.from_numpy(rate)

    def take_step(self, batch: EnsembleBatch, rate: np.ndarray, active: np.ndarray) -> Tensor:
        """Update the active members by one step of sizes `rate` [E]; return their losses [E]."""
        found = self.step(self.parameters, batch)
        first = self.parameters["weight.0"].flatten(1)
        found.flat[:, : first.shape[1]].addcmul_(self.l1[:, None], first.sign())
        self.optimiser.step(found.flat, rate, active)
        if active.all():
            self.statistics.flat.lerp_(found.statistics, MOMENTUM)
            return found.loss
        here = torch.from_numpy(active).to(self.device)
        moved = self.statistics.flat.lerp(found.statistics, MOMENTUM)
        self.statistics.flat.copy_(torch.where(here[:, None], moved, self.statistics.flat))
        return torch.where(here, found.loss, 0.0)

    def _rates(self, step: int) -> np.ndarray:
        """Return the step size of each member at a step of this epoch, float64 [E]."""
        settings = self.settings
        if settings.schedule != "cosine":
            share = self.plateau.share.tolist()
            return np.array([m.learning_rate * s for m, s in zip(self.members, share, strict=True)])
        cycle = settings.least_rate, settings.first_cycle, settings.cycle_growth
        epochs = [
            first + self.epoch + step / n_steps
            for first, n_steps in zip(self.first_epochs, self.n_steps, strict=True)
        ]
        return np.array([
            cosine_rate(member.learning_rate, epoch, *cycle)
            for member, epoch in zip(self.members, epochs, strict=True)
        ])  # fmt: skip

    @torch.no_grad()
    def _validate(self) -> Tensor:
        """Return each member's loss on its validation rows [E], float64."""
        settings, steps = self.settings, self.validation
        total = torch.zeros(settings.group_size, dtype=torch.float64, device=self.device)
        for number in range(len(steps)):
            x, y, weight = self.table.take(steps.index[number], settings.group_size)
            outputs = outputs_of(settings.shape, self.multiply, self.parameters, self.statistics, x)
            losses = settings.loss(outputs, y, weight) * weight
            mask = steps.mask(number)
            total += (losses if mask is None else losses * mask).sum(1)
        return total.cpu() / torch.from_numpy(steps.counts.sum(0))

    def _moving(self) -> dict[str, Tensor]:
        """Return the tensors that a step changes, by name; each [E, ...]."""
        return {
            "parameters": self.parameters.flat,
            "statistics": self.statistics.flat,
            "steps": self.optimiser.steps,
            **self.optimiser.moments,
        }

    def tensors(self) -> State:
        """Return all tensors from which the group can be resumed."""
        tensors = {f"now.{name}": value for name, value in self._moving().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"snapshot.{epoch}": value for epoch, value in self.snapshots.items()}
        tensors |= {f"plateau.{name}": getattr(self.plateau, name) for name in _PLATEAU}
        return tensors | {name: getattr(self, name) for name in _RESUMED}

    def load(self, epoch: int, tensors: State) -> None:
        """Restore the tensors that `tensors` returned after `epoch` epochs."""
        self.epoch = epoch
        for name, value in self._moving().items():
            value.copy_(tensors[f"now.{name}"])
            self.best[name].copy_(tensors[f"best.{name}"])
        for name in _PLATEAU:
            setattr(self.plateau, name, tensors[f"plateau.{name}"])
        for name in _RESUMED:
            setattr(self, name, tensors[name])
        for name, value in tensors.items():
            group, _, number = name.partition(".")
            if group == "snapshot":
                self.snapshots[int(number)] = value

    def results(self) -> list[TrainedMember]:
        """Return the trained members, without those that pad the group."""
        return [self._result(e) for e in range(self.n_members)]

    def _result(self, e: int) -> TrainedMember:
        start, first = self.members[e].start, self.first_epochs[e]
        columns = self.history[:, e].numpy()
        columns = columns[:, ~np.isnan(columns[2])]  # epochs before it stopped
        if start is not None:
            before = np.stack([start.train, start.valid, start.rate])[:, :first]
            columns = np.concatenate([before, columns], 1)
        layouts = self.parameters.layout, self.statistics.layout
        kept = {
            first + epoch: flat
            for epoch, flat in sorted(self.snapshots.items())
            if self._ends_cycle(e, epoch) and first + epoch < columns.shape[1]
        }
        snapshots = {} if start is None else {k: s for k, s in start.snapshots.items() if k < first}
        size = size_of(layouts[0])
        for epoch, flat in kept.items():
            parts = flat[:, :size], flat[:, size:]
            snapshots[epoch] = {
                name: value
                for part, layout in zip(parts, layouts, strict=True)
                for name, value in Pack(part, layout).member(e).items()
            }
        best = {name: value.cpu() for name, value in self.best.items()}
        state = Pack(best["parameters"], layouts[0]).member(e)
        return TrainedMember(
            state=state | Pack(best["statistics"], layouts[1]).member(e),
            moments={
                name: Pack(best[name], layouts[0]).member(e) for name in self.optimiser.moments
            },
            n_steps=int(best["steps"][e]),
            best_epoch=int(self.best_epoch[e]),
            train=columns[0],
            valid=columns[1],
            rate=columns[2],
            snapshots=snapshots,
        )
