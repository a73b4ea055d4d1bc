"""The trainer with float targets and maps: validation, early stopping, schedules, many seeds."""

from __future__ import annotations

import math
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from skyproof.core.errors import InputError, SkyproofError
from skyproof.core.seeds import stream
from skyproof.learn import trainer
from skyproof.learn.history import History
from skyproof.learn.schedule import best_of, learning_rate, plateau_factor, should_stop
from skyproof.learn.settings import Objective, TrainingFiles, TrainingSettings
from skyproof.learn.trainer import SeedMember, fit_members
from tests.conftest import ROOT, launch
from tests.unit.learn import regression
from tests.unit.learn.regression import (
    EVERY,
    OBJECTIVE,
    SETTINGS,
    STEPS_PER_EPOCH,
    TARGETS,
    Call,
    Convolutions,
    errors,
    run,
    stopping_after,
)

PLAIN = replace(SETTINGS, schedule="constant", warmup_steps=0, stop_patience=0, clip_norm=0.0)
PLAIN = replace(PLAIN, n_epochs=1, restore_best=False)


@pytest.fixture(scope="module", params=list(TARGETS))
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def data(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return regression.write_data(tmp_path_factory.mktemp("data"), kind)


@pytest.fixture(scope="module")
def scalar_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return regression.write_data(tmp_path_factory.mktemp("data"), "scalar")


@pytest.fixture(scope="module")
def whole(data: Path, kind: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The products of a training that nothing disturbed."""
    return run(Call(data, tmp_path_factory.mktemp("whole"), kind))


def plain_loss(network: nn.Module, folder: Path) -> float:
    """Return the mean square over all rows of a folder, computed at once."""
    x, y = (
        torch.from_numpy(np.concatenate([np.load(p) for p in sorted(folder.glob(f"{name}*.npy"))]))
        for name in "xy"
    )
    with torch.no_grad():
        return float((network(x) - y).square().mean())


def test_it_learns_stops_early_and_returns_the_best_weights(data: Path, kind: str, tmp_path: Path):
    network, history = Call(data, tmp_path, kind).fit()
    losses = history.valid["loss"]
    assert len(history) < SETTINGS.n_epochs * STEPS_PER_EPOCH
    assert len(history) == history.valid_steps[-1]
    assert should_stop(losses, SETTINGS.stop_patience, SETTINGS.min_delta)
    assert not should_stop(losses[:-1], SETTINGS.stop_patience, SETTINGS.min_delta)
    assert history.best_step < len(history)
    assert min(losses) == pytest.approx(plain_loss(network, data / "valid"), rel=1e-5)
    assert min(losses) < 0.4 * losses[0]  # measured 0.29 (scalar), 0.29 (map)


def test_the_best_weights_are_those_of_the_best_step(scalar_data: Path, tmp_path: Path):
    best, history = Call(scalar_data, tmp_path / "a", every=0).fit()
    assert 0 < history.best_step < len(history)
    n_epochs = history.best_step // STEPS_PER_EPOCH
    short = replace(SETTINGS, n_epochs=n_epochs, restore_best=False, stop_patience=0)
    last, _ = Call(scalar_data, tmp_path / "b", settings=short, every=0).fit()
    pairs = zip(best.state_dict().values(), last.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# Calls of the loss: 3 in a step (2 in an epoch's last), 6 in an evaluation. So 14 is in step 3, 15
# behind it and its checkpoint; 18 between step 4 and its evaluation, 21 within that; 35 behind the
# checkpoint of step 6.
@pytest.mark.parametrize("n_calls", [1, 14, 15, 18, 21, 24, 35, 50, 70, 90])
def test_a_training_that_was_stopped_resumes_to_the_same_bytes(
    data: Path, kind: str, whole: dict[str, bytes], tmp_path: Path, n_calls: int
):
    call = Call(data, tmp_path, kind)
    with pytest.raises(KeyboardInterrupt):
        run(replace(call, objective=stopping_after(n_calls)))
    assert run(call) == whole


def test_a_training_that_had_stopped_early_is_not_continued(
    data: Path, kind: str, whole: dict[str, bytes], tmp_path: Path
):
    call = Call(data, tmp_path, kind)
    assert run(call) == whole
    assert run(replace(call, objective=stopping_after(0))) == whole


@pytest.mark.mpi
def test_any_number_of_ranks_makes_the_same_bytes(tmp_path: Path):
    """Of three ranks one has no micro-batch in an epoch's last step."""
    kind, data = "map", regression.write_data(tmp_path / "data", "map")

    def program(ranks: int, out: Path) -> dict[str, bytes]:
        words = [sys.executable, "-m", "tests.unit.learn.regression", ranks, data, out, kind]
        launcher = [Path(sys.executable).parent / "mpiexec", "-n", ranks] if ranks > 1 else []
        result = launch([*launcher, *map(str, words)], cwd=ROOT, timeout=150)
        assert result.returncode == 0, result.stderr
        products = [out / "model.safetensors", out / "history.csv", *(out / "ckpts/key").iterdir()]
        return {path.name: path.read_bytes() for path in products}

    one = program(1, tmp_path / "1")
    assert program(3, tmp_path / "3") == one
    # Two ranks continue from the checkpoint before the last one of three.
    assert program(2, tmp_path / "2") == one
    max((tmp_path / "3/ckpts/key").iterdir()).unlink()
    for name in ("model.safetensors", "history.csv"):
        (tmp_path / "3" / name).unlink()
    assert program(2, tmp_path / "3") == one


def test_the_tables_have_every_named_number(scalar_data: Path, tmp_path: Path):
    network, history = Call(scalar_data, tmp_path, settings=PLAIN).fit()
    table = history.columns(STEPS_PER_EPOCH)
    names = ["loss", "within", "absolute", "huge"]
    assert list(table) == [
        "step", "epoch", *names, "learning_rate",
        *(f"mean_{name}" for name in names), *(f"valid_{name}" for name in names),
    ]  # fmt: skip
    assert table["huge"] == pytest.approx(1e12 * table["loss"], rel=1e-6)
    known = np.isfinite(table["valid_loss"])
    assert table["step"][known].tolist() == [2, 4, 5]  # the last step is always evaluated
    assert table["valid_huge"][known] == pytest.approx(1e12 * table["valid_loss"][known], rel=1e-6)
    assert table["valid_loss"][-1] == pytest.approx(
        plain_loss(network, scalar_data / "valid"), rel=1e-5
    )
    evaluations = history.evaluations(STEPS_PER_EPOCH)
    assert evaluations["step"].tolist() == [2, 4, 5]
    assert evaluations["epoch"].tolist() == [1, 1, 1]
    assert (evaluations["valid_within"] == table["valid_within"][known]).all()


def test_tensorboard_has_a_scalar_for_every_named_number(scalar_data: Path, tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, history = Call(scalar_data, tmp_path, settings=PLAIN).fit()
    found = EventAccumulator(str(tmp_path / "logs/key"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {
        *OBJECTIVE.names, *(f"valid_{name}" for name in OBJECTIVE.names)
    }  # fmt: skip
    assert [event.step for event in found.Scalars("valid_loss")] == [2, 4, 5]
    assert [e.value for e in found.Scalars("absolute")] == history.steps["absolute"]


def test_further_numbers_of_any_size_change_no_weight(scalar_data: Path, tmp_path: Path):
    def without(outputs: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: value for name, value in errors(outputs, y).items() if name != "huge"}

    def with_nan(outputs: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        return errors(outputs, y) | {"huge": outputs.sum() * math.nan}

    objectives = [
        OBJECTIVE,
        Objective(without, OBJECTIVE.fractions, ("absolute",)),
        Objective(with_nan, OBJECTIVE.fractions, OBJECTIVE.means),
    ]
    found = [
        Call(scalar_data, tmp_path / str(k), settings=PLAIN, objective=objective).fit()
        for k, objective in enumerate(objectives)
    ]
    for network, history in found:
        for a, b in zip(network.parameters(), found[0][0].parameters(), strict=True):
            assert torch.equal(a, b)
        assert history.steps["absolute"] == found[0][1].steps["absolute"]
    assert np.isnan(found[2][1].steps["huge"]).all()


def test_a_loss_that_returns_other_names_is_an_error(scalar_data: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"returned \['absolute', 'huge', 'loss', 'within'\]"):
        Call(scalar_data, tmp_path, settings=PLAIN, objective=Objective(errors)).fit()


def test_a_validation_loss_that_is_not_finite_is_one_line(scalar_data: Path, tmp_path: Path):
    shutil.copytree(scalar_data, tmp_path / "data")
    y = np.load(tmp_path / "data/valid/y1.npy")
    y[3] = 1e30  # finite; its square is not
    np.save(tmp_path / "data/valid/y1.npy", y)
    with pytest.raises(
        SkyproofError, match=r"^the validation loss is (inf|nan) after step 2: "
    ) as found:
        Call(tmp_path / "data", tmp_path, settings=PLAIN).fit()
    assert "\n" not in str(found.value)
    assert found.value.collective


def test_a_bad_validation_row_is_named(scalar_data: Path, tmp_path: Path):
    shutil.copytree(scalar_data, tmp_path / "data")
    x = np.load(tmp_path / "data/valid/x1.npy")
    x[6, 2, 2, 1] = math.nan
    np.save(tmp_path / "data/valid/x1.npy", x)
    with pytest.raises(InputError, match=r"x1.npy, record row 6: holds NaN"):
        Call(tmp_path / "data", tmp_path, settings=PLAIN).fit()


def test_without_a_period_each_epoch_is_evaluated(scalar_data: Path, tmp_path: Path):
    settings = replace(PLAIN, n_epochs=2)
    _, history = Call(scalar_data, tmp_path, settings=settings, every=0).fit()
    assert history.valid_steps == [5, 10]
    assert history.evaluations(STEPS_PER_EPOCH)["epoch"].tolist() == [1, 2]


def test_an_evaluation_changes_no_step(scalar_data: Path, tmp_path: Path):
    evaluated, _ = Call(scalar_data, tmp_path / "a", settings=PLAIN).fit()
    alone, history = Call(scalar_data, tmp_path / "b", settings=PLAIN, valid=False).fit()
    for a, b in zip(evaluated.parameters(), alone.parameters(), strict=True):
        assert torch.equal(a, b)
    assert history.best_step is None
    assert "valid_loss" not in history.columns(STEPS_PER_EPOCH)


def test_micro_batches_accumulate_to_the_gradient_of_the_batch(scalar_data: Path, tmp_path: Path):
    """A batch of all rows, three windows long: its loss is that of the first weights."""
    found = []
    for micro_batch in (36, 5):
        settings = replace(PLAIN, batch=36, micro_batch=micro_batch)
        call = Call(scalar_data, tmp_path / str(micro_batch), settings=settings, assembly=False)
        found.append(call.fit())
    first = plain_loss(Convolutions("scalar"), scalar_data / "train")
    for network, history in found:
        assert history.steps["loss"] == pytest.approx([first], rel=1e-5)
        for a, b in zip(network.parameters(), found[0][0].parameters(), strict=True):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("clip", "moved"), [(1e-3, 1e-3), (0.0, None), (1e6, None)])
def test_the_gradient_is_clipped_to_a_norm(scalar_data: Path, tmp_path: Path, clip, moved):
    """SGD with a rate of 1 moves by the gradient; here its norm is about 2.7 in the first step."""
    settings = replace(PLAIN, batch=36, learning_rate=1.0, clip_norm=clip)
    sgd = partial(torch.optim.SGD, lr=1.0)
    network, _ = Call(scalar_data, tmp_path, settings=settings, optimizer=sgd).fit()
    pairs = zip(network.parameters(), Convolutions("scalar").parameters(), strict=True)
    norm = math.sqrt(sum(float((a - b).detach().square().sum()) for a, b in pairs))
    assert norm == pytest.approx(moved, rel=1e-3) if moved else norm > 0.1


def test_members_of_one_call_are_those_trained_alone(scalar_data: Path, tmp_path: Path):
    """And shards that stay in memory are read once for all of them."""
    shards = regression.read_shards(scalar_data / "train", "scalar", resident=True)
    members = [
        SeedMember(f"seed-{seed}", Convolutions("scalar", seed), partial(stream, seed))
        for seed in (1, 2)
    ]
    files = TrainingFiles(tmp_path / "all", "key", "c")
    words = Call(scalar_data, tmp_path).words()
    histories = fit_members(members, shards, OBJECTIVE, SETTINGS, files, **words)
    assert set(shards.reads.values()) == {1}
    for seed, member, history in zip((1, 2), members, histories, strict=True):
        alone, its_history = Call(scalar_data, tmp_path / str(seed), seed=seed).fit()
        assert history == its_history
        for a, b in zip(member.network.parameters(), alone.parameters(), strict=True):
            assert torch.equal(a, b)
    assert histories[0] != histories[1]
    fresh = [replace(member, network=Convolutions("scalar")) for member in members]
    assert fit_members(fresh, shards, stopping_after(0), SETTINGS, files, **words) == histories


@pytest.mark.parametrize(
    "more", [{"stop_patience": 1}, {"restore_best": True}, {"schedule": "plateau"}]
)
def test_what_needs_validation_rows_is_an_error_without_them(
    scalar_data: Path, tmp_path: Path, more: dict
):
    with pytest.raises(ValueError, match="need validation rows"):
        Call(scalar_data, tmp_path, settings=replace(PLAIN, **more), valid=False).fit()


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(2), nn.Dropout(0.5)])
def test_layers_that_are_not_reproducible_are_errors(layer: nn.Module):
    with pytest.raises(ValueError, match=f"0: {type(layer).__name__} depends on"):
        trainer.check(nn.Sequential(layer), PLAIN, None)


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "stops"),
    [
        ([], 1, 0.0, False),
        ([1.0], 1, 0.0, False),  # the first is always an improvement
        ([1.0, 1.0], 1, 0.0, True),  # equal is none
        ([1.0, 0.9], 1, 0.0, False),
        ([1.0, 0.9], 1, 0.1, True),  # below by more than min_delta, or 0.09999999999999998
        ([1.0, 0.75], 1, 0.25, True),  # exactly by min_delta
        ([1.0, 0.95, 0.89], 2, 0.1, False),  # below the last improvement, not the last loss
        ([1.0, 1.1, 1.2], 3, 0.0, False),
        ([1.0, 1.1, 1.2, 1.0], 3, 0.0, True),
        ([1.0, 1.1, 1.2, 0.5, 0.6], 3, 0.0, False),  # an improvement starts the count again
        ([1.0, 2.0, 3.0, 4.0], 0, 0.0, False),  # patience 0: never
        ([-1.0, -2.0, -1.5], 1, 0.0, True),
    ],
)
def test_the_stopping_rule(losses: list[float], patience: int, min_delta: float, stops: bool):
    assert should_stop(losses, patience, min_delta) is stops


def test_the_first_of_equal_losses_is_the_best():
    assert best_of([3.0, 1.0, 2.0, 1.0]) == 1
    history = History(["loss"])
    for done, loss in ((5, 2.0), (10, 1.0), (15, 1.0)):
        history.add_evaluation(done, {"loss": loss})
    assert history.best_step == 10


def test_a_plateau_is_that_of_torch():
    losses = np.random.default_rng(1).normal(0, 1, 60).cumsum() / 10
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    settings = replace(PLAIN, schedule="plateau", factor=0.5, plateau_patience=2)
    seen = set()
    for n, loss in enumerate(np.abs(losses), 1):  # torch's margin is right for positive losses
        theirs.step(loss)
        seen.add(theirs.get_last_lr()[0])
        found = plateau_factor(settings, np.abs(losses)[:n].tolist())
        assert found == pytest.approx(theirs.get_last_lr()[0])
    assert len(seen) > 3
    assert plateau_factor(PLAIN, [1.0] * 50) == 1.0


@pytest.mark.parametrize(
    ("more", "rates"),
    [
        ({}, [1.0] * 6),
        ({"warmup_steps": 2}, [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ({"schedule": "cosine"}, [1.0, 0.933013, 0.75, 0.5, 0.25, 0.066987]),
        ({"schedule": "cosine", "warmup_steps": 2}, [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
        ({"schedule": "milestones", "milestones": (1, 2)}, [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]),
    ],
)
def test_schedules(more: dict, rates: list[float]):
    settings = TrainingSettings(3, 1, 1, 1.0, **more)
    assert [learning_rate(settings, step, 6) for step in range(6)] == pytest.approx(rates, rel=1e-5)


def test_evaluations_have_the_requested_period(scalar_data: Path, tmp_path: Path):
    _, history = Call(scalar_data, tmp_path).fit()
    assert set(np.diff(history.valid_steps)) == {EVERY}
