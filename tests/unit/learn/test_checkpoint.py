"""Checkpoint files: byte-stable, checked when read, not executed."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from skyproof.core.errors import InputError
from skyproof.learn import checkpoint
from skyproof.learn.checkpoint import Checkpoints
from tests.conftest import launch

LOG = logging.getLogger("test")
TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(3), "c": torch.zeros(0)}
ABOUT = {"format": "kind-1", "z": 1, "bands": "grz"}


def test_what_was_written_is_read(tmp_path: Path):
    checkpoint.write(tmp_path / "a", TENSORS, ABOUT)
    tensors, about = checkpoint.read(tmp_path / "a", "kind-1")
    assert about == ABOUT
    assert all((tensors[name] == TENSORS[name]).all() for name in TENSORS)
    assert {name: t.dtype for name, t in tensors.items()} == {
        n: t.dtype for n, t in TENSORS.items()
    }


def test_bytes_do_not_depend_on_order_or_memory_layout(tmp_path: Path):
    turned = {n: TENSORS[n].T.contiguous().T if n == "b" else TENSORS[n] for n in sorted(TENSORS)}
    checkpoint.write(tmp_path / "a", TENSORS, ABOUT)
    checkpoint.write(tmp_path / "b", turned, dict(reversed(ABOUT.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


class Trap:
    """Unpickling it would leave a folder behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_an_error_and_not_executed(tmp_path: Path):
    torch.save({"state": Trap(tmp_path / "sprung")}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model.pt: cannot be read: .*\.safetensors"):
        checkpoint.read(tmp_path / "model.pt", "kind-1")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("keep", [0, 1, 7, 100, -1])
def test_a_truncated_file_is_an_error(tmp_path: Path, keep: int):
    checkpoint.write(tmp_path / "a", TENSORS, ABOUT)
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:keep])
    with pytest.raises(InputError, match="cannot be read"):
        checkpoint.read(tmp_path / "a", "kind-1")


def test_a_changed_byte_is_an_error(tmp_path: Path):
    checkpoint.write(tmp_path / "a", TENSORS, ABOUT)
    content = bytearray((tmp_path / "a").read_bytes())
    content[-2] ^= 1
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match="has changed since it was written"):
        checkpoint.read(tmp_path / "a", "kind-1")


def test_another_kind_of_file_is_named(tmp_path: Path):
    checkpoint.write(tmp_path / "a", TENSORS, ABOUT)
    with pytest.raises(InputError, match="is kind-1; expected kind-2"):
        checkpoint.read(tmp_path / "a", "kind-2")


def test_the_last_two_are_kept_and_the_newest_is_found(tmp_path: Path):
    kept = Checkpoints(tmp_path, "c", LOG)
    assert kept.newest() is None
    for step in (9, 10, 100):
        kept.save(step, {"a": torch.tensor(step)})
    assert len(list(tmp_path.iterdir())) == 2
    step, tensors = kept.newest()
    assert (step, int(tensors["a"])) == (100, 100)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, caplog):
    kept = Checkpoints(tmp_path, "c", LOG)
    for step in (1, 2):
        kept.save(step, {"a": torch.tensor(step)})
    newest = max(tmp_path.iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    assert kept.newest()[0] == 1
    assert newest.name in caplog.text


def test_what_a_kill_in_the_middle_of_a_write_leaves_is_not_a_checkpoint(tmp_path: Path):
    kept = Checkpoints(tmp_path, "c", LOG)
    kept.save(1, {"a": torch.tensor(1)})
    (tmp_path / ".tmp-host-1.step-000000000002.safetensors").write_bytes(b"half")
    assert kept.newest()[0] == 1


def test_another_configuration_is_an_error(tmp_path: Path):
    Checkpoints(tmp_path, "c" * 64, LOG).save(1, {"a": torch.tensor(1)})
    path = next(tmp_path.iterdir())
    with pytest.raises(InputError, match="checkpoint of another configuration"):
        Checkpoints(tmp_path / "other", "d" * 64, LOG).load(path)


SAVE = """
import logging, os, signal, sys
from pathlib import Path
import torch
from skyproof.learn.checkpoint import Checkpoints

def half(path, data):
    with open(path, "wb") as stream:
        stream.write(data[: len(data) // 2])
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)

checkpoints = Checkpoints(Path(sys.argv[1]), "c", logging.getLogger())
checkpoints.save(1, {"a": torch.arange(1000)})
Path.write_bytes = half
checkpoints.save(2, {"a": torch.arange(1000)})
"""


def test_a_kill_in_the_middle_of_a_write_leaves_the_checkpoint_before_it(tmp_path: Path):
    result = launch([sys.executable, "-c", SAVE, tmp_path])
    assert result.returncode == -signal.SIGKILL
    (half,) = tmp_path.glob(".tmp-*")
    assert 0 < half.stat().st_size < 8000
    checkpoints = Checkpoints(tmp_path, "c", LOG)
    step, tensors = checkpoints.newest()
    assert step == 1
    assert tensors["a"].tolist() == list(range(1000))
    checkpoints.save(2, tensors)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        f"step-{step:012d}.safetensors" for step in (1, 2)
    ]
