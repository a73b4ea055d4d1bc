"""Duties of the Snakemake process that starts jobs, before it starts the first one.

One master a folder; no job of a master that died; no setting of the SLURM executor that is known to
lose jobs without a word. `rules/master.smk` calls this when a run begins, never for a dry run.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skyproof.core.errors import EnvironmentProblem, UsageError
from skyproof.core.no_retry import RUN_VARIABLE
from skyproof.workflow.slurm import client, queue_watch, submit_once

LOCK = Path(".snakemake") / "skyproof-master.json"

_held: dict[Path, int] = {}  # descriptors of the folders' locks, open until the process ends


def take_charge(folder: Path, executor: str, settings: Any, tell: Callable[[str], None]) -> None:
    """Make this process the only master of the run in `folder`.

    `executor` and `settings` are Snakemake's; `tell` prints a line. UsageError for settings that
    lose jobs, EnvironmentProblem where another master or an unreachable job may still write, or no
    program can be started from the folder (submit_once.py).
    """
    hold(folder)
    # Jobs inherit it: an attempt knows whether the one before it belonged to the same run.
    os.environ[RUN_VARIABLE] = run = uuid.uuid4().hex
    if executor != "slurm":
        return
    refuse_traps(settings)
    submit_once.stand_before_sbatch(folder, run)
    for job in client.cancel(folder):
        tell(f"cancelled job {job.id} ({job.rule}) of an earlier run whose master is gone")
    queue_watch.watch(folder, tell)


def hold(folder: Path) -> None:
    """Take the lock of a folder, which lasts as long as this process, however it ends.

    Snakemake's own lock stays behind when its process is killed and must then be removed by hand.
    EnvironmentProblem if another process has it, or if one on another host may have it.
    """
    path = folder / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    holder = _holder(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise EnvironmentProblem(f"{holder} runs this workflow in {folder}; wait for it") from None
    except OSError:
        # No locks on this file system. The process number decides, on one host at least.
        if holder.host == socket.gethostname() and _alive(holder.pid):
            os.close(descriptor)
            raise EnvironmentProblem(
                f"{holder} runs this workflow in {folder}; wait for it"
            ) from None
    if holder.host not in ("", socket.gethostname()):
        # Some file systems keep locks to one host.
        os.close(descriptor)
        raise EnvironmentProblem(
            f"{holder} ran this workflow in {folder} and may live; if it is gone, remove {path}"
        )
    os.ftruncate(descriptor, 0)
    me = {"host": socket.gethostname(), "pid": os.getpid()}
    os.pwrite(descriptor, json.dumps(me).encode(), 0)
    _held[folder] = descriptor


def release() -> None:
    """End a run: no job of it may begin any more, and a master on another host may follow."""
    while _held:
        folder, descriptor = _held.popitem()
        submit_once.withdraw_all(folder)
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


class _Holder:
    """Who wrote the lock: nobody (empty host), or a process of a host."""

    def __init__(self, host: str = "", pid: int = 0) -> None:
        self.host, self.pid = host, pid

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.host else "another process"


def _holder(descriptor: int) -> _Holder:
    try:
        return _Holder(**json.loads(os.pread(descriptor, 4096, 0) or b"{}"))
    except (ValueError, TypeError):
        return _Holder()


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def refuse_traps(settings: Any) -> None:
    """Refuse settings with which the executor loses jobs or good files (UsageError)."""
    if settings.array_jobs:
        raise UsageError(
            "slurm-array-jobs: tasks of an array are judged by one another's files and states, and "
            "good outputs are deleted; leave it out and raise block_size instead"
        )
    if settings.logdir:
        raise UsageError(
            "slurm-logdir: leave it out; the place of the logs tells to which run a job belongs"
        )
    config = client.settings()
    if settings.status_command == "sacct":
        if config.get("AccountingStorageType") == "accounting_storage/none":
            raise UsageError(
                "slurm-status-command: this cluster keeps no accounts, so sacct never sees a job "
                "end and the run would wait for ever; use squeue"
            )
        raise UsageError(
            "slurm-status-command: with sacct a cancelled job ('CANCELLED by ...') counts as "
            "running for ever; use squeue"
        )
    wanted = 3 * settings.init_seconds_before_status_checks
    age = client.min_job_age(config)
    if age < wanted:
        raise UsageError(
            f"slurm-init-seconds-before-status-checks: {wanted // 3} s is too long here, as squeue "
            f"forgets a job {age} s after its end (MinJobAge); use {max(age // 3, 1)} or less"
        )
