"""What is asked of SLURM, and what is said of jobs that cannot start."""

from __future__ import annotations

import pytest

from skyproof.core.errors import EnvironmentProblem
from skyproof.workflow import slurm
from skyproof.workflow.pending import explain


def job(reason: str, state: str = "PENDING") -> slurm.Job:
    return slurm.Job("7", state, reason, "obiwan_train")


@pytest.mark.parametrize(
    "jobs",
    [
        [],
        [job("None"), job("Priority"), job("Resources"), job("BeginTime")],
        [job("PartitionDown", "RUNNING")],
    ],
)
def test_a_queue_that_moves_needs_no_word(jobs):
    assert explain(jobs, "knl1: broken") == ""


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("PartitionDown", "1 job cannot start: PartitionDown; the partition is closed"),
        ("JobHeldUser", "1 job cannot start: JobHeldUser; released by: scontrol release JOBID"),
        ("launch_failed_requeued_held", "launch failed requeued held; the node could not start it"),
        ("AssocGrpCpuLimit", "AssocGrpCpuLimit; a limit of your account is reached"),
        ("QOSMaxJobsPerUserLimit", "a limit of the quality of service is reached"),
        ("SomethingNew", "1 job cannot start: SomethingNew; see squeue"),
    ],
)
def test_a_job_that_waits_for_ever_is_told_with_what_mends_it(reason, expected):
    assert expected in explain([job(reason), job("Priority")])


def test_the_most_frequent_reason_is_told_with_the_nodes_that_are_broken():
    down = "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved"
    line = explain([job("JobHeldUser"), job(down), job(down)], "knl1: disk\nknl2: fan\n")
    assert line.startswith("3 jobs cannot start: Nodes required for job are DOWN")
    assert "[knl1: disk; knl2: fan]; the nodes are down or drained" in line
    assert "knl1" not in explain([job("JobHeldUser")], "knl1: disk")


def test_a_client_that_is_missing_fails_or_hangs():
    with pytest.raises(EnvironmentProblem, match="no-such-client is not on PATH"):
        slurm.ask("no-such-client")
    with pytest.raises(EnvironmentProblem, match="sh: the controller is away"):
        slurm.ask("sh", "-c", "echo >&2 first; echo >&2 the controller is away; exit 1")
    with pytest.raises(EnvironmentProblem, match="sleep did not answer in 0 s"):
        slurm.ask("sleep", "30", timeout=0.1)


@pytest.mark.parametrize(("value", "seconds"), [("300 sec", 300), ("2", 2), ("", 0), ("INF", 0)])
def test_how_long_squeue_shows_a_job_that_has_ended(value, seconds):
    assert slurm.min_job_age({"MinJobAge": value}) == seconds


def test_a_job_that_does_not_end_stops_the_run(monkeypatch, tmp_path):
    """Its node is out of reach, and its processes may still write."""
    asked = []
    monkeypatch.setattr(slurm, "jobs_of", lambda folder: [job("None", "COMPLETING")])
    monkeypatch.setattr(slurm, "ask", lambda *words: asked.append(words))
    with pytest.raises(EnvironmentProblem, match=r"jobs 7 of an earlier run .* may still write"):
        slurm.cancel(tmp_path, patience=0)
    assert asked == [("scancel", "7")]


def test_nothing_is_cancelled_where_there_is_no_job(monkeypatch, tmp_path):
    monkeypatch.setattr(slurm, "jobs_of", lambda folder: [])
    monkeypatch.setattr(slurm, "ask", None)
    assert slurm.cancel(tmp_path) == []
