"""Three hundred jobs on a local SLURM: lost jobs, and the overhead of jobs.

Small bricks are generated (simulate, then cutouts) in jobs of several sizes, down to one brick a
job. A job has one rank. Needs root and SLURM, as `make cluster` does.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml

from benchmarks import Result, Row

ROOT = Path(__file__).parents[1]
RULES = ("obiwan_simulate", "obiwan_cutouts")


@dataclass(frozen=True)
class Cut:
    """How bricks are assigned to jobs."""

    what: str
    bricks: int
    block_size: int
    grouped: int = 0  # blocks whose jobs of both rules share one batch job; 0: one job each


@dataclass(frozen=True)
class Size:
    """The runs, and further arguments of Snakemake."""

    cuts: tuple[Cut, ...] = (
        Cut("25 bricks a job", 50, 25),
        Cut("5 bricks a job", 50, 5),
        Cut("1 brick a job, 5 pairs grouped", 20, 1, grouped=5),
        Cut("1 brick a job", 150, 1),
    )
    words: tuple[str, ...] = ()


TINY = Size(
    cuts=(Cut("1 brick a job, 2 pairs grouped", 2, 1, grouped=2),),
    words=("--slurm-init-seconds-before-status-checks", "3"),
)


def run(size: Size) -> Result:
    """Run each cut; return its jobs, wall time, and the fraction of overhead."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="load-") as name, cluster(Path(name) / "slurm") as env:
        for cut in size.cuts:
            rows += measure(cut, Path(name) / f"run{len(rows)}", env, size.words)
    return Result("load: generation of bricks of 200 x 200 pixels on SLURM", rows)


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start a cluster in `folder`; yield the environment that uses it; end it."""
    subprocess.run([ROOT / "scripts/cluster", "start", folder], check=True, timeout=120)
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    try:
        yield {**os.environ, "SLURM_CONF": str(folder / "etc/slurm.conf"), "PATH": path}
    finally:
        subprocess.run([ROOT / "scripts/cluster", "stop", folder], check=True, timeout=120)


def measure(cut: Cut, folder: Path, env: dict[str, str], words: tuple[str, ...]) -> list[Row]:
    """Run a cut in a folder and return its rows."""
    folder.mkdir()
    jobs = Path(env["SLURM_CONF"]).parents[1] / "log/jobs"
    before = len(ended(jobs))
    started = time.perf_counter()
    subprocess.run(
        [*command(folder, cut), *words], cwd=ROOT, env=env, check=True, timeout=3600,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wall = time.perf_counter() - started
    made = [
        p for rule in ("simulate", "cutouts") for p in folder.glob(f"results/obiwan/{rule}/*.json")
    ]
    batch = ended(jobs)[before:]
    completed = sum(state == "COMPLETED" for state, _ in batch)
    in_jobs, in_stages = sum(seconds for _, seconds in batch), worked(folder)
    beside = in_jobs - in_stages
    wanted = len(RULES) * -(-cut.bricks // cut.block_size)
    # Start and end of a batch job are whole seconds: for short jobs the rest may be negative.
    rest, each = beside / len(batch), f"{cut.what}: the same a batch job"
    return [
        Row(f"{cut.what}: blocks wanted", wanted, "blocks", form="d"),
        Row(f"{cut.what}: blocks made", len(made), "blocks", form="d"),
        Row(f"{cut.what}: batch jobs submitted", len(batch), "jobs", form="d"),
        Row(f"{cut.what}: batch jobs completed", completed, "jobs", form="d"),
        Row(f"{cut.what}: wall time a brick", wall / cut.bricks, "s"),
        Row(f"{cut.what}: jobs' time without work", 100 * beside / in_jobs, "%", any_sign=True),
        Row(each, rest, "s", any_sign=True),
        Row(f"{cut.what}: work a brick", in_stages / cut.bricks, "s"),
    ]


def command(folder: Path, cut: Cut) -> list[str]:
    """Return the words of a run of the two rules."""
    simulate = {"brick_pixels": 200, "n_real": 5, "n_fake": 5, "n_stars": 1, "n_bricks": cut.bricks}
    obiwan = {"block_size": cut.block_size, "simulate": simulate}
    (folder / "load.yaml").write_text(json.dumps({"systems": ["obiwan"], "obiwan": obiwan}))
    words = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())["default-resources"]
    words |= {"mpi_ranks": 1, "mpi_nodes": 1}
    command = [sys.executable, "-m", "snakemake", "--profile", "slurm"]
    command += ["--directory", str(folder), "--configfile", str(folder / "load.yaml")]
    command += ["--default-resources", *(f"{name}={value}" for name, value in words.items())]
    if cut.grouped:
        command += ["--groups", *(f"{rule}=pair" for rule in RULES)]
        command += ["--group-components", f"pair={cut.grouped}"]
    return [*command, "--until", RULES[1]]


def ended(file: Path) -> list[tuple[str, float]]:
    """Return state and seconds of each job that SLURM has ended, in that order."""
    text = file.read_text() if file.exists() else ""
    times = r"JobState=(\w+).* StartTime=(\S+) EndTime=(\S+)"
    return [
        (state, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
        for state, start, end in re.findall(times, text)
    ]


def worked(folder: Path) -> float:
    """Return the seconds that Snakemake measured for the jobs' own commands."""
    total = 0.0
    for path in folder.glob("logs/benchmarks/obiwan/*.tsv"):
        with path.open() as file:
            total += sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))
    return total
