"""How long Snakemake plans a survey of 100,000 bricks in blocks."""

from __future__ import annotations

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
    return {"name": "planning: snakemake -n", "rows": rows}


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
