"""What we ask of SLURM: the one place that runs its clients and reads what they print."""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from skyproof.core.errors import EnvironmentProblem

# The executor plugin writes the jobs' output there, below the folder of the run, and gives SLURM
# the absolute path. It tells the jobs of one folder from those of another.
LOGS = Path(".snakemake") / "slurm_logs"

# Columns of squeue -O and their widths; what is longer would be cut off.
_COLUMNS = {
    "JobID": 20,
    "State": 20,
    "Reason": 200,
    "Comment": 300,
    "Command": 4096,
    "StdOut": 4096,
}


@dataclass(frozen=True)
class Job:
    """One job in the queue: state and reason as squeue prints them, and what it was sent for."""

    id: str
    state: str
    reason: str
    rule: str
    script: str = ""  # its file


def ask(*words: str, timeout: float = 60) -> str:
    """Return what a client of SLURM printed; EnvironmentProblem where it fails or hangs."""
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
            jobs.append(Job(cells[0], cells[1], cells[2], _rule(cells[3]), cells[4]))
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


@dataclass(frozen=True)
class Nodes:
    """Nodes of a partition that are alike, as sinfo prints them."""

    partition: str
    is_up: bool
    minutes: float  # the longest job; infinite where there is no limit
    count: int
    cores: int
    memory_mb: int
    features: frozenset[str]
    gpus: dict[str, int]  # GPUs of a node by model; "" where the model has no name
    state: str


def nodes() -> list[Nodes]:
    """Return the partitions and their nodes."""
    lines = ask("sinfo", "-h", "-o", "%R|%a|%l|%D|%c|%m|%f|%G|%T").splitlines()
    return [_nodes(line.split("|")) for line in lines if line.count("|") == 8]


def _nodes(cells: list[str]) -> Nodes:
    name, up, limit, count, cores, memory, features, gres, state = (c.strip() for c in cells)
    return Nodes(
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
    """Read a time limit, [days-]hours:minutes:seconds."""
    if limit in ("infinite", "n/a"):
        return float("inf")
    days, _, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    hours, minutes, seconds = [0] * (3 - len(parts)) + parts
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def _gpus(gres: str) -> dict[str, int]:
    """Read generic resources such as gpu:a100:2(S:0-1),gpu:4,shard:8."""
    found: dict[str, int] = {}
    for model, count in re.findall(r"(?:^|,)gpu(?::([^:,()]+))??:(\d+)", gres):
        found[model] = found.get(model, 0) + int(count)
    return found


def submit(words: list[str], line: str, log: Path) -> str:
    """Send a line of shell as a job and return its number."""
    printed = ask("sbatch", "--parsable", "--export=ALL", "-o", str(log), *words, "--wrap", line)
    return printed.strip().partition(";")[0]


def would_accept(words: list[str]) -> None:
    """Ask SLURM whether it would take such a job (EnvironmentProblem: no, and why not)."""
    ask("sbatch", "--test-only", *words, "--wrap", "true")


def mpi_types() -> str:
    """Return the MPI types of this cluster, separated by commas; empty where SLURM tells none."""
    try:
        done = _run(("srun", "--mpi=list"), timeout=20)
    except EnvironmentProblem:
        return ""
    lines = (done.stdout + done.stderr).splitlines()
    return ", ".join(line.strip() for line in lines if line.startswith("\t"))


def cancel_job(number: str) -> None:
    """End a job; one that is gone is no problem."""
    with suppress(EnvironmentProblem):
        ask("scancel", number)


def job(number: str) -> dict[str, str]:
    """Return what SLURM knows of a job: JobState, Reason, ExitCode, ...; nothing once forgotten."""
    try:
        printed = ask("scontrol", "show", "job", "-o", number)
    except EnvironmentProblem:
        return {}
    return dict(re.findall(r"(\w+)=(\S*)", printed))
