"""The hand-written step against autograd and torch's own modules, one network at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from skyproof.learn.ensemble.network import outputs_of
from skyproof.learn.ensemble.optimiser import cosine_rate, ends_cycle
from skyproof.learn.ensemble.shape import Pack, Shape
from skyproof.learn.schedule import Plateau
from tests.unit.learn.build import Plain, gaussian, make_group, make_member, make_rows, poisson

BLAZAR = Shape((5, 12, 8, 7, 6, 2), norm="before", dropout=(0.12, 0.15, 0.02, 0.03))
TORCH = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


def plain_steps(group: Any, e: int, n_steps: int) -> dict[str, torch.Tensor]:
    """Train member `e` of a fresh group alone, by torch's modules, autograd and optimiser."""
    settings, member = group.settings, group.members[e]
    network = Plain(settings.shape)
    network.load(Pack(group.parameters.flat, group.parameters.layout).member(e))
    kind = settings.optimiser
    options = {"momentum": 0.9} if kind == "sgd" else {}
    optimiser = TORCH[kind](
        network.parameters(), lr=1.0, weight_decay=member.weight_decay, **options
    )
    done = 0
    while True:
        for counts, batch in group.batches():
            n = int(counts[e])
            dropout = [f if f is None else f[e, :, :n].T for f in batch.dropout]
            outputs = network(batch.x[e, :n], dropout).T[None]
            weight = batch.weight[e, :n]
            rows = settings.loss(outputs, batch.y[e : e + 1, :n], weight[None])[0]
            total = (rows * weight).sum()
            total = total / weight.sum() if settings.mean else total
            total = total + member.l1 * network.linear[0].weight.abs().sum()
            optimiser.zero_grad()
            total.backward()
            per_epoch = group.n_steps[e]
            rate = cosine_rate(
                member.learning_rate, group.epoch + (done % per_epoch) / per_epoch, 0.0, 10, 2
            )
            for parameters in optimiser.param_groups:
                parameters["lr"] = rate
            optimiser.step()
            done += 1
            if done == n_steps:
                return network.tensors()
        group.epoch += 1


CASES = {
    "sysnet": {},
    "sysnet, deep": {"shape": Shape((3, 8, 8, 8, 8, 1))},
    "sum of losses": {"mean": False, "optimiser": "sgd", "rate": 1e-4},
    "sgd": {"optimiser": "sgd", "rate": 1e-3},
    "adam, L2 and L1": {"optimiser": "adam", "weight_decay": 0.01, "l1": 0.01},
    "adamw, decay": {"weight_decay": 0.1},
    "linear": {"shape": Shape((3, 1), norm="none")},
    "no normalisation, dropout": {"shape": Shape((3, 6, 1), "none", (0.3,))},
    "dropout before normalisation": {"shape": Shape((3, 6, 6, 1), "after", (0.3, 0.1))},
    "blazar": {"shape": BLAZAR, "loss": gaussian, "optimiser": "sgd", "weight_decay": 1e-3},
}


@pytest.mark.parametrize("name", CASES)
def test_s10_batched_members_equal_single_networks_of_torch(name: str):
    """s10: 50 steps, ragged last batches; a member's own learning rate.

    With few rows a unit may be active for all of a batch. Its bias then does nothing behind a
    normalisation, and Adam follows the rounding errors of its slope: hence 128 rows, and `blazar`
    (biases before a normalisation do nothing at all) with SGD here; Adam is tested by the others.
    """
    case = {"batch": 128} | CASES[name]
    own = {k: case.pop(k) for k in ("weight_decay", "l1") if k in case}
    rate = case.pop("rate", 0.003)
    rows = make_rows(1000, case.get("shape", Shape((3, 1))).widths[0])
    members = [
        make_member(k, rows, n_train=700 + 30 * k, learning_rate=rate * (1 + k), **own)
        for k in range(3)
    ]
    expected = [plain_steps(make_group(members, **case), e, 50) for e in range(3)]
    for e in range(3):
        group = make_group(members, **case)
        steps = group.n_steps[e]
        while group.optimiser.steps[e] < 50:
            for step, (counts, batch) in enumerate(group.batches()):
                active = (counts > 0) & (group.optimiser.steps.numpy() < 50)
                group.take_step(batch, group._rates(step), active)
            group.epoch += 1
        found = group.parameters.member(e) | group.statistics.member(e)
        assert steps == math.ceil(len(members[e].train) / 128)
        assert set(found) == set(expected[e])
        # Largest difference measured: see the assertion's message when it fails.
        worst = {k: float((found[k] - expected[e][k]).abs().max()) for k in found}
        assert max(worst.values()) <= 1e-5, worst


