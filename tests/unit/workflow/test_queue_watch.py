"""Reports on a queue in which no job starts."""

from __future__ import annotations

import pytest

from skyproof.core.errors import EnvironmentProblem
from skyproof.workflow.slurm import client, queue_watch


def job(state: str, reason: str) -> client.QueuedJob:
    return client.QueuedJob("1", state, reason, "obiwan_train")


@pytest.mark.parametrize("reason", ["None", "Priority", "Resources", "BeginTime"])
def test_ordinary_waiting_is_not_reported(reason):
    assert queue_watch.explain([job("PENDING", reason), job("RUNNING", "None")]) == ""


def test_the_most_frequent_reason_is_reported_with_nodes_and_remedy():
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
def test_each_reason_is_reported_with_its_remedy(reason, expected):
    """Nodes that are down are named only where the job waits for nodes."""
    line = queue_watch.explain([job("PENDING", reason), job("PENDING", "Priority")], "knl1: disk")
    assert expected in line
    assert "knl1" not in line


def test_the_reason_of_a_running_job_is_not_reported():
    assert queue_watch.explain([job("RUNNING", "PartitionDown")]) == ""


class Over(Exception):
    """Ends the watch, which otherwise runs as long as its process."""


def watch(monkeypatch, answers) -> tuple[list[str], list[float]]:
    """Return the messages and the pauses for a sequence of answers to the queries."""
    reported, pauses, answers = [], [], iter(answers)
    clock = [0.0]

    def sleep(pause: float) -> None:
        pauses.append(pause)
        clock[0] += pause

    def jobs_of(folder):
        found = next(answers, None)
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
        queue_watch._look(None, reported.append)
    return reported, pauses


def test_a_reason_is_reported_once_and_soon(monkeypatch):
    stuck = [job("PENDING", "JobHeldUser")]
    reported, pauses = watch(monkeypatch, [stuck, stuck, stuck, stuck])
    assert reported == ["1 job cannot start: JobHeldUser; released by: scontrol release JOBID"]
    assert pauses == [5, 5, 10, 20, 30]


def test_a_queue_that_moves_is_queried_rarely_and_not_reported(monkeypatch):
    reported, pauses = watch(monkeypatch, [[job("RUNNING", "None")]] * 60)
    assert reported == []
    assert pauses[-1] == 30


def test_long_waits_and_lost_jobs_are_reported(monkeypatch):
    reported, _ = watch(monkeypatch, [[job("PENDING", "Priority")]] * 40)
    assert reported == ["jobs that wait for their turn: 1 (Priority); squeue --start"]
    reported, _ = watch(monkeypatch, [[]] * 40)
    assert len(reported) == 1
    assert reported[0].startswith("SLURM has had no job of this run for a while")


def test_a_controller_that_does_not_answer_is_reported(monkeypatch):
    away = EnvironmentProblem("squeue: Unable to contact slurm controller")
    reported, _ = watch(monkeypatch, [away, away, []])
    assert len(reported) == 1
    assert "SLURM does not answer (squeue: Unable to contact" in reported[0]
