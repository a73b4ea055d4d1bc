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
from pathlib import Path

import pytest

from tests.conftest import ROOT, clean_environment, launch, skyproof
from tests.workflow.conftest import TINY, configured, snakemake

_QUICK = ("--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "10")


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

    def start(
        self, run: Path, *words: str, config: dict = TINY, profile: str = "slurm"
    ) -> subprocess.Popen[str]:
        """Start `snakemake --profile slurm` from the checkout for a folder of its own."""
        command = [sys.executable, "-m", "snakemake", "--profile", profile, "--directory", str(run)]
        command += ["--configfile", str(configured(run, config)), *_QUICK, *words]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self._all(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, run: Path, *words: str, timeout: float = 300) -> tuple[int, str]:
        """Run it to its end; return exit code and output. Kill it after `timeout`."""
        return self.end(self.start(run, *words), timeout=timeout)

    def end(self, master: subprocess.Popen[str], timeout: float = 300) -> tuple[int, str]:
        """Wait for the end of a run that was started; return exit code and output."""
        try:
            output, _ = master.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            master.send_signal(signal.SIGKILL)
            output, _ = master.communicate()
            pytest.fail(f"not finished after {timeout} s:\n{output[-5000:]}")
        return master.returncode, output

    def control(self, action: str, *words: str) -> None:
        """Do `scripts/cluster ACTION` with this cluster: crash or start a node, start ctld."""
        done = launch([ROOT / "scripts/cluster", action, self.folder, *words], timeout=60)
        assert done.returncode == 0, done.stderr

    def update(self, nodes: str, *words: str) -> None:
        """Change something of nodes, as their administrator would."""
        self.ask("scontrol", "update", f"nodename={nodes}", *words)

    def stop_controller(self) -> None:
        """End slurmctld and wait until it is gone."""
        pid = int((self.folder / "run/slurmctld.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of slurmctld")

    def mend(self) -> None:
        """Start nodes that crashed, cancel what is left, and put all nodes back to work."""
        self.ask("scancel", "-u", "root")
        for conf in (self.folder / "etc").glob("*/slurm.conf"):
            node = conf.parent.name
            if not (self.folder / f"run/slurmd-{node}.pid").exists():
                self.control("node", node)
            self.update(node, "weight=1")
        wait_until(self._idle, "a cluster at rest")

    def _idle(self) -> bool:
        lines = self.ask("sinfo", "-h", "-N", "-o", "%N %T").splitlines()
        states = dict(line.split() for line in lines)
        for node, state in states.items():
            if state in ("drained", "down"):
                self.update(node, "state=resume")
        return set(states.values()) == {"idle"}

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
    """The tiny run of Obiwan on this machine alone."""
    folder = tmp_path_factory.mktemp("local")
    result = snakemake(folder, "-c", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture
def untrained(local, tmp_path) -> Path:
    """A copy of the tiny run without its training and what follows."""
    return without(local, tmp_path / "run", "train", "infer", "evaluate")


def without(finished: Path, folder: Path, *stages: str) -> Path:
    """Copy a finished run of Obiwan, without the products of some stages and the manifest."""
    shutil.copytree(finished, folder)
    for name in stages:
        shutil.rmtree(folder / "results/obiwan" / name)
    for name in ("manifest.json", "manifest-sha256.txt", "provenance.json"):
        (folder / "results" / name).unlink()
    return folder


def root_of(run: Path) -> str:
    result = skyproof("root", run / "results")
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def wait_for_job(cluster: Cluster, run: Path) -> None:
    """Wait until a job of the run is running."""
    wait_until(lambda: states_of(cluster, run).get("RUNNING"), "a job of the run")


def job_of(cluster: Cluster, run: Path) -> tuple[str, str]:
    """Return the number of the one job of a run that is in the queue, and its first node."""
    lines = cluster.ask("squeue", "-h", "-O", "JobID:20,BatchHost:50,StdOut:300").splitlines()
    [(number, node, _)] = [line.split() for line in lines if f"{run}/" in line]
    return number, node


def states_of(cluster: Cluster, run: Path) -> dict[str, int]:
    """Return how many jobs of a run are in which state, those that ended apart."""
    lines = cluster.ask("squeue", "-h", "-O", "State:20,StdOut:300").splitlines()
    states = [line.split()[0] for line in lines if f"{run}/" in line]
    return {state: states.count(state) for state in states}


def wait_until(found: Callable[[], object], what: str, timeout: float = 120) -> None:
    """Ask twice a second until something is found."""
    end = time.monotonic() + timeout
    while not found():
        assert time.monotonic() < end, f"{what} was not seen within {timeout:.0f} s"
        time.sleep(0.5)
