"""One master per folder, after any end of an earlier one; no setting that loses jobs."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from skyproof.core.errors import EnvironmentProblem, UsageError
from skyproof.core.no_retry import RUN_VARIABLE
from skyproof.workflow.slurm import client, master
from tests.conftest import clean_environment

HOLD = """
import sys
from pathlib import Path
from skyproof.workflow.slurm import master
master.hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def nothing_stays_held(monkeypatch) -> Iterator[None]:
    monkeypatch.setenv(RUN_VARIABLE, "")  # taken back at the end
    yield
    master.release()


@pytest.fixture
def other(tmp_path) -> Iterator[subprocess.Popen[str]]:
    """A running process that has locked the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], env=clean_environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_master_is_an_error_and_the_lock_ends_with_a_kill(other, tmp_path):
    words = f"process {other.pid} on {socket.gethostname()} runs this workflow in {tmp_path}"
    for _ in range(2):  # the first failure must not have taken or emptied the lock
        with pytest.raises(EnvironmentProblem, match=words):
            master.hold(tmp_path)
    other.kill()
    other.wait(30)
    master.hold(tmp_path)
    assert json.loads((tmp_path / master.LOCK).read_text())["pid"] == os.getpid()


def test_the_lock_is_released_at_the_end_of_a_run(tmp_path):
    master.hold(tmp_path)
    with pytest.raises(EnvironmentProblem, match=f"process {os.getpid()} on"):
        master.hold(tmp_path)
    master.release()
    assert (tmp_path / master.LOCK).read_text() == ""
    master.hold(tmp_path)


def test_locks_of_folders_are_independent(tmp_path):
    master.hold(tmp_path / "one")
    master.hold(tmp_path / "two")


@pytest.mark.parametrize("content", ["{", "[]", '{"host": 1, "more": 2}'])
def test_an_invalid_lock_file_is_taken_over(tmp_path, content):
    write_lock(tmp_path, content)
    master.hold(tmp_path)


def test_a_master_of_another_host_must_be_checked_by_the_user(tmp_path):
    """Its lock may not be visible here; a regular end empties the file, a kill does not."""
    write_lock(tmp_path, json.dumps({"host": "login7", "pid": 12}))
    with pytest.raises(EnvironmentProblem, match=r"process 12 on login7 .* if not, remove"):
        master.hold(tmp_path)
    (tmp_path / master.LOCK).unlink()
    master.hold(tmp_path)


def test_where_files_cannot_be_locked_the_process_number_decides(tmp_path, monkeypatch):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    gone = subprocess.Popen(["true"])
    gone.wait(30)
    write_lock(tmp_path, json.dumps({"host": socket.gethostname(), "pid": gone.pid}))
    master.hold(tmp_path)
    with pytest.raises(EnvironmentProblem, match=f"process {os.getpid()} on"):
        master.hold(tmp_path)


def write_lock(folder: Path, content: str) -> None:
    path = folder / master.LOCK
    path.parent.mkdir(parents=True)
    path.write_text(content)


def test_every_run_has_a_unique_name_and_a_local_one_does_not_query_slurm(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "ask", None)
    names = set()
    for folder in "ab":
        master.take_charge(tmp_path / folder, "local", None, print)
        names.add(os.environ[RUN_VARIABLE])
    assert len(names) == 2


SOUND = {
    "array_jobs": None,
    "logdir": None,
    "status_command": "squeue",
    "init_seconds_before_status_checks": 100,
}


@pytest.mark.parametrize(
    ("changed", "accounts", "expected"),
    [
        ({"array_jobs": "all"}, "slurmdbd", "slurm-array-jobs: .* deletes valid outputs"),
        ({"logdir": Path("logs")}, "slurmdbd", "slurm-logdir: the folder of the logs"),
        ({"status_command": "sacct"}, "none", "slurm-status-command: .* keeps no accounts"),
        ({"status_command": "sacct"}, "slurmdbd", "a cancelled job .* counts as running for ever"),
        ({"init_seconds_before_status_checks": 101}, "none", "101 s is too long .* use 100"),
    ],
)  # fmt: skip
def test_settings_that_lose_jobs_are_errors(monkeypatch, changed, accounts, expected):
    config = {"AccountingStorageType": f"accounting_storage/{accounts}", "MinJobAge": "300 sec"}
    monkeypatch.setattr(client, "settings", lambda: config)
    master.check_settings(SimpleNamespace(**SOUND))
    with pytest.raises(UsageError, match=expected):
        master.check_settings(SimpleNamespace(**SOUND | changed))
