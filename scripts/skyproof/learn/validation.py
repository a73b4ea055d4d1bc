"""Means of the objective over the validation rows: the same bits for any number of ranks."""

from __future__ import annotations

import math

import torch

from skyproof.core.errors import SkyproofError
from skyproof.learn.reduce import ExactSum, Team
from skyproof.learn.settings import TrainingSettings, Validation
from skyproof.learn.shards import Share
from skyproof.learn.step import Forward


class Evaluation:
    """Evaluates a network on validation rows, which the ranks of `team` share."""

    def __init__(
        self, forward: Forward, validation: Validation, settings: TrainingSettings, team: Team
    ) -> None:
        self.forward, self.shards = forward, validation.shards
        self.share = Share(validation.rows or settings.micro_batch, team.rank, team.size)
        self.n_parts = sum(-(-n // self.share.rows) for n in self.shards.counts)
        device, n_names = forward.device, len(forward.objective.names)
        like = torch.zeros(n_names, dtype=torch.float64, device=device)
        self.add = ExactSum(team, like, each=True)

    @torch.no_grad()
    def __call__(self, done: int) -> dict[str, float]:
        """Return the means over all rows by name.

        `done` is the number of steps so far. Raises SkyproofError if the loss is not finite.
        """
        network, names = self.forward.network, self.forward.objective.names
        network.eval()
        parts = []
        for piece in self.shards.in_order(self.share):
            values = self.forward(piece)
            numbers = torch.stack([values[name].double() for name in names])
            parts.append(numbers * len(piece[1]))
        network.train()
        means = (self.add(parts, self.n_parts) / self.shards.n_rows).tolist()
        found = dict(zip(names, means, strict=True))
        if not math.isfinite(found["loss"]):
            raise not_finite("validation loss", found["loss"], f"after step {done}")
        return found


def not_finite(what: str, value: float, when: str) -> SkyproofError:
    """Return the error of a loss that is NaN or infinite; all ranks raise it."""
    return SkyproofError(
        f"the {what} is {value} {when}: "
        "a smaller learning_rate may help; the checkpoints before it are kept",
        collective=True,
    )
