"""What we ask of SLURM: the one place that runs its clients and reads what they print."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from skyproof.core.errors import EnvironmentProblem

# The executor plugin writes the jobs' output there, below the folder of the run, and gives SLURM
# the absolute path. It tells the jobs of one folder from those of another.
LOGS = Path(".snakemake") / "slurm_logs"

# Columns of squeue -O and their widths; what is longer would be cut off.
_COLUMNS = {"JobID": 20, "State": 20, "Reason": 200, "Comment": 300, "StdOut": 4096}


@dataclass(frozen=True)
class Job:
    """One job in the queue: state and reason as squeue prints them, and what it was sent for."""

    id: str
    state: str
    reason: str
    rule: str


def ask(*words: str, timeout: float = 60) -> str:
    """Return what a client of SLURM printed; EnvironmentProblem where it fails or hangs."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise EnvironmentProblem(f"{words[0]} is not on PATH: no client of SLURM here") from None
    except subprocess.TimeoutExpired:
        raise EnvironmentProblem(f"{words[0]} did not answer in {timeout:.0f} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line] or ["no message"]
        raise EnvironmentProblem(f"{words[0]}: {lines[-1]}")
    return done.stdout


def settings() -> dict[str, str]:
    """Return the configuration of the cluster (`scontrol show config`)."""
    pairs = (line.partition("=") for line in ask("scontrol", "show", "config").splitlines())
    return {name.strip(): value.strip() for name, found, value in pairs if found}


def min_job_age(config: dict[str, str]) -> int:
    """Return for how many seconds squeue still shows a job that has ended."""
    found = re.match(r"\d+", config.get("MinJobAge", ""))
    return int(found[0]) if found else 0


def jobs_of(folder: Path) -> list[Job]:
    """Return the jobs of this user, waiting or running, that belong to a run in `folder`."""
    form = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
    logs = f"{folder.resolve() / LOGS}/"
    jobs = []
    for line in ask("squeue", "--me", "--noheader", "-O", form).splitlines():
        cells, start = [], 0
        for width in _COLUMNS.values():
            cells.append(line[start : start + width].strip())
            start += width
        if cells[-1].startswith(logs):
            jobs.append(Job(cells[0], cells[1], cells[2], _rule(cells[3])))
    return jobs


def _rule(comment: str) -> str:
    """Return the rule's name in the comment that the plugin gives a job."""
    return comment.partition("_wildcards_")[0].removeprefix("rule_")


def cancel(folder: Path, patience: float = 120) -> list[Job]:
    """Cancel the jobs of a run in `folder`, wait until none is left, and return what there was.

    EnvironmentProblem if one is still there after `patience` seconds: its node may be out of reach,
    and its processes may live.
    """
    jobs = left = jobs_of(folder)
    if jobs:
        ask("scancel", *(job.id for job in jobs))
    end = time.monotonic() + patience
    while left:
        time.sleep(0.5)
        left = jobs_of(folder)
        if left and time.monotonic() > end:
            ids = ", ".join(job.id for job in left)
            raise EnvironmentProblem(
                f"jobs {ids} of an earlier run in this folder do not end within {patience:.0f} s "
                "of scancel and may still write; see squeue, and start again when they are gone"
            )
    return jobs
