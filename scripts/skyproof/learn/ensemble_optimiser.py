"""How the weights of an ensemble move: Adam, AdamW and SGD, with a step size a member.

The fused kernel of torch's Adam takes correctly rounded square roots, which torch.sqrt on a CPU
does not; but it knows one step size for all. So it moves a tensor of zeros by a step of size one,
and each member goes along that direction by its own step size.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["adamw", "adam", "sgd"]

BETAS = (0.9, 0.999)
EPSILON = 1e-8
MOMENTUM = 0.9
_MOMENTS = {
    "adamw": ("exp_avg", "exp_avg_sq"),
    "adam": ("exp_avg", "exp_avg_sq"),
    "sgd": ("momentum_buffer",),
}


class Optimiser:
    """Moves the rows of `parameters` [E, P] in place, each member on its own.

    `moments` are named as torch names them, [E, P]; `steps` counts each member's steps. Weight
    decay is decoupled with adamw (Loshchilov & Hutter 2019, arXiv:1711.05101), else L2.
    """

    def __init__(self, kind: Kind, parameters: Tensor) -> None:
        self.kind, self.parameters = kind, parameters
        self.moments = {name: torch.zeros_like(parameters) for name in _MOMENTS[kind]}
        self.steps = torch.zeros(len(parameters))
        self._direction = torch.zeros_like(parameters)
        self._rows = list(self._direction.unbind())
        self._adam = torch.optim.Adam(self._rows, lr=1.0, betas=BETAS, eps=EPSILON, fused=True)
        if kind != "sgd":
            self._share_state()

    def step(self, gradient: Tensor, rate: Tensor, decay: Tensor, active: Tensor) -> None:
        """Take a step along -gradient [E, P] with step sizes and decays [E] of active members.

        The other members keep their bits. `active` [E] is a bool tensor on the CPU.
        """
        everyone = bool(active.all())
        if self.kind != "adamw":
            gradient = gradient + decay[:, None] * self.parameters
        self._turn(gradient, active, everyone)
        kept = self.parameters
        if self.kind == "adamw":
            kept = kept * (1 - rate * decay)[:, None]
        moved = torch.addcmul(kept, self._direction, rate[:, None])
        if not everyone:
            here = active.to(moved.device)[:, None]
            moved = torch.where(here, moved, self.parameters)
        self.parameters.copy_(moved)

    def load(self, steps: Tensor, moments: dict[str, Tensor]) -> None:
        """Take steps [E] and moments [E, P] of an earlier training."""
        self.steps.copy_(steps)
        for name, values in moments.items():
            self.moments[name].copy_(values)
        if self.kind != "sgd":
            self._share_state()

    def _share_state(self) -> None:
        """Let the fused optimiser work on our moments; its counters start at our steps."""
        device = self.parameters.device
        for e, row in enumerate(self._rows):
            self._adam.state[row] = {
                "step": self.steps[e].clone().to(device),
                **{name: values[e] for name, values in self.moments.items()},
            }

    def _turn(self, gradient: Tensor, active: Tensor, everyone: bool) -> None:
        """Set the direction of the step: of size one, downhill."""
        self.steps += active
        if self.kind == "sgd":
            buffer = self.moments["momentum_buffer"]
            moved = gradient + MOMENTUM * buffer
            if not everyone:
                moved = torch.where(active.to(moved.device)[:, None], moved, buffer)
            buffer.copy_(moved)
            torch.neg(buffer, out=self._direction)
            return
        self._direction.zero_()
        for here, row, slope in zip(active.tolist(), self._rows, gradient.unbind(), strict=True):
            row.grad = slope if here else None
        self._adam.step()


def cosine_cycle(epoch: float, first: int, growth: int) -> tuple[float, float]:
    """Return the position within the cosine cycle at `epoch`, and the cycle's length, in epochs.

    Cycles last first, first x growth, first x growth^2, ... epochs (formula A4).
    """
    start, length = 0.0, float(first)
    while epoch >= start + length:
        start, length = start + length, length * growth
    return epoch - start, length


def cosine_rate(rate: float, epoch: float, least: float, first: int, growth: int) -> float:
    """Return the step size at a fractional epoch: cosine annealing with warm restarts (A4).

    Loshchilov & Hutter 2017 (arXiv:1608.03983).
    """
    position, length = cosine_cycle(epoch, first, growth)
    return least + (rate - least) * (1 + math.cos(math.pi * position / length)) / 2


def ends_cycle(epoch: int, first: int, growth: int) -> bool:
    """Say whether a cosine cycle ends with this epoch (from 0): 9, 29, 69, ... for (10, 2)."""
    position, length = cosine_cycle(float(epoch), first, growth)
    return position == length - 1


class Plateau:
    """Step sizes that fall where a member's validation loss has not, as torch's ReduceLROnPlateau.

    An epoch counts as better if its loss lies below the best one by 1e-4 of its size (its size,
    not itself: losses may be negative). After more than `patience` epochs that were not better the
    step size is multiplied by `factor`.
    """

    threshold = 1e-4

    def __init__(self, n_members: int, patience: int, factor: float) -> None:
        self.patience, self.factor = patience, factor
        self.best = torch.full((n_members,), math.inf, dtype=torch.float64)
        self.bad = torch.zeros(n_members, dtype=torch.int64)
        self.share = torch.ones(n_members, dtype=torch.float64)  # of the step size at the start

    def update(self, loss: Tensor) -> None:
        """Take the losses [E] (float64) of an epoch."""
        margin = torch.where(self.best.isfinite(), self.threshold * self.best.abs(), 0.0)
        better = loss < self.best - margin
        self.best = torch.where(better, loss, self.best)
        self.bad = torch.where(better, 0, self.bad + 1)
        tired = self.bad > self.patience
        self.share = torch.where(tired, self.share * self.factor, self.share)
        self.bad = torch.where(tired, 0, self.bad)
