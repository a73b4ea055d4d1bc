"""The runner: complete outputs or none, one-line errors, exit codes, any number of ranks."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from skyproof.core.call import Call, cache_key
from skyproof.core.options import StageOptions
from tests.conftest import (
    LAUNCH_TIMEOUT_S,
    clean_environment,
    launched_without_answer,
    one_line,
    skyproof,
    tree_bytes,
)


def noise(folder: Path, *words: str, ranks: int = 1, **environment: str):
    return skyproof(
        "toy.noise",
        "--out",
        f"record={folder}/block.json",
        *words,
        ranks=ranks,
        toy=True,
        **environment,
    )


def total(folder: Path, *words: str, records: str = "block.json", ranks: int = 1):
    return skyproof(
        "toy.total",
        "--in",
        f"records={folder}/{records}",
        "--out",
        f"total={folder}/total.json",
        f"copy={folder}/copy.npy",
        *words,
        ranks=ranks,
        toy=True,
    )


def visible(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.rglob("*") if path.is_file() and ".journal" not in path.parts
    )


def test_a_block_index_and_a_stage_that_reads_it(tmp_path):
    assert noise(tmp_path).returncode == 0
    assert total(tmp_path).returncode == 0
    assert json.loads((tmp_path / "total.json").read_text())["n"] == 5
    assert visible(tmp_path) == [
        "block.json",
        "copy.npy",
        *[f"item{n}.npy" for n in range(5)],
        "total.json",
    ]


@pytest.mark.mpi
def test_ranks_do_not_change_a_byte(tmp_path):
    for ranks in (1, 2, 3):
        result = noise(tmp_path / str(ranks), "--n-items", "7", ranks=ranks)
        assert result.returncode == 0, result.stderr
    one, two, three = (tree_bytes(tmp_path / name) for name in "123")
    assert one == two == three
    assert len(one) == 8


@pytest.mark.mpi
def test_a_world_of_another_size_is_an_error_with_both_numbers(tmp_path):
    result = skyproof(
        "toy.noise", "--out", f"record={tmp_path}/block.json", "--ranks", "3", toy=True
    )  # without mpiexec: a world of one
    assert result.returncode == 4
    assert "3 ranks" in one_line(result)
    assert "has 1" in one_line(result)
    assert visible(tmp_path) == []


@pytest.mark.mpi
def test_a_launcher_of_another_mpi_family_is_an_error(tmp_path):
    """With PMIx alone, as Open MPI's mpiexec gives it, mpich would end the process with code 16."""
    words = ("toy.noise", "--out", f"record={tmp_path}/block.json", "--ranks", "3")
    result = skyproof(*words, toy=True, PMIX_RANK="0")
    assert result.returncode == 4
    assert "a launcher of another MPI family" in one_line(result)
    assert visible(tmp_path) == []


@pytest.mark.mpi
def test_a_start_of_mpi_that_does_not_end_is_ended(tmp_path):
    words = ("toy.noise", "--out", f"record={tmp_path}/block.json", "--ranks", "2")
    with launched_without_answer() as (variables, launcher, sockets):
        result = skyproof(*words, toy=True, sockets=sockets, **variables)
        assert b"cmd=init" in launcher.recv(100)
    assert result.returncode == 4
    assert "2 ranks did not connect within 1 s" in one_line(result)
    assert visible(tmp_path) == []


@pytest.mark.mpi
def test_mpi_does_not_use_the_provider_that_hangs(tmp_path):
    """With two nodes (here by mpich's own pretence), mpich by itself would take `sockets`."""
    words = ("toy.noise", "--out", f"record={tmp_path}/block.json")
    two_nodes = {"MPIR_CVAR_CH4_NETMOD": "ofi", "MPIR_CVAR_NUM_CLIQUES": "2"}
    result = skyproof(*words, toy=True, ranks=2, MPIR_CVAR_DEBUG_SUMMARY="1", **two_nodes)
    assert result.returncode == 0, result.stderr
    chosen = re.findall(r"libfabric provider: ([^ ]+)", result.stdout + result.stderr)
    assert chosen
    assert "sockets" not in chosen


@pytest.mark.parametrize(
    ("fail", "code", "words"),
    [
        ("input", 3, "sky.fits: holds no sky"),
        ("fault", 1, "a fault of skyproof"),
        ("forget", 1, "did not write its output"),
        ("disk", 4, "sky.fits: No space left on device; free disk space"),
    ],
)
def test_a_failing_stage_leaves_nothing(tmp_path, fail, code, words):
    noise(tmp_path)
    before = visible(tmp_path)
    result = total(tmp_path, "--fail", fail)
    assert result.returncode == code
    assert words in one_line(result)
    assert visible(tmp_path) == before


