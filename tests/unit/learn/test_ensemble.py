"""The batched ensemble: members are independent, and a resumed training gives the same bits."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from skyproof.learn.checkpoint import Checkpoints
from skyproof.learn.ensemble import compiled
from skyproof.learn.ensemble.rows import EnsembleRows
from skyproof.learn.ensemble.shape import Shape
from tests.unit.learn.build import (
    LOG,
    bits,
    fit,
    gaussian,
    make_group,
    make_member,
    make_rows,
    poisson,
)

BLAZAR = Shape((3, 7, 5, 2), norm="before", dropout=(0.2, 0.1))
ROWS = make_rows()


def test_it_learns():
    rows = make_rows(600)
    (found,) = fit([make_member(1, rows, 400, 100, learning_rate=0.02)], n_epochs=20)
    own = np.random.default_rng(1).permutation(600)
    train, valid = own[:400], own[400:500]
    constant = rows.y[train].sum() / rows.weight[train].sum()
    expected = constant * rows.weight[valid]
    loss = (rows.weight[valid] * (expected - rows.y[valid] * np.log(expected))).mean()
    best = found.valid[found.best_epoch]
    assert best == found.valid.min() < loss - 0.1  # measured: -0.593, and -0.366 for the constant


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"schedule": "plateau", "patience": 0, "optimiser": "sgd", "mean": False},
        {"shape": BLAZAR, "loss": gaussian, "optimiser": "adam", "stop_after": 1},
    ],
    ids=["sysnet", "sgd", "blazar"],
)
def test_a_member_does_not_depend_on_other_members(case: dict):
    """Other companions, another order, an unfilled group; members of unequal numbers of rows."""
    members = [
        make_member(k, ROWS, 80 - 7 * k, 20 - k, learning_rate=0.01 * (k + 1), l1=1e-3 * k)
        for k in range(5)
    ]
    members[3] = replace(members[3], rows=make_rows(seed=2), keep=np.array([True, False, True]))
    trained = [bits(found) for group in (members[:3], members[3:]) for found in fit(group, **case)]
    assert len({found["state weight.0"] for found in trained}) == 5
    for order in ([4, 3, 2], [1, 0], [3, 1, 4], [2]):
        again = fit([members[k] for k in order], **case)
        for k, found in zip(order, again, strict=True):
            assert bits(found) == trained[k], (k, order)


def test_a_step_without_rows_leaves_a_member_as_it_is():
    """Members of 16 and 48 rows in steps of 16: the first has nothing to do in two of three."""
    group = make_group([make_member(1, ROWS, 16), make_member(2, ROWS, 48)])
    seen = []
    for counts, batch in group.batches():
        before = {name: value[0].clone() for name, value in group._moving().items()}
        group.take_step(batch, np.full(3, 0.01), counts > 0)
        same = all(torch.equal(before[name], value[0]) for name, value in group._moving().items())
        seen.append((int(counts[0]), same))
    assert seen == [(16, False), (0, True), (0, True)]


def test_s13_a_remainder_of_one_row_is_left_out_of_the_epoch():
    """s13: batch normalisation of one row fails in the original; a linear network uses it."""
    members = [make_member(1, ROWS, 33)]
    counts = [int(c[0]) for c, _ in make_group(members).batches()]
    assert counts == [16, 16]
    (found,) = fit(members)
    assert np.isfinite(found.train).all()
    assert all(value.isfinite().all() for value in found.state.values())
    linear = make_group(members, shape=Shape((3, 1), norm="none"))
    assert [int(c[0]) for c, _ in linear.batches()] == [16, 16, 1]
    left_out = []
    group = make_group(members)
    for _ in range(3):
        used = {float(v) for _, b in group.batches() for v in b.x[0, :, 0]}
        left_out.append({float(v) for v in ROWS.x[members[0].train, 0]} - used)
        group.epoch += 1
    assert all(len(rows) == 1 for rows in left_out)
    assert len(set.union(*left_out)) > 1


def test_reported_losses_are_of_all_rows():
    """The training loss is the mean of weighted row losses while the weights move."""
    group = make_group([make_member(1, ROWS, 60, 30, learning_rate=1e-9)], n_epochs=1)
    member = group.members[0]
    total = 0.0
    for _, batch in group.batches():
        found = group.step(group.parameters, batch)
        total += float(found.loss[0])
    group.run_epoch()
    assert float(group.history[0, 0, 0]) == pytest.approx(total / 60, abs=1e-6)
    x = torch.from_numpy(ROWS.x[member.valid])[None].expand(3, -1, -1)
    y, weight = (torch.from_numpy(v[member.valid]) for v in (ROWS.y, ROWS.weight))
    from skyproof.learn.ensemble.network import outputs_of

    outputs = outputs_of(group.settings.shape, torch.bmm, group.parameters, group.statistics, x)
    expected = float((poisson(outputs, y, weight)[0] * weight).sum() / 30)
    assert float(group.history[1, 0, 0]) == pytest.approx(expected, abs=1e-6)


CHANGING = {
    "sysnet": {"snapshots": True, "first_cycle": 1, "cycle_growth": 1},
    "blazar": {
        "shape": BLAZAR, "loss": gaussian, "optimiser": "adam", "schedule": "plateau",
        "patience": 0, "stop_after": 2,
    },
    "sgd": {"optimiser": "sgd", "mean": False},
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGING)
def test_a_resumed_training_gives_the_same_bits(name: str, tmp_path: Path):
    """Stopped after any epoch, checkpoints every second one."""
    case = CHANGING[name] | {"n_epochs": 6}
    members = [make_member(k, ROWS, 80 - 7 * k, learning_rate=0.02) for k in range(2)]
    whole = [bits(found) for found in fit(members, **case)]
    for stop in range(1, 6):
        folder = tmp_path / str(stop)
        fit(members, Checkpoints(folder, "c", LOG), **(case | {"n_epochs": stop}))
        assert bool(list(folder.glob("*"))) == (stop >= 2)
        again = fit(members, Checkpoints(folder, "c", LOG), **case)
        assert [bits(found) for found in again] == whole


def test_a_checkpoint_of_another_configuration_is_not_used(tmp_path: Path, caplog):
    members = [make_member(1, ROWS)]
    fit(members, Checkpoints(tmp_path, "a", LOG))
    assert bits(fit(members, Checkpoints(tmp_path, "b", LOG))[0]) == bits(fit(members)[0])
    assert "another configuration" in caplog.text


def test_a_continued_training_equals_a_longer_one():
    """`restore`: weights, moments, steps and schedule continue after the best epoch."""
    members = [make_member(k, ROWS, learning_rate=0.003) for k in range(2)]
    short = fit(members, n_epochs=3, snapshots=True, first_cycle=2, cycle_growth=1)
    long = fit(members, n_epochs=7, snapshots=True, first_cycle=2, cycle_growth=1)
    ended = [found for found in short if found.best_epoch == 2]
    assert len(ended) == 2  # losses still fall: the best epoch is the last
    resumed = [replace(m, start=found) for m, found in zip(members, short, strict=True)]
    again = fit(resumed, n_epochs=4, snapshots=True, first_cycle=2, cycle_growth=1)
    assert [bits(found) for found in again] == [bits(found) for found in long]
    assert list(again[0].snapshots) == [1, 3, 5]


def test_a_continued_training_keeps_the_best_epoch():
    member = make_member(1, ROWS, learning_rate=0.01)
    (short,) = fit([member], n_epochs=3)
    (worse,) = fit([replace(member, start=short, learning_rate=100.0)], n_epochs=2)
    assert worse.best_epoch == short.best_epoch
    assert len(worse.valid) == short.best_epoch + 3
    assert torch.equal(worse.state["weight.0"], short.state["weight.0"])


def test_the_best_epoch_is_the_first_of_the_least_losses():
    """A step size of zero: all epochs of a network without statistics are equal."""
    member = make_member(1, ROWS, learning_rate=0.0)
    (found,) = fit([member], shape=Shape((3, 4, 1), norm="none"), schedule="constant")
    assert len(set(found.valid.tolist())) == 1
    assert found.best_epoch == 0


def test_a_diverging_member_does_not_affect_others():
    members = [make_member(1, ROWS), make_member(2, ROWS, learning_rate=1e30)]
    fine, lost = fit(members, optimiser="sgd", mean=False)
    assert lost.best_epoch == -1
    assert not np.isfinite(lost.valid).any()
    assert bits(fine) == bits(fit(members[:1], optimiser="sgd", mean=False)[0])


def test_s18_snapshots_are_the_weights_at_the_end_of_each_cycle():
    """s18: epochs 9 and 29 of 35, with the original's cycles."""
    member = make_member(1, ROWS, 20, 10)
    (found,) = fit([member], n_epochs=35, snapshots=True)
    assert list(found.snapshots) == [9, 29]
    (until,) = fit([member], n_epochs=10)
    group = make_group([member], n_epochs=10)
    for _ in range(10):
        group.run_epoch()
    now = group.parameters.member(0) | group.statistics.member(0)
    assert all(torch.equal(found.snapshots[9][name], value) for name, value in now.items())
    assert len(until.snapshots) == 0


