"""Stage obiwan.train on a small split: learning, resuming after SIGKILL, reproducibility."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from skyproof.learn import checkpoint
from skyproof.obiwan.network import MODEL
from tests.conftest import clean_environment, one_line, skyproof
from tests.processes import below, words_of
from tests.unit.obiwan.build.train import write_split

OPTIONS = {
    "bands": "g",
    "batch": "4",
    "micro-batch": "2",
    "n-epochs": "2",
    "checkpoint-every": "3",
    "seed": "1",
}
STEPS = 2 * 24  # 4 training bricks of 24 stamps
PRODUCTS = ("model.safetensors", "history.csv")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split(tmp_path_factory.mktemp("split"))


def words(index: Path, out: Path, start: Path | None = None, **options: str) -> list[str]:
    given = OPTIONS | {name.replace("_", "-"): value for name, value in options.items()}
    return [
        "obiwan.train", "--in", f"split={index}", *([f"start={start}"] if start else []),
        "--out", f"model={out / PRODUCTS[0]}", f"history={out / PRODUCTS[1]}",
        *(word for name, value in given.items() for word in (f"--{name}", value)),
    ]  # fmt: skip


def products_of(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in PRODUCTS]


@pytest.fixture(scope="module")
def trained(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    result = skyproof(*words(index, out))
    assert result.returncode == 0, result.stderr
    return out


def test_it_learns_in_exactly_n_epochs_and_records_it(trained: Path):
    """o10, and the planted difference: the pixels determine the class."""
    with open(trained / "history.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1))
    assert {int(row["epoch"]) for row in rows} == {1, 2}
    assert np.mean([float(row["accuracy"]) for row in rows[-24:]]) > 0.9  # measured 1.0
    tensors, about = checkpoint.read(trained / "model.safetensors", MODEL)
    assert about == {"format": MODEL, "bands": "g", "pool": "code"}
    assert tensors["layers.0.weight"].shape == (18, 2, 7, 7)
    assert tensors["normalise.scale"].item() == 10.0  # the inverse variance is 100


def test_o13_checkpoints_logs_and_traces_exist(trained: Path):
    """o13."""
    ckpts = [path.name for path in sorted((trained / "ckpts").glob("*/*"))]
    assert ckpts == [f"step-{step:012d}.safetensors" for step in (STEPS - 3, STEPS)]
    assert list((trained / "logs").glob("*/events.out.tfevents.*"))
    (trace,) = (trained / "prof").glob("*/trace.json")
    assert json.loads(trace.read_text())["traceEvents"]


def test_products_hold_no_place_or_time(trained: Path):
    for content in products_of(trained):
        assert str(trained).encode() not in content
        assert str(Path.cwd()).encode() not in content


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_o11_a_training_killed_at_any_step_ends_with_the_same_bytes(
    index: Path, trained: Path, tmp_path: Path, seed: int
):
    """o11: SIGKILL at a random moment, run again: model and history are equal to the bit.

    `trained` lies elsewhere: so this also says that two trainings are equal.
    """
    draw = random.Random(seed)
    first = draw.randrange(3, STEPS - 12, 3)
    process = subprocess.Popen(
        [sys.executable, "-m", "skyproof", *words(index, tmp_path)],
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_step(tmp_path, first, process)
        time.sleep(draw.uniform(0, 0.05))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    assert process.returncode == -signal.SIGKILL
    assert not any((tmp_path / name).exists() for name in PRODUCTS)
    result = skyproof(*words(index, tmp_path))
    assert result.returncode == 0, result.stderr
    assert "resuming after step" in result.stderr
    assert products_of(tmp_path) == products_of(trained)


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 3])
def test_any_number_of_ranks_makes_the_same_bytes(
    index: Path, trained: Path, tmp_path: Path, ranks: int
):
    """A batch has two micro-batches: of three ranks, one only takes part in the sums."""
    result = skyproof(*words(index, tmp_path), ranks=ranks)
    assert result.returncode == 0, result.stderr
    assert products_of(tmp_path) == products_of(trained)


@pytest.mark.mpi
def test_native_numerics_add_in_floats_and_learn_the_same(index: Path, tmp_path: Path):
    result = skyproof(*words(index, tmp_path, numerics="native"), "--threads", "2", ranks=2)
    assert result.returncode == 0, result.stderr
    with open(tmp_path / "history.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert np.mean([float(row["accuracy"]) for row in rows[-24:]]) > 0.9  # measured 1.0


@pytest.mark.mpi
@pytest.mark.slow
def test_a_rank_that_is_killed_ends_all_and_fewer_ranks_go_on_to_the_same_bytes(
    index: Path, trained: Path, tmp_path: Path
):
    mpiexec = Path(sys.executable).parent / "mpiexec"
    process = subprocess.Popen(
        [mpiexec, "-n", "2", sys.executable, "-m", "skyproof", *words(index, tmp_path),
         "--ranks", "2"],
        env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_step(tmp_path, 6, process)
        ranks = [pid for pid in below(process.pid) if b"skyproof" in words_of(pid)[:5]]
        os.kill(ranks[-1], signal.SIGKILL)
        assert process.wait(60) != 0
    finally:
        process.kill()
    assert not any((tmp_path / name).exists() for name in PRODUCTS)
    result = skyproof(*words(index, tmp_path))
    assert result.returncode == 0, result.stderr
    assert "resuming after step" in result.stderr
    assert products_of(tmp_path) == products_of(trained)


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Return once there is a checkpoint of this step or a later one."""
    limit = time.monotonic() + 120
    while not any(
        int(path.stem.removeprefix("step-")) >= step for path in folder.glob("ckpts/*/step-*")
    ):
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_a_changed_option_starts_anew(index: Path, trained: Path, tmp_path: Path):
    (tmp_path / "ckpts").symlink_to(trained / "ckpts")
    before = {path.parent.name for path in trained.glob("ckpts/*/*")}
    result = skyproof(*words(index, tmp_path, n_epochs="1", learning_rate="0.002"))
    assert result.returncode == 0, result.stderr
    assert "resuming after step" not in result.stderr
    new = {path.parent for path in trained.glob("ckpts/*/*") if path.parent.name not in before}
    assert len(new) == 1
    for path in new.pop().iterdir():
        path.unlink()


