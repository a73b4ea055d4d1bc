"""A SLURM of five emulated nodes, started by the same script as `make cluster`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, clean_environment, launch
from tests.workflow.conftest import TINY

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

    def start(self, run: Path, *words: str) -> subprocess.Popen[str]:
        """Start `snakemake --profile slurm` from the checkout for a folder of its own."""
        run.mkdir(parents=True, exist_ok=True)
        (run / "mine.yaml").write_text(yaml.safe_dump(TINY))
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--directory", str(run)]
        command += ["--configfile", str(run / "mine.yaml"), *_QUICK, *words]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self._all(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, run: Path, *words: str, timeout: float = 300) -> tuple[int, str]:
        """Run it to its end; return exit code and output. Cancel what is left after `timeout`."""
        master = self.start(run, *words)
        try:
            output, _ = master.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            master.send_signal(signal.SIGKILL)
            output, _ = master.communicate()
            pytest.fail(f"not finished after {timeout} s:\n{output[-5000:]}")
        return master.returncode, output

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
