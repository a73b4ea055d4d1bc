"""Optimisers of an ensemble: Adam, AdamW and SGD, with one step size per member.

Adam is implemented here for two reasons. torch's Adam has one step size and one number of steps for
all rows of a tensor. Its square roots (except in the fused kernel) are not correctly rounded on a
CPU and differ between processors; `rsqrt` divides 1 by the correctly rounded root.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
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
_TINY = 1e-38  # added under the root, because 0 x 1/sqrt(0) is NaN


class Optimiser:
    """Updates the rows of `parameters` [E, P] in place, one per member.

    `moments` are named as torch names them, [E, P]; `steps` counts each member's steps. `decay` [E]
    is decoupled with adamw (Loshchilov & Hutter 2019, arXiv:1711.05101), else L2.
    """

    def __init__(self, kind: Kind, parameters: Tensor, decay: Tensor) -> None:
        self.kind, self.parameters, self.decay = kind, parameters, decay[:, None]
        self.moments = {name: torch.zeros_like(parameters) for name in _MOMENTS[kind]}
        self.steps = torch.zeros(len(parameters), dtype=torch.int64)

    def step(self, gradient: Tensor, rate: np.ndarray, active: np.ndarray) -> None:
        """Update the active members [E] along -gradient [E, P], with step sizes `rate` [E].

        The others do not change.
        """
        self.steps += torch.from_numpy(active)
        sizes = self._on_device(rate)
        before = None if active.all() else [self.parameters.clone(), *self._clones()]
        if self.kind != "adamw":
            gradient = torch.addcmul(gradient, self.decay, self.parameters)
        else:
            self.parameters.mul_(1 - sizes * self.decay)
        if self.kind == "sgd":
            self._sgd(gradient, sizes)
        else:
            self._adam(gradient, rate)
        if before is not None:
            here = torch.from_numpy(active).to(self.parameters.device)[:, None]
            for now, old in zip([self.parameters, *self.moments.values()], before, strict=True):
                now.copy_(torch.where(here, now, old))

    def _adam(self, gradient: Tensor, rate: np.ndarray) -> None:
        """Kingma & Ba 2015 (arXiv:1412.6980), in torch's order of operations except the root."""
        mean, square = self.moments["exp_avg"], self.moments["exp_avg_sq"]
        mean.lerp_(gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        steps = [max(n, 1) for n in self.steps.tolist()]
        sizes = self._on_device(rate / [1 - BETAS[0] ** n for n in steps])
        unbias = self._on_device(np.array([1 / math.sqrt(1 - BETAS[1] ** n) for n in steps]))
        root = square * torch.rsqrt(square + _TINY)
        self.parameters.addcdiv_(mean * -sizes, torch.mul(root, unbias).add_(EPSILON))

    def _sgd(self, gradient: Tensor, sizes: Tensor) -> None:
        buffer = self.moments["momentum_buffer"]
        buffer.mul_(MOMENTUM).add_(gradient)
        self.parameters.addcmul_(buffer, -sizes)

    def _on_device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self.parameters.device)[:, None]

    def _clones(self) -> list[Tensor]:
        return [values.clone() for values in self.moments.values()]


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
    """Return whether a cosine cycle ends with this epoch (from 0): 9, 29, 69, ... for (10, 2)."""
    position, length = cosine_cycle(float(epoch), first, growth)
    return position == length - 1
