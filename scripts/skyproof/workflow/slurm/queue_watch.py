"""Report why jobs do not start. Snakemake itself waits for pending jobs without a message."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from skyproof.core.errors import EnvironmentProblem
from skyproof.workflow.slurm import client

# Pause between two queries: short if no job runs and the queue has changed, then doubled each time.
_SOON_S, _AT_LAST_S = 5.0, 30.0
_PATIENCE_S = 900.0

# Reasons of ordinary waiting.
_USUAL = ("None", "Priority", "Resources", "Dependency", "BeginTime", "Cleaning", "Prolog")

# Reasons (their first words) for which waiting does not help, and the remedy.
_REMEDIES = {
    "Nodes required": "the nodes are down or drained: wait until they are back, or name others",
    "ReqNodeNotAvail": "the nodes are down, drained or reserved: wait, or name others",
    "PartitionDown": "the partition is closed: name another one in partitions.yaml",
    "PartitionInactive": "the partition is closed: name another one in partitions.yaml",
    "PartitionTimeLimit": "the job's runtime is beyond the partition's: see max_runtime",
    "PartitionNodeLimit": "more nodes than the partition gives: lower nodes in the profile",
    "BadConstraints": "no node has what the job asks: check constraint, mem_mb, gpu_model",
    "InvalidAccount": "set slurm_account in the profile",
    "InvalidQOS": "set qos in the profile",
    "JobHeldUser": "released by: scontrol release JOBID",
    "JobHeldAdmin": "ask the administrators of the cluster",
    "launch failed": "the node could not start it: scontrol release JOBID, or ask for help",
    "Assoc": "a limit of your account is reached",
    "QOS": "a limit of the quality of service is reached",
}


def watch(folder: Path, report: Callable[[str], None]) -> None:
    """Start a thread that queries the queue until this process ends and reports stuck jobs."""
    threading.Thread(target=_look, args=(folder, report), daemon=True, name="pending").start()


def _look(folder: Path, report: Callable[[str], None]) -> None:
    said, pause, moved = "", _SOON_S, time.monotonic()
    before: list[client.QueuedJob] = []
    while True:
        time.sleep(pause)
        try:
            jobs = client.jobs_of(folder)
            text = explain(jobs) and explain(jobs, client.ask("sinfo", "-h", "-R", "-o", "%N: %E"))
        except EnvironmentProblem as error:
            text = f"SLURM does not answer ({error}); jobs go on, the run waits for it"
        else:
            runs = any(job.state == "RUNNING" for job in jobs)
            pause = _SOON_S if jobs != before and not runs else min(2 * pause, _AT_LAST_S)
            before = jobs
            if runs:
                moved = time.monotonic()
            elif not text and time.monotonic() - moved > _PATIENCE_S:
                text = _quiet(jobs)
                moved = time.monotonic()
        if text != said and text:
            report(text)
        said = text


def _quiet(jobs: Sequence[client.QueuedJob]) -> str:
    """Return the message when no job has run for a long time and no reason is known."""
    if jobs:
        return f"jobs that wait for their turn: {len(jobs)} ({jobs[0].reason}); squeue --start"
    return (
        "SLURM has had no job of this run for a while; a submitted job is lost (the controller "
        "crashed): end this process and start it again, which submits the missing jobs"
    )


def explain(jobs: Sequence[client.QueuedJob], nodes: str = "") -> str:
    """Return one line on pending jobs that will not start by waiting; empty if there are none.

    `nodes` are lines "node: reason" of the nodes that are down or drained (`sinfo -R`).
    """
    stuck = Counter(
        job.reason.replace("_", " ")
        for job in jobs
        if job.state == "PENDING" and not job.reason.startswith(_USUAL)
    )
    if not stuck:
        return ""
    reason, _ = stuck.most_common(1)[0]
    remedy = next(
        (text for start, text in _REMEDIES.items() if reason.startswith(start)), "see squeue"
    )
    broken = "; ".join(line.strip() for line in nodes.splitlines() if line.strip())
    where = f" [{broken}]" if broken and "node" in reason.lower() else ""
    count = sum(stuck.values())
    return f"{count} job{'s' if count > 1 else ''} cannot start: {reason}{where}; {remedy}"
