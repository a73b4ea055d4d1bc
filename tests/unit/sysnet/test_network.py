"""Networks and losses of SYSNet against the specification, hand-computed values, and autograd."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch

from skyproof.core.errors import UsageError
from skyproof.learn.ensemble.network import by_autograd
from skyproof.learn.ensemble.shape import Pack, size_of
from skyproof.sysnet.members.losses import row_losses
from skyproof.sysnet.members.predict import forward
from skyproof.sysnet.members.rows import chain_seeds
from skyproof.sysnet.network import (
    check_model,
    density,
    ensemble_names,
    original_names,
    row_loss,
    row_slope,
    shape_of,
)
from tests.unit.sysnet.build.members import make_state

MODELS = ("dnn", "dnnp", "dnnps", "lin", "linp")
LOSSES = (("mse", "poisson"), ("mse", "original"), ("pnll", "poisson"))
ALLOWED = [
    (model, loss)
    for model, loss in product(MODELS, LOSSES)
    if loss[0] == "mse" or model not in ("dnn", "lin")
]


def test_s01_chain_seeds():
    """s01."""
    known = [2664486226, 3865606280, 2185937781, 2285845164, 1280952859]
    assert chain_seeds(5) == known
    assert chain_seeds(20)[:5] == known


def test_s04_number_of_parameters():
    """s04: dnn (4, 20) of 18 features has 1,241 weights and 120 of normalisation."""
    shape = shape_of("dnnp", (4, 20), 18)
    layers = [(n, s) for n, s in shape.parameters() if n.split(".")[0] in ("weight", "bias")]
    assert size_of(layers) == 1241
    assert size_of(list(shape.parameters())) == 1241 + 120
    assert size_of(list(shape_of("linp", (4, 20), 18).parameters())) == 19


def test_s05_losses_of_three_rows_by_hand():
    """s05: f = 2, 0.5, 1; y = 3, 0, 1; w = 1, 0.5, 0.8. The loss of a row is weighted by w."""
    outputs = torch.tensor([[[2.0, 0.5, 1.0]]])
    y, w = torch.tensor([[3.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.5, 0.8]])
    expected = {
        # w f = 2, 0.25, 0.8
        ("mse", "original"): [1.0, 0.0625, 0.04],
        ("mse", "poisson"): [1.0, 0.25, 0.0625],  # y / w = 3, 0, 1.25
        ("pnll", "poisson"): [2 - 3 * math.log(2), 0.25, 0.8 - math.log(0.8)],
    }
    for (loss, weighting), rows in expected.items():
        found = row_loss("dnn", loss, weighting)(outputs, y, w)
        assert found[0].tolist() == pytest.approx(rows, abs=1e-6)
        weighted = row_losses(loss, weighting, *(v.numpy().ravel() for v in (outputs, y, w)))
        assert weighted == pytest.approx(np.array(rows) * [1.0, 0.5, 0.8], abs=1e-6)


def test_activations():
    outputs = torch.tensor([[[-1.0, 0.0, 2.0]]])
    assert density("dnn", outputs).tolist() == [[-1, 0, 2]]
    softplus = [math.log1p(math.exp(x)) for x in (-1, 0, 2)]
    assert density("dnnp", outputs)[0].tolist() == pytest.approx(softplus)
    assert density("linp", outputs)[0].tolist() == pytest.approx(softplus)
    assert density("dnnps", outputs)[0].tolist() == pytest.approx([math.exp(x) for x in (-1, 0, 2)])


@pytest.mark.parametrize(("model", "loss"), ALLOWED)
def test_slopes_are_those_of_autograd(model: str, loss: tuple[str, str]):
    rng = torch.Generator().manual_seed(1)
    outputs = torch.randn(2, 1, 50, generator=rng) * 3
    y = torch.randint(0, 30, (2, 50), generator=rng).float()
    w = torch.rand(2, 50, generator=rng) * 0.9 + 0.1
    value, slope = row_slope(model, *loss)(outputs, y, w)
    expected_value, expected = by_autograd(row_loss(model, *loss))(outputs, y, w)
    assert torch.equal(value, expected_value)
    assert torch.allclose(slope, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", ["dnn", "lin"])
def test_s14_a_loss_that_takes_logarithms_of_negative_counts_is_an_error(model: str):
    """s14."""
    with pytest.raises(UsageError, match=f"model {model} with loss pnll"):
        check_model(model, "pnll")
    check_model(model, "mse")
    check_model("dnnp", "pnll")


@pytest.mark.parametrize("model", MODELS)
def test_names_of_the_original_and_back(model: str):
    """The ensemble's evaluation equals that of the files' weights by the original's modules."""
    from skyproof.learn.ensemble.network import outputs_of

    state = make_state(model, (3, 5), 4, seed=1)
    shape = shape_of(model, (3, 5), 4)
    ours = ensemble_names(model, shape, state)
    back = original_names(model, ours)
    assert set(back) == set(state)
    packs = []
    for layout in (list(shape.parameters()), list(shape.statistics())):
        packs.append(Pack(torch.zeros(1, size_of(layout)), layout))
        packs[-1].put(0, ours)
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(2))
    found = density(model, outputs_of(shape, torch.bmm, *packs, x[None]))[0]
    assert torch.allclose(found, forward(model, state, x), rtol=1e-5, atol=1e-6)
