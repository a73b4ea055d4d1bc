"""The mosaic of real and injected galaxies, as in the figure of Obiwan's deep-learning page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from skyproof.assess.plots import BLUE, FAINT, INK, MUTED, ORANGE
from skyproof.obiwan.stamps.reader import rgb

# Percentiles in brightness of the pairs, from bright to faint.
PERCENTILES = (99, 75, 50, 25, 1)

# Inches: a panel, the margins; and the gap between groups of panels, in panels.
_PANEL, _LEFT, _RIGHT, _TOP, _BOTTOM = 1.02, 0.45, 1.3, 0.45, 0.1
_GAP = 0.12


def choose_pairs(
    magnitudes: np.ndarray, labels: np.ndarray, percentiles: Sequence[float] = PERCENTILES
) -> np.ndarray:
    """Return rows [2 x pairs]: real, fake, real, fake, ... in pairs of similar magnitude.

    Pairs are from bright to faint. For each percentile in brightness: the real row nearest to that
    magnitude, then the fake row nearest to this real row. No row is used twice; there are fewer
    pairs if a class has too few rows.
    """
    free = np.isfinite(magnitudes)
    chosen: list[int] = []
    for percentile in percentiles:
        real, fake = (np.flatnonzero(free & (labels == k)) for k in (0, 1))
        if not len(real) or not len(fake):
            break
        known = magnitudes[np.isfinite(magnitudes)]
        wanted = np.quantile(known, 1 - percentile / 100)
        first = real[np.argmin(np.abs(magnitudes[real] - wanted))]
        second = fake[np.argmin(np.abs(magnitudes[fake] - magnitudes[first]))]
        chosen += [int(first), int(second)]
        free[chosen] = False
    return np.array(chosen, dtype=int)


def mosaic(pixels: np.ndarray, rows: Mapping[str, np.ndarray], bands: str) -> Figure:
    """Draw one row per galaxy: colours, images, inverse variances.

    pixels [n, 64, 64, 2 x bands] (x before y; channels image, ivar of each band), rows label, score
    and mag_<first band> [n]. A pair of rows has the same grey scale in each band, so that real and
    injected galaxies are comparable; inverse variances have one scale per band, from zero.
    """
    images, ivars = pixels[..., 0::2], pixels[..., 1::2]
    n_rows, n_bands = len(pixels), len(bands)
    widths = [1.0, _GAP, *[1.0] * n_bands, _GAP, *[1.0] * n_bands]
    heights = [h for row in range(n_rows) for h in ([1.0] if row % 2 else [_GAP, 1.0])][1:]
    width = _PANEL * sum(widths) + _LEFT + _RIGHT
    height = _PANEL * sum(heights) + _TOP + _BOTTOM
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        len(heights), len(widths), width_ratios=widths, height_ratios=heights,
        left=_LEFT / width, right=1 - _RIGHT / width, bottom=_BOTTOM / height,
        top=1 - _TOP / height, wspace=0.04, hspace=0.04,
    )  # fmt: skip
    for row in range(n_rows):
        pair = slice(row - row % 2, row - row % 2 + 2)
        line = row + row // 2
        axes = _panel(figure, grid[line, 0], rgb(images[row : row + 1], bands)[0])
        _write_class(axes, bool(rows["label"][row]))
        names = {0: ("colour", axes)}
        for band in range(n_bands):
            low, high = _grey_scale(images[pair, ..., band])
            axes = _panel(figure, grid[line, 2 + band], images[row, ..., band], low, high)
            names[2 + band] = (bands[band], axes)
            top = 1.1 * float(np.max(ivars[..., band])) or 1.0
            column = 3 + n_bands + band
            axes = _panel(figure, grid[line, column], ivars[row, ..., band], 0, top)
            names[column] = (f"ivar {bands[band]}", axes)
        _write_values(axes, rows, row, bands[0])
        if row == 0:
            for name, axes in names.values():
                axes.set_title(name, loc="center", fontsize=11, fontweight="normal", pad=5)
    return figure


def _panel(
    figure: Figure,
    cell: SubplotSpec,
    image: np.ndarray,
    low: float | None = None,
    high: float | None = None,
) -> Axes:
    axes = figure.add_subplot(cell)
    turned = np.swapaxes(image, 0, 1)  # x first in the array, along the horizontal here
    axes.imshow(turned, origin="lower", cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=FAINT, linewidth=0.6)
    return axes


def _grey_scale(images: np.ndarray) -> tuple[float, float]:
    """Return the values of black and white for images [n, 64, 64]: below the sky, and the peaks."""
    sky, core = np.median(images), images[:, 27:38, 27:38]
    noise = 1.4826 * float(np.median(np.abs(images - sky)))
    return float(sky - 2 * noise), float(max(np.max(core), sky + 5 * noise) + 1e-12)


def _write_class(axes: Axes, fake: bool) -> None:
    axes.annotate("F" if fake else "R", (0, 0.5), (-12, 0), xycoords="axes fraction",
                  textcoords="offset points", ha="center", va="center", fontsize=15,
                  fontweight="bold", color=ORANGE if fake else BLUE)  # fmt: skip


def _write_values(axes: Axes, rows: Mapping[str, np.ndarray], row: int, band: str) -> None:
    """Write magnitude and score at the right of the last panel of a row."""
    right = (rows["score"][row] >= 0.5) == bool(rows["label"][row])
    magnitude, score = rows[f"mag_{band}"][row], rows["score"][row]
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(f"{band} = {magnitude:.1f}", (1, 0.5), (8, 1), va="bottom", color=INK, **place)
    axes.annotate(
        f"score {score:.2f}", (1, 0.5), (8, -1), va="top", color=INK if right else MUTED,
        fontstyle="normal" if right else "italic", **place,
    )  # fmt: skip
