"""Maps of the footprint in the Mollweide projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skyproof.assess.plots import FAINT, INK, MUTED
from skyproof.sky.healpix import coarse_pixels
from skyproof.sysnet.table import FRAMES, Table

SHOWN = 64  # nside of the maps, at most: pixels of 0.9 degree

_SMOOTH = 3.0  # pixels: full width at half maximum of the smoothing, which reduces the noise

_PIXELS = 900  # across a full sky
_MARGIN = 0.06
_ACROSS = 11.0  # inches
_FLAT = 0.35  # height over width: a flatter footprint has one panel per row
_COLOURS = "RdBu_r"
_LEAST_RANGE, _GREATEST_RANGE = 0.1, 0.5
_LINES = 30  # degrees between the lines of the graticule
_WIDE = 2.5  # width (full sky: 4) above which every other meridian is labelled


def maps_figure(
    panels: Mapping[str, np.ndarray], hpix: np.ndarray, fracgood: np.ndarray, table: Table
) -> Figure:
    """Draw one map of each panel, name -> values around 1 [m], at the pixels `hpix` [m].

    All panels share one colour scale. The selection function sets it, because the structure and
    noise of the galaxies are larger.
    """
    nside = min(SHOWN, table.nside)
    pixel = coarse_pixels(hpix, table.nside, nside)
    width = _SMOOTH * 58.6 / nside
    maps = {
        name: averaged(values, fracgood, pixel, nside, width) for name, values in panels.items()
    }
    smooth = maps["selection function"]
    spread = np.nanpercentile(np.abs(smooth - 1), 98)
    limit = float(np.clip(np.ceil(spread * 20) / 20, _LEAST_RANGE, _GREATEST_RANGE))

    centre = central_longitude(pixel, nside)
    view = View(maps[next(iter(maps))], nside, centre)
    n_columns = 1 if view.aspect < _FLAT else 2
    n_rows = -(-len(maps) // n_columns)
    height = n_rows * (_ACROSS / n_columns * view.aspect + 0.35) + 0.8
    figure = Figure(figsize=(_ACROSS, float(np.clip(height, 4.0, 16.0))), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes, (name, values) in zip(grid.flat, maps.items(), strict=False):
        image = view.draw(axes, values, 1 - limit, 1 + limit)
        axes.set_title(name)
    for axes in list(grid.flat)[len(maps) :]:
        axes.set_axis_off()
    bar = figure.colorbar(image, ax=grid, location="bottom", fraction=0.05, aspect=50, pad=0.02,
                          extend="both")  # fmt: skip
    frame = FRAMES[table.frame]
    bar.set_label(f"over the mean ({frame} coordinates, smoothed to {width:.1f}°)")
    return figure


def averaged(
    values: np.ndarray, fracgood: np.ndarray, pixel: np.ndarray, nside: int, width: float
) -> np.ndarray:
    """Return a full-sky map of the means of values [m], weighted by fracgood; NaN outside.

    The map is smoothed to `width` degrees (full width at half maximum), and the smoothed excess is
    divided by the smoothed weight.
    """
    import healpy

    size = 12 * nside**2
    weight = np.bincount(pixel, fracgood, minlength=size)
    excess = np.bincount(pixel, (values - 1) * fracgood, minlength=size)
    excess, smooth = (healpy.smoothing(one, fwhm=np.radians(width)) for one in (excess, weight))
    return np.divide(excess, smooth, out=np.full(size, np.nan), where=weight > 0) + 1


def central_longitude(pixel: np.ndarray, nside: int) -> float:
    """Return the longitude (degrees) of the meridian nearest to the middle of the footprint."""
    import healpy

    longitude = np.radians(healpy.pix2ang(nside, np.unique(pixel), lonlat=True)[0])
    direction = np.exp(1j * longitude).mean()
    if abs(direction) < 0.1:
        return 0.0
    return float(np.round(np.degrees(np.angle(direction)) / _LINES) * _LINES % 360)


class View:
    """The part of a Mollweide map that contains a footprint: x from -2 to 2, y from -1 to 1."""

    def __init__(self, values: np.ndarray, nside: int, centre: float) -> None:
        """`values` is a full-sky RING map, NaN outside the footprint; centre in degrees."""
        import healpy

        self.centre = centre
        x = (np.arange(2 * _PIXELS) + 0.5) / _PIXELS * 2 - 2
        y = (np.arange(_PIXELS) + 0.5) / _PIXELS * 2 - 1
        x, y = np.meshgrid(x, y)
        theta = np.arcsin(y)
        latitude = np.arcsin((2 * theta + np.sin(2 * theta)) / np.pi)
        longitude = np.pi * x / (2 * np.cos(theta))
        self.inside = np.abs(longitude) < np.pi
        # Longitude increases to the left, as the sky is seen from inside.
        shown = (centre - np.degrees(longitude[self.inside])) % 360
        self.pixel = healpy.ang2pix(nside, shown, np.degrees(latitude[self.inside]), lonlat=True)
        seen = self.inside.copy()
        seen[self.inside] = np.isfinite(values[self.pixel])
        self.box = [x[seen].min(), x[seen].max(), y[seen].min(), y[seen].max()]
        width, height = self.box[1] - self.box[0], self.box[3] - self.box[2]
        margin = _MARGIN * max(width, height)
        self.box = [self.box[0] - margin, self.box[1] + margin,
                    self.box[2] - margin, self.box[3] + margin]  # fmt: skip

    @property
    def aspect(self) -> float:
        """Height over width."""
        return float((self.box[3] - self.box[2]) / (self.box[1] - self.box[0]))

    def draw(self, axes: Axes, values: np.ndarray, low: float, high: float) -> Any:
        """Draw a full-sky RING map into the axes; return the image, for a colour bar."""
        image = np.full(self.inside.shape, np.nan)
        image[self.inside] = values[self.pixel]
        shown = axes.imshow(
            image, origin="lower", extent=(-2, 2, -1, 1), cmap=_COLOURS, vmin=low, vmax=high,
            interpolation="nearest",
        )  # fmt: skip
        self._graticule(axes)
        axes.set(xlim=self.box[:2], ylim=self.box[2:], xticks=[], yticks=[])
        axes.set_aspect("equal")
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return shown

    def _graticule(self, axes: Axes) -> None:
        style: dict[str, Any] = {"color": FAINT, "linewidth": 0.6, "zorder": 2}
        theta = np.linspace(-np.pi / 2, np.pi / 2, 181)
        for offset in np.arange(-180, 181, _LINES):
            x, y = 2 * offset / 180 * np.cos(theta), np.sin(theta)
            edge = abs(offset) == 180
            axes.plot(-x, y, **({**style, "color": MUTED} if edge else style))
            if not edge:
                self._longitude(axes, float(offset))
        latitudes = np.arcsin((2 * theta + np.sin(2 * theta)) / np.pi)
        for latitude in np.arange(-60, 61, _LINES):
            at = np.interp(np.radians(latitude), latitudes, theta)
            x = np.linspace(-2, 2, 181) * np.cos(at)
            y = np.full_like(x, np.sin(at))
            axes.plot(x, y, **style)
            self._latitude(axes, x, y, f"{latitude:+d}°" if latitude else "0°")

    def _longitude(self, axes: Axes, offset: float) -> None:
        """Write a meridian's longitude on the parallel nearest to the middle of the box."""
        y = float(np.clip((self.box[2] + self.box[3]) / 2, -0.9, 0.9))
        x = -2 * offset / 180 * np.sqrt(1 - y * y)
        wide = self.box[1] - self.box[0] > _WIDE
        if self.box[0] < x < self.box[1] and not (wide and offset % (2 * _LINES)):
            axes.annotate(f"{(self.centre + offset) % 360:.0f}°", (x, y), ha="center", va="center",
                          fontsize=7.5, color=INK, zorder=3)  # fmt: skip

    def _latitude(self, axes: Axes, x: np.ndarray, y: np.ndarray, text: str) -> None:
        """Write a parallel's latitude where it leaves the box at the left."""
        inside = (x >= self.box[0]) & (x <= self.box[1]) & (self.box[2] < y) & (y < self.box[3])
        if inside.any():
            at = np.flatnonzero(inside)[0]
            axes.annotate(text, (x[at], y[at]), (-2, 0), textcoords="offset points", ha="right",
                          va="center", fontsize=7.5, color=MUTED,
                          annotation_clip=False)  # fmt: skip
