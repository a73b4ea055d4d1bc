"""How long Snakemake, and `skyproof plan` over it, plan a survey of 100,000 bricks in blocks."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SURVEY = "obiwan: {block_size: 64, simulate: {n_bricks: %d, brick_pixels: 3600}}\n"


def run() -> dict[str, Any]:
    """Time `snakemake -n` for a survey and for a hundredth of it, in fresh folders."""
    small, few = plan(1_000)
    large, many = plan(100_000)
    rows = [
        {"what": f"1,000 bricks in blocks of 64 ({few} jobs)", "value": small, "unit": "s"},
        {"what": f"100,000 bricks in blocks of 64 ({many} jobs)", "value": large, "unit": "s"},
        {"what": "ratio", "value": large / small},
    ]
    rows[1]["target"] = "<= 15"
    rows.append({"what": "the same by skyproof plan", "value": foresee(100_000), "unit": "s"})
    rows[-1]["target"] = "<= 30"
    return {"name": "planning: snakemake -n", "rows": rows}


def foresee(n_bricks: int) -> float:
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
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "-n",
            "--quiet",
            "rules",
            "-s",
            str(ROOT / "Snakefile"),
        ]
        command += ["--directory", folder, "--configfile", str(survey)]
        started = time.perf_counter()
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        seconds = time.perf_counter() - started
    total = [line.split()[1] for line in printed.stdout.splitlines() if line.startswith("total")]
    return seconds, int(total[0])
