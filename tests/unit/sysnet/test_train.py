"""Stage sysnet.train: the same networks for any number of ranks, any blocks, and after kills."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skyproof.core.errors import InputError, SkyproofError, UsageError
from skyproof.sysnet.members.losses import constant_densities, mean_loss
from skyproof.sysnet.members.member import find_members, read_member
from skyproof.sysnet.members.rows import chain_seeds
from tests.conftest import clean_environment, one_line, skyproof
from tests.unit.sysnet.build.table import make_folds
from tests.unit.sysnet.build.train import (
    FEATURES,
    N_FOLDS,
    members_of,
    run_train,
    train_words,
    trend_table,
    write_inputs,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"), keep={"1": [0, 2]})


@pytest.fixture(scope="module")
def trained(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    context = run_train(inputs, out, snapshots="true")
    assert context.notes == {"compiled": False}
    return out


def test_one_member_per_fold_and_chain(trained: Path, inputs: dict[str, Path]):
    """Each has its normalisation, losses, mask and optimiser; padding has no effect."""
    places = find_members([trained / "block-00000.json"])
    seeds = chain_seeds(2)
    assert [(p.fold, p.chain, p.seed) for p in places] == [
        (fold, chain, seeds[chain]) for fold in range(N_FOLDS) for chain in range(2)
    ]
    assert len(members_of(trained)) == 10
    table, folds = trend_table(), make_folds(trend_table(), N_FOLDS)
    for place in places:
        member = read_member(place.path)
        train = table.features[folds.part[:, place.fold] == 0]
        assert member.shift == pytest.approx(train.mean(axis=0))
        assert member.scale == pytest.approx(train.std(axis=0))
        assert member.keep.tolist() == [True, place.fold != 1, True]
        assert (member.state["fc.0.weight"][:, 1] == 0).all() == (place.fold == 1)
        assert len(member.train) == len(member.valid) == len(member.rate) == 4
        assert member.best_epoch == int(np.argmin(member.valid))
        steps = -(-len(train) // 16)
        assert member.training["steps_per_epoch"] == steps
        assert member.n_steps == steps * (member.best_epoch + 1)
        moments = {f"exp_avg.{name}" for name in member.state if "running" not in name}
        assert moments < set(member.optimiser)
        assert member.features == FEATURES


def test_members_learn(inputs: dict[str, Path], tmp_path: Path):
    """Mean validation loss of 10 members against the constant."""
    fast = write_inputs(tmp_path / "in", tuning={"learning_rate": 0.03})
    run_train(fast, tmp_path, n_epochs=30)
    table, folds = trend_table(), make_folds(trend_table(), N_FOLDS)
    gains = []
    for place in find_members([tmp_path / "block-00000.json"]):
        member = read_member(place.path)
        parts = [np.flatnonzero(folds.part[:, place.fold] == part) for part in (0, 1)]
        (label, fracgood), judged = ((table.label[p], table.fracgood[p]) for p in parts)
        constant = np.full(len(parts[1]), constant_densities(label, fracgood)["mle"])
        gains.append(mean_loss("pnll", "poisson", constant, *judged) - member.best_loss)
    assert np.mean(gains) > 0.05  # measured 0.095


@pytest.mark.mpi
def test_s11_three_ranks_give_the_files_of_one(inputs: dict[str, Path], tmp_path: Path):
    """s11: 5 folds, 3 groups; the receipt says that nothing was compiled."""
    for ranks in (1, 3):
        result = skyproof(*train_words(inputs, tmp_path / str(ranks)), ranks=ranks)
        assert result.returncode == 0, result.stderr
    one, three = tmp_path / "1", tmp_path / "3"
    assert len(members_of(one)) == 10
    assert members_of(one) == members_of(three)
    name = "block-00000.json"
    assert (one / name).read_bytes() == (three / name).read_bytes()
    receipt = json.loads((three / f".journal/{name}.receipt.json").read_text())
    assert receipt["notes"] == {"compiled": False}


def test_blocks_of_any_size_give_the_same_members(
    trained: Path, inputs: dict[str, Path], tmp_path: Path
):
    for block in range(2):
        run_train(inputs, tmp_path, block, block_size=2, snapshots="true")
    assert members_of(tmp_path) == members_of(trained)


def test_fewer_chains_are_the_same_chains(trained: Path, inputs: dict[str, Path], tmp_path: Path):
    """The groups have other members, and one group is padded."""
    run_train(inputs, tmp_path, n_chains=1, snapshots="true")
    found = members_of(tmp_path)
    assert len(found) == N_FOLDS
    assert found.items() <= members_of(trained).items()


def test_s12_killed_at_random_epochs_it_ends_with_the_same_members(
    inputs: dict[str, Path], tmp_path: Path
):
    """s12: SIGKILL twice, after a random number of checkpoints of three groups with 20 each."""
    words = train_words(inputs, tmp_path / "a", n_epochs=60, checkpoint_every=3)
    command = [sys.executable, "-m", "skyproof", *words]
    for _ in range(2):
        process = subprocess.Popen(command, env=clean_environment(), stderr=subprocess.PIPE)
        try:
            wait_for_checkpoints(tmp_path / "a", random.randrange(2, 18), process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "a/block-00000.json").exists()
    result = skyproof(*words)
    assert result.returncode == 0, result.stderr
    assert skyproof(*train_words(inputs, tmp_path / "b", n_epochs=60)).returncode == 0
    assert members_of(tmp_path / "a") == members_of(tmp_path / "b")


def wait_for_checkpoints(out: Path, n: int, process: subprocess.Popen) -> None:
    """Wait until the process has written `n` checkpoints, or ended."""
    before = set(out.glob("ckpts/*/*/step-*.safetensors"))
    seen: set[Path] = set()
    deadline = time.monotonic() + 120
    while len(seen - before) < n and process.poll() is None and time.monotonic() < deadline:
        seen.update(out.glob("ckpts/*/*/step-*.safetensors"))
        time.sleep(0.005)


def test_restore_goes_on_from_members(inputs: dict[str, Path], tmp_path: Path):
    """Training continues from the best epoch, with moments and schedule."""
    run_train(inputs, tmp_path / "short", n_epochs=3)
    start = tmp_path / "short/block-00000.json"
    run_train(inputs | {"start": start}, tmp_path / "on", n_epochs=5)
    run_train(inputs, tmp_path / "long", n_epochs=8)
    on, long = members_of(tmp_path / "on"), members_of(tmp_path / "long")
    equal = 0
    for place in find_members([start]):
        before, name = read_member(place.path), place.path.name
        now = read_member(tmp_path / "on/members" / name)
        assert len(now.valid) == before.best_epoch + 1 + 5
        assert now.best_loss <= before.best_loss
        if before.best_epoch == 2:
            assert on[name] == long[name]
            equal += 1
    assert equal > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tuning": {"structure": [4, 5]}}, "another structure, (3, 5); expected (4, 5)"),
        ({"optimiser": "sgd"}, "another optimiser, adamw; expected sgd"),
        ({"model": "dnnps"}, "another model, dnnp; expected dnnps"),
        ({"n_chains": 3}, "has no chain 2 of fold 0"),
    ],
)
def test_members_of_another_kind_cannot_start_a_training(
    trained: Path, inputs: dict[str, Path], tmp_path: Path, options: dict, said: str
):
    """A checkpoint of another structure, model, ...: exit 3, nothing is written."""
    given = dict(options)
    tuning = given.pop("tuning", {})
    files = write_inputs(tmp_path / "in", tuning=tuning) | {"start": trained / "block-00000.json"}
    with pytest.raises(InputError, match=re.escape(said)):
        run_train(files, tmp_path / "out", **given)
    assert not list((tmp_path / "out").glob("*.json"))


def test_a_checkpoint_of_another_structure_ends_the_command(trained: Path, tmp_path: Path):
    """Exit 3 and one line; no incomplete file."""
    files = write_inputs(tmp_path / "in", tuning={"structure": [4, 5]})
    files["start"] = trained / "block-00000.json"
    result = skyproof(*train_words(files, tmp_path / "out"))
    assert result.returncode == 3
    assert "another structure, (3, 5); expected (4, 5)" in one_line(result)
    assert not list((tmp_path / "out").glob("*.json"))


def test_s15_a_feature_without_spread_is_named_unless_it_is_not_in_use(tmp_path: Path):
    """s15."""
    table = trend_table()
    flat = table.features.copy()
    flat[make_folds(table, N_FOLDS).part[:, 2] == 0, 1] = 0.1
    inputs = write_inputs(tmp_path / "a", replace(table, features=flat))
    said = r"feature b: has one value \(0.1\) in all training rows of fold 2"
    with pytest.raises(InputError, match=said):
        run_train(inputs, tmp_path / "out")
    assert not (tmp_path / "out/block-00000.json").exists()
    inputs = write_inputs(tmp_path / "b", replace(table, features=flat), keep={"2": [0, 2]})
    run_train(inputs, tmp_path / "out", n_epochs=1)


def test_s13_a_batch_remainder_of_one_row(inputs: dict[str, Path], tmp_path: Path):
    """s13: 90 training rows in batches of 89."""
    run_train(inputs, tmp_path, batch=89, n_epochs=2)
    for place in find_members([tmp_path / "block-00000.json"]):
        assert np.isfinite(read_member(place.path).train).all()


def test_s14_negative_counts_have_no_logarithm(inputs: dict[str, Path], tmp_path: Path):
    """s14."""
    with pytest.raises(UsageError, match="model dnn with loss pnll"):
        run_train(inputs, tmp_path, model="dnn")


@pytest.mark.parametrize(
    "options",
    [
        {"model": "dnn", "loss": "mse", "weighting": "original", "optimiser": "adam"},
        {"model": "dnnps", "normalisation": "minmax", "scheduler": "none"},
        {"model": "linp", "optimiser": "sgd", "learning_rate": "0.001"},
        {"model": "lin", "loss": "mse", "weight_decay": "0.1"},
    ],
    ids=lambda options: options["model"],
)
def test_options_of_the_original(inputs: dict[str, Path], tmp_path: Path, options: dict):
    run_train(inputs, tmp_path, n_chains=1, n_epochs=2, **options)
    member = read_member(find_members([tmp_path / "block-00000.json"])[0].path)
    assert (member.model, member.normalisation) == (
        options["model"], options.get("normalisation", "z-score")
    )  # fmt: skip
    assert ("hl1.weight" in member.state) == options["model"].startswith("lin")
    assert np.isfinite(member.valid).all()


def test_a_network_that_diverges_is_named(inputs: dict[str, Path], tmp_path: Path):
    """The message has a remedy; nothing is written."""
    steep = write_inputs(tmp_path / "in", tuning={"learning_rate": 1e30})
    with pytest.raises(SkyproofError, match="a smaller learning_rate may help"):
        run_train(steep, tmp_path, optimiser="sgd", weighting="original", loss="mse")
    assert not list(tmp_path.glob("*.json"))


def test_the_block_index_holds_whether_the_step_was_compiled(trained: Path):
    index = json.loads((trained / "block-00000.json").read_text())
    assert {item["info"]["compiled"] for item in index["items"].values()} == {False}


def test_a_block_without_groups_is_an_error(inputs: dict[str, Path], tmp_path: Path):
    with pytest.raises(UsageError, match="block 7 contains none of the 3 groups"):
        run_train(inputs, tmp_path, 7)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("selection", {"keep": {"0": [0]}}, "field keep: fold 1 keeps"),
        ("selection", {"keep": {str(f): [3] for f in range(5)}}, "columns from 0 to 2"),
        ("selection", {"keep": {str(f): [] for f in range(5)}}, "fold 0 keeps"),
        ("selection", {"keep": {"0": ["1"]}}, "field keep.0.0: input should be a valid integer"),
        ("tuning", {"learning_rate": 0.1}, "field structure: field required; expected tuning.json"),
    ],
)
def test_bad_choices_are_errors(tmp_path: Path, name: str, content: dict, said: str):
    inputs = write_inputs(tmp_path / "in")
    inputs[name].write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        run_train(inputs, tmp_path / "out")
