"""Says why nothing moves: Snakemake itself waits for pending jobs without a word."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from skyproof.core.errors import EnvironmentProblem
from skyproof.workflow.slurm import client

# Between two looks: short where nothing runs and the queue has changed, then twice as long each.
_SOON_S, _AT_LAST_S = 5.0, 30.0
_PATIENCE_S = 900.0

# What a queue does all day: waits for other people's jobs.
_USUAL = ("None", "Priority", "Resources", "Dependency", "BeginTime", "Cleaning", "Prolog")

# Beginnings of reasons that do not go away by waiting, and what mends them.
_MENDS = {
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
    "JobHeldAdmin": "ask who runs the cluster",
    "launch failed": "the node could not start it: scontrol release JOBID, or ask who runs it",
    "Assoc": "a limit of your account is reached",
    "QOS": "a limit of the quality of service is reached",
}


def watch(folder: Path, tell: Callable[[str], None]) -> None:
    """Look at the queue now and then, as long as this process lives, and tell what is stuck."""
    threading.Thread(target=_look, args=(folder, tell), daemon=True, name="pending").start()


def _look(folder: Path, tell: Callable[[str], None]) -> None:
    said, pause, moved = "", _SOON_S, time.monotonic()
    before: list[client.Job] = []
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
            tell(text)
        said = text


def _quiet(jobs: Sequence[client.Job]) -> str:
    """Return what to say when for long nothing has run and no reason was given."""
    if jobs:
        return f"jobs that wait for their turn: {len(jobs)} ({jobs[0].reason}); squeue --start"
    return (
        "SLURM has known no job of this run for a while; if one was sent, it is lost (a controller "
        "that crashed): end this process and start it again, which sends what is missing"
    )


def explain(jobs: Sequence[client.Job], nodes: str = "") -> str:
    """Return one line on pending jobs that waiting alone does not start; empty if there are none.

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
    mend = next((text for start, text in _MENDS.items() if reason.startswith(start)), "see squeue")
    broken = "; ".join(line.strip() for line in nodes.splitlines() if line.strip())
    where = f" [{broken}]" if broken and "node" in reason.lower() else ""
    count = sum(stuck.values())
    return f"{count} job{'s' if count > 1 else ''} cannot start: {reason}{where}; {mend}"
