"""Jobs submitted while the controller is down or does not answer: each is submitted once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from skyproof.workflow.slurm import client, submit_once
from tests.cluster.conftest import Cluster, wait_for
from tests.workflow.conftest import root_of

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

# All attempts of a job would be over: a client of SLURM gives up after some 9 s.
AWAY_S = 40


@pytest.fixture
def log(cluster, tmp_path, monkeypatch) -> Path:
    """Let this process send jobs of a run; the place of their logs."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    submit_once.install_wrapper(tmp_path, "run")
    (tmp_path / client.LOGS).mkdir()
    return tmp_path / client.LOGS / "%j.log"


@contextmanager
def client_of(name: str, folder: Path, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Send a job that adds its number to a file. The client asks without end: it is killed."""
    job = ["sbatch", "--parsable", "-o", log, f"--wrap=echo $SLURM_JOB_ID >> {name}"]
    with subprocess.Popen(
        job, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as sbatch:
        try:
            yield sbatch
        finally:
            sbatch.kill()


def test_a_job_in_the_queue_is_known_by_its_ticket(tmp_path, log):
    number = client.ask("sbatch", "--parsable", "--hold", "-o", str(log), "--wrap=true").strip()
    (job,) = client.jobs_of(tmp_path)
    (ticket,) = (tmp_path / submit_once.TICKETS / "run").glob("*.sh")
    assert (job.id, job.state, job.script) == (number, "PENDING", str(ticket))
    client.cancel(tmp_path)


def test_a_job_that_was_taken_without_an_answer_is_not_sent_again(cluster, tmp_path, log):
    controller = cluster.controller
    with ExitStack() as stack:
        os.kill(controller, signal.SIGSTOP)
        try:
            sent = [stack.enter_context(client_of(name, tmp_path, log)) for name in "abc"]
            time.sleep(12)  # clients give up after 10 s
        finally:
            os.kill(controller, signal.SIGCONT)
        for name, sbatch in zip("abc", sent, strict=True):
            number, said = sbatch.communicate(timeout=60)
            assert (sbatch.returncode, said) == (0, "")
            made = tmp_path / name
            wait_for(made.is_file, "what the job writes")
            assert made.read_text() == number
    # Some were withdrawn, as squeue may be answered before what was asked earlier.
    wait_for(lambda: not cluster.ask("squeue", "-h"), "end of all jobs")
    assert [(tmp_path / name).read_text().count("\n") for name in "abc"] == [1, 1, 1]


def test_jobs_wait_for_a_controller_that_is_away(cluster, tiny, unevaluated, tmp_path):
    """It goes when the first job is sent."""
    away = tmp_path / "away"
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sbatch").write_text(
        f"""#!/bin/sh
        pid={cluster.controller}
        mkdir {away} && kill $pid && while kill -0 $pid; do sleep 0.1; done
        PATH=${{PATH#*:}} exec sbatch "$@"
        """
    )
    (programs / "sbatch").chmod(0o755)
    there = Cluster(cluster.folder)
    there.environment["PATH"] = f"{programs}:{there.environment['PATH']}"
    master = there.start(unevaluated)
    wait_for(away.is_dir, "job to be sent")
    time.sleep(AWAY_S)
    cluster.control("ctld")
    code, output = cluster.end(master)
    assert code == 0, output
    assert "SLURM does not answer" in output
    assert "sbatch failed" not in output
    assert "Trying to restart" not in output
    assert root_of(unevaluated) == root_of(tiny)
    assert not (unevaluated / submit_once.TICKETS).exists()
