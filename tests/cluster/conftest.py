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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.conftest import ROOT, clean_environment, launch, skyproof
from tests.workflow.conftest import TINY, configured, tiny, tiny_all, tiny_sysnet, without  # noqa: F401

_QUICK = ("--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "10")

T = TypeVar("T")


def wait_for(look: Callable[[], T], what: str, *, timeout: float = 180, pause: float = 0.02) -> T:
    """Return the first true value of `look`; fail with `what` if there is none."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(pause)
    pytest.fail(f"no {what} within {timeout:.0f} s")


@dataclass(frozen=True)
class Job:
    """One job of a run, ended or not; times as ISO text, "N/A" if not yet known."""

    id: str
    state: str
    node: str  # its first one, "n/a" before it starts
    memory: str
    start: str
    end: str
    purpose: str  # rule and wildcards


class Cluster:
    """The cluster of this session, with methods to run and control jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "SLURM_CONF": str(folder / "etc/slurm.conf"),
            "PATH": os.pathsep.join(
                (str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"])
            ),
        }

    def ask(self, *words: str) -> str:
        """Return the output of a client of SLURM."""
        done = subprocess.run(
            words, env=self._all(), capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    def start(
        self, run: Path, *words: str, config: dict = TINY, profile: str = "slurm"
    ) -> subprocess.Popen[str]:
        """Start `snakemake --profile slurm` of the checkout for a separate folder."""
        # A shell that runs the tests in the background would have them ignore an interrupt.
        command = ["env", "--default-signal=INT", sys.executable, "-m", "tests.cluster.quick"]
        command += ["--profile", profile]
        command += ["--directory", str(run)]
        command += ["--configfile", str(configured(run, config)), *_QUICK, *words]
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
        """Run it to its end; return exit code and output. Kill it after `timeout`."""
        return self.end(self.start(run, *words), timeout)

    def end(self, master: subprocess.Popen[str], timeout: float = 600) -> tuple[int, str]:
        """Wait for the end of a run that was started; return exit code and output."""
        try:
            output, _ = master.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            master.send_signal(signal.SIGKILL)
            output, _ = master.communicate()
            pytest.fail(f"not finished after {timeout} s:\n{output[-5000:]}")
        return master.returncode, output

    def jobs(self, run: Path, rule: str = "") -> list[Job]:
        """Return the jobs of a run, of one rule or all, in the order of their numbers."""
        form = "JobID:20,State:20,BatchHost:50,MinMemory:20,StartTime:20,EndTime:20,"
        form += "Comment:100,StdOut:300"
        lines = self.ask("squeue", "--states=all", "--noheader", "-O", form).splitlines()
        jobs = [Job(*line.split()[:7]) for line in lines if f" {run}/" in line]
        chosen = [job for job in jobs if job.purpose.startswith(f"rule_{rule}")]
        return sorted(chosen, key=lambda job: int(job.id))

    def running(self, run: Path, rule: str) -> str:
        """Wait for a running job of a rule and return its number."""

        def look() -> list[str]:
            return [job.id for job in self.jobs(run, rule) if job.state == "RUNNING"]

        return wait_for(look, f"running job of {rule}", pause=0.2)[0]

    def control(self, action: str, *words: str) -> None:
        """Do `scripts/cluster ACTION` with this cluster: crash or start a node, start ctld."""
        done = launch([ROOT / "scripts/cluster", action, self.folder, *words], timeout=60)
        assert done.returncode == 0, done.stderr

    def update(self, nodes: str, *words: str) -> None:
        """Change something of nodes, as their administrator would."""
        self.ask("scontrol", "update", f"nodename={nodes}", *words)

    @property
    def controller(self) -> int:
        """The process of slurmctld."""
        return int((self.folder / "run/slurmctld.pid").read_text())

    def stop_controller(self) -> None:
        """End slurmctld and wait until it is gone."""
        pid = self.controller
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "end of slurmctld")

    def restore(self) -> None:
        """Start crashed nodes, cancel all jobs, and return all nodes to service."""
        self.ask("scancel", "-u", "root")
        for conf in (self.folder / "etc").glob("*/slurm.conf"):
            node = conf.parent.name
            if not (self.folder / f"run/slurmd-{node}.pid").exists():
                self.control("node", node)
            self.update(node, "weight=1")
        wait_for(self._idle, "cluster at rest", pause=0.5)

    def _idle(self) -> bool:
        lines = self.ask("sinfo", "-h", "-N", "-o", "%N %T").splitlines()
        states = dict(line.split() for line in lines)
        for node, state in states.items():
            if state in ("drained", "down"):
                self.update(node, "state=resume")
        return set(states.values()) == {"idle"}

    def _all(self) -> dict[str, str]:
        return {**clean_environment(), **self.environment}


@contextmanager
def running(**environment: str) -> Iterator[Cluster]:
    """A cluster, or a skip that says why there can be none; `environment` is of scripts/cluster."""
    folder = Path(tempfile.mkdtemp(prefix="skyproof-cluster-"))
    started = launch([ROOT / "scripts/cluster", "start", folder], timeout=60, **environment)
    if started.returncode == 4:
        pytest.skip(started.stderr.strip())
    assert started.returncode == 0, started.stderr
    try:
        yield Cluster(folder)
    finally:
        launch([ROOT / "scripts/cluster", "stop", folder], timeout=60)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster of most tests."""
    with running() as found:
        yield found


def examine(cluster: Cluster, profile: str | Path, folder: Path) -> tuple[int, dict[str, str]]:
    """Run `doctor` on a cluster; return its exit code, and the output of each check."""
    folder.mkdir()
    words = ("doctor", "--profile", profile, "--directory", folder)
    conf = cluster.environment["SLURM_CONF"]
    result = skyproof(*words, cwd=ROOT, SLURM_CONF=conf)
    assert "Traceback" not in result.stderr, result.stderr
    lines = {}
    for line in result.stdout.splitlines():
        what, _, found = line[6:].partition(": ")
        lines[what] = f"{line[:4].strip()} {found}"
    assert lines, result.stderr
    # Test jobs are gone, or on their way out, and their files with them.
    for _ in range(100):
        if not cluster.ask("squeue", "-h").strip():
            break
        time.sleep(0.2)
    assert cluster.ask("squeue", "-h") == ""
    assert not list((folder / ".snakemake").glob("doctor-*"))
    return result.returncode, lines


@pytest.fixture
def untrained(tiny, tmp_path) -> Path:  # noqa: F811
    """A copy of the tiny run without its training and the later stages."""
    return without(tiny, tmp_path / "run", "train", "infer", "evaluate")


@pytest.fixture
def unevaluated(tiny, tmp_path) -> Path:  # noqa: F811
    """A copy of the tiny run without its evaluation and the later stages."""
    return without(tiny, tmp_path / "run", "evaluate")
