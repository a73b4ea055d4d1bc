"""The estimated cost of one job of a stage.

Each system estimates the costs of its stages. The rules request memory and time limits from them;
the tool `plan` converts them to hours and gigabytes.
"""

from __future__ import annotations

from dataclasses import dataclass

# Write rate of a job on a disk that all jobs share, for any number of ranks.
_MEGABYTES_PER_SECOND = 300

# The time limit of a job is the time to load all libraries on a busy node, plus SAFETY_FACTOR times
# the estimated seconds of one core, for any number of ranks. The estimates were 0.8 to 2.0 times
# the time measured on one server.
_LOADING_MINUTES = 5
SAFETY_FACTOR = 10


@dataclass(frozen=True)
class Cost:
    """Estimated time, memory and size of the products of one job.

    Earlier jobs correct the estimate (`workflow/plan/history.py`): `plan` multiplies it by the
    ratio of measured to estimated values. Its dependence on the size of the problem matters more
    than its constants.
    """

    core_seconds: float  # of one typical server core, portable numerics, without `start`
    megabytes: float  # size of its products
    memory_mb: float  # of one rank; for a training, of all ranks together
    start: float = 2.0  # seconds that do not depend on the problem size: interpreter, libraries
    parts: int = 1  # pieces of equal size that ranks or threads can share
    gpu_seconds: float | None = None  # of one GPU, instead of core_seconds

    def hours(self, workers: int, gpu: bool = False, factor: float = 1.0) -> float:
        """Return the wall time [h] on `workers` ranks or threads, multiplied by `factor`."""
        computed = self.core_seconds / self.speedup(workers)
        if gpu and self.gpu_seconds is not None:
            computed = self.gpu_seconds
        seconds = self.start + computed + self.megabytes / _MEGABYTES_PER_SECOND
        return factor * seconds / 3600

    def speedup(self, workers: int) -> float:
        """Return the speed of `workers` relative to one; the last round may be incomplete."""
        parts = max(self.parts, 1)
        return parts / -(-parts // max(workers, 1))

    @property
    def limit_minutes(self) -> float:
        """The time limit [min] of the first attempt; it doubles with each further attempt."""
        return _LOADING_MINUTES + SAFETY_FACTOR * 60 * self.hours(1)
