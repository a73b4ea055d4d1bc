"""What is said of a queue in which nothing moves."""

from __future__ import annotations

import pytest

from skyproof.core.errors import EnvironmentProblem
from skyproof.workflow.slurm import client, queue_watch


def job(state: str, reason: str) -> client.QueuedJob:
    return client.QueuedJob("1", state, reason, "obiwan_train")


@pytest.mark.parametrize("reason", ["None", "Priority", "Resources", "BeginTime"])
def test_waiting_for_ones_turn_is_no_news(reason):
    assert queue_watch.explain([job("PENDING", reason), job("RUNNING", "None")]) == ""


def test_the_commonest_reason_is_told_with_its_nodes_and_what_mends_it():
    drained = "Nodes required for job are DOWN, DRAINED or reserved"
    jobs = [job("PENDING", drained), job("PENDING", drained), job("PENDING", "JobHeldUser")]
    assert queue_watch.explain(jobs, "regular[1-2]: broken fan\n") == (
        f"3 jobs cannot start: {drained} [regular[1-2]: broken fan]; the nodes are down or "
        "drained: wait until they are back, or name others"
    )


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("PartitionDown", "1 job cannot start: PartitionDown; the partition is closed"),
        ("launch_failed_requeued_held", "launch failed requeued held; the node could not start it"),
        ("AssocGrpCpuLimit", "AssocGrpCpuLimit; a limit of your account is reached"),
        ("QOSMaxJobsPerUserLimit", "a limit of the quality of service is reached"),
        ("SomethingNew", "1 job cannot start: SomethingNew; see squeue"),
    ],
)
def test_each_reason_is_told_with_what_mends_it(reason, expected):
    """Nodes that are down are named only where the job waits for nodes."""
    line = queue_watch.explain([job("PENDING", reason), job("PENDING", "Priority")], "knl1: disk")
    assert expected in line
    assert "knl1" not in line


def test_a_reason_of_a_job_that_runs_is_none():
    assert queue_watch.explain([job("RUNNING", "PartitionDown")]) == ""


class Over(Exception):
    """Ends the watch, which otherwise goes on as long as its process."""


def watch(monkeypatch, looks) -> tuple[list[str], list[float]]:
    """Return what is told, and the pauses, where the queue is looked at so many times."""
    told, pauses, looks = [], [], iter(looks)
    clock = [0.0]

    def sleep(pause: float) -> None:
        pauses.append(pause)
        clock[0] += pause

    def jobs_of(folder):
        found = next(looks, None)
        if found is None:
            raise Over
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(queue_watch.time, "sleep", sleep)
    monkeypatch.setattr(queue_watch.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(client, "jobs_of", jobs_of)
    monkeypatch.setattr(client, "ask", lambda *words: "")
    with pytest.raises(Over):
        queue_watch._look(None, told.append)
    return told, pauses


def test_a_reason_is_told_once_and_soon(monkeypatch):
    stuck = [job("PENDING", "JobHeldUser")]
    told, pauses = watch(monkeypatch, [stuck, stuck, stuck, stuck])
    assert told == ["1 job cannot start: JobHeldUser; released by: scontrol release JOBID"]
    assert pauses == [5, 5, 10, 20, 30]


def test_a_queue_that_moves_is_looked_at_seldom_and_said_nothing_of(monkeypatch):
    told, pauses = watch(monkeypatch, [[job("RUNNING", "None")]] * 60)
    assert told == []
    assert pauses[-1] == 30


def test_long_waits_and_lost_jobs_are_told(monkeypatch):
    told, _ = watch(monkeypatch, [[job("PENDING", "Priority")]] * 40)
    assert told == ["jobs that wait for their turn: 1 (Priority); squeue --start"]
    told, _ = watch(monkeypatch, [[]] * 40)
    assert len(told) == 1
    assert told[0].startswith("SLURM has had no job of this run for a while")


def test_a_controller_that_does_not_answer_is_told(monkeypatch):
    away = EnvironmentProblem("squeue: Unable to contact slurm controller")
    told, _ = watch(monkeypatch, [away, away, []])
    assert len(told) == 1
    assert "SLURM does not answer (squeue: Unable to contact" in told[0]
