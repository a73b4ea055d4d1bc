"""Figures: their bytes depend only on their content."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from skyproof.assess import plots
from skyproof.core.formats import write

HISTORY = {
    "step": np.arange(1, 61),
    "epoch": np.repeat([1, 2, 3], 20),
    "loss": np.linspace(0.7, 0.2, 60),
    "accuracy": np.linspace(0.5, 0.9, 60),
}
ROWS = [
    {"from": 20.0, "to": 21.0, "median": 20.6, "n": 50, "accuracy": 0.8, "low": 0.7, "high": 0.9},
    {"from": 21.0, "to": 22.5, "median": 21.8, "n": 50, "accuracy": 0.3, "low": 0.2, "high": 0.4},
]


def roc() -> Figure:
    rate = np.linspace(0, 1, 11)
    band = (rate, np.clip(np.sqrt(rate) - 0.1, 0, 1), np.clip(np.sqrt(rate) + 0.1, 0, 1))
    curves = [plots.Curve("network", rate, np.sqrt(rate), band), plots.Curve("control", rate, rate)]
    return plots.roc_figure(curves, title="ROC", x_label="false", y_label="true")


def by_magnitude() -> Figure:
    return plots.accuracy_figure(ROWS, overall=0.55, title="Accuracy", x_label="g")


def training() -> Figure:
    return plots.training_figure(HISTORY, chance=0.5, title="Training")


@pytest.mark.parametrize("make", [roc, by_magnitude, training])
def test_figures_are_byte_stable_whatever_the_users_settings(make: object, tmp_path: Path) -> None:
    contents = []
    for number, settings in enumerate(({}, {"font.size": 30.0, "axes.facecolor": "black"})):
        path = tmp_path / f"{number}.png"
        with mpl.rc_context(settings), plots.style():
            write.figure(path, make())  # type: ignore[operator]
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    assert b"Software" not in contents[0]


def test_low_accuracies_are_not_cut_off() -> None:
    with plots.style():
        bottom, top = by_magnitude().axes[0].get_ylim()
    assert bottom <= 0.2
    assert top == 1.0


def test_epochs_are_marked_where_they_begin() -> None:
    with plots.style():
        loss = training().axes[0]
    starts = [line.get_xdata()[0] for line in loss.lines if len(set(line.get_xdata())) == 1]
    assert starts == [21, 41]


def test_a_single_step_can_be_drawn() -> None:
    first = {name: values[:1] for name, values in HISTORY.items()}
    with plots.style():
        assert plots.training_figure(first, title="Training").axes


def test_running_mean_is_centred_and_shortened_at_the_ends() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 10.0])
    assert plots.centred_mean(values, 3).tolist() == pytest.approx([1.5, 2, 3, 17 / 3, 7])
    assert plots.centred_mean(np.array([]), 3).size == 0
