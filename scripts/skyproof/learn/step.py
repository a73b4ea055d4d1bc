"""One training step: gradients of micro-batches, summed over all ranks, and the update."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skyproof.learn.inputs import Assembly
from skyproof.learn.reduce import ExactSum, PlainSum, Team
from skyproof.learn.settings import Objective, TrainingSettings
from skyproof.learn.shards import Batch, Piece


class Forward:
    """Computes the loss and the other numbers of the objective for a micro-batch."""

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        settings: TrainingSettings,
        device: torch.device,
        assembly: Assembly | None = None,
    ) -> None:
        self.network, self.objective, self.assembly = network, objective, assembly
        self.device, self.mixed_precision = device, settings.mixed_precision

    def __call__(self, piece: Piece) -> Mapping[str, Tensor]:
        """Return scalars on the device by name."""
        x, y = (rows.to(self.device, non_blocking=True) for rows in piece[:2])
        if self.assembly is not None:
            drawn = None if piece[2] is None else piece[2].to(self.device, non_blocking=True)
            x, y = self.assembly(x, y, drawn)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision):
            return self.objective(self.network(x), y)


class TrainingStep:
    """Performs training steps; after each, all ranks of `team` have the same weights.

    Memory holds one micro-batch on the device, and one gradient for each of this rank's
    micro-batches of a step.
    """

    def __init__(
        self,
        forward: Forward,
        optimizer: torch.optim.Optimizer,
        settings: TrainingSettings,
        team: Team,
    ) -> None:
        self.forward, self.optimizer, self.settings = forward, optimizer, settings
        self.objective = forward.objective
        self.parameters = [p for p in forward.network.parameters() if p.requires_grad]
        n_beside = len(self.objective.with_gradient)
        flat = [parameter.detach().flatten() for parameter in self.parameters]
        like = torch.cat([*flat, flat[0].new_zeros(n_beside)])
        self.add = (ExactSum if settings.exact else PlainSum)(team, like)
        # In the vector of the gradients, numbers of any size would reduce the precision.
        means = like.new_zeros(len(self.objective.means), dtype=torch.float64)
        self.add_means = ExactSum(team, means, each=True)

    def __call__(self, batch: Batch, rate: float) -> Tensor:
        """Perform one step; return the objective's numbers for the batch, [n] on the device."""
        objective, n_beside = self.objective, len(self.objective.with_gradient)
        parts, means = [], []  # per micro-batch: its share of the gradient and of the numbers
        for piece in batch.pieces(self.settings.micro_batch):
            values = self.forward(piece)
            share = len(piece[1]) / batch.n_rows
            gradients = torch.autograd.grad(values["loss"] * share, self.parameters)
            beside = torch.stack([values[name].detach() for name in objective.with_gradient])
            parts.append(torch.cat([*(g.flatten() for g in gradients), beside * share]))
            if objective.means:
                found = [values[name].detach().double() for name in objective.means]
                means.append(torch.stack(found) * share)
        n_parts = -(-batch.n_rows // self.settings.micro_batch)
        total = self.add(parts, n_parts)
        self._update(total[:-n_beside], rate)
        if not objective.means:
            return total[-n_beside:]
        return torch.cat([total[-n_beside:], self.add_means(means, n_parts).to(total.dtype)])

    def _update(self, gradient: Tensor, rate: float) -> None:
        if self.settings.clip_norm:
            norm = math.sqrt(gradient.double().square().sum().item())
            if norm > self.settings.clip_norm:
                gradient = gradient * (self.settings.clip_norm / norm)
        pieces = gradient.split([p.numel() for p in self.parameters])
        for parameter, piece in zip(self.parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
