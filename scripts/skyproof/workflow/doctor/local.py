"""The checks of `doctor` where all jobs run on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skyproof.workflow.doctor.findings import Finding, fail, ok, warn
from skyproof.workflow.plan.dryrun import DryRun

_PACKAGES = ("numpy", "mpi4py", "torch", "galsim", "fitsio", "healpy", "sklearn")


def examine(run: DryRun, patience: float) -> Iterator[Finding]:
    """Yield the findings on this machine."""
    yield packages(run)
    yield launcher(run, patience)
    yield machine(run, available_mb())
    yield containers(run, shutil.which("apptainer"), os.access("/dev/fuse", os.R_OK | os.W_OK))


def packages(run: DryRun) -> Finding:
    """Check that the interpreter has the packages that the stages import."""
    absent = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if absent and not _deployed(run):
        return fail("packages", f"{sys.executable} has no {', '.join(absent)}", "make venv")
    return ok("packages", "all there" if not absent else "in conda environments or images")


def launcher(run: DryRun, patience: float) -> Finding:
    """Check that two ranks start in one MPI world."""
    words = launcher_words(run)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *words,
            "-n",
            "2",
            sys.executable,
            "-m",
            "skyproof.workflow.doctor.probe",
            folder,
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=patience, check=False
            )
        except FileNotFoundError:
            return fail("mpi", f"{words[0]} is not on PATH", "source .venv/bin/activate")
        except subprocess.TimeoutExpired:
            remedy = "see whether this machine's name resolves (hostname -f)"
            return fail("mpi", f"{shlex.join(words)} did not end in {patience:.0f} s", remedy)
        found = [json.loads(path.read_text("utf-8")) for path in Path(folder).glob("*.json")]
    return judge_world(shlex.join(words), found, 2, done.stderr)


def judge_world(words: str, found: list[dict[str, Any]], ranks: int, said: str = "") -> Finding:
    """Return the finding on the ranks that a launcher started: are they one MPI world?"""
    if len(found) < ranks:
        lines = [line for line in said.splitlines() if line.strip()] or ["no message"]
        return fail(
            "mpi", f"{words} started {len(found)} of {ranks} ranks: {lines[-1]}", "make venv"
        )
    problem = next((one["mpi_problem"] for one in found if one["mpi_problem"]), "")
    if problem:
        return fail("mpi", f"{words}: {problem}", "install mpi4py and its MPI: make venv")
    sizes = sorted({one["ranks"] for one in found})
    if sizes != [ranks]:
        remedy = "launcher and MPI library must be of one family (.venv/bin/mpiexec first on PATH)"
        return fail("mpi", f"{words}: {ranks} ranks see a world of {sizes[0]}", remedy)
    return ok("mpi", f"{words} starts {ranks} ranks in one world")


def launcher_words(run: DryRun) -> list[str]:
    """Return the command that starts ranks, without their number."""
    words = next((str(j.resources["launcher"]) for j in run.jobs if "launcher" in j.resources), "")
    return shlex.split(words or "mpiexec")


def machine(run: DryRun, memory_mb: float) -> Finding:
    """Check that the largest job fits into memory."""
    largest = max(run.jobs, key=lambda job: job.memory_mb)
    cores = len(os.sched_getaffinity(0))
    asked = f"{largest.rule} asks for {largest.memory_mb / 1e3:.1f} GB"
    found = f"{cores} cores, {memory_mb / 1e3:.1f} GB free; {asked}"
    if largest.memory_mb > memory_mb:
        return warn("machine", found, "fewer ranks (-c), or smaller bricks and blocks")
    return ok("machine", found)


def available_mb() -> float:
    """Return the available memory [MB]."""
    for line in Path("/proc/meminfo").read_text("ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1e3
    return float("inf")


def containers(run: DryRun, apptainer: str | None, fuse: bool) -> Finding:
    """Check that rules can run in images, where the run uses them."""
    found = f"{apptainer or 'no Apptainer here'}, /dev/fuse {'usable' if fuse else 'not usable'}"
    if apptainer and fuse:
        return ok("containers", found)
    remedy = "docs/environments.md"
    if "apptainer" in _deployed(run):
        # Without FUSE, Apptainer unpacks each image first, which is slow.
        return (
            fail("containers", found, remedy)
            if not apptainer
            else warn("containers", found, remedy)
        )
    return ok("containers", f"{found} (needed for --sdm apptainer only)")


def _deployed(run: DryRun) -> str:
    """Return the run's software deployment methods, as one text."""
    return " ".join(map(str, run.arguments.software_deployment_method or ())).lower()
