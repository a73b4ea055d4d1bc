"""A SLURM of five emulated nodes, started by the same script as `make cluster`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
import yaml

from tests.conftest import ROOT, clean_environment, launch, skyproof
from tests.workflow.conftest import TINY, snakemake

_QUICK = ("--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "10")

T = TypeVar("T")


def wait_for(look: Callable[[], T], what: str, timeout: float = 180) -> T:
    """Return the first true value that `look` gives; fail, naming `what`, if there is none."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.02)
    pytest.fail(f"no {what} within {timeout:.0f} s")


def root_of(run: Path) -> str:
    """Return the root of a run's manifest."""
    result = skyproof("root", run / "results")
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@dataclass(frozen=True)
class Job:
    """One job of a run, ended or not; times as ISO text, "N/A" where there is none yet."""

    id: str
    state: str
    memory: str
    start: str
    end: str
    purpose: str  # rule and wildcards


class Cluster:
    """The cluster of this session, and how to run things on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "SLURM_CONF": str(folder / "etc/slurm.conf"),
            "PATH": os.pathsep.join(
                (str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"])
            ),
        }

    def ask(self, *words: str) -> str:
        """Return what a client of SLURM prints."""
        done = subprocess.run(
            words, env=self._all(), capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    def start(self, run: Path, *words: str) -> subprocess.Popen[str]:
        """Start `snakemake --profile slurm` from the checkout for a folder of its own."""
        run.mkdir(parents=True, exist_ok=True)
        (run / "mine.yaml").write_text(yaml.safe_dump({"systems": ["obiwan"], **TINY}))
        command = [sys.executable, "-m", "tests.cluster.quick", "--profile", "slurm"]
        command += ["--directory", str(run)]
        command += ["--configfile", str(run / "mine.yaml"), *_QUICK, *words]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self._all(),
            pipesize=1 << 20,  # nobody reads while a test waits for a state
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, run: Path, *words: str, timeout: float = 600) -> tuple[int, str]:
        """Run it to its end; return exit code and output. Cancel what is left after `timeout`."""
        return self.end(self.start(run, *words), timeout)

    def end(self, master: subprocess.Popen[str], timeout: float = 600) -> tuple[int, str]:
        """Wait for the end of a run; return exit code and output."""
        try:
            output, _ = master.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            master.send_signal(signal.SIGKILL)
            output, _ = master.communicate()
            pytest.fail(f"not finished after {timeout} s:\n{output[-5000:]}")
        return master.returncode, output

    def jobs(self, run: Path, rule: str = "") -> list[Job]:
        """Return the jobs of a run, of one rule or all, in the order of their numbers."""
        form = "JobID:20,State:20,MinMemory:20,StartTime:20,EndTime:20,Comment:100,StdOut:300"
        lines = self.ask("squeue", "--states=all", "--noheader", "-O", form).splitlines()
        jobs = [Job(*line.split()[:6]) for line in lines if f" {run}/" in line]
        chosen = [job for job in jobs if job.purpose.startswith(f"rule_{rule}")]
        return sorted(chosen, key=lambda job: int(job.id))

    def running(self, run: Path, rule: str) -> str:
        """Wait for a running job of a rule and return its number."""
        look = lambda: [job.id for job in self.jobs(run, rule) if job.state == "RUNNING"]  # noqa: E731
        return wait_for(look, f"running job of {rule}")[0]

    def _all(self) -> dict[str, str]:
        return {**clean_environment(), **self.environment}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster, or a skip that says why there can be none."""
    folder = Path(tempfile.mkdtemp(prefix="skyproof-cluster-"))
    started = launch([ROOT / "scripts/cluster", "start", folder], timeout=60)
    if started.returncode == 4:
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, started.stderr
    try:
        yield Cluster(folder)
    finally:
        launch([ROOT / "scripts/cluster", "stop", folder], timeout=60)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def local(tmp_path_factory) -> Path:
    """The tiny run on this machine alone."""
    folder = tmp_path_factory.mktemp("local")
    result = snakemake(folder, "-c", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture
def untrained(local, tmp_path) -> Path:
    """A copy of the tiny run without its training and what follows."""
    return _without(local, tmp_path / "run", "train", "infer", "evaluate")


@pytest.fixture
def unevaluated(local, tmp_path) -> Path:
    """A copy of the tiny run without its evaluation and what follows."""
    return _without(local, tmp_path / "run", "evaluate")


def _without(local: Path, folder: Path, *stages: str) -> Path:
    shutil.copytree(local, folder)
    for name in stages:
        shutil.rmtree(folder / "results/obiwan" / name)
    for name in ("manifest.json", "manifest-sha256.txt", "provenance.json"):
        (folder / "results" / name).unlink()
    return folder