@pytest.mark.mpi
def test_a_rank_that_fails_alone_ends_the_world(tmp_path):
    result = noise(tmp_path, ranks=2, TOY_FAULT_AT="item1")
    assert result.returncode == 1
    assert "ZeroDivisionError: oops (a fault of skyproof" in one_line(result)
    assert "block.json" not in visible(tmp_path)


@pytest.mark.mpi
def test_a_serial_stage_gives_the_same_bytes_on_several_ranks(tmp_path):
    """The stage does not check the rank: only rank 0 runs it."""
    for ranks in (1, 3):
        noise(tmp_path / str(ranks))
        result = total(tmp_path / str(ranks), ranks=ranks)
        assert result.returncode == 0, result.stderr
    assert tree_bytes(tmp_path / "1") == tree_bytes(tmp_path / "3")


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("fail", "code", "words"),
    [
        ("input", 3, "sky.fits: holds no sky"),
        ("fault", 1, "ZeroDivisionError: oops (a fault of skyproof"),
        ("forget", 1, "did not write its output"),
        ("disk", 4, "sky.fits: No space left on device; free disk space"),
    ],
)
def test_an_error_of_a_serial_stage_ends_all_ranks(tmp_path, fail, code, words):
    noise(tmp_path)
    before = visible(tmp_path)
    result = total(tmp_path, "--fail", fail, ranks=3)
    assert result.returncode == code
    assert words in one_line(result)
    assert "APPLICATION TERMINATED" not in result.stdout + result.stderr  # every rank ended itself
    assert visible(tmp_path) == before


def test_debug_shows_the_traceback(tmp_path):
    noise(tmp_path)
    assert "Traceback" in total(tmp_path, "--fail", "fault", "--debug").stderr


def test_missing_input_is_named(tmp_path):
    result = total(tmp_path, records="absent.json")
    assert result.returncode == 3
    assert "absent.json" in one_line(result)


def test_missing_record_file_is_named(tmp_path):
    noise(tmp_path)
    (tmp_path / "items/item2.npy").unlink()
    result = total(tmp_path)
    assert result.returncode == 3
    assert "item2" in one_line(result)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "block.json: cannot be read: it is empty"),
        ("{", "block.json: cannot be read: invalid JSON"),
        ("[1]", "block.json: cannot be read: input should be an object"),
        ('{"format": "other", "items": {}}', "field format: input should be 'skyproof-record-1'"),
        ('{"format": "skyproof-record-1"}', "field items: field required"),
        (
            '{"format": "skyproof-record-1", "items": {"a": {"info": {}, "files": [{}]}}}',
            "field items.a.files.0.path: field required",
        ),
    ],
)
def test_a_file_that_is_not_a_block_index(tmp_path, content, problem):
    (tmp_path / "block.json").write_text(content)
    result = total(tmp_path)
    assert result.returncode == 3
    assert problem in one_line(result)
    assert "expected a block index (skyproof-record-1)" in one_line(result)


def test_bad_items_are_named_and_the_others_kept(tmp_path):
    result = noise(tmp_path, "--bad", '["item1","item3"]')
    assert result.returncode == 3
    line = one_line(result)
    assert "item1, item3" in line
    assert "other 3 are finished" in line
    assert "field x" in line
    assert "block.json" not in visible(tmp_path)
    assert "item0.npy" in visible(tmp_path)


def test_bad_items_may_be_skipped(tmp_path):
    assert noise(tmp_path, "--bad", '["item1"]', "--skip-bad", "true").returncode == 0
    items = json.loads((tmp_path / "block.json").read_text())["items"]
    assert "is broken" in items["item1"]["info"]["bad"]
    assert items["item1"]["files"] == []
    assert str(tmp_path) not in (tmp_path / "block.json").read_text()


def test_a_killed_block_keeps_what_was_done_and_ends_equal(tmp_path):
    """x03: the stage kills itself at its fourth item; the next attempt does only the rest."""
    noise(tmp_path / "whole")
    killed = noise(tmp_path / "killed", TOY_STOP_AT="item3")
    assert killed.returncode == -signal.SIGKILL
    assert visible(tmp_path / "killed") == ["item0.npy", "item1.npy", "item2.npy"]
    done = modified(tmp_path / "killed/items")
    assert noise(tmp_path / "killed").returncode == 0
    assert tree_bytes(tmp_path / "whole") == tree_bytes(tmp_path / "killed")
    assert done.items() <= modified(tmp_path / "killed/items").items()


