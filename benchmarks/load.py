"""Three hundred jobs through a SLURM of one's own: is one lost, and what do jobs cost beside work?

Generation of the same 150 small bricks (simulate, then cutouts), cut into jobs in four ways. A job
has one rank; two run at a time. Needs root and SLURM, as `make cluster` does.
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
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
BRICKS = 150
RULES = ("obiwan_simulate", "obiwan_cutouts")
# What a job is: bricks a block; and whether both rules of so many blocks share one batch job.
CUTS = {
    "1 brick a job": (1, 0),
    "1 brick a job, 5 pairs of jobs grouped": (1, 5),
    "5 bricks a job": (5, 0),
    "25 bricks a job": (25, 0),
}


def run() -> dict[str, Any]:
    """Run each cut; return its jobs, wall time, and the share that is not the stages' work."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="load-") as name, cluster(Path(name) / "slurm") as env:
        for what, (block_size, grouped) in CUTS.items():
            rows += measure(what, Path(name) / f"run{len(rows)}", block_size, grouped, env)
    return {
        "name": f"load: generation of {BRICKS} bricks of 200 x 200 pixels on SLURM",
        "rows": rows,
    }


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start a cluster in `folder`; yield the environment that uses it; end it."""
    subprocess.run([ROOT / "scripts/cluster", "start", folder], check=True, timeout=120)
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    try:
        yield {**os.environ, "SLURM_CONF": str(folder / "etc/slurm.conf"), "PATH": path}
    finally:
        subprocess.run([ROOT / "scripts/cluster", "stop", folder], check=True, timeout=120)


def measure(
    what: str, folder: Path, block_size: int, grouped: int, env: dict[str, str]
) -> list[dict[str, Any]]:
    folder.mkdir()
    jobs = Path(env["SLURM_CONF"]).parents[1] / "log/jobs"
    before = len(ended(jobs))
    started = time.perf_counter()
    subprocess.run(
        command(folder, block_size, grouped), cwd=ROOT, env=env, check=True, timeout=3600,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wall = time.perf_counter() - started
    blocks = -(-BRICKS // block_size)
    whole = sum(1 for _ in folder.glob("results/obiwan/*/*block-*.json")) + sum(
        1 for _ in folder.glob("results/obiwan/bricks/simulated-*.json")
    )
    batch = ended(jobs)[before:]
    states = [state for state, _ in batch]
    in_jobs, in_stages = sum(seconds for _, seconds in batch), worked(folder)
    return [
        {"what": f"{what}: jobs of Snakemake / made", "value": f"{2 * blocks} / {whole}"},
        {
            "what": f"{what}: batch jobs / completed",
            "value": f"{len(batch)} / {states.count('COMPLETED')}",
        },
        {"what": f"{what}: wall time", "value": wall, "unit": "s"},
        {
            "what": f"{what}: of the jobs' time, not in the stage",
            "value": 100 * (1 - in_stages / in_jobs),
            "unit": "%",
        },
        {
            "what": f"{what}: the same a batch job",
            "value": (in_jobs - in_stages) / len(batch),
            "unit": "s",
        },
    ]


def command(folder: Path, block_size: int, grouped: int) -> list[str]:
    """Return the words of a run of the two rules with so many bricks a block."""
    simulate = {"n_bricks": BRICKS, "brick_pixels": 200, "n_real": 5, "n_fake": 5, "n_stars": 1}
    config = {"systems": ["obiwan"], "obiwan": {"block_size": block_size, "simulate": simulate}}
    (folder / "load.yaml").write_text(json.dumps(config))
    words = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())["default-resources"]
    words |= {"mpi_ranks": 1, "mpi_nodes": 1}
    command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--jobs", "2"]
    command += ["--directory", str(folder), "--configfile", str(folder / "load.yaml")]
    command += ["--default-resources", *(f"{name}={value}" for name, value in words.items())]
    if grouped:
        command += ["--groups", *(f"{rule}=pair" for rule in RULES)]
        command += ["--group-components", f"pair={grouped}"]
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
