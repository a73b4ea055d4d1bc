"""What the Snakemake process that starts jobs (the master) does before the first job.

It ensures that a folder has one master, that no job of an earlier master is left, and that the
SLURM executor has no setting that is known to lose jobs silently. `rules/master.smk` calls
this when a run begins, except for a dry run.
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

_held: dict[Path, int] = {}  # open descriptor of each folder's lock


def take_charge(folder: Path, executor: str, settings: Any, report: Callable[[str], None]) -> None:
    """Make this process the only master of the run in `folder`.

    `executor` and `settings` are Snakemake's; `report` prints a line. Raises UsageError for
    settings that lose jobs, EnvironmentProblem where another master or an unreachable job may
    still write, or where no program can be started from the folder (submit_once.py).
    """
    hold(folder)
    # Jobs inherit the variable, by which an attempt recognises earlier attempts of the same run.
    os.environ[RUN_VARIABLE] = run = uuid.uuid4().hex
    if executor != "slurm":
        return
    check_settings(settings)
    submit_once.install_wrapper(folder, run)
    for job in client.cancel(folder):
        report(f"cancelled job {job.id} ({job.rule}) of an earlier run whose master is gone")
    queue_watch.watch(folder, report)


def hold(folder: Path) -> None:
    """Lock a folder until this process ends in any way.

    Snakemake's own lock remains when its process is killed, and must then be removed by hand.
    Raises EnvironmentProblem if another process holds the lock, or one on another host may hold it.
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
        # This file system has no locks. Use the process number, which is valid on one host.
        if holder.host == socket.gethostname() and _alive(holder.pid):
            os.close(descriptor)
            raise EnvironmentProblem(
                f"{holder} runs this workflow in {folder}; wait for it"
            ) from None
    if holder.host not in ("", socket.gethostname()):
        # On some file systems a lock is valid on one host only.
        os.close(descriptor)
        raise EnvironmentProblem(
            f"{holder} ran this workflow in {folder} and may still run; if not, remove {path}"
        )
    os.ftruncate(descriptor, 0)
    me = {"host": socket.gethostname(), "pid": os.getpid()}
    os.pwrite(descriptor, json.dumps(me).encode(), 0)
    _held[folder] = descriptor


def release() -> None:
    """End a run: none of its waiting jobs will begin, and another host may take the lock."""
    while _held:
        folder, descriptor = _held.popitem()
        submit_once.withdraw_all(folder)
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


class _LockHolder:
    """The process that wrote the lock; the host is empty if there is none."""

    def __init__(self, host: str = "", pid: int = 0) -> None:
        self.host, self.pid = host, pid

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.host else "another process"


def _holder(descriptor: int) -> _LockHolder:
    try:
        return _LockHolder(**json.loads(os.pread(descriptor, 4096, 0) or b"{}"))
    except (ValueError, TypeError):
        return _LockHolder()


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def check_settings(settings: Any) -> None:
    """Raise UsageError for settings with which the executor loses jobs or valid outputs."""
    if (found := wrong_setting(settings)) is not None:
        raise UsageError("; ".join(found))


def wrong_setting(settings: Any) -> tuple[str, str] | None:
    """Return the first such setting with its problem, and the remedy; None if there is none."""
    if settings.array_jobs:
        return (
            "slurm-array-jobs: the executor mixes up files and states of an array's tasks and "
            "deletes valid outputs",
            "leave it out and raise block_size instead",
        )
    if settings.logdir:
        return "slurm-logdir: the folder of the logs identifies the run of a job", "leave it out"
    config = client.settings()
    if settings.status_command == "sacct":
        name = "slurm-status-command"
        if config.get("AccountingStorageType") == "accounting_storage/none":
            return (
                f"{name}: this cluster keeps no accounts, so sacct never shows the end of a job "
                "and the run would wait for ever",
                "use squeue",
            )
        return (
            f"{name}: with sacct a cancelled job ('CANCELLED by ...') counts as running for ever",
            "use squeue",
        )
    wanted = 3 * settings.init_seconds_before_status_checks
    age = client.min_job_age(config)
    if age < wanted:
        return (
            f"slurm-init-seconds-before-status-checks: {wanted // 3} s is too long here, as squeue "
            f"forgets a job {age} s after its end (MinJobAge)",
            f"use {max(age // 3, 1)} or less",
        )
    return None