def modified(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_rerun_keeps_intact_items_and_redoes_corrupt_ones(tmp_path):
    noise(tmp_path)
    good = tree_bytes(tmp_path)
    (tmp_path / "items/item2.npy").write_bytes(b"x" * (tmp_path / "items/item2.npy").stat().st_size)
    times = modified(tmp_path / "items")
    assert noise(tmp_path).returncode == 0
    assert tree_bytes(tmp_path) == good
    later = modified(tmp_path / "items")
    assert [name for name in times if later[name] != times[name]] == ["item2.npy"]


def test_the_receipt_states_the_wildcards_and_nothing_depends_on_them(tmp_path):
    noise(tmp_path)
    products, times = tree_bytes(tmp_path / "items"), modified(tmp_path / "items")
    assert noise(tmp_path, "--wildcards", "block=00003", "region=north=1").returncode == 0
    receipt = json.loads((tmp_path / ".journal/block.json.receipt.json").read_text())
    assert receipt["run"]["wildcards"] == {"block": "00003", "region": "north=1"}
    assert (tree_bytes(tmp_path / "items"), modified(tmp_path / "items")) == (products, times)


def test_another_option_redoes_every_item(tmp_path):
    noise(tmp_path)
    before = tree_bytes(tmp_path / "items")
    noise(tmp_path, "--scale", "2")
    after = tree_bytes(tmp_path / "items")
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)


def test_full_disk(tmp_path):
    with mounted(tmp_path / "disk", "size=1m") as folder:
        result = noise(folder, "--n-items", "2000")
        assert result.returncode == 4
        assert f"{folder}/items/item" in one_line(result)
        assert "No space left on device; free disk space and start again" in one_line(result)
        assert "block.json" not in visible(folder)
        assert not [name for name in visible(folder) if name.startswith(".tmp")]


def test_read_only_folder(tmp_path):
    with mounted(tmp_path / "frozen", "ro,size=1m") as folder:
        result = noise(folder)
        assert result.returncode == 4
        assert str(folder) in one_line(result)
        assert "Read-only" in one_line(result)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A separate small file system; mounting one needs root."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    stale = tmp_path / f".tmp-{socket.gethostname()}-4194304.block.json"
    stale.write_text("half")
    assert noise(tmp_path).returncode == 0
    assert not stale.exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--n-item", "4"], "did you mean n-items?"),
        (["--n-items", "many"], "valid integer"),
        (["--n-items", "0"], "greater than or equal to 1"),
        (["--scale", "nan"], "finite"),
        (["--n-items"], "needs a value"),
        (["stray"], "'stray': expected name=path"),
        (["--ranks", "0"], "--ranks"),
        (["--out", "recrd=x"], "did you mean record?"),
        (["--wildcards", "block"], "wildcard 'block': expected name=value"),
    ],
)
def test_usage_errors(tmp_path, words, expected):
    result = noise(tmp_path, *words)
    assert result.returncode == 2
    assert expected in one_line(result)


def test_unknown_names_of_stages_and_inputs():
    assert "did you mean toy?" in one_line(skyproof("toi.noise", toy=True))
    assert "did you mean noise?" in one_line(skyproof("toy.noize", toy=True))
    missing = skyproof("toy.total", "--in", "note=x", toy=True)
    assert missing.returncode == 2
    assert "input records is missing" in one_line(missing)


def test_help_names_everything():
    text = skyproof("toy.noise", "--help", toy=True).stdout
    for word in ("block index of the items", "--scale", "[mag]", "default 1.0", "--seed"):
        assert word in text
    overview = skyproof("--help", toy=True).stdout
    assert "toy.total" in overview
    assert "obiwan.train" in overview


def test_files_made_with_an_earlier_cache_key_are_removed(tmp_path):
    assert noise(tmp_path, TOY_EXTRA="yes").returncode == 0
    assert "item0-extra.npy" in visible(tmp_path)
    assert noise(tmp_path, "--scale", "2").returncode == 0
    assert "item0-extra.npy" not in visible(tmp_path)
    assert "item0.npy" in visible(tmp_path)


def test_the_cache_key_counts_device_and_threads_where_they_change_the_result():
    def of(numerics: str = "portable", **call: Any) -> str:
        return cache_key(Call("toy.noise", {}, {}, StageOptions(numerics=numerics), **call), {})

    assert of(device="cpu") != of(device="cuda")
    assert of("native", threads=1) != of("native", threads=2)
    assert of(threads=1) == of(threads=2)  # portable numerics use one
    assert of(ranks=1) == of(ranks=3)
    assert of(wildcards={"block": "00001"}) == of(wildcards={})


def test_a_closed_pipe_is_not_an_error():
    """As with `python -m skyproof ... | head`."""
    reads, writes = os.pipe()
    os.close(reads)
    result = subprocess.run(
        [sys.executable, "-m", "skyproof", "--help"],
        stdout=writes, stderr=subprocess.PIPE, text=True, env=clean_environment(),
        timeout=LAUNCH_TIMEOUT_S, check=False,
    )  # fmt: skip
    os.close(writes)
    assert result.returncode == 141
    assert result.stderr == ""
