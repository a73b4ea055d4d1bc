"""A wrapper of SLURM's `sbatch`, first on PATH, that submits each job exactly once.

A client without an answer gives up after about 10 s, although the controller may have accepted the
job or may accept it later. Snakemake would submit it again, and two jobs would write the same
files. Therefore each job has a ticket: a file with its script, which the job renames before it does
anything else. After a request without an answer, the wrapper looks for the job in the queue. If it
is not there and has not renamed its ticket, the wrapper withdraws the ticket, and only then submits
the job again. This repeats until the controller answers.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from skyproof.core.errors import EnvironmentProblem
from skyproof.workflow.slurm import client

# It has one folder per run, with the wrapper `sbatch` and the tickets of that run's jobs.
TICKETS = Path(".snakemake") / "skyproof-tickets"

# Errors of sbatch after which it is unknown whether the job was accepted (slurm_errno.c).
_UNANSWERED = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Zero Bytes were transmitted",
    "Communication connection failure",
    "Communication shutdown failure",
    "Message send failure",
    "Message receive failure",
    "Unexpected missing socket",
    "standby mode",
)
_PAUSE_S = 2.0

# The package is imported from the checkout by sys.path, as the environment is passed to the job.
_PROGRAM = f"""\
import sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from skyproof.workflow.slurm.submit_once import program
sys.exit(program(sys.argv[1:]))
"""

# First lines of a job. The same job may start again after its node has died.
_TAKE = """\
#!/bin/sh
ticket={}
mv "$ticket" "$ticket.$SLURM_JOB_ID" 2>/dev/null || [ -e "$ticket.$SLURM_JOB_ID" ] || {{
    echo "job $SLURM_JOB_ID does nothing: it was withdrawn, or $(hostname) sees no $ticket" >&2
    exit 1
}}
"""


def install_wrapper(folder: Path, run: str) -> None:
    """Make this process submit the jobs of a run in `folder` through this module.

    Waiting jobs of earlier runs in the folder will not begin. Raises EnvironmentProblem if no
    program can be started from that file system.
    """
    withdraw_all(folder)
    tickets = (folder / TICKETS / run).resolve()
    tickets.mkdir(parents=True)
    program = tickets / "sbatch"
    words = [sys.executable, "-c", _PROGRAM, str(tickets)]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    if not os.access(program, os.X_OK):
        raise EnvironmentProblem(
            f"{program} cannot be started (mounted noexec?): run in another folder (--directory)"
        )
    os.environ["PATH"] = os.pathsep.join((str(tickets), os.environ.get("PATH", os.defpath)))


def withdraw_all(folder: Path) -> None:
    """Withdraw the tickets of all jobs that were submitted from a folder."""
    shutil.rmtree(folder / TICKETS, ignore_errors=True)


def program(words: Sequence[str]) -> int | str:
    """Run the wrapper and return a value for sys.exit."""
    try:
        return send(words)
    except EnvironmentProblem as error:
        return f"sbatch: error: {error}"
    except KeyboardInterrupt:
        return 130


def send(words: Sequence[str]) -> int:
    """Do what `sbatch WORDS[1:]` does, with a ticket in the folder WORDS[0]."""
    tickets = Path(words[0])
    asked, script = _parted(words[1:])
    _drop_from_path(tickets)
    while True:
        ticket = _issue(tickets, script)
        done = subprocess.run(
            ["sbatch", *asked, str(ticket)], capture_output=True, text=True, check=False
        )
        if done.returncode == 0 or not any(said in done.stderr for said in _UNANSWERED):
            sys.stdout.write(done.stdout)
            sys.stderr.write(done.stderr)
            return done.returncode
        if job := _in_queue(ticket) or _withdraw(ticket):
            print(job)
            return 0


def _parted(words: Sequence[str]) -> tuple[list[str], str]:
    """Return the options of sbatch, and the script from --wrap or from standard input."""
    options = [word for word in words if word != "/dev/stdin" and not word.startswith("--wrap=")]
    wrapped = [word.removeprefix("--wrap=") for word in words if word.startswith("--wrap=")]
    return options, wrapped[0] if wrapped else sys.stdin.read()


def _drop_from_path(tickets: Path) -> None:
    """Remove the wrapper from PATH, also for the jobs."""
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(part for part in path if part != str(tickets))


def _issue(tickets: Path, script: str) -> Path:
    """Write a ticket (EnvironmentProblem where that fails, as when the run has ended)."""
    ticket = tickets / f"{uuid.uuid4().hex}.sh"
    try:
        ticket.write_text(f"{_TAKE.format(shlex.quote(str(ticket)))}{script}\n", encoding="utf-8")
    except FileNotFoundError:
        raise EnvironmentProblem("the run of this job has ended") from None
    except OSError as error:
        raise EnvironmentProblem(str(error)) from None
    return ticket


def _in_queue(ticket: Path) -> str:
    """Return the number of the job with a ticket, waiting or running; empty if there is none."""
    folder = ticket.parents[len(TICKETS.parts) + 1]
    while True:
        try:
            jobs = client.jobs_of(folder)
        except EnvironmentProblem:  # queue_watch reports it
            time.sleep(_PAUSE_S)
        else:
            return next((job.id for job in jobs if job.script == str(ticket)), "")


def _withdraw(ticket: Path) -> str:
    """Withdraw a ticket; return the number of the job that has taken it, else an empty string."""
    withdrawn = ticket.with_suffix(".withdrawn")
    try:
        ticket.rename(withdrawn)
    except FileNotFoundError:
        # Network file systems show names late, and may report an error for a rename that succeeded.
        while ticket.parent.exists() and not withdrawn.exists():
            if jobs := [path.suffix[1:] for path in ticket.parent.glob(f"{ticket.name}.*")]:
                return jobs[0]
            time.sleep(_PAUSE_S)
    return ""
