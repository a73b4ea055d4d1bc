"""A job is submitted once for any answer of SLURM, with stand-ins for sbatch and squeue."""

from __future__ import annotations

import errno
import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from skyproof.core.errors import EnvironmentProblem
from skyproof.workflow.slurm import client, submit_once
from tests.conftest import launch

UNANSWERED = "echo >&2 sbatch: error: Batch job submission failed: {}; exit 1"
TIMED_OUT = UNANSWERED.format("Socket timed out on send/recv operation")
# Keeps its script, as SLURM does, and says what it was asked.
SBATCH = """#!/bin/sh
echo "$@" >> {site}/asked
n=$(($(wc -l < {site}/asked)))
for script do :; done
cp "$script" {site}/job$n
. {site}/answer$n
"""


@dataclass
class Site:
    """Stand-ins for the clients of SLURM, and a run that submits jobs to them."""

    folder: Path
    run: Path

    def answers(self, *lines: str) -> None:
        for number, line in enumerate(lines, 1):
            (self.folder / f"answer{number}").write_text(line)

    def queue(self, script: str, job: str) -> None:
        """Make squeue show a job with this script."""
        shown = [job, "PENDING", "None", "rule_a", script, f"{self.run / client.LOGS}/{job}.log"]
        widths = client._COLUMNS.values()
        line = "".join(f"{cell:{width}}" for cell, width in zip(shown, widths, strict=True))
        (self.folder / "queue").write_text(line)

    def send(self, *words: str) -> int:
        return submit_once.send([str(self.tickets), *words])

    def start(self, number: int, job: str) -> int:
        """Start the script of a request as job `job`."""
        script = self.folder / f"job{number}"
        return launch(["sh", script], SLURM_JOB_ID=job).returncode

    @property
    def tickets(self) -> Path:
        (found,) = (self.run / submit_once.TICKETS).iterdir()
        return found

    @property
    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()


@pytest.fixture
def site(tmp_path, monkeypatch) -> Site:
    monkeypatch.chdir(tmp_path)
    made = Site(tmp_path / "a site", tmp_path / "a run")
    programs = made.folder / "bin"
    programs.mkdir(parents=True)
    made.run.mkdir()
    (programs / "sbatch").write_text(SBATCH.format(site=f"'{made.folder}'"))
    (programs / "squeue").write_text(f"#!/bin/sh\ncat '{made.folder}/queue'\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    (made.folder / "queue").write_text("")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(submit_once, "_PAUSE_S", 0.01)
    submit_once.install_wrapper(made.run, "first")
    return made


def test_the_wrapper_submits_with_the_given_arguments(site):
    """The script of the job is in a file, and the wrapper is not on the PATH of the job."""
    site.answers("echo $PATH > path; echo 12")
    line = "sbatch --parsable -p 'a b' --wrap=\"echo 'done' > did\""
    done = launch(["sh", "-c", line], cwd=site.run)
    assert (done.returncode, done.stdout, done.stderr) == (0, "12\n", "")
    (asked,) = site.asked
    assert asked.startswith(f"--parsable -p a b {site.tickets}/")
    assert str(site.tickets) not in (site.run / "path").read_text()
    assert site.start(1, "12") == 0
    assert Path("did").read_text() == "done\n"


def test_a_script_may_come_on_stdin(site, monkeypatch, capsys):
    site.answers("echo 12")
    monkeypatch.setattr(sys, "stdin", io.StringIO("#!/bin/sh\nexit 5"))
    assert site.send("--parsable", "/dev/stdin") == 0
    assert capsys.readouterr().out == "12\n"
    assert "stdin" not in site.asked[0]
    assert site.start(1, "12") == 5


def test_an_error_of_sbatch_is_passed_on(site, capsys):
    site.answers("echo >&2 sbatch: error: Invalid account; exit 1")
    assert site.send("--wrap=true") == 1
    assert capsys.readouterr().err == "sbatch: error: Invalid account\n"
    assert len(site.asked) == 1


def test_a_pending_job_is_found_in_the_queue(site, capsys, monkeypatch):
    """SLURM accepted it without an answer, and at first squeue does not answer either."""
    calls = []

    def asked(folder: Path) -> list[client.QueuedJob]:
        calls.append(folder)
        if len(calls) < 3:
            raise EnvironmentProblem("squeue: Unable to contact slurm controller")
        site.queue(site.asked[0].split("--x ")[1], "31")
        return jobs_of(folder)

    jobs_of = client.jobs_of
    monkeypatch.setattr(client, "jobs_of", asked)
    site.answers(TIMED_OUT)
    assert site.send("--x", "--wrap=true") == 0
    assert capsys.readouterr().out == "31\n"
    assert len(site.asked) == 1
    assert calls == [site.run] * 3


def test_a_started_job_is_found_by_its_ticket(site, capsys):
    """It has already left the queue."""
    site.answers(f'SLURM_JOB_ID=7 sh "$script"; {TIMED_OUT}')
    assert site.send("--wrap=true") == 0
    assert capsys.readouterr().out == "7\n"
    assert len(site.asked) == 1


@pytest.mark.parametrize(
    "message",
    [
        "Socket timed out on send/recv operation",
        "'Unable to contact slurm controller (connect failure)'",
        "Zero Bytes were transmitted or received",
    ],
)
def test_a_job_with_a_withdrawn_ticket_does_nothing(site, capsys, message):
    lost = UNANSWERED.format(message)
    site.queue("another job's script", "30")
    site.answers(lost, lost, "echo 9")
    assert site.send("--wrap=echo x >> did") == 0
    assert capsys.readouterr().out == "9\n"
    assert len(site.asked) == 3
    did = Path("did")
    assert [site.start(1, "7"), site.start(2, "8")] == [1, 1]
    assert not did.exists()
    assert site.start(3, "9") == 0
    assert site.start(3, "9") == 0  # after its node has died
    assert site.start(3, "10") == 1
    assert did.read_text() == "x\nx\n"


def test_jobs_of_an_earlier_run_do_not_start(site):
    """Remaining processes of that run do not submit any either."""
    site.answers("echo 12")
    earlier = site.tickets
    assert site.send("--wrap=true") == 0
    submit_once.install_wrapper(site.run, "second")
    assert site.start(1, "12") == 1
    with pytest.raises(EnvironmentProblem, match="run of this job has ended"):
        submit_once.send([str(earlier), "--wrap=true"])
    assert len(site.asked) == 1
    assert site.tickets.name == "second"


def test_the_wrapper_reports_errors_in_one_line(site):
    program = site.tickets / "sbatch"
    kept = site.folder / "kept"
    program.rename(kept)
    submit_once.withdraw_all(site.run)
    done = launch([kept, "--wrap=true"])
    assert done.returncode == 1
    assert done.stderr == "sbatch: error: the run of this job has ended\n"


def test_a_full_disk_is_an_error(site, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x.sh")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(EnvironmentProblem, match=r"No space left on device: 'x.sh'"):
        site.send("--wrap=true")


def test_a_file_system_mounted_noexec_is_an_error(site, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, how: False)
    with pytest.raises(EnvironmentProblem, match=r"sbatch cannot be started \(mounted noexec\?\)"):
        submit_once.install_wrapper(site.run, "second")
