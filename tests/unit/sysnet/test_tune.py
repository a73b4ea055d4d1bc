"""Stage sysnet.tune: searches whose results the training of the same run uses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from skyproof.core.errors import UsageError
from skyproof.core.stage import Context
from skyproof.sysnet import tune
from skyproof.sysnet.members.rows import read_tuning
from skyproof.sysnet.options import Tune
from tests.unit.sysnet.build.train import run_train, write_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def run_tune(inputs: dict[str, Path], out: Path, **options: object) -> dict:
    given = {"structure": (3, 5), "batch": 16, "n_epochs": 2, "group_size": 20} | options
    own = Tune(**given)
    context = Context("sysnet.tune", seed=own.seed, cache_key="r")
    found = out / "tuning.json"
    tune.run(SimpleNamespace(**inputs), SimpleNamespace(tuning=found), own, context)
    return json.loads(found.read_text())


def test_without_a_search_it_holds_the_configuration(inputs: dict[str, Path], tmp_path: Path):
    found = run_tune(inputs, tmp_path, learning_rate=0.02, l1_alpha=0.5)
    assert found == {"learning_rate": 0.02, "structure": [3, 5], "l1_alpha": 0.5, "scans": {}}


def test_all_searches_in_turn(inputs: dict[str, Path], tmp_path: Path):
    found = run_tune(inputs, tmp_path, find_lr=True, find_structure=True, find_l1=True)
    scans = found["scans"]
    rates = scans["learning_rate"]
    assert len(rates["lr"]) == len(rates["loss"]) == len(rates["smoothed"]) > 100
    assert found["learning_rate"] == rates["suggestion"] > 1e-6
    structures = scans["structure"]
    assert [row["structure"] for row in structures] == [[n, 5] for n in (3, 4, 5, 6)]
    best = min(structures, key=lambda row: row["valid"])
    assert found["structure"] == best["structure"]
    alphas = [row["l1_alpha"] for row in scans["l1"]]
    assert alphas == [-1.0, *(pytest.approx(10.0**k) for k in range(-8, 2))]
    assert found["l1_alpha"] == min(scans["l1"], key=lambda row: row["valid"])["l1_alpha"]
    assert len({row["valid"] for row in scans["l1"]}) > 3  # the weight does something
    again = run_tune(inputs, tmp_path, find_lr=True, find_structure=True, find_l1=True)
    assert again == found


def test_training_uses_what_was_found(inputs: dict[str, Path], tmp_path: Path):
    """In the same run: the original prints its findings and exits."""
    run_tune(inputs, tmp_path, find_structure=True, find_l1=True)
    tuned = inputs | {"tuning": tmp_path / "tuning.json"}
    run_train(tuned, tmp_path / "train", structure="[3,9]", n_chains=1, n_epochs=1)
    from skyproof.sysnet.members.member import find_members, read_member

    member = read_member(find_members([tmp_path / "train/block-00000.json"])[0].path)
    assert member.structure == read_tuning(tuned["tuning"])[1] != (3, 9)


def test_a_linear_model_has_no_structure(inputs: dict[str, Path], tmp_path: Path):
    with pytest.raises(UsageError, match="model linp has no hidden layers"):
        run_tune(inputs, tmp_path, model="linp", find_structure=True)


def test_candidates_without_a_loss_are_skipped():
    rows = [{"x": 1, "valid": None}, {"x": 2, "valid": -3.0}, {"x": 3, "valid": -3.0}]
    assert tune.best(rows, "x") == 2
    with pytest.raises(UsageError, match="search for x"):
        tune.best(rows[:1], "x")
