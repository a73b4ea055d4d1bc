"""Queries to SLURM and the interpretation of its answers."""

from __future__ import annotations

import pytest

from skyproof.core.errors import EnvironmentProblem
from skyproof.workflow.slurm import client


def test_a_client_that_is_missing_fails_or_hangs():
    with pytest.raises(EnvironmentProblem, match="no-such-client is not on PATH"):
        client.ask("no-such-client")
    with pytest.raises(EnvironmentProblem, match="sh: the controller is away"):
        client.ask("sh", "-c", "echo >&2 first; echo >&2 the controller is away; exit 1")
    with pytest.raises(EnvironmentProblem, match="sleep did not answer in 0 s"):
        client.ask("sleep", "30", timeout=0.1)


@pytest.mark.parametrize(("value", "seconds"), [("300 sec", 300), ("2", 2), ("", 0), ("INF", 0)])
def test_how_long_squeue_shows_a_job_that_has_ended(value, seconds):
    assert client.min_job_age({"MinJobAge": value}) == seconds


def test_a_job_that_does_not_end_stops_the_run(monkeypatch, tmp_path):
    """Its node does not respond, and its processes may still write."""
    asked = []
    left = client.QueuedJob("7", "COMPLETING", "None", "obiwan_train")
    monkeypatch.setattr(client, "jobs_of", lambda folder: [left])
    monkeypatch.setattr(client, "ask", lambda *words: asked.append(words))
    with pytest.raises(EnvironmentProblem, match=r"jobs 7 of an earlier run .* may still write"):
        client.cancel(tmp_path, patience=0)
    assert asked == [("scancel", "7")]


def test_nothing_is_cancelled_where_there_is_no_job(monkeypatch, tmp_path):
    monkeypatch.setattr(client, "jobs_of", lambda folder: [])
    monkeypatch.setattr(client, "ask", None)
    assert client.cancel(tmp_path) == []
