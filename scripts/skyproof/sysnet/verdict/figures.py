"""Figures of the evaluation except maps: density against templates, power, losses, scan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from skyproof.assess.plots import BLUE, FAINT, GREEN, INK, MUTED, ORANGE, style
from skyproof.sysnet.verdict.power import Spectrum, bands, in_bands

__all__ = ["curves_figure", "power_figure", "scan_figure", "style", "templates_figure"]

_COLUMNS = 4
_PANEL = (3.0, 2.45)  # inches
_DASHES = (0, (4, 3))


def templates_figure(nulltest: Mapping[str, Any]) -> Figure:
    """Draw the mean density in the bins of each template, before and after (nulltest.json)."""
    templates = nulltest["templates"]
    columns = min(_COLUMNS, len(templates))
    n_rows = -(-len(templates) // columns)
    width, height = _PANEL[0] * columns + 1.0, _PANEL[1] * n_rows + 1.0
    # A fixed layout: fitting one to the labels of many panels takes longer than the drawing.
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(
        n_rows, columns, squeeze=False, sharey=True,
        gridspec_kw={"left": 0.8 / width, "right": 1 - 0.15 / width, "bottom": 0.55 / height,
                     "top": 1 - 0.85 / height, "wspace": 0.12, "hspace": 0.55},
    )  # fmt: skip
    limit = _limit(templates)
    for axes, (name, entry) in zip(grid.flat, templates.items(), strict=False):
        _template(axes, name, entry, limit)
    for axes in list(grid.flat)[len(templates) :]:
        axes.set_axis_off()
    for row in grid:
        row[0].set_ylabel("density / mean")
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="upper center", ncols=3)
    return figure


def _limit(templates: Mapping[str, Any]) -> float:
    rows = [row for entry in templates.values() for row in entry["bins"]]
    values = [abs(row[when]) for row in rows for when in ("before", "after")]
    return 1.15 * max([0.05, *values])


def _template(axes: Axes, name: str, entry: Mapping[str, Any], limit: float) -> None:
    rows = entry["bins"]
    value = np.array([row["value"] for row in rows])
    error = np.array([row["error"] for row in rows])
    axes.axhline(1, color=MUTED, linewidth=0.8)
    axes.fill_between(value, 1 - error, 1 + error, color=FAINT, linewidth=0,
                      label="mock skies (1 standard deviation)")  # fmt: skip
    for when, colour, marker in (("before", ORANGE, "s"), ("after", BLUE, "o")):
        density = 1 + np.array([row[when] for row in rows])
        axes.plot(value, density, color=colour, marker=marker, markersize=4, linewidth=1.4,
                  label=f"{when} weights")  # fmt: skip
    # Column densities exceed 1e20: matplotlib writes the exponent at the end of the axis.
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
    axes.locator_params(axis="x", nbins=4)
    axes.set(ylim=(1 - limit, 1 + limit))
    axes.grid(axis="x", visible=False)
    axes.set_title(_short(name), fontsize=10, pad=14)
    axes.annotate(
        f"p {_p_value(entry['before'])} → {_p_value(entry['after'])}", (0, 1), (0, 3),
        xycoords="axes fraction", textcoords="offset points", fontsize=8.5, color=MUTED,
    )  # fmt: skip


def _short(name: str) -> str:
    return name if len(name) <= 30 else name[:29] + "…"


def _p_value(found: Mapping[str, float]) -> str:
    return f"{found['p_value']:.2g}"


def power_figure(spectra: Mapping[str, Spectrum], mocks: np.ndarray) -> Figure:
    """Draw band powers without noise; below their ratio to the truth's, or after over before.

    `mocks` [mocks, bands]: band powers of uncontaminated skies, whose scatter is chance.
    """
    edges = np.array(bands(len(spectra["before"].total) - 1))
    centre = np.sqrt(edges[:, 0] * (edges[:, 1] + 1.0))
    powers = {name: in_bands(spectrum.signal) for name, spectrum in spectra.items()}
    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    low, high = np.percentile(mocks, (16, 84), axis=0)
    top = centre * (centre + 1) / (2 * np.pi)
    upper.fill_between(centre, top * np.maximum(low, 1e-12), top * high, color=FAINT, linewidth=0,
                       label="mock skies without contamination (68 %)")  # fmt: skip
    styles = {"before": ("before weights", ORANGE, "s"), "after": ("after weights", BLUE, "o"),
             "truth": ("true weights", GREEN, "^")}  # fmt: skip
    for name, power in powers.items():
        text, colour, marker = styles[name]
        shown = np.where(power > 0, top * power, np.nan)
        upper.plot(centre, shown, color=colour, marker=marker, markersize=5, linewidth=1.6,
                   label=text)  # fmt: skip
    upper.set(xscale="log", yscale="log", ylabel="l (l + 1) C / 2π", title="Angular power")
    upper.yaxis.set_minor_formatter(NullFormatter())
    upper.legend(loc="best", fontsize=9)

    known = "truth" in powers
    base = powers["truth"] if known else powers["before"]
    lower.axhline(1, color=MUTED, linewidth=1.0, linestyle=_DASHES)
    for name in ("before", "after") if known else ("after",):
        _, colour, marker = styles[name]
        lower.plot(centre, np.where(base > 0, powers[name] / base, np.nan), color=colour,
                   marker=marker, markersize=5, linewidth=1.6)  # fmt: skip
    lower.set(xlabel="multipole l", ylabel="ratio to true weights" if known else "after / before")
    lower.set_ylim(0, 2.2 if known else 1.4)
    lower.set_xticks([2, 5, 10, 20, 50, 100, 200])
    lower.set_xlim(centre[0] * 0.85, centre[-1] * 1.15)
    lower.xaxis.set_major_formatter(ScalarFormatter())
    lower.xaxis.set_minor_formatter(NullFormatter())
    return figure


def curves_figure(history: Mapping[str, np.ndarray]) -> Figure:
    """Draw training and validation loss by epoch: thin lines for networks, thick for the mean."""
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    epochs = np.unique(history["epoch"])
    member = np.stack([history["fold"], history["chain"]], axis=1)
    _, number = np.unique(member, axis=0, return_inverse=True)
    number = number.reshape(-1)
    for name, colour, text in (("train", MUTED, "training"), ("valid", BLUE, "validation")):
        values = np.full((number.max() + 1, len(epochs)), np.nan)
        values[number, np.searchsorted(epochs, history["epoch"])] = history[name]
        for row in values:
            axes.plot(epochs + 1, row, color=colour, linewidth=0.6, alpha=0.35)
        axes.plot(epochs + 1, np.nanmean(values, axis=0), color=colour, label=text)
    best = _best_epochs(history, number)
    for i, epoch in enumerate(best):
        axes.plot([epoch + 1], [0], marker="|", color=ORANGE, markersize=9, clip_on=False,
                  transform=axes.get_xaxis_transform(), linestyle="none",
                  label="best epoch of a network" if i == 0 else None)  # fmt: skip
    # The first epochs have much higher losses and would dominate the scale.
    settled = history["epoch"] >= epochs[-1] / 3
    late = np.concatenate([history[name][settled] for name in ("train", "valid")])
    low, high = np.percentile(late[np.isfinite(late)], (0.5, 99.5))
    room = 0.15 * (high - low) or 0.01
    axes.set(ylim=(low - room, high + room), xlabel="epoch", ylabel="loss",
             title=f"Losses of {number.max() + 1} networks")  # fmt: skip
    axes.legend(loc="upper right", fontsize=9)
    return figure


def _best_epochs(history: Mapping[str, np.ndarray], number: np.ndarray) -> list[float]:
    found = []
    for one in np.unique(number):
        rows = np.flatnonzero(number == one)
        valid = history["valid"][rows]
        if np.isfinite(valid).any():
            found.append(float(history["epoch"][rows][np.nanargmin(valid)]))
    return found


def scan_figure(tuning: Mapping[str, Any]) -> Figure:
    """Draw the learning-rate range test (tuning.json), or a note that none was requested."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    scan = (tuning.get("scans") or {}).get("learning_rate")
    if not scan:
        rate = tuning.get("learning_rate")
        text = "no scan was requested" + (f"\nlearning rate {rate:g}" if rate else "")
        axes.annotate(text, (0.5, 0.5), xycoords="axes fraction", ha="center", va="center",
                      color=MUTED, fontsize=13)  # fmt: skip
        axes.set_axis_off()
        return figure
    rate, loss, smoothed = (np.array([np.nan if v is None else v for v in scan[name]], float)
                            for name in ("lr", "loss", "smoothed"))  # fmt: skip
    axes.plot(rate, loss, color=BLUE, alpha=0.3, linewidth=0.8, label="batch")
    axes.plot(rate, smoothed, color=BLUE, label="smoothed")
    if scan["suggestion"] is not None:
        axes.axvline(scan["suggestion"], color=ORANGE, linewidth=1.4, linestyle=_DASHES,
                     label=f"suggestion {scan['suggestion']:.2g}")  # fmt: skip
    finite = smoothed[np.isfinite(smoothed)]
    low, high = np.min(finite), np.max(finite[: max(1, len(finite) * 9 // 10)])
    room = 0.3 * (high - low) or 0.01
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(low - room, high + room),
             title="Learning-rate scan")  # fmt: skip
    axes.tick_params(colors=INK)
    axes.legend(loc="best", fontsize=9)
    return figure
