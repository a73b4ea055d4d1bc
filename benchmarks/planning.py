"""Planning time of Snakemake and `skyproof plan` for a survey of 100,000 bricks in blocks."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import Result, Row

ROOT = Path(__file__).parents[1]
SURVEY = "obiwan: {block_size: 64, simulate: {n_bricks: %d, brick_pixels: 3600}}\n"


@dataclass(frozen=True)
class Size:
    """Numbers of bricks of a large and a small survey."""

    many: int = 100_000
    few: int = 1_000


TINY = Size(many=256, few=64)


def run(size: Size) -> Result:
    """Time `snakemake -n` for a survey and for a small part of it, in fresh folders."""
    small, few_jobs = plan(size.few)
    large, many_jobs = plan(size.many)
    blocks = "bricks in blocks of 64"
    rows = [
        Row(f"{size.few:,} {blocks} ({few_jobs} jobs)", small, "s"),
        Row(f"{size.many:,} {blocks} ({many_jobs} jobs)", large, "s", "<= 15"),
        Row("ratio", large / small, "x"),
        Row("the larger one by skyproof plan", estimate(size.many), "s", "<= 30"),
    ]
    return Result("planning: snakemake -n", rows)


def estimate(n_bricks: int) -> float:
    """Return the seconds of `python -m skyproof plan` in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        survey = Path(folder) / "survey.yaml"
        survey.write_text(SURVEY % n_bricks)
        command = [sys.executable, "-m", "skyproof", "plan", "--configfile", str(survey)]
        command += ["--directory", folder, "--config", "systems=[obiwan]"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True, timeout=600, env=environment)
        return time.perf_counter() - started


def plan(n_bricks: int) -> tuple[float, int]:
    """Return seconds and jobs of a dry run in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        survey = Path(folder) / "survey.yaml"
        survey.write_text(SURVEY % n_bricks)
        command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules"]
        command += ["-s", str(ROOT / "Snakefile")]
        command += ["--directory", folder, "--configfile", str(survey)]
        started = time.perf_counter()
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        seconds = time.perf_counter() - started
    total = [line.split()[1] for line in printed.stdout.splitlines() if line.startswith("total")]
    return seconds, int(total[0])
