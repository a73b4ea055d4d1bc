"""The sources of a synthetic brick: stars, and one population of galaxies, some of them injected.

Real and injected galaxies are drawn together and then get random labels. Without a planted
difference the classes are therefore exchangeable, and no statistic can separate them except by
chance. Neighbouring bricks are drawn independently, also where they overlap.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from skyproof.core.errors import UsageError
from skyproof.obiwan.bricks.grid import PIXEL_SCALE
from skyproof.obiwan.catalogue.draws import draw_magnitudes, positions_apart
from skyproof.sky.profiles import Shapes, half_light_radius

if TYPE_CHECKING:
    from skyproof.obiwan.options import Simulate

Magnitudes = dict[str, np.ndarray]

_DISC, _BULGE_AND_DISC = 0.6, 0.25  # fractions of the population; the rest is de Vaucouleurs
_TARGETS = 0.85  # fraction of galaxies with colours of emission-line galaxies; the rest is red
_STAR_MAG = (16.0, 20.0)  # bright stars: all brighter than the selection's limits
_DWARF_MAG = (20.0, 22.5)  # M dwarfs: redder in g-r than the selection's colour box


class BrickGalaxies(NamedTuple):
    """True properties of the galaxies of a brick, arrays [n]."""

    x: np.ndarray  # 0-based pixel
    y: np.ndarray
    mag: Magnitudes  # AB, outside the Galaxy
    shapes: Shapes
    r_half: np.ndarray  # half-light radius along the major axis [arcsec]
    injected: np.ndarray  # bool


class Stars(NamedTuple):
    """Stars of a brick, arrays [n]."""

    x: np.ndarray
    y: np.ndarray
    mag: Magnitudes


def check_options(options: Simulate) -> None:
    """Raise UsageError for a population that cannot be drawn."""
    if options.mag_min >= options.mag_max:
        raise UsageError(f"mag_min {options.mag_min} is not below mag_max {options.mag_max}")
    # Random sequential placement of discs without overlap ends at 55 % of the area; well below
    # this limit it is fast.
    n = options.n_real + options.n_fake
    covered = n * np.pi / 4 * (options.separation / PIXEL_SCALE / options.brick_pixels) ** 2
    if covered > 0.35:
        raise UsageError(
            f"{n} galaxies {options.separation} arcsec apart do not fit into "
            f"{options.brick_pixels} pixels; lower n_real, n_fake or separation"
        )


def draw_galaxies(options: Simulate, rng: np.random.Generator) -> BrickGalaxies:
    """Draw real and injected galaxies; the only planted difference here is `colour_offset`."""
    n = options.n_real + options.n_fake
    edge = options.brick_pixels - 0.5
    candidates = (rng.uniform(-0.5, edge, 2) for _ in itertools.count())
    x, y = positions_apart(candidates, n, options.separation / PIXEL_SCALE)
    g = draw_magnitudes(n, options.mag_min, options.mag_max, options.count_slope, rng)
    shapes = draw_shapes(g, options.radius, rng)
    r_half = half_light_radius(shapes)
    gr, rz = draw_colours(r_half, rng)
    injected = rng.permutation(n) < options.n_fake
    gr = gr + np.where(injected, options.colour_offset, 0.0)
    return BrickGalaxies(x, y, _bands(g, gr, rz), shapes, r_half, injected)


def draw_shapes(g: np.ndarray, median: float, rng: np.random.Generator) -> Shapes:
    """Draw discs (60 %), discs with a bulge (25 %), de Vaucouleurs galaxies (15 %).

    The median half-light radius is `median` [arcsec] at g = 22 and decreases by 0.06 dex per
    magnitude, with a scatter of 0.12 dex. Axis ratios are U(0.2, 1), as of Obiwan's emission-line
    galaxies.
    """
    n = len(g)
    log_radius = np.log10(median) - 0.06 * (g - 22) + 0.12 * rng.standard_normal(n)
    radius = np.clip(10**log_radius, 0.25, 1.9)
    kind = rng.uniform(size=n)
    mixed = (kind >= _DISC) & (kind < _DISC + _BULGE_AND_DISC)
    bulge_share = np.where(mixed, rng.uniform(0.1, 0.5, n), np.where(kind < _DISC, 0.0, 1.0))
    bulge_radius = np.where(mixed, radius * rng.uniform(0.3, 0.7, n), radius)
    return Shapes(radius, bulge_radius, bulge_share, rng.uniform(0.2, 1, n), rng.uniform(0, 180, n))


def draw_colours(r_half: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw g-r and r-z: 85 % of emission-line galaxies, 15 % red; large galaxies are redder."""
    n = len(r_half)
    target = rng.uniform(size=n) < _TARGETS
    gr = np.where(target, 0.45, 1.55) + 0.12 * rng.standard_normal(n)
    rz = np.where(target, 0.85, 1.10) + 0.18 * rng.standard_normal(n)
    return gr + 0.2 * np.log10(r_half / 0.9), rz


def draw_stars(options: Simulate, rng: np.random.Generator) -> Stars:
    """Draw stars that the selection for stamps excludes: bright ones and, one third, M dwarfs.

    A selected star would be a 'real' source without an injected counterpart.
    """
    n = options.n_stars
    x, y = rng.uniform(-0.5, options.brick_pixels - 0.5, (2, n))
    dwarf = rng.uniform(size=n) < 1 / 3
    slope = 0.2
    bright = draw_magnitudes(n, *_STAR_MAG, slope, rng)
    faint = draw_magnitudes(n, *_DWARF_MAG, slope, rng)
    temperature = rng.uniform(size=n)  # 0 a hot star of the main sequence, 1 a cool one
    gr = np.where(dwarf, 1.5 + 0.05 * rng.standard_normal(n), 0.25 + 1.1 * temperature)
    rz = np.where(dwarf, 1.2 + 0.6 * temperature, 0.05 + 0.65 * temperature)
    return Stars(x, y, _bands(np.where(dwarf, faint, bright), gr, rz))


def _bands(g: np.ndarray, gr: np.ndarray, rz: np.ndarray) -> Magnitudes:
    r = g - gr
    return {"g": g, "r": r, "i": r - 0.45 * rz, "z": r - rz}