def test_a_checkpoint_to_start_from_must_be_of_the_same_configuration(
    index: Path, trained: Path, tmp_path: Path
):
    start = min(trained.glob("ckpts/*/*"))  # 3 steps before the end
    result = skyproof(*words(index, tmp_path / "a", start=start))
    assert result.returncode == 0, result.stderr
    assert f"resuming after step {STEPS - 3}" in result.stderr
    assert products_of(tmp_path / "a") == products_of(trained)
    result = skyproof(*words(index, tmp_path / "b", start=start, learning_rate="0.002"))
    assert result.returncode == 3
    assert "is a checkpoint of another configuration" in one_line(result)
    assert not any((tmp_path / "b" / name).exists() for name in PRODUCTS)


def test_a_checkpoint_of_one_thread_cannot_start_two_threads(index: Path, tmp_path: Path):
    """Native numerics: results depend on the threads, so a start with others is an error."""
    native = words(index, tmp_path / "a", numerics="native", n_epochs="1")
    assert skyproof(*native).returncode == 0
    result = skyproof(*native, "--threads", "2")
    assert result.returncode == 0, result.stderr
    assert "resuming after step" not in result.stderr
    start = next((tmp_path / "a").glob("ckpts/*/*"))  # of one thread or of two, not of three
    again = words(index, tmp_path / "b", start=start, numerics="native", n_epochs="1")
    result = skyproof(*again, "--threads", "3")
    assert result.returncode == 3
    assert "expected" in one_line(result)
    assert "device and threads" in one_line(result)


def test_a_split_without_a_training_part_is_an_error(index: Path, tmp_path: Path):
    content = json.loads(index.read_text())
    for item in content["items"].values():
        item["files"] = [file for file in item["files"] if "train_" not in file["path"]]
    changed = index.with_name("no-training-part.json")
    changed.write_text(json.dumps(content))
    result = skyproof(*words(changed, tmp_path))
    assert result.returncode == 3
    assert "has no training part" in one_line(result)


def test_bands_that_are_not_those_of_the_stamps_are_errors(index: Path, tmp_path: Path):
    result = skyproof(*words(index, tmp_path, bands="gr"))
    assert result.returncode == 3
    assert "has shape [16, 64, 64, 2]; expected [n, 64, 64, 4]" in one_line(result)
