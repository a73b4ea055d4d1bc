"""What a job has to do, as a system foresees it; planning turns it into hours and gigabytes."""

from __future__ import annotations

from dataclasses import dataclass

# That a job writes to the disk that all share, whatever its ranks.
_MEGABYTES_PER_SECOND = 300


@dataclass(frozen=True)
class Work:
    """The work of one job.

    An earlier run says how its own jobs compared with these numbers (`workflow/rates.py`); planning
    multiplies by that. What counts is therefore how they grow with the problem.
    """

    core_seconds: float  # of one core of a usual server, in portable numerics, beyond `start`
    megabytes: float  # of its products
    start: float = 2.0  # seconds that do not grow with the problem: interpreter, libraries, figures
    parts: int = 1  # pieces of equal size that ranks or threads can share
    gpu_seconds: float | None = None  # of one GPU, in the place of core_seconds

    def hours(self, workers: int, gpu: bool = False, factor: float = 1.0) -> float:
        """Return the wall time on so many ranks or threads; `factor` is how slow the machine is."""
        computed = self.core_seconds / self.speed(workers)
        if gpu and self.gpu_seconds is not None:
            computed = self.gpu_seconds
        seconds = self.start + computed + self.megabytes / _MEGABYTES_PER_SECOND
        return factor * seconds / 3600

    def speed(self, workers: int) -> float:
        """Return how much faster so many workers are than one; the last round may be short."""
        rounds = -(-self.parts // max(workers, 1))
        return self.parts / rounds
