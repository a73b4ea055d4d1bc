"""The learning-rate range test (Smith 2017, arXiv:1506.01186; formula A5) of an ensemble."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skyproof.learn.ensemble.group import EnsembleGroup

_KEEP = 0.95  # of the smoothed loss
_QUIET = 20  # first steps, too small to change the weights; they give the noise of the batch loss
_DIVERGED = 4.0
_SKIP_FIRST, _SKIP_LAST = 10, 5  # steps not used for the slope, as in the original's figure
_CAUTION = 3.0


@dataclass(frozen=True)
class RangeTest:
    """Losses of a training with growing step size, until it diverges."""

    rate: np.ndarray  # [steps] f8
    loss: np.ndarray  # [steps] f8, mean over members of the loss per row of each batch
    smoothed: np.ndarray  # [steps] f8
    suggestion: float | None  # None: the loss does not decrease


def range_test(group: EnsembleGroup, first: float, last: float, n_steps: int) -> RangeTest:
    """Train a new group for `n_steps` steps whose size grows from `first` to `last`.

    Rows are used in the orders of the epochs 0, 1, ... Losses may be negative: divergence is
    measured from the best loss, in units of the decrease of the loss or of its noise.
    """
    rates = [first * (last / first) ** ((k + 1) / n_steps) for k in range(n_steps)]
    losses: list[float] = []
    while len(losses) < n_steps:
        for counts, batch in group.batches():
            rate = np.full(len(counts), rates[len(losses)])
            total = group.take_step(batch, rate, counts > 0).double().cpu().numpy()
            here = counts[: group.n_members] > 0
            losses.append(
                float(np.mean(total[: group.n_members][here] / counts[: len(here)][here]))
            )
            if len(losses) == n_steps or has_diverged(losses):
                return summary(np.array(rates[: len(losses)]), np.array(losses))
        group.epoch += 1
    raise AssertionError("unreachable")


def smooth(losses: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the running mean s = 0.05 new + 0.95 old, starting at the first loss."""
    smoothed = [float(losses[0])]
    for value in losses[1:]:
        smoothed.append((1 - _KEEP) * float(value) + _KEEP * smoothed[-1])
    return np.array(smoothed)


def has_diverged(losses: Sequence[float]) -> bool:
    """Return whether the smoothed loss has risen from its minimum by 4 times its decrease.

    If the noise of the first losses is larger than the decrease, it is used instead.
    """
    if not math.isfinite(losses[-1]):
        return True
    if len(losses) <= _QUIET:
        return False
    smoothed = smooth(losses)
    best = float(smoothed.min())
    unit = max(abs(best - smoothed[0]), float(np.std(losses[:_QUIET])))
    return bool(smoothed[-1] > best + _DIVERGED * unit)


def summary(rate: np.ndarray, loss: np.ndarray) -> RangeTest:
    """Smooth the finite losses, and suggest a third of the step size of the steepest decrease.

    The slope is that of the smoothed loss in log(step size).
    """
    known = np.isfinite(loss)
    rate, loss = rate[known], loss[known]
    smoothed = smooth(loss) if len(loss) else loss
    inner = slice(_SKIP_FIRST, len(loss) - _SKIP_LAST)
    if len(loss[inner]) < 2:
        return RangeTest(rate, loss, smoothed, None)
    slope = np.gradient(smoothed[inner], np.log(rate[inner]))
    steepest = int(np.argmin(slope))
    found = float(rate[inner][steepest]) / _CAUTION if slope[steepest] < 0 else None
    return RangeTest(rate, loss, smoothed, found)
