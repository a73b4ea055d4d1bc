"""Run the clients of SLURM and read their output. Only this module does so."""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from skyproof.core.errors import EnvironmentProblem

# The executor plugin writes the jobs' output there, below the folder of the run, and gives SLURM
# the absolute path. The path identifies the folder to which a job belongs.
LOGS = Path(".snakemake") / "slurm_logs"

# Columns of squeue -O and their widths; longer values are cut off.
_COLUMNS = {
    "JobID": 20,
    "State": 20,
    "Reason": 200,
    "Comment": 300,
    "Command": 4096,
    "StdOut": 4096,
}


@dataclass(frozen=True)
class QueuedJob:
    """One job in the queue: its state and reason as squeue prints them, and its rule."""

    id: str
    state: str
    reason: str
    rule: str
    script: str = ""  # path of the batch script


def ask(*words: str, timeout: float = 60) -> str:
    """Return the output of a client of SLURM (EnvironmentProblem where it fails or hangs)."""
    done = _run(words, timeout)
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line] or ["no message"]
        said = lines[-1].removeprefix(f"{words[0]}: ").removeprefix("error: ")
        raise EnvironmentProblem(f"{words[0]}: {said}")
    return done.stdout


def _run(words: tuple[str, ...], timeout: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise EnvironmentProblem(f"{words[0]} is not on PATH: no client of SLURM here") from None
    except subprocess.TimeoutExpired:
        raise EnvironmentProblem(f"{words[0]} did not answer in {timeout:.0f} s") from None


def settings() -> dict[str, str]:
    """Return the configuration of the cluster (`scontrol show config`)."""
    pairs = (line.partition("=") for line in ask("scontrol", "show", "config").splitlines())
    return {name.strip(): value.strip() for name, found, value in pairs if found}


def min_job_age(config: dict[str, str]) -> int:
    """Return how long squeue shows a job after its end [s]."""
    found = re.match(r"\d+", config.get("MinJobAge", ""))
    return int(found[0]) if found else 0


def jobs_of(folder: Path) -> list[QueuedJob]:
    """Return this user's waiting and running jobs that belong to a run in `folder`."""
    form = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
    logs = f"{folder.resolve() / LOGS}/"
    jobs = []
    for line in ask("squeue", "--me", "--noheader", "-O", form).splitlines():
        cells, start = [], 0
        for width in _COLUMNS.values():
            cells.append(line[start : start + width].strip())
            start += width
        if cells[-1].startswith(logs):
            jobs.append(QueuedJob(cells[0], cells[1], cells[2], _rule(cells[3]), cells[4]))
    return jobs


def _rule(comment: str) -> str:
    """Return the rule's name from the comment that the plugin gives a job."""
    return comment.partition("_wildcards_")[0].removeprefix("rule_")


def cancel(folder: Path, patience: float = 120) -> list[QueuedJob]:
    """Cancel the jobs of a run in `folder`, wait until none is left, and return them.

    Raises EnvironmentProblem if one is left after `patience` seconds: its node may be unreachable,
    and its processes may be alive.
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


@dataclass(frozen=True)
class NodeGroup:
    """Equal nodes of a partition, as sinfo prints them."""

    partition: str
    is_up: bool
    minutes: float  # time limit of a job; infinite where there is none
    count: int
    cores: int
    memory_mb: int
    features: frozenset[str]
    gpus: dict[str, int]  # number of GPUs of a node by model; the model "" has no name
    state: str


def nodes() -> list[NodeGroup]:
    """Return the partitions and their nodes."""
    lines = ask("sinfo", "-h", "-o", "%R|%a|%l|%D|%c|%m|%f|%G|%T").splitlines()
    return [_nodes(line.split("|")) for line in lines if line.count("|") == 8]


def _nodes(cells: list[str]) -> NodeGroup:
    name, up, limit, count, cores, memory, features, gres, state = (c.strip() for c in cells)
    return NodeGroup(
        partition=name,
        is_up=up == "up",
        minutes=_minutes(limit),
        count=int(count),
        cores=int(cores.rstrip("+")),
        memory_mb=int(memory.rstrip("+")),
        features=frozenset(features.split(",")) - {"(null)"},
        gpus=_gpus(gres),
        state=state.rstrip("*~#!%$@^-"),
    )


def _minutes(limit: str) -> float:
    """Return a time limit, [days-]hours:minutes:seconds, in minutes."""
    if limit in ("infinite", "n/a"):
        return float("inf")
    days, _, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    hours, minutes, seconds = [0] * (3 - len(parts)) + parts
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def _gpus(gres: str) -> dict[str, int]:
    """Return the number of GPUs by model in a list such as gpu:a100:2(S:0-1),gpu:4,shard:8."""
    found: dict[str, int] = {}
    for model, count in re.findall(r"(?:^|,)gpu(?::([^:,()]+))??:(\d+)", gres):
        found[model] = found.get(model, 0) + int(count)
    return found


def submit(words: list[str], line: str, log: Path) -> str:
    """Submit a line of shell as a job and return its number."""
    printed = ask("sbatch", "--parsable", "--export=ALL", "-o", str(log), *words, "--wrap", line)
    return printed.strip().partition(";")[0]


def would_accept(words: list[str]) -> None:
    """Raise EnvironmentProblem, with SLURM's reason, if sbatch would reject such a job."""
    ask("sbatch", "--test-only", *words, "--wrap", "true")


def mpi_types() -> str:
    """Return the MPI types of this cluster, separated by commas; empty where SLURM lists none."""
    try:
        done = _run(("srun", "--mpi=list"), timeout=20)
    except EnvironmentProblem:
        return ""
    lines = (done.stdout + done.stderr).splitlines()
    return ", ".join(line.strip() for line in lines if line.startswith("\t"))


def cancel_job(number: str) -> None:
    """Cancel a job. A job that does not exist is ignored."""
    with suppress(EnvironmentProblem):
        ask("scancel", number)


def job(number: str) -> dict[str, str]:
    """Return SLURM's data of a job (JobState, Reason, ExitCode, ...); empty if it has none."""
    try:
        printed = ask("scontrol", "show", "job", "-o", number)
    except EnvironmentProblem:
        return {}
    return dict(re.findall(r"(\w+)=(\S*)", printed))