def test_early_stop_ends_each_member_by_itself():
    """Members stop `stop_after` epochs after their best one; the group when all have."""
    members = [make_member(k, ROWS, 40, learning_rate=0.1) for k in range(3)]
    found = fit(members, n_epochs=60, stop_after=3, schedule="constant")
    lengths = [len(one.valid) for one in found]
    assert lengths == [one.best_epoch + 4 for one in found]
    assert len(set(lengths)) > 1
    assert max(lengths) < 60
    for one in found:
        assert one.valid[one.best_epoch] == one.valid.min()


def test_plateau_lowers_the_step_size_of_each_member_by_itself():
    members = [make_member(k, ROWS, 40, learning_rate=0.1) for k in range(3)]
    found = fit(members, n_epochs=25, schedule="plateau", patience=2)
    assert all(one.rate[0] == 0.1 and one.rate[-1] < 0.02 for one in found)
    assert len({tuple(one.rate) for one in found}) > 1


def test_features_that_are_not_kept_have_no_weight():
    """And the others start as in a network without them."""
    keep = np.array([True, False, True])
    rows = EnsembleRows(np.where(keep, ROWS.x, 0).astype(np.float32), ROWS.y, ROWS.weight)
    less = EnsembleRows(ROWS.x[:, keep], ROWS.y, ROWS.weight)
    (found,) = fit([make_member(1, rows, keep=keep, l1=0.01, weight_decay=0.1)])
    (small,) = fit([make_member(1, less, l1=0.01, weight_decay=0.1)], shape=Shape((2, 6, 6, 1)))
    assert not found.state["weight.0"][:, 1].any()
    assert found.state["weight.0"].abs().max() < 1 / math.sqrt(2) + 0.1
    for name, value in small.state.items():
        other = found.state[name][:, keep] if name == "weight.0" else found.state[name]
        assert torch.allclose(other, value, atol=1e-5), name