@pytest.mark.parametrize("shape", [Shape((3, 6, 6, 1)), BLAZAR, Shape((3, 1), norm="none")])
def test_evaluation_equals_torch(shape: Shape):
    rows = make_rows(n_features=shape.widths[0])
    loss = gaussian if shape is BLAZAR else poisson
    group = make_group([make_member(k, rows) for k in range(3)], shape=shape, loss=loss)
    group.run_epoch()
    x = torch.from_numpy(rows.x[:20])
    found = outputs_of(shape, torch.bmm, group.parameters, group.statistics, x.expand(3, -1, -1))
    for e in range(3):
        network = Plain(shape)
        network.load(group.parameters.member(e) | group.statistics.member(e))
        assert torch.allclose(found[e].T, network.eval()(x), atol=1e-5)


def test_dropout_has_the_requested_fraction_and_keeps_the_mean():
    group = make_group([make_member(1, make_rows())], shape=Shape((3, 400, 1), "none", (0.25,)))
    _, batch = next(iter(group.batches()))
    factors = batch.dropout[0]
    # 19,200 draws: one standard deviation of the share is 0.0031.
    assert abs(float((factors == 0).float().mean()) - 0.25) < 0.0125
    assert float(factors.max()) == pytest.approx(4 / 3)
    again = next(iter(group.batches()))[1].dropout[0]
    assert torch.equal(factors, again)
    assert not torch.equal(factors[0], list(group.batches())[1][1].dropout[0][0])


def test_s02_rates_of_the_source_document():
    """s02: learning rates that the original logged after the last of 28 batches of an epoch."""
    logged = {0: 0.009773, 1: 0.009079, 9: 0.000010, 10: 0.009943, 15: 0.007964, 29: 0.000010}
    for epoch, rate in logged.items():
        assert cosine_rate(0.01, epoch + 27 / 28, 1e-5, 10, 2) == pytest.approx(rate, abs=5e-7)
    exact = {0: 0.0097725, 1: 0.0090787, 9: 0.0000103, 10: 0.0099428}  # formula A4
    for epoch, rate in exact.items():
        assert cosine_rate(0.01, epoch + 27 / 28, 1e-5, 10, 2) == pytest.approx(rate, abs=5e-8)


def test_s18_cycles_end_where_the_original_takes_snapshots():
    """s18."""
    assert [e for e in range(320) if ends_cycle(e, 10, 2)] == [9, 29, 69, 149, 309]
    assert [e for e in range(21) if ends_cycle(e, 5, 1)] == [4, 9, 14, 19]


def test_plateau_lowers_rates_as_torch_does():
    losses = np.abs(np.random.default_rng(4).normal(size=(25, 3)) + np.array([0.0, 1.0, 5.0]))
    ours = Plateau(3, patience=4, factor=0.1)
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    optimisers = [torch.optim.SGD([weight], lr=1.0) for weight in weights]
    theirs = [torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=4) for o in optimisers]
    for loss in losses:
        ours.update(torch.from_numpy(loss))
        for plateau, value in zip(theirs, loss, strict=True):
            plateau.step(value)
        rates = [optimiser.param_groups[0]["lr"] for optimiser in optimisers]
        assert ours.share.tolist() == pytest.approx(rates)
    assert max(rates) < 1


def test_plateau_sees_progress_of_negative_losses():
    plateau = Plateau(3, patience=4, factor=0.1)
    for _ in range(5):
        plateau.update(torch.tensor([-1.0, -1.0, -2.0], dtype=torch.float64))
    assert plateau.share.tolist() == [1, 1, 1]  # four epochs without progress are borne
    plateau.update(torch.tensor([-1.0, -1.1, -2.0], dtype=torch.float64))
    assert plateau.share.tolist() == pytest.approx([0.1, 1, 0.1])


@pytest.mark.parametrize(
    ("shape", "what"), [(((3,),), "features and outputs"), (((3, 4, 1), "after", (0.1, 0.1)), "2")]
)
def test_impossible_shapes_are_errors(shape: tuple, what: str):
    with pytest.raises(ValueError, match=what):
        Shape(*shape)
