"""Learning rates, early stopping and the best evaluation.

All are functions of the step and of the previous validation losses, which a checkpoint contains.
Therefore a resumed training makes the same decisions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from skyproof.learn.settings import TrainingSettings


def learning_rate(settings: TrainingSettings, step: int, total: int) -> float:
    """Return the learning rate of step `step` (from 0) of `total`, without `plateau_factor`.

    'cosine' falls from `settings.learning_rate` to 0 along half a period (Loshchilov & Hutter 2017,
    arXiv:1608.03983), after the steps of the warm-up.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "cosine":
        passed, steps = step - settings.warmup_steps, total - settings.warmup_steps
        return settings.learning_rate * (1 + math.cos(math.pi * passed / steps)) / 2
    if settings.schedule == "milestones":
        epoch = step // (total // settings.n_epochs)
        n_passed = sum(epoch >= milestone for milestone in settings.milestones)
        return settings.learning_rate * settings.factor**n_passed
    return settings.learning_rate


def plateau_factor(settings: TrainingSettings, losses: Sequence[float]) -> float:
    """Return the factor of the learning rate after these validation losses, by rule `Plateau`."""
    plateau = Plateau(1, settings.plateau_patience, settings.factor)
    if settings.schedule == "plateau":
        for loss in losses:
            plateau.update(torch.tensor([loss], dtype=torch.float64))
    return plateau.share.item()


def should_stop(losses: Sequence[float], patience: int, min_delta: float) -> bool:
    """Return whether `patience` evaluations in a row brought no improvement (0: never).

    An evaluation is an improvement if its loss is below that of the last improvement by more than
    `min_delta`; the first one is.
    """
    reference, waited = math.inf, 0
    for loss in losses:
        if loss < reference - min_delta:
            reference, waited = loss, 0
        else:
            waited += 1
    return 0 < patience <= waited


def best_of(losses: Sequence[float]) -> int:
    """Return the index of the evaluation with the smallest loss, the first of equal ones."""
    return min(range(len(losses)), key=losses.__getitem__)


class Plateau:
    """Lower the learning rate if the validation loss does not fall, as torch's ReduceLROnPlateau.

    An evaluation is an improvement if its loss is below the best one by 1e-4 of the absolute value
    of that (losses may be negative). After more than `patience` evaluations without improvement,
    the learning rate is multiplied by `factor`. Tensors are [E], one element per network.
    """

    threshold = 1e-4

    def __init__(self, n_members: int, patience: int, factor: float) -> None:
        self.patience, self.factor = patience, factor
        self.best = torch.full((n_members,), math.inf, dtype=torch.float64)
        self.bad = torch.zeros(n_members, dtype=torch.int64)
        self.share = torch.ones(n_members, dtype=torch.float64)  # of the initial learning rate

    def update(self, loss: Tensor) -> None:
        """Update with the losses [E] (float64) of an evaluation."""
        margin = torch.where(self.best.isfinite(), self.threshold * self.best.abs(), 0.0)
        better = loss < self.best - margin
        self.best = torch.where(better, loss, self.best)
        self.bad = torch.where(better, 0, self.bad + 1)
        exhausted = self.bad > self.patience
        self.share = torch.where(exhausted, self.share * self.factor, self.share)
        self.bad = torch.where(exhausted, 0, self.bad)
