"""The learning-rate range test: formula A5, and losses that are negative."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skyproof.learn.ensemble.range_test import has_diverged, range_test, smooth, summary
from tests.unit.learn.build import make_group, make_member, make_rows, poisson

ROWS = make_rows(600)


def test_s16_negative_losses_do_not_stop_it_and_give_a_suggestion():
    """s16: `loss > 5 x best`, the original's rule, stops at once where losses are below zero."""

    def shifted(outputs: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return poisson(outputs, y, weight) - 20

    members = [make_member(k, ROWS, 500, 50) for k in range(3)]
    found = range_test(make_group(members, loss=shifted), 1e-7, 1.0, 100)
    assert (found.loss < 0).all()
    assert len(found.rate) > 60
    expected = 1e-7 * 1e7 ** ((np.arange(len(found.rate)) + 1) / 100)  # A5
    assert found.rate == pytest.approx(expected)
    assert 1e-3 < found.suggestion < 0.3  # measured 0.067, and 0.078 without the shift
    usual = range_test(make_group(members), 1e-7, 1.0, 100)
    assert (usual.loss > -10).all()
    assert found.suggestion / 3 < usual.suggestion < found.suggestion * 3


def test_it_stops_where_the_loss_explodes():
    members = [make_member(k, ROWS, 500, 50) for k in range(3)]
    found = range_test(make_group(members, optimiser="sgd", mean=False), 1e-7, 1e6, 100)
    assert len(found.rate) < 100
    assert np.isfinite(found.loss).all()


def test_noise_alone_is_not_divergence():
    noise = np.random.default_rng(1).normal(size=200) - 5
    assert not any(has_diverged(noise[:n].tolist()) for n in range(1, 200))
    assert has_diverged([*noise.tolist(), *[40.0] * 20])
    assert has_diverged([1.0, float("nan")])


def test_the_suggestion_is_a_third_of_the_steepest_descent():
    rate = np.logspace(-6, 0, 100)
    raw = 1 / (1 + np.exp((np.log10(rate) + 2.5) * 4))  # falls steepest at 10^-2.5
    found = summary(rate, raw)
    assert found.smoothed == pytest.approx(smooth(raw))
    steepest = rate[10:-5][np.argmin(np.gradient(smooth(raw)[10:-5], np.log(rate[10:-5])))]
    assert found.suggestion == pytest.approx(steepest / 3)
    assert summary(rate, np.linspace(0, 1, 100)).suggestion is None
    assert summary(rate[:8], raw[:8]).suggestion is None
