"""`python -m skyproof plan`: estimated cost of a run, from the dry run of the real workflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, one_line, skyproof

pytestmark = pytest.mark.workflow

SURVEY = ROOT / "docs/configs/survey.yaml"


def plan(folder: Path, *words: str | Path) -> dict:
    folder.mkdir(exist_ok=True)
    result = skyproof("plan", "--json", "--directory", folder, *words, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_survey_of_sixty_million_stamps_is_some_thousand_jobs_of_minutes(tmp_path):
    """On the cluster's profile; how long planning takes is a benchmark (benchmarks/planning.py)."""
    made = plan(tmp_path, "--profile", "slurm", "--configfile", SURVEY)
    rows = {row["rule"]: row for row in made["rows"]}
    assert rows["obiwan_simulate"]["jobs"] == rows["obiwan_split"]["jobs"] == 391
    assert 60 < rows["obiwan_simulate"]["hours"] * 3600 < 3600
    assert {row["basis"] for row in made["rows"]} == {"estimate"}
    assert rows["obiwan_cutouts"]["partition"] == "regular"
    assert (rows["obiwan_cutouts"]["nodes"], rows["obiwan_cutouts"]["ranks"]) == (2, 4)
    # 60 million stamps of 98 kB, of which two thirds pass the cuts.
    assert 3_000 < rows["obiwan_cutouts"]["disk_gb"] < 6_000
    assert made["chain_hours"] <= made["until_done_hours"]
    # A hundred nodes do not help a training by one job on two ranks: the plan states this.
    assert any(text.startswith("obiwan_train") for text in made["warnings"])


def test_a_gpu_changes_the_plan_and_is_counted(tmp_path):
    words = ("device=cuda", "gpu=1", "tasks=1", "nodes=1", "mpi=''")
    set_words = ("--set-resources", *(f"obiwan_train:{word}" for word in words))
    made = plan(tmp_path, "--profile", "slurm", *set_words)
    rows = {row["rule"]: row for row in made["rows"]}
    assert rows["obiwan_train"]["partition"] == "gpu"
    assert rows["obiwan_train"]["gpu_hours"] > 0
    assert sum(row["gpu_hours"] for row in made["rows"]) == rows["obiwan_train"]["gpu_hours"]


def test_the_bytes_of_a_larger_run_are_estimated_from_a_finished_one(tiny, tmp_path):
    """Most of its jobs are too short for a rate; every stage's benchmark and receipt match."""
    made = plan(tmp_path, "--rates", tiny, "--config", "systems=[obiwan]")
    rows = {row["rule"]: row for row in made["rows"]}
    manifest = rows.pop("manifest")
    assert manifest["disk_basis"] == "estimate"
    assert {row["disk_basis"] for row in rows.values()} == {"measured"}
    estimated = {row["rule"]: row for row in plan(tmp_path, "--config", "systems=[obiwan]")["rows"]}
    for rule in ("obiwan_simulate", "obiwan_cutouts", "obiwan_split"):
        assert 0.3 < rows[rule]["disk_gb"] / estimated[rule]["disk_gb"] < 3


def test_what_is_done_is_not_planned_again(tiny):
    result = skyproof("plan", "--directory", tiny, "--configfile", tiny / "mine.yaml")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Nothing to be done")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--profile", "slum"), "no profile.yaml"),
        (("--config", "seeed=3"), "seeed: unknown name; did you mean seed?"),
        (("--rates", "nowhere"), "--rates nowhere: holds no logs/benchmarks"),
        (("no_such_target",), "No rule to produce no_such_target"),
    ],
)
def test_invalid_arguments_are_reported_in_one_line(tmp_path, words, message):
    result = skyproof("plan", "--directory", tmp_path, *words)
    assert result.returncode == 2
    assert message in one_line(result)
