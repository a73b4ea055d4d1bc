"""A cluster with accounting: jobs are charged to the account of the profile, or rejected."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import Cluster, examine, running, wait_for
from tests.conftest import ROOT
from tests.workflow.conftest import root_of

pytestmark = [pytest.mark.workflow, pytest.mark.slow]


@pytest.fixture(scope="module")
def keeping_accounts() -> Iterator[Cluster]:
    with running(ACCOUNTS="1") as found:
        yield found


def profile(folder: Path, account: str) -> Path:
    """Copy the profile, with an account."""
    shutil.copytree(ROOT / "profiles/slurm", folder)
    words = yaml.safe_load((folder / "config.yaml").read_text())
    words["default-resources"]["slurm_account"] = account
    (folder / "config.yaml").write_text(yaml.safe_dump(words))
    return folder


def charged(cluster: Cluster) -> list[list[str]]:
    """Return account, state and rule of each job, as the accounts have them by now."""
    lines = cluster.ask("sacct", "-X", "-n", "-P", "-o", "Account,State,Comment").splitlines()
    return [[word.split()[0] if word else "" for word in line.split("|")] for line in lines]


def test_doctor_sends_its_jobs_to_the_account_and_names_a_wrong_one(keeping_accounts, tmp_path):
    code, lines = examine(
        keeping_accounts, profile(tmp_path / "right", "research"), tmp_path / "first"
    )
    assert code == 0, lines
    assert lines["status"].startswith("ok accounts are kept")
    assert "18 kinds of job" in lines["jobs"]
    one_each = [["research", "COMPLETED", ""]] * 3
    wait_for(lambda: charged(keeping_accounts) == one_each, "job on each kind of node", pause=0.5)
    code, lines = examine(keeping_accounts, profile(tmp_path / "wrong", "other"), tmp_path / "run")
    assert code == 4
    failed = {what: text for what, text in lines.items() if text.startswith("fail")}
    assert "jobs of all rules" in failed
    rejected = failed.pop("jobs of all rules")
    assert "Invalid account" in rejected
    assert "correct slurm_account in the profile" in rejected
    assert set(failed) == {f"job on {name}" for name in ("regular", "knl", "gpu")}


def test_a_run_is_charged_to_its_account(keeping_accounts, tiny, unevaluated, tmp_path):
    """Also the job that replaces a cancelled one."""
    words = profile(tmp_path / "profile", "research")
    master = keeping_accounts.start(unevaluated, profile=str(words))
    keeping_accounts.ask("scancel", keeping_accounts.running(unevaluated, "obiwan_evaluate"))
    code, output = keeping_accounts.end(master)
    assert code == 0, output
    assert "failed, SLURM status is: 'CANCELLED'" in output
    jobs = [["research", state, "rule_obiwan_evaluate"] for state in ("CANCELLED", "COMPLETED")]
    wait_for(
        lambda: [job for job in charged(keeping_accounts) if job[2] == jobs[0][2]] == jobs,
        "accounts of both jobs",
        pause=0.5,
    )
    assert root_of(unevaluated) == root_of(tiny)
