"""Stands before SLURM's `sbatch` on the path of the process that sends jobs: a job is sent once.

A client that has no answer after some 10 s gives up, though the controller may have taken the job,
or may take it later. Snakemake would send it again: two jobs would write the same files. So a job
has a ticket, its script in a file, which it takes, by a rename, before it does anything. A request
without an answer is looked for in the queue; a job that is not there, and has not taken its ticket,
loses it, and only then is sent again: for as long as the controller is away.
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

# A folder a run in it: `sbatch`, and the tickets of that run's jobs.
TICKETS = Path(".snakemake") / "skyproof-tickets"

# After these words of sbatch nobody knows whether the job was taken (slurm_errno.c).
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

# The package comes from the checkout, and the environment is the job's: it stays as it was.
_PROGRAM = f"""\
import sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from skyproof.workflow.slurm.submit_once import program
sys.exit(program(sys.argv[1:]))
"""

# What a job does first. The same job may begin again, when its node has died.
_TAKE = """\
#!/bin/sh
ticket={}
mv "$ticket" "$ticket.$SLURM_JOB_ID" 2>/dev/null || [ -e "$ticket.$SLURM_JOB_ID" ] || {{
    echo "job $SLURM_JOB_ID does nothing: it was withdrawn, or $(hostname) sees no $ticket" >&2
    exit 1
}}
"""


def stand_before_sbatch(folder: Path, run: str) -> None:
    """Have this process send the jobs of a run in `folder` by way of this module.

    Jobs of earlier runs there that have not begun never will. EnvironmentProblem if no program can
    be started from that file system.
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
    """Withdraw the tickets of all jobs that were sent from a folder."""
    shutil.rmtree(folder / TICKETS, ignore_errors=True)


def program(words: Sequence[str]) -> int | str:
    """Send, as the program `sbatch` that stands before SLURM's; what it returns is for sys.exit."""
    try:
        return send(words)
    except EnvironmentProblem as error:
        return f"sbatch: error: {error}"
    except KeyboardInterrupt:
        return 130


def send(words: Sequence[str]) -> int:
    """Do what `sbatch WORDS[1:]` does, with the tickets in the folder WORDS[0]."""
    tickets = Path(words[0])
    asked, script = _parted(words[1:])
    _put_aside(tickets)
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
    """Return the options of sbatch, and the script that they wrap or that comes on stdin."""
    options = [word for word in words if word != "/dev/stdin" and not word.startswith("--wrap=")]
    wrapped = [word.removeprefix("--wrap=") for word in words if word.startswith("--wrap=")]
    return options, wrapped[0] if wrapped else sys.stdin.read()


def _put_aside(tickets: Path) -> None:
    """Take our own `sbatch` off the path, and so off that of the jobs."""
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(part for part in path if part != str(tickets))


def _issue(tickets: Path, script: str) -> Path:
    """Write a ticket. EnvironmentProblem where that fails, as when the run has been taken over."""
    ticket = tickets / f"{uuid.uuid4().hex}.sh"
    try:
        ticket.write_text(f"{_TAKE.format(shlex.quote(str(ticket)))}{script}\n", encoding="utf-8")
    except FileNotFoundError:
        raise EnvironmentProblem("the run that sends this job has ended") from None
    except OSError as error:
        raise EnvironmentProblem(str(error)) from None
    return ticket


def _in_queue(ticket: Path) -> str:
    """Return the number of the job with a ticket, waiting or running; empty if there is none."""
    folder = ticket.parents[len(TICKETS.parts) + 1]
    while True:
        try:
            jobs = client.jobs_of(folder)
        except EnvironmentProblem:  # `pending` tells the user
            time.sleep(_PAUSE_S)
        else:
            return next((job.id for job in jobs if job.script == str(ticket)), "")


def _withdraw(ticket: Path) -> str:
    """Withdraw a ticket; return the number of the job that was quicker, empty if none was."""
    withdrawn = ticket.with_suffix(".withdrawn")
    try:
        ticket.rename(withdrawn)
    except FileNotFoundError:
        # Network file systems show names late, and may answer with an error what they have done.
        while ticket.parent.exists() and not withdrawn.exists():
            if jobs := [path.suffix[1:] for path in ticket.parent.glob(f"{ticket.name}.*")]:
                return jobs[0]
            time.sleep(_PAUSE_S)
    return ""
