"""The style of all figures, and plots that several systems use.

Figures are made and saved (`core.formats.write.figure`) inside `with style():`, and do not depend
on a matplotlibrc or on the fonts of a machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

# The palette of Okabe & Ito, suitable for colour-blind readers.
BLUE, ORANGE, GREEN, SKY = "#0072B2", "#D55E00", "#009E73", "#56B4E9"
INK, MUTED, FAINT = "#222222", "#6E6E6E", "#D9D9D9"

_STYLE = {
    "font.family": "DejaVu Sans",  # included in matplotlib
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 2.0,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def style() -> Iterator[None]:
    """Make and save figures in the style of the project, independent of the user's settings."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


@dataclass(frozen=True)
class Curve:
    """An ROC curve: rates [n] from (0, 0) to (1, 1), its name, and a band (grid, low, high)."""

    name: str
    false_positive: np.ndarray
    true_positive: np.ndarray
    band: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None


def roc_figure(curves: Sequence[Curve], *, title: str, x_label: str, y_label: str) -> Figure:
    """Draw ROC curves with their bands and the diagonal of chance."""
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), label="chance")
    for curve, colour in zip(curves, (BLUE, ORANGE, GREEN, SKY), strict=False):
        if curve.band is not None:
            grid, low, high = curve.band
            axes.fill_between(grid, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(curve.false_positive, curve.true_positive, color=colour, label=curve.name)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x_label, ylabel=y_label, title=title)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[1:] + handles[:1], names[1:] + names[:1], loc="lower right")
    return figure


def accuracy_figure(
    rows: Sequence[Mapping[str, float]], *, overall: float, title: str, x_label: str
) -> Figure:
    """Draw accuracy by bin. A row has from, to, median, n, accuracy, low, high."""
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0.5, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.axhline(overall, color=BLUE, linewidth=1.2, alpha=0.45)
    for row in rows:
        axes.errorbar(
            row["median"], row["accuracy"],
            xerr=[[row["median"] - row["from"]], [row["to"] - row["median"]]],
            yerr=[[row["accuracy"] - row["low"]], [row["high"] - row["accuracy"]]],
            color=BLUE, marker="o", markersize=8, elinewidth=1.6,
        )  # fmt: skip
    lowest = min([0.5, overall, *(row["low"] for row in rows)])
    axes.set(ylim=(min(0.4, np.floor(lowest * 20 - 0.5) / 20), 1.0), xlabel=x_label,
             ylabel="accuracy", title=title)  # fmt: skip
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    _write_at_right(axes, {"chance": (0.5, MUTED), f"all {overall:.0%}": (overall, BLUE)})
    for number, row in enumerate(rows):
        name = f"{row['n']}" if number else f"n = {row['n']}"
        _write_at_top(axes, name, row["median"], ha="center")
    return figure


def _write_at_right(axes: Axes, lines: Mapping[str, tuple[float, str]]) -> None:
    """Label horizontal lines at the right edge, with a minimum distance between the labels."""
    bottom, top = axes.get_ylim()
    gap = 0.06 * (top - bottom)
    height = -np.inf
    for name, (value, colour) in sorted(lines.items(), key=lambda entry: entry[1][0]):
        height = max(value, height + gap)
        axes.annotate(name, (1, height), (6, 0), textcoords="offset points", color=colour,
                      xycoords=("axes fraction", "data"), va="center", fontsize=10)  # fmt: skip


def _write_at_top(axes: Axes, text: str, x: float, ha: str) -> None:
    """Write small grey text below the upper edge, at a value of the horizontal axis."""
    axes.annotate(
        text, (x, 1), (0, -3), xycoords=("data", "axes fraction"), textcoords="offset points",
        ha=ha, va="top", color=MUTED, fontsize=9,
    )  # fmt: skip


def training_figure(
    history: Mapping[str, np.ndarray], *, chance: float | None = None, title: str
) -> Figure:
    """Draw loss and accuracy by step (columns step, epoch, loss, accuracy, all [steps]).

    Thin line: every recorded step. Thick line: the running mean over at least a tenth of an epoch.
    """
    step, epoch = np.asarray(history["step"]), np.asarray(history["epoch"])
    figure = Figure(figsize=(7.2, 6.0), layout="constrained")
    loss, accuracy = figure.subplots(2, 1, sharex=True)
    starts = step[np.flatnonzero(np.diff(epoch)) + 1]
    for axes, name, colour in ((loss, "loss", BLUE), (accuracy, "accuracy", ORANGE)):
        values = np.asarray(history[name], dtype=float)
        axes.plot(step, values, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(step, centred_mean(values, _window(epoch)), color=colour)
        axes.set_ylabel(name)
        axes.grid(axis="x", visible=False)
        for start in starts:
            axes.axvline(start, color=MUTED, linewidth=0.8, linestyle=(0, (1, 3)))
    if chance is not None:
        accuracy.axhline(chance, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        _write_at_right(accuracy, {"chance": (chance, MUTED)})
    loss.set_ylim(bottom=0)
    accuracy.set_ylim(top=1.01)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    accuracy.set_xlabel("step")
    loss.set_title(title)
    _name_epochs(loss, step, epoch)
    return figure


def _name_epochs(axes: Axes, step: np.ndarray, epoch: np.ndarray) -> None:
    numbers = np.unique(epoch)
    shown = numbers[:: max(1, -(-len(numbers) // 12))]
    for number in shown:
        first = step[epoch == number].min()
        _write_at_top(axes, f" {number:g}", first, ha="left")
    axes.annotate("epoch", (1, 1), (6, -3), xycoords="axes fraction", textcoords="offset points",
                  va="top", color=MUTED, fontsize=9)  # fmt: skip


def _window(epoch: np.ndarray) -> int:
    """Return the width of the running mean: a tenth of an epoch, odd, 5 to 101 records."""
    records = len(epoch) / max(1, len(np.unique(epoch)))
    return int(np.clip(round(records / 10), 5, 101)) | 1


def centred_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Return the centred running mean over `window` (odd) values; over fewer at both ends."""
    if not len(values):
        return values
    total = np.r_[0.0, np.cumsum(values)]
    centre = np.arange(len(values))
    low = np.maximum(centre - window // 2, 0)
    high = np.minimum(centre + window // 2 + 1, len(values))
    return (total[high] - total[low]) / (high - low)