def test_a_group_with_too_many_members_is_an_error():
    with pytest.raises(ValueError, match="4 members in a group of 3"):
        fit([make_member(k, ROWS) for k in range(4)])


def test_without_a_compiler_a_warning_is_logged(monkeypatch, caplog):
    """The bits are those of the uncompiled step."""
    members = [make_member(k, ROWS) for k in range(2)]
    plain = [bits(found) for found in fit(members, n_epochs=2)]
    monkeypatch.setattr(compiled, "can_compile", lambda: False)
    monkeypatch.setattr(compiled, "narrowed", lambda: False)
    assert [bits(found) for found in fit(members, n_epochs=2, compile=True)] == plain
    assert "no C++ compiler was found" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(not compiled.can_compile(), reason="no C++ compiler, or AVX-512")
def test_a_compiled_step_gives_the_same_numbers_but_for_rounding():
    """And members do not depend on their companions either, to the bit."""
    members = [make_member(k, ROWS, 80 - 7 * k) for k in range(5)]
    case = {"batch": 40, "n_epochs": 3, "slope": None, "optimiser": "sgd", "mean": True}
    plain = fit(members[:3], **case)
    fast = fit(members[:3], **case, compile=True)
    for one, other in zip(plain, fast, strict=True):
        assert other.valid == pytest.approx(one.valid, abs=1e-5)
        for name, value in one.state.items():
            assert torch.allclose(other.state[name], value, atol=1e-5), name
    again = fit([members[3], members[1]], **case, compile=True)
    assert bits(again[1]) == bits(fast[1])
