"""Bad input is tried once per run; other failures are tried again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from skyproof.core import no_retry
from skyproof.core.errors import EnvironmentProblem, InputError, SkyproofError
from tests.conftest import one_line, skyproof

BAD = InputError("bricks.json", "is broken", record="1126p060")
AGAIN = "(found by an earlier attempt)"


def noise(folder: Path, run: str, *words: str) -> str:
    """Run the toy stage in a workflow run, with a bad item; return its error."""
    result = skyproof(
        "toy.noise", "--out", f"index={folder}/block.json", "--bad", '["item1"]', *words,
        toy=True, SKYPROOF_RUN=run,
    )  # fmt: skip
    assert result.returncode == 3
    return one_line(result)


def test_a_further_attempt_repeats_the_message_without_the_work(tmp_path):
    first = noise(tmp_path, "one")
    assert "item1.txt, field x: is broken" in first
    (tmp_path / "items/item0.npy").unlink()
    assert noise(tmp_path, "one") == f"{first} {AGAIN}"
    assert not (tmp_path / "items/item0.npy").exists()
    # Another run, other options and a call by hand try again.
    assert noise(tmp_path, "two") == first
    assert (tmp_path / "items/item0.npy").exists()
    assert AGAIN not in noise(tmp_path, "two", "--scale", "2")
    assert AGAIN not in noise(tmp_path, "", "--scale", "2")


@pytest.fixture
def output(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(no_retry.RUN_VARIABLE, "one")
    return tmp_path / "block.json"


def test_the_error_keeps_class_message_and_exit_code(output):
    no_retry.note(output, "key", BAD)
    with pytest.raises(InputError) as caught:
        no_retry.raise_again(output, "key")
    assert str(caught.value) == f"{BAD} {AGAIN}"
    assert caught.value.exit_code == 3


def test_another_cache_key_tries_again(output):
    """As if the input was fixed during the run."""
    no_retry.note(output, "key", BAD)
    no_retry.raise_again(output, "another")


@pytest.mark.parametrize(
    "error", [EnvironmentProblem("no disk"), SkyproofError("no number"), MemoryError()]
)
def test_only_bad_input_is_noted(output, error):
    no_retry.note(output, "key", error)
    assert not no_retry.path_of(output).exists()
    no_retry.raise_again(output, "key")


def test_nothing_is_noted_outside_a_run(output, monkeypatch):
    monkeypatch.delenv(no_retry.RUN_VARIABLE)
    no_retry.note(output, "key", BAD)
    assert not no_retry.path_of(output).exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", json.dumps({"run": "one"})])
def test_a_damaged_note_is_ignored(output, content):
    no_retry.path_of(output).parent.mkdir()
    no_retry.path_of(output).write_text(content)
    no_retry.raise_again(output, "key")


def test_a_note_that_cannot_be_written_is_not_an_error(output):
    no_retry.path_of(output).parent.write_text("a file where the folder should be")
    no_retry.note(output, "key", BAD)
